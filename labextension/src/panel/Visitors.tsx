/** The visitors: people who wait for a yes or no. */

import { useEnvironment } from "./environment";
import { Button } from "./parts";
import type { Visitor } from "./rows";

export function Visitors() {
  const { control, t } = useEnvironment();
  const visitors = control.store.visitors.items;
  return visitors.length === 0 ? null : (
    <ul class="p2p-visitors" aria-label={t("Waiting to be let in")}>
      {visitors.map((visitor) => <Card key={visitor.id} visitor={visitor} />)}
    </ul>
  );
}

function Card({ visitor }: { visitor: Visitor }) {
  const { control, t } = useEnvironment();
  const { key, title, invited, note, about } = visitor;
  const called = visitor.called || visitor.name;
  return (
    <li class="p2p-box">
      <div>
        <p><strong>{called}</strong> {invited ? t("has an invitation to %1.", title) : t("asks to join %1.", title)}</p>
        {note === "" ? null : <p>{note}</p>}
        <p class="p2p-dim">{t("Key:")} <code>{key}</code>{about === "" ? null : <> · {about}</>}</p>
      </div>
      <p class="p2p-row">
        {control.can("approve") ? (
          <Button kind="strong" name={t("Let %1 in to %2", called, title)} onClick={() => void control.perform("approve", { key, title, called })}>
            {t("Let in")}
          </Button>
        ) : null}
        {control.can("refuse") ? (
          <Button name={t("Don't let %1 in to %2", called, title)} onClick={() => void control.perform("refuse", { key, title })}>{t("No")}</Button>
        ) : null}
      </p>
    </li>
  );
}
