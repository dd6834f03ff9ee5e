/** Actions that are delayed a little, so that the user can undo them. */

export const GRACE = 4000;

export class Undo {
  private readonly timers = new Map<string, { timer: ReturnType<typeof setTimeout>; at: number }>();

  constructor(
    private readonly perform: (id: string) => void,
    private readonly changed: () => void
  ) {}

  /** Do it in four seconds, unless it is taken back. */
  start(id: string): void {
    if (!this.timers.has(id)) {
      const timer = setTimeout(() => this.now(id), GRACE);
      this.timers.set(id, { timer, at: Date.now() + GRACE });
      this.changed();
    }
  }

  /** Take it back, or forget it because it has no sense any more. */
  stop(id: string): void {
    if (this.drop(id)) {
      this.changed();
    }
  }

  has(id: string): boolean {
    return this.timers.has(id);
  }

  get ids(): string[] {
    return [...this.timers.keys()];
  }

  /** Seconds that are left. */
  left(id: string): number {
    const entry = this.timers.get(id);
    return entry === undefined ? 0 : Math.max(0, (entry.at - Date.now()) / 1000);
  }

  /** Perform all delayed actions now: the panel closes. */
  close(): void {
    for (const id of this.ids) {
      this.now(id);
    }
  }

  private now(id: string): void {
    if (this.drop(id)) {
      this.perform(id);
      this.changed();
    }
  }

  /** Forget it, and its timer; whether there was one. */
  private drop(id: string): boolean {
    clearTimeout(this.timers.get(id)?.timer);
    return this.timers.delete(id);
  }
}
