/** The frames of one folder that grows, in the order in which they became complete. */
import { FramesError } from "../../errors.ts";
import type { Frame, Loss } from "../../frame.ts";
import { FileSource, type SkippedPath } from "./directory-source.ts";
import { type NameList, packNames } from "./packed-names.ts";

/** What a watched folder asks of whoever watches it. */
export interface WatchedFolderHooks {
  /**
   * Whether a file is still what it was when it became complete; if not, it comes again later.
   *
   * @param isInitial whether it was there when it was first looked at
   */
  isUnchanged(name: string, isInitial: boolean): boolean;
  /** Whether an image has its end, where that can be told. */
  isComplete(name: string): boolean;
  /** The file was delivered and removed here. */
  onRemoved(name: string): void;
  onSkipped(skipped: SkippedPath): void;
}

export class WatchedFolder extends FileSource {
  readonly #hooks: WatchedFolderHooks;
  /** What was there when it was first looked at: an earlier delivery may have brought it. */
  #initial: NameList;
  #nextInitial = 0;
  /** What came since, and what will never be read. */
  readonly #queue: (string | { name: string; error: FramesError })[] = [];
  /** Names in `#came`: what changes again meanwhile is sent once, as it is then. */
  readonly #queuedNames = new Set<string>();
  #pendingNext: PromiseWithResolvers<Frame | Loss | undefined> | undefined;
  #hasEnded = false;

  /** @param initial names in the order in which they are to be sent */
  constructor(name: string, path: string, initial: readonly string[], hooks: WatchedFolderHooks) {
    super(name, path, (skipped) => hooks.onSkipped(skipped));
    this.#hooks = hooks;
    this.#initial = packNames(initial);
  }

  /** Only what was there before is worth asking for. */
  override get isResumable(): boolean {
    return this.#nextInitial < this.#initial.length;
  }

  /** A file is complete. */
  add(name: string): void {
    if (this.#queuedNames.has(name)) return;
    this.#queuedNames.add(name);
    this.#queue.push(name);
    this.#resolveNext();
  }

  /** A file is gone that was not sent, or will never be complete. */
  addLoss(name: string, error: FramesError): void {
    this.#queue.push({ name, error });
    this.#resolveNext();
  }

  #resolveNext(): void {
    if (this.#pendingNext === undefined) return;
    const next = this.#dequeue(false);
    if (next === undefined && !this.#hasEnded) return;
    this.#pendingNext.resolve(next);
    this.#pendingNext = undefined;
  }

  #dequeue(describeOnly: boolean): Frame | Loss | undefined {
    while (this.#nextInitial < this.#initial.length) {
      const item = this.#frameIfUnchanged(
        this.#initial.at(this.#nextInitial++)!,
        describeOnly,
        true,
      );
      if (this.#nextInitial === this.#initial.length) {
        // Their names are not needed any more.
        this.#initial = [];
        this.#nextInitial = 0;
      }
      if (item !== undefined) return item;
    }
    while (this.#queue.length > 0) {
      const next = this.#queue.shift()!;
      if (typeof next !== "string") return this.nextLoss(next.name, next.error);
      this.#queuedNames.delete(next);
      const item = this.#frameIfUnchanged(next, false, false);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  #frameIfUnchanged(
    name: string,
    describeOnly: boolean,
    isInitial: boolean,
  ): Frame | Loss | undefined {
    return this.#hooks.isUnchanged(name, isInitial)
      ? this.nextFrame(name, describeOnly)
      : undefined;
  }

  next(describeOnly: boolean): Frame | Loss | Promise<Frame | Loss | undefined> | undefined {
    const next = this.#dequeue(describeOnly);
    if (next !== undefined || this.#hasEnded) return next;
    const pendingNext = (this.#pendingNext = Promise.withResolvers<Frame | Loss | undefined>());
    return pendingNext.promise;
  }

  override retry(frame: Frame, error: FramesError): Frame | Loss {
    const { name, sequence } = frame;
    // Somebody writes it anew: it comes again when it is complete.
    if (error.code === "changed" && !this.#hooks.isComplete(name)) {
      return { first: sequence, last: sequence, what: name, error };
    }
    return super.retry(frame, error);
  }

  override async remove(frame: Frame, crc32: number): Promise<void> {
    await super.remove(frame, crc32);
    this.#hooks.onRemoved(frame.name);
  }

  /** Nothing comes any more but what came already. */
  stopCapture(): void {
    this.#hasEnded = true;
    this.#resolveNext();
  }
}
