/**
 * Totals of each source of a store. They are computed once, in steps of a few thousand rows, and
 * then updated with added and removed rows.
 */
import type { JournalReader } from "./journal-reader.ts";
import type { RunSlice } from "../../frame.ts";
import { countedBytes, countedLosses, isSource } from "./row-check.ts";
import type { RemovedFrameInfo } from "../store-contents.ts";

/** Rows summed in one step, which takes a few milliseconds. */
const rowBatchSize = 2000;

/** Totals of one source. */
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
  readonly #reader: JournalReader;
  /** By stream, then by source. */
  readonly #totals = new Map<string, Map<string, SourceTotal>>();
  #frames = 0;
  #bytes = 0;
  /** Id of the last frame in the totals. */
  #lastFrameId = 0;
  #lastLossId = 0;
  /** Lowest row id of the losses at the last step. It changes when retention deletes old losses. */
  #firstLossId = 0;
  /** Losses at the last step whose frame had come later. */
  #endedLosses = 0;
  #isComplete = false;
  #running: Promise<void> | undefined;
  readonly #run: RunSlice;

  /** @param run runs the steps, so that other work can run between them */
  constructor(reader: JournalReader, run: RunSlice) {
    this.#reader = reader;
    this.#run = run;
  }

  /** Whether all rows were summed at least once. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Frames of all sources. */
  get frames(): number {
    return this.#frames;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Names of the streams, sorted. */
  get streams(): string[] {
    return [...this.#totals.keys()].toSorted();
  }

  /** Returns the sources of a stream that have frames or losses, sorted by name. */
  sources(stream: string): SourceTotal[] {
    const found = [...(this.#totals.get(stream)?.values() ?? [])];
    return found
      .filter(({ frames, lost }) => frames > 0 || lost > 0)
      .toSorted((a, b) => (a.source < b.source ? -1 : 1));
  }

  source(stream: string, source: string): SourceTotal | undefined {
    return this.#totals.get(stream)?.get(source);
  }

  /** Adds new rows. Concurrent calls share one refresh. */
  refresh(): Promise<void> {
    return (this.#running ??= this.#refresh().finally(() => (this.#running = undefined)));
  }

  async #refresh(): Promise<void> {
    while (await this.#run(() => this.#addFrames()));
    while (await this.#run(() => this.#addLosses()));
    this.#isComplete = true;
  }

  /** Adds the next frames. Returns whether more may follow. */
  #addFrames(): boolean {
    const rows = this.#reader.read((database) =>
      database
        .query<SourceTotalRow, [number]>(
          `SELECT stream, source, count(*) AS frames, total(${countedBytes}) AS bytes,
              max(id) AS last
            FROM (SELECT id, stream, source, bytes FROM frames WHERE id > ? ORDER BY id
              LIMIT ${rowBatchSize}) GROUP BY stream, source`,
        )
        .all(this.#lastFrameId),
    );
    let added = 0;
    for (const { stream, source, frames, bytes, last } of rows) {
      this.#lastFrameId = Math.max(this.#lastFrameId, last);
      added += frames;
      if (!isSource({ stream, source })) continue;
      const total = this.#totalOf(stream, source);
      total.frames += frames;
      total.bytes += bytes;
      this.#frames += frames;
      this.#bytes += bytes;
    }
    return added === rowBatchSize;
  }

  #addLosses(): boolean {
    const [{ first, last: newest, ended }, rows] = this.#reader.read((database) => [
      database
        .query<{ first: number; last: number; ended: number }, []>(
          `SELECT coalesce((SELECT min(rowid) FROM losses), 0) AS first,
            coalesce((SELECT max(rowid) FROM losses), 0) AS last,
            (SELECT count(*) FROM losses WHERE state = 'came') AS ended`,
        )
        .get()!,
      database
        .query<
          { stream: string; source: string; lost: number; rows: number; last: number },
          [number]
        >(
          `SELECT stream, source,
              min(total(${countedLosses} * (state IS NOT 'came')), 9007199254740991) AS lost,
              count(*) AS rows, max(id) AS last
            FROM (SELECT rowid AS id, * FROM losses WHERE rowid > ? ORDER BY rowid
              LIMIT ${rowBatchSize}) GROUP BY stream, source`,
        )
        .all(this.#lastLossId),
    ]);
    const hasEnded = ended !== this.#endedLosses;
    this.#endedLosses = ended;
    const wasPruned = hasEnded || first !== this.#firstLossId || newest < this.#lastLossId;
    if (wasPruned && this.#lastLossId > 0) {
      // Old losses were deleted, or their frames came. Which sources had them is unknown, so all
      // losses are counted again.
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
      this.#lastLossId = Math.max(this.#lastLossId, last);
      added += count;
      if (!isSource({ stream, source })) continue;
      const total = this.#totalOf(stream, source);
      total.lost = Math.min(total.lost + lost, Number.MAX_SAFE_INTEGER);
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

  /** Subtracts a frame that was removed or replaced. Its row is no longer in the journal. */
  readonly onFrameRemoved = ({ id, stream, source, bytes }: RemovedFrameInfo): void => {
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
  };
}
