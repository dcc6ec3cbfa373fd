/**
 * Log of frames removed by retention. A removal is recorded before the file is deleted. The removed
 * frame is remembered, so that sending it again does not store it again.
 */
import type { Database } from "bun:sqlite";
import type { AccountedRanges, SourceSession } from "./accounted-ranges.ts";
import { framePath } from "../paths.ts";
import { rowChecks } from "./row-check.ts";

/** A stored frame that retention may remove. */
export interface DeletionCandidate extends SourceSession {
  /** Id of the row. Ids rise in order of arrival. */
  readonly id: number;
  readonly name: string;
  readonly seq: number;
  readonly bytes: number;
  readonly crc32: number;
  readonly captured: bigint;
  /** Time of arrival by the server's clock, in nanoseconds since 1970. */
  readonly received: bigint;
  /** Whether it is a picture of encoded video. */
  readonly isPicture?: boolean;
  /** Whether no server can have written this row. Its file must not be touched. */
  readonly isDamaged: boolean;
}

type DeletionCandidateRow = Omit<
  Record<keyof DeletionCandidate, bigint>,
  "stream" | "source" | "session" | "name" | "isPicture" | "isDamaged"
> & {
  is_key: bigint | null;
  stream: string;
  source: string;
  session: string;
  name: string;
};

/** What is remembered of a removed frame. */
export interface RemovedFrameRow {
  readonly bytes: number;
  readonly crc32: number;
  /** 1 if the capture times agree within a microsecond, else 0. */
  readonly sameTime: number;
}

/**
 * Removed frames that are remembered, at about 50 bytes each. The frames removed first are
 * forgotten first.
 */
const maxRemembered = 10_000_000;

function prepareDeletionStatements(database: Database) {
  const frame =
    "frames.id, stream, source, name, session, seq, bytes, crc32, captured, received, is_key FROM frames";
  return {
    oldest: database
      .query<DeletionCandidateRow, [number, number]>(
        `SELECT ${frame} WHERE id > ?
          AND id < (SELECT max(id) FROM frames) ORDER BY id LIMIT ?`,
      )
      .safeIntegers(true),
    // The newest frame stays, as above.
    beforeNextKey: database
      .query<DeletionCandidateRow, [string, string, string, number, number]>(
        `SELECT ${frame} WHERE session = ?3 AND source = ?2 AND +stream = ?1 AND is_key = 0
          AND seq > ?4 AND seq < (SELECT min(seq) FROM frames WHERE session = ?3 AND source = ?2
            AND +stream = ?1 AND is_key = 1 AND seq > ?4)
          AND id < (SELECT max(id) FROM frames) ORDER BY seq LIMIT ?5`,
      )
      .safeIntegers(true),
    begun: database
      .query<DeletionCandidateRow, []>(
        `SELECT ${frame.replace(" FROM", " FROM removing CROSS JOIN")} USING (id) ORDER BY removing.id`,
      )
      .safeIntegers(true),
    begin: database.query("INSERT OR IGNORE INTO removing (id) VALUES (?)"),
    end: database.query("DELETE FROM removing WHERE id = ?"),
    anyBegun: database.query("SELECT 1 FROM removing LIMIT 1"),
    clearBegun: database.query("DELETE FROM removing"),
    drop: database.query("DELETE FROM frames WHERE id = ?"),
    remember: database.query(
      "INSERT OR REPLACE INTO removed (path, bytes, crc32, captured) VALUES (?, ?, ?, ?)",
    ),
    find: database.query<RemovedFrameRow, [bigint, bigint]>(
      `SELECT bytes, crc32, captured BETWEEN ?2 - 999 AND ?2 + 999 AS sameTime
        FROM removed WHERE path = ?1`,
    ),
    anyRemembered: database.query("SELECT 1 FROM removed LIMIT 1"),
    forget: database.query("DELETE FROM removed WHERE id <= (SELECT max(id) FROM removed) - ?"),
    dropLosses: database.query(
      `DELETE FROM losses WHERE session = ?3 AND source = ?2 AND stream = ?1
        AND first <= ?4 AND last <= ?4`,
    ),
    oldLosses: database
      .query<SourceSession & { rowid: bigint; last: bigint; at: bigint }, [number]>(
        "SELECT rowid, stream, source, session, last, at FROM losses ORDER BY rowid LIMIT ?",
      )
      .safeIntegers(true),
    dropLoss: database.query("DELETE FROM losses WHERE rowid = ?"),
    anyBelow: database.query(
      `SELECT 1 FROM frames WHERE stream = ?1 AND (?2 = '' OR source = ?2
        OR (source > ?2 || '/' AND source < ?2 || '0')) LIMIT 1`,
    ),
  };
}

function toDeletionCandidate(row: DeletionCandidateRow): DeletionCandidate {
  const [id, seq, bytes, crc32] = [row.id, row.seq, row.bytes, row.crc32].map(Number);
  const isDamaged = !rowChecks.frames(row);
  const isPicture = row.is_key !== null;
  return { ...row, isPicture, id: id!, seq: seq!, bytes: bytes!, crc32: crc32!, isDamaged };
}

