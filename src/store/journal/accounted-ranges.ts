/**
 * Numbers of a session that have no row but are not gaps. Their frames were stored before, were
 * replaced, were refused because of a name conflict, or were removed later.
 */
import type { Database } from "bun:sqlite";

/** Identifies the numbers of one source in one session. */
export interface SourceSession {
  readonly stream: string;
  readonly source: string;
  readonly session: string;
}

type SourceSessionKey = [stream: string, source: string, session: string];

/** The table `accounted`. A range grows while numbers follow each other. */
export class AccountedRanges {
  readonly #find;
  readonly #insert;
  readonly #extend;
  readonly #upsertRemoved;
  readonly #deleteRemoved;

  constructor(database: Database) {
    const condition = "stream = ?1 AND source = ?2 AND session = ?3";
    this.#find = database.query<{ first: number; last: number }, [...SourceSessionKey, number]>(
      `SELECT first, last FROM accounted WHERE ${condition} AND first <= ?4 ORDER BY first DESC LIMIT 1`,
    );
    this.#insert = database.query<null, [...SourceSessionKey, number, number, bigint]>(
      "INSERT INTO accounted (stream, source, session, first, last, at) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#extend = database.query<null, [...SourceSessionKey, number, number, bigint]>(
      `UPDATE accounted SET last = ?5, at = ?6 WHERE ${condition} AND first = ?4`,
    );
    this.#upsertRemoved = database.query<null, [...SourceSessionKey, number, bigint]>(
      `INSERT INTO accounted (stream, source, session, first, last, at) VALUES (?1, ?2, ?3, 0, ?4, ?5)
        ON CONFLICT DO UPDATE SET last = max(last, ?4), at = ?5`,
    );
    this.#deleteRemoved = database.query<null, [...SourceSessionKey, number]>(
      `DELETE FROM accounted WHERE ${condition} AND first BETWEEN 1 AND ?4 AND last <= ?4`,
    );
  }

  /**
   * Marks the numbers from `first` to `last` as accounted for.
   *
   * @param at nanoseconds since 1970
   * @returns a function that writes the change, or undefined if the numbers are already covered
   */
  add(
    { stream, source, session }: SourceSession,
    first: number,
    last: number,
    at: bigint,
  ): (() => void) | undefined {
    const previous = this.#find.get(stream, source, session, first);
    if (previous === null || previous.last < first - 1) {
      return () => this.#insert.run(stream, source, session, first, last, at);
    }
    if (previous.last >= last) return undefined;
    return () => this.#extend.run(stream, source, session, previous.first, last, at);
  }

  /**
   * Covers all numbers up to `last` with one range, because frames up to `last` were removed. Gaps
   * before that frame are no longer reported.
   */
  markRemovedUpTo({ stream, source, session }: SourceSession, last: number, at: bigint): void {
    this.#upsertRemoved.run(stream, source, session, last, at);
    this.#deleteRemoved.run(stream, source, session, last);
  }
}
