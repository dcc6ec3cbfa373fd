/** The frames of one watched folder, in the order in which they became complete. */
import { constants, copyFileSync, lstatSync, renameSync, unlinkSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import type { Frame, Loss, Postponed } from "../../frame.ts";
import { FileSource, type FileSourceOptions } from "./directory-source.ts";
import { type NameList, packNames } from "./packed-names.ts";

/** Longest name of a file, in bytes. */
const maxNameBytes = 255;

/** Options of a watched folder, and functions of its watcher. */
export interface WatchedFolderOptions extends Omit<FileSourceOptions, "names"> {
  /** Names present when the watch began, in the order of sending. */
  readonly initial: readonly string[];
  /**
   * Returns whether a file is unchanged since it was complete. If it changed, the watcher adds it
   * again later.
   */
  isUnchanged(name: string): boolean;
  /**
   * Returns whether a file may be a later version of one that was sent under its name. If that one
   * was removed, the file is another.
   */
  mayRevise(name: string): boolean;
  /** Returns whether an image has its end. Formats without a recognizable end count as complete. */
  isComplete(name: string): boolean;
  /** Called after the file was delivered and deleted here. */
  onRemoved(name: string): void;
}

export class WatchedFolder extends FileSource {
  readonly #options: WatchedFolderOptions;
  /** Files present when the watch began. The server may have them from an earlier delivery. */
  #initial: NameList;
  #nextInitial = 0;
  /** Files that became complete since, and losses. */
  readonly #queue: (string | { name: string; error: FramesError })[] = [];
  /** Names in `#queue`. A file that changes while queued is sent once, with its newest content. */
  readonly #queuedNames = new Set<string>();
  #pendingNext: PromiseWithResolvers<Frame | Loss | undefined> | undefined;
  #hasEnded = false;

  constructor(options: WatchedFolderOptions) {
    super(options);
    this.#options = options;
    this.#initial = packNames(options.initial);
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
    // Its loss is found when its turn comes.
    if (this.#queuedNames.has(name)) return;
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
      const item = this.#frameIfUnchanged(this.#initial.at(this.#nextInitial++)!, describeOnly);
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
      const item = this.#frameIfUnchanged(next, false);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  #frameIfUnchanged(name: string, describeOnly: boolean): Frame | Loss | undefined {
    return this.#options.isUnchanged(name) ? this.nextFrame(name, describeOnly) : undefined;
  }

  protected override mayRevise(name: string): boolean {
    return this.#options.mayRevise(name);
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
    if (error.code === "changed" && !this.#options.isComplete(name)) {
      return { first: sequence, last: sequence, what: name, name, error };
    }
    return super.retry(frame, error);
  }

  override async remove(
    frame: Frame,
    crc32: number,
  ): Promise<"removed" | "superseded" | Postponed> {
    try {
      const result = await super.remove(frame, crc32);
      if (result === "removed") this.#forget(frame.name);
      return result;
    } catch (error) {
      const code = error instanceof FramesError ? error.code : undefined;
      // Its later version was removed here, or another program has deleted it.
      if (code === "vanished") return "superseded";
      // The watcher finds a file that has another size or time, and sends it.
      if (code === "changed" && !this.#hasEnded && !this.hasStateOf(frame)) return "superseded";
      throw error;
    }
  }

  /** Forgets a removed file. A late event may have queued it again, although it was sent as it is. */
  #forget(name: string): void {
    this.#options.onRemoved(name);
    if (this.#queuedNames.delete(name)) this.#queue.splice(this.#queue.indexOf(name), 1);
  }

  keepCopy(frame: Frame, crc32: number): string | undefined {
    if (!this.hasStateOf(frame)) return undefined;
    const path = join(this.path, frame.name);
    // A hidden file is not sent. The same bytes are kept once, also after a restart.
    const prefix = `.kept-${crc32.toString(16).padStart(8, "0")}-`;
    const copy = join(this.path, prefix + endOf(frame.name, maxNameBytes - prefix.length));
    const kept = lstatSync(copy, { throwIfNoEntry: false });
    if (kept?.isFile() === true && kept.size === frame.size) return copy;
    // A name that no other user can foresee, and no link can take.
    const unfinished = join(this.path, `.kept-${crypto.randomUUID()}.part`);
    copyFileSync(path, unfinished, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
    // The next file of the name may have replaced it meanwhile.
    if (!this.hasStateOf(frame)) {
      unlinkSync(unfinished);
      return undefined;
    }
    const seconds = String(Number(frame.captured) / 1e9);
    utimesSync(unfinished, seconds, seconds);
    renameSync(unfinished, copy);
    return copy;
  }

  /** Ends the source. Queued frames are still sent. */
  stopCapture(): void {
    this.#hasEnded = true;
    this.#resolveNext();
  }
}

/** Returns the end of a name, at most `maxBytes` long. */
function endOf(name: string, maxBytes: number): string {
  let end = name;
  while (Buffer.byteLength(end) > maxBytes) end = end.slice(1);
  return end;
}
