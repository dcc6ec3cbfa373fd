/** Files that a watcher has already handled. Stored on disk, because there may be millions. */
import { Database } from "bun:sqlite";

/** State of a file when it was complete. */
export interface SeenFile {
  readonly size: bigint;
  /** Modification time, in nanoseconds since 1970. */
  readonly time: bigint;
}

export class SeenFiles {
  /** An empty name makes SQLite use a temporary file, which is removed when the process ends. */
  readonly #database = new Database("", { safeIntegers: true });
  readonly #get;
  readonly #put;
  readonly #delete;

  constructor() {
    // The content is useless to the next process, so it need not survive a crash.
    for (const pragma of ["journal_mode = OFF", "synchronous = OFF"]) {
      this.#database.run(`PRAGMA ${pragma}`);
    }
    this.#database.run(`
      CREATE TABLE known (
        folder INTEGER, name TEXT, size INTEGER, time INTEGER, PRIMARY KEY (folder, name)
      ) WITHOUT ROWID`);
    const condition = "folder = ? AND name = ?";
    this.#get = this.#database.query<SeenFile, [number, string]>(
      `SELECT size, time FROM known WHERE ${condition}`,
    );
    this.#put = this.#database.query<null, [number, string, bigint, bigint]>(
      "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?)",
    );
    this.#delete = this.#database.query<null, [number, string]>(
      `DELETE FROM known WHERE ${condition}`,
    );
  }

  /** @param folder identifies the folder of the file */
  get(folder: number, name: string): SeenFile | null {
    return this.#get.get(folder, name);
  }

  put(folder: number, name: string, { size, time }: SeenFile): void {
    this.#put.run(folder, name, size, time);
  }

  delete(folder: number, name: string): void {
    this.#delete.run(folder, name);
  }

  close(): void {
    this.#database.close();
  }
}
