/** Where the time went: the last tasks, worker by worker. */

import { Component, type ComponentChildren, type TargetedKeyboardEvent } from "preact";
import { useRef, useState } from "preact/hooks";

import { Ticking, useEnvironment, useOwnId } from "./environment";
import { gantt, step, type Bar, type Gantt } from "./gantt";
import { Button, Empty } from "./parts";
import { duration, join, tasks, workers, type Translate } from "./words";

/** So many tasks are drawn. */
const LAST = 200;
const ROW = 18;

/** The visible part: `span` seconds that end `back` seconds before the end; without, all of it. */
interface Window {
  span: number;
  back: number;
}

export function Timeline() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const [view, setView] = useState<Window>();
  const [chosen, setChosen] = useState("");
  const last = store.begun.items.slice(-LAST);
  if (last.length === 0) {
    return (
      <Empty title={t("No task has begun yet.")}>
        {t("Once tasks have run, this chart shows how long each one waited, travelled, ran and returned, worker by worker.")}
      </Empty>
    );
  }
  const slots = (worker: string): number => {
    for (const member of store.members.values()) {
      if (member.name === worker) {
        return member.slots;
      }
    }
    return 0;
  };
  const draw = (now: number) => (
    <Picture picture={gantt(last, now, slots)} view={view} onView={setView} chosen={chosen} onChoose={setChosen} />
  );
  // Once a second is often enough, however many deltas come.
  return <Ticking>{(now) => <Slowly key="picture" now={Math.floor(now)} of={`${chosen} ${JSON.stringify(view)} ${last.length === LAST}`} draw={() => draw(now)} />}</Ticking>;
}

/** The legend, in the words of `Cluster.timeline()`; some entries only if the picture has such pieces. */
const LEGEND = [
  ["waited", "waited"], ["travelled", "way there"], ["ran", "ran"], ["running", "runs"], ["returned", "way back"], ["failed", "failed"],
  ["cancelled", "cancelled"], ["lost", "worker lost"]
] as const;

type PieceName = (typeof LEGEND)[number][0];

const SOME: ReadonlySet<PieceName> = new Set<PieceName>(["running", "failed", "cancelled", "lost"]);

/** The look of a task's time at its worker. */
function outcome({ task: { state }, lost }: Bar): PieceName {
  return lost ? "lost" : state === "failed" || state === "cancelled" ? state : state === "done" ? "ran" : "running";
}

/** Drawn again only when the second or its content has changed. */
class Slowly extends Component<{ now: number; of: string; draw: () => ComponentChildren }> {
  override shouldComponentUpdate(next: { now: number; of: string }): boolean {
    return next.now !== this.props.now || next.of !== this.props.of;
  }

  override render() {
    return this.props.draw();
  }
}

