/**
 * Reads a journal while another connection writes it. Returns frames in order of arrival, by
 * capture time, by name or by number. Uncommitted rows are not visible. Damaged rows are returned
 * only in order of arrival, so that a client which plays back the journal is told of them.
 */
import type { Database } from "bun:sqlite";
import { FramesError } from "../../errors.ts";
import type { FrameDescription, RawShape, RunSlice } from "../../frame.ts";
import { rowChecks, type UncheckedRow } from "./row-check.ts";
import {
  type FrameRow,
  hasColumn,
  journalError,
  openReadOnly,
  type PropertyName,
  readProperty,
} from "./schema.ts";

/** A stored frame. */
export interface FrameRecord extends FrameDescription {
  /** Id of the row. Ids rise in order of arrival, with gaps. */
  readonly id: number;
  readonly stream: string;
  readonly source: string;
  readonly session: string;
  readonly crc32: number;
  /** Time of arrival in nanoseconds since 1970. */
  readonly received: bigint;
  /** Name of the key that its sender proved. */
  readonly key: string | undefined;
  readonly raw: RawShape | undefined;
  /** Whether no server can have written this row, because the disk has damaged it. */
  readonly isDamaged?: true;
}

/** Selects frames of one stream. */
export interface FrameSelection {
  readonly stream: string;
  /** Default: all sources. */
  readonly sources?: readonly string[] | undefined;
  /** Earliest capture time, in nanoseconds since 1970. */
  readonly since?: bigint | undefined;
  /** Capture time before which the frames were captured, in nanoseconds since 1970. */
  readonly until?: bigint | undefined;
}

/** Frames of a source that have a number, in all sessions or in one. */
export interface NumberLookup {
  readonly stream: string;
  readonly source: string;
  readonly number: number;
  readonly session?: string | undefined;
}

/** Position in the order of capture. Its frame need not exist any more. */
export interface JournalPosition {
  readonly captured: bigint;
  readonly sequence: number;
  readonly id: number;
}

/** Before all frames. */
const firstPosition: JournalPosition = { captured: -(2n ** 63n), sequence: 0, id: 0 };

/** SQL for the position after all frames. */
const lastPosition = `${2n ** 63n - 1n}, ${2n ** 63n - 1n}, ${2n ** 63n - 1n}`;

/** Sources looked up in one slice of work. */
const lookupsPerSlice = 100;

/** Rows read in one slice, which takes a few milliseconds. */
const rowBatchSize = 2000;

/** Entries of an index scanned in one slice. */
const scanBatchSize = 10_000;

/** Damaged rows that a query passes over to find whole ones. */
const maxDamagedRows = 1000;

type ReaderRow = {
  [field in keyof FrameRow]: FrameRow[field] extends number ? bigint : FrameRow[field];
} & {
  id: bigint;
  is_key?: bigint | null;
};

const selectStream = "SELECT * FROM frames WHERE stream = ?1";
const selectSource = `${selectStream} AND source = ?2`;

/** Pictures of encoded video have an index, by session. */
const selectPictures = "SELECT * FROM frames WHERE +stream = ?1 AND source = ?2 AND session = ?3";

/** A picture of encoded video. */
export type VideoPicture = Pick<FrameRecord, "stream" | "source" | "session" | "sequence">;

/** Pictures from a key frame to another picture, at most. */
export const maxGroupFrames = 2000;

