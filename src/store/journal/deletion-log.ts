/**
 * Frames that are taken out of the store because they are old: what is noted before their files go, and what
 * is remembered of them, so that the same command again does not bring them back.
 */
import type { Database } from "bun:sqlite";
import type { AccountedRanges, SourceSession } from "./accounted-ranges.ts";
import { framePath } from "../paths.ts";

/** A stored frame that may be old enough. */
export interface DeletionCandidate extends SourceSession {
  /** Order of arrival. */
  readonly id: number;
  readonly name: string;
  readonly seq: number;
  readonly bytes: number;
  readonly crc32: number;
  readonly captured: bigint;
  /** Nanoseconds since 1970, by the clock of the server. */
  readonly received: bigint;
}

type DeletionCandidateRow = Omit<
  Record<keyof DeletionCandidate, bigint>,
  "stream" | "source" | "session" | "name"
> & {
  stream: string;
  source: string;
  session: string;
  name: string;
};

/** What is remembered of a frame that was removed. */
export interface RemovedFrameRow {
  readonly bytes: number;
  readonly crc32: number;
  /** 1 if the capture times agree, else 0. */
  readonly sameTime: number;
}

/** So many removed frames are remembered, in some 50 bytes each; those removed first are forgotten first. */
const maxRemembered = 10_000_000;

function prepareDeletionStatements(database: Database) {
  const frame =
    "frames.id, stream, source, name, session, seq, bytes, crc32, captured, received FROM frames";
  return {
    oldest: database
      .query<DeletionCandidateRow, [number, number]>(
        `SELECT ${frame} WHERE id > ?
          AND id < (SELECT max(id) FROM frames) ORDER BY id LIMIT ?`,
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
  return { ...row, id: id!, seq: seq!, bytes: bytes!, crc32: crc32! };
}

/** The tables `removing` and `removed`. What writes is called within the transaction of a batch. */
export class DeletionLog {
  readonly #statements: ReturnType<typeof prepareDeletionStatements>;
  readonly #accountedRanges: AccountedRanges;

  constructor(database: Database, accountedRanges: AccountedRanges) {
    this.#statements = prepareDeletionStatements(database);
    this.#accountedRanges = accountedRanges;
  }

  /**
   * The stored frames that came after the one with this id, in the order of arrival. The newest of all is
   * not among them: numbers of rows would be given anew.
   */
  candidates(after: number, limit: number): DeletionCandidate[] {
    return this.#statements.oldest.all(after, limit).map(toDeletionCandidate);
  }

  /** Frames whose removal was begun and not ended. */
  unfinished(): DeletionCandidate[] {
    return this.#statements.begun.all().map(toDeletionCandidate);
  }

  /** Notes frames whose files are about to go. */
  begin(frames: readonly DeletionCandidate[]): void {
    for (const { id } of frames) this.#statements.begin.run(id);
  }

  /** The files of these frames are gone: so are their rows now. `at` is in nanoseconds since 1970. */
  end(frames: readonly DeletionCandidate[], at: bigint): void {
    const newestBySession = new Map<string, DeletionCandidate>();
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

  /** The file of this frame cannot be removed: it stays stored. */
  cancel({ id }: DeletionCandidate): void {
    this.#statements.end.run(id);
  }

  /** Forgets what was begun, once nothing of it is left to be done. */
  clear(): void {
    if (this.#statements.anyBegun.get() !== null) this.#statements.clearBegun.run();
  }

  /** What is remembered of a frame of this name. */
  find(stream: string, source: string, name: string, captured: bigint): RemovedFrameRow | null {
    return this.#statements.find.get(pathHash(stream, source, name), captured);
  }

  /** Losses of the numbers that these frames were among, and of those before, go with them. */
  dropLossesOf(frames: readonly DeletionCandidate[]): void {
    for (const { stream, source, session, seq } of frames) {
      this.#statements.dropLosses.run(stream, source, session, seq);
    }
  }

  /** Whether losses were reported before `before`. */
  hasLosses(before: bigint): boolean {
    const [oldestLoss] = this.#statements.oldLosses.all(1);
    return oldestLoss !== undefined && oldestLoss.at <= before;
  }

  /** Removes losses that were reported before `before`, `most` at a time: how many. */
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

  /** Whether the journal has frames of a source, or of sources below; with source "" of the stream. */
  hasBelow(stream: string, source: string): boolean {
    return this.#statements.anyBelow.get(stream, source) !== null;
  }
}

/** What stands for a path where millions are remembered. */
function pathHash(stream: string, source: string, name: string): bigint {
  return BigInt.asIntN(64, Bun.hash.xxHash64(framePath(stream, source, name)));
}