function Picture({ picture, view, onView, chosen, onChoose }: {
  picture: Gantt;
  view: Window | undefined;
  onView: (view: Window | undefined) => void;
  chosen: string;
  onChoose: (task: string) => void;
}) {
  const { t } = useEnvironment();
  const id = useOwnId();
  const whole = Math.max(picture.to - picture.from, 0.01);
  const span = Math.min(view?.span ?? whole, whole);
  const to = picture.to - (view?.back ?? 0);
  const from = to - span;
  const at = (time: number): number => ((time - from) / span) * 100;
  const look = (factor: number, shift: number, around = 0.5): void => {
    const wide = Math.min(whole, Math.max(span * factor, 0.005));
    const right = to - (1 - around) * (span - wide) + shift * span;
    const back = Math.min(Math.max(0, picture.to - right), whole - wide);
    onView(wide >= whole ? undefined : { span: wide, back });
  };
  const bars = picture.bars.filter((bar) => bar.ended >= from && bar.idle <= to);
  const place = picture.bars.findIndex((bar) => bar.id === chosen);
  const bar = picture.bars[place];
  const told = useRef({ of: "", words: "" }); // screen readers hear a new choice, not each second
  if (told.current.of !== chosen) {
    told.current = { of: chosen, words: bar === undefined ? "" : `${bar.task.label} ${barWords(bar, t)}` };
  }
  const every = step(span, 5);
  const ticks: number[] = [];
  for (let time = Math.ceil((from - picture.from) / every) * every; time <= to - picture.from + 1e-9; time += every) {
    ticks.push(time);
  }
  const onKeyDown = (event: TargetedKeyboardEvent<HTMLDivElement>): void => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined && event.shiftKey) {
      look(1, step / 4);
    } else if (step !== undefined) {
      const next = picture.bars[place < 0 ? picture.bars.length - 1 : Math.min(picture.bars.length - 1, Math.max(0, place + step))];
      if (next !== undefined) {
        onChoose(next.id);
        if (next.ended < from || next.sent > to) {
          onView({ span, back: Math.min(whole - span, Math.max(0, picture.to - (next.sent + next.ended) / 2 - span / 2)) });
        }
      }
    } else if (event.key === "+" || event.key === "=") {
      look(0.5, 0);
    } else if (event.key === "-") {
      look(2, 0);
    } else if (event.key === "0") {
      onView(undefined);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  const summary = t("%1 on %2 in %3.", tasks(picture.bars.filter(({ lost }) => !lost).length, t), workers(picture.lanes.length, t), duration(whole));
  return (
    <>
      <div class="p2p-bar">
        <span class="p2p-legend" aria-hidden="true">
          {LEGEND.filter(([name]) => !SOME.has(name) || picture.bars.some((bar) => outcome(bar) === name)).map(([name, word]) => (
            <span key={name}><svg width="18" height="14"><Piece name={name} x="1" width="16" y={0} id={id} /></svg>{t(word)}</span>
          ))}
        </span>
        <span class="p2p-actions">
          <Button name={t("Zoom in")} onClick={() => look(0.5, 0)}>+</Button>
          <Button name={t("Zoom out")} disabled={view === undefined} onClick={() => look(2, 0)}>−</Button>
          <Button name={t("Earlier")} disabled={view === undefined || from <= picture.from + 1e-9} onClick={() => look(1, -0.5)}>←</Button>
          <Button name={t("Later")} disabled={view === undefined || view.back <= 0} onClick={() => look(1, 0.5)}>→</Button>
          <Button name={t("Show all of the time")} disabled={view === undefined} onClick={() => onView(undefined)}>{t("All")}</Button>
        </span>
      </div>
      <div class="p2p-timeline">
        <div
          class="p2p-chart"
          role="group"
          tabIndex={0}
          aria-label={t("%1 Arrow keys go from task to task, plus and minus zoom, Shift with arrows moves.", summary)}
          onKeyDown={onKeyDown}
          onWheel={(event) => {
            if (event.ctrlKey) {
              event.preventDefault();
              const box = event.currentTarget.querySelector("svg")?.getBoundingClientRect();
              const around = box === undefined || box.width === 0 ? 0.5 : (event.clientX - box.left) / box.width;
              look(event.deltaY > 0 ? 1.25 : 0.8, 0, Math.min(1, Math.max(0, around)));
            }
          }}
          onPointerOver={(event) => {
            const bar = (event.target as Element).closest("[data-bar]")?.getAttribute("data-bar");
            if (typeof bar === "string") {
              onChoose(bar);
            }
          }}
        >
          <div class="p2p-lanes">
            {picture.lanes.map((lane) => (
              <div key={lane.worker} style={{ blockSize: `${lane.rows * ROW + 10}px` }}>
                <span class="p2p-label" title={lane.worker}>{lane.worker || t("somebody")}</span>
                <span class="p2p-dim">{percent(lane.used)}</span>
              </div>
            ))}
          </div>
          <svg class="p2p-bars" aria-hidden="true" height={picture.rows * ROW + picture.lanes.length * 10}>
            <defs>
              <pattern id={`${id}-hatch`} width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
                <rect class="p2p-travelled" width="2.5" height="5" />
              </pattern>
              <pattern id={`${id}-dots`} width="4" height="4" patternUnits="userSpaceOnUse">
                <circle class="p2p-returned" cx="2" cy="2" r="1.35" />
              </pattern>
              <pattern id={`${id}-cross`} width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">
                <rect class="p2p-failed" width="5" height="5" />
                <rect class="p2p-gash" width="1.2" height="5" />
              </pattern>
              <pattern id={`${id}-net`} width="5" height="5" patternUnits="userSpaceOnUse">
                <path class="p2p-lost" d="M0 0l5 5M5 0l-5 5" />
              </pattern>
            </defs>
            {ticks.map((time) => <line key={time} class="p2p-tick" x1={`${at(picture.from + time)}%`} x2={`${at(picture.from + time)}%`} y1="0" y2="100%" />)}
            {bars.map((each) => <Pieces key={each.id} bar={each} y={top(each, picture)} at={at} id={id} chosen={each.id === chosen} />)}
          </svg>
          <div class="p2p-axis" aria-hidden="true">
            {ticks.map((time) => <span key={time} style={{ insetInlineStart: `${at(picture.from + time)}%` }}>{axisWords(time, every)}</span>)}
          </div>
        </div>
        <p class="p2p-hovered">
          {bar === undefined ? <span class="p2p-dim">{summary}</span> : <><strong class="p2p-label">{bar.task.label}</strong> {barWords(bar, t)}</>}
        </p>
        <p class="p2p-unseen" role="status">{told.current.words}</p>
        <details class="p2p-means">
          <summary>{t("As a table")}</summary>
          <table>
            <caption class="p2p-unseen">{t("How well the workers were used")}</caption>
            <thead>
              <tr>{[t("Worker"), t("Tasks"), t("Used"), t("Waited"), t("Way there"), t("Ran"), t("Way back")].map((title) => <th key={title} scope="col">{title}</th>)}</tr>
            </thead>
            <tbody>
              {picture.lanes.map((lane) => (
                <tr key={lane.worker}>
                  <th scope="row">{lane.worker || t("somebody")}</th>
                  {[lane.bars, percent(lane.used), duration(lane.waited), duration(lane.travelled), duration(lane.ran), duration(lane.returned)].map((text, index) => <td key={index}>{text}</td>)}
                </tr>
              ))}
            </tbody>
          </table>
        </details>
      </div>
    </>
  );
}

