/** Reads a store back beside whoever fills it: what came last is read once for all who follow. */
import type { CommitSignal } from "../../store/journal/commit-signal.ts";
import type { Catalog, FrameRecord } from "../../store/journal/catalog.ts";
import type { StoreContents } from "../../store/store-contents.ts";
import type { RetentionHold } from "../../store/directory/retention.ts";

/** Rows that came last and are kept at hand, and most that are read at a time. */
const maxCachedRows = 4096;
const maxRowsPerRead = 1000;

export class JournalTail {
  /** The folder of the store. */
  readonly location: string;
  readonly catalog: Catalog;
  readonly commitSignal: CommitSignal;
  /** Gives the bytes of frames, where these are far away. */
  readonly fetch: StoreContents["fetch"];
  /** Those who still have to read frames, where some are removed after a while. */
  readonly holds: Set<RetentionHold>;
  readonly #unsubscribe: () => void;
  /** All rows after `#from`, up to `#upTo`, in order. */
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
    this.location = contents.location;
    this.commitSignal = commitSignal;
    this.fetch = contents.fetch;
    this.holds = holds ?? new Set();
    this.catalog = contents.openCatalog();
    this.#from = this.#upTo = this.catalog.lastId();
    this.#unsubscribe = commitSignal.subscribe(() => (this.#isStale = true));
  }

  /** Id of the frame that came last, as far as this is known here. */
  get last(): number {
    this.#refresh();
    return this.#upTo;
  }

  /** All frames that came after the one with this id, if it is among the last; else ask the catalog. */
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
    const rows = this.catalog.allAfter(this.#upTo, maxRowsPerRead);
    if (rows.length === maxRowsPerRead) {
      // Whoever follows reads them by itself.
      this.#rows = [];
      this.#from = this.#upTo = this.catalog.lastId();
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
    this.catalog.close();
  }
}
