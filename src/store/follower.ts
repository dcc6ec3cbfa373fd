/**
 * Keeps a mirror of a bucket's journal up with what other nodes write: reads the links and segments that it
 * does not know yet.
 */
import { Arrivals } from "./arrivals.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { decodeEntries, type Told } from "./link.ts";
import type { Mirror } from "./mirror.ts";
import type { S3 } from "./s3.ts";
import { pathOfFrame } from "./tree.ts";

/** Below these lie the links of chains, and the segments. */
export const linksBelow = ".frames/journal/";
export const segmentsBelow = ".frames/segments/";

/** The pause between two looks at the bucket, in milliseconds. */
const lookEvery = 1500;

/** Links, and segments, which may be large, that are read at the same time. */
const linksAtOnce = 16;
const segmentsAtOnce = 2;

/** So often an object that is listed may be gone, because it was merged meanwhile, before that is a fault. */
const mostMisses = 20;

/** A link of a chain in the bucket. */
export interface ListedLink {
  readonly session: string;
  readonly number: number;
  readonly path: string;
}

/** Path of a link; as text they sort in the order of their numbers. */
export function linkPath(session: string, number: number): string {
  return `${linksBelow}${session}/${String(number).padStart(10, "0")}`;
}

export class Follower {
  /** Tells of frames that this node and others have received. */
  readonly arrivals = new Arrivals();
  readonly #s3: S3;
  readonly #mirror: Mirror;
  /** Paths of what was read, and is there still. */
  readonly #knownLinks = new Set<string>();
  readonly #knownSegments = new Set<string>();
  #links: ListedLink[] = [];
  #segments: { path: string; size: number }[] = [];
  #running: Promise<void> | undefined;
  #queued: Promise<void> | undefined;
  #taking: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #trouble: FramesError | undefined;

  constructor(s3: S3, mirror: Mirror) {
    this.#s3 = s3;
    this.#mirror = mirror;
  }

  /** The links that the last look found, in the order of sessions and numbers. */
  get links(): readonly ListedLink[] {
    return this.#links;
  }

  get segments(): readonly { readonly path: string; readonly size: number }[] {
    return this.#segments;
  }

  /** Why the last look failed, if it did. */
  get trouble(): FramesError | undefined {
    return this.#trouble;
  }

  /** Looks again and again. */
  start(): void {
    const look = async () => {
      // What is wrong is told to whoever needs the bucket: this only runs behind.
      await this.sync().catch(() => {});
      if (!this.#isStopped) this.#timer = setTimeout(() => void look(), lookEvery);
    };
    this.#timer = setTimeout(() => void look(), lookEvery);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /**
   * Reads what the bucket's journal had when this was called.
   *
   * @throws {FramesError} `store`
   */
  sync(): Promise<void> {
    if (this.#running === undefined) return this.#run();
    // One that is under way may have looked too early.
    return (this.#queued ??= this.#running.then(
      () => this.#run(),
      () => this.#run(),
    ));
  }

  #run(): Promise<void> {
    this.#queued = undefined;
    const running = this.#look()
      .then(
        () => (this.#trouble = undefined),
        (error: unknown) => {
          this.#trouble = asFramesError(error, "store");
          throw error;
        },
      )
      .then(() => {})
      .finally(() => {
        if (this.#running === running) this.#running = undefined;
      });
    return (this.#running = running);
  }

  /** First the links: one that is merged meanwhile is in a segment by the time these are listed. */
  async #look(): Promise<void> {
    for (let misses = 0; ; misses++) {
      if (await this.#lookOnce()) return;
      if (misses === mostMisses)
        throw new FramesError("store", "The bucket's journal does not stand still");
    }
  }

  async #lookOnce(): Promise<boolean> {
    const links: ListedLink[] = [];
    for await (const page of this.#s3.list(linksBelow)) {
      for (const { key } of page) {
        const [, session, number] =
          /^\.frames\/journal\/([0-9a-f]{1,64})\/(\d{10})$/.exec(key) ?? [];
        if (session !== undefined) links.push({ session, number: Number(number), path: key });
      }
    }
    let isWhole = await this.syncSegments();
    const unread = links.filter(({ path }) => !this.#knownLinks.has(path));
    isWhole =
      (await this.#read(
        unread.map(({ path }) => path),
        this.#knownLinks,
        linksAtOnce,
      )) && isWhole;
    this.#links = links;
    forgetOthers(this.#knownLinks, new Set(links.map(({ path }) => path)));
    return isWhole;
  }

  /**
   * Reads the segments that are new.
   *
   * @returns whether all were still there
   */
  async syncSegments(): Promise<boolean> {
    const segments: { path: string; size: number }[] = [];
    for await (const page of this.#s3.list(segmentsBelow)) {
      for (const { key, size } of page) segments.push({ path: key, size });
    }
    const unread = segments.filter(({ path }) => !this.#knownSegments.has(path));
    const isWhole = await this.#read(
      unread.map(({ path }) => path),
      this.#knownSegments,
      segmentsAtOnce,
    );
    this.#segments = segments;
    return isWhole;
  }

  async #read(paths: readonly string[], known: Set<string>, atOnce: number): Promise<boolean> {
    let isWhole = true;
    for (let from = 0; from < paths.length; from += atOnce) {
      const some = paths.slice(from, from + atOnce);
      const found = await Promise.all(some.map((path) => this.#s3.bytes(path)));
      for (const [index, bytes] of found.entries()) {
        const path = some[index]!;
        if (bytes === undefined) isWhole = false;
        else if (!known.has(path)) {
          for await (const told of decodeEntries(path, bytes)) await this.take(told);
          known.add(path);
        }
      }
    }
    return isWhole;
  }

  /** Notes what this node wrote itself. */
  know(path: string): void {
    (path.startsWith(segmentsBelow) ? this.#knownSegments : this.#knownLinks).add(path);
  }

  /** Whether a link was read. */
  knows(path: string): boolean {
    return this.#knownLinks.has(path);
  }

  /** Takes over what a link says; where two rows have one name, the bytes in the bucket decide. */
  take(told: readonly Told[]): Promise<void> {
    return (this.#taking = this.#taking.then(
      () => this.#take(told),
      () => this.#take(told),
    ));
  }

  async #take(told: readonly Told[]): Promise<void> {
    const contested = this.#mirror.apply(told);
    for (const { row, etag } of contested) {
      const lies = await this.#s3.head(pathOfFrame(row.stream, row.source, row.name));
      if (lies?.etag === etag) this.#mirror.replace(row);
    }
    this.#mirror.flush();
    this.arrivals.came();
  }
}

function forgetOthers(known: Set<string>, listed: ReadonlySet<string>): void {
  for (const path of known) if (!listed.has(path)) known.delete(path);
}
