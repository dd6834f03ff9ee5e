/** All there is to know of one task: its times, its source, what it has put out. */

import { useEffect, useRef, useState } from "preact/hooks";

import type { Shown } from "./contract";
import { Ticking, useAlive, useEnvironment } from "./environment";
import { Button, Details, Facts } from "./parts";
import { isOver, type Task } from "./store";
import { clockTime, duration, elapsed, size, taskWords } from "./words";

export function TaskDetails({ task, onClose }: { task: Task; onClose: () => void }) {
  const { control, t } = useEnvironment();
  const { transport } = control;
  const over = isOver(task.state);
  const mayShow = control.can("show");
  const alive = useAlive();
  const [shown, setShown] = useState<Shown>();
  const [trouble, setTrouble] = useState("");
  const [asking, setAsking] = useState(false);
  const asked = useRef("");

  const ask = async (): Promise<void> => {
    asked.current = task.state;
    setAsking(true);
    const did = await control.request("show", { task: task.id });
    if (!alive.current) {
      return;
    }
    setAsking(false);
    const what = did.ok ? asShown(did.data) : undefined;
    setShown(what);
    setTrouble(what === undefined ? did.say : "");
  };
  useEffect(() => {
    if (mayShow && (asked.current === "" || (over && asked.current !== task.state))) {
      void ask();
    }
  }, [mayShow, task.state]);

  const now = control.clock.now();
  const began = task.started || task.sent;
  return (
    <Details
      title={task.label}
      onClose={onClose}
      actions={
        <>
          {task.cell !== "" && transport.reveal !== undefined ? (
            <Button name={t("Go to the cell of %1", task.label)} onClick={() => transport.reveal?.(task.cell)}>{t("Go to cell")}</Button>
          ) : null}
          {mayShow && !over && shown !== undefined ? (
            <Button disabled={asking} name={t("Show the output of %1 again", task.label)} onClick={() => void ask()}>{t("Refresh")}</Button>
          ) : null}
          {!over && control.can("cancel") ? (
            control.undo.has(task.id) ? (
              <Button kind="strong" name={t("Undo: don't cancel %1", task.label)} onClick={() => control.undo.stop(task.id)}>{t("Undo")}</Button>
            ) : (
              <Button name={t("Cancel %1", task.label)} onClick={() => control.cancel(task.id)}>{t("Cancel")}</Button>
            )
          ) : null}
        </>
      }
    >
      <Facts
        facts={[
          [t("State"), taskWords(task, control.store.cluster.reasons, t)],
          [t("Worker"), task.worker],
          [t("Attempt"), task.attempt > 1 ? task.attempt : ""],
          [t("Announced"), task.submitted > 0 ? clockTime(task.submitted, now) : ""],
          [t("Waited"), task.submitted > 0 ? (
            task.sent > 0 ? duration(task.sent - task.submitted)
              : over ? "" : <Ticking>{(at) => elapsed(at - task.submitted)}</Ticking>
          ) : ""],
          [t("Ran"), began > 0 ? (
            task.ended > 0 ? duration(task.ran || task.ended - began)
              : task.started > 0 ? <Ticking>{(at) => elapsed(at - task.started)}</Ticking> : ""
          ) : ""],
          [t("Way there"), task.started > 0 ? duration(task.started - task.sent) : ""],
          [t("Way back"), task.started > 0 && task.ended > 0 && task.ran > 0 ? duration(Math.max(0, task.ended - task.started - task.ran)) : ""],
          [t("Size in"), task.sizeIn > 0 ? size(task.sizeIn) : ""],
          [t("Size out"), task.sizeOut > 0 ? size(task.sizeOut) : ""]
        ]}
      />
      {task.error !== "" && (shown === undefined || shown.error === "") ? <pre class="p2p-error" tabIndex={0}>{task.error}</pre> : null}
      {task.said !== "" && shown === undefined ? <pre class="p2p-output" tabIndex={0}>{task.said}</pre> : null}
      {asking && shown === undefined ? <p class="p2p-dim">{t("Asking the kernel …")}</p> : null}
      {trouble === "" ? null : <p class="p2p-dim">{trouble}</p>}
      {shown === undefined ? null : <Contents shown={shown} />}
    </Details>
  );
}

function Contents({ shown }: { shown: Shown }) {
  const { t } = useEnvironment();
  return (
    <>
      {shown.source === "" ? null : (
        <>
          <h4>{t("Source")}</h4>
          <pre class="p2p-source" tabIndex={0}>{shown.source}</pre>
        </>
      )}
      {shown.outputs.length === 0 && shown.error === "" ? null : <h4>{t("Output")}</h4>}
      {shown.outputs.map((output, index) =>
        output.kind === "image" ? (
          <img key={index} class="p2p-image" alt={t("Picture that the task has put out")} src={`data:${output.mime};base64,${output.data}`} />
        ) : (
          <pre key={index} class={`p2p-output${output.kind === "stream" && output.name === "stderr" ? " p2p-stderr" : ""}`} tabIndex={0}>
            {output.text}
          </pre>
        )
      )}
      {shown.error === "" ? null : <pre class="p2p-error" tabIndex={0}>{shown.error}</pre>}
    </>
  );
}

const IMAGES: ReadonlySet<string> = new Set(["image/png", "image/jpeg"]);
const BASE64 = /^[A-Za-z0-9+/=\s]*$/;

/** The answer to `show`, as far as it is one: a picture is a picture and nothing else. */
function asShown(data: unknown): Shown | undefined {
  if (typeof data !== "object" || data === null) {
    return undefined;
  }
  const { source, outputs, error } = data as Partial<Shown>;
  return {
    source: typeof source === "string" ? source : "",
    error: typeof error === "string" ? error : "",
    outputs: (Array.isArray(outputs) ? outputs : []).filter((output) =>
      output.kind === "image" ? IMAGES.has(output.mime) && BASE64.test(output.data) : typeof output.text === "string"
    )
  };
}
