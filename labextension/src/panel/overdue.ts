/** Answers that a panel waits for, and whether one of them is overdue. Times are the browser's, in seconds. */
export class Overdue {
  /** When waiting began, and when the answer is overdue. */
  private readonly asked = new Map<object, { since: number; due: number }>();

  get waiting(): boolean {
    return this.asked.size > 0;
  }

  /** Since how many seconds an answer has been missing that should have come; undefined if none is. */
  get since(): number | undefined {
    const now = Date.now() / 1000;
    let since: number | undefined;
    for (const entry of this.asked.values()) {
      if (now > entry.due) {
        since = Math.max(since ?? 0, now - entry.since);
      }
    }
    return since;
  }

  /** Wait for an answer that is due in so many seconds; `answered` takes the key that this returns. */
  ask(due: number): object {
    const now = Date.now() / 1000;
    const key = {};
    this.asked.set(key, { since: now, due: now + due });
    return key;
  }

  answered(key: object): void {
    this.asked.delete(key);
  }

  clear(): void {
    this.asked.clear();
  }

  /** The kernel has shown a sign of life: no answer is overdue before so many seconds. */
  postpone(seconds: number): void {
    const now = Date.now() / 1000;
    for (const entry of this.asked.values()) {
      entry.due = Math.max(entry.due, now + seconds);
      entry.since = now;
    }
  }
}
