/**
 * Reads back what a journal holds, beside whoever writes it: frames in the order in which they came, by
 * capture time, by name and by number. Only what was committed is seen.
 */
import type { Database } from "bun:sqlite";
import type { FrameDescription, RawShape } from "../frame.ts";
import {
  type FrameRow,
  journalFailure,
  openForReading,
  type PropertyName,
  propertyOf,
} from "./schema.ts";

/** A stored frame. */
export interface KeptFrame extends FrameDescription {
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
export interface Selection {
  readonly stream: string;
  /** Default: all sources. */
  readonly sources?: readonly string[] | undefined;
  /** Captured at this time or later, in nanoseconds since 1970. */
  readonly since?: bigint | undefined;
}

/** A place in the order of capture: of a frame that is there, or was. */
export interface Place {
  readonly captured: bigint;
  readonly sequence: number;
  readonly id: number;
}

/** Before all frames. */
const start: Place = { captured: -(2n ** 63n), sequence: 0, id: 0 };

/** Behind all frames. */
const end: Place = {
  captured: 2n ** 63n - 1n,
  sequence: Number.MAX_SAFE_INTEGER,
  id: Number.MAX_SAFE_INTEGER,
};

/** Frames that are gone through at a time, in a few milliseconds. */
const lookedAtOnce = 10_000;

type Row = {
  [field in keyof FrameRow]: FrameRow[field] extends number ? bigint : FrameRow[field];
} & {
  id: bigint;
};

const every = "SELECT * FROM frames WHERE stream = ?1";
const ofSource = `${every} AND source = ?2`;

export class Catalog {
  readonly #path: string;
  readonly #database: Database;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#database = openForReading(path);
    } catch (error) {
      throw journalFailure("read", path, error);
    }
  }

  /** At most `limit` frames that came after the one with this id, in the order of arrival. */
  after({ stream, sources, since }: Selection, id: number, limit: number): KeptFrame[] {
    return this.#all(
      `${every} AND id > ?2 AND (?3 IS NULL OR source IN (SELECT value FROM json_each(?3)))
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
  between({ stream, sources, since }: Selection, after: number, upTo: number, limit: number) {
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
  later(id: number, limit: number): KeptFrame[] {
    return this.#all("SELECT * FROM frames WHERE id > ? ORDER BY id LIMIT ?", id, limit);
  }

  /** Id of the next frame after this one, of all streams. */
  nextId(id: number): number | undefined {
    return this.#reading(() => {
      const query = this.#database.query<{ id: number | null }, [number]>(
        "SELECT min(id) AS id FROM frames WHERE id > ?",
      );
      return query.get(id)!.id ?? undefined;
    });
  }

  /** The frame with this id. */
  at(id: number): KeptFrame | undefined {
    return this.#all("SELECT * FROM frames WHERE id = ?", id)[0];
  }

  /** The frame of each source that was captured last. */
  newestOfEach({ stream, sources, since }: Selection): KeptFrame[] {
    return (sources ?? this.sources(stream)).flatMap((source) => {
      const frame = this.newest(stream, source);
      const isMeant = frame !== undefined && (since === undefined || frame.captured >= since);
      return isMeant ? [frame] : [];
    });
  }

  /** Whether any frame of a stream is stored. */
  hasStream(stream: string): boolean {
    return this.#reading(() => {
      const query = this.#database.query("SELECT 1 FROM frames WHERE stream = ? LIMIT 1");
      return query.get(stream) !== null;
    });
  }

  /** The sources of a stream, in the order of names. */
  sources(stream: string): string[] {
    return this.#reading(() => {
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
  isBeingReplaced({ stream, source, name }: KeptFrame): boolean {
    return this.#reading(() => {
      const query = this.#database.query(
        "SELECT 1 FROM replacements WHERE stream = ? AND source = ? AND name = ?",
      );
      return query.get(stream, source, name) !== null;
    });
  }

  /** What the journal says of the store as a whole. */
  property(name: PropertyName): string | undefined {
    return this.#reading(() => propertyOf(this.#database, name));
  }

  /** Id of the frame that came last, of all streams; 0 if there is none. */
  last(): number {
    return this.#reading(() => {
      const query = this.#database.query<{ id: number | null }, []>(
        "SELECT max(id) AS id FROM frames",
      );
      return query.get()!.id ?? 0;
    });
  }

  /** The frame that is stored under this name. */
  named(stream: string, source: string, name: string): KeptFrame | undefined {
    return this.#all(`${ofSource} AND name = ?3`, stream, source, name)[0];
  }

  /** The frame of a source that was captured last. */
  newest(stream: string, source: string): KeptFrame | undefined {
    return this.#all(`${ofSource} ORDER BY captured DESC, seq DESC LIMIT 1`, stream, source)[0];
  }

  /** The frame of a source that was captured first. */
  oldest(stream: string, source: string): KeptFrame | undefined {
    return this.#all(`${ofSource} ORDER BY captured, seq LIMIT 1`, stream, source)[0];
  }

  /** At most `limit` frames of a source behind a place in the order of capture, from it on. */
  behind(stream: string, source: string, place: Place | undefined, limit: number): KeptFrame[] {
    if (place === undefined) {
      return this.#all(`${ofSource} ORDER BY captured, seq, id LIMIT ?3`, stream, source, limit);
    }
    const { captured, sequence, id } = place;
    return this.#all(
      `${ofSource} AND (captured, seq, id) > (?3, ?4, ?5) ORDER BY captured, seq, id LIMIT ?6`,
      stream,
      source,
      captured,
      sequence,
      id,
      limit,
    );
  }

  /** At most `limit` frames of a source before a place in the order of capture, in that order. */
  before(stream: string, source: string, place: Place, limit: number): KeptFrame[] {
    const { captured, sequence, id } = place;
    return this.#all(
      `${ofSource} AND (captured, seq, id) < (?3, ?4, ?5)
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
  async withNumber(
    stream: string,
    source: string,
    number: number,
    pause: () => Promise<void>,
  ): Promise<KeptFrame[]> {
    const found: KeptFrame[] = [];
    for (let from = start; ; await pause()) {
      const until = this.#placeAfter(stream, source, from, lookedAtOnce);
      const { captured, sequence, id } = until ?? end;
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
  #placeAfter(stream: string, source: string, from: Place, count: number): Place | undefined {
    return this.#reading(() => {
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
  numbered(
    stream: string,
    source: string,
    number: number,
    session?: string,
  ): KeptFrame | undefined {
    return this.#all(
      `${ofSource} AND seq = ?3 AND (?4 IS NULL OR session = ?4) ORDER BY id DESC LIMIT 1`,
      stream,
      source,
      number,
      session ?? null,
    )[0];
  }

  /** The frame of a source whose capture time is nearest. */
  nearest(stream: string, source: string, captured: bigint): KeptFrame | undefined {
    const [before] = this.#all(
      `${ofSource} AND captured <= ?3 ORDER BY captured DESC LIMIT 1`,
      stream,
      source,
      captured,
    );
    const [behind] = this.#all(
      `${ofSource} AND captured > ?3 ORDER BY captured LIMIT 1`,
      stream,
      source,
      captured,
    );
    if (before === undefined || behind === undefined) return before ?? behind;
    return captured - before.captured <= behind.captured - captured ? before : behind;
  }

  /** What is asked of the journal beside single frames. */
  read<T>(act: (database: Database) => T): T {
    return this.#reading(() => act(this.#database));
  }

  close(): void {
    this.#database.close();
  }

  #all(query: string, ...values: (string | number | bigint | null)[]): KeptFrame[] {
    return this.#reading(() =>
      this.#database
        .query<Row, typeof values>(query)
        .safeIntegers(true)
        .all(...values)
        .map(keptFrame),
    );
  }

  #reading<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      throw journalFailure("read", this.#path, error);
    }
  }
}

function keptFrame(row: Row): KeptFrame {
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
    raw: format === null ? undefined : shapeOf(format),
  };
}

/** `640x512.gray16le` in a row, as the ending of the frame's name has it. */
function shapeOf(text: string): RawShape | undefined {
  const [, width, height, format] = /^(\d+)x(\d+)\.(.+)$/.exec(text) ?? [];
  if (format === undefined) return undefined;
  return { width: Number(width), height: Number(height), format };
}
