/** Locks between processes. The system releases a lock when the process that holds it dies. */
import { Database } from "bun:sqlite";
import { closeSync, fchownSync, lstatSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { systemCode } from "../errors.ts";

/** A lock on a file that has no other use, held until `release`. */
export class FileLock {
  readonly #database: Database;

  /**
   * @param path of the lock file, which stays in place
   * @param timeoutMs how long to wait for another process, in milliseconds
   * @throws the error of the system or of SQLite: `SQLITE_BUSY` if another process holds the lock
   */
  constructor(path: string, timeoutMs: number) {
    createLockFile(path);
    // Bun offers no portable file lock, so the lock is an exclusive transaction on a database.
    this.#database = new Database(path);
    try {
      this.#database.run(`PRAGMA busy_timeout = ${timeoutMs}`);
      this.#database.run("BEGIN EXCLUSIVE");
    } catch (error) {
      this.#database.close();
      throw error;
    }
  }

  release(): void {
    // Closing also ends the transaction.
    this.#database.close();
  }
}

/**
 * Creates the file if it is missing. One that root creates belongs to the owner of its folder, so
 * that it does not lock that user out. A file in place is not opened, because closing it would
 * release the lock that this process may hold on it.
 *
 * @throws the error of the system, `ELOOP` for a link, which is not followed
 */
function createLockFile(path: string): void {
  let file: number;
  try {
    file = openSync(path, "wx", 0o600);
  } catch (error) {
    if (systemCode(error) !== "EEXIST") throw error;
    if (!lstatSync(path).isSymbolicLink()) return;
    throw Object.assign(new Error(`${path} is a link`), { code: "ELOOP" });
  }
  try {
    const { uid, gid } = statSync(dirname(path));
    if (process.getuid?.() === 0) fchownSync(file, uid, gid);
  } finally {
    closeSync(file);
  }
}
