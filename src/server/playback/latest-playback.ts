/** Plays back only the newest frame of each source, and of encoded video the newest pictures. */
import { FramesError } from "../../errors.ts";
import type { Playback, PlaybackFrame, PlaybackItem } from "../../protocol/playback/playback.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import type { JournalTail } from "./journal-tail.ts";
import { frameItem, sourceInfo, unavailableItem } from "./playback-items.ts";
import { PictureQueue } from "./picture-queue.ts";
import { idBatchSize, matchesRequest, type PlaybackRequest } from "./playback-request.ts";
import type { JournaledFrame } from "./journaled-frame.ts";

/**
 * Limit of queued ranges of dropped frames, over all sources. At the limit, they are sent before
 * more rows are read.
 */
const maxPendingLosses = 1000;

/** Queued pictures of encoded video above which no more are queued, over all sources. */
const maxQueuedPictures = 2000;

/** Look-ups in the journal and in files for encoded video in one turn. */
const lookupsPerRead = 100;

/** Sources whose newest stored frame is read at a time, and kept until it is sent. */
const sourcesPerRead = 100;

/**
 * The newest frame of each source. Older frames that were not sent yet are dropped and reported. Of
 * encoded video, these are the pictures before the newest key frame.
 */
export class LatestPlayback implements Playback {
  readonly #tail: JournalTail;
  readonly #request: PlaybackRequest;
  /** The newest row at the start. */
  readonly #startPosition: number;
  #position: number;
  /** Sources whose newest stored frame is not read yet; undefined after the last. */
  #unreadSources: Iterator<string> | undefined;
  /** Newest unsent frame, or unsent pictures, of each source, in the order of sending. */
  readonly #newestFrames = new Map<string, FrameRecord | PictureQueue>();
  /** Queues of all sources of encoded video. */
  readonly #pictureQueues = new Map<string, PictureQueue>();
  #pictureCount = 0;
  /** Look-ups for encoded video that may be made before more rows are read. */
  #lookupsLeft = 0;
  /** Ranges of dropped frames that are not reported yet. */
  #losses: PlaybackItem[] = [];

  constructor(tail: JournalTail, request: PlaybackRequest) {
    this.#tail = tail;
    this.#request = request;
    this.#startPosition = this.#position = tail.last;
    this.#unreadSources = tail.reader.selectedSources(request);
  }

  get position(): number {
    return Infinity;
  }

  get isBusy(): boolean {
    return this.#unreadSources !== undefined || this.#hasUnreadRows;
  }

  get #hasUnreadRows(): boolean {
    return this.#request.follow && this.#position < this.#tail.last;
  }

  get isEnded(): boolean {
    const isRead = this.#unreadSources === undefined && this.#newestFrames.size === 0;
    return isRead && !this.#request.follow;
  }

  next(): PlaybackItem | undefined {
    if (this.#request.follow && this.#losses.length < maxPendingLosses) this.#readNewRows();
    const loss = this.#losses.shift();
    if (loss !== undefined) return loss;
    // A newer frame may be among the rows that are not read yet.
    if (this.#hasUnreadRows) return undefined;
    if (this.#newestFrames.size === 0) this.#readStored();
    const [first] = this.#newestFrames;
    if (first === undefined) return undefined;
    const [source, newest] = first;
    this.#newestFrames.delete(source);
    const { files } = this.#tail;
    if (!(newest instanceof PictureQueue)) return frameItem(files, newest, undefined);
    this.#pictureCount--;
    const { row, isAfterHole } = newest.shift()!;
    // The other sources have their turn first.
    if (newest.length > 0) this.#newestFrames.set(source, newest);
    const item = frameItem(files, row, undefined);
    return item.type === "frame" ? { ...item, isAfterHole } : item;
  }

  /** Queues a picture of encoded video. Returns the pictures that it makes useless. */
  #addPicture(row: FrameRecord): FrameRecord[] {
    const takeLookups = (count: number) => (this.#lookupsLeft -= count) >= 0;
    const queue = this.#pictureQueues.getOrInsertComputed(row.source, () => {
      return new PictureQueue(this.#tail, takeLookups);
    });
    const before = queue.length;
    const dropped = queue.add(row, this.#pictureCount < maxQueuedPictures);
    this.#pictureCount += queue.length - before;
    if (queue.length > 0) this.#newestFrames.set(row.source, queue);
    else this.#newestFrames.delete(row.source);
    return dropped;
  }

  /** Reads the newest stored frames of the next sources. */
  #readStored(): void {
    this.#lookupsLeft = lookupsPerRead;
    for (let count = 0; count < sourcesPerRead; count++) {
      const next = this.#unreadSources?.next();
      if (next?.done !== false) return void (this.#unreadSources = undefined);
      const frame = this.#tail.reader.newestOf(this.#request, next.value);
      // A frame that arrived since the start is among the new rows.
      if (frame === undefined || (this.#request.follow && frame.id > this.#startPosition)) continue;
      if (frame.isKey === undefined) this.#newestFrames.set(frame.source, frame);
      else {
        this.#addPicture(frame);
        // A group of pictures is sent before the next one is read.
        return;
      }
    }
  }

  /** Reads the next rows, and replaces frames that are not sent yet by newer ones. */
  #readNewRows(): void {
    const last = this.#tail.last;
    if (this.#position >= last) return;
    this.#lookupsLeft = lookupsPerRead;
    const recent = this.#tail.after(this.#position);
    const upTo = recent === undefined ? Math.min(this.#position + idBatchSize, last) : last;
    const { reader } = this.#tail;
    const rows = recent ?? reader.between(this.#request, this.#position, upTo, idBatchSize);
    this.#position = upTo;
    for (const row of rows) {
      if (!matchesRequest(row, this.#request)) continue;
      const previous = this.#newestFrames.get(row.source);
      const isPicture = row.isKey !== undefined;
      if (previous instanceof PictureQueue) {
        if (!isPicture) this.#endPictures(previous);
      } else if (previous !== undefined) this.#recordDropped(previous);
      if (!isPicture) this.#newestFrames.set(row.source, row);
      else for (const picture of this.#addPicture(row)) this.#recordDropped(picture);
    }
  }

  /** Drops the queued pictures of a source that sends other frames now. */
  #endPictures(queue: PictureQueue): void {
    this.#pictureCount -= queue.length;
    for (const picture of queue.clear()) this.#recordDropped(picture);
  }

  /**
   * Records a dropped frame, extending the source's last range if the frame directly follows it.
   */
  #recordDropped(frame: FrameRecord): void {
    const { sequence, source, session } = frame;
    const index = this.#losses.findLastIndex((pending) => pending.source.name === source);
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
      error: new FramesError("dropped", "newer frames arrived before it could be sent"),
    };
    if (isContiguous) this.#losses[index] = loss;
    else this.#losses.push(loss);
  }

  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined {
    const { stream, source, name } = (item.frame as JournaledFrame).record;
    return unavailableItem(item, error, this.#tail.reader.findByName(stream, source, name));
  }
}
