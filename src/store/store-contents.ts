/** What a store gives back: its journal to read, the bytes of frames, and what room it has. */
import type { Catalog, FrameRecord } from "./journal/catalog.ts";
import type { JournalListener } from "./journal/journal.ts";
import type { DiskSpace } from "./directory/free-space.ts";

/** What is given back out of a store: of a directory, or of a bucket. */
export interface StoreContents {
  /** For people: where the frames lie. */
  readonly location: string;
  /**
   * Opens the journal for reading; whoever opens it closes it.
   *
   * @throws {FramesError} `store`
   */
  openCatalog(): Catalog;
  /** Has somebody told of rows that are gone, from now on: one at a time. */
  setJournalListener(listener: JournalListener | undefined): void;
  /** The bytes of a frame, or nothing if it is not there any more, or something else is in its place. */
  blob(frame: FrameLocation): Blob | undefined;
  /**
   * Where frames are far away: the answer with a frame's bytes, or nothing if it is not there. It is rejected
   * with `store`.
   */
  readonly fetch?: (frame: FrameLocation) => Promise<Response | undefined>;
  /** Space of where the frames lie, if it has an end. */
  diskSpace(): DiskSpace | undefined;
  /**
   * Makes sure that frames can be stored now.
   *
   * @throws {FramesError} `store`
   */
  checkReady(): void;
}

/** Where a frame lies. */
export type FrameLocation = Pick<FrameRecord, "stream" | "source" | "name" | "size">;