function Pieces({ bar, y, at, id, chosen }: { bar: Bar; y: number; at: (time: number) => number; id: string; chosen: boolean }) {
  const piece = (name: PieceName, from: number, to: number) =>
    to > from ? <Piece name={name} x={`${at(from)}%`} width={`${Math.max(at(to) - at(from), 0)}%`} y={y} id={id} /> : null;
  return (
    <g data-bar={bar.id} class={`p2p-run${chosen ? " p2p-chosen" : ""}`}>
      {piece("waited", chosen ? bar.ready : bar.idle, chosen ? bar.sent : bar.way)}
      {piece("travelled", chosen ? bar.sent : bar.way, bar.started)}
      {piece(outcome(bar), bar.started, bar.back)}
      {piece("returned", bar.back, bar.ended)}
      <rect class="p2p-handle" x={`${at(bar.way)}%`} width={`${Math.max(at(bar.ended) - at(bar.way), 0.25)}%`} y={y} height="14" rx="2" />
    </g>
  );
}

/** Told apart by height and pattern, not by colour alone. */
function Piece({ name, x, width, y, id }: { name: PieceName; x: string; width: string; y: number; id: string }) {
  const [offset, high, pattern] = SHAPES[name] ?? [0, 14];
  return <rect class={`p2p-${name}`} x={x} width={width} y={y + offset} height={high} fill={pattern === undefined ? undefined : `url(#${id}-${pattern})`} />;
}

/** How far below the top of its row a piece begins, how high it is, and its pattern. */
const SHAPES: Partial<Record<PieceName, readonly [number, number, string?]>> = {
  waited: [6, 2], travelled: [3, 8, "hatch"], returned: [3, 8, "dots"], failed: [0, 14, "cross"], lost: [0, 14, "net"]
};

/** Where a task was and how long each part of it took. */
function barWords({ task, worker, lost, ready, sent, started, back, ended }: Bar, t: Translate): string {
  return join(
    " ", t("on %1, %2:", worker, lost ? t("lost") : t(task.state)),
    join(
      ", ", task.submitted > 0 && t("waited %1", duration(sent - ready)), t("way there %1", duration(started - sent)),
      t("ran %1", duration(back - started)), ended > back && t("way back %1", duration(ended - back))
    )
  );
}

function top(bar: Bar, picture: Gantt): number {
  const lane = picture.lanes.findIndex((each) => bar.row >= each.row && bar.row < each.row + each.rows);
  return bar.row * ROW + lane * 10 + 7;
}

function percent(share: number): string {
  return `${Math.round(share * 100)}\u202f%`;
}

function axisWords(seconds: number, every: number): string {
  if (every < 1) {
    return every >= 0.1 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds * 1000)} ms`;
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  const minutes = whole / 60;
  return every >= 3600 ? `${Math.round(minutes / 60)} h` : every >= 60 ? `${Math.round(minutes)} min`
    : `${Math.floor(minutes)}:${String(whole % 60).padStart(2, "0")}`;
}
