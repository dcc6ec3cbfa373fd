/** The bytes of all frames in a journal: summed up once, bit by bit, and kept in step from then on. */
import type { Database } from "bun:sqlite";

/** Rows that are summed up at a time, in some milliseconds. */
const rowBatchSize = 20_000;

export class ByteTotal {
  readonly #next;
  #bytes = 0;
  /** Frames that came later than the one with this id are not in it yet. */
  #lastId = 0;

  constructor(database: Database) {
    this.#next = database.query<{ bytes: number; last: number | null }, [number]>(
      `SELECT total(bytes) AS bytes, max(id) AS last
        FROM (SELECT id, bytes FROM frames WHERE id > ? ORDER BY id LIMIT ${rowBatchSize})`,
    );
  }

  /** The sum, or nothing as long as there are more rows: ask again. */
  advance(): number | undefined {
    if (this.#lastId === Infinity) return this.#bytes;
    const { bytes, last } = this.#next.get(this.#lastId)!;
    this.#bytes += bytes;
    this.#lastId = last ?? Infinity;
    return last === null ? this.#bytes : undefined;
  }

  /** A row was added, as the last. */
  add(bytes: number): void {
    if (this.#lastId === Infinity) this.#bytes += bytes;
  }

  /** The row with this id is gone. */
  remove(id: number, bytes: number): void {
    if (id <= this.#lastId) this.#bytes -= bytes;
  }

  /** Nobody knows any more which rows there are. */
  reset(): void {
    this.#bytes = this.#lastId = 0;
  }
}
