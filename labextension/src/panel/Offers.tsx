/** What workers offer, to whom; and lending this machine. */

import { useMemo } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Lend } from "./Lend";
import { Listing } from "./Listing";
import { Details, Empty, Facts, Meter } from "./parts";
import type { Offer } from "./store";
import type { Column } from "./VirtualTable";
import { clockTime, cores, join, memory, type Translate } from "./words";

export function Offers() {
  const { control, t } = useEnvironment();
  const { store } = control;
  const columns = useMemo((): Array<Column<Offer>> => {
    const now = (): number => control.clock.now();
    return [
      {
        key: "name", title: t("Worker"), class: "p2p-main",
        cell: (offer) => (
          <>
            <span class="p2p-name">
              <span class={`p2p-dot${offer.paused ? " p2p-unsure" : " p2p-up"}`} aria-hidden="true" />
              <span class="p2p-label" title={offer.name}>{offer.name}</span>
              {offer.own ? <span class="p2p-badge">{t("yours")}</span> : null}
              {offer.paused ? <span class="p2p-badge">{t("paused")}</span> : null}
            </span>
            <span class="p2p-sub" title={conditions(offer, now(), t)}>{join(" · ", hardware(offer, t), conditions(offer, now(), t))}</span>
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
  return (
    <>
      <Lend />
      <Listing
        name="offers"
        caption={t("Offers of workers")}
        columns={columns}
        sections={[
          { key: "mine", title: t("For my tasks"), rows: store.forMe.items },
          { key: "others", title: t("For others"), rows: store.forOthers.items }
        ]}
        all={store.offers}
        count={store.offers.size}
        details={(offer, close) => (
          <Details key={offer.id} title={offer.name} onClose={close}>
            <Facts
              facts={[
                [t("State"), offer.paused ? t("paused") : offer.state],
                [t("Slots free"), t("%1 of %2", offer.free, offer.slots)],
                [t("Cores"), offer.cores || ""],
                [t("Memory"), offer.memory > 0 && memory(offer.memory)],
                [t("Python"), offer.python],
                [t("Platform"), offer.platform],
                [t("For whom"), offer.only || t("everybody in the cluster")],
                [t("Good for"), offer.tags.join(", ")],
                [t("Until"), offer.until > 0 ? clockTime(offer.until, control.clock.now()) : t("open end")]
              ]}
            />
          </Details>
        )}
      >
        <Empty title={t("No worker offers anything.")} type="p2p worker">
          {t("Type this in a terminal of a machine that shall help, with the board's HOST[:PORT] behind it.")}
        </Empty>
      </Listing>
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
  return join(" · ", offer.cores > 0 && cores(offer.cores, t), offer.memory > 0 && memory(offer.memory), offer.python && `Python ${offer.python}`);
}

function conditions(offer: Offer, now: number, t: Translate): string {
  return join(" · ", offer.only && t("for %1", offer.only), offer.until > 0 && t("until %1", clockTime(offer.until, now)), ...offer.tags);
}
