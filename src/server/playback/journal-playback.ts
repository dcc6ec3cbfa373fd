/** What a client that receives is to get of a journal, in the order of arrival. */
import { crc32 } from "node:zlib";
import { FramesError } from "../../errors.ts";
import type {
  PlaybackSource,
  PlaybackItem,
  PlaybackFrame,
  Playback,
} from "../../protocol/playback/playback.ts";
import type { FrameRecord, FrameSelection } from "../../store/journal/catalog.ts";
import type { JournalTail } from "./journal-tail.ts";
import { StoredFrame } from "./stored-frame.ts";

/** Rows that are taken from the journal at a time, and numbers of rows that are looked through for them. */
const rowBatchSize = 200;
const idBatchSize = 5000;

/** What a client asked for. */
export interface PlaybackRequest extends FrameSelection {
  /** Where it goes on, in the words of `cursorOf`. */
  readonly cursor?: string | undefined;
  /** Whether it waits for what arrives. */
  readonly follow: boolean;
}

/** Everything that was asked for, without a hole and without a double. */
export class JournalPlayback implements Playback {
  readonly #tail: JournalTail;
  readonly #request: PlaybackRequest;
  readonly #numbering: string;
  /** The last row that was looked at. */
  #position: number;
  /** The last row that there is to be; nothing while there may be more. */
  readonly #endPosition: number | undefined;
  #rows: readonly FrameRecord[] = [];
  #next = 0;
  /** A frame that another is about to replace: it is looked at again when that is over. */
  #deferred: PlaybackFrame | undefined;

  constructor(tail: JournalTail, request: PlaybackRequest) {
    this.#tail = tail;
    this.#request = request;
    this.#numbering = tail.catalog.property("numbering") ?? "";
    this.#position = this.#startPosition();
    if (!request.follow) this.#endPosition = tail.last;
  }

  /** Where a cursor stands; the beginning where it says nothing of the journal as it is. */
  #startPosition(): number {
    const [numbering, number, fingerprint] = this.#request.cursor?.split(".") ?? [];
    const id = Number(number);
    const { catalog } = this.#tail;
    if (numbering !== this.#numbering || !Number.isSafeInteger(id) || id > catalog.lastId())
      return 0;
    const row = catalog.findById(id);
    // What was lost in a power cut, or set aside by a repair, made room for others under its number.
    return row !== undefined && rowFingerprint(row) !== fingerprint ? 0 : id;
  }

  /** The last row that was given out, or passed over before that. */
  get position(): number {
    const next = this.#deferred?.position ?? this.#rows[this.#next]?.id;
    return next === undefined ? this.#position : next - 1;
  }

  get isBusy(): boolean {
    if (this.#deferred !== undefined) return false;
    return this.#next < this.#rows.length || this.#position < this.#last;
  }

  get #last(): number {
    return this.#endPosition ?? this.#tail.last;
  }

  get isEnded(): boolean {
    const isDry = this.#deferred === undefined && this.#next === this.#rows.length;
    return isDry && this.#endPosition !== undefined && this.#position >= this.#endPosition;
  }

