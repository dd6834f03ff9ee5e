/** Listeners: functions that are called with each event, and may come and go meanwhile. */

export class Listeners<A extends unknown[] = []> {
  private readonly all = new Set<(...args: A) => void>();

  get size(): number {
    return this.all.size;
  }

  /** Have `listener` called; the result stops that. */
  add(listener: (...args: A) => void): () => void {
    this.all.add(listener);
    return () => this.all.delete(listener);
  }

  call(...args: A): void {
    [...this.all].forEach((listener) => listener(...args));
  }

  clear(): void {
    this.all.clear();
  }
}
