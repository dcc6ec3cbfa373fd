/**
 * The journal of one session in a bucket: a chain of links, each created only if nobody has created it before.
 * Whoever creates the next one holds the session; who finds it taken by another has lost it.
 */
import { type ErrorName, FramesError } from "../errors.ts";
import { linkPath, type Follower } from "./follower.ts";
import { decodeEntries, encodeEntries, type Entry, isSameOrigin, type Told } from "./link.ts";
import type { Mirror } from "./mirror.ts";
import type { S3 } from "./s3.ts";

/** When a link is written, in milliseconds; or when it has enough. */
export interface Pace {
  /** So long after its first entry at the latest. */
  readonly every: number;
  /** Earlier if nothing more came for so long. */
  readonly quiet: number;
  readonly entries: number;
  /** Bytes of the frames that wait for their receipt. */
  readonly bytes: number;
}

/** What chains share. */
export interface ChainParts {
  readonly s3: S3;
  readonly mirror: Mirror;
  readonly follower: Follower;
  /** Name of this process. */
  readonly node: string;
  readonly pace: Pace;
}

interface Waiting {
  readonly entry: Entry;
  resolve(): void;
  reject(error: unknown): void;
}

/** Errors after which a chain is of no more use here. */
const ends: ReadonlySet<ErrorName> = new Set(["superseded", "stolen-session"]);

/** Others may go on with a chain so often while it is taken over. */
const mostTries = 100;

export class Chain {
  readonly session: string;
  readonly #parts: ChainParts;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  /** Frames that will be added. */
  #awaited = 0;
  #isHurried = false;
  #firstAt = 0;
  #lastAt = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  /** Number of the last link, if this node wrote it, and its ETag. */
  #own: number | undefined;
  #ownEtag: string | undefined;
  #failure: FramesError | undefined;

  constructor(session: string, parts: ChainParts) {
    this.session = session;
    this.#parts = parts;
  }

  /** Whether another node has gone on with it: it is then of no more use here. */
  get isLost(): boolean {
    return this.#failure !== undefined;
  }

  /** For how long nothing came, in milliseconds; 0 while something waits. */
  get idle(): number {
    if (this.#waiting.length > 0 || this.#writing !== undefined) return 0;
    return performance.now() - this.#lastAt;
  }

  /** Number of the last link, if this node holds the chain. */
  get last(): number | undefined {
    return this.#own;
  }

  /** Begins something that adds an entry, if all goes well. */
  begin(): void {
    this.#awaited++;
    this.#isHurried = false;
  }

  /** It has ended. */
  end(): void {
    this.#awaited--;
    this.#look();
  }

  /** Nothing more is to be waited for than what has begun. */
  hurry(): void {
    this.#isHurried = true;
    this.#look();
  }

  /**
   * Records an entry.
   *
   * @param bytes of a frame that waits for its receipt
   * @returns what is settled when its link is written
   */
  add(entry: Entry, bytes = 0): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#lastAt = performance.now();
    if (this.#waiting.length === 0) this.#firstAt = this.#lastAt;
    this.#waiting.push({ entry, resolve, reject });
    this.#waitingBytes += bytes;
    this.#look();
    return promise;
  }

  /** Writes what waits, if it is time. */
  #look(): void {
    if (this.#writing !== undefined || this.#waiting.length === 0) return;
    const { every, quiet, entries, bytes } = this.#parts.pace;
    const isAll = this.#isHurried && this.#awaited === 0;
    const hasEnough = this.#waiting.length >= entries || this.#waitingBytes >= bytes || isAll;
    const at = Math.min(this.#firstAt + every, this.#lastAt + quiet);
    const left = at - performance.now();
    if (hasEnough || left <= 0) return void this.#write();
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#look();
    }, left);
  }

