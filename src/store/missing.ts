/**
 * Which numbers of a stream are missing, from its journal: gone through once, a few thousand rows at a time, so
 * that nobody waits who stores frames, and kept in step from then on.
 */
import { FramesError } from "../errors.ts";
import type { Catalog } from "./catalog.ts";
import type { Gap } from "./gaps.ts";
import { Ranges } from "./ranges.ts";

/** Rows that are gone through at a time, in a few milliseconds. */
const rowsAtOnce = 2000;

/** Streams that are remembered. */
const mostStreams = 8;

/** Ranges and losses of one stream that are remembered. */
const mostKept = 200_000;

/** A gap, and its place in the order. */
export interface PlacedGap extends Gap {
  readonly place: GapPlace;
}

/** Source, when its session began, session, and first number. */
export type GapPlace = readonly [string, string, string, number];

interface Loss {
  readonly first: number;
  readonly last: number;
  readonly reason: string;
  readonly at: bigint;
}

/** One session of one source. */
interface Session {
  /** When the first of it came, in nanoseconds since 1970. */
  began: bigint;
  readonly known: Ranges;
  losses: Loss[];
}

/** Of one stream: sessions by source, then by id. */
interface Account {
  readonly sources: Map<string, Map<string, Session>>;
  upTo: number;
  reading: Promise<void> | undefined;
}

interface KnownRow {
  source: string;
  session: string;
  first: bigint;
  last: bigint;
  at: bigint;
}

export class Missing {
  readonly #catalog: Catalog;
  readonly #pause: () => Promise<void>;
  /** The stream that was asked for last is the last. */
  readonly #accounts = new Map<string, Account>();

  /** @param pause lets others have their turn */
  constructor(catalog: Catalog, pause: () => Promise<void>) {
    this.#catalog = catalog;
    this.#pause = pause;
  }

  /**
   * At most `limit` gaps of a stream behind a place: of each source its sessions in the order in which they
   * began, of each session the numbers from 1 to the highest that is known of.
   *
   * @throws {FramesError} `limit` if there are too many to remember
   */
  async gaps(
    stream: string,
    wants: (source: string) => boolean,
    behind: GapPlace | undefined,
    limit: number,
  ): Promise<PlacedGap[]> {
    const account = this.#account(stream);
    await (account.reading ??= this.#read(stream, account).finally(() => {
      account.reading = undefined;
    }));
    const found: PlacedGap[] = [];
    for (const gap of gapsIn(account, wants)) {
      if (behind !== undefined && compare(gap.place, behind) <= 0) continue;
      found.push(gap);
      if (found.length === limit) break;
    }
    return found;
  }

  #account(stream: string): Account {
    let account = this.#accounts.get(stream);
    if (account === undefined) account = { sources: new Map(), upTo: 0, reading: undefined };
    this.#accounts.delete(stream);
    this.#accounts.set(stream, account);
    if (this.#accounts.size > mostStreams) {
      this.#accounts.delete(this.#accounts.keys().next().value!);
    }
    return account;
  }

  async #read(stream: string, account: Account): Promise<void> {
    while (this.#addFrames(stream, account)) await this.#pause();
    await this.#addAccounted(stream, account);
    await this.#addLosses(stream, account);
    let kept = 0;
    for (const sessions of account.sources.values()) {
      for (const { known, losses } of sessions.values()) kept += known.size + losses.length;
    }
    if (kept <= mostKept) return;
    this.#accounts.delete(stream);
    throw new FramesError(
      "limit",
      `${stream} has too many gaps to show: frames ls ${stream} --gaps`,
    );
  }

  /** Frames of the stream among the next rows; whether there are more rows. */
  #addFrames(stream: string, account: Account): boolean {
    const [end, rows] = this.#catalog.read((database) => {
      const { first } = database
        .query<{ first: number | null }, [number]>(
          "SELECT min(id) AS first FROM frames WHERE id > ?",
        )
        .get(account.upTo)!;
      if (first === null) return [undefined, []];
      const behind = first + rowsAtOnce;
      const found = database
        .query<KnownRow, [string, number, number]>(
          `SELECT source, session, seq AS first, seq AS last, received AS at
            FROM frames NOT INDEXED WHERE stream = ?1 AND id >= ?2 AND id < ?3 ORDER BY id`,
        )
        .safeIntegers(true)
        .all(stream, first, behind);
      const { last } = database
        .query<{ last: number }, [number]>("SELECT max(id) AS last FROM frames WHERE id < ?")
        .get(behind)!;
      return [last, found];
    });
    if (end === undefined) return false;
    for (const row of rows) add(account, row);
    account.upTo = end;
    return true;
  }

  async #addAccounted(stream: string, account: Account): Promise<void> {
    for (let from = ["", "", -1n] as const; ; await this.#pause()) {
      const rows = this.#catalog.read((database) =>
        database
          .query<KnownRow, [string, string, string, bigint]>(
            `SELECT source, session, first, last, at FROM accounted
              WHERE stream = ?1 AND (source, session, first) > (?2, ?3, ?4)
              ORDER BY source, session, first LIMIT ${rowsAtOnce}`,
          )
          .safeIntegers(true)
          .all(stream, ...from),
      );
      for (const row of rows) add(account, row);
      const last = rows.at(-1);
      if (rows.length < rowsAtOnce || last === undefined) return;
      from = [last.source, last.session, last.first] as unknown as typeof from;
    }
  }

  /** All losses anew: old ones may be gone. */
  async #addLosses(stream: string, account: Account): Promise<void> {
    const fresh = new Map<Session, Loss[]>();
    for (let from = 0; ; await this.#pause()) {
      const { rows, last } = this.#catalog.read((database) => ({
        rows: database
          .query<KnownRow & { reason: string }, [number, string]>(
            `SELECT source, session, first, last, reason, at FROM
              (SELECT * FROM losses WHERE rowid > ?1 ORDER BY rowid LIMIT ${rowsAtOnce})
              WHERE stream = ?2`,
          )
          .safeIntegers(true)
          .all(from, stream),
        last: database
          .query<{ last: number | null }, [number]>(
            `SELECT max(id) AS last FROM
              (SELECT rowid AS id FROM losses WHERE rowid > ? ORDER BY rowid LIMIT ${rowsAtOnce})`,
          )
          .get(from)!.last,
      }));
      for (const row of rows) {
        const session = add(account, row);
        const losses = fresh.get(session) ?? [];
        const { reason, at } = row;
        losses.push({ first: Number(row.first), last: Number(row.last), reason, at });
        fresh.set(session, losses);
      }
      if (last === null) break;
      from = last;
    }
    for (const sessions of account.sources.values()) {
      for (const session of sessions.values()) {
        session.losses = (fresh.get(session) ?? []).sort((a, b) => a.first - b.first);
      }
    }
  }
}

