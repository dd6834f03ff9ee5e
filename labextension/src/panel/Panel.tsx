/** The whole panel. */

import { useEffect, useState } from "preact/hooks";

import { Connect } from "./Connect";
import type { Control, TabName } from "./control";
import { EnvironmentProvider, useEnvironment } from "./environment";
import { Cross } from "./glyphs";
import { Header } from "./Header";
import { Members } from "./Members";
import { Button } from "./parts";
import { Finished, Pending } from "./Tasks";
import { Tabs } from "./Tabs";
import { Visitors } from "./Visitors";
import type { Translate } from "./words";

export function Panel({ control, t, compact }: { control: Control; t: Translate; compact: boolean }) {
  const [, draw] = useState(0);
  useEffect(() => control.subscribe(() => draw((n) => n + 1)), [control]);
  const { link, store, known } = control;
  const without = store.cluster.state === "none" || store.cluster.state === "closed";
  const live = link.state === "open" && control.stale === undefined;
  return (
    <EnvironmentProvider value={{ control, t }}>
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
            {without ? <Connect /> : <Views />}
          </>
        )}
        <div class="p2p-unseen" role="status" aria-live="polite">{control.spoken}</div>
      </section>
    </EnvironmentProvider>
  );
}

function Views() {
  const { control, t } = useEnvironment();
  const { store, memory } = control;
  const [tab, setTab] = useState<TabName>(memory.tab);
  const { counts } = store;
  return (
    <Tabs<TabName>
      label={t("Views of the cluster")}
      tabs={[
        { name: "tasks", title: t("Tasks"), count: counts.waiting + counts.sent + counts.running },
        { name: "finished", title: t("Finished"), count: counts.done + counts.failed + counts.cancelled, alarm: counts.failed > 0 },
        { name: "members", title: t("Members"), count: store.members.size }
      ]}
      chosen={tab}
      onChoose={(name) => {
        memory.tab = name;
        setTab(name);
      }}
    >
      {tab === "tasks" ? <Pending /> : tab === "finished" ? <Finished /> : <Members />}
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
          <Button kind="quiet" name={t("Dismiss: %1", notice.text)} onClick={() => control.dismiss(notice.id)}><Cross /></Button>
        </div>
      ))}
    </>
  );
}
