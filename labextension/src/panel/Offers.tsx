/** What workers offer, to whom; and lending this machine. */

import { useMemo, useState } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Lend } from "./Lend";
import { Details, Empty, Facts, FILTER_ABOVE, Meter } from "./parts";
import type { Offer } from "./store";
import { List } from "./Tasks";
import { VirtualTable, type Column } from "./VirtualTable";
import { clockTime, cores, memory, type Translate } from "./words";

export function Offers() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const [open, setOpen] = useState<string>();
  const columns = useMemo((): Array<Column<Offer>> => {
    const now = (): number => control.clock.now();
    return [
      {
        key: "name", title: t("Worker"), class: "p2p-main",
        cell: (offer) => (
          <>
            <span class="p2p-name">
              <span class={`p2p-dot${offer.paused ? " p2p-unsure" : offer.free > 0 ? " p2p-up" : ""}`} aria-hidden="true" />
              <span class="p2p-label" title={offer.name}>{offer.name}</span>
              {offer.own ? <span class="p2p-badge">{t("yours")}</span> : null}
              {offer.paused ? <span class="p2p-badge">{t("paused")}</span> : null}
            </span>
            <span class="p2p-sub" title={conditions(offer, now(), t)}>{[hardware(offer, t), conditions(offer, now(), t)].filter(Boolean).join(" · ")}</span>
          </>
        )
      },
      { key: "hardware", title: t("Machine"), class: "p2p-words p2p-wide", cell: (offer) => <span class="p2p-line">{hardware(offer, t)}</span> },
      {
        key: "conditions", title: t("Conditions"), class: "p2p-words p2p-wide",
        cell: (offer) => <span class="p2p-line" title={conditions(offer, now(), t)}>{conditions(offer, now(), t)}</span>
      },
      { key: "slots", title: t("Free"), class: "p2p-figure p2p-busy", cell: (offer) => <Free offer={offer} /> }
    ];
  }, [control, t]);
  const all = store.offers.size;
  const shown = open === undefined ? undefined : store.offers.get(open);
  return (
    <>
      <Lend />
      {all === 0 ? (
        <Empty title={t("No worker offers anything.")} type="p2p worker">
          {t("Type this in a terminal of a machine that shall help, with the board's HOST[:PORT] behind it.")}
        </Empty>
      ) : (
        <List
          filter={all > FILTER_ABOVE || store.filters.offers !== ""}
          value={store.filters.offers}
          label={t("Filter offers")}
          onFilter={(offers) => control.filter({ offers })}
          found={store.forMe.items.length + store.forOthers.items.length}
        >
          <VirtualTable
            name="offers"
            caption={t("Offers of workers")}
            columns={columns}
            sections={[
              { key: "mine", title: t("For my tasks"), rows: store.forMe.items },
              { key: "others", title: t("For others"), rows: store.forOthers.items }
            ]}
            selected={open}
            onOpen={(offer) => setOpen(offer.id)}
          />
        </List>
      )}
      {shown === undefined ? null : (
        <Details key={shown.id} title={shown.name} onClose={() => setOpen(undefined)}>
          <Facts
            facts={[
              [t("State"), shown.paused ? t("paused") : shown.state],
              [t("Slots free"), t("%1 of %2", shown.free, shown.slots)],
              [t("Cores"), shown.cores > 0 ? shown.cores : ""],
              [t("Memory"), shown.memory > 0 ? memory(shown.memory) : ""],
              [t("Python"), shown.python],
              [t("Platform"), shown.platform],
              [t("For whom"), shown.only || t("everybody in the cluster")],
              [t("Good for"), shown.tags.join(", ")],
              [t("Until"), shown.until > 0 ? clockTime(shown.until, control.clock.now()) : t("open end")]
            ]}
          />
        </Details>
      )}
    </>
  );
}

function Free({ offer }: { offer: Offer }) {
  const { t } = useEnvironment();
  return (
    <span class="p2p-slots">
      <Meter part={offer.slots - offer.free} whole={offer.slots} label={t("%1 of %2 slots free", offer.free, offer.slots)} />
      <span aria-hidden="true">{offer.free}/{offer.slots}</span>
    </span>
  );
}

function hardware(offer: Offer, t: Translate): string {
  return [
    offer.cores > 0 ? cores(offer.cores, t) : "",
    offer.memory > 0 ? memory(offer.memory) : "",
    offer.python === "" ? "" : `Python ${offer.python}`
  ].filter((text) => text !== "").join(" · ");
}

function conditions(offer: Offer, now: number, t: Translate): string {
  return [
    offer.only === "" ? "" : t("for %1", offer.only),
    offer.until > 0 ? t("until %1", clockTime(offer.until, now)) : "",
    ...offer.tags
  ].filter((text) => text !== "").join(" · ");
}
