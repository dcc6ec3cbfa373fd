/** Queues the pictures of one source of encoded video for a client that asks for the latest frames. */
import { closeReadFile } from "../../common/close-file.ts";
import { readPictureHead } from "../../store/directory/file-check.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { pictureKind, type PictureKind } from "../../video/nal-units.ts";
import { PictureGate } from "../../video/picture-gate.ts";
import { codecOf } from "../../video/picture-head.ts";
import type { JournalTail } from "./journal-tail.ts";

/**
 * Pictures in the order of decoding. Those before a newer key frame are dropped, and those that
 * cannot be decoded.
 */
export class PictureQueue {
  readonly #tail: JournalTail;
  readonly #pictures: FrameRecord[] = [];
  readonly #gate = new PictureGate();
  #session: string | undefined;
  /** Number of the last picture that was added. */
  #lastNumber = 0;

  constructor(tail: JournalTail) {
    this.#tail = tail;
  }

  get length(): number {
    return this.#pictures.length;
  }

  shift(): FrameRecord | undefined {
    return this.#pictures.shift();
  }

  /** Removes all pictures. */
  clear(): FrameRecord[] {
    return this.#pictures.splice(0);
  }

  /**
   * Adds a picture that has arrived.
   *
   * @param hasRoom whether one more picture may be queued
   * @returns pictures that are dropped, perhaps this one
   */
  add(row: FrameRecord, hasRoom: boolean): FrameRecord[] {
    if (row.session !== this.#session) return this.#begin(row, hasRoom);
    // A decoder could not use a late picture.
    if (row.sequence <= this.#lastNumber) return [row];
    this.#lastNumber = row.sequence;
    if (row.isKey === true) return this.#addKey(row);
    if (!hasRoom) this.#gate.close();
    if (!hasRoom || !this.#gate.admits(false, () => readKind(this.#tail, row))) return [row];
    this.#pictures.push(row);
    return [];
  }

  #addKey(row: FrameRecord): FrameRecord[] {
    const dropped = this.clear();
    if (dropped.length > 0) this.#gate.restart();
    else this.#gate.admits(true, () => undefined);
    this.#pictures.push(row);
    return dropped;
  }

  /** Begins with the key frame before the first picture of a session. */
  #begin(row: FrameRecord, hasRoom: boolean): FrameRecord[] {
    const dropped = this.clear();
    const group = hasRoom ? this.#tail.reader.decodableUpTo(row) : undefined;
    this.#session = row.session;
    this.#lastNumber = 0;
    if (group === undefined) this.#gate.close();
    else if (group.length > 0) this.#gate.restart();
    // A source without any key frame is sent as it is.
    for (const picture of group?.length === 0 ? [row] : (group ?? [])) {
      if (this.#gate.admits(picture.isKey, () => readKind(this.#tail, picture))) {
        this.#pictures.push(picture);
      }
    }
    this.#lastNumber = row.sequence;
    return group === undefined ? [...dropped, row] : dropped;
  }
}

/** Reads the kind of a picture from its file; undefined if it has none here, or it cannot be read. */
function readKind({ files, fetch }: JournalTail, row: FrameRecord): PictureKind | undefined {
  const codec = codecOf(undefined, row.name);
  if (codec === undefined || fetch !== undefined) return undefined;
  let file: number | undefined;
  try {
    file = files.open(row);
    if (file === undefined) return undefined;
    return pictureKind(readPictureHead(file), codec);
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeReadFile(file);
  }
}
