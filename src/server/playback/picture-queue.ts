/** Queues the pictures of one source of encoded video for a client that asks for the latest frames. */
import { closeReadFile } from "../../common/close-file.ts";
import { readPictureHead } from "../../store/directory/file-check.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { pictureKind, type PictureKind } from "../../video/nal-units.ts";
import { PictureGate } from "../../video/picture-gate.ts";
import { codecOf } from "../../video/picture-head.ts";
import type { JournalTail } from "./journal-tail.ts";

/** Look-ups that take as long as reading a group of pictures. */
const groupCost = 10;

/**
 * Pictures in the order of decoding. Those before a newer key frame are dropped, and those that
 * cannot be decoded.
 */
export class PictureQueue {
  readonly #tail: JournalTail;
  readonly #takeLookups: (count: number) => boolean;
  readonly #pictures: FrameRecord[] = [];
  readonly #gate = new PictureGate();
  #session: string | undefined;
  /** Number of the last picture that was added. */
  #lastNumber = 0;

  /** @param takeLookups returns whether as much as by this number of look-ups may be read now */
  constructor(tail: JournalTail, takeLookups: (count: number) => boolean) {
    this.#tail = tail;
    this.#takeLookups = takeLookups;
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
    if (!hasRoom || !this.#gate.admits(false, () => this.#readKind(row))) return [row];
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
    const group = this.#groupUpTo(row, hasRoom);
    this.#session = row.session;
    this.#lastNumber = 0;
    if (group === undefined) this.#gate.close();
    else if (group.length > 0) this.#gate.restart();
    // A source without any key frame is sent as it is.
    for (const picture of group?.length === 0 ? [row] : (group ?? [])) {
      if (this.#gate.admits(picture.isKey, () => this.#readKind(picture))) {
        this.#pictures.push(picture);
      }
    }
    this.#lastNumber = row.sequence;
    return group === undefined ? [...dropped, row] : dropped;
  }

  /** Returns what a decoder needs for a picture; `undefined` if that is too much. */
  #groupUpTo(row: FrameRecord, hasRoom: boolean): FrameRecord[] | undefined {
    if (row.isKey === true) return [row];
    const mayRead = hasRoom && this.#takeLookups(groupCost);
    return mayRead ? this.#tail.reader.decodableUpTo(row) : undefined;
  }

  /** Reads the kind of a picture from its file; `undefined` if that is not possible. */
  #readKind(row: FrameRecord): PictureKind | undefined {
    const { files, fetch } = this.#tail;
    const codec = codecOf(undefined, row.name);
    if (codec === undefined || fetch !== undefined || !this.#takeLookups(1)) return undefined;
    let file: number | undefined;
    try {
      file = files.open(row);
      return file === undefined ? undefined : pictureKind(readPictureHead(file), codec);
    } catch {
      return undefined;
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
  }
}
