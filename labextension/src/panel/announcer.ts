/** Announcements to screen readers: polite, at most one in three seconds, with the newest text of each subject. */

export const QUIET = 3000;

export class Announcer {
  private readonly waiting = new Map<string, string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = -Infinity;

  constructor(private readonly speak: (text: string) => void) {}

  /** Announce a text as soon as possible. Until then, a later text about the same subject replaces it. */
  say(subject: string, text: string): void {
    this.waiting.delete(subject);
    this.waiting.set(subject, text);
    this.timer ??= setTimeout(() => this.flush(), Math.max(0, this.last + QUIET - Date.now()));
  }

  /** Drop texts that have not been announced yet. */
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
