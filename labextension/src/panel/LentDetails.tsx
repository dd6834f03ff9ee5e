/** Under which policy this machine is lent to a cluster, and what has run here last. */

import { useEffect, useState } from "preact/hooks";

import type { LogEntry, Logged } from "./contract";
import { useEnvironment } from "./environment";
import type { Lending } from "./rows";
import { clockTime, duration, join, memory, size, type Translate } from "./words";

export function LentDetails({ lending }: { lending: Lending }) {
  const { control, t } = useEnvironment();
  const { id, title, conditions, logged } = lending;
  const may = control.can("log");
  const [entries, setEntries] = useState<readonly LogEntry[]>();
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    if (!may) {
      return undefined;
    }
    let wanted = true; // an answer to an older question may come later
    void control.request("log", { lending: id }).then((did) => {
      if (wanted) {
        setTrouble(did.ok ? "" : did.say);
        setEntries((before) => did.ok ? (did.data as Logged).entries : before); // from the kernel, which keeps to the contract
      }
    });
    return () => {
      wanted = false;
    };
  }, [control, id, logged, may]);
  const now = control.clock.now();
  return (
    <section class="p2p-lent-more" aria-label={t("Policy and log for %1", title)}>
      <h3>{t("Policy")}</h3>
      <pre tabIndex={0} role="region" aria-label={t("Policy for %1", title)}>{conditions || t("# no condition")}</pre>
      <h3>{t("What has run here last")}</h3>
      {trouble === "" ? null : <p class="p2p-note">{trouble}</p>}
      {entries === undefined ? <p class="p2p-dim">{t("Loading …")}</p> : entries.length === 0 ? <p class="p2p-dim">{t("Nothing yet.")}</p> : (
        <div class="p2p-log" tabIndex={0} role="region" aria-label={t("Lending log for %1", title)}>
          <table>
            <thead>
              <tr>{[t("Ended"), t("Member"), t("Task"), t("Outcome"), t("Took"), t("CPU"), t("Memory"), t("In, out")].map((head) => <th key={head} scope="col">{head}</th>)}</tr>
            </thead>
            <tbody>{entries.map((entry, index) => <tr key={index}>{cells(entry, now, t).map((text, column) => <td key={column}>{text}</td>)}</tr>)}</tbody>
          </table>
        </div>
      )}
    </section>
  );
}

/** The cells of an entry: of a task that was refused there are no figures. */
function cells(entry: LogEntry, now: number, t: Translate): string[] {
  const ran = entry.outcome !== "refused";
  return [
    clockTime(entry.time, now),
    entry.member,
    entry.label,
    join(": ", t(entry.outcome), entry.why),
    ran ? duration(entry.seconds) : "",
    entry.cpu >= 0 ? duration(entry.cpu) : "",
    entry.memory >= 0 ? memory(entry.memory) : "",
    ran ? `${size(entry.bytesIn)}, ${size(entry.bytesOut)}` : ""
  ];
}
