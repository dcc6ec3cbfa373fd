/** A copy of one stream of another store: a store without a folder for its stream, and how far it is. */
import { FramesError } from "../errors.ts";
import type { FrameKeeper, FrameOrigin, SourceStore } from "../frame.ts";
import type { Selection } from "./catalog.ts";
import { copyOf } from "./copy-of.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./directory.ts";

/** How far a copy is, and of what. */
interface Progress {
  readonly cursor: string;
  readonly sources: readonly string[] | null;
  /** Nanoseconds since 1970. */
  readonly since: string | null;
}

/** Keeps the frames of one stream in a directory. */
export class StreamCopy implements FrameKeeper {
  readonly isLasting = true;
  readonly #store: DirectoryStore;
  /** Whether the cursor is kept: not if it tells of less than the one that there is. */
  readonly #keeps: boolean;
  /** What the cursor that is kept holds for. */
  readonly #kept: Omit<Progress, "cursor">;
  #cursor: string | undefined;

  /**
   * @param wanted what is copied of the stream
   * @param isComplete whether everything of that comes, so that another run can go on from there
   * @throws {FramesError} `usage` if the directory holds something else, or as a store
   */
  constructor(directory: string, wanted: Selection, isComplete: boolean) {
    this.#store = new DirectoryStore(directory, {
      portableNames: systemNeedsPortableNames,
      copy: { stream: wanted.stream },
      clock: Date.now,
    });
    const text = this.#store.journal.property("cursor");
    const before = text === undefined ? undefined : (JSON.parse(text) as Progress);
    const isCovered = before !== undefined && covers(before, wanted);
    if (isCovered) this.#cursor = before.cursor;
    const sources = wanted.sources === undefined ? null : [...wanted.sources].toSorted();
    const isSame = isCovered && JSON.stringify(before.sources) === JSON.stringify(sources);
    this.#keeps = isComplete && (isSame || !isCovered);
    const since = wanted.since === undefined ? null : String(wanted.since);
    // All frames before the cursor that were captured since then are there.
    this.#kept = { sources, since: isSame ? before.since : since };
  }

  get cursor(): string | undefined {
    return this.#cursor;
  }

  get place(): string {
    return this.#store.place;
  }

  get isDurable(): boolean {
    return this.#store.isDurable;
  }

  get isFull(): boolean {
    return false;
  }

  welcomed(identity: string | undefined, place: string): void {
    const { journal } = this.#store;
    const known = copyOf(journal)!;
    if (known.identity === undefined) {
      if (identity === undefined) return;
      journal.setProperty("copy", JSON.stringify({ ...known, identity, from: place }));
      return journal.flush();
    }
    if (identity === known.identity) return;
    throw new FramesError(
      "usage",
      `Cannot receive into ${this.place}: it is a copy of ${known.stream} in another store, ${known.from}; name another directory`,
    );
  }

  mark(cursor: string): () => void {
    return () => {
      this.#cursor = cursor;
      if (!this.#keeps) return;
      this.#store.journal.setProperty("cursor", JSON.stringify({ ...this.#kept, cursor }));
    };
  }

  isFresh(stream: string): boolean {
    return this.#store.isFresh(stream);
  }

  check(stream: string, source: string): void {
    this.#store.check(stream, source);
  }

  open(origin: FrameOrigin): SourceStore {
    return this.#store.open(origin);
  }

  flush(): void | Promise<void> {
    return this.#store.flush();
  }

  close(): void {
    this.#store.close();
  }
}

/** Whether everything wanted that came before the cursor is there. */
function covers({ sources, since }: Progress, wanted: Selection): boolean {
  const hasSources =
    sources === null || wanted.sources?.every((source) => sources.includes(source)) === true;
  const hasTimes = since === null || (wanted.since !== undefined && wanted.since >= BigInt(since));
  return hasSources && hasTimes;
}
