/**
 * Copy of one stream of another store. Its directory has no folder for the stream, and its journal
 * has the cursor of the copy.
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { usageError } from "../../errors.ts";
import type { ReceiveTarget, SourceInfo, SourceStore } from "../../frame.ts";
import type { FrameSelection } from "../journal/journal-reader.ts";
import { journalPath } from "../journal/schema.ts";
import { readCopyOf } from "./copied-stream.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./directory-store.ts";

/** Progress of a copy, and the selection for which it is valid. */
interface CopyProgress {
  readonly cursor: string;
  readonly sources: readonly string[] | null;
  /** Earliest capture time copied, in nanoseconds since 1970. Null for all times. */
  readonly since: string | null;
}

/**
 * Stores the received frames of one stream in a directory. A new copy is made only when there is
 * something to receive, so that a wrong stream or server leaves nothing behind.
 */
export class StreamCopy implements ReceiveTarget {
  readonly isPersistent = true;
  readonly isDurable = false;
  readonly isFull = false;
  readonly #directory: string;
  readonly #selection: FrameSelection;
  /** Whether the server sends the whole selection. */
  readonly #isComplete: boolean;
  #store: DirectoryStore | undefined;
  /** Whether new cursors are saved. False if they cover less than the saved one. */
  #savesCursor = false;
  /** Selection for which the saved cursor is valid. */
  #progress: Omit<CopyProgress, "cursor"> = { sources: null, since: null };
  #cursor: string | undefined;
  #failure: unknown;
  /** The store that the server serves, until the copy is opened. */
  #origin: { readonly identity: string | undefined; readonly location: string } | undefined;

  /**
   * Opens the copy if it exists.
   *
   * @param selection frames of the stream to copy
   * @param isComplete whether the server sends the whole selection, so that a later run can resume
   * @throws {FramesError} `usage` if the directory holds something else, or as `DirectoryStore`
   */
  constructor(directory: string, selection: FrameSelection, isComplete: boolean) {
    this.#directory = directory;
    this.#selection = selection;
    this.#isComplete = isComplete;
    if (existsSync(journalPath(directory))) this.#open();
  }

  /** @throws {FramesError} as the constructor */
  #open(): DirectoryStore {
    if (this.#store !== undefined) return this.#store;
    const selection = this.#selection;
    let store: DirectoryStore;
    try {
      store = new DirectoryStore(this.#directory, {
        portableNames: systemNeedsPortableNames,
        copy: { stream: selection.stream },
        clock: Date.now,
      });
    } catch (error) {
      this.#failure = error;
      throw error;
    }
    this.#store = store;
    const text = store.journal.property("cursor");
    const saved = text === undefined ? undefined : (JSON.parse(text) as CopyProgress);
    const isCovered = saved !== undefined && covers(saved, selection);
    if (isCovered) this.#cursor = saved.cursor;
    const sources = selection.sources === undefined ? null : [...selection.sources].toSorted();
    const isSame = isCovered && JSON.stringify(saved.sources) === JSON.stringify(sources);
    this.#savesCursor = this.#isComplete && (isSame || !isCovered);
    const since = selection.since === undefined ? null : String(selection.since);
    // A saved cursor covers all frames since the earlier time, so that time stays valid.
    this.#progress = { sources, since: isSame ? saved.since : since };
    return store;
  }

  get cursor(): string | undefined {
    return this.#cursor;
  }

  get location(): string {
    return resolve(this.#directory);
  }

  get failure(): unknown {
    return this.#failure;
  }

  onConnected(identity: string | undefined, location: string, hasFrames: boolean): void {
    this.#origin = { identity, location };
    if (hasFrames || this.#store !== undefined) this.#openCopy();
  }

  /**
   * Opens the copy, and checks that it is one of the server's store.
   *
   * @throws {FramesError} as the constructor
   */
  #openCopy(): DirectoryStore {
    const store = this.#open();
    if (this.#origin === undefined) return store;
    const { identity, location } = this.#origin;
    this.#origin = undefined;
    const { journal } = store;
    const copyOf = readCopyOf(journal)!;
    if (copyOf.identity === undefined) {
      if (identity === undefined) return store;
      journal.setProperty("copy", JSON.stringify({ ...copyOf, identity, from: location }));
      journal.flush();
      return store;
    }
    if (identity === copyOf.identity) return store;
    throw usageError(
      `Cannot receive into ${this.location}: it is a copy of ${copyOf.stream} from another store, ${copyOf.from}; choose another directory`,
    );
  }

  checkSources(): void {}

  onCursor(cursor: string): () => void {
    return () => {
      this.#cursor = cursor;
      if (this.#store === undefined || !this.#savesCursor) return;
      this.#store.journal.setProperty("cursor", JSON.stringify({ ...this.#progress, cursor }));
    };
  }

  isStreamEmpty(stream: string): boolean {
    return this.#openCopy().isStreamEmpty(stream);
  }

  checkNames(stream: string, source: string): void {
    this.#openCopy().checkNames(stream, source);
  }

  open(origin: SourceInfo): SourceStore {
    return this.#openCopy().open(origin);
  }

  flush(): void | Promise<void> {
    return this.#store?.flush();
  }

  close(): void {
    this.#store?.close();
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
