/**
 * The second module of the widget, more.js. The kernel sends its text; the browser imports that.
 *
 * It has no copies of widget.js's modules: build.mjs turns each import of a shared module into a call of a function, which
 * this module passes to it.
 */

import { Component, Fragment, h } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Code } from "../panel/contract";
import { Ticking, useAlive, useEnvironment, useOwnId } from "../panel/environment";
import { Glyph } from "../panel/glyphs";
import { Button, Confirmed, Copy, Empty, onEscape, Typed } from "../panel/parts";
import type { More } from "../panel/rest";
import { isOver } from "../panel/rows";
import { owned } from "../panel/summary";
import { clockTime, duration, elapsed, join, linkWords, memory, person, roleWords, size, slots, taskWords, tasks, workers } from "../panel/words";
import type { Model } from "./transport";

/** The export of more.js: a function that asks for shared modules by name, and returns the parts of the panel. */
export interface MoreModule {
  default: (require: (name: string) => object) => More;
}

/** All that more.js uses of shared modules, by the names that build.mjs gives them. A test finds missing ones. */
const SHARED: Readonly<Record<string, object>> = {
  preact: { Component, Fragment, h },
  "preact/hooks": { useEffect, useLayoutEffect, useRef, useState },
  "panel/environment": { Ticking, useAlive, useEnvironment, useOwnId },
  "panel/glyphs": { Glyph },
  "panel/parts": { Button, Confirmed, Copy, Empty, onEscape, Typed },
  "panel/rows": { isOver },
  "panel/summary": { owned },
  "panel/words": { clockTime, duration, elapsed, join, linkWords, memory, person, roleWords, size, slots, taskWords, tasks, workers }
};

/** Milliseconds that the kernel may take. */
export const PATIENCE = 15_000;

export function shared(name: string): object {
  const found = SHARED[name];
  if (found === undefined) {
    throw new Error(`more.js wants ${name}, which it isn't given`);
  }
  return found;
}

/** Ask the kernel for the module, and load it. Rejects when it doesn't come. */
export async function loadMore(model: Model, load: (code: string) => Promise<MoreModule> = importText): Promise<More> {
  return (await load(await ask(model))).default(shared);
}

function ask(model: Model): Promise<string> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      clearTimeout(timer);
      model.off("msg:custom", take);
      model.off("comm_live_update", gone);
    };
    const take = (content: unknown): void => {
      const message = content as Code | { t: "" }; // from the kernel: nobody else can send here
      if (message.t === "more") {
        done();
        resolve(message.code);
      }
    };
    const gone = (): void => {
      done();
      reject(new Error("no answer from the kernel"));
    };
    const timer = setTimeout(gone, PATIENCE);
    model.on("msg:custom", take);
    model.on("comm_live_update", gone);
    model.send({ t: "more" });
  });
}

/** Load a module whose text is known, as anywidget loads this one. */
async function importText(code: string): Promise<MoreModule> {
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  try {
    return (await import(/* @vite-ignore */ url)) as MoreModule;
  } finally {
    URL.revokeObjectURL(url);
  }
}
