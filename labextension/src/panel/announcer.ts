/** What a screen reader is told: politely, at most once in three seconds, the newest of each subject. */

export const QUIET = 3000;

export class Announcer {
  private readonly waiting = new Map<string, string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = -Infinity;

  constructor(private readonly speak: (text: string) => void) {}

  /** Say it as soon as one may; what is said later about the same subject replaces it until then. */
  say(subject: string, text: string): void {
    this.waiting.delete(subject);
    this.waiting.set(subject, text);
    this.timer ??= setTimeout(() => this.flush(), Math.max(0, this.last + QUIET - Date.now()));
  }

  /** What hasn't been said yet is no longer so. */
  forget(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.waiting.clear();
  }

  close(): void {
    this.forget();
  }

  private flush(): void {
    this.timer = undefined;
    this.last = Date.now();
    const text = [...this.waiting.values()].map((each) => each.replace(/[.\s]+$/, "")).join(". ");
    this.waiting.clear();
    this.speak(text);
  }
}
