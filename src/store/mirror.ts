/**
 * What this node knows of a bucket's journal: a journal of SQLite in a folder of its own, with the rows in the
 * order in which it heard of them. Nothing depends on it: the bucket has everything, and the next start reads
 * it again.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { asFramesError, FramesError } from "../errors.ts";
import type { FrameOrigin } from "../frame.ts";
import { Journal, type JournalFollower, type KnownFrame, type StoredFrame } from "./journal.ts";
import type { Entry, Told } from "./link.ts";
import { StoreLock } from "./lock.ts";
import { type FrameRow, journalPath } from "./schema.ts";

/** A frame of which the journal says two things. */
export interface Contested {
  readonly row: FrameRow;
  readonly etag: string;
}

export class Mirror {
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
  constructor(identity: string, below: string = tmpdir()) {
    removeLeft(below);
    [this.folder, this.#lock] = makeFolder(below);
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
  lastOf(session: string): number {
    return this.#sessions.get(session)?.last ?? 0;
  }

  /** Name of the key that a session's frames came with; nothing if that is not known. */
  keyOf(session: string): string | null | undefined {
    return this.#sessions.get(session)?.key;
  }

  #note({ header: { session, last }, entry }: Told): void {
    const known = this.#sessions.get(session);
    if (known === undefined) this.#sessions.set(session, { last, key: entry?.origin.key });
    else {
      if (last > known.last) known.last = last;
      known.key ??= entry?.origin.key;
    }
  }

  /**
   * Takes what links and segments say.
   *
   * @returns the frames that have other bytes here
   */
  apply(told: readonly Told[]): Contested[] {
    const contested: Contested[] = [];
    for (const one of told) {
      this.#note(one);
      const { entry } = one;
      if (entry === undefined) continue;
      const { session } = one.header;
      const { stream, source } = entry.origin;
      const numbering = { stream, source, session };
      if (entry.kind === "loss") {
        this.#journal.addLoss(numbering, entry.first, entry.last, entry.reason, entry.at);
      } else if (entry.kind === "account") {
        this.#journal.account(numbering, entry.first, entry.last, entry.at);
      } else {
        const row = rowOf(session, entry);
        const stored = this.#journal.find(stream, source, row.name);
        this.#version++;
        if (stored === null) this.#journal.addFrame(row);
        else if (stored.bytes !== row.bytes || stored.crc32 !== row.crc32) {
          contested.push({ row, etag: entry.etag });
        } else if (stored.session !== session || stored.seq !== row.seq) {
          this.#journal.account(numbering, row.seq, row.seq, row.received);
        }
      }
    }
    return contested;
  }

  /** The frame has the place of the one that had its name. */
  replace(row: FrameRow): void {
    this.#journal.endReplacement({ row, partial: "" }, true);
  }

  /** Has somebody told of rows that are gone. */
  follow(follower: JournalFollower | undefined): void {
    this.#journal.follower = follower;
  }

  /** Makes what was taken to be seen by others. */
  flush(): void {
    this.#journal.flush();
  }

  find(stream: string, source: string, name: string): StoredFrame | null {
    return this.#journal.find(stream, source, name);
  }

  findOffered(stream: string, source: string, name: string, captured: bigint): KnownFrame | null {
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

const folderName = "frames-bucket-";

/** Makes a folder, and takes the lock on it; another process that tidies up may just be quicker. */
function makeFolder(below: string): [folder: string, lock: StoreLock] {
  for (let tries = 1; ; tries++) {
    try {
      const folder = mkdtempSync(join(below, folderName));
      return [folder, new StoreLock(folder)];
    } catch (error) {
      if (tries < mostFolders) continue;
      throw asFramesError(error, "store", `Cannot keep a mirror of the journal in ${below}`);
    }
  }
}

const mostFolders = 20;

/** Removes the mirrors of processes that were killed: nobody holds their locks. */
function removeLeft(below: string): void {
  try {
    for (const name of readdirSync(below)) {
      if (name.startsWith(folderName)) removeIfLeft(join(below, name));
    }
  } catch {
    // A folder that cannot be read has nothing of ours.
  }
}

function removeIfLeft(folder: string): void {
  try {
    new StoreLock(folder).release();
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // It is in use, or another user's.
  }
}

/** The row of a frame in the journal. */
export function rowOf(session: string, entry: Entry & { kind: "frame" }): FrameRow {
  const { origin, kind: _, etag: __, ...row } = entry;
  return { ...row, ...origin, session };
}

/** What the entries of a session say of whose they are. */
export function originOf({ stream, source, key, raw }: FrameOrigin) {
  const format = raw === undefined ? null : `${raw.width}x${raw.height}.${raw.format}`;
  return { stream, source, key: key ?? null, format };
}

/** @throws {FramesError} `bad-name` if no row can hold such a time */
export function checkTime(captured: bigint): void {
  if (BigInt.asIntN(64, captured) === captured) return;
  throw new FramesError("not-stored", `No journal can hold the capture time ${captured}`);
}