/**
 * The tables `removing` and `removed`. Call the methods that write within a transaction of the
 * journal.
 */
export class DeletionLog {
  readonly #statements: ReturnType<typeof prepareDeletionStatements>;
  readonly #accountedRanges: AccountedRanges;
  #isEmpty: boolean;

  constructor(database: Database, accountedRanges: AccountedRanges) {
    this.#statements = prepareDeletionStatements(database);
    this.#accountedRanges = accountedRanges;
    this.#isEmpty = this.#statements.anyRemembered.get() === null;
  }

  /** Whether no removed frame is remembered, so that `find` need not be called for each frame. */
  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  /**
   * Returns at most `limit` stored frames with ids above `after`, in order of arrival. Leaves out
   * the newest frame, because SQLite would reuse the highest id after its removal.
   */
  candidates(after: number, limit: number): DeletionCandidate[] {
    return this.#statements.oldest.all(after, limit).map(toDeletionCandidate);
  }

  /**
   * Returns the pictures of encoded video after a removed one, up to the next key frame. Without a
   * later key frame there are none.
   */
  beforeNextKey({ stream, source, session, seq }: DeletionCandidate, limit: number) {
    const { beforeNextKey } = this.#statements;
    return beforeNextKey.all(stream, source, session, seq, limit).map(toDeletionCandidate);
  }

  /** Returns frames whose removal was begun but not completed. Leaves damaged rows out. */
  unfinished(): DeletionCandidate[] {
    return this.#statements.begun
      .all()
      .map(toDeletionCandidate)
      .filter(({ isDamaged }) => !isDamaged);
  }

  /** Records that the files of these frames are about to be deleted. */
  begin(frames: readonly DeletionCandidate[]): void {
    for (const { id } of frames) this.#statements.begin.run(id);
  }

  /**
   * Deletes the rows of frames whose files were deleted, and remembers them.
   *
   * @param at nanoseconds since 1970
   */
  end(frames: readonly DeletionCandidate[], at: bigint): void {
    const newestBySession = new Map<string, DeletionCandidate>();
    if (frames.length > 0) this.#isEmpty = false;
    for (const frame of frames) {
      const { id, stream, source, session, name, seq, bytes, crc32, captured } = frame;
      this.#statements.drop.run(id);
      this.#statements.end.run(id);
      this.#statements.remember.run(pathHash(stream, source, name), bytes, crc32, captured);
      const key = JSON.stringify([stream, source, session]);
      if ((newestBySession.get(key)?.seq ?? 0) < seq) newestBySession.set(key, frame);
    }
    for (const frame of newestBySession.values())
      this.#accountedRanges.markRemovedUpTo(frame, frame.seq, at);
    this.#statements.forget.run(maxRemembered);
  }

  /** Ends the removal of a frame whose file could not be deleted. The frame stays stored. */
  cancel({ id }: DeletionCandidate): void {
    this.#statements.end.run(id);
  }

  /** Clears the log of begun removals. Call it only after all of them were completed. */
  clear(): void {
    if (this.#statements.anyBegun.get() !== null) this.#statements.clearBegun.run();
  }

  /**
   * Returns what is remembered of a removed frame with this name.
   *
   * @param captured capture time to compare with, in nanoseconds since 1970
   */
  find(stream: string, source: string, name: string, captured: bigint): RemovedFrameRow | null {
    return this.#statements.find.get(pathHash(stream, source, name), captured);
  }

  /**
   * Deletes reported losses of the same sessions whose numbers are not above those of these frames.
   */
  dropLossesOf(frames: readonly DeletionCandidate[]): void {
    for (const { stream, source, session, seq } of frames) {
      this.#statements.dropLosses.run(stream, source, session, seq);
    }
  }

  /** Returns whether any loss was reported at `before` or earlier, in nanoseconds since 1970. */
  hasLosses(before: bigint): boolean {
    const [oldestLoss] = this.#statements.oldLosses.all(1);
    return oldestLoss !== undefined && oldestLoss.at <= before;
  }

  /**
   * Deletes losses reported at `before` or earlier, in the order of their rows.
   *
   * @param limit rows to delete at most
   * @param at current time; all times are nanoseconds since 1970
   * @returns the number of deleted rows
   */
  dropLosses(before: bigint, limit: number, at: bigint): number {
    let dropped = 0;
    for (const loss of this.#statements.oldLosses.all(limit)) {
      if (loss.at > before) break;
      this.#statements.dropLoss.run(loss.rowid);
      this.#accountedRanges.markRemovedUpTo(loss, Number(loss.last), at);
      dropped++;
    }
    return dropped;
  }

  /**
   * Returns whether the journal has frames of a source or of sources below it. An empty `source`
   * stands for the whole stream.
   */
  hasBelow(stream: string, source: string): boolean {
    return this.#statements.anyBelow.get(stream, source) !== null;
  }
}

/**
 * Returns a 64-bit hash of a path. Millions of removed frames are remembered, and a hash takes less
 * space than a path.
 */
function pathHash(stream: string, source: string, name: string): bigint {
  return BigInt.asIntN(64, Bun.hash.xxHash64(framePath(stream, source, name)));
}
