/** Reads new rows of a journal once, for all clients that follow it. */
import { FrameFiles } from "../../store/directory/frame-files.ts";
import type { CommitSignal } from "../../store/journal/commit-signal.ts";
import { JournalReader, type FrameRecord } from "../../store/journal/journal-reader.ts";
import type { StoreContents } from "../../store/store-contents.ts";
import type { RetentionHold } from "../../store/directory/retention.ts";

/**
 * Newest rows kept in memory, and rows of one read. The cache grows to twice its size before old
 * rows are dropped.
 */
const maxCachedRows = 4096;
const maxRowsPerRead = 1000;

export class JournalTail {
  /** Files of the frames, if the store is a directory. */
  readonly files: FrameFiles;
  readonly reader: JournalReader;
  readonly commitSignal: CommitSignal;
  /** Fetches the bytes of a frame, if the store is remote. */
  readonly fetch: StoreContents["fetch"];
  /** Clients whose pending frames must not be removed by retention. */
  readonly holds: Set<RetentionHold>;
  readonly #unsubscribe: () => void;
  /** All rows after `#from` up to `#upTo`, in order. */
  #rows: FrameRecord[] = [];
  #from: number;
  #upTo: number;
  #isStale = false;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(
    contents: StoreContents,
    commitSignal: CommitSignal,
    holds: Set<RetentionHold> | undefined,
  ) {
    this.files = new FrameFiles(contents.location);
    this.commitSignal = commitSignal;
    this.fetch = contents.fetch;
    this.holds = holds ?? new Set();
    this.reader = new JournalReader(contents.journalPath);
    this.#from = this.#upTo = this.reader.lastId();
    this.#unsubscribe = commitSignal.subscribe(() => (this.#isStale = true));
  }

  /** Id of the newest row. */
  get last(): number {
    this.#refresh();
    return this.#upTo;
  }

  /**
   * Returns the rows after this id; undefined if they are no longer in memory, so the caller reads
   * the reader.
   */
  after(id: number): readonly FrameRecord[] | undefined {
    this.#refresh();
    if (id < this.#from) return undefined;
    let [low, high] = [0, this.#rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#rows[middle]!.id <= id) low = middle + 1;
      else high = middle;
    }
    return this.#rows.slice(low);
  }

  #refresh(): void {
    if (!this.#isStale) return;
    this.#isStale = false;
    const rows = this.reader.allAfter(this.#upTo, maxRowsPerRead);
    if (rows.length === maxRowsPerRead) {
      // There are too many new rows to keep, so each client reads them from the reader.
      this.#rows = [];
      this.#from = this.#upTo = this.reader.lastId();
      return;
    }
    if (rows.length === 0) return;
    this.#rows.push(...rows);
    this.#upTo = rows.at(-1)!.id;
    const excess = this.#rows.length - maxCachedRows;
    if (excess < maxCachedRows) return;
    this.#from = this.#rows[excess - 1]!.id;
    this.#rows.splice(0, excess);
  }

  close(): void {
    this.#unsubscribe();
    this.reader.close();
  }
}
