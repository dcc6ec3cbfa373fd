/**
 * Index of stored names: the journal, and the folded paths that must differ on Windows and macOS.
 */
import { toNanoseconds } from "../../common/clock.ts";
import { compileCheaply } from "../../common/compilation.ts";
import { FramesError } from "../../errors.ts";
import type { FrameDescription, SourceInfo } from "../../frame.ts";
import type { Journal } from "../journal/journal.ts";
import { foldPath } from "../name-rules.ts";
import type { StoredFrameInfo } from "../conflict.ts";
import { type FrameRow, frameFacts, rawShapeColumn } from "../journal/schema.ts";
import { provedKey, unknownSession } from "../session-owner.ts";
import { framePath } from "../paths.ts";

export class NameIndex {
  readonly journal: Journal;
  /** Whether names must suit Windows and macOS. */
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

  /** Current time in nanoseconds since 1970. */
  now(): bigint {
    return toNanoseconds(this.#clock());
  }

  /** Creates the row of a frame that arrives now. */
  row(sourceInfo: SourceInfo, frame: FrameDescription, crc32: number): FrameRow {
    const { stream, source, session, key, raw } = sourceInfo;
    return {
      stream,
      source,
      session,
      key: key ?? null,
      format: rawShapeColumn(raw),
      ...frameFacts(frame, crc32, this.now()),
    };
  }

  /**
   * Records a frame at `path` below the store. The row is committed when the journal is flushed.
   */
  record(path: string, row: FrameRow): void {
    if (this.isPortable) this.#claim(path);
    this.recordedCount++;
    this.journal.addFrame(row);
  }

  /**
   * Called when a sender has a frame that is stored, with the same bytes. A loss of this name is
   * over then, and a row that was made from the file gets the sender's facts.
   */
  confirm(
    sourceInfo: SourceInfo,
    frame: Omit<FrameDescription, "metadata"> & { readonly metadata?: string },
    { session, crc32 }: StoredFrameInfo,
  ): void {
    const { stream, source } = sourceInfo;
    if (this.journal.hasNamedLosses) {
      const path = { stream, source, name: frame.name };
      this.journal.endLosses(path, provedKey(sourceInfo), this.now());
    }
    if (session !== unknownSession) return;
    this.journal.confirmFrame(this.row(sourceInfo, { metadata: "", ...frame }, crc32));
  }

  /** Records lost numbers, and the name of the lost frame if it is known. */
  recordLoss(
    sourceInfo: SourceInfo,
    first: number,
    last: number,
    reason: string,
    name: string | undefined,
  ): void {
    const sender = provedKey(sourceInfo);
    if (name !== undefined && this.journal.hasOpenLoss(sourceInfo, sender, name, reason)) {
      return this.markAccounted(sourceInfo, first, last);
    }
    this.journal.addLoss(sourceInfo, first, last, reason, this.now(), name);
  }

  /** Accounts for numbers that get no row, so that they are no gap. */
  markAccounted(sourceInfo: SourceInfo, first: number, last = first): void {
    this.journal.markAccounted(sourceInfo, first, last, this.now());
  }

  /**
   * Checks that a path and each of its folders do not collide with a stored path. In a portable
   * store, paths that differ only in case or Unicode form collide.
   *
   * @param path below the store
   * @throws {FramesError} `unportable-name`
   */
  checkFree(path: string): void {
    if (!this.isPortable) return;
    for (const part of prefixes(path)) {
      const owner = this.journal.foldedOwner(foldPath(part));
      if (owner === undefined || owner === part) continue;
      throw new FramesError(
        "unportable-name",
        `On Windows and macOS ${JSON.stringify(part)} is the same file as ${JSON.stringify(owner)}; rename one`,
      );
    }
  }

  /**
   * Returns whether `path` collides with none of the reserved paths. In a portable store its
   * folders count too, and case and Unicode form are ignored.
   */
  isDistinct(path: string, reserved: ReadonlyMap<string, string>): boolean {
    if (!this.isPortable) return !reserved.has(path);
    if (reserved.has(foldPath(path))) return false;
    return prefixes(path).every((part) => (reserved.get(foldPath(part)) ?? part) === part);
  }

  /** Adds `path` to the reserved paths, for `isDistinct`. */
  reserve(path: string, reserved: Map<string, string>): void {
    if (!this.isPortable) return void reserved.set(path, path);
    for (const part of prefixes(path)) reserved.set(foldPath(part), part);
  }

  /** Records `path` and its folders as owners of their folded paths. */
  #claim(path: string): void {
    for (const part of prefixes(path)) this.journal.claimFolded(foldPath(part), part);
  }

  /** Releases a path that holds no frame any more. Its folders must be released separately. */
  release(path: string): void {
    if (this.isPortable) this.journal.releaseFolded(foldPath(path), path);
  }

  /** Records the paths of frames that were stored before the store became portable. */
  #claimStored(): void {
    for (const { stream, source, name } of this.journal.pathsToClaim()) {
      this.#claim(framePath(stream, source, name));
    }
    this.journal.flush();
  }
}

/** Returns `a`, `a/b` and `a/b/c` for `a/b/c`. */
function prefixes(path: string): string[] {
  const parts = path.split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}

compileCheaply(NameIndex.prototype.row, NameIndex.prototype.record);
