/** Tasks that belong together, a row each: how far they are, and what can be done. */

import { useState } from "preact/hooks";

import { useAlive, useEnvironment } from "./environment";
import { Glyph } from "./glyphs";
import { Button, Confirmed, Meter } from "./parts";
import type { Group } from "./rows";
import { tasks } from "./words";

export function Groups() {
  const { control, t } = useEnvironment();
  const groups = control.store.groups.items;
  return groups.length === 0 ? null : (
    <ul class="p2p-groups" aria-label={t("Tasks that belong together")}>
      {groups.map((group) => <Line key={group.id} group={group} />)}
    </ul>
  );
}

function Line({ group }: { group: Group }) {
  const { control, t } = useEnvironment();
  const { id, label, state, words, total, over } = group;
  const [busy, setBusy] = useState(false);
  const alive = useAlive();
  const ended = group.ended > 0;
  const runAgain = async (): Promise<void> => {
    setBusy(true);
    await control.perform("again", { group: id }, true);
    if (alive.current) {
      setBusy(false);
    }
  };
  return (
    <li class={`p2p-together p2p-task-${state}`}>
      <Glyph name={state} />
      <span class="p2p-unseen">{t(state)}: </span>
      <span class="p2p-label" title={label}>{label}</span>
      {total > 0 ? <Meter part={over} whole={total} label={t("%1 of %2 over", over, total)} /> : null}
      <span class="p2p-dim p2p-how" title={words}>{words}</span>
      {!ended && control.can("halt") ? (
        <Confirmed
          name={t("Cancel all of %1", label)}
          question={total > 0 ? t("Cancel %1? This can't be undone.", tasks(total - over, t)) : t("Cancel the rest? This can't be undone.")}
          yes={t("Cancel all")}
          onYes={() => void control.perform("halt", { group: id }, true)}
        >
          {t("Cancel …")}
        </Confirmed>
      ) : null}
      {group.again > 0 && control.can("again") ? (
        <Button disabled={busy} name={t("Run %1 of %2 again, which failed or were cancelled", group.again, label)} onClick={() => void runAgain()}>
          {t("Run %1 again", group.again)}
        </Button>
      ) : null}
    </li>
  );
}
