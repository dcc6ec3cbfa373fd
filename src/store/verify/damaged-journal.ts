/** Reads what can still be read of a malformed journal. Every row is checked. */
import { Database } from "bun:sqlite";
import { lstatSync } from "node:fs";
import { systemCode } from "../../errors.ts";
import { hasColumn } from "../journal/schema.ts";
import { checkedColumns, rowChecks, type UncheckedRow } from "../journal/row-check.ts";

/** Tables whose rows have an id, so that reading can go on behind a damaged page. */
const tablesWithIds: ReadonlySet<string> = new Set(["frames", "losses", "removed"]);

const maxId = BigInt(Number.MAX_SAFE_INTEGER);

type Table = keyof typeof checkedColumns;
type Row = UncheckedRow & { readonly rowid: bigint };

export class DamagedJournal {
  readonly #database: Database | undefined;

  constructor(path: string) {
    // A link could lead out of the store.
    const isFile = lstatSync(path, { throwIfNoEntry: false })?.isFile() === true;
    if (isFile) this.#database = ignoreDamage(() => new Database(path, { readonly: true }));
  }

  close(): void {
    this.#database?.close();
  }

  /** Yields the valid rows of a table, in order where possible. Optional columns may be added. */
  *rows(table: Table, moreColumns = ""): Generator<UncheckedRow> {
    for (const row of this.readableRows(table, moreColumns)) {
      if (rowChecks[table](row)) yield row;
    }
  }

  /** Yields all rows of a table that SQLite can read. Their values may be damaged. */
  readableRows(table: Table, moreColumns = ""): Generator<UncheckedRow> {
    const columns = checkedColumns[table] + moreColumns;
    return tablesWithIds.has(table)
      ? this.#rowsById(table, columns)
      : this.#rowsFromBothEnds(table, columns);
  }

  /**
   * Returns whether the index of names has this frame. The table and the index then agree, so the
   * name is not damaged.
   */
  isIndexed(stream: string, source: string, name: string, id: bigint): boolean {
    const found = ignoreDamage(() =>
      this.#database
        ?.query<{ id: bigint }, [string, string, string]>(
          `SELECT id FROM frames INDEXED BY sqlite_autoindex_frames_1
            WHERE stream = ? AND source = ? AND name = ?`,
        )
        .safeIntegers(true)
        .get(stream, source, name),
    );
    return found?.id === id;
  }

  hasColumn(table: Table, column: string): boolean {
    return ignoreDamage(() => this.#database && hasColumn(this.#database, table, column)) === true;
  }

  /** Reads from the first row on. Behind a damaged page it looks for the next readable row. */
  *#rowsById(table: Table, columns: string): Generator<Row> {
    for (let after = 0n; ;) {
      const selection = `SELECT rowid AS rowid, ${columns} FROM ${table}`;
      const read = this.#read<Row>(`${selection} WHERE rowid > ${after} ORDER BY rowid`);
      let last = after;
      for (let next = read.next(); ; next = read.next()) {
        if (next.done === true) {
          if (next.value === "complete") return;
          break;
        }
        if (next.value.rowid > last) last = next.value.rowid;
        yield next.value;
      }
      const next = this.#readableIdAfter(table, last);
      // The search may have passed readable rows behind the damaged page.
      const passed = [
        ...this.#read<Row>(
          `${selection} WHERE rowid > ${last} AND rowid <= ${next} ORDER BY rowid DESC`,
        ),
      ];
      yield* passed.reverse();
      if (next === maxId) return;
      after = next;
    }
  }

  /** Returns the id of a readable row after `id`, or `maxId`. Searches in growing steps. */
  #readableIdAfter(table: Table, id: bigint): bigint {
    for (let step = 1n; id + step < maxId; step *= 2n) {
      const query = `SELECT rowid AS rowid FROM ${table} WHERE rowid > ${id + step} ORDER BY rowid LIMIT 1`;
      const next = this.#read<Pick<Row, "rowid">>(query).next();
      if (next.done !== true) return next.value.rowid;
      if (next.value === "complete") return maxId;
    }
    return maxId;
  }

  *#rowsFromBothEnds(table: Table, columns: string): Generator<Row> {
    const key = columns.split(",")[0]!;
    for (const order of ["ASC", "DESC"]) {
      const end = yield* this.#read<Row>(
        `SELECT ${columns} FROM ${table} ORDER BY ${key} ${order}`,
      );
      if (end === "complete") return;
    }
  }

  /** Yields the rows of a query up to the first damage. Returns whether these are all. */
  *#read<T>(query: string): Generator<T, "complete" | "damaged"> {
    if (this.#database === undefined) return "damaged";
    try {
      // A prepared statement could be unusable after an error, so none is shared.
      yield* this.#database.prepare<T, []>(query).safeIntegers(true).iterate();
      return "complete";
    } catch (error) {
      if (isSqliteError(error)) return "damaged";
      throw error;
    }
  }
}

/** Returns the result of `act`, or undefined if SQLite cannot read what it needs. */
function ignoreDamage<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (isSqliteError(error)) return undefined;
    throw error;
  }
}

/** Returns whether SQLite failed. On a damaged disk or file, any of its errors is possible. */
function isSqliteError(error: unknown): boolean {
  return systemCode(error)?.startsWith("SQLITE_") === true;
}
