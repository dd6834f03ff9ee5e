/** The details of one task: its times, its source, its output. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Shown } from "./contract";
import { Details, Facts } from "./details";
import { Ticking, useAlive, useEnvironment } from "./environment";
import { Button } from "./parts";
import { isOver, type Task } from "./rows";
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
  const asked = useRef({ state: "", said: "", at: -Infinity });

  const ask = async (): Promise<void> => {
    asked.current = { state: task.state, said: task.said, at: Date.now() };
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
    const { state, said, at } = asked.current;
    if (!mayShow) {
      return undefined;
    }
    if (state === "" || (over && state !== task.state)) {
      void ask();
    } else if (said !== task.said) {
      const timer = setTimeout(() => void ask(), Math.max(0, at + EVERY - Date.now()));
      return () => clearTimeout(timer);
    }
    return undefined;
  }, [mayShow, task.state, task.said]);

  const now = control.clock.now();
  const told = task.state === "waiting" || task.state === "stopping" || task.state === "cancelled";
  const why = told ? taskWords(task, control.store.cluster.reasons, t) : "";
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
            <Button name={t("Show the output of %1 again", task.label)} onClick={() => void ask()}>{t("Refresh")}</Button>
          ) : null}
          {!over && task.state !== "stopping" && control.can("cancel") ? (
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
          [t("State"), t(task.state)],
          [t("Why"), why === t(task.state) ? "" : why],
          [t("Worker"), task.worker],
          [t("Attempt"), task.attempt > 1 ? task.attempt : ""],
          [t("Submitted"), task.submitted > 0 ? clockTime(task.submitted, now) : ""],
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
          [t("Sent"), task.sizeIn > 0 ? size(task.sizeIn) : ""],
          [t("Received"), task.sizeOut > 0 ? size(task.sizeOut) : ""]
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

/** Milliseconds between two looks at a task's output. */
const EVERY = 1000;

function Contents({ shown }: { shown: Shown }) {
  const { t } = useEnvironment();
  return (
    <>
      {shown.outputs.length === 0 && shown.error === "" ? null : <h4>{t("Output")}</h4>}
      {shown.outputs.map((output, index) =>
        output.kind === "image" ? (
          <img key={index} class="p2p-image" alt={t("Picture from the task's output")} src={`data:${output.mime};base64,${output.data}`} />
        ) : (
          <Output key={index} text={output.text} wrong={output.kind === "stream" && output.name === "stderr"} />
        )
      )}
      {shown.error === "" ? null : <pre class="p2p-error" tabIndex={0}>{shown.error}</pre>}
      {shown.source === "" ? null : (
        <>
          <h4>{t("Source")}</h4>
          <pre class="p2p-source" tabIndex={0}>{shown.source}</pre>
        </>
      )}
    </>
  );
}

/** It stays at its end while more comes, unless somebody has scrolled to another place. */
function Output({ text, wrong }: { text: string; wrong: boolean }) {
  const element = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    if (element.current !== null && atEnd.current) {
      element.current.scrollTop = element.current.scrollHeight;
    }
  }, [text]);
  return (
    <pre
      class={`p2p-output${wrong ? " p2p-stderr" : ""}`}
      tabIndex={0}
      ref={element}
      onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
        atEnd.current = scrollTop + clientHeight > scrollHeight - 4;
      }}
    >
      {text}
    </pre>
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