  next(): PlaybackItem | undefined {
    if (this.#deferred !== undefined) {
      const deferred = this.#deferred;
      const { catalog } = this.#tail;
      if (catalog.isBeingReplaced((deferred.frame as StoredFrame).record)) return undefined;
      this.#deferred = undefined;
      if (catalog.findById(deferred.position) !== undefined) return deferred;
    }
    if (this.#next === this.#rows.length) this.#readRows();
    const row = this.#rows[this.#next];
    if (row === undefined) return undefined;
    this.#next++;
    return frameItem(
      this.#tail.location,
      row,
      `${this.#numbering}.${row.id}.${rowFingerprint(row)}`,
    );
  }

  unshift(): void {
    this.#next--;
  }

  /** Looks through the next rows. */
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
    const { catalog } = this.#tail;
    const upTo = Math.min(this.#position + idBatchSize, last);
    this.#rows = catalog.between(this.#request, this.#position, upTo, rowBatchSize);
    if (this.#rows.length === rowBatchSize) this.#position = this.#rows.at(-1)!.id;
    // Of what was removed there may be millions of numbers without a row.
    else if (this.#rows.length > 0) this.#position = upTo;
    else this.#position = Math.max(upTo, (catalog.nextId(upTo) ?? last + 1) - 1);
  }

  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined {
    const { record } = item.frame as StoredFrame;
    const { catalog } = this.#tail;
    if (catalog.isBeingReplaced(record)) {
      this.#deferred = item;
      return undefined;
    }
    return unavailableItem(
      item,
      error,
      catalog.findByName(record.stream, record.source, record.name),
    );
  }
}

/** Ranges of frames that were passed over, of all sources: more are told before anything else is looked at. */
const maxPendingLosses = 1000;

/** The newest frame of each source: what came before it in the meantime is passed over. */
export class LatestPlayback implements Playback {
  readonly #tail: JournalTail;
  readonly #request: PlaybackRequest;
  #position: number;
  /** The newest frame of each source that has one; whose turn it is comes first. */
  readonly #newestFrames = new Map<string, FrameRecord>();
  /** What was passed over and is to be told. */
  #losses: PlaybackItem[] = [];

  constructor(tail: JournalTail, request: PlaybackRequest) {
    this.#tail = tail;
    this.#request = request;
    this.#position = tail.last;
    for (const frame of tail.catalog.newestOfEach(request))
      this.#newestFrames.set(frame.source, frame);
  }

  get position(): number {
    return Infinity;
  }

  get isBusy(): boolean {
    return this.#request.follow && this.#position < this.#tail.last;
  }

  get isEnded(): boolean {
    return !this.#request.follow && this.#newestFrames.size === 0;
  }

  next(): PlaybackItem | undefined {
    if (this.#request.follow && this.#losses.length < maxPendingLosses) this.#readNewRows();
    const loss = this.#losses.shift();
    if (loss !== undefined) return loss;
    // What there is now may not be the newest.
    if (this.isBusy) return undefined;
    const [first] = this.#newestFrames;
    if (first === undefined) return undefined;
    const [source, frame] = first;
    this.#newestFrames.delete(source);
    return frameItem(this.#tail.location, frame, undefined);
  }

  unshift(item: PlaybackItem): void {
    this.#losses.unshift(item);
  }

  /** Looks through some of what came. */
  #readNewRows(): void {
    const last = this.#tail.last;
    if (this.#position >= last) return;
    const recent = this.#tail.after(this.#position);
    const upTo = recent === undefined ? Math.min(this.#position + idBatchSize, last) : last;
    const { catalog } = this.#tail;
    const rows = recent ?? catalog.between(this.#request, this.#position, upTo, idBatchSize);
    this.#position = upTo;
    for (const row of rows) {
      if (!matchesRequest(row, this.#request)) continue;
      const previous = this.#newestFrames.get(row.source);
      if (previous !== undefined) this.#recordDropped(previous);
      this.#newestFrames.set(row.source, row);
    }
  }

  /** A frame is passed over: it joins the range before it, if it follows that. */
  #recordDropped(frame: FrameRecord): void {
    const { sequence, source, session } = frame;
    const index = this.#losses.findLastIndex(({ source: origin }) => origin.name === source);
    const range = this.#losses[index];
    const isContiguous =
      range?.type === "lost" && range.source.session === session && range.last === sequence - 1;
    const loss: PlaybackItem = {
      type: "lost",
      source: sourceInfo(frame),
      position: frame.id,
      cursor: undefined,
      first: isContiguous ? range.first : sequence,
      last: sequence,
      error: new FramesError("dropped", "newer frames came before it could be sent"),
    };
    if (isContiguous) this.#losses[index] = loss;
    else this.#losses.push(loss);
  }

  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined {
    const { stream, source, name } = (item.frame as StoredFrame).record;
    return unavailableItem(item, error, this.#tail.catalog.findByName(stream, source, name));
  }
}

/** Whether a row is one that was asked for. */
function matchesRequest(row: FrameRecord, { stream, sources, since }: PlaybackRequest): boolean {
  return (
    row.stream === stream &&
    (sources === undefined || sources.includes(row.source)) &&
    (since === undefined || row.captured >= since)
  );
}

/** Tells a row from another one that may have its number later. */
function rowFingerprint({ session, sequence, crc32: crc, received }: FrameRecord): string {
  return crc32(`${session} ${sequence} ${crc} ${received}`).toString(16);
}

function sourceInfo({ source, session, raw }: FrameRecord): PlaybackSource {
  return { name: source, session, raw };
}

function frameItem(
  location: string,
  record: FrameRecord,
  cursor: string | undefined,
): PlaybackFrame {
  const frame = new StoredFrame(location, record);
  return { type: "frame", source: sourceInfo(record), position: record.id, cursor, frame };
}

/**
 * What is said of a frame that could not be read.
 *
 * @param current what has its name in the journal now
 */
function unavailableItem(
  item: PlaybackFrame,
  error: FramesError,
  current: FrameRecord | undefined,
): PlaybackItem | undefined {
  const { source: origin, position, cursor, frame } = item;
  const { sequence, name } = frame;
  // Another has taken its place, and comes later.
  if (current !== undefined && current.id !== position) return undefined;
  if (error.code === "vanished" || current === undefined) {
    return { type: "gone", source: origin, position, cursor, sequence, name };
  }
  return { type: "lost", source: origin, position, cursor, first: sequence, last: sequence, error };
}