export class JournalReader {
  readonly #path: string;
  readonly #database: Database;
  #hasKeyColumn = false;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#database = openReadOnly(path);
    } catch (error) {
      throw journalError("read", path, error);
    }
  }

  /**
   * Returns at most `limit` frames of a selection with ids from `after` + 1 to `upTo`. The cost
   * depends on the range of ids, not on the number of frames of other streams.
   */
  between(selection: FrameSelection, after: number, upTo: number, limit: number) {
    const { stream, sources, since, until } = selection;
    // The unary plus keeps SQLite from using the index on stream, which would need a sort by id.
    return this.#all(
      `SELECT * FROM frames WHERE id > ?1 AND id <= ?2 AND +stream = ?3
        AND (?4 IS NULL OR source IN (SELECT value FROM json_each(?4)))
        AND (?5 IS NULL OR captured >= ?5) AND (?6 IS NULL OR captured < ?6) ORDER BY id LIMIT ?7`,
      ...[after, upTo, stream, sources === undefined ? null : JSON.stringify(sources)],
      ...[since ?? null, until ?? null, limit],
    );
  }

  /** Returns at most `limit` frames of all streams with ids above `id`. */
  allAfter(id: number, limit: number): FrameRecord[] {
    return this.#all("SELECT * FROM frames WHERE id > ? ORDER BY id LIMIT ?", id, limit);
  }

  /** Returns the id of the first frame of any stream after `id`. */
  nextId(id: number): number | undefined {
    return this.read((database) => {
      const query = database.query<{ id: number | null }, [number]>(
        "SELECT min(id) AS id FROM frames WHERE id > ?",
      );
      return query.get(id)!.id ?? undefined;
    });
  }

  findById(id: number): FrameRecord | undefined {
    return this.#all("SELECT * FROM frames WHERE id = ?", id)[0];
  }

  /** Returns whether a stream has any frame. If sources are named, each of them must have one. */
  has({ stream, sources }: Pick<FrameSelection, "stream" | "sources">): boolean {
    if (sources === undefined) return this.sources(stream, "", 1).length > 0;
    return this.read((database) => {
      const query = database.query<unknown, [string, string]>(
        `SELECT 1 FROM json_each(?2) WHERE NOT EXISTS
          (SELECT 1 FROM frames WHERE stream = ?1 AND source = value)`,
      );
      return query.get(stream, JSON.stringify(sources)) === null;
    });
  }

  /**
   * Returns the names of selected sources that have frames, `limit` at most.
   *
   * @param run runs the look-ups in slices
   */
  async sourcesWithFrames(
    selection: FrameSelection,
    limit: number,
    run: RunSlice,
  ): Promise<string[]> {
    const names = this.selectedSources(selection);
    const found: string[] = [];
    const findNext = () => {
      for (let lookups = 0; lookups < lookupsPerSlice && found.length < limit; lookups++) {
        const { value: source, done } = names.next();
        if (done === true) return false;
        if (this.newestOf(selection, source) !== undefined) found.push(source);
      }
      return found.length < limit;
    };
    while (await run(findNext));
    return found;
  }

  /** Yields the selected sources, reading their names as they are needed. Some may have no frames. */
  *selectedSources({ stream, sources }: FrameSelection): Generator<string, undefined> {
    if (sources !== undefined) {
      yield* new Set(sources);
      return undefined;
    }
    for (let after = ""; ;) {
      const [next] = this.sources(stream, after, 1);
      if (next === undefined) return undefined;
      yield next;
      after = next;
    }
  }

  /** Returns the frame of a source with the latest capture time in the selected span. */
  newestOf({ stream, since, until }: FrameSelection, source: string): FrameRecord | undefined {
    const frame =
      until === undefined
        ? this.newest(stream, source)
        : this.framesBefore(stream, source, { captured: until, sequence: 0, id: 0 }, 1)[0];
    return frame === undefined || (since !== undefined && frame.captured < since)
      ? undefined
      : frame;
  }

  /** Returns the sources of a stream after a name, sorted, `limit` at most. */
  sources(stream: string, after = "", limit = Infinity): string[] {
    return this.read((database) => {
      const query = database.query<{ source: string | null }, [string, string]>(
        "SELECT min(source) AS source FROM frames WHERE stream = ? AND source > ?",
      );
      const found: string[] = [];
      for (let last = after; ; found.push(last)) {
        const next = query.get(stream, last)!.source;
        if (next === null || found.length === limit) return found;
        last = next;
      }
    });
  }

  /**
   * Returns whether the frame's file may be replaced at this moment. Its row may then not match its
   * bytes.
   */
  isBeingReplaced({ stream, source, name }: FrameRecord): boolean {
    return this.read((database) => {
      const query = database
        .query<UncheckedRow, [string, string, string]>(
          "SELECT * FROM replacements WHERE stream = ? AND source = ? AND name = ? LIMIT 1",
        )
        .safeIntegers(true);
      const row = query.get(stream, source, name);
      // No server ends one that is damaged, so there is nothing to wait for.
      return row !== null && rowChecks.replacements(row);
    });
  }

  /** Returns a property of the whole store, if the journal has it. */
  property(name: PropertyName): string | undefined {
    return this.read((database) => readProperty(database, name));
  }

  /** Returns the highest id of all streams, or 0 if there are no frames. */
  lastId(): number {
    return this.read((database) => {
      const query = database.query<{ id: number | null }, []>("SELECT max(id) AS id FROM frames");
      return query.get()!.id ?? 0;
    });
  }

  findByName(stream: string, source: string, name: string): FrameRecord | undefined {
    return this.#whole(1, `${selectSource} AND name = ?3`, stream, source, name)[0];
  }

  /** Returns the frame of a source with the latest capture time. */
  newest(stream: string, source: string): FrameRecord | undefined {
    return this.#whole(1, `${selectSource} ORDER BY captured DESC, seq DESC`, stream, source)[0];
  }

  /** Returns the frame of a source with the earliest capture time. */
  oldest(stream: string, source: string): FrameRecord | undefined {
    return this.#whole(1, `${selectSource} ORDER BY captured, seq`, stream, source)[0];
  }

  /**
   * Returns at most `limit` frames of a source after `position`, in order of capture. Starts at the
   * first frame if `position` is undefined.
   */
  framesAfter(
    stream: string,
    source: string,
    position: JournalPosition = firstPosition,
    limit: number,
  ): FrameRecord[] {
    const { captured, sequence, id } = position;
    return this.#whole(
      limit,
      `${selectSource} AND (captured, seq, id) > (?3, ?4, ?5) ORDER BY captured, seq, id`,
      ...[stream, source, captured, sequence, id],
    );
  }

  /** Returns the last `limit` frames of a source before `position`, in order of capture. */
  framesBefore(
    stream: string,
    source: string,
    position: JournalPosition,
    limit: number,
  ): FrameRecord[] {
    const { captured, sequence, id } = position;
    return this.#whole(
      limit,
      `${selectSource} AND (captured, seq, id) < (?3, ?4, ?5)
        ORDER BY captured DESC, seq DESC, id DESC`,
      ...[stream, source, captured, sequence, id],
    ).reverse();
  }

  /**
   * Returns the key frame from which a picture of encoded video can be decoded: the newest one of its
   * source and session up to its number. Undefined if there is none.
   */
  keyFrameBefore(picture: VideoPicture): FrameRecord | undefined {
    if (!this.#hasKeyFrames()) return undefined;
    const { stream, source, session, sequence } = picture;
    return this.#whole(
      1,
      `${selectPictures} AND is_key = 1 AND seq <= ?4 ORDER BY seq DESC`,
      ...[stream, source, session, sequence],
    )[0];
  }

  /**
   * Returns what a decoder needs for a picture of encoded video: the key frame before it and the
   * pictures from there on, in the order of decoding. Empty if no key frame is stored.
   *
   * @throws {FramesError} `limit` if these are more than `maxGroupFrames`
   */
  groupUpTo(picture: VideoPicture): FrameRecord[] {
    const key = this.keyFrameBefore(picture);
    if (key === undefined) return [];
    const { stream, source, session, sequence } = picture;
    const group = this.#whole(
      maxGroupFrames + 1,
      `${selectPictures} AND is_key IN (0, 1) AND seq BETWEEN ?4 AND ?5 ORDER BY seq`,
      ...[stream, source, session, key.sequence, sequence],
    );
    if (group.length <= maxGroupFrames) return group;
    throw new FramesError(
      "limit",
      `Cannot decode frame ${sequence} of ${source}: the key frame before it is ${sequence - key.sequence} frames away; let the camera send key frames more often`,
    );
  }

  /** Returns as `groupUpTo`; `undefined` if the group is too large. */
  decodableUpTo(picture: VideoPicture): FrameRecord[] | undefined {
    try {
      return this.groupUpTo(picture);
    } catch (error) {
      if (error instanceof FramesError && error.code === "limit") return undefined;
      throw error;
    }
  }

  /**
   * Returns the pictures of encoded video with the next `count` numbers, in the order of decoding.
   */
  picturesAfter({ stream, source, session, sequence }: VideoPicture, count: number): FrameRecord[] {
    if (!this.#hasKeyFrames()) return [];
    return this.#whole(
      count,
      `${selectPictures} AND is_key IN (0, 1) AND seq BETWEEN ?4 AND ?5 ORDER BY seq`,
      ...[stream, source, session, sequence + 1, sequence + count],
    );
  }

  /** Whether the journal has the column `is_key`, which a server of this version adds. */
  #hasKeyFrames(): boolean {
    this.#hasKeyColumn ||= this.read((database) => hasColumn(database, "frames", "is_key"));
    return this.#hasKeyColumn;
  }

  /**
   * Returns at most `limit` frames of a source with a number, newest session first. Numbers have no
   * index, so all frames of the source are scanned.
   *
   * @param run runs the scan in slices
   */
  async scanByNumber(lookup: NumberLookup, limit: number, run: RunSlice): Promise<FrameRecord[]> {
    const { number, session } = lookup;
    let found: FrameRecord[] = [];
    let position = firstPosition;
    const isWanted = (row: FrameRecord) =>
      row.sequence === number && (session ?? row.session) === row.session && isWhole(row);
    const scanNext = () => {
      const rows = this.#scanAfter(position, lookup, limit);
      found = [...found, ...rows.filter(isWanted)].toSorted((a, b) => b.id - a.id).slice(0, limit);
      position = rows.at(-1) ?? position;
      return rows.length > 0;
    };
    while (await run(scanNext));
    return found;
  }

  /** Returns which of the next frames have this number, and also the last of the next frames. */
  #scanAfter(
    { captured, sequence, id }: JournalPosition,
    { stream, source, number, session }: NumberLookup,
    limit: number,
  ): FrameRecord[] {
    return this.#all(
      `WITH next AS (
        SELECT captured, seq, id, session FROM frames INDEXED BY frames_by_time
          WHERE stream = ?1 AND source = ?2 AND (captured, seq, id) > (?3, ?4, ?5)
      ),
      slice_end AS MATERIALIZED (
        SELECT captured, seq, id FROM next
          ORDER BY captured, seq, id LIMIT 1 OFFSET ${scanBatchSize - 1}
      ),
      found AS (
        SELECT id FROM next WHERE seq = ?6 AND (?7 IS NULL OR session = ?7)
          AND (captured, seq, id) <=
            (SELECT * FROM slice_end UNION ALL SELECT ${lastPosition} LIMIT 1)
          ORDER BY id DESC LIMIT ?8
      )
      SELECT * FROM frames WHERE id IN (SELECT id FROM found UNION ALL SELECT id FROM slice_end)
        ORDER BY captured, seq, id`,
      ...[stream, source, captured, sequence, id],
      ...[number, session ?? null, limit + maxDamagedRows],
    );
  }

  /**
   * Returns the frame of a source whose capture time is nearest. Of two at the same distance,
   * returns the earlier.
   */
  nearest(stream: string, source: string, captured: bigint): FrameRecord | undefined {
    const place = [stream, source, captured];
    const before = `${selectSource} AND captured <= ?3 ORDER BY captured DESC`;
    const [earlier] = this.#whole(1, before, ...place);
    const after = `${selectSource} AND captured > ?3 ORDER BY captured`;
    const [later] = this.#whole(1, after, ...place);
    if (earlier === undefined || later === undefined) return earlier ?? later;
    return captured - earlier.captured <= later.captured - captured ? earlier : later;
  }

  /**
   * Reads all rows of a table whose ids are above `after`, in slices of some thousand rows. Each slice
   * is a read transaction of its own, because a long one keeps SQLite from emptying its WAL.
   *
   * @param run runs the slices
   * @param readSlice reads the rows with ids from `after` + 1 to `upTo`
   * @throws {FramesError} `store`
   */
  async readInSlices(
    table: "frames" | "losses",
    after: number,
    run: RunSlice,
    readSlice: (database: Database, after: number, upTo: number) => void,
  ): Promise<void> {
    const readNext = (database: Database) => {
      const { upTo, rows } = database
        .query<{ upTo: number | null; rows: number }, [number]>(
          `SELECT max(id) AS upTo, count(*) AS rows FROM
            (SELECT rowid AS id FROM ${table} WHERE rowid > ? ORDER BY rowid LIMIT ${rowBatchSize})`,
        )
        .get(after)!;
      if (upTo === null) return false;
      readSlice(database, after, upTo);
      after = upTo;
      // Otherwise this would not end while a sender adds rows.
      return rows === rowBatchSize;
    };
    while (await run(() => this.read(readNext)));
  }

  /**
   * Runs a query on the journal and converts its errors.
   *
   * @throws {FramesError} `store`
   */
  read<T>(act: (database: Database) => T): T {
    try {
      return act(this.#database);
    } catch (error) {
      throw journalError("read", this.#path, error);
    }
  }

  close(): void {
    this.#database.close();
  }

  #all(query: string, ...values: (string | number | bigint | null)[]): FrameRecord[] {
    return this.read((database) =>
      database
        .query<ReaderRow, typeof values>(query)
        .safeIntegers(true)
        .all(...values)
        .map(toFrameRecord),
    );
  }

  /**
   * Returns at most `limit` rows that are not damaged.
   *
   * @param query without a limit
   */
  #whole(
    limit: number,
    query: string,
    ...values: (string | number | bigint | null)[]
  ): FrameRecord[] {
    const rows = this.#all(`${query} LIMIT ${limit}`, ...values);
    const found = rows.filter(isWhole);
    if (found.length === rows.length) return found;
    const more = this.#all(`${query} LIMIT ${limit + maxDamagedRows}`, ...values);
    return more.filter(isWhole).slice(0, limit);
  }
}

function isWhole({ isDamaged }: FrameRecord): boolean {
  return isDamaged !== true;
}

function toFrameRecord(row: ReaderRow): FrameRecord {
  const { stream, source, name, session, captured, received, key, meta, format } = row;
  return {
    id: Number(row.id),
    stream,
    source,
    name,
    session,
    sequence: Number(row.seq),
    size: Number(row.bytes),
    crc32: Number(row.crc32),
    captured,
    received,
    key: key ?? undefined,
    metadata: meta ?? "",
    raw: format === null ? undefined : parseRawShape(String(format)),
    // Journals that no later version has written to lack the column.
    isKey: (row.is_key ?? null) === null ? undefined : row.is_key === 1n,
    ...(!rowChecks.frames(row) && { isDamaged: true }),
  };
}

/** Parses `640x512.gray16le`, the shape of raw frames as it ends their names. */
function parseRawShape(text: string): RawShape | undefined {
  const [, width, height, format] = /^(\d+)x(\d+)\.(.+)$/.exec(text) ?? [];
  if (format === undefined) return undefined;
  return { width: Number(width), height: Number(height), format };
}
