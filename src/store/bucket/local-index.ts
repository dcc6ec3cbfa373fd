/**
 * What this node knows of a bucket's journal: a journal of SQLite in a folder of its own, with the rows in the
 * order in which it heard of them. Nothing depends on it: the bucket has everything, and the next start reads
 * it again.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { asFramesError, FramesError } from "../../errors.ts";
import type { SourceInfo } from "../../frame.ts";
import type { OfferedFrameInfo, StoredFrameInfo } from "../conflict.ts";
import { Journal } from "../journal/journal.ts";
import type { LogEntry, DecodedEntry } from "./log-format.ts";
import { StoreLock } from "../lock.ts";
import type { JournalListener } from "../store-contents.ts";
import { type FrameRow, journalPath } from "../journal/schema.ts";

/** A frame of which the journal says two things. */
export interface Conflict {
  readonly row: FrameRow;
  readonly etag: string;
}

export class LocalIndex {
  /** Path of the journal, for whoever reads it beside this process. */
  readonly path: string;
  /** Where it lies as in a store, without its frames. */
  readonly folder: string;
  readonly #lock: StoreLock;
  readonly #journal: Journal;
  #version = 0;
  /** The last link of each session's chain that is known, and the key that its frames came with. */
  readonly #sessions = new Map<string, { last: number; key: string | null | undefined }>();

  /**
   * @param identity tells the store from others
   * @throws {FramesError} `store` if there is no room for it
   */
  constructor(identity: string, parentFolder: string = tmpdir()) {
    removeStale(parentFolder);
    [this.folder, this.#lock] = makeFolder(parentFolder);
    this.path = journalPath(this.folder);
    mkdirSync(dirname(this.path));
    this.#journal = new Journal(this.path);
    this.#journal.setProperty("identity", identity);
    this.#journal.flush();
  }

  /** Rises with each row. */
  get version(): number {
    return this.#version;
  }

  /** Number of the last link of a session's chain; 0 if there is none. */
  lastNumber(session: string): number {
    return this.#sessions.get(session)?.last ?? 0;
  }

  /** Name of the key that a session's frames came with; nothing if that is not known. */
  keyName(session: string): string | null | undefined {
    return this.#sessions.get(session)?.key;
  }

  #updateSession({ header: { session, last }, entry }: DecodedEntry): void {
    const known = this.#sessions.get(session);
    if (known === undefined) this.#sessions.set(session, { last, key: entry?.logSource.key });
    else {
      if (last > known.last) known.last = last;
      known.key ??= entry?.logSource.key;
    }
  }

  /**
   * Takes what links and segments say.
   *
   * @returns the frames that have other bytes here
   */
  apply(decoded: readonly DecodedEntry[]): Conflict[] {
    const conflicts: Conflict[] = [];
    for (const item of decoded) {
      this.#updateSession(item);
      const { entry } = item;
      if (entry === undefined) continue;
      const { session } = item.header;
      const { stream, source } = entry.logSource;
      const sourceSession = { stream, source, session };
      if (entry.kind === "loss") {
        this.#journal.addLoss(sourceSession, entry.first, entry.last, entry.reason, entry.at);
      } else if (entry.kind === "account") {
        this.#journal.markAccounted(sourceSession, entry.first, entry.last, entry.at);
      } else {
        const row = toFrameRow(session, entry);
        const stored = this.#journal.find(stream, source, row.name);
        this.#version++;
        if (stored === null) this.#journal.addFrame(row);
        else if (stored.bytes !== row.bytes || stored.crc32 !== row.crc32) {
          conflicts.push({ row, etag: entry.etag });
        } else if (stored.session !== session || stored.seq !== row.seq) {
          this.#journal.markAccounted(sourceSession, row.seq, row.seq, row.received);
        }
      }
    }
    return conflicts;
  }

  /** The frame has the place of the one that had its name. */
  replace(row: FrameRow): void {
    this.#journal.endReplacement({ row, partial: "" }, true);
  }

  /** Has somebody told of rows that are gone. */
  setListener(listener: JournalListener | undefined): void {
    this.#journal.listener = listener;
  }

  /** Makes what was taken to be seen by others. */
  flush(): void {
    this.#journal.flush();
  }

  find(stream: string, source: string, name: string): StoredFrameInfo | null {
    return this.#journal.find(stream, source, name);
  }

  findOffered(
    stream: string,
    source: string,
    name: string,
    captured: bigint,
  ): OfferedFrameInfo | null {
    return this.#journal.findOffered(stream, source, name, captured);
  }

  hasStream(stream: string): boolean {
    return this.#journal.hasStream(stream);
  }

  /** Reads many rows as one. */
  read<T>(act: () => T): T {
    return this.#journal.read(act);
  }

  /** Removes it. */
  close(): void {
    try {
      this.#journal.close();
    } finally {
      this.#lock.release();
      rmSync(this.folder, { recursive: true, force: true });
    }
  }
}

const folderPrefix = "frames-bucket-";

/** Makes a folder, and takes the lock on it; another process that tidies up may just be quicker. */
function makeFolder(parentFolder: string): [folder: string, lock: StoreLock] {
  for (let attempt = 1; ; attempt++) {
    try {
      const folder = mkdtempSync(join(parentFolder, folderPrefix));
      return [folder, new StoreLock(folder)];
    } catch (error) {
      if (attempt < maxFolderAttempts) continue;
      throw asFramesError(error, "store", `Cannot keep a mirror of the journal in ${parentFolder}`);
    }
  }
}

const maxFolderAttempts = 20;

/** Removes the mirrors of processes that were killed: nobody holds their locks. */
function removeStale(parentFolder: string): void {
  try {
    for (const name of readdirSync(parentFolder)) {
      if (name.startsWith(folderPrefix)) removeIfStale(join(parentFolder, name));
    }
  } catch {
    // A folder that cannot be read has nothing of ours.
  }
}

function removeIfStale(folder: string): void {
  try {
    new StoreLock(folder).release();
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // It is in use, or another user's.
  }
}

/** The row of a frame in the journal. */
export function toFrameRow(session: string, entry: LogEntry & { kind: "frame" }): FrameRow {
  const { logSource, kind: _, etag: __, ...row } = entry;
  return { ...row, ...logSource, session };
}

/** What the entries of a session say of whose they are. */
export function toLogSource({ stream, source, key, raw }: SourceInfo) {
  const format = raw === undefined ? null : `${raw.width}x${raw.height}.${raw.format}`;
  return { stream, source, key: key ?? null, format };
}

/** @throws {FramesError} `bad-name` if no row can hold such a time */
export function checkCaptureTime(captured: bigint): void {
  if (BigInt.asIntN(64, captured) === captured) return;
  throw new FramesError("not-stored", `No journal can hold the capture time ${captured}`);
}
