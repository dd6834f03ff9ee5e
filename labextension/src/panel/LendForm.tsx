/** The form to lend this machine. */

import { useState } from "preact/hooks";

import { useAlive, useEnvironment, useOwnId } from "./environment";
import { Button } from "./parts";
import { person } from "./words";

/** The choice that is no sandbox. */
const NO_WALL = "process";

export function LendForm({ titles, onClose }: { titles: readonly string[]; onClose: () => void }) {
  const { control, t } = useEnvironment();
  const { means, cluster, members } = control.store;
  const alive = useAlive();
  const id = useOwnId();
  const here = cluster.kind === "shared" ? cluster.title : "";
  const [title, setTitle] = useState(titles[0] ?? "");
  const [count, setCount] = useState("1");
  const [hours, setHours] = useState("4");
  const [only, setOnly] = useState<readonly string[]>([]);
  const [tags, setTags] = useState("");
  const [chosen, setChosen] = useState("");
  const [cpus, setCpus] = useState("");
  const [gpu, setGpu] = useState(false);
  const [ask, setAsk] = useState(false);
  const [busy, setBusy] = useState(false);
  const own = title === ""; // a cluster of one person, whose tasks are all their own
  const sandbox = chosen || (own ? NO_WALL : "auto");
  const friends = new Map<string, string>();
  if (title === here) {
    for (const member of members.values()) {
      if (!member.own && !member.me && member.key !== "") {
        friends.set(member.key, friends.get(member.key) ?? person(member.name));
      }
    }
  }
  const lend = async (): Promise<void> => {
    setBusy(true);
    const did = await control.perform("lend", {
      title, slots: Number(count), hours: Number(hours), only: only.filter((key) => friends.has(key)),
      tags: tags.toLowerCase().split(/[\s,]+/).filter((tag) => tag !== ""), sandbox, gpu,
      cpus: Number(cpus), ask: ask && !own
    });
    if (alive.current) {
      setBusy(false);
      if (did.ok) {
        onClose();
      }
    }
  };
  return (
    <form
      class="p2p-form p2p-lend"
      aria-label={t("Lend this machine")}
      onSubmit={(event) => {
        event.preventDefault();
        void lend();
      }}
    >
      <div class="p2p-fields">
        <label for={`${id}-to`}>{t("To")}</label>
        <select id={`${id}-to`} class="p2p-input" value={title} onChange={(event) => setTitle(event.currentTarget.value)}>
          {titles.map((each) => <option key={each} value={each}>{each || cluster.title}</option>)}
        </select>
        <label for={`${id}-slots`}>{t("Tasks at once")}</label>
        <input
          id={`${id}-slots`} class="p2p-input" type="number" min="1" max={Math.max(1, means.cores)} required value={count}
          onInput={(event) => setCount(event.currentTarget.value)}
        />
        <label for={`${id}-hours`}>{t("Until")}</label>
        <select id={`${id}-hours`} class="p2p-input" value={hours} onChange={(event) => setHours(event.currentTarget.value)}>
          <option value="1">{t("in 1 hour")}</option>
          <option value="4">{t("in 4 hours")}</option>
          <option value="12">{t("in 12 hours")}</option>
          <option value="0">{t("open end")}</option>
        </select>
        <label for={`${id}-tags`}>{t("Good for")}</label>
        <input
          id={`${id}-tags`} class="p2p-input" value={tags} placeholder={t("gpu, big-memory")} maxLength={200} autocomplete="off" spellcheck={false}
          onInput={(event) => setTags(event.currentTarget.value)}
        />
        <label for={`${id}-cpus`}>{t("Cores of a task")}</label>
        <input
          id={`${id}-cpus`} class="p2p-input" type="number" min="0.1" max={Math.max(1, means.cores)} step="0.1" value={cpus} placeholder={t("all")}
          onInput={(event) => setCpus(event.currentTarget.value)}
        />
        <label for={`${id}-gpu`}>{t("Graphics cards")}</label>
        <label class="p2p-check">
          <input id={`${id}-gpu`} type="checkbox" checked={gpu} onChange={(event) => setGpu(event.currentTarget.checked)} />
          {t("Tasks may use them")}
        </label>
        {own ? null : (
          <>
            <label for={`${id}-ask`}>{t("Your yes")}</label>
            <label class="p2p-check">
              <input id={`${id}-ask`} type="checkbox" checked={ask} onChange={(event) => setAsk(event.currentTarget.checked)} />
              {t("Ask me before each task")}
            </label>
          </>
        )}
        <label for={`${id}-sandbox`}>{t("Sandbox")}</label>
        <select id={`${id}-sandbox`} class="p2p-input" aria-describedby={`${id}-about`} value={sandbox} onChange={(event) => setChosen(event.currentTarget.value)}>
          {means.sandboxes.map((each) => (
            <option key={each} value={each}>
              {each === "auto" ? t("auto: the first that works here") : each === NO_WALL ? t("%1: no protection", each) : each}
            </option>
          ))}
        </select>
      </div>
      <p id={`${id}-about`} class={sandbox === NO_WALL && !own ? "p2p-note" : "p2p-dim"}>
        {sandbox !== NO_WALL ? t("Tasks run in a sandbox: your files, keys and network are out of their reach.")
          : own ? t("Only your own tasks run here. They run as you, as in a terminal of this machine.")
          : t("Friends' tasks run here as you, with your files within their reach: lend to people whom you would lend the machine.")}
      </p>
      {friends.size === 0 ? null : (
        <fieldset>
          <legend>{t("For whom (everybody, if you choose nobody)")}</legend>
          {[...friends].map(([key, name]) => (
            <label key={key} class="p2p-check" title={key}>
              <input
                type="checkbox"
                checked={only.includes(key)}
                onChange={(event) => setOnly(event.currentTarget.checked ? [...only, key] : only.filter((each) => each !== key))}
              />
              {name}
            </label>
          ))}
        </fieldset>
      )}
      <p class="p2p-row">
        <Button type="submit" kind="strong" disabled={busy || titles.length === 0}>{busy ? t("Starting a worker …") : t("Lend")}</Button>
        <Button name={t("Don't lend this machine")} onClick={onClose}>{t("Never mind")}</Button>
      </p>
    </form>
  );
}
