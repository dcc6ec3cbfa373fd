/** Lock that lets only one process serve a store. The system releases it when that process dies. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FileLock } from "../common/file-lock.ts";
import { readRegularFile } from "../common/read-file.ts";
import { replaceFile } from "../common/replace-file.ts";
import { FramesError, systemCode } from "../errors.ts";

/** The lock on a store, held until `release`. */
export class StoreLock {
  readonly #lock: FileLock;
  readonly #infoPath: string;

  /**
   * Acquires the lock in `folder` and writes the process id beside it.
   *
   * @param folder folder to lock, such as the `.frames` of a store
   * @throws {FramesError} `locked`, naming the owner
   */
  constructor(folder: string) {
    this.#infoPath = join(folder, "lock.json");
    try {
      this.#lock = new FileLock(join(folder, "lock.sqlite"), 0);
    } catch (error) {
      if (systemCode(error) !== "SQLITE_BUSY") throw error;
      throw new FramesError(
        "locked",
        `Cannot use the store: another process uses it (${describeOwner(this.#infoPath)}); stop it first, or choose another directory`,
      );
    }
    const info = { pid: process.pid, since: new Date().toISOString() };
    try {
      replaceFile(this.#infoPath, 0o644, (file) => {
        writeFileSync(file, `${JSON.stringify(info)}\n`);
      });
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
    this.#lock.release();
  }
}

const maxInfoBytes = 4096;

function describeOwner(infoPath: string): string {
  try {
    const { pid, since } = JSON.parse(String(readRegularFile(infoPath, maxInfoBytes))) as {
      pid: number;
      since: string;
    };
    return `process ${Number(pid)}, since ${String(since)}`;
  } catch {
    // The owner writes its process id only after it has the lock.
    return "a process that has just started";
  }
}
