/** Small parts that several views use. */

import type { ComponentChildren, TargetedKeyboardEvent, TargetedMouseEvent } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { useEnvironment } from "./environment";

/** A button; `name` is its accessible name, if its text alone wouldn't be unique. */
export function Button({
  children, name, onClick, kind = "plain", active = true, disabled = false, reference, expanded, type = "button"
}: {
  children: ComponentChildren;
  name?: string;
  onClick?: (event: TargetedMouseEvent<HTMLButtonElement>) => void;
  /** "short": a narrow panel shows a picture in place of its text. */
  kind?: "plain" | "strong" | "danger" | "quiet" | "short" | "quiet p2p-cancel";
  /** In the order of tabbing. */
  active?: boolean;
  disabled?: boolean;
  reference?: { current: HTMLButtonElement | null };
  expanded?: boolean;
  type?: "button" | "submit";
}) {
  return (
    <button
      type={type}
      ref={reference}
      class={`p2p-button p2p-${kind}`}
      aria-label={name}
      title={name}
      aria-expanded={expanded}
      tabIndex={active ? undefined : -1}
      disabled={disabled}
      onClick={onClick}
    >
      {children}
    </button>
  );
}

/** A word, or in a narrow panel its picture. */
export function Shortened({ word, picture }: { word: string; picture: ComponentChildren }) {
  return <><span class="p2p-wide-inline">{word}</span><span class="p2p-narrow">{picture}</span></>;
}

/** A button for an action that can't be undone: it asks first. */
export function Confirmed({
  children, name, question, yes, onYes, active = true, kind = "plain", needed = true
}: {
  children: ComponentChildren;
  name?: string;
  question: string;
  yes: string;
  onYes: () => void;
  active?: boolean;
  kind?: "plain" | "short";
  /** Whether there is something to ask about; a question that is asked already stays, since somebody is about to answer. */
  needed?: boolean;
}) {
  const { t } = useEnvironment();
  const [asking, setAsking] = useState(false);
  const no = useRef<HTMLButtonElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const wasAsking = useRef(false);
  useLayoutEffect(() => {
    if (asking) {
      no.current?.focus();
    } else if (wasAsking.current) {
      opener.current?.focus();
    }
    wasAsking.current = asking;
  }, [asking]);
  if (!asking) {
    return (
      <Button reference={opener} active={active} kind={kind} {...(name === undefined ? {} : { name })} onClick={() => needed ? setAsking(true) : onYes()}>
        {children}
      </Button>
    );
  }
  return (
    <span
      class="p2p-confirm"
      role="group"
      aria-label={question}
      onKeyDown={onEscape(() => setAsking(false))}
    >
      <span class="p2p-question">{question}</span>
      <Button kind="danger" name={`${yes}: ${question}`} onClick={() => { setAsking(false); onYes(); }}>{yes}</Button>
      <Button reference={no} name={`${t("No")}: ${question}`} onClick={() => setAsking(false)}>{t("No")}</Button>
    </span>
  );
}

/** A listener that calls `act` for the key Escape, and keeps that key from all around it. */
export function onEscape(act: () => void): (event: TargetedKeyboardEvent<HTMLElement>) => void {
  return (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      act();
    }
  };
}

/** A field to filter a list by. */
export function Filter({ value, label, onChange }: { value: string; label: string; onChange: (value: string) => void }) {
  const { t } = useEnvironment();
  return (
    <input
      class="p2p-input p2p-filter"
      type="search"
      value={value}
      placeholder={t("Filter")}
      aria-label={label}
      spellcheck={false}
      onInput={(event) => onChange(event.currentTarget.value)}
      onKeyDown={value === "" ? undefined : onEscape(() => onChange(""))}
    />
  );
}

/** The text of an empty view: what will be here, and a line to type. */
export function Empty({ title, children, type }: { title: string; children?: ComponentChildren; type?: string }) {
  return (
    <div class="p2p-empty">
      <p class="p2p-empty-title">{title}</p>
      {children === undefined ? null : <p>{children}</p>}
      {type === undefined || type === "" ? null : <Typed text={type} />}
    </div>
  );
}

/** Something to type or to copy. */
export function Typed({ text }: { text: string }) {
  return (
    <div class="p2p-typed">
      <pre tabIndex={0}>{text}</pre>
      <Copy text={text} />
    </div>
  );
}

export function Copy({ text, name }: { text: string; name?: string }) {
  const { control, t } = useEnvironment();
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) {
      return undefined;
    }
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      control.notify(false, t("The browser doesn't let the panel copy: select the text and copy it."));
    }
  };
  return (
    <Button name={name ?? t("Copy %1", text)} onClick={() => void copy()}>{copied ? t("Copied") : t("Copy")}</Button>
  );
}

/** The first cell of a row: its mark, name and badges; below them, in a narrow panel, the words of columns that have no room. */
export function Named({ kind = "", mark, name, sub, children }: {
  kind?: string;
  mark: ComponentChildren;
  name: string;
  sub: string;
  children?: ComponentChildren;
}) {
  return (
    <>
      <span class={`p2p-name${kind}`}>
        {mark}
        <span class="p2p-label" title={name}>{name}</span>
        {children}
      </span>
      <span class="p2p-sub" title={sub}>{sub}</span>
    </>
  );
}

/** The mark of a process: whether it is up. */
export function Dot({ kind }: { kind: "" | " p2p-up" | " p2p-unsure" }) {
  return <span class={`p2p-dot${kind}`} aria-hidden="true" />;
}

/** How much of something is used: a bar with the figures beside it. */
export function Meter({ part, whole, label }: { part: number; whole: number; label: string }) {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  return (
    <span class="p2p-meter" role="img" aria-label={label} title={label}>
      <span style={{ inlineSize: `${(share * 100).toFixed(1)}%` }} />
    </span>
  );
}
