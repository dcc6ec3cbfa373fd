/**
 * Index of the missing numbers of each stream, built from its journal. The journal is read once in
 * steps of a few thousand rows, so that storing frames is not delayed. The index is then updated
 * with new rows.
 */
import type { Database } from "bun:sqlite";
import { FramesError } from "../../errors.ts";
import type { JournalReader } from "./journal-reader.ts";
import type { SequenceGap } from "./gaps.ts";
import type { RunSlice } from "../../frame.ts";
import { RangeSet } from "./range-set.ts";
import { rowChecks } from "./row-check.ts";

/** Rows read in one step, which takes a few milliseconds. */
const rowBatchSize = 2000;

/** Streams in memory. The least recently used stream is dropped. */
const maxStreams = 8;

/** Ranges and losses in memory for one stream. More of them end in the error `limit`. */
const maxEntriesPerStream = 200_000;

/** A gap with its position in the sort order. */
export interface PositionedGap extends SequenceGap {
  readonly position: GapPosition;
}

/** Source, begin of the session as padded text, session, and first number. */
export type GapPosition = readonly [string, string, string, number];

interface ReportedLoss {
  readonly first: number;
  readonly last: number;
  readonly reason: string;
  readonly at: bigint;
}

/** Known numbers of one session of one source. */
interface SessionNumbers {
  /** Earliest time of its rows, in nanoseconds since 1970. */
  firstReceived: bigint;
  readonly ranges: RangeSet;
  losses: ReportedLoss[];
}

/** Sessions of one stream, by source and then by id. */
interface StreamNumbers {
  readonly sources: Map<string, Map<string, SessionNumbers>>;
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

  /** @param run runs the steps, so that other work can run between them */
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
    return this.#run(() => {
      const found: PositionedGap[] = [];
      for (const gap of orderedGaps(numbers, includes)) {
        if (after !== undefined && comparePositions(gap.position, after) <= 0) continue;
        found.push(gap);
        if (found.length === limit) break;
      }
      return found;
    });
  }

  #numbersOf(stream: string): StreamNumbers {
    let numbers = this.#streams.get(stream);
    if (numbers === undefined) numbers = { sources: new Map(), lastId: 0, refreshing: undefined };
    this.#streams.delete(stream);
    this.#streams.set(stream, numbers);
    if (this.#streams.size > maxStreams) {
      this.#streams.delete(this.#streams.keys().next().value!);
    }
    return numbers;
  }

  async #refresh(stream: string, numbers: StreamNumbers): Promise<void> {
    while (await this.#run(() => this.#addFrames(stream, numbers)));
    await this.#addAccounted(stream, numbers);
    await this.#addLosses(stream, numbers);
    let entries = 0;
    for (const sessions of numbers.sources.values()) {
      for (const { ranges, losses } of sessions.values()) entries += ranges.size + losses.length;
    }
    if (entries <= maxEntriesPerStream) return;
    this.#streams.delete(stream);
    throw new FramesError(
      "limit",
      `${stream} has too many gaps to show; on the server run frames ls ${stream} --gaps`,
    );
  }

  /** Adds the stream's frames among the next rows. Returns whether more rows may follow. */
  #addFrames(stream: string, numbers: StreamNumbers): boolean {
    const [end, rows] = this.#reader.read((database) => {
      const { first } = database
        .query<{ first: number | null }, [number]>(
          "SELECT min(id) AS first FROM frames WHERE id > ?",
        )
        .get(numbers.lastId)!;
      if (first === null) return [undefined, []];
      const endId = first + rowBatchSize;
      const found = database
        .query<KnownRow, [string, number, number]>(
          `SELECT source, session, seq AS first, seq AS last, received AS at
            FROM frames NOT INDEXED WHERE stream = ?1 AND id >= ?2 AND id < ?3 ORDER BY id`,
        )
        .safeIntegers(true)
        .all(stream, first, endId);
      const { last } = database
        .query<{ last: number }, [number]>("SELECT max(id) AS last FROM frames WHERE id < ?")
        .get(endId)!;
      return [last, found];
    });
    if (end === undefined) return false;
    for (const row of rows) addRow(stream, numbers, row);
    numbers.lastId = end;
    return true;
  }

  #read<T>(act: (database: Database) => T): Promise<T> {
    return this.#run(() => this.#reader.read(act));
  }

  async #addAccounted(stream: string, numbers: StreamNumbers): Promise<void> {
    for (let from = ["", "", -1n] as const; ;) {
      const rows = await this.#read((database) =>
        database
          .query<KnownRow, [string, string, string, bigint]>(
            `SELECT source, session, first, last, at FROM accounted
              WHERE stream = ?1 AND (source, session, first) > (?2, ?3, ?4)
              ORDER BY source, session, first LIMIT ${rowBatchSize}`,
          )
          .safeIntegers(true)
          .all(stream, ...from),
      );
      for (const row of rows) addRow(stream, numbers, row);
      const last = rows.at(-1);
      if (rows.length < rowBatchSize || last === undefined) return;
      from = [last.source, last.session, last.first] as unknown as typeof from;
    }
  }

  /** Reads all losses again, because retention may have deleted old ones. */
  async #addLosses(stream: string, numbers: StreamNumbers): Promise<void> {
    const lossesBySession = new Map<SessionNumbers, ReportedLoss[]>();
    for (let from = 0; ;) {
      const { rows, last } = await this.#read((database) => ({
        rows: database
          .query<KnownRow & { reason: string; state: string | null }, [number, string]>(
            `SELECT source, session, first, last, reason, at, state FROM
              (SELECT * FROM losses WHERE rowid > ?1 ORDER BY rowid LIMIT ${rowBatchSize})
              WHERE stream = ?2`,
          )
          .safeIntegers(true)
          .all(from, stream),
        last: database
          .query<{ last: number | null }, [number]>(
            `SELECT max(id) AS last FROM
              (SELECT rowid AS id FROM losses WHERE rowid > ? ORDER BY rowid LIMIT ${rowBatchSize})`,
          )
          .get(from)!.last,
      }));
      for (const row of rows) {
        if (!rowChecks.losses({ stream, ...row })) continue;
        const session = addRow(stream, numbers, row)!;
        // A frame that came later is not lost.
        if (row.state === "came") continue;
        const losses = lossesBySession.get(session) ?? [];
        const { reason, at } = row;
        losses.push({ first: Number(row.first), last: Number(row.last), reason, at });
        lossesBySession.set(session, losses);
      }
      if (last === null) break;
      from = last;
    }
    for (const sessions of numbers.sources.values()) {
      for (const session of sessions.values()) {
        session.losses = (lossesBySession.get(session) ?? []).sort((a, b) => a.first - b.first);
      }
    }
  }
}

