/** The frames of one folder that grows, in the order in which they became complete. */
import { FramesError } from "../errors.ts";
import type { Frame, Loss } from "../frame.ts";
import { FolderSource, type Skipped } from "./directory.ts";
import { type Names, packNames } from "./names.ts";

/** What a watched folder asks of whoever watches it. */
export interface WatchedHooks {
  /**
   * Whether a file is still what it was when it became complete; if not, it comes again later.
   *
   * @param isFound whether it was there when it was first looked at
   */
  isAsItWas(name: string, isFound: boolean): boolean;
  /** Whether an image has its end, where that can be told. */
  isWhole(name: string): boolean;
  /** The file was delivered and removed here. */
  removed(name: string): void;
  skipped(skipped: Skipped): void;
}

export class WatchedFolder extends FolderSource {
  readonly #hooks: WatchedHooks;
  /** What was there when it was first looked at: an earlier delivery may have brought it. */
  #found: Names;
  #nextFound = 0;
  /** What came since, and what will never be read. */
  readonly #came: (string | { name: string; error: FramesError })[] = [];
  /** Names in `#came`: what changes again meanwhile is sent once, as it is then. */
  readonly #names = new Set<string>();
  #waiting: PromiseWithResolvers<Frame | Loss | undefined> | undefined;
  #hasEnded = false;

  /** @param found names in the order in which they are to be sent */
  constructor(name: string, path: string, found: readonly string[], hooks: WatchedHooks) {
    super(name, path, (skipped) => hooks.skipped(skipped));
    this.#hooks = hooks;
    this.#found = packNames(found);
  }

  /** Only what was there before is worth asking for. */
  override get resumes(): boolean {
    return this.#nextFound < this.#found.length;
  }

  /** A file is complete. */
  add(name: string): void {
    if (this.#names.has(name)) return;
    this.#names.add(name);
    this.#came.push(name);
    this.#answer();
  }

  /** A file is gone that was not sent, or will never be complete. */
  addLoss(name: string, error: FramesError): void {
    this.#came.push({ name, error });
    this.#answer();
  }

  #answer(): void {
    if (this.#waiting === undefined) return;
    const next = this.#take(false);
    if (next === undefined && !this.#hasEnded) return;
    this.#waiting.resolve(next);
    this.#waiting = undefined;
  }

  #take(offered: boolean): Frame | Loss | undefined {
    while (this.#nextFound < this.#found.length) {
      const item = this.#read(this.#found.at(this.#nextFound++)!, offered, true);
      if (this.#nextFound === this.#found.length) {
        // Their names are not needed any more.
        this.#found = [];
        this.#nextFound = 0;
      }
      if (item !== undefined) return item;
    }
    while (this.#came.length > 0) {
      const next = this.#came.shift()!;
      if (typeof next !== "string") return this.lose(next.name, next.error);
      this.#names.delete(next);
      const item = this.#read(next, false, false);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  #read(name: string, offered: boolean, isFound: boolean): Frame | Loss | undefined {
    return this.#hooks.isAsItWas(name, isFound) ? this.take(name, offered) : undefined;
  }

  next(offered: boolean): Frame | Loss | Promise<Frame | Loss | undefined> | undefined {
    const next = this.#take(offered);
    if (next !== undefined || this.#hasEnded) return next;
    const waiting = (this.#waiting = Promise.withResolvers<Frame | Loss | undefined>());
    return waiting.promise;
  }

  override again(frame: Frame, error: FramesError): Frame | Loss {
    const { name, sequence } = frame;
    // Somebody writes it anew: it comes again when it is complete.
    if (error.code === "changed" && !this.#hooks.isWhole(name)) {
      return { first: sequence, last: sequence, what: name, error };
    }
    return super.again(frame, error);
  }

  override async remove(frame: Frame, crc32: number): Promise<void> {
    await super.remove(frame, crc32);
    this.#hooks.removed(frame.name);
  }

  /** Nothing comes any more but what came already. */
  stop(): void {
    this.#hasEnded = true;
    this.#answer();
  }
}
