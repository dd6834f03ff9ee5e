/** Without a cluster: how to come to one. */

import { useState } from "preact/hooks";

import { useAlive, useEnvironment, useOwnId } from "./environment";
import { Button, Empty } from "./parts";

/** Which button waits: this one, or the one of a title. */
const BOARD = "on a board";

export function Connect() {
  const { control, t } = useEnvironment();
  const alive = useAlive();
  const id = useOwnId();
  const [host, setHost] = useState(control.memory.board);
  const [going, setGoing] = useState<string>();
  if (!control.can("connect")) {
    return control.link.state === "open" && control.known ? (
      <Empty title={t("No cluster yet.")} type="%p2p_connect">
        {t("Type this for a cluster on this machine; add HOST[:PORT] for one on a board.")}
      </Empty>
    ) : null;
  }
  const connect = async (target: string, which = target): Promise<void> => {
    setGoing(which);
    await control.perform("connect", { target });
    if (alive.current) {
      setGoing(undefined);
    }
  };
  const label = (which: string, words: string): string => going === which ? t("Connecting …") : words;
  return (
    <section class="p2p-connect" aria-label={t("Connect")}>
      <p>{t("Workers run your cells while you work on. Where are they?")}</p>
      <div class="p2p-choices">
        <Button kind="strong" disabled={going !== undefined} onClick={() => void connect("")}>
          {label("", t("On this machine"))}
        </Button>
        {control.store.means.clusters.map((title) => (
          <Button key={title} disabled={going !== undefined} name={t("Connect to %1", title)} onClick={() => void connect(title)}>
            {label(title, title)}
          </Button>
        ))}
      </div>
      <form
        class="p2p-form p2p-inline"
        aria-label={t("Connect to a board")}
        onSubmit={(event) => {
          event.preventDefault();
          void connect(host.trim(), BOARD);
        }}
      >
        <label for={id}>{t("On a board")}</label>
        <input
          id={id} class="p2p-input" value={host} placeholder={"HOST[:PORT]"} maxLength={256} autocomplete="off" spellcheck={false}
          onInput={(event) => setHost(control.memory.board = event.currentTarget.value)}
        />
        <Button type="submit" disabled={going !== undefined || host.trim() === ""}>
          {label(BOARD, t("Connect"))}
        </Button>
      </form>
    </section>
  );
}
