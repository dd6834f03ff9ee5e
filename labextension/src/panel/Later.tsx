/** A place for a part of the panel that is loaded later. Apart from rest.ts: the parts themselves know nothing of it. */

import { createContext, type ComponentChildren } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Button } from "./parts";
import { Rest, type More } from "./rest";

const Context = createContext(new Rest(() => Promise.reject(new Error("a part of the panel outside of the panel"))));

/** Gives the parts of a panel its `Rest`. */
export const RestProvider = Context.Provider;

/** Show one of the parts, once they are here. */
export function Later({ children }: { children: (more: More) => ComponentChildren }) {
  const { t } = useEnvironment();
  const rest = useContext(Context);
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
