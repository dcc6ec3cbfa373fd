/** What a store gives back: its journal to read, the bytes of frames, and what room it has. */
import { lstatSync, statSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../errors.ts";
import { Catalog, type KeptFrame } from "./catalog.ts";
import type { Journal, JournalFollower } from "./journal.ts";
import type { DiskSpace, Room } from "./room.ts";
import { journalPath } from "./schema.ts";
import { pathOfFrame } from "./tree.ts";

/** What is given back out of a store: of a directory, or of a bucket. */
export interface KeptFrames {
  /** For people: where the frames lie. */
  readonly place: string;
  /**
   * Opens the journal for reading; whoever opens it closes it.
   *
   * @throws {FramesError} `store`
   */
  openCatalog(): Catalog;
  /** Has somebody told of rows that are gone, from now on: one at a time. */
  follow(follower: JournalFollower | undefined): void;
  /** The bytes of a frame, or nothing if it is not there any more, or something else is in its place. */
  bytesOf(frame: StoredUnder): Blob | undefined;
  /**
   * Where frames are far away: the answer with a frame's bytes, or nothing if it is not there. It is rejected
   * with `store`.
   */
  readonly fetch?: (frame: StoredUnder) => Promise<Response | undefined>;
  /** Space of where the frames lie, if it has an end. */
  space(): DiskSpace | undefined;
  /**
   * Makes sure that frames can be stored now.
   *
   * @throws {FramesError} `store`
   */
  checkReady(): void;
}

/** Where a frame lies. */
export type StoredUnder = Pick<KeptFrame, "stream" | "source" | "name" | "size">;

/** Frames in a directory. */
export class KeptDirectory implements KeptFrames {
  readonly place: string;
  readonly #room: Room;
  readonly #journal: Journal;

  constructor(place: string, room: Room, journal: Journal) {
    this.place = place;
    this.#room = room;
    this.#journal = journal;
  }

  follow(follower: JournalFollower | undefined): void {
    this.#journal.follower = follower;
  }

  openCatalog(): Catalog {
    return new Catalog(journalPath(this.place));
  }

  /** No link is followed, neither in its place nor on the way: it would lead out of the store. */
  bytesOf({ stream, source, name, size }: StoredUnder): Blob | undefined {
    const parts = pathOfFrame(stream, source, name).split("/");
    let path = this.place;
    for (const [index, part] of parts.entries()) {
      path = join(path, part);
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined) return undefined;
      const isLast = index === parts.length - 1;
      if (isLast ? !found.isFile() || found.size !== size : !found.isDirectory()) return undefined;
    }
    return Bun.file(path);
  }

  space(): DiskSpace | undefined {
    const space = this.#room.space();
    return space.total === 0 ? undefined : space;
  }

  checkReady(): void {
    if (statSync(journalPath(this.place), { throwIfNoEntry: false }) === undefined) {
      throw new FramesError("store", `The store ${this.place} was removed while it was served`);
    }
    this.#room.look();
  }
}
