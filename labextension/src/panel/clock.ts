/** The kernel's clock, as far as the browser can tell, and one tick a second while the panel is visible. */

import { Listeners } from "./listeners";

export class Clock {
  private offset = 0;
  private known = false;
  private visible = true;
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly listeners = new Listeners();

  /** Seconds since 1970 by the kernel's clock. */
  now(): number {
    return Date.now() / 1000 + this.offset;
  }

  /** Each message carries the time when it was sent. The message that travelled fastest is the most exact. */
  set(now: number, anew: boolean): void {
    const offset = now - Date.now() / 1000;
    if (anew || !this.known || offset > this.offset) {
      this.offset = offset;
      this.known = true;
    }
  }

  /** Have `listener` called once a second; the result stops that. */
  tick(listener: () => void): () => void {
    const stop = this.listeners.add(listener);
    this.run();
    return () => {
      stop();
      this.run();
    };
  }

  /** Nobody sees the panel: nothing need tick. */
  show(visible: boolean): void {
    if (visible && !this.visible) {
      this.listeners.call();
    }
    this.visible = visible;
    this.run();
  }

  close(): void {
    this.listeners.clear();
    this.run();
  }

  private run(): void {
    const wanted = this.visible && this.listeners.size > 0;
    if (wanted && this.timer === undefined) {
      this.timer = setInterval(() => this.listeners.call(), 1000);
    } else if (!wanted && this.timer !== undefined) {
      clearInterval(this.timer);
      this.timer = undefined;
    }
  }
}
