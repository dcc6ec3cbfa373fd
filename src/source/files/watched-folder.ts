/** The frames of one watched folder, in the order in which they became complete. */
import { FramesError } from "../../errors.ts";
import type { Frame, Loss } from "../../frame.ts";
import { FileSource, type SkippedPath } from "./directory-source.ts";
import { type NameList, packNames } from "./packed-names.ts";

/** Functions of the watcher that a watched folder calls. */
export interface WatchedFolderHooks {
  /**
   * Returns whether a file is unchanged since it was complete. If it changed, the watcher adds it
   * again later.
   *
   * @param isInitial whether the file was present when the watch began
   */
  isUnchanged(name: string, isInitial: boolean): boolean;
  /** Returns whether an image has its end. Formats without a recognizable end count as complete. */
  isComplete(name: string): boolean;
  /** Called after the file was delivered and deleted here. */
  onRemoved(name: string): void;
  onSkipped(skipped: SkippedPath): void;
}

export class WatchedFolder extends FileSource {
  readonly #hooks: WatchedFolderHooks;
  /** Files present when the watch began. The server may have them from an earlier delivery. */
  #initial: NameList;
  #nextInitial = 0;
  /** Files that became complete since, and losses. */
  readonly #queue: (string | { name: string; error: FramesError })[] = [];
  /** Names in `#queue`. A file that changes while queued is sent once, with its newest content. */
  readonly #queuedNames = new Set<string>();
  #pendingNext: PromiseWithResolvers<Frame | Loss | undefined> | undefined;
  #hasEnded = false;

  /** @param initial names in the order of sending */
  constructor(name: string, path: string, initial: readonly string[], hooks: WatchedFolderHooks) {
    super(name, path, (skipped) => hooks.onSkipped(skipped));
    this.#hooks = hooks;
    this.#initial = packNames(initial);
  }

  /** Whether files remain from before the watch. Only these may already be at the server. */
  override get isResumable(): boolean {
    return this.#nextInitial < this.#initial.length;
  }

  /** Queues a complete file. */
  add(name: string): void {
    if (this.#queuedNames.has(name)) return;
    this.#queuedNames.add(name);
    this.#queue.push(name);
    this.#resolveNext();
  }

  /** Queues the loss of a file that disappeared or will never be complete. */
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
        // Free the names.
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
    // A program is rewriting the file. It is sent under a new number once complete.
    if (error.code === "changed" && !this.#hooks.isComplete(name)) {
      return { first: sequence, last: sequence, what: name, name, error };
    }
    return super.retry(frame, error);
  }

  override async remove(frame: Frame, crc32: number): Promise<void> {
    await super.remove(frame, crc32);
    this.#hooks.onRemoved(frame.name);
  }

  /** Ends the source. Queued frames are still sent. */
  stopCapture(): void {
    this.#hasEnded = true;
    this.#resolveNext();
  }
}
