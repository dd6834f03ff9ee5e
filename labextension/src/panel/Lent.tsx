/** This machine, lent to a cluster: for how long, to whom, its tasks, and buttons to pause and to stop; policy and log. */

import { useState } from "preact/hooks";

import { Ticking, useEnvironment } from "./environment";
import { LentDetails } from "./LentDetails";
import { Button, Confirmed } from "./parts";
import type { Lending } from "./rows";
import { duration, elapsed, slots, tasks } from "./words";

export function Lent({ lending }: { lending: Lending }) {
  const { control, t } = useEnvironment();
  const [open, setOpen] = useState(false);
  const { id, title, name, state, busy } = lending;
  const args = { lending: id };
  return (
    <>
      <div class="p2p-bar p2p-lent" role="group" aria-label={t("This machine, lent to %1", title)}>
        <span class={`p2p-dot${state === "lending" ? " p2p-up" : state === "failed" ? "" : " p2p-unsure"}`} aria-hidden="true" />
        <div class="p2p-lent-words">
          <strong>{t("Lent to %1", title)}</strong> {t("as %1", name)}: {lending.words || state}
          <span class="p2p-dim">
            {" · "}{t("%1 of %2 busy", busy, slots(lending.slots, t))}
            {lending.only === "" ? null : ` · ${t("for %1", lending.only)}`}
            {lending.tasks > 0 ? ` · ${t("ran %1 in %2", tasks(lending.tasks, t), duration(lending.seconds))}` : null}
            {lending.until > 0 ? <Ticking>{(now) => ` · ${t("for %1 more", elapsed(lending.until - now))}`}</Ticking> : null}
            {lending.policy === "" ? null : ` · ${lending.policy}`}
          </span>
          {lending.news.length === 0 ? null : (
            <ul class="p2p-news" aria-label={t("News for you")}>{lending.news.map((words, index) => <li key={index}>{words}</li>)}</ul>
          )}
          {!control.can("welcome") ? null : Object.entries(lending.unknown).map(([key, who]) => (
            <p key={key} class="p2p-row">
              {t("You don't know %1 yet: their tasks don't run here.", who)}
              <Button name={t("Know %1 in %2 from now on", who, title)} onClick={() => void control.perform("welcome", { lending: id, key })}>
                {t("Welcome %1", who)}
              </Button>
              <code class="p2p-dim">{key}</code>
            </p>
          ))}
        </div>
        <span class="p2p-actions">
          {control.can("log") ? (
            <Button expanded={open} name={t("Policy and log of lending to %1", title)} onClick={() => setOpen(!open)}>{t("Log")}</Button>
          ) : null}
          {state === "lending" && control.can("pause") ? (
            <Button name={t("Pause lending to %1", title)} onClick={() => void control.perform("pause", args)}>{t("Pause")}</Button>
          ) : null}
          {state === "paused" && control.can("resume") ? (
            <Button kind="strong" name={t("Resume lending to %1", title)} onClick={() => void control.perform("resume", args)}>{t("Resume")}</Button>
          ) : null}
          {state === "ending" || !control.can("stop") ? null : (
            <Confirmed
              name={t("Stop lending to %1", title)}
              needed={busy > 0}
              question={busy > 0 ? t("%1 running here for others. Stop?", tasks(busy, t)) : t("Stop?")}
              yes={t("Stop")}
              onYes={() => void control.perform("stop", args)}
            >
              {t("Stop")}
            </Confirmed>
          )}
        </span>
      </div>
      {open ? <LentDetails lending={lending} /> : null}
    </>
  );
}
