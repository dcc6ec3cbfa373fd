/** Reads a store back beside whoever fills it: what came last is read once for all who follow. */
import type { Arrivals } from "../store/arrivals.ts";
import type { Catalog, KeptFrame } from "../store/catalog.ts";
import type { KeptFrames } from "../store/kept.ts";
import type { Follower } from "../store/retention.ts";

/** Rows that came last and are kept at hand, and most that are read at a time. */
const mostKept = 4096;
const mostAtOnce = 1000;

export class StoreReader {
  /** The folder of the store. */
  readonly place: string;
  readonly catalog: Catalog;
  readonly arrivals: Arrivals;
  /** Gives the bytes of frames, where these are far away. */
  readonly fetch: KeptFrames["fetch"];
  /** Those who still have to read frames, where some are removed after a while. */
  readonly followers: Set<Follower>;
  readonly #unfollow: () => void;
  /** All rows after `#from`, up to `#upTo`, in order. */
  #rows: KeptFrame[] = [];
  #from: number;
  #upTo: number;
  #isNews = false;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(kept: KeptFrames, arrivals: Arrivals, followers: Set<Follower> | undefined) {
    this.place = kept.place;
    this.arrivals = arrivals;
    this.fetch = kept.fetch;
    this.followers = followers ?? new Set();
    this.catalog = kept.openCatalog();
    this.#from = this.#upTo = this.catalog.last();
    this.#unfollow = arrivals.follow(() => (this.#isNews = true));
  }

  /** Id of the frame that came last, as far as this is known here. */
  get last(): number {
    this.#refresh();
    return this.#upTo;
  }

  /** All frames that came after the one with this id, if it is among the last; else ask the catalog. */
  after(id: number): readonly KeptFrame[] | undefined {
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
    if (!this.#isNews) return;
    this.#isNews = false;
    const rows = this.catalog.later(this.#upTo, mostAtOnce);
    if (rows.length === mostAtOnce) {
      // Whoever follows reads them by itself.
      this.#rows = [];
      this.#from = this.#upTo = this.catalog.last();
      return;
    }
    if (rows.length === 0) return;
    this.#rows.push(...rows);
    this.#upTo = rows.at(-1)!.id;
    const excess = this.#rows.length - mostKept;
    if (excess < mostKept) return;
    this.#from = this.#rows[excess - 1]!.id;
    this.#rows.splice(0, excess);
  }

  close(): void {
    this.#unfollow();
    this.catalog.close();
  }
}
