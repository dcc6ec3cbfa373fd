/** Plays back only the newest frame of each source. */
import { FramesError } from "../../errors.ts";
import type { Playback, PlaybackFrame, PlaybackItem } from "../../protocol/playback/playback.ts";
import type { FrameRecord } from "../../store/journal/catalog.ts";
import type { JournalTail } from "./journal-tail.ts";
import { frameItem, sourceInfo, unavailableItem } from "./playback-items.ts";
import { idBatchSize, matchesRequest, type PlaybackRequest } from "./playback-request.ts";
import type { StoredFrame } from "./stored-frame.ts";

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
