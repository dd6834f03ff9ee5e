/** A panel's way to its kernel by the custom messages of an anywidget. */

import { VERSION, type Action, type Code, type Did, type FromKernel, type ToKernel } from "../panel/contract";
import { Listeners } from "../panel/listeners";
import type { Link, Transport } from "../panel/transport";

/** The part of an anywidget's model that is used here. */
export interface Model {
  send(content: unknown): void;
  on(event: "msg:custom" | "comm_live_update", listener: (content: unknown) => void): void;
  off(event: "msg:custom" | "comm_live_update", listener: (content: unknown) => void): void;
}

export class WidgetTransport implements Transport {
  /** A model comes with its kernel. A widget can't tell whether the kernel is busy. */
  link: Link = { state: "open", busy: false };
  private readonly onMessage = new Listeners<[FromKernel]>();
  private readonly onLink = new Listeners<[Link]>();
  private readonly waiting = new Map<number, (did: Did) => void>();
  private readonly first = Math.floor(Math.random() * 2 ** 40);
  private count = 0;

  constructor(private readonly model: Model) {
    model.on("msg:custom", this.take);
    model.on("comm_live_update", this.doubt);
  }

  listen(message: (message: FromKernel) => void, link: (link: Link) => void): () => void {
    const stops = [this.onMessage.add(message), this.onLink.add(link)];
    return () => stops.forEach((stop) => stop());
  }

  hello(): void {
    this.send({ t: "hello", v: VERSION, view: "widget" });
  }

  act(action: Action, args: Record<string, unknown>): Promise<Did> {
    this.count += 1;
    const id = this.first + this.count; // several views of one model get each other's answers
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      if (this.link.state === "closed" || !this.send({ t: "do", id, action, args })) {
        this.forget();
      }
    });
  }

  close(): void {
    this.model.off("msg:custom", this.take);
    this.model.off("comm_live_update", this.doubt);
    this.onMessage.clear();
    this.onLink.clear();
    this.forget();
  }

  /** JupyterLab throws when the kernel has ended, and then tells no other view of it. */
  private send(message: ToKernel): boolean {
    try {
      this.model.send(message);
      return true;
    } catch {
      return false;
    }
  }

  private readonly take = (content: unknown): void => {
    const message = content as FromKernel | Code; // from the kernel: nobody else can send here
    this.become("open");
    if (message.t === "more") {
      return; // see loading.ts
    }
    if (message.t === "did") {
      this.waiting.get(message.id)?.(message);
      this.waiting.delete(message.id);
    }
    this.onMessage.call(message);
  };

  /** Called when the model's comm has gone, most often with its kernel, or has come back: then the kernel answers. */
  private readonly doubt = (): void => {
    this.become("closed");
    this.forget();
    this.hello();
  };

  private become(state: Link["state"]): void {
    if (state !== this.link.state) {
      this.link = { state, busy: false };
      this.onLink.call(this.link);
    }
  }

  /** Answer all open requests: the kernel no longer will. */
  private forget(): void {
    for (const [id, resolve] of this.waiting) {
      resolve({ t: "did", id, ok: false, say: "" });
    }
    this.waiting.clear();
  }
}
