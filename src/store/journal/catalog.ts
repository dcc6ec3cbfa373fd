/**
 * Reads back what a journal holds, beside whoever writes it: frames in the order in which they came, by
 * capture time, by name and by number. Only what was committed is seen.
 */
import type { Database } from "bun:sqlite";
import type { FrameDescription, RawShape } from "../../frame.ts";
import {
  type FrameRow,
  journalError,
  openReadOnly,
  type PropertyName,
  readProperty,
} from "./schema.ts";

/** A stored frame. */
export interface FrameRecord extends FrameDescription {
  /** Position in the order of arrival: it rises, with holes. */
  readonly id: number;
  readonly stream: string;
  readonly source: string;
  readonly session: string;
  readonly crc32: number;
  /** Nanoseconds since 1970. */
  readonly received: bigint;
  /** Name of the key that it came with. */
  readonly key: string | undefined;
  readonly raw: RawShape | undefined;
}

/** Which frames of a stream are meant. */
export interface FrameSelection {
  readonly stream: string;
  /** Default: all sources. */
  readonly sources?: readonly string[] | undefined;
  /** Captured at this time or later, in nanoseconds since 1970. */
  readonly since?: bigint | undefined;
}

/** A place in the order of capture: of a frame that is there, or was. */
export interface CatalogPosition {
  readonly captured: bigint;
  readonly sequence: number;
  readonly id: number;
}

/** Before all frames. */
const firstPosition: CatalogPosition = { captured: -(2n ** 63n), sequence: 0, id: 0 };

/** Behind all frames. */
const lastPosition: CatalogPosition = {
  captured: 2n ** 63n - 1n,
  sequence: Number.MAX_SAFE_INTEGER,
  id: Number.MAX_SAFE_INTEGER,
};

/** Frames that are gone through at a time, in a few milliseconds. */
const scanBatchSize = 10_000;

type CatalogRow = {
  [field in keyof FrameRow]: FrameRow[field] extends number ? bigint : FrameRow[field];
} & {
  id: bigint;
};

const selectStream = "SELECT * FROM frames WHERE stream = ?1";
const selectSource = `${selectStream} AND source = ?2`;

