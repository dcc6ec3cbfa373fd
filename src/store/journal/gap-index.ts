/**
 * Index of the missing numbers of each stream, built from its journal. The journal is read once, in
 * slices, so that storing frames is not delayed. The index is then updated with new rows.
 */
import { FramesError } from "../../errors.ts";
import type { JournalReader } from "./journal-reader.ts";
import type { SequenceGap } from "./gaps.ts";
import type { RunSlice } from "../../frame.ts";
import { type RangeGap, RangeSet } from "./range-set.ts";
import { rowChecks } from "./row-check.ts";

/** Accounted ranges read in one slice, which takes a few milliseconds. */
const rangeBatchSize = 2000;

/** Streams in memory. The least recently used stream is dropped. */
const maxStreams = 8;

/** Ranges and losses in memory for one stream. More of them end in the error `limit`. */
const maxEntriesPerStream = 200_000;

/** A gap with its position in the sort order. */
export interface PositionedGap extends SequenceGap {
  readonly position: GapPosition;
}

/** Source, begin of the session as padded text, session, first and last number. */
export type GapPosition = readonly [string, string, string, number, number];

/** A gap, or lost numbers that were reported. */
interface SessionGap extends RangeGap {
  readonly reason?: string;
}

/** Known numbers of one session of one source. */
interface SessionNumbers {
  /** Earliest time of its rows, in nanoseconds since 1970. */
  firstReceived: bigint;
  readonly ranges: RangeSet;
}

/** Known numbers of one stream. */
interface StreamNumbers {
  /** By source and then by id of the session. */
  readonly sources: Map<string, Map<string, SessionNumbers>>;
  /** Reported losses whose frame did not come later. */
  losses: Map<SessionNumbers, SessionGap[]>;
  lastId: number;
  refreshing: Promise<void> | undefined;
}

interface KnownRow {
  source: string;
  session: string;
  first: bigint;
  last: bigint;
  at: bigint;
}

export class GapIndex {
  readonly #reader: JournalReader;
  readonly #run: RunSlice;
  /** Ordered by last use; the most recent is last. */
  readonly #streams = new Map<string, StreamNumbers>();

  /** @param run runs the slices, so that other work can run between them */
  constructor(reader: JournalReader, run: RunSlice) {
    this.#reader = reader;
    this.#run = run;
  }

