/** What is stored under which name: the journal, and what file systems of other systems make of names. */
import { FramesError } from "../../errors.ts";
import type { FrameDescription, SourceInfo } from "../../frame.ts";
import type { Journal } from "../journal/journal.ts";
import { foldPath } from "../name-rules.ts";
import type { FrameRow } from "../journal/schema.ts";
import { framePath } from "../paths.ts";

export class NameIndex {
  readonly journal: Journal;
  /** Whether names must be such that Windows and macOS can keep them. */
  readonly isPortable: boolean;
  readonly #clock: () => number;
  /** Frames recorded since the store was opened. */
  recordedCount = 0;

  /** @param clock wall clock, in milliseconds since 1970 */
  constructor(journal: Journal, isPortable: boolean, clock: () => number) {
    this.journal = journal;
    this.isPortable = isPortable;
    this.#clock = clock;
    if (isPortable) this.#claimStored();
    else journal.dropFolded();
  }

  /** Now, in nanoseconds since 1970. */
  now(): bigint {
    return BigInt(Math.round(this.#clock() * 1e3)) * 1000n;
  }

  /** Whether the frame that is stored under this name came in this session under this number. */
  isOwn({ stream, source, session }: SourceInfo, { name, sequence, captured }: FrameDescription) {
    const stored = this.journal.findOffered(stream, source, name, captured);
    return stored?.session === session && stored.seq === sequence;
  }

  /** The row of a frame that is to be recorded now. */
  row(sourceInfo: SourceInfo, frame: FrameDescription, crc32: number): FrameRow {
    const { stream, source, session, key, raw } = sourceInfo;
    return {
      stream,
      source,
      name: frame.name,
      session,
      seq: frame.sequence,
      bytes: frame.size,
      crc32,
      captured: frame.captured,
      received: this.now(),
      key: key ?? null,
      meta: frame.metadata === "" ? null : frame.metadata,
      format: raw === undefined ? null : `${raw.width}x${raw.height}.${raw.format}`,
    };
  }

  /** Records a frame that lies at `path` below the store; it lasts once the journal was flushed. */
  record(path: string, row: FrameRow): void {
    if (this.isPortable) this.#claim(path);
    this.recordedCount++;
    this.journal.addFrame(row);
  }

  /** Records numbers that will never come. */
  recordLoss(sourceInfo: SourceInfo, first: number, last: number, reason: string): void {
    this.journal.addLoss(sourceInfo, first, last, reason, this.now());
  }

  /** A frame that gets no row was dealt with: its number is no gap. */
  markAccounted(sourceInfo: SourceInfo, first: number, last = first): void {
    this.journal.markAccounted(sourceInfo, first, last, this.now());
  }

  /**
   * Where names must be portable, makes sure that a path below the store, and each folder on the way,
   * differs from what is stored in more than case or Unicode form.
   *
   * @throws {FramesError} `unportable-name`
   */
  checkFree(path: string): void {
    if (!this.isPortable) return;
    for (const part of prefixes(path)) {
      const owner = this.journal.foldedOwner(foldPath(part));
      if (owner === undefined || owner === part) continue;
      throw new FramesError(
        "unportable-name",
        `On Windows and macOS ${JSON.stringify(part)} would be the same file as ${JSON.stringify(owner)}`,
      );
    }
  }

  /**
   * Whether `path` is another file than those noted in `names`, each folder on the way included, also
   * where case and Unicode form do not count if names must be portable.
   */
  isDistinct(path: string, reserved: ReadonlyMap<string, string>): boolean {
    if (!this.isPortable) return !reserved.has(path);
    if (reserved.has(foldPath(path))) return false;
    return prefixes(path).every((part) => (reserved.get(foldPath(part)) ?? part) === part);
  }

  /** Notes `path`, for `isApart`. */
  reserve(path: string, reserved: Map<string, string>): void {
    if (!this.isPortable) return void reserved.set(path, path);
    for (const part of prefixes(path)) reserved.set(foldPath(part), part);
  }

  /** Nothing may be stored any more that `path` would be mistaken for. */
  #claim(path: string): void {
    for (const part of prefixes(path)) this.journal.claimFolded(foldPath(part), part);
  }

  /** Gives up a path that nothing is stored under any more; folders on the way are given up one by one. */
  release(path: string): void {
    if (this.isPortable) this.journal.releaseFolded(foldPath(path), path);
  }

  /** Names stored before names had to be portable are claimed as they are. */
  #claimStored(): void {
    for (const { stream, source, name } of this.journal.pathsToClaim()) {
      this.#claim(framePath(stream, source, name));
    }
    this.journal.flush();
  }
}

/** `a`, `a/b` and `a/b/c` of `a/b/c`. */
function prefixes(path: string): string[] {
  const parts = path.split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}
