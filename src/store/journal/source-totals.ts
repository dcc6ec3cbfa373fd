/**
 * Totals of each source of a store. They are computed once, in slices, and then updated with added
 * and removed rows.
 */
import type { JournalReader } from "./journal-reader.ts";
import type { RunSlice } from "../../frame.ts";
import { countedBytes, countedLosses, isSource } from "./row-check.ts";
import type { RemovedFrameInfo } from "../store-contents.ts";

/** Totals of one source. */
export interface SourceTotal {
  readonly stream: string;
  readonly source: string;
  frames: number;
  bytes: number;
  lost: number;
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
  /** Lowest row id of the losses at the last refresh. It changes when retention deletes old losses. */
  #firstLossId = 0;
  /** Losses at the last refresh whose frame had come later. */
  #endedLosses = 0;
  #isComplete = false;
  #running: Promise<void> | undefined;
  readonly #run: RunSlice;

  /** @param run runs the slices, so that other work can run between them */
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
    await this.#addFrames();
    await this.#addLosses();
    this.#isComplete = true;
  }

  #addFrames(): Promise<void> {
    const from = this.#lastFrameId;
    return this.#reader.readInSlices("frames", from, this.#run, (database, after, upTo) => {
      const rows = database
        .query<Omit<SourceTotal, "lost">, [number, number]>(
          `SELECT stream, source, count(*) AS frames, total(${countedBytes}) AS bytes
            FROM frames WHERE id > ? AND id <= ? GROUP BY stream, source`,
        )
        .all(after, upTo);
      for (const { stream, source, frames, bytes } of rows.filter(isSource)) {
        const total = this.#totalOf(stream, source);
        total.frames += frames;
        total.bytes += bytes;
        this.#frames += frames;
        this.#bytes += bytes;
      }
      this.#lastFrameId = upTo;
    });
  }

  async #addLosses(): Promise<void> {
    await this.#run(() => this.#forgetEndedLosses());
    const from = this.#lastLossId;
    await this.#reader.readInSlices("losses", from, this.#run, (database, after, upTo) => {
      const rows = database
        .query<Pick<SourceTotal, "stream" | "source" | "lost">, [number, number]>(
          `SELECT stream, source, min(total(${countedLosses}), 9007199254740991) AS lost
            FROM losses WHERE rowid > ? AND rowid <= ? AND state IS NOT 'came'
            GROUP BY stream, source`,
        )
        .all(after, upTo);
      for (const { stream, source, lost } of rows.filter(isSource)) {
        const total = this.#totalOf(stream, source);
        total.lost = Math.min(total.lost + lost, Number.MAX_SAFE_INTEGER);
      }
      this.#lastLossId = upTo;
    });
  }

  /**
   * Begins to count the losses again if old ones were deleted, or if their frames came. Which sources
   * had them is unknown.
   */
  #forgetEndedLosses(): void {
    const { first, last, ended } = this.#reader.read((database) =>
      database
        .query<{ first: number; last: number; ended: number }, []>(
          `SELECT coalesce((SELECT min(rowid) FROM losses), 0) AS first,
            coalesce((SELECT max(rowid) FROM losses), 0) AS last,
            (SELECT count(*) FROM losses WHERE state = 'came') AS ended`,
        )
        .get(),
    )!;
    const isSame = first === this.#firstLossId && ended === this.#endedLosses;
    this.#firstLossId = first;
    this.#endedLosses = ended;
    if (isSame && last >= this.#lastLossId) return;
    this.#lastLossId = 0;
    for (const streamTotals of this.#totals.values()) {
      for (const total of streamTotals.values()) total.lost = 0;
    }
  }

  #totalOf(stream: string, source: string): SourceTotal {
    const streamTotals = this.#totals.getOrInsertComputed(stream, () => new Map());
    const noFrames = () => ({ stream, source, frames: 0, bytes: 0, lost: 0 });
    return streamTotals.getOrInsertComputed(source, noFrames);
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
