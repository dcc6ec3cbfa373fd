/**
 * Frames that are taken out of the store because they are old: what is noted before their files go, and what
 * is remembered of them, so that the same command again does not bring them back.
 */
import type { Database } from "bun:sqlite";
import type { Accounts, Numbering } from "./accounts.ts";
import { pathOfFrame } from "./tree.ts";

/** A stored frame that may be old enough. */
export interface OldFrame extends Numbering {
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

type OldRow = Omit<Record<keyof OldFrame, bigint>, "stream" | "source" | "session" | "name"> & {
  stream: string;
  source: string;
  session: string;
  name: string;
};

/** What is remembered of a frame that was removed. */
export interface RemovedFrame {
  readonly bytes: number;
  readonly crc32: number;
  /** 1 if the capture times agree, else 0. */
  readonly sameTime: number;
}

/** So many removed frames are remembered, in some 50 bytes each; those removed first are forgotten first. */
const mostRemembered = 10_000_000;

function prepare(database: Database) {
  const frame =
    "frames.id, stream, source, name, session, seq, bytes, crc32, captured, received FROM frames";
  return {
    oldest: database
      .query<OldRow, [number, number]>(
        `SELECT ${frame} WHERE id > ?
          AND id < (SELECT max(id) FROM frames) ORDER BY id LIMIT ?`,
      )
      .safeIntegers(true),
    begun: database
      .query<OldRow, []>(
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
    find: database.query<RemovedFrame, [bigint, bigint]>(
      `SELECT bytes, crc32, captured BETWEEN ?2 - 999 AND ?2 + 999 AS sameTime
        FROM removed WHERE path = ?1`,
    ),
    forget: database.query("DELETE FROM removed WHERE id <= (SELECT max(id) FROM removed) - ?"),
    dropLosses: database.query(
      `DELETE FROM losses WHERE session = ?3 AND source = ?2 AND stream = ?1
        AND first <= ?4 AND last <= ?4`,
    ),
    oldLosses: database
      .query<Numbering & { rowid: bigint; last: bigint; at: bigint }, [number]>(
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

function oldFrame(row: OldRow): OldFrame {
  const [id, seq, bytes, crc32] = [row.id, row.seq, row.bytes, row.crc32].map(Number);
  return { ...row, id: id!, seq: seq!, bytes: bytes!, crc32: crc32! };
}

/** The tables `removing` and `removed`. What writes is called within the transaction of a batch. */
export class Removals {
  readonly #statements: ReturnType<typeof prepare>;
  readonly #accounts: Accounts;

  constructor(database: Database, accounts: Accounts) {
    this.#statements = prepare(database);
    this.#accounts = accounts;
  }

  /**
   * The stored frames that came after the one with this id, in the order of arrival. The newest of all is
   * not among them: numbers of rows would be given anew.
   */
  oldest(after: number, most: number): OldFrame[] {
    return this.#statements.oldest.all(after, most).map(oldFrame);
  }

  /** Frames whose removal was begun and not ended. */
  begun(): OldFrame[] {
    return this.#statements.begun.all().map(oldFrame);
  }

  /** Notes frames whose files are about to go. */
  begin(frames: readonly OldFrame[]): void {
    for (const { id } of frames) this.#statements.begin.run(id);
  }

  /** The files of these frames are gone: so are their rows now. `at` is in nanoseconds since 1970. */
  end(frames: readonly OldFrame[], at: bigint): void {
    const horizons = new Map<string, OldFrame>();
    for (const frame of frames) {
      const { id, stream, source, session, name, seq, bytes, crc32, captured } = frame;
      this.#statements.drop.run(id);
      this.#statements.end.run(id);
      this.#statements.remember.run(hashOf(stream, source, name), bytes, crc32, captured);
      const key = JSON.stringify([stream, source, session]);
      if ((horizons.get(key)?.seq ?? 0) < seq) horizons.set(key, frame);
    }
    for (const frame of horizons.values()) this.#accounts.pass(frame, frame.seq, at);
    this.#statements.forget.run(mostRemembered);
  }

  /** The file of this frame cannot be removed: it stays stored. */
  giveUp({ id }: OldFrame): void {
    this.#statements.end.run(id);
  }

  /** Forgets what was begun, once nothing of it is left to be done. */
  clear(): void {
    if (this.#statements.anyBegun.get() !== null) this.#statements.clearBegun.run();
  }

  /** What is remembered of a frame of this name. */
  find(stream: string, source: string, name: string, captured: bigint): RemovedFrame | null {
    return this.#statements.find.get(hashOf(stream, source, name), captured);
  }

  /** Losses of the numbers that these frames were among, and of those before, go with them. */
  dropLossesOf(frames: readonly OldFrame[]): void {
    for (const { stream, source, session, seq } of frames) {
      this.#statements.dropLosses.run(stream, source, session, seq);
    }
  }

  /** Whether losses were reported before `before`. */
  hasLosses(before: bigint): boolean {
    const [oldest] = this.#statements.oldLosses.all(1);
    return oldest !== undefined && oldest.at <= before;
  }

  /** Removes losses that were reported before `before`, `most` at a time: how many. */
  dropLosses(before: bigint, most: number, at: bigint): number {
    let dropped = 0;
    for (const loss of this.#statements.oldLosses.all(most)) {
      if (loss.at > before) break;
      this.#statements.dropLoss.run(loss.rowid);
      this.#accounts.pass(loss, Number(loss.last), at);
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
function hashOf(stream: string, source: string, name: string): bigint {
  return BigInt.asIntN(64, Bun.hash.xxHash64(pathOfFrame(stream, source, name)));
}
