/**
 * Copy of one stream of another store. Its directory has no folder for the stream, and its journal
 * has the cursor of the copy.
 */
import { FramesError } from "../../errors.ts";
import type { ReceiveTarget, SourceInfo, SourceStore } from "../../frame.ts";
import type { FrameSelection } from "../journal/journal-reader.ts";
import { readCopyOf } from "./copied-stream.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./directory-store.ts";

/** Progress of a copy, and the selection for which it is valid. */
interface CopyProgress {
  readonly cursor: string;
  readonly sources: readonly string[] | null;
  /** Earliest capture time copied, in nanoseconds since 1970. Null for all times. */
  readonly since: string | null;
}

/** Stores the received frames of one stream in a directory. */
export class StreamCopy implements ReceiveTarget {
  readonly isPersistent = true;
  readonly #store: DirectoryStore;
  /** Whether new cursors are saved. False if they cover less than the saved one. */
  readonly #savesCursor: boolean;
  /** Selection for which the saved cursor is valid. */
  readonly #progress: Omit<CopyProgress, "cursor">;
  #cursor: string | undefined;

  /**
   * @param selection frames of the stream to copy
   * @param isComplete whether the server sends the whole selection, so that a later run can resume
   * @throws {FramesError} `usage` if the directory holds something else, or as `DirectoryStore`
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
    // A saved cursor covers all frames since the earlier time, so that time stays valid.
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
      `Cannot receive into ${this.location}: it is a copy of ${copyOf.stream} from another store, ${copyOf.from}; choose another directory`,
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

/**
 * Returns whether the saved progress covers everything that `selection` asks for before the cursor.
 */
function covers({ sources, since }: CopyProgress, selection: FrameSelection): boolean {
  const hasSources =
    sources === null || selection.sources?.every((source) => sources.includes(source)) === true;
  const hasTimes =
    since === null || (selection.since !== undefined && selection.since >= BigInt(since));
  return hasSources && hasTimes;
}
