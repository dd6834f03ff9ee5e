/** The tasks that are on their way, and those that are over. */

import { useMemo, useRef } from "preact/hooks";

import { figureColumn, wordColumn } from "./columns";
import { Ticking, useEnvironment } from "./environment";
import { Glyph } from "./glyphs";
import { Groups } from "./Groups";
import { Listing } from "./Listing";
import { Button, Confirmed, Empty, Named } from "./parts";
import type { More } from "./rest";
import { isOver, type Task } from "./rows";
import { ended, unfinished } from "./summary";
import type { Column } from "./RowView";
import { clockTime, duration, elapsed, join, progress, size, tasks, taskWords, type Translate } from "./words";

/** Tasks that are searched for a line of output, at most: those that run were submitted first. */
const LOOK = 100;

export function Pending() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const { reasons } = store.cluster;
  const mayCancel = control.can("cancel");
  const columns = useMemo((): Array<Column<Task>> => [
    { key: "task", title: t("Task"), class: "p2p-main", cell: (task) => <Name task={task} words={taskWords(task, reasons, t)} said={said(task)} /> },
    {
      key: "state", title: t("State"), class: "p2p-words p2p-wide",
      cell: (task) => <Words words={taskWords(task, reasons, t)} said={said(task)} />
    },
    figureColumn("attempt", t("Attempt"), (task) => task.attempt || "", " p2p-wider"),
    sizes(t),
    figureColumn("elapsed", t("Elapsed"), (task) => <Age task={task} />),
    {
      key: "actions", title: t("Actions"), quiet: true, class: "p2p-does",
      cell: (task, active) => control.undo.has(task.id) ? (
        <Taking task={task} active={active} />
      ) : mayCancel && task.state !== "stopping" ? (
        <Button kind="quiet p2p-cancel" active={active} name={t("Cancel %1", task.label)} onClick={() => control.cancel(task.id)}>
          {t("Cancel")}
        </Button>
      ) : null
    }
  ], [control, t, reasons, mayCancel]);
  const shown = store.pending.items;
  const tall = useRef(false); // from when there has been a line of output for it: rows that grew and shrank would jump
  tall.current ||= shown.slice(0, LOOK).some((task) => task.said !== "");
  const cancel = mayCancel ? (task: Task) => control.cancel(task.id) : undefined;
  return (
    <>
    <Groups />
    <Listing
      name="pending"
      caption={t("Tasks on their way")}
      tall={tall.current}
      columns={columns}
      sections={[{ key: "all", title: "", rows: shown }]}
      all={store.tasks}
      count={unfinished(store)}
      extra={mayCancel && shown.length > 1 ? (
        <Confirmed
          name={t("Cancel all")}
          question={t("Cancel %1? This can't be undone.", tasks(shown.length, t))}
          yes={t("Cancel all")}
          onYes={() => void control.cancelAll(shown.map(({ id }) => id))}
        >
          {t("Cancel all …")}
        </Confirmed>
      ) : undefined}
      mark={(task) => control.undo.has(task.id) ? "undo" : ""}
      onDelete={cancel}
      details={details}
    >
      <Empty title={t("No task is on its way.")} type={"%%p2p answer\n6 * 7"}>
        {t("A worker runs such a cell while you work on. answer becomes a future: answer.result() gives the value of the last line.")}
      </Empty>
    </Listing>
    </>
  );
}

export function Finished() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const columns = useMemo((): Array<Column<Task>> => [
    { key: "task", title: t("Task"), class: "p2p-main", cell: (task) => <Name task={task} words={endWords(task, t)} /> },
    wordColumn("state", t("How it ended"), (task) => endWords(task, t)),
    sizes(t),
    figureColumn("ended", t("Ended"), (task) => task.ended > 0 ? clockTime(task.ended, control.clock.now()) : "", " p2p-wider"),
    figureColumn("took", t("Took"), took)
  ], [control, t]);
  const { counts } = store;
  return (
    <Listing
      name="over"
      caption={t("Finished tasks")}
      columns={columns}
      sections={[{ key: "all", title: "", rows: store.over.items, reversed: true }]}
      all={store.tasks}
      count={ended(store)}
      details={details}
      extra={counts.failed > 0 || store.filters.onlyFailed ? (
        <label class="p2p-check">
          <input
            type="checkbox"
            checked={store.filters.onlyFailed}
            onChange={(event) => control.filter({ onlyFailed: event.currentTarget.checked })}
          />
          {t("failed only (%1)", counts.failed)}
        </label>
      ) : undefined}
    >
      <Empty title={t("No task has ended yet.")}>{t("Tasks that are done or have failed are listed here, the newest first.")}</Empty>
    </Listing>
  );
}

function details({ TaskDetails }: More, task: Task, close: () => void) {
  return <TaskDetails task={task} onClose={close} />;
}

function Name({ task, words, said }: { task: Task; words: string; said?: string }) {
  const { t } = useEnvironment();
  const done = isOver(task.state) ? undefined : task.part || progress(task.said);
  return (
    <>
      <Named
        kind={` p2p-task-${task.state}`}
        mark={<><Glyph name={task.state} /><span class="p2p-unseen">{t(task.state)}: </span></>}
        name={task.label}
        sub={words}
      />
      {said ? <code class="p2p-sub" title={task.said}>{said}</code> : null}
      {done === undefined ? null : <Progress done={done} />}
    </>
  );
}

function Words({ words, said }: { words: string; said: string }) {
  return (
    <span class="p2p-line" title={join("\n", words, said)}>
      {words}
      {said === "" ? null : <span aria-hidden="true"> · </span>}
      {said === "" ? null : <code class="p2p-said">{said}</code>}
    </span>
  );
}

/** A task's last line of output, without the bar that is drawn below it. */
function said(task: Task): string {
  if (task.at !== "" && !isOver(task.state)) {
    return task.at;
  }
  return task.said.replace(/\|[^|]*\|/, " ").trim();
}

function Progress({ done }: { done: number }) {
  const { t } = useEnvironment();
  const label = t("%1 percent done", Math.round(done * 100));
  return (
    <span class="p2p-progress" role="img" aria-label={label}>
      <span style={{ inlineSize: `${(done * 100).toFixed(0)}%` }} />
    </span>
  );
}

function Age({ task }: { task: Task }) {
  const since = task.state === "running" && task.started > 0 ? task.started : task.submitted;
  return since > 0 ? <Ticking>{(now) => elapsed(now - since)}</Ticking> : null;
}

function Taking({ task, active }: { task: Task; active: boolean }) {
  const { control, t } = useEnvironment();
  return (
    <span class="p2p-taking">
      <Ticking>{() => <span class="p2p-left">{t("cancelling in %1 s", Math.ceil(control.undo.left(task.id)))}</span>}</Ticking>
      <Button kind="strong" active={active} name={t("Undo: don't cancel %1", task.label)} onClick={() => control.undo.stop(task.id)}>
        {t("Undo")}
      </Button>
    </span>
  );
}

/** How a task ended, with its error. */
function endWords(task: Task, t: Translate): string {
  const words = taskWords(task, {}, t);
  return task.error === "" ? words : task.error;
}

function took(task: Task): string {
  const since = task.started || task.sent || task.submitted;
  return task.ended > 0 && since > 0 ? duration(task.ended - since) : "";
}

function sizes(t: Translate): Column<Task> {
  return figureColumn(
    "size", t("In, out"),
    ({ sizeIn, sizeOut }) => join("  ", sizeIn > 0 && t("↑ %1", size(sizeIn)), sizeOut > 0 && t("↓ %1", size(sizeOut))), " p2p-wider"
  );
}
