/** The whole panel. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { Connect } from "./Connect";
import type { Control } from "./control";
import type { Memory, TabName } from "./memory";
import { EnvironmentProvider, useEnvironment } from "./environment";
import { Glyph } from "./glyphs";
import { Guard } from "./Guard";
import { Header } from "./Header";
import { Members } from "./Members";
import { Button } from "./parts";
import { Lend } from "./Lend";
import { Offers } from "./Offers";
import { Finished, Pending } from "./Tasks";
import { Later, RestProvider } from "./Later";
import type { Rest } from "./rest";
import { ended, unconnected, unfinished } from "./summary";
import { Tabs, type Tab } from "./Tabs";
import type { Translate } from "./words";

export function Panel({ control, rest, t, compact, label }: {
  control: Control;
  rest: Rest;
  t: Translate;
  compact: boolean;
  label: string;
}) {
  const [, draw] = useState(0);
  useLayoutEffect(() => control.subscribe(() => draw((n) => n + 1)), [control]);
  const panel = useRef<HTMLElement>(null);
  useEffect(() => compact || panel.current === null ? undefined : keepHeight(panel.current, control.memory), [control, compact]);
  const { link, store, known } = control;
  const without = unconnected(store);
  // A closed cluster's tasks stay visible until another cluster is connected.
  const past = store.cluster.state === "closed" && store.tasks.size > 0;
  const live = link.state === "open" && control.stale === undefined;
  return (
    <EnvironmentProvider value={{ control, t }}><RestProvider value={rest}>
      <section
        class={`p2p-panel${compact ? " p2p-fills" : ""}${live || !known ? "" : " p2p-past"}${without && !past ? " p2p-without" : ""}`}
        aria-label={label}
        data-link={link.state}
        data-cluster={store.cluster.state}
        ref={panel}
      >
        <Guard><Header /></Guard>
        <Notices ok={false} />
        {link.state === "absent" || !known ? null : (
          <Guard>
            <Waiting />
            {without ? <><Connect /><Lend /></> : null}
            {past ? <h3 class="p2p-closed">{t("%1, closed", store.cluster.title)}</h3> : null}
            {past || !without ? <Views /> : null}
          </Guard>
        )}
        <div class="p2p-over"><Notices ok /></div>
        <div class="p2p-unseen" role="status" aria-live="polite">{control.spoken}</div>
      </section>
    </RestProvider></EnvironmentProvider>
  );
}

/** The limit, in pixels, up to which a height counts: parts that are open only for a while don't. */
const HIGHEST = 390;

/** Let the panel grow with its content, but not shrink: the page below it would jump. */
function keepHeight(panel: HTMLElement, memory: Memory): (() => void) | undefined {
  if (typeof ResizeObserver === "undefined") {
    return undefined;
  }
  const keep = (): void => panel.style.setProperty("--p2p-had", `${memory.high}px`);
  keep();
  const observer = new ResizeObserver(() => {
    const high = Math.min(HIGHEST, Math.round(panel.getBoundingClientRect().height));
    if (high > memory.high && panel.style.height === "" && !panel.classList.contains("p2p-without")) {
      memory.high = high;
      keep();
    }
  });
  observer.observe(panel);
  return () => observer.disconnect();
}

const VIEWS = {
  tasks: () => <Pending />, finished: () => <Finished />, members: () => <Members />, offers: (closed: boolean) => <Offers lend={!closed} />,
  timeline: () => <Later>{({ Timeline }) => <Timeline />}</Later>
};

function Views() {
  const { control, t } = useEnvironment();
  const { store, memory } = control;
  const [tab, setTab] = useState<TabName>(memory.tab);
  const { counts } = store;
  const closed = store.cluster.state === "closed";
  const all: Array<Tab<TabName>> = [
    { name: "tasks", title: t("Tasks"), count: unfinished(store) },
    { name: "finished", title: t("Finished"), count: ended(store), alarm: counts.failed, alarmWord: t("failed") },
    { name: "members", title: t("Members"), count: store.members.size },
    { name: "offers", title: t("Offers"), count: store.offers.size },
    { name: "timeline", title: t("Timeline") }
  ];
  const tabs = closed ? all.filter(({ count }) => count !== 0) : all; // nothing more comes to where there is nothing
  const chosen = tabs.find(({ name }) => name === tab) ?? tabs[0];
  const shown = chosen?.name ?? tab;
  return (
    <Tabs<TabName>
      label={t("Views of the cluster")}
      tabs={tabs}
      chosen={shown}
      onChoose={(name) => {
        memory.tab = name;
        setTab(name);
      }}
    >
      <Guard key={shown}>{VIEWS[shown](closed)}</Guard>
    </Tabs>
  );
}

/** People who wait for a yes or no, and their tasks. */
function Waiting() {
  const { visitors, questions } = useEnvironment().control.store;
  return visitors.items.length + questions.items.length > 0 ? <Later>{({ Questions, Visitors }) => <><Visitors /><Questions /></>}</Later> : null;
}

/** Outcomes of actions. Good ones lie above the content, which would jump otherwise, and disappear by themselves. */
function Notices({ ok }: { ok: boolean }) {
  const { control, t } = useEnvironment();
  return (
    <>
      {control.notices.filter((notice) => notice.ok === ok).map((notice) => (
        <div key={notice.id} class={`p2p-notice${notice.ok ? "" : " p2p-bad"}`}>
          <p>{notice.ok ? "" : <strong>{t("That failed.")} </strong>}{notice.text}</p>
          <Button kind="quiet" name={t("Dismiss: %1", notice.text)} onClick={() => control.dismiss(notice.id)}><Glyph name="cross" /></Button>
        </div>
      ))}
    </>
  );
}
