/** The header: the cluster, its state, and this user. */

import { Fragment } from "preact";

import { Ticking, useEnvironment } from "./environment";
import { Glyph } from "./glyphs";
import { Button, Confirmed, Meter, Shortened, Typed } from "./parts";
import { capacity, unconnected, unfinished } from "./summary";
import { elapsed, slots, tasks, workers } from "./words";

export function Header() {
  const { control, t } = useEnvironment();
  const { cluster } = control.store;
  const connected = !unconnected(control.store) && control.link.state !== "absent";
  const title = connected && cluster.title !== "" ? cluster.title : "p2p";
  const left = unfinished(control.store);
  return (
    <header class="p2p-header">
      <div class="p2p-headline">
        <div class="p2p-what">
          <h2 title={title}>{title}</h2>
          {control.waiting ? <Ticking>{() => <State />}</Ticking> : <State />}
        </div>
        <span class="p2p-actions">
          {connected && control.can("disconnect") ? (
            <Confirmed
              kind="short"
              name={t("Disconnect")}
              needed={left > 0}
              question={left > 0 ? t("Give up %1?", tasks(left, t)) : t("Disconnect?")}
              yes={t("Disconnect")}
              onYes={() => void control.perform("disconnect", {})}
            >
              <Shortened word={t("Disconnect")} picture={<Glyph name="power" />} />
            </Confirmed>
          ) : null}
        </span>
      </div>
      {connected && control.known ? <Facts /> : null}
      {cluster.note !== "" && connected ? <p class="p2p-note">{cluster.note}</p> : null}
      {control.standing.type !== "" ? <Typed text={control.standing.type} /> : null}
    </header>
  );
}

function State() {
  const { control, t } = useEnvironment();
  const { words, tone } = control.standing;
  return (
    <span class={`p2p-state p2p-tone-${tone}`}>
      <Glyph name={tone} />
      <span>{words}</span>
      {control.stale === undefined ? null : <Button kind="quiet" onClick={() => control.askAgain()}>{t("Ask again")}</Button>}
    </span>
  );
}

function Facts() {
  const { control, t } = useEnvironment();
  const { cluster } = control.store;
  const { workers: count, slots: all, busy } = capacity(control.store);
  const said = [
    cluster.me === "" ? undefined : <span key="me" title={cluster.key}>{t("as %1", cluster.me)}</span>,
    cluster.board === "" || cluster.board === cluster.title || cluster.kind === "personal" ? undefined : (
      <span key="board" title={cluster.board}>{t("board %1", cluster.board)}</span>
    ),
    cluster.since > 0 && cluster.state === "connected" ? (
      <Ticking key="since">{(now) => <span class="p2p-since">{t("connected for %1", elapsed(now - cluster.since))}</span>}</Ticking>
    ) : undefined
  ].filter((part) => part !== undefined);
  return (
    <div class="p2p-subline">
      <span class="p2p-who">
        {said.map((part, index) => <Fragment key={index}>{index > 0 ? <i aria-hidden="true"> · </i> : null}{part}</Fragment>)}
      </span>
      {all > 0 ? (
        <span class="p2p-load">
          <Meter part={busy} whole={all} label={t("%1 of %2 busy", busy, slots(all, t))} />
          <span>{t("%1 of %2 busy", busy, slots(all, t))} · {workers(count, t)}</span>
        </span>
      ) : null}
    </div>
  );
}
