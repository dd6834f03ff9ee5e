/** A panel's way to its kernel by the custom messages of an anywidget. */

import { VERSION, type Action, type Did, type FromKernel } from "../panel/contract";
import type { Link, Transport } from "../panel/transport";

/** What is used of an anywidget's model. */
export interface Model {
  send(content: unknown): void;
  on(event: "msg:custom", listener: (content: unknown) => void): void;
  off(event: "msg:custom", listener: (content: unknown) => void): void;
}

export class WidgetTransport implements Transport {
  /** A model comes with its kernel; whether that computes, a widget can't tell. */
  readonly link: Link = { state: "open", busy: false };
  private readonly listeners = new Set<(message: FromKernel) => void>();
  private readonly waiting = new Map<number, (did: Did) => void>();
  private readonly first = Math.floor(Math.random() * 2 ** 40);
  private count = 0;

  constructor(private readonly model: Model) {
    model.on("msg:custom", this.take);
  }

  listen(onMessage: (message: FromKernel) => void): () => void {
    this.listeners.add(onMessage);
    return () => this.listeners.delete(onMessage);
  }

  hello(): void {
    this.model.send({ t: "hello", v: VERSION, view: "widget" });
  }

  act(action: Action, args: Record<string, unknown>): Promise<Did> {
    this.count += 1;
    const id = this.first + this.count; // several views of one model get each other's answers
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.model.send({ t: "do", id, action, args });
    });
  }

  close(): void {
    this.model.off("msg:custom", this.take);
    this.listeners.clear();
    for (const [id, resolve] of this.waiting) {
      resolve({ t: "did", id, ok: false, say: "" });
    }
    this.waiting.clear();
  }

  private readonly take = (content: unknown): void => {
    const message = content as FromKernel; // the kernel's word; nobody else can send here
    if (message.t === "did") {
      this.waiting.get(message.id)?.(message);
      this.waiting.delete(message.id);
    }
    for (const listener of [...this.listeners]) {
      listener(message);
    }
  };
}
