/** The details of one offer. */

import { Details, Facts } from "./details";
import { useEnvironment } from "./environment";
import type { Offer } from "./rows";
import { clockTime, memory } from "./words";

export function OfferDetails({ offer, onClose }: { offer: Offer; onClose: () => void }) {
  const { control, t } = useEnvironment();
  const about = offer.sandbox
    ? t("Tasks run behind a wall: they can't reach the lender's files, keys or network, nor each other.")
    : t("Tasks run as the lender does: they can reach the lender's files, and each other.");
  return (
    <Details title={offer.name} onClose={onClose}>
      <Facts
        facts={[
          [t("State"), offer.state === "paused" ? t("paused") : offer.state],
          [t("Slots free"), t("%1 of %2", offer.free, offer.slots)],
          [t("Cores"), offer.cores || ""],
          [t("Memory"), offer.memory > 0 && memory(offer.memory)],
          [t("Graphics"), offer.cards],
          [t("Python"), offer.python],
          [t("Platform"), offer.platform],
          [t("Sandbox"), <span title={about}>{offer.sandbox || t("no sandbox")}</span>],
          [t("For whom"), offer.only || t("everybody in the cluster")],
          [t("Good for"), offer.tags.join(", ")],
          [t("Until"), offer.until > 0 ? clockTime(offer.until, control.clock.now()) : t("open end")]
        ]}
      />
    </Details>
  );
}
