/** What comes later: parts of the panel that are loaded when somebody first wants to see one. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Button } from "./parts";

export type More = typeof import("./more");

/** Those parts: loaded once, however many want them, and again only after that has failed. */
export class Rest {
  parts: More | undefined;
  private loading: Promise<boolean> | undefined;

  constructor(private readonly load: () => Promise<More>) {}

  /** Have them loaded; whether that went well. */
  want(): Promise<boolean> {
    this.loading ??= this.load().then(
      (parts) => {
        this.parts = parts;
        return true;
      },
      () => {
        this.loading = undefined;
        return false;
      }
    );
    return this.loading;
  }
}

/** One of those parts, once they are here. */
export function Later({ children }: { children: (more: More) => ComponentChildren }) {
  const { rest, t } = useEnvironment();
  const [attempt, setAttempt] = useState(0);
  const [failed, setFailed] = useState(false);
  const [, draw] = useState(false);
  useEffect(() => {
    let wanted = rest.parts === undefined;
    if (wanted) {
      setFailed(false);
      void rest.want().then((came) => {
        if (wanted) {
          setFailed(!came);
          draw(came);
        }
      });
    }
    return () => {
      wanted = false;
    };
  }, [rest, attempt]);
  if (rest.parts !== undefined) {
    return <>{children(rest.parts)}</>;
  }
  return (
    <div class="p2p-later p2p-dim" role="status" tabIndex={-1}>
      {failed ? (
        <>
          <p>{t("This part of the panel could not be loaded. Try again, or reload the page; without a kernel, start one first.")}</p>
          <Button name={t("Try again to load this")} onClick={() => setAttempt(attempt + 1)}>{t("Try again")}</Button>
        </>
      ) : <p>{t("Loading …")}</p>}
    </div>
  );
}
