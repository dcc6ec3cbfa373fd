/**
 * Frames in a bucket of an S3 engine (BUCKET.md): one object for each, under the names that they have in a
 * directory, and a journal of objects beside them. Any number of processes may serve it at the same time.
 */
import { FramesError } from "../errors.ts";
import type {
  FrameDescription,
  FrameOrigin,
  FrameStore,
  FrameWriter,
  OfferedFrame,
  SourceStore,
  Standing,
} from "../frame.ts";
import type { Arrivals } from "./arrivals.ts";
import { BucketFrame, type BucketParts, KnownFrameWriter } from "./bucket-frame.ts";
import { Chain, type Pace } from "./chain.ts";
import { Follower } from "./follower.ts";
import { KeptBucket } from "./kept-bucket.ts";
import type { Entry } from "./link.ts";
import { checkEngine, unique } from "./marker.ts";
import { Merger } from "./merger.ts";
import { Mirror, originOf, checkTime } from "./mirror.ts";
import { checkPart, sourceFolder } from "./name.ts";
import { isAnothers, isRevised } from "./partial.ts";
import { type BucketPlace, longestKey, type Patience, S3 } from "./s3.ts";
import { pathOfFrame } from "./tree.ts";
import { Uploads } from "./uploads.ts";

/** How a store in a bucket behaves. */
export interface BucketStoreOptions {
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  readonly pace?: Partial<Pace>;
  readonly patience?: Patience;
}

const usualPace: Pace = { every: 1000, quiet: 150, entries: 500, bytes: 16 << 20 };

/** What is under way when a store is closed gets so long, in milliseconds. */
const closeWithin = 10_000;

/** A store in a bucket. */
export class BucketStore implements FrameStore {
  readonly place: string;
  /** What it gives back. */
  readonly kept: KeptBucket;
  /** An engine says that it has an object when it is safe there. */
  readonly isDurable = true;
  /** Milliseconds between the receipts of one session. */
  readonly receiptsEvery: number;
  /** Tells it from all others that serve the same bucket. */
  readonly #node = unique();
  readonly #parts: BucketParts;
  readonly #follower: Follower;
  readonly #merger: Merger;
  readonly #pace: Pace;
  readonly #chains = new Map<string, Chain>();
  /** Losses that are not in the bucket yet. */
  readonly #unsaved = new Set<Promise<void>>();
  #closed: Promise<void> | undefined;

  private constructor(s3: S3, identity: string, options: BucketStoreOptions) {
    const mirror = new Mirror(identity);
    this.place = s3.place;
    this.#pace = { ...usualPace, ...options.pace };
    this.receiptsEvery = this.#pace.every;
    this.#follower = new Follower(s3, mirror);
    this.kept = new KeptBucket(s3, mirror, this.#follower);
    const merging = {
      s3,
      mirror,
      follower: this.#follower,
      chains: this.#chains,
      node: this.#node,
    };
    this.#merger = new Merger(merging);
    const { clock } = options;
    this.#parts = {
      s3,
      mirror,
      uploads: new Uploads(s3),
      underWay: new Map(),
      now: () => BigInt(Math.round(clock() * 1e3)) * 1000n,
      chainOf: (session) => this.#chainOf(session),
    };
  }

  /**
   * Opens the store in a bucket that is there, or makes it.
   *
   * @throws {FramesError} `store` if the engine cannot be reached, does not let us in, or cannot do what is needed
   */
  static async open(place: BucketPlace, options: BucketStoreOptions): Promise<BucketStore> {
    const s3 = new S3(place, options.patience);
    const store = new BucketStore(s3, await checkEngine(s3), options);
    try {
      await store.#follower.sync();
    } catch (error) {
      store.#parts.mirror.close();
      throw error;
    }
    store.#follower.start();
    store.#merger.start();
    return store;
  }

  /** Path of a journal that has what the bucket's has, a few seconds later: for whoever reads it. */
  get journalPath(): string {
    return this.#parts.mirror.path;
  }

  /** Tells of frames that came into the bucket elsewhere. */
  get arrivals(): Arrivals {
    return this.#follower.arrivals;
  }

  isFresh(stream: string): boolean {
    return !this.#parts.mirror.hasStream(stream);
  }

  refresh(): Promise<void> {
    return this.#follower.sync();
  }

  room(): Promise<void> | undefined {
    return this.#parts.uploads.room();
  }

  check(stream: string, source: string): void {
    sourceFolder(stream, source, false);
  }

