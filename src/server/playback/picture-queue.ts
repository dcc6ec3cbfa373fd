/** Queues the pictures of one source of encoded video for a client that asks for the latest frames. */
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { readKind } from "./decodable-playback.ts";
import type { JournalTail } from "./journal-tail.ts";
import { StoredFrame } from "./stored-frame.ts";

/** Look-ups that take as long as reading a group of pictures. */
const groupCost = 10;

/** Pictures among which a recovery point is looked for: as many as may be looked up at a time. */
const maxLookedBack = 100;

/** Queued pictures from which on the queue goes on at recovery points too: some 2 seconds. */
const maxBacklog = 60;

/** A picture in the queue. */
export interface QueuedPicture {
  readonly row: FrameRecord;
  /** Whether a picture on which it may depend was dropped, or it is the first. */
  readonly isAfterHole: boolean;
}

/**
 * Pictures in the order of decoding. Those before a newer key frame are dropped. If many wait, so are
 * those before a newer recovery point, which streams without key frames have.
 */
export class PictureQueue {
  readonly #tail: JournalTail;
  readonly #takeLookups: (count: number) => boolean;
  readonly #pictures: QueuedPicture[] = [];
  /** Whether a picture was dropped after the last one in the queue. */
  #hasHole = false;
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

  shift(): QueuedPicture | undefined {
    return this.#pictures.shift();
  }

  /** Drops all pictures, and returns them. */
  clear(): FrameRecord[] {
    this.#hasHole ||= this.#pictures.length > 0;
    return this.#pictures.splice(0).map(({ row }) => row);
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
    const isStart = row.isKey === true || this.#isDueAt(row);
    const dropped = isStart ? this.clear() : [];
    if (!isStart && !hasRoom) {
      this.#hasHole = true;
      return [row];
    }
    this.#push(row);
    return dropped;
  }

  #push(row: FrameRecord): void {
    this.#pictures.push({ row, isAfterHole: this.#hasHole });
    this.#hasHole = false;
  }

  /** Whether the queue goes on at a picture, because many wait and it is a recovery point. */
  #isDueAt(row: FrameRecord): boolean {
    return this.length >= maxBacklog && this.#isRecoveryPoint(row);
  }

  /** Whether a picture is known to be a recovery point. That is read from its file. */
  #isRecoveryPoint(row: FrameRecord): boolean {
    const { files, fetch } = this.#tail;
    if (fetch !== undefined || !this.#takeLookups(1)) return false;
    return readKind(new StoredFrame(files, row))?.recoveryCount !== undefined;
  }

  /** Begins with the key frame, or else the recovery point, before the first picture of a session. */
  #begin(row: FrameRecord, hasRoom: boolean): FrameRecord[] {
    const dropped = this.clear();
    this.#session = row.session;
    this.#lastNumber = row.sequence;
    this.#hasHole = true;
    if (row.isKey !== true && !(hasRoom && this.#takeLookups(groupCost))) return [...dropped, row];
    const group = row.isKey === true ? [row] : this.#tail.reader.decodableUpTo(row);
    const hasKey = group !== undefined && group.length > 0;
    const pictures = hasKey ? group : this.#fromRecoveryPoint(row);
    // A source with neither of both is sent as it is.
    if (pictures === undefined && group?.length === 0) this.#hasHole = false;
    for (const picture of pictures ?? [row]) this.#push(picture);
    return dropped;
  }

  /** Returns the pictures from the newest recovery point up to a picture; `undefined` without one. */
  #fromRecoveryPoint(row: FrameRecord): FrameRecord[] | undefined {
    const sequence = row.sequence - maxLookedBack;
    const pictures = this.#tail.reader.picturesAfter({ ...row, sequence }, maxLookedBack);
    const index = pictures.findLastIndex((picture) => this.#isRecoveryPoint(picture));
    return index < 0 ? undefined : pictures.slice(index);
  }
}