export class Catalog {
  readonly #path: string;
  readonly #database: Database;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#database = openReadOnly(path);
    } catch (error) {
      throw journalError("read", path, error);
    }
  }

  /** At most `limit` frames that came after the one with this id, in the order of arrival. */
  after({ stream, sources, since }: FrameSelection, id: number, limit: number): FrameRecord[] {
    return this.#all(
      `${selectStream} AND id > ?2 AND (?3 IS NULL OR source IN (SELECT value FROM json_each(?3)))
        AND (?4 IS NULL OR captured >= ?4) ORDER BY id LIMIT ?5`,
      stream,
      id,
      sources === undefined ? null : JSON.stringify(sources),
      since ?? null,
      limit,
    );
  }

  /**
   * The frames of a selection with ids above `after`, up to `upTo`, `limit` at most: however many frames of
   * others there are, it takes no longer than the numbers are apart.
   */
  between({ stream, sources, since }: FrameSelection, after: number, upTo: number, limit: number) {
    // By number and not by stream: the frames of a stream would have to be sorted first.
    return this.#all(
      `SELECT * FROM frames WHERE id > ?1 AND id <= ?2 AND +stream = ?3
        AND (?4 IS NULL OR source IN (SELECT value FROM json_each(?4)))
        AND (?5 IS NULL OR captured >= ?5) ORDER BY id LIMIT ?6`,
      after,
      upTo,
      stream,
      sources === undefined ? null : JSON.stringify(sources),
      since ?? null,
      limit,
    );
  }

  /** At most `limit` frames of all streams that came after the one with this id. */
  allAfter(id: number, limit: number): FrameRecord[] {
    return this.#all("SELECT * FROM frames WHERE id > ? ORDER BY id LIMIT ?", id, limit);
  }

  /** Id of the next frame after this one, of all streams. */
  nextId(id: number): number | undefined {
    return this.#wrapErrors(() => {
      const query = this.#database.query<{ id: number | null }, [number]>(
        "SELECT min(id) AS id FROM frames WHERE id > ?",
      );
      return query.get(id)!.id ?? undefined;
    });
  }

  /** The frame with this id. */
  findById(id: number): FrameRecord | undefined {
    return this.#all("SELECT * FROM frames WHERE id = ?", id)[0];
  }

  /** The frame of each source that was captured last. */
  newestOfEach({ stream, sources, since }: FrameSelection): FrameRecord[] {
    return (sources ?? this.sources(stream)).flatMap((source) => {
      const frame = this.newest(stream, source);
      const isSelected = frame !== undefined && (since === undefined || frame.captured >= since);
      return isSelected ? [frame] : [];
    });
  }

  /** Whether any frame of a stream is stored; where sources are named, of each. */
  has({ stream, sources }: Pick<FrameSelection, "stream" | "sources">): boolean {
    if (sources !== undefined) {
      return sources.every((source) => this.newest(stream, source) !== undefined);
    }
    return this.#wrapErrors(() => {
      const query = this.#database.query("SELECT 1 FROM frames WHERE stream = ? LIMIT 1");
      return query.get(stream) !== null;
    });
  }

  /** The sources of a stream, in the order of names. */
  sources(stream: string): string[] {
    return this.#wrapErrors(() => {
      const query = this.#database.query<{ source: string | null }, [string, string]>(
        "SELECT min(source) AS source FROM frames WHERE stream = ? AND source > ?",
      );
      const found: string[] = [];
      for (let last = ""; ; found.push(last)) {
        const next = query.get(stream, last)!.source;
        if (next === null) return found;
        last = next;
      }
    });
  }

  /** Whether another frame is about to take the place of what has this name. */
  isBeingReplaced({ stream, source, name }: FrameRecord): boolean {
    return this.#wrapErrors(() => {
      const query = this.#database.query(
        "SELECT 1 FROM replacements WHERE stream = ? AND source = ? AND name = ?",
      );
      return query.get(stream, source, name) !== null;
    });
  }

  /** What the journal says of the store as a whole. */
  property(name: PropertyName): string | undefined {
    return this.#wrapErrors(() => readProperty(this.#database, name));
  }

  /** Id of the frame that came last, of all streams; 0 if there is none. */
  lastId(): number {
    return this.#wrapErrors(() => {
      const query = this.#database.query<{ id: number | null }, []>(
        "SELECT max(id) AS id FROM frames",
      );
      return query.get()!.id ?? 0;
    });
  }

  /** The frame that is stored under this name. */
  findByName(stream: string, source: string, name: string): FrameRecord | undefined {
    return this.#all(`${selectSource} AND name = ?3`, stream, source, name)[0];
  }

  /** The frame of a source that was captured last. */
  newest(stream: string, source: string): FrameRecord | undefined {
    return this.#all(`${selectSource} ORDER BY captured DESC, seq DESC LIMIT 1`, stream, source)[0];
  }

  /** The frame of a source that was captured first. */
  oldest(stream: string, source: string): FrameRecord | undefined {
    return this.#all(`${selectSource} ORDER BY captured, seq LIMIT 1`, stream, source)[0];
  }

  /** At most `limit` frames of a source behind a place in the order of capture, from it on. */
  framesAfter(
    stream: string,
    source: string,
    position: CatalogPosition | undefined,
    limit: number,
  ): FrameRecord[] {
    if (position === undefined) {
      return this.#all(
        `${selectSource} ORDER BY captured, seq, id LIMIT ?3`,
        stream,
        source,
        limit,
      );
    }
    const { captured, sequence, id } = position;
    return this.#all(
      `${selectSource} AND (captured, seq, id) > (?3, ?4, ?5) ORDER BY captured, seq, id LIMIT ?6`,
      stream,
      source,
      captured,
      sequence,
      id,
      limit,
    );
  }

  /** At most `limit` frames of a source before a place in the order of capture, in that order. */
  framesBefore(
    stream: string,
    source: string,
    position: CatalogPosition,
    limit: number,
  ): FrameRecord[] {
    const { captured, sequence, id } = position;
    return this.#all(
      `${selectSource} AND (captured, seq, id) < (?3, ?4, ?5)
        ORDER BY captured DESC, seq DESC, id DESC LIMIT ?6`,
      stream,
      source,
      captured,
      sequence,
      id,
      limit,
    ).reverse();
  }

  /**
   * The frames of a source with this number, that of the newest session first. No index has numbers, so that
   * all frames of the source are gone through, some thousands at a time, with a pause between for others.
   */
  async scanByNumber(
    stream: string,
    source: string,
    number: number,
    pause: () => Promise<void>,
  ): Promise<FrameRecord[]> {
    const found: FrameRecord[] = [];
    for (let from = firstPosition; ; await pause()) {
      const until = this.#positionAfter(stream, source, from, scanBatchSize);
      const { captured, sequence, id } = until ?? lastPosition;
      found.push(
        ...this.#all(
          `SELECT * FROM frames WHERE id IN (
            SELECT id FROM frames INDEXED BY frames_by_time
              WHERE stream = ?1 AND source = ?2 AND (captured, seq, id) > (?4, ?5, ?6)
                AND (captured, seq, id) <= (?7, ?8, ?9) AND seq = ?3)`,
          stream,
          source,
          number,
          from.captured,
          from.sequence,
          from.id,
          captured,
          sequence,
          id,
        ),
      );
      if (until === undefined) return found.toSorted((a, b) => b.id - a.id);
      from = until;
    }
  }

  /** The place of the frame so many behind another, if there are so many. */
  #positionAfter(
    stream: string,
    source: string,
    from: CatalogPosition,
    count: number,
  ): CatalogPosition | undefined {
    return this.#wrapErrors(() => {
      const row = this.#database
        .query<{ captured: bigint; seq: bigint; id: bigint }, (string | number | bigint)[]>(
          `SELECT captured, seq, id FROM frames INDEXED BY frames_by_time
            WHERE stream = ?1 AND source = ?2 AND (captured, seq, id) > (?3, ?4, ?5)
            ORDER BY captured, seq, id LIMIT 1 OFFSET ?6`,
        )
        .safeIntegers(true)
        .get(stream, source, from.captured, from.sequence, from.id, count - 1);
      if (row === null) return undefined;
      return { captured: row.captured, sequence: Number(row.seq), id: Number(row.id) };
    });
  }

  /** The frame with this number; of several sessions' the one that came last. */
  findByNumber(
    stream: string,
    source: string,
    number: number,
    session?: string,
  ): FrameRecord | undefined {
    return this.#all(
      `${selectSource} AND seq = ?3 AND (?4 IS NULL OR session = ?4) ORDER BY id DESC LIMIT 1`,
      stream,
      source,
      number,
      session ?? null,
    )[0];
  }

  /** The frame of a source whose capture time is nearest. */
  nearest(stream: string, source: string, captured: bigint): FrameRecord | undefined {
    const [earlier] = this.#all(
      `${selectSource} AND captured <= ?3 ORDER BY captured DESC LIMIT 1`,
      stream,
      source,
      captured,
    );
    const [later] = this.#all(
      `${selectSource} AND captured > ?3 ORDER BY captured LIMIT 1`,
      stream,
      source,
      captured,
    );
    if (earlier === undefined || later === undefined) return earlier ?? later;
    return captured - earlier.captured <= later.captured - captured ? earlier : later;
  }

  /** What is asked of the journal beside single frames. */
  read<T>(act: (database: Database) => T): T {
    return this.#wrapErrors(() => act(this.#database));
  }

  close(): void {
    this.#database.close();
  }

  #all(query: string, ...values: (string | number | bigint | null)[]): FrameRecord[] {
    return this.#wrapErrors(() =>
      this.#database
        .query<CatalogRow, typeof values>(query)
        .safeIntegers(true)
        .all(...values)
        .map(toFrameRecord),
    );
  }

  #wrapErrors<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      throw journalError("read", this.#path, error);
    }
  }
}

function toFrameRecord(row: CatalogRow): FrameRecord {
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
    raw: format === null ? undefined : parseRawShape(format),
  };
}

/** `640x512.gray16le` in a row, as the ending of the frame's name has it. */
function parseRawShape(text: string): RawShape | undefined {
  const [, width, height, format] = /^(\d+)x(\d+)\.(.+)$/.exec(text) ?? [];
  if (format === undefined) return undefined;
  return { width: Number(width), height: Number(height), format };
}