/** Adds a row's numbers to its session, and returns the session; undefined for a damaged row. */
function addRow(
  stream: string,
  { sources }: StreamNumbers,
  { source, session, first, last, at }: KnownRow,
): SessionNumbers | undefined {
  if (!rowChecks.accounted({ stream, source, session, first, last, at })) return undefined;
  let sessions = sources.get(source);
  if (sessions === undefined) sources.set(source, (sessions = new Map()));
  let numbers = sessions.get(session);
  if (numbers === undefined) {
    sessions.set(session, (numbers = { firstReceived: at, ranges: new RangeSet(), losses: [] }));
  }
  if (at < numbers.firstReceived) numbers.firstReceived = at;
  numbers.ranges.add(Number(first), Number(last), at);
  return numbers;
}

/** Yields the gaps and losses in the order of `GapPosition`. */
function* orderedGaps(
  { sources }: StreamNumbers,
  includes: (source: string) => boolean,
): Generator<PositionedGap> {
  for (const source of [...sources.keys()].toSorted()) {
    if (!includes(source)) continue;
    const sessions = [...sources.get(source)!].toSorted(
      ([a, { firstReceived: x }], [b, { firstReceived: y }]) => {
        return x === y ? (a < b ? -1 : 1) : x < y ? -1 : 1;
      },
    );
    for (const [session, { firstReceived, ranges, losses }] of sessions) {
      const gapAt = (first: number, last: number, reason: string | undefined, at: bigint) => {
        const position: GapPosition = [
          source,
          String(firstReceived).padStart(20, "0"),
          session,
          first,
        ];
        return { source, session, first, last, reason, at, position };
      };
      let next = 0;
      for (const { first, last, at } of ranges.gaps()) {
        for (; next < losses.length && losses[next]!.first < first; next++) {
          const loss = losses[next]!;
          yield gapAt(loss.first, loss.last, loss.reason, loss.at);
        }
        yield gapAt(first, last, undefined, at);
      }
      for (; next < losses.length; next++) {
        const loss = losses[next]!;
        yield gapAt(loss.first, loss.last, loss.reason, loss.at);
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
