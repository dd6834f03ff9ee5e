/** The offers of workers; and lending this machine. */

import { useMemo } from "preact/hooks";

import { figureColumn, wordColumn } from "./columns";
import { useEnvironment } from "./environment";
import { Lend } from "./Lend";
import { Listing } from "./Listing";
import { Dot, Empty, Named } from "./parts";
import type { Offer } from "./rows";
import { workerCommand } from "./summary";
import type { Column } from "./RowView";
import { clockTime, cores, join, memory, type Translate } from "./words";

export function Offers({ lend }: { lend: boolean }) {
  const { control, t } = useEnvironment();
  const { store } = control;
  const columns = useMemo((): Array<Column<Offer>> => {
    const conditions = ({ sandbox, only, until, tags }: Offer): string =>
      join(
        " · ", sandbox ? t("%1 sandbox", sandbox) : t("no sandbox"), only && t("for %1", only), until > 0 && t("until %1", clockTime(until, control.clock.now())), ...tags
      );
    return [
      {
        key: "name", title: t("Worker"), class: "p2p-main",
        cell: (offer) => (
          <Named
            mark={<Dot kind={offer.paused ? " p2p-unsure" : " p2p-up"} />}
            name={offer.name}
            sub={join(" · ", conditions(offer), hardware(offer, t))}
          >
            <span class="p2p-badges">{offer.own ? <span class="p2p-badge">{t("yours")}</span> : null}</span>
          </Named>
        )
      },
      wordColumn("hardware", t("Machine"), (offer) => hardware(offer, t)),
      wordColumn("conditions", t("Conditions"), conditions),
      figureColumn("slots", t("Slots"), (offer) => free(offer, t), " p2p-busy")
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
        details={({ OfferDetails }, offer, close) => <OfferDetails offer={offer} onClose={close} />}
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
  return join(" · ", offer.cores > 0 && cores(offer.cores, t), offer.memory > 0 && memory(offer.memory), offer.cards, offer.python && `Python ${offer.python}`);
}
