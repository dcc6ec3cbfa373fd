/**
 * What each source of a store holds: summed up once, a few thousand rows at a time, and kept in step from then
 * on with what is added and what goes.
 */
import type { Catalog } from "./catalog.ts";
import type { RemovedFrameInfo } from "../store-contents.ts";

/** Rows that are summed up at a time, in a few milliseconds. */
const rowBatchSize = 2000;

/** The sums of one source. */
export interface SourceTotal {
  readonly stream: string;
  readonly source: string;
  frames: number;
  bytes: number;
  lost: number;
}

interface SourceTotalRow {
  stream: string;
  source: string;
  frames: number;
  bytes: number;
  last: number;
}

export class SourceTotals {
  readonly #catalog: Catalog;
  /** By stream, then by source. */
  #totals = new Map<string, Map<string, SourceTotal>>();
  #frames = 0;
  #bytes = 0;
  /** Frames that came later than the one with this id are not in it yet. */
  #lastFrameId = 0;
  #lastLossId = 0;
  /** The first row of the losses when they were summed up: they go from there. */
  #firstLossId = 0;
  #isComplete = false;
  #running: Promise<void> | undefined;
  readonly #pause: () => Promise<void>;

  /** @param pause lets others have their turn */
  constructor(catalog: Catalog, pause: () => Promise<void>) {
    this.#catalog = catalog;
    this.#pause = pause;
  }

  /** Whether everything was summed up once. */
  get isComplete(): boolean {
    return this.#isComplete;
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
    return [...this.#totals.keys()].toSorted();
  }

  /** The sources of a stream, in the order of their names. */
  sources(stream: string): SourceTotal[] {
    const found = [...(this.#totals.get(stream)?.values() ?? [])];
    return found
      .filter(({ frames, lost }) => frames > 0 || lost > 0)
      .toSorted((a, b) => (a.source < b.source ? -1 : 1));
  }

  source(stream: string, source: string): SourceTotal | undefined {
    return this.#totals.get(stream)?.get(source);
  }

  /** Takes in what came since; several who ask at once wait for the same. */
  refresh(): Promise<void> {
    return (this.#running ??= this.#refresh().finally(() => (this.#running = undefined)));
  }

  async #refresh(): Promise<void> {
    while (this.#addFrames()) await this.#pause();
    await this.#pause();
    while (this.#addLosses()) await this.#pause();
    this.#isComplete = true;
  }

  /** Whether there may be more. */
  #addFrames(): boolean {
    const rows = this.#catalog.read((database) =>
      database
        .query<SourceTotalRow, [number]>(
          `SELECT stream, source, count(*) AS frames, sum(bytes) AS bytes, max(id) AS last
            FROM (SELECT id, stream, source, bytes FROM frames WHERE id > ? ORDER BY id
              LIMIT ${rowBatchSize}) GROUP BY stream, source`,
        )
        .all(this.#lastFrameId),
    );
    let added = 0;
    for (const { stream, source, frames, bytes, last } of rows) {
      const total = this.#totalOf(stream, source);
      total.frames += frames;
      total.bytes += bytes;
      this.#frames += frames;
      this.#bytes += bytes;
      this.#lastFrameId = Math.max(this.#lastFrameId, last);
      added += frames;
    }
    return added === rowBatchSize;
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
              LIMIT ${rowBatchSize}) GROUP BY stream, source`,
        )
        .all(this.#lastLossId),
    ]);
    const wasPruned = first !== this.#firstLossId || newest < this.#lastLossId;
    if (wasPruned && this.#lastLossId > 0) {
      // Old ones were removed: nobody knows whose.
      for (const streamTotals of this.#totals.values()) {
        for (const total of streamTotals.values()) total.lost = 0;
      }
      this.#lastLossId = 0;
      this.#firstLossId = first;
      return true;
    }
    this.#firstLossId = first;
    let added = 0;
    for (const { stream, source, lost, rows: count, last } of rows) {
      const total = this.#totalOf(stream, source);
      total.lost = Math.min(total.lost + lost, Number.MAX_SAFE_INTEGER);
      this.#lastLossId = Math.max(this.#lastLossId, last);
      added += count;
    }
    return added === rowBatchSize;
  }

  #totalOf(stream: string, source: string): SourceTotal {
    let streamTotals = this.#totals.get(stream);
    if (streamTotals === undefined) this.#totals.set(stream, (streamTotals = new Map()));
    let total = streamTotals.get(source);
    if (total === undefined) {
      streamTotals.set(source, (total = { stream, source, frames: 0, bytes: 0, lost: 0 }));
    }
    return total;
  }

  /** A frame is gone, or another took its place. */
  onFrameRemoved({ id, stream, source, bytes }: RemovedFrameInfo): void {
    if (id > this.#lastFrameId) return;
    const total = this.#totalOf(stream, source);
    total.frames--;
    total.bytes -= bytes;
    this.#frames--;
    this.#bytes -= bytes;
    if (total.frames > 0 || total.lost > 0) return;
    const streamTotals = this.#totals.get(stream)!;
    streamTotals.delete(source);
    if (streamTotals.size === 0) this.#totals.delete(stream);
  }

  /** Nobody knows any more which rows there are. */
  onReset(): void {
    this.#totals = new Map();
    this.#frames = this.#bytes = this.#lastFrameId = this.#lastLossId = this.#firstLossId = 0;
    this.#isComplete = false;
  }
}