  open(origin: FrameOrigin): SourceStore {
    this.check(origin.stream, origin.source);
    const chain = () => this.#chainOf(origin.session);
    return new BucketSource(this.#parts, origin, chain, (saved) => {
      this.#unsaved.add(saved);
      const end = () => void this.#unsaved.delete(saved);
      saved.then(end, end);
    });
  }

  #chainOf(session: string): Chain {
    const known = this.#chains.get(session);
    if (known !== undefined && !known.isLost) return known;
    const { s3, mirror } = this.#parts;
    const parts = { s3, mirror, follower: this.#follower, node: this.#node, pace: this.#pace };
    const chain = new Chain(session, parts);
    this.#chains.set(session, chain);
    return chain;
  }

  /** Frames are settled one by one, each when its row is in the bucket. */
  flush(): void | Promise<void> {
    if (this.#unsaved.size > 0) return this.#saved();
  }

  async #saved(): Promise<void> {
    for (const result of await Promise.allSettled(this.#unsaved)) {
      // Whose session it was hears of that by its frames.
      if (result.status === "rejected" && result.reason?.code === "store") throw result.reason;
    }
  }

  /** Settles what is under way, and closes. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#follower.stop();
    this.#merger.stop();
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, closeWithin);
    try {
      // What fails now has no receipt, and is sent again.
      await Promise.race([this.#finish().catch(() => {}), late.promise]);
    } finally {
      clearTimeout(timer);
      this.#parts.s3.close();
      this.#parts.mirror.close();
    }
  }

  async #finish(): Promise<void> {
    await this.#parts.uploads.finished();
    await Promise.all([...this.#chains.values()].map((chain) => chain.finish()));
    await this.#merger.mergeOwn(0);
  }
}

/** The frames of one source, while one session sends to it. */
class BucketSource implements SourceStore {
  readonly #parts: BucketParts;
  readonly #origin: FrameOrigin;
  readonly #chain: () => Chain;
  readonly #saving: (saved: Promise<void>) => void;

  constructor(
    parts: BucketParts,
    origin: FrameOrigin,
    chain: () => Chain,
    saving: (saved: Promise<void>) => void,
  ) {
    this.#parts = parts;
    this.#origin = origin;
    this.#chain = chain;
    this.#saving = saving;
  }

  begin(description: FrameDescription): FrameWriter {
    const { stream, source } = this.#origin;
    const { name, captured } = description;
    this.#check(name);
    checkTime(captured);
    const stored = this.#parts.mirror.find(stream, source, name);
    if (stored !== null && !this.#mayWrite(description, stored)) {
      return new KnownFrameWriter(this.#parts, this.#origin, description, stored);
    }
    return new BucketFrame(this.#parts, this.#origin, description, stored === null);
  }

  #mayWrite(description: FrameDescription, stored: Parameters<typeof isRevised>[0]): boolean {
    const { conflict, again } = this.#origin;
    return conflict === "replace" || again === true || isRevised(stored, this.#origin, description);
  }

  /** @throws {FramesError} `bad-name` */
  #check(name: string): void {
    checkPart(name, false);
    const { stream, source } = this.#origin;
    const path = pathOfFrame(stream, source, name);
    // No string has more than three bytes for each of its units.
    if (path.length * 3 <= longestKey / 2) return;
    const bytes = this.#parts.s3.keyBytes(path);
    if (bytes <= longestKey) return;
    const why = `its key would have ${bytes} bytes, ${longestKey} are the most`;
    throw new FramesError("bad-name", `The name cannot be used in a bucket: ${why}`);
  }

  compare(offered: readonly OfferedFrame[]): Standing[] {
    return this.#parts.mirror.read(() => {
      const standings = offered.map((frame) => {
        try {
          return this.#compare(frame);
        } catch (error) {
          // It is refused with the reason when it comes.
          if (error instanceof FramesError && error.wire >= 32) return "wanted";
          throw error;
        }
      });
      this.#account(offered, standings);
      return standings;
    });
  }

  #compare(offered: OfferedFrame): Standing {
    const origin = this.#origin;
    const { name, size, captured, crc32 } = offered;
    this.#check(name);
    checkTime(captured);
    const { stream, source } = origin;
    const stored = this.#parts.mirror.findOffered(stream, source, name, captured);
    if (stored === null) return "wanted";
    const isReplaced = stored.session === origin.session && stored.seq > offered.sequence;
    if (origin.revises === true && isReplaced) return "stored";
    const isReplacing = origin.conflict === "replace" && !isAnothers(stored, origin);
    const taken = isReplacing || isRevised(stored, origin, offered) ? "wanted" : "conflict";
    if (stored.bytes !== size) return taken;
    if (crc32 === undefined && stored.sameTime === 0) return "unsure";
    if (crc32 !== undefined && stored.crc32 !== crc32) return taken;
    const isOwn = stored.session === origin.session && stored.seq === offered.sequence;
    if (isOwn && origin.again === true) return "moved";
    // It is read before it counts, or it may have been moved away: it comes as a frame then.
    return origin.again === true || origin.durable === true ? "wanted" : "stored";
  }

  /** Those that will not come were not lost. */
  #account(offered: readonly OfferedFrame[], standings: readonly Standing[]): void {
    const at = this.#parts.now();
    const isOpen = (index: number) => openStandings.has(standings[index]!);
    for (let index = 0; index < offered.length; index++) {
      if (isOpen(index)) continue;
      const first = offered[index]!.sequence;
      let last = first;
      while (
        index + 1 < offered.length &&
        !isOpen(index + 1) &&
        offered[index + 1]!.sequence === last + 1
      ) {
        index++;
        last++;
      }
      const entry: Entry = { kind: "account", origin: originOf(this.#origin), first, last, at };
      // Only what `frames ls --gaps` shows depends on it.
      this.#chain()
        .add(entry)
        .catch(() => {});
    }
  }

  lost(first: number, last: number, error: FramesError): void {
    const origin = originOf(this.#origin);
    const at = this.#parts.now();
    this.#saving(this.#chain().add({ kind: "loss", origin, first, last, reason: error.code, at }));
  }

  ending(): void {
    this.#chain().hurry();
  }
}

/** Standings of frames that may still come. */
const openStandings: ReadonlySet<Standing> = new Set(["wanted", "unsure"]);
