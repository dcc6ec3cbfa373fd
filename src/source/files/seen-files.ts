/** Files that a watch has dealt with: on the disk, since there may be millions of them. */
import { Database } from "bun:sqlite";

/** What a file was when it was complete. */
export interface SeenFile {
  readonly size: bigint;
  /** Modification time, in nanoseconds since 1970. */
  readonly time: bigint;
}

export class SeenFiles {
  /** A file that the system removes with this process. */
  readonly #database = new Database("", { safeIntegers: true });
  readonly #get;
  readonly #put;
  readonly #delete;

  constructor() {
    // What it says is of no use to the next process.
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

  /** @param folder stands for the folder that the file lies in */
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
