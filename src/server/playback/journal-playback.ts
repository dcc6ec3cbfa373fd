/** Plays back all requested frames of a journal in the order of arrival. */
import { crc32 } from "../../common/checksum.ts";
import type { FramesError } from "../../errors.ts";
import type { Playback, PlaybackFrame, PlaybackItem } from "../../protocol/playback/playback.ts";
import type { DeletionCandidate } from "../../store/journal/deletion-log.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import type { JournalTail } from "./journal-tail.ts";
import { frameItem, unavailableItem } from "./playback-items.ts";
import { idBatchSize, matchesRequest, type PlaybackRequest } from "./playback-request.ts";
import type { JournaledFrame } from "./journaled-frame.ts";

/** Rows read from the journal at a time. */
const rowBatchSize = 200;

/** Removed frames that are remembered until the client is told, at about 300 bytes each. */
const maxPassedOver = 10_000;

/** All requested frames, each exactly once. */
export class JournalPlayback implements Playback {
  readonly #tail: JournalTail;
  readonly #request: PlaybackRequest;
  readonly #numbering: string;
  /** The last row examined. */
  #position: number;
  /** The last row to play back; undefined if the client follows. */
  readonly #endPosition: number | undefined;
  #rows: readonly FrameRecord[] = [];
  #next = 0;
  /** Frames that retention removed before `next` returned them, in the order of arrival. */
  readonly #passedOver: DeletionCandidate[] = [];
  /**
   * Sources of encoded video that have begun, if the client asked for frames since a time. A source
   * begins with the key frame before that time.
   */
  readonly #begunSources: Set<string> | undefined;
  /** Pictures that precede the next row, since a decoder needs them. */
  #leadIn: FrameRecord[] = [];
  /** A frame whose file is being replaced. It is looked up again after the replacement. */
  #deferred: PlaybackFrame | undefined;

