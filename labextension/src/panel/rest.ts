/** The rest of the panel: the parts that are loaded when the user first wants to see one. */

export type More = typeof import("./more");

/** Loads the parts once, however many want them; again only after that has failed. */
export class Rest {
  parts: More | undefined;
  private loading: Promise<boolean> | undefined;

  constructor(private readonly load: () => Promise<More>) {}

  /** Have the parts loaded; whether that went well. */
  want(): Promise<boolean> {
    this.loading ??= this.load().then(
      (parts) => {
        this.parts = parts;
        return true;
      },
      () => {
        this.loading = undefined;
        return false;
      }
    );
    return this.loading;
  }
}
