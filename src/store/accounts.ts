/**
 * Numbers of a session that have no row of their own and are no gap: their frames were there already, were
 * replaced by later ones, were refused because their names are taken, or were removed since.
 */
import type { Database } from "bun:sqlite";

/** Whose numbers they are. */
export interface Numbering {
  readonly stream: string;
  readonly source: string;
  readonly session: string;
}

type Key = [stream: string, source: string, session: string];

/** The table `accounted`: ranges that grow while numbers follow each other. */
export class Accounts {
  readonly #find;
  readonly #insert;
  readonly #extend;
  readonly #pass;
  readonly #drop;

  constructor(database: Database) {
    const whose = "stream = ?1 AND source = ?2 AND session = ?3";
    this.#find = database.query<{ first: number; last: number }, [...Key, number]>(
      `SELECT first, last FROM accounted WHERE ${whose} AND first <= ?4 ORDER BY first DESC LIMIT 1`,
    );
    this.#insert = database.query<null, [...Key, number, number, bigint]>(
      "INSERT INTO accounted (stream, source, session, first, last, at) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#extend = database.query<null, [...Key, number, number, bigint]>(
      `UPDATE accounted SET last = ?5, at = ?6 WHERE ${whose} AND first = ?4`,
    );
    this.#pass = database.query<null, [...Key, number, bigint]>(
      `INSERT INTO accounted (stream, source, session, first, last, at) VALUES (?1, ?2, ?3, 0, ?4, ?5)
        ON CONFLICT DO UPDATE SET last = max(last, ?4), at = ?5`,
    );
    this.#drop = database.query<null, [...Key, number]>(
      `DELETE FROM accounted WHERE ${whose} AND first BETWEEN 1 AND ?4 AND last <= ?4`,
    );
  }

  /**
   * Accounts for the numbers from `first` to `last`.
   *
   * @param at nanoseconds since 1970
   * @returns what is to be written, or nothing if they are accounted for already
   */
  add(
    { stream, source, session }: Numbering,
    first: number,
    last: number,
    at: bigint,
  ): (() => void) | undefined {
    const before = this.#find.get(stream, source, session, first);
    if (before === null || before.last < first - 1) {
      return () => this.#insert.run(stream, source, session, first, last, at);
    }
    if (before.last >= last) return undefined;
    return () => this.#extend.run(stream, source, session, before.first, last, at);
  }

  /** Frames up to number `last` were removed: nobody asks any more what became of those before. */
  pass({ stream, source, session }: Numbering, last: number, at: bigint): void {
    this.#pass.run(stream, source, session, last, at);
    this.#drop.run(stream, source, session, last);
  }
}
