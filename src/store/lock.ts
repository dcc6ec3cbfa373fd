/** Lock that lets only one process serve a store. The system releases it when that process dies. */
import { Database } from "bun:sqlite";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../errors.ts";

/** The lock on a store, held until `release`. */
export class StoreLock {
  readonly #database: Database;
  readonly #infoPath: string;

  /**
   * Acquires the lock in `folder` and writes the process id beside it.
   *
   * @param folder folder to lock, such as the `.frames` of a store
   * @throws {FramesError} `locked`, naming the owner
   */
  constructor(folder: string) {
    this.#infoPath = join(folder, "lock.json");
    // Bun offers no portable file lock, so the lock is an exclusive transaction on a database of
    // its own.
    this.#database = new Database(join(folder, "lock.sqlite"));
    try {
      this.#database.run("PRAGMA busy_timeout = 0");
      this.#database.run("BEGIN EXCLUSIVE");
    } catch (error) {
      this.#database.close();
      if (sqliteCode(error) !== "SQLITE_BUSY") throw error;
      throw new FramesError(
        "locked",
        `Cannot use the store: another process uses it (${describeOwner(this.#infoPath)}); stop it first, or choose another directory`,
      );
    }
    const info = { pid: process.pid, since: new Date().toISOString() };
    try {
      writeFileSync(this.#infoPath, `${JSON.stringify(info)}\n`);
    } catch {
      // The file only names the owner. A full disk must not keep a store from being read.
    }
  }

  /** Releases the lock. */
  release(): void {
    try {
      rmSync(this.#infoPath, { force: true });
    } catch {
      // The next owner overwrites it.
    }
    // Closing also ends the transaction.
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
    // The owner writes its process id only after it has the lock.
    return "a process that has just started";
  }
}
