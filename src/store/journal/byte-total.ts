/** Sum of the bytes of all frames in a journal. It is computed in steps once and then updated. */
import type { Database } from "bun:sqlite";
import { countedBytes } from "./row-check.ts";

/** Rows summed in one step, which takes a few milliseconds. */
const rowBatchSize = 20_000;

export class ByteTotal {
  readonly #next;
  #bytes = 0;
  /** Id of the last row in the sum, or Infinity once the sum is complete. */
  #lastId = 0;

  constructor(database: Database) {
    this.#next = database.query<{ bytes: number; last: number | null }, [number]>(
      `SELECT total(${countedBytes}) AS bytes, max(id) AS last
        FROM (SELECT id, bytes FROM frames WHERE id > ? ORDER BY id LIMIT ${rowBatchSize})`,
    );
  }

  /** Adds the next rows. Returns the sum, or undefined if more rows remain: call again later. */
  advance(): number | undefined {
    if (this.#lastId === Infinity) return this.#bytes;
    const { bytes, last } = this.#next.get(this.#lastId)!;
    this.#bytes += bytes;
    this.#lastId = last ?? Infinity;
    return last === null ? this.#bytes : undefined;
  }

  /** Adds a row that was inserted with the highest id. */
  add(bytes: number): void {
    if (this.#lastId === Infinity) this.#bytes += bytes;
  }

  /** Subtracts a row that was removed. */
  remove(id: number, bytes: number): void {
    if (id <= this.#lastId) this.#bytes -= bytes;
  }

  /** Discards the sum after a rollback, so that it is computed again. */
  reset(): void {
    this.#bytes = this.#lastId = 0;
  }
}
