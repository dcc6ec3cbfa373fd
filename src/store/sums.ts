/**
 * What each source of a store holds: summed up once, a few thousand rows at a time, and kept in step from then
 * on with what is added and what goes.
 */
import type { Catalog } from "./catalog.ts";
import type { GoneFrame } from "./journal.ts";

/** Rows that are summed up at a time, in a few milliseconds. */
const rowsAtOnce = 2000;

/** The sums of one source. */
export interface SourceSum {
  readonly stream: string;
  readonly source: string;
  frames: number;
  bytes: number;
  lost: number;
}

interface SumRow {
  stream: string;
  source: string;
  frames: number;
  bytes: number;
  last: number;
}

export class Sums {
  readonly #catalog: Catalog;
  /** By stream, then by source. */
  #sums = new Map<string, Map<string, SourceSum>>();
  #frames = 0;
  #bytes = 0;
  /** Frames that came later than the one with this id are not in it yet. */
  #upTo = 0;
  #lossesUpTo = 0;
  /** The first row of the losses when they were summed up: they go from there. */
  #firstLoss = 0;
  #isWhole = false;
  #running: Promise<void> | undefined;
  readonly #pause: () => Promise<void>;

  /** @param pause lets others have their turn */
  constructor(catalog: Catalog, pause: () => Promise<void>) {
    this.#catalog = catalog;
    this.#pause = pause;
  }

  /** Whether everything was summed up once. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** Frames and bytes of all sources. */
  get frames(): number {
    return this.#frames;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Streams, in the order of their names. */
  get streams(): string[] {
    return [...this.#sums.keys()].toSorted();
  }

  /** The sources of a stream, in the order of their names. */
  sources(stream: string): SourceSum[] {
    const found = [...(this.#sums.get(stream)?.values() ?? [])];
    return found
      .filter(({ frames, lost }) => frames > 0 || lost > 0)
      .toSorted((a, b) => (a.source < b.source ? -1 : 1));
  }

  source(stream: string, source: string): SourceSum | undefined {
    return this.#sums.get(stream)?.get(source);
  }

  /** Takes in what came since; several who ask at once wait for the same. */
  refresh(): Promise<void> {
    return (this.#running ??= this.#refresh().finally(() => (this.#running = undefined)));
  }

  async #refresh(): Promise<void> {
    while (this.#addFrames()) await this.#pause();
    await this.#pause();
    while (this.#addLosses()) await this.#pause();
    this.#isWhole = true;
  }

  /** Whether there may be more. */
  #addFrames(): boolean {
    const rows = this.#catalog.read((database) =>
      database
        .query<SumRow, [number]>(
          `SELECT stream, source, count(*) AS frames, sum(bytes) AS bytes, max(id) AS last
            FROM (SELECT id, stream, source, bytes FROM frames WHERE id > ? ORDER BY id
              LIMIT ${rowsAtOnce}) GROUP BY stream, source`,
        )
        .all(this.#upTo),
    );
    let added = 0;
    for (const { stream, source, frames, bytes, last } of rows) {
      const sum = this.#sum(stream, source);
      sum.frames += frames;
      sum.bytes += bytes;
      this.#frames += frames;
      this.#bytes += bytes;
      this.#upTo = Math.max(this.#upTo, last);
      added += frames;
    }
    return added === rowsAtOnce;
  }

  #addLosses(): boolean {
    const [{ first, last: newest }, rows] = this.#catalog.read((database) => [
      database
        .query<{ first: number; last: number }, []>(
          `SELECT coalesce((SELECT min(rowid) FROM losses), 0) AS first,
            coalesce((SELECT max(rowid) FROM losses), 0) AS last`,
        )
        .get()!,
      database
        .query<
          { stream: string; source: string; lost: number; rows: number; last: number },
          [number]
        >(
          `SELECT stream, source, min(total(last - first + 1), 9007199254740991) AS lost,
              count(*) AS rows, max(id) AS last
            FROM (SELECT rowid AS id, * FROM losses WHERE rowid > ? ORDER BY rowid
              LIMIT ${rowsAtOnce}) GROUP BY stream, source`,
        )
        .all(this.#lossesUpTo),
    ]);
    const isReduced = first !== this.#firstLoss || newest < this.#lossesUpTo;
    if (isReduced && this.#lossesUpTo > 0) {
      // Old ones were removed: nobody knows whose.
      for (const ofStream of this.#sums.values()) {
        for (const sum of ofStream.values()) sum.lost = 0;
      }
      this.#lossesUpTo = 0;
      this.#firstLoss = first;
      return true;
    }
    this.#firstLoss = first;
    let added = 0;
    for (const { stream, source, lost, rows: count, last } of rows) {
      const sum = this.#sum(stream, source);
      sum.lost = Math.min(sum.lost + lost, Number.MAX_SAFE_INTEGER);
      this.#lossesUpTo = Math.max(this.#lossesUpTo, last);
      added += count;
    }
    return added === rowsAtOnce;
  }

  #sum(stream: string, source: string): SourceSum {
    let ofStream = this.#sums.get(stream);
    if (ofStream === undefined) this.#sums.set(stream, (ofStream = new Map()));
    let sum = ofStream.get(source);
    if (sum === undefined) {
      ofStream.set(source, (sum = { stream, source, frames: 0, bytes: 0, lost: 0 }));
    }
    return sum;
  }

  /** A frame is gone, or another took its place. */
  gone({ id, stream, source, bytes }: GoneFrame): void {
    if (id > this.#upTo) return;
    const sum = this.#sum(stream, source);
    sum.frames--;
    sum.bytes -= bytes;
    this.#frames--;
    this.#bytes -= bytes;
    if (sum.frames > 0 || sum.lost > 0) return;
    const ofStream = this.#sums.get(stream)!;
    ofStream.delete(source);
    if (ofStream.size === 0) this.#sums.delete(stream);
  }

  /** Nobody knows any more which rows there are. */
  forget(): void {
    this.#sums = new Map();
    this.#frames = this.#bytes = this.#upTo = this.#lossesUpTo = this.#firstLoss = 0;
    this.#isWhole = false;
  }
}
