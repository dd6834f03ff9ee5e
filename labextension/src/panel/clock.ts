/** The kernel's clock as the browser can tell it, and one tick a second while somebody looks. */

export class Clock {
  private offset = 0;
  private known = false;
  private visible = true;
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly listeners = new Set<() => void>();

  /** Seconds since 1970 by the kernel's clock. */
  now(): number {
    return Date.now() / 1000 + this.offset;
  }

  /** A message says what time it was when it was sent. The one that travelled fastest knows best. */
  set(now: number, anew: boolean): void {
    const offset = now - Date.now() / 1000;
    if (anew || !this.known || offset > this.offset) {
      this.offset = offset;
      this.known = true;
    }
  }

  /** Have `listener` called once a second; the result stops that. */
  tick(listener: () => void): () => void {
    this.listeners.add(listener);
    this.run();
    return () => {
      this.listeners.delete(listener);
      this.run();
    };
  }

  /** Nobody sees the panel: nothing need tick. */
  show(visible: boolean): void {
    if (visible && !this.visible) {
      this.call();
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
      this.timer = setInterval(() => this.call(), 1000);
    } else if (!wanted && this.timer !== undefined) {
      clearInterval(this.timer);
      this.timer = undefined;
    }
  }

  private call(): void {
    for (const listener of [...this.listeners]) {
      listener();
    }
  }
}