  /**
   * Returns at most `limit` gaps of a stream after a position. Gaps are sorted by source, then by
   * the begin of the session, then by number. They lie between 1 and the highest known number of
   * each session.
   *
   * @throws {FramesError} `limit` if the stream has too many gaps to keep in memory
   */
  async gaps(
    stream: string,
    includes: (source: string) => boolean,
    after: GapPosition | undefined,
    limit: number,
  ): Promise<PositionedGap[]> {
    const numbers = this.#numbersOf(stream);
    await (numbers.refreshing ??= this.#refresh(stream, numbers).finally(() => {
      numbers.refreshing = undefined;
    }));
    return this.#run(() => gapsAfter(numbers, includes, after).take(limit).toArray());
  }

  #numbersOf(stream: string): StreamNumbers {
    let numbers = this.#streams.get(stream);
    numbers ??= { sources: new Map(), losses: new Map(), lastId: 0, refreshing: undefined };
    this.#streams.delete(stream);
    this.#streams.set(stream, numbers);
    if (this.#streams.size > maxStreams) {
      this.#streams.delete(this.#streams.keys().next().value!);
    }
    return numbers;
  }

  async #refresh(stream: string, numbers: StreamNumbers): Promise<void> {
    await this.#addFrames(stream, numbers);
    await this.#addAccounted(stream, numbers);
    await this.#addLosses(stream, numbers);
    let entries = 0;
    for (const sessions of numbers.sources.values()) {
      for (const { ranges } of sessions.values()) entries += ranges.size;
    }
    for (const losses of numbers.losses.values()) entries += losses.length;
    if (entries <= maxEntriesPerStream) return;
    this.#streams.delete(stream);
    throw new FramesError(
      "limit",
      `${stream} has too many gaps to show; on the server run frames ls ${stream} --gaps`,
    );
  }

  /** Adds the frames that arrived since the last time. */
  async #addFrames(stream: string, numbers: StreamNumbers): Promise<void> {
    const from = numbers.lastId;
    await this.#reader.readInSlices("frames", from, this.#run, (database, after, upTo) => {
      const rows = database
        .query<KnownRow, [string, number, number]>(
          `SELECT source, session, seq AS first, seq AS last, received AS at
            FROM frames NOT INDEXED WHERE stream = ? AND id > ? AND id <= ? ORDER BY id`,
        )
        .safeIntegers(true)
        .all(stream, after, upTo);
      for (const row of rows) addRow(stream, numbers, row);
      numbers.lastId = upTo;
    });
  }

  async #addAccounted(stream: string, numbers: StreamNumbers): Promise<void> {
    let from: readonly [string, string, bigint] = ["", "", -1n];
    const addNext = () => {
      const rows = this.#reader.read((database) =>
        database
          .query<KnownRow, [string, string, string, bigint]>(
            `SELECT source, session, first, last, at FROM accounted
              WHERE stream = ? AND (source, session, first) > (?, ?, ?)
              ORDER BY source, session, first LIMIT ${rangeBatchSize}`,
          )
          .safeIntegers(true)
          .all(stream, ...from),
      );
      for (const row of rows) {
        addRow(stream, numbers, row);
        from = [row.source, row.session, row.first];
      }
      return rows.length === rangeBatchSize;
    };
    while (await this.#run(addNext));
  }

  /** Reads all losses again, because retention may have deleted old ones. */
  async #addLosses(stream: string, numbers: StreamNumbers): Promise<void> {
    const found: StreamNumbers["losses"] = new Map();
    await this.#reader.readInSlices("losses", 0, this.#run, (database, after, upTo) => {
      const rows = database
        .query<KnownRow & { reason: string; state: string | null }, [string, number, number]>(
          `SELECT source, session, first, last, reason, at, state FROM losses NOT INDEXED
            WHERE stream = ? AND rowid > ? AND rowid <= ? ORDER BY rowid`,
        )
        .safeIntegers(true)
        .all(stream, after, upTo);
      for (const row of rows) {
        if (!rowChecks.losses({ stream, ...row })) continue;
        const session = addRow(stream, numbers, row)!;
        // A frame that came later is not lost.
        if (row.state === "came") continue;
        const losses = found.get(session) ?? [];
        found.set(session, losses);
        const { reason, at } = row;
        losses.push({ first: Number(row.first), last: Number(row.last), reason, at });
      }
    });
    numbers.losses = found;
  }
}

/** Adds a row's numbers to its session, and returns the session; undefined for a damaged row. */
function addRow(
  stream: string,
  { sources }: StreamNumbers,
  { source, session, first, last, at }: KnownRow,
): SessionNumbers | undefined {
  if (!rowChecks.accounted({ stream, source, session, first, last, at })) return undefined;
  const sessions = sources.getOrInsertComputed(source, () => new Map());
  const numbers = sessions.getOrInsertComputed(session, () => {
    return { firstReceived: at, ranges: new RangeSet() };
  });
  if (at < numbers.firstReceived) numbers.firstReceived = at;
  numbers.ranges.add(Number(first), Number(last), at);
  return numbers;
}

/** Yields the gaps and losses after a position, in the order of `GapPosition`. */
function* gapsAfter(
  { sources, losses }: StreamNumbers,
  includes: (source: string) => boolean,
  after: GapPosition | undefined,
): Generator<PositionedGap, undefined> {
  for (const source of [...sources.keys()].toSorted()) {
    if (!includes(source) || (after !== undefined && source < after[0])) continue;
    const sessions = [...sources.get(source)!].toSorted(
      ([a, { firstReceived: x }], [b, { firstReceived: y }]) => {
        return x === y ? (a < b ? -1 : 1) : x < y ? -1 : 1;
      },
    );
    for (const [session, numbers] of sessions) {
      const begin = String(numbers.firstReceived).padStart(20, "0");
      const found: SessionGap[] = [...numbers.ranges.gaps(), ...(losses.get(numbers) ?? [])];
      for (const gap of found.toSorted((a, b) => a.first - b.first || a.last - b.last)) {
        const position: GapPosition = [source, begin, session, gap.first, gap.last];
        if (after !== undefined && comparePositions(position, after) <= 0) continue;
        yield { source, session, reason: undefined, ...gap, position };
      }
    }
  }
}

function comparePositions(a: GapPosition, b: GapPosition): number {
  for (const [index, part] of a.entries()) {
    const other = b[index]!;
    if (part !== other) return part < other ? -1 : 1;
  }
  return 0;
}
