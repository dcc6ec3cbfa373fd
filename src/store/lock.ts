/** One process serves a store. The system lets go of the lock when that process dies, however it dies. */
import { Database } from "bun:sqlite";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../errors.ts";

/** The lock on a store, held until `release`. */
export class StoreLock {
  readonly #database: Database;
  readonly #infoPath: string;

  /**
   * Takes the lock that lies in `folder` (a store's `.frames`).
   *
   * @throws {FramesError} `locked`, naming the holder
   */
  constructor(folder: string) {
    this.#infoPath = join(folder, "lock.json");
    // An exclusive transaction on a database of its own is the portable lock that Bun offers.
    this.#database = new Database(join(folder, "lock.sqlite"));
    try {
      this.#database.run("PRAGMA busy_timeout = 0");
      this.#database.run("BEGIN EXCLUSIVE");
    } catch (error) {
      this.#database.close();
      if (sqliteCode(error) !== "SQLITE_BUSY") throw error;
      throw new FramesError(
        "locked",
        `Another process has this store: ${describeOwner(this.#infoPath)}; stop it first`,
      );
    }
    const info = { pid: process.pid, since: new Date().toISOString() };
    writeFileSync(this.#infoPath, `${JSON.stringify(info)}\n`);
  }

  /** Lets go of the store. */
  release(): void {
    rmSync(this.#infoPath, { force: true });
    this.#database.run("ROLLBACK");
    this.#database.close();
  }
}

function sqliteCode(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

function describeOwner(infoPath: string): string {
  try {
    const { pid, since } = JSON.parse(readFileSync(infoPath, "utf8")) as {
      pid: number;
      since: string;
    };
    return `process ${Number(pid)}, since ${String(since)}`;
  } catch {
    // The holder writes its note just after it has the lock.
    return "a process that has just started";
  }
}
