/** The environment of each part of a panel: its control, and translation. */

import { createContext, type ComponentChildren } from "preact";
import { useContext, useEffect, useId, useRef, useState } from "preact/hooks";

import type { Control } from "./control";
import type { Translate } from "./words";

export interface Environment {
  control: Control;
  t: Translate;
}

const Context = createContext<Environment | undefined>(undefined);

export const EnvironmentProvider = Context.Provider;

export function useEnvironment(): Environment {
  const environment = useContext(Context);
  if (environment === undefined) {
    throw new Error("a part of the panel outside of the panel");
  }
  return environment;
}

/** Ids for labels that no other panel on the page has. */
export function useOwnId(): string {
  const [unique] = useState(() => Math.random().toString(36).slice(2, 8));
  return `p2p-${unique}-${useId()}`;
}

/** Something that is drawn anew each second, by the kernel's clock. */
export function Ticking({ children }: { children: (now: number) => ComponentChildren }) {
  const { control } = useEnvironment();
  const [, draw] = useState(0);
  useEffect(() => control.clock.tick(() => draw((n) => n + 1)), [control]);
  return <>{children(control.clock.now())}</>;
}

/** Whether the part is still mounted: for answers of the kernel. */
export function useAlive(): { readonly current: boolean } {
  const alive = useRef(true);
  useEffect(() => {
    alive.current = true;
    return () => {
      alive.current = false;
    };
  }, []);
  return alive;
}