  constructor(tail: JournalTail, request: PlaybackRequest) {
    this.#tail = tail;
    this.#request = request;
    this.#numbering = tail.reader.property("numbering") ?? "";
    this.#position = this.#startPosition();
    if (!request.follow) this.#endPosition = tail.last;
    if (request.since !== undefined && this.#position === 0) this.#begunSources = new Set();
  }

  /**
   * Returns the position of the client's cursor, or 0 if the cursor does not match this journal.
   */
  #startPosition(): number {
    const [numbering, number, fingerprint] = this.#request.cursor?.split(".") ?? [];
    const id = Number(number);
    const { reader } = this.#tail;
    if (numbering !== this.#numbering || !Number.isSafeInteger(id) || id > reader.lastId())
      return 0;
    const row = reader.findById(id);
    // After a power cut or a repair, another frame may have the row id of a lost one.
    return row !== undefined && rowFingerprint(row) !== fingerprint ? 0 : id;
  }

  /** The last row returned by `next`, or skipped before the next match. */
  get position(): number {
    const row = this.#deferred?.position ?? this.#rows[this.#next]?.id ?? Infinity;
    const next = Math.min(row, this.#passedOver[0]?.id ?? Infinity);
    return Math.min(this.#position, next - 1);
  }

  get isBusy(): boolean {
    if (this.#deferred !== undefined) return false;
    return this.#hasBuffered || this.#position < this.#last;
  }

  /** Whether `next` can return an item without reading the journal. */
  get #hasBuffered(): boolean {
    const [passedOver] = this.#passedOver;
    const isDue = passedOver !== undefined && passedOver.id <= this.#position;
    return isDue || this.#leadIn.length > 0 || this.#next < this.#rows.length;
  }

  get #last(): number {
    return this.#endPosition ?? this.#tail.last;
  }

  get isEnded(): boolean {
    const isDry = this.#deferred === undefined && !this.#hasBuffered;
    return isDry && this.#endPosition !== undefined && this.#position >= this.#endPosition;
  }

  next(): PlaybackItem | undefined {
    if (this.#deferred !== undefined) {
      const deferred = this.#deferred;
      const { reader } = this.#tail;
      if (reader.isBeingReplaced((deferred.frame as JournaledFrame).record)) return undefined;
      this.#deferred = undefined;
      if (reader.findById(deferred.position) !== undefined) return deferred;
    }
    if (this.#next === this.#rows.length) this.#readRows();
    const row = this.#rows[this.#next];
    const [passedOver] = this.#passedOver;
    if (passedOver !== undefined && passedOver.id <= (row?.id ?? this.#position)) {
      this.#passedOver.shift();
      // The file of a row that was read before is missing, so its reading says the same.
      if (passedOver.id !== row?.id) return this.#passedOverItem(passedOver);
    }
    if (row === undefined) return undefined;
    if (row.isKey !== undefined) this.#beginPictures(row);
    const picture = this.#leadIn.shift();
    if (picture !== undefined) return frameItem(this.#tail.files, picture, undefined);
    this.#next++;
    return frameItem(this.#tail.files, row, this.#cursorAfter(row));
  }

  /** Finds the pictures before the requested time that the first picture of a source needs. */
  #beginPictures(row: FrameRecord): void {
    const begun = this.#begunSources;
    if (begun === undefined || begun.has(row.source)) return;
    begun.add(row.source);
    // With too many of them, a player has to wait for the next key frame.
    const group = this.#tail.reader.decodableUpTo(row) ?? [];
    const { since } = this.#request;
    this.#leadIn = group.filter(({ id, captured }) => id < row.id && captured < since!);
  }

  #passedOverItem(frame: DeletionCandidate): PlaybackItem {
    const { id, source: name, session, seq: sequence } = frame;
    const source = { name, session, raw: undefined };
    const cursor = this.#cursorAfter({ ...frame, sequence });
    return { type: "gone", source, position: id, cursor, sequence, name: frame.name };
  }

  #cursorAfter(row: CursorRow): string {
    return `${this.#numbering}.${row.id}.${rowFingerprint(row)}`;
  }

  /**
   * Makes `next` report a frame of the request that retention removed.
   *
   * @returns false if too many of them wait to be reported
   */
  addPassedOver(frame: DeletionCandidate): boolean {
    const { since } = this.#request;
    if (frame.id <= this.position || frame.id > (this.#endPosition ?? Infinity)) return true;
    if (since !== undefined && frame.captured < since) return true;
    if (this.#passedOver.length >= maxPassedOver) return false;
    const index = this.#passedOver.findLastIndex(({ id }) => id <= frame.id);
    if (this.#passedOver[index]?.id !== frame.id) this.#passedOver.splice(index + 1, 0, frame);
    return true;
  }

  /** Reads the next matching rows. */
  #readRows(): void {
    const last = this.#last;
    this.#next = 0;
    this.#rows = [];
    if (this.#position >= last) return;
    const recent = this.#tail.after(this.#position);
    if (recent !== undefined) {
      this.#rows = recent.filter((row) => row.id <= last && matchesRequest(row, this.#request));
      this.#position = last;
      return;
    }
    const { reader } = this.#tail;
    const upTo = Math.min(this.#position + idBatchSize, last);
    this.#rows = reader.between(this.#request, this.#position, upTo, rowBatchSize);
    if (this.#rows.length === rowBatchSize) this.#position = this.#rows.at(-1)!.id;
    // After deletions there may be millions of ids without a row, so skip to the next row.
    else if (this.#rows.length > 0) this.#position = upTo;
    else this.#position = Math.max(upTo, (reader.nextId(upTo) ?? last + 1) - 1);
  }

  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined {
    const { record } = item.frame as JournaledFrame;
    const { reader } = this.#tail;
    if (reader.isBeingReplaced(record)) {
      this.#deferred = item;
      return undefined;
    }
    return unavailableItem(
      item,
      error,
      reader.findByName(record.stream, record.source, record.name),
    );
  }
}

/** Columns of a row that its cursor repeats. */
type CursorRow = Pick<FrameRecord, "id" | "session" | "sequence" | "crc32" | "received">;

/** Distinguishes a row from another one that may reuse its id later. */
function rowFingerprint({ session, sequence, crc32: crc, received }: CursorRow): string {
  return crc32(`${session} ${sequence} ${crc} ${received}`).toString(16);
}
