/** Read side of a store: its journal, the bytes of its frames, and its free space. */
import type { FramePath } from "./paths.ts";

/** Reads a store in a directory or a bucket. */
export interface StoreContents {
  /** Path or address of the store, for messages. */
  readonly location: string;
  /** Path of a journal with a row for each stored frame, to be opened by `JournalReader`. */
  readonly journalPath: string;
  /** Sets the one listener for removed rows, or removes it if undefined. */
  setJournalListener(listener: JournalListener | undefined): void;
  /**
   * Returns the bytes of a frame. A directory returns undefined if the file is missing, has another
   * size, or is reached through a link. A bucket reads only when the blob is read.
   */
  blob(frame: FrameLocation): Blob | undefined;
  /**
   * Fetches the bytes of a frame from a remote store. Resolves to undefined if the frame is missing
   * and rejects with `store`. A local store has no such method.
   */
  readonly fetch?: (frame: FrameLocation) => Promise<Response | undefined>;
  /** Returns the space of the disk, or undefined if the store has no known limit. */
  diskSpace(): DiskSpace | undefined;
  /**
   * Checks that frames can be stored now.
   *
   * @throws {FramesError} `store`
   */
  checkReady(): void;
}

/** Path and size of a stored frame. */
export interface FrameLocation extends FramePath {
  /** Size in bytes. */
  readonly size: number;
}

/** Space of a disk, in bytes. */
export interface DiskSpace {
  /** Bytes that a process without privileges may still write. */
  readonly free: number;
  /** Size of the disk. 0 if the file system does not report it. */
  readonly total: number;
  /** Files and folders that can still be created. Undefined if the file system has no limit. */
  readonly freeInodes?: number | undefined;
}

/** A frame whose row was removed from the journal. */
export interface RemovedFrameInfo {
  /** Id of the row. Ids rise in order of arrival. */
  readonly id: number;
  readonly stream: string;
  readonly source: string;
  readonly bytes: number;
}

/**
 * Called for each row that a commit removed, before another connection can read. It keeps totals in
 * step with the journal.
 */
export type JournalListener = (frame: RemovedFrameInfo) => void;