/** Numbers of a session are known. */
function add({ sources }: Account, { source, session, first, last, at }: KnownRow): Session {
  let sessions = sources.get(source);
  if (sessions === undefined) sources.set(source, (sessions = new Map()));
  let one = sessions.get(session);
  if (one === undefined) {
    sessions.set(session, (one = { began: at, known: new Ranges(), losses: [] }));
  }
  if (at < one.began) one.began = at;
  one.known.add(Number(first), Number(last), at);
  return one;
}

/** In order. */
function* gapsIn({ sources }: Account, wants: (source: string) => boolean): Generator<PlacedGap> {
  for (const source of [...sources.keys()].toSorted()) {
    if (!wants(source)) continue;
    const sessions = [...sources.get(source)!].toSorted(([a, { began: x }], [b, { began: y }]) => {
      return x === y ? (a < b ? -1 : 1) : x < y ? -1 : 1;
    });
    for (const [session, { began, known, losses }] of sessions) {
      const placed = (first: number, last: number, reason: string | undefined, at: bigint) => {
        const place: GapPlace = [source, String(began).padStart(20, "0"), session, first];
        return { source, session, first, last, reason, at, place };
      };
      let next = 0;
      for (const { first, last, at } of known.gaps()) {
        for (; next < losses.length && losses[next]!.first < first; next++) {
          const loss = losses[next]!;
          yield placed(loss.first, loss.last, loss.reason, loss.at);
        }
        yield placed(first, last, undefined, at);
      }
      for (; next < losses.length; next++) {
        const loss = losses[next]!;
        yield placed(loss.first, loss.last, loss.reason, loss.at);
      }
    }
  }
}

function compare(a: GapPlace, b: GapPlace): number {
  for (const [index, part] of a.entries()) {
    const other = b[index]!;
    if (part !== other) return part < other ? -1 : 1;
  }
  return 0;
}
