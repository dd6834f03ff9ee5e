/** The offers of workers; and lending this machine. */

import { useMemo } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Lend } from "./Lend";
import { Listing } from "./Listing";
import { Empty } from "./parts";
import { Later } from "./Later";
import type { Offer } from "./rows";
import { workerCommand } from "./summary";
import type { Column } from "./RowView";
import { clockTime, cores, join, memory, type Translate } from "./words";

export function Offers({ lend }: { lend: boolean }) {
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
              <span class="p2p-badges">{offer.own ? <span class="p2p-badge">{t("yours")}</span> : null}</span>
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
      { key: "slots", title: t("Slots"), class: "p2p-figure p2p-busy", cell: (offer) => free(offer, t) }
    ];
  }, [control, t]);
  const command = workerCommand(store);
  return (
    <>
      {lend ? <Lend /> : null}
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
          <Later key={offer.id}>{({ OfferDetails }) => <OfferDetails offer={offer} onClose={close} />}</Later>
        )}
      >
        <Empty title={t("No worker offers anything.")} type={command}>
          {store.cluster.kind === "personal" ? t("The workers of this machine are starting.")
            : command === "" ? undefined : t("Type this in a terminal of each machine that should help.")}
        </Empty>
      </Listing>
    </>
  );
}

/** The number of free slots, in words; a bar would show busy ones. */
function free(offer: Offer, t: Translate): string {
  return offer.paused ? t("paused") : offer.free === 0 ? t("none free") : t("%1 of %2 free", offer.free, offer.slots);
}

function hardware(offer: Offer, t: Translate): string {
  return join(" · ", offer.cores > 0 && cores(offer.cores, t), offer.memory > 0 && memory(offer.memory), offer.python && `Python ${offer.python}`);
}

function conditions(offer: Offer, now: number, t: Translate): string {
  return join(" · ", offer.only && t("for %1", offer.only), offer.until > 0 && t("until %1", clockTime(offer.until, now)), ...offer.tags);
}
