/** Files that a watcher has already handled. Stored on disk, because there may be millions. */
import { Database } from "bun:sqlite";

/** State of a file when it was complete. */
export interface SeenFile {
  readonly size: bigint;
  /** Modification time, in nanoseconds since 1970. */
  readonly time: bigint;
  readonly inode: bigint;
}

/** A file's folder and name. */
export interface SeenName {
  readonly folder: bigint;
  readonly name: string;
}

export class SeenFiles {
  /** An empty name makes SQLite use a temporary file, which is removed when the process ends. */
  readonly #database = new Database("", { safeIntegers: true });
  readonly #get;
  readonly #getRemoved;
  readonly #put;
  readonly #delete;
  readonly #copyRemoved;
  readonly #putRemoved;
  readonly #copyKnown;
  readonly #forgetRemoved;
  readonly #invalidate;
  readonly #hasInode;
  readonly #after;

  constructor() {
    // The content is useless to the next process, so it need not survive a crash.
    for (const pragma of ["journal_mode = OFF", "synchronous = OFF"]) {
      this.#database.run(`PRAGMA ${pragma}`);
    }
    for (const table of ["known", "removed"]) {
      this.#database.run(`
        CREATE TABLE ${table} (
          folder INTEGER, name TEXT, size INTEGER, time INTEGER, inode INTEGER,
          PRIMARY KEY (folder, name)
        ) WITHOUT ROWID`);
    }
    this.#database.run("CREATE INDEX known_by_inode ON known (inode)");
    const condition = "folder = ?1 AND name = ?2";
    const select = (table: string) =>
      this.#database.query<SeenFile, [number, string]>(
        `SELECT size, time, inode FROM ${table} WHERE ${condition}`,
      );
    this.#get = select("known");
    this.#getRemoved = select("removed");
    this.#put = this.#database.query<null, [number, string, bigint, bigint, bigint]>(
      "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?)",
    );
    this.#delete = this.#database.query<null, [number, string]>(
      `DELETE FROM known WHERE ${condition}`,
    );
    this.#copyRemoved = this.#database.query<null, [number, string]>(
      `INSERT OR REPLACE INTO removed SELECT * FROM known WHERE ${condition}`,
    );
    this.#copyKnown = this.#database.query<null, [number, string]>(
      `INSERT OR REPLACE INTO known SELECT * FROM removed WHERE ${condition}`,
    );
    this.#forgetRemoved = this.#database.query<null, [number, string]>(
      `DELETE FROM removed WHERE ${condition}`,
    );
    this.#invalidate = this.#database.query<null, [number, string]>(
      `UPDATE removed SET size = -1 WHERE ${condition}`,
    );
    this.#putRemoved = this.#database.query<null, [number, string]>(
      "INSERT OR REPLACE INTO removed VALUES (?, ?, -1, 0, 0)",
    );
    this.#hasInode = this.#database.query<{ found: bigint }, [bigint, bigint, bigint]>(
      "SELECT 1 AS found FROM known WHERE inode = ? AND size = ? AND time = ?",
    );
    this.#after = this.#database.query<SeenName, [bigint, string, number]>(
      "SELECT folder, name FROM known WHERE (folder, name) > (?, ?) ORDER BY folder, name LIMIT ?",
    );
  }

  /** @param folder identifies the folder of the file */
  get(folder: number, name: string): SeenFile | null {
    return this.#get.get(folder, name);
  }

  put(folder: number, name: string, { size, time, inode }: SeenFile): void {
    this.#put.run(folder, name, size, int64(time), int64(inode));
  }

  /** Returns the file of this name that was removed last. */
  getRemoved(folder: number, name: string): SeenFile | null {
    return this.#getRemoved.get(folder, name);
  }

  /** Notes that a known file has disappeared. */
  remove(folder: number, name: string): void {
    this.#copyRemoved.run(folder, name);
    this.#delete.run(folder, name);
  }

  /** Notes that a file that had disappeared is back, as it was. */
  restore(folder: number, name: string): void {
    this.#copyKnown.run(folder, name);
    this.#forgetRemoved.run(folder, name);
  }

  /** Notes that a file was removed for good: a later file of its name is another, even if equal. */
  removeForGood(folder: number, name: string): void {
    this.#delete.run(folder, name);
    this.#putRemoved.run(folder, name);
  }

  /** Notes that a removed file was not sent: if it comes back, it is another. */
  setUnsent(folder: number, name: string): void {
    this.#invalidate.run(folder, name);
  }

  /** Notes that a folder has disappeared with all its files. */
  removeFolder(folder: number): void {
    const { changes } = this.#database.run(
      "INSERT OR REPLACE INTO removed SELECT * FROM known WHERE folder = ?",
      [folder],
    );
    if (changes > 0) this.#database.run("DELETE FROM known WHERE folder = ?", [folder]);
  }

  /** Returns whether a known file is the one with this inode, under any name. */
  has({ inode, size, time }: SeenFile): boolean {
    return this.#hasInode.get(int64(inode), size, int64(time)) !== null;
  }

  /** Returns the names of known files in order, from the first after `last`. */
  after({ folder, name }: SeenName, limit: number): SeenName[] {
    return this.#after.all(folder, name, limit);
  }

  close(): void {
    this.#database.close();
  }
}

/** SQLite holds 64 bits. A time or an inode beyond them keeps its last 64, which suffice to compare. */
export function int64(value: bigint): bigint {
  return BigInt.asIntN(64, value);
}
