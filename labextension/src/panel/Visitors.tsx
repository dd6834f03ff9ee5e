/** The visitors: people who wait for a yes or no. */

import { useEnvironment } from "./environment";
import { Button } from "./parts";

export function Visitors() {
  const { control, t } = useEnvironment();
  const visitors = control.store.visitors.items;
  if (visitors.length === 0) {
    return null;
  }
  return (
    <ul class="p2p-visitors" aria-label={t("Waiting to be let in")}>
      {visitors.map((visitor) => (
        <li key={visitor.id} class="p2p-card">
          <div>
            <p>
              <strong>{visitor.called || visitor.name}</strong>{" "}
              {visitor.invited ? t("has an invitation to %1.", visitor.title) : t("asks to join %1.", visitor.title)}
            </p>
            {visitor.note === "" ? null : <p>{visitor.note}</p>}
            <p class="p2p-dim">{t("Key:")} <code>{visitor.key}</code>{visitor.about === "" ? null : <> · {visitor.about}</>}</p>
          </div>
          <p class="p2p-row">
            {control.can("approve") ? (
              <Button
                kind="strong"
                name={t("Let %1 in to %2", visitor.called || visitor.name, visitor.title)}
                onClick={() => void control.perform("approve", {
                  key: visitor.key, title: visitor.title, called: visitor.called || visitor.name
                })}
              >
                {t("Let in")}
              </Button>
            ) : null}
            {control.can("refuse") ? (
              <Button
                name={t("Don't let %1 in to %2", visitor.called || visitor.name, visitor.title)}
                onClick={() => void control.perform("refuse", { key: visitor.key, title: visitor.title })}
              >
                {t("No")}
              </Button>
            ) : null}
          </p>
        </li>
      ))}
    </ul>
  );
}
