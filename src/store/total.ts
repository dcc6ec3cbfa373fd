/** The bytes of all frames in a journal: summed up once, bit by bit, and kept in step from then on. */
import type { Database } from "bun:sqlite";

/** Rows that are summed up at a time, in some milliseconds. */
const rowsAtOnce = 20_000;

export class Total {
  readonly #next;
  #bytes = 0;
  /** Frames that came later than the one with this id are not in it yet. */
  #upTo = 0;

  constructor(database: Database) {
    this.#next = database.query<{ bytes: number; last: number | null }, [number]>(
      `SELECT total(bytes) AS bytes, max(id) AS last
        FROM (SELECT id, bytes FROM frames WHERE id > ? ORDER BY id LIMIT ${rowsAtOnce})`,
    );
  }

  /** The sum, or nothing as long as there are more rows: ask again. */
  sum(): number | undefined {
    if (this.#upTo === Infinity) return this.#bytes;
    const { bytes, last } = this.#next.get(this.#upTo)!;
    this.#bytes += bytes;
    this.#upTo = last ?? Infinity;
    return last === null ? this.#bytes : undefined;
  }

  /** A row was added, as the last. */
  added(bytes: number): void {
    if (this.#upTo === Infinity) this.#bytes += bytes;
  }

  /** The row with this id is gone. */
  removed(id: number, bytes: number): void {
    if (id <= this.#upTo) this.#bytes -= bytes;
  }

  /** Nobody knows any more which rows there are. */
  forget(): void {
    this.#bytes = this.#upTo = 0;
  }
}
