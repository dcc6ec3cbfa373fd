/** A copy of one stream of another store: a store without a folder for its stream, and how far it is. */
import { FramesError } from "../../errors.ts";
import type { ReceiveTarget, SourceInfo, SourceStore } from "../../frame.ts";
import type { FrameSelection } from "../journal/catalog.ts";
import { readCopyOf } from "./copied-stream.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./directory-store.ts";

/** How far a copy is, and of what. */
interface CopyProgress {
  readonly cursor: string;
  readonly sources: readonly string[] | null;
  /** Nanoseconds since 1970. */
  readonly since: string | null;
}

/** Keeps the frames of one stream in a directory. */
export class StreamCopy implements ReceiveTarget {
  readonly isPersistent = true;
  readonly #store: DirectoryStore;
  /** Whether the cursor is kept: not if it tells of less than the one that there is. */
  readonly #savesCursor: boolean;
  /** What the cursor that is kept holds for. */
  readonly #progress: Omit<CopyProgress, "cursor">;
  #cursor: string | undefined;

  /**
   * @param selection what is copied of the stream
   * @param isComplete whether everything of that comes, so that another run can go on from there
   * @throws {FramesError} `usage` if the directory holds something else, or as a store
   */
  constructor(directory: string, selection: FrameSelection, isComplete: boolean) {
    this.#store = new DirectoryStore(directory, {
      portableNames: systemNeedsPortableNames,
      copy: { stream: selection.stream },
      clock: Date.now,
    });
    const text = this.#store.journal.property("cursor");
    const saved = text === undefined ? undefined : (JSON.parse(text) as CopyProgress);
    const isCovered = saved !== undefined && covers(saved, selection);
    if (isCovered) this.#cursor = saved.cursor;
    const sources = selection.sources === undefined ? null : [...selection.sources].toSorted();
    const isSame = isCovered && JSON.stringify(saved.sources) === JSON.stringify(sources);
    this.#savesCursor = isComplete && (isSame || !isCovered);
    const since = selection.since === undefined ? null : String(selection.since);
    // All frames before the cursor that were captured since then are there.
    this.#progress = { sources, since: isSame ? saved.since : since };
  }

  get cursor(): string | undefined {
    return this.#cursor;
  }

  get location(): string {
    return this.#store.location;
  }

  get isDurable(): boolean {
    return this.#store.isDurable;
  }

  get isFull(): boolean {
    return false;
  }

  onConnected(identity: string | undefined, location: string): void {
    const { journal } = this.#store;
    const copyOf = readCopyOf(journal)!;
    if (copyOf.identity === undefined) {
      if (identity === undefined) return;
      journal.setProperty("copy", JSON.stringify({ ...copyOf, identity, from: location }));
      return journal.flush();
    }
    if (identity === copyOf.identity) return;
    throw new FramesError(
      "usage",
      `Cannot receive into ${this.location}: it is a copy of ${copyOf.stream} in another store, ${copyOf.from}; name another directory`,
    );
  }

  onCursor(cursor: string): () => void {
    return () => {
      this.#cursor = cursor;
      if (!this.#savesCursor) return;
      this.#store.journal.setProperty("cursor", JSON.stringify({ ...this.#progress, cursor }));
    };
  }

  isStreamEmpty(stream: string): boolean {
    return this.#store.isStreamEmpty(stream);
  }

  checkNames(stream: string, source: string): void {
    this.#store.checkNames(stream, source);
  }

  open(origin: SourceInfo): SourceStore {
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
function covers({ sources, since }: CopyProgress, selection: FrameSelection): boolean {
  const hasSources =
    sources === null || selection.sources?.every((source) => sources.includes(source)) === true;
  const hasTimes =
    since === null || (selection.since !== undefined && selection.since >= BigInt(since));
  return hasSources && hasTimes;
}
