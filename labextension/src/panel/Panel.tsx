/** The whole panel. */

import { useLayoutEffect, useState } from "preact/hooks";

import { Connect } from "./Connect";
import type { Control, TabName } from "./control";
import { EnvironmentProvider, useEnvironment } from "./environment";
import { Glyph } from "./glyphs";
import { Header } from "./Header";
import { Members } from "./Members";
import { Button } from "./parts";
import { Lend } from "./Lend";
import { Offers } from "./Offers";
import { Finished, Pending } from "./Tasks";
import { Later, type Rest } from "./rest";
import { unfinished } from "./store";
import { Tabs } from "./Tabs";
import { Visitors } from "./Visitors";
import type { Translate } from "./words";

export function Panel({ control, rest, t, compact }: { control: Control; rest: Rest; t: Translate; compact: boolean }) {
  const [, draw] = useState(0);
  useLayoutEffect(() => control.subscribe(() => draw((n) => n + 1)), [control]);
  const { link, store, known } = control;
  const without = store.cluster.state === "none" || store.cluster.state === "closed";
  const live = link.state === "open" && control.stale === undefined;
  return (
    <EnvironmentProvider value={{ control, rest, t }}>
      <section
        class={`p2p-panel${compact ? " p2p-fills" : ""}${live || !known ? "" : " p2p-past"}${without ? " p2p-without" : ""}`}
        aria-label={t("p2p cluster")}
        data-link={link.state}
        data-cluster={store.cluster.state}
      >
        <Header />
        <Notices />
        {link.state === "absent" || !known ? null : (
          <>
            <Visitors />
            {without ? <><Connect /><Lend /></> : <Views />}
          </>
        )}
        <div class="p2p-unseen" role="status" aria-live="polite">{control.spoken}</div>
      </section>
    </EnvironmentProvider>
  );
}

const VIEWS = {
  tasks: () => <Pending />, finished: () => <Finished />, members: () => <Members />, offers: () => <Offers />, timeline: () => <Later>{({ Timeline }) => <Timeline />}</Later>
};

function Views() {
  const { control, t } = useEnvironment();
  const { store, memory } = control;
  const [tab, setTab] = useState<TabName>(memory.tab);
  const { counts } = store;
  return (
    <Tabs<TabName>
      label={t("Views of the cluster")}
      tabs={[
        { name: "tasks", title: t("Tasks"), count: unfinished(store) },
        { name: "finished", title: t("Finished"), count: counts.done + counts.failed + counts.cancelled, alarm: counts.failed, alarmWord: t("failed") },
        { name: "members", title: t("Members"), count: store.members.size },
        { name: "offers", title: t("Offers"), count: store.offers.size },
        { name: "timeline", title: t("Timeline") }
      ]}
      chosen={tab}
      onChoose={(name) => {
        memory.tab = name;
        setTab(name);
      }}
    >
      {VIEWS[tab]()}
    </Tabs>
  );
}

function Notices() {
  const { control, t } = useEnvironment();
  return (
    <>
      {control.notices.map((notice) => (
        <div key={notice.id} class={`p2p-notice${notice.ok ? "" : " p2p-bad"}`}>
          <p>{notice.ok ? "" : <strong>{t("That failed.")} </strong>}{notice.text}</p>
          <Button kind="quiet" name={t("Dismiss: %1", notice.text)} onClick={() => control.dismiss(notice.id)}><Glyph name="cross" /></Button>
        </div>
      ))}
    </>
  );
}
