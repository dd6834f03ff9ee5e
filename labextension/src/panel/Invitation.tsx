/** Ask somebody in: the code is a secret, shown once and dropped when it has been read. */

import { useState } from "preact/hooks";

import type { Invited } from "./contract";
import { Ticking, useAlive, useEnvironment, useOwnId } from "./environment";
import { Button, Copy, Typed } from "./parts";
import { owned } from "./summary";
import { elapsed } from "./words";

export function Invitation({ onClose }: { onClose: () => void }) {
  const { control, t } = useEnvironment();
  const { means, cluster } = control.store;
  const alive = useAlive();
  const id = useOwnId();
  const [who, setWho] = useState("");
  const [busy, setBusy] = useState(false);
  const [invited, setInvited] = useState<Invited>();
  const [title, setTitle] = useState<string>();

  if (invited !== undefined) {
    return <Secret invited={invited} who={who} onDismiss={onClose} />;
  }
  if (!control.can("invite")) {
    return null;
  }
  // Into the present cluster ("": a personal one, for machines of one's own), or into another one that is hosted here.
  const titles = [...new Set([...(owned(control.store) ? [cluster.title] : cluster.kind === "own" ? [""] : []), ...means.hosted])];
  if (titles.length === 0) {
    titles.push(...means.clusters);
  }
  const chosen = title !== undefined && titles.includes(title) ? title : titles[0] ?? "";
  const invite = async (): Promise<void> => {
    setBusy(true);
    const did = await control.request("invite", { title: chosen, who: who.trim() });
    if (!alive.current) {
      return;
    }
    setBusy(false);
    const what = did.ok ? asInvited(did.data) : undefined;
    if (what === undefined) {
      control.notify(false, did.say || t("The kernel gave no code."));
    } else {
      setInvited(what);
    }
  };
  return (
    <form
      class="p2p-form p2p-inline"
      aria-label={t("Invite")}
      onSubmit={(event) => {
        event.preventDefault();
        void invite();
      }}
    >
      <label for={`${id}-who`}>{t("Name")}</label>
      <input
        id={`${id}-who`} class="p2p-input" value={who} maxLength={64} required={chosen !== ""} autocomplete="off" spellcheck={false}
        onInput={(event) => setWho(event.currentTarget.value)}
      />
      {titles.length > 1 ? (
        <>
          <label for={`${id}-to`}>{t("to")}</label>
          <select id={`${id}-to`} class="p2p-input" value={chosen} onChange={(event) => setTitle(event.currentTarget.value)}>
            {titles.map((each) => <option key={each} value={each}>{each || t("my own machines")}</option>)}
          </select>
        </>
      ) : null}
      <Button type="submit" kind="strong" disabled={busy || (who.trim() === "" && chosen !== "")}>{busy ? t("Making a code …") : t("Invite")}</Button>
      <Button onClick={onClose} name={t("Don't invite anybody")}>{t("Never mind")}</Button>
    </form>
  );
}

function Secret({ invited, who, onDismiss }: { invited: Invited; who: string; onDismiss: () => void }) {
  const { t } = useEnvironment();
  return (
    <section class="p2p-box" aria-label={t("Invitation")}>
      <p><strong>{t("A code for %1.", who || t("your machine"))}</strong> {t("One guest can use it, once. It isn't shown again.")}</p>
      <p class="p2p-code"><code>{invited.code}</code> <Copy text={invited.code} name={t("Copy the code")} /></p>
      {invited.commands.length > 0 ? <p class="p2p-dim">{t("What %1 types:", who || t("your machine"))}</p> : null}
      {invited.commands.map((command) => <Typed key={command} text={command} />)}
      <p class="p2p-row">
        {invited.until > 0 ? (
          <Ticking>{(now) => (
            <span class="p2p-dim">{invited.until > now ? t("Good for %1 more.", elapsed(Math.ceil(invited.until - now))) : t("It has expired.")}</span>
          )}</Ticking>
        ) : null}
        <Button onClick={onDismiss}>{t("Done, hide it")}</Button>
      </p>
    </section>
  );
}

function asInvited(data: unknown): Invited | undefined {
  if (typeof data !== "object" || data === null) {
    return undefined;
  }
  const { code, commands, until } = data as Partial<Invited>;
  if (typeof code !== "string" || code === "") {
    return undefined;
  }
  return {
    code,
    commands: (Array.isArray(commands) ? commands : []).filter((command) => typeof command === "string"),
    until: typeof until === "number" ? until : 0
  };
}