  /** Writes all that waits now. */
  async finish(): Promise<void> {
    while (this.#writing !== undefined || this.#waiting.length > 0) {
      await (this.#writing ?? this.#write());
    }
  }

  #write(): Promise<void> {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    const writing = this.#append(together(batch.map(({ entry }) => entry))).then(
      () => batch.forEach(({ resolve }) => resolve()),
      (error: unknown) => this.#fail(error, batch),
    );
    this.#writing = writing.finally(() => {
      this.#writing = undefined;
      this.#firstAt = performance.now();
      this.#look();
    });
    return this.#writing;
  }

  #fail(error: unknown, batch: readonly Waiting[]): void {
    if (error instanceof FramesError && ends.has(error.code)) {
      this.#failure = error;
      batch = [...batch, ...this.#waiting];
      this.#waiting = [];
    }
    for (const { reject } of batch) reject(error);
  }

  async #append(entries: readonly Entry[]): Promise<void> {
    const { s3, mirror, follower, node } = this.#parts;
    const { session } = this;
    const stray: string[] = [];
    for (let tries = 0; tries < mostTries; tries++) {
      this.#checkKey(entries);
      const number = (this.#own ?? mirror.lastOf(session)) + 1;
      const header = { session, first: number, last: number, node };
      const bytes = encodeEntries(header, entries);
      const path = linkPath(session, number);
      const upload = await s3.put(path, bytes, { only: "new", type: "application/gzip" });
      if (upload.outcome === "taken" && !(await this.#isOwn(path, bytes))) {
        if (this.#own !== undefined && follower.knows(path)) this.#hold(number, undefined);
        continue;
      }
      if (!(await this.#isNext(number))) {
        this.#isGone(number);
        stray.push(path);
        continue;
      }
      this.#hold(number, upload.outcome === "stored" ? upload.etag : undefined);
      follower.know(path);
      await follower.take(entries.map((entry) => ({ header, entry })));
      // What they say is said now where it belongs; that they lie about is no harm.
      for (const path of stray) void s3.remove(path).catch(() => {});
      return;
    }
    throw new FramesError("store", `Cannot take over session ${session}: others go on with it`);
  }

  /**
   * Whoever knows the id of a session has not its key yet.
   *
   * @throws {FramesError} `stolen-session`
   */
  #checkKey(entries: readonly Entry[]): void {
    if (this.#own !== undefined) return;
    const key = this.#parts.mirror.keyOf(this.session);
    if (key === undefined || entries.every(({ origin }) => origin.key === key)) return;
    throw new FramesError("stolen-session");
  }

  /**
   * What has the link's name: this very link, written by a try whose answer was lost, or something else that
   * the next link comes after.
   *
   * @throws {FramesError} `superseded`
   */
  async #isOwn(path: string, bytes: Uint8Array): Promise<boolean> {
    const { s3, follower, node } = this.#parts;
    const found = await s3.bytes(path);
    if (found === undefined) {
      await follower.sync();
      return false;
    }
    if (Buffer.compare(found, bytes) === 0) return true;
    const all: Told[] = [];
    for await (const told of decodeEntries(path, found)) all.push(...told);
    await follower.take(all);
    follower.know(path);
    // Who only merges what was left takes no session over, and neither did an earlier try of our own.
    const isOthers = all.some(({ header, entry }) => entry !== undefined && header.node !== node);
    if (isOthers && this.#own !== undefined) {
      throw new FramesError("superseded", "Another server has gone on with this session");
    }
    return false;
  }

  /**
   * Whether the link that was just created is the first of its number: links are removed from the first on, and
   * only when a segment has them.
   */
  async #isNext(number: number): Promise<boolean> {
    const { s3, mirror, follower } = this.#parts;
    if (this.#ownEtag !== undefined) {
      const before = await s3.head(linkPath(this.session, number - 1));
      // Not just any: somebody may have begun where it was.
      if (before?.etag === this.#ownEtag) return true;
    }
    if (!(await follower.syncSegments())) await follower.sync();
    return mirror.lastOf(this.session) < number;
  }

  #hold(number: number | undefined, etag: string | undefined): void {
    this.#own = number;
    this.#ownEtag = etag;
  }

  /**
   * Others have gone on with the chain, and merged it.
   *
   * @throws {FramesError} `store` if this node held it
   */
  #isGone(number: number): void {
    const wasOwn = this.#own !== undefined;
    this.#hold(undefined, undefined);
    if (!wasOwn) return;
    const why = `Others have gone on with session ${this.session} before its link ${number}`;
    throw new FramesError("store", why);
  }
}

/** Accounts of numbers that follow each other become one. */
function together(entries: readonly Entry[]): Entry[] {
  const result: Entry[] = [];
  for (const entry of entries) {
    const before = result.at(-1);
    const follows =
      entry.kind === "account" &&
      before?.kind === "account" &&
      isSameOrigin(before.origin, entry.origin) &&
      before.last + 1 === entry.first;
    if (follows) result[result.length - 1] = { ...entry, first: before.first };
    else result.push(entry);
  }
  return result;
}
