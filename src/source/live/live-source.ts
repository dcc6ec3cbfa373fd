/** A source of live frames, with a queue that drops or spools frames when it is full. */
import { FramesError } from "../../errors.ts";
import { PictureGate } from "../../video/picture-gate.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../../frame.ts";
import {
  type Capture,
  closeIterator,
  toFrame,
  toIterator,
  type CaptureSettings,
} from "./iterable-source.ts";
import type { QueuePolicy } from "../per-source.ts";
import type { SourceSpool } from "./source-spool.ts";
import { findBreaks, kindOf, restartAfter } from "./spooled-pictures.ts";

/** Limit for the queue of one source, in bytes. A single larger frame is still queued. */
const maxQueueBytes = 256 << 20;

/** Pause before a spool whose disk failed is tried again, in milliseconds. */
const spoolRetryMs = 1000;

export interface LiveSourceOptions {
  readonly policy: QueuePolicy;
  readonly settings: CaptureSettings;
  /** Shape of the frames, if they are raw and have none of their own. */
  readonly raw?: RawShape;
  readonly spool?: SourceSpool;
  /** Whether it captures before there is a connection. Default: whether there is a spool. */
  readonly capturesOffline?: boolean;
}

/** Captures frames and queues them until they can be sent. */
export class LiveSource implements FrameSource {
  readonly name: string;
  readonly isLive = true;
  readonly type: string | undefined;
  readonly raw: RawShape | undefined;
  readonly #iterator: AsyncIterator<Capture> | Iterator<Capture>;
  readonly #settings: CaptureSettings;
  /** Stores frames on disk that cannot be sent now. */
  readonly #spool: SourceSpool | undefined;
  readonly #capturesOffline: boolean;
  #isConnected = false;
  readonly #policy: QueuePolicy;
  readonly #queue: Frame[] = [];
  #queueBytes = 0;
  /**
   * Frames that left the queue and that the spool lacks, until they are settled. Pictures of encoded
   * video go to the spool before newer ones do, so that a killed process leaves none without them.
   */
  readonly #unspooled = new Map<number, Frame>();
  /**
   * Holds back pictures of encoded video after others were dropped: with a spool, whose oldest
   * pictures are dropped, those that leave the queue, and otherwise those that enter it.
   */
  #gate = new PictureGate();
  /** Numbers of pictures that may be damaged and are not settled, and the count of settled ones. */
  readonly #unsure = new Set<number>();
  #settledUnsure = 0;
  /** Losses not yet returned by `next`, oldest first. */
  #losses: Loss[] = [];
  #sequence = 0;
  #pendingNext: PromiseWithResolvers<Frame | Loss | undefined> | undefined;
  #onDrain = () => {};
  #isPumping = false;
  #hasEnded = false;
  /** Set while the spool fails: queued frames are kept in memory, and it is tried again. */
  #spoolRetry: NodeJS.Timeout | undefined;
  #failure: { error: unknown } | undefined;

  constructor(
    name: string,
    frames: AsyncIterable<Capture> | Iterable<Capture>,
    options: LiveSourceOptions,
  ) {
    const { policy, settings } = options;
    this.name = name;
    this.#iterator = toIterator(frames);
    this.#policy = policy;
    this.#settings = settings;
    this.type = settings.video?.type;
    this.raw = options.raw;
    this.#spool = options.spool;
    // Without a spool, frames captured before the connection could only be dropped.
    this.#capturesOffline = options.capturesOffline ?? options.spool !== undefined;
    this.#sequence = options.spool?.lastNumber ?? 0;
    this.#losses = options.spool?.losses() ?? [];
    if (options.spool !== undefined) this.#mendSpool(options.spool);
  }

  /** Reports what an earlier process left out of its spool, and drops pictures that need it. */
  #mendSpool(spool: SourceSpool): void {
    for (const { silent, next } of findBreaks(spool)) {
      for (const { first, last } of silent) {
        const error = new FramesError("stopped");
        this.#recordLoss({ first, last, what: `frame ${first}`, error });
      }
      this.#breakBefore(spool.after(next - 1));
    }
  }

  get usesLiveWindow(): boolean {
    return this.#policy !== "block";
  }

  get capturedCount(): number {
    return this.#sequence;
  }

  get maybeDamagedCount(): number {
    return this.#settledUnsure + this.#unsure.size;
  }

  get unreportedLosses(): readonly Loss[] {
    return this.#losses;
  }

  /**
   * Captures frames continuously. With the policy `block` it pauses while the queue is not empty.
   */
  async #pump(): Promise<void> {
    try {
      for (;;) {
        if (this.#isBlocked()) await this.#waitForDrain();
        if (this.#hasEnded) break;
        const { done, value } = await this.#iterator.next();
        if (done === true || this.#hasEnded) break;
        this.#enqueue(value);
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#hasEnded = true;
    this.#resolveNext();
  }

  #isBlocked(): boolean {
    if (this.#policy !== "block" || this.#queue.length === 0) return false;
    if (this.#isConnected || this.#spoolRetry !== undefined) return true;
    return this.#spool?.hasRoomFor(this.#queue[0]!) !== true;
  }

  /** Resolves when the queue is empty. */
  #waitForDrain(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onDrain = resolve;
    return promise;
  }

  #enqueue(captured: Capture): void {
    const item = toFrame(captured, ++this.#sequence, this.#settings);
    if (this.#spool !== undefined) this.#spool.lastNumber = this.#sequence;
    if ("error" in item) {
      this.#recordLoss(item);
    } else if (this.#spool === undefined && this.#isHeldBack(item)) {
      this.#drop(item);
    } else {
      this.#queue.push(item);
      this.#queueBytes += item.size;
    }
    if (!this.#isConnected) this.#spillQueue();
    while (this.#isOverLimit()) {
      if (this.#spool === undefined && this.#queue[0]!.isKey !== undefined) {
        this.#dropPictures();
        continue;
      }
      const oldest = this.#remove()!;
      if (this.#isHeldBack(oldest)) {
        this.#drop(oldest);
        continue;
      }
      const spoolError = this.#spoolOrDrop(oldest);
      if (spoolError !== undefined) this.#skip(oldest, spoolError);
    }
    this.#resolveNext();
  }

  /** Whether a picture cannot be decoded, because another one was dropped. */
  #isHeldBack(frame: Frame, gate = this.#gate): boolean {
    const { isKey, sequence } = frame;
    if (isKey === undefined) return false;
    const isHeldBack = !gate.admits(isKey, () => kindOf(frame, this.type));
    if (!isHeldBack && gate.isUnsure) this.#unsure.add(sequence);
    else this.#unsure.delete(sequence);
    return isHeldBack;
  }

  /**
   * Makes room in a queue of pictures of encoded video: drops those before the next key frame, or
   * else the newest one, and holds back those that need it.
   */
  #dropPictures(): void {
    const key = this.#queue.findIndex(({ isKey }, index) => index > 0 && isKey === true);
    if (key < 0) {
      const newest = this.#queue.pop()!;
      this.#queueBytes -= newest.size;
      this.#drop(newest);
      return this.#gate.close();
    }
    for (let count = 0; count < key; count++) this.#drop(this.#remove()!);
    this.#gate.restart();
    // Leading pictures follow their key frame, and need what was dropped before it.
    while (this.#queue.length > 1 && this.#isHeldBack(this.#queue[1]!)) {
      const [leading] = this.#queue.splice(1, 1);
      this.#queueBytes -= leading!.size;
      this.#drop(leading!);
    }
  }

  #remove(): Frame | undefined {
    const frame = this.#queue.shift();
    if (frame !== undefined) this.#queueBytes -= frame.size;
    return frame;
  }

  /** Removes the oldest frame of the queue. Drops pictures that need what a full spool dropped. */
  #shift(): Frame | undefined {
    let frame = this.#remove();
    if (this.#spool === undefined) return frame;
    while (frame !== undefined && this.#isHeldBack(frame)) {
      this.#drop(frame);
      frame = this.#remove();
    }
    if (frame !== undefined) this.#unspooled.set(frame.sequence, frame);
    return frame;
  }

  /** Moves queued frames to the spool, so that they survive a crash. */
  #spillQueue(): void {
    if (this.#spool === undefined) return;
    if (this.#spoolEarlier(this.#spool) !== undefined) return this.#retrySpoolLater();
    while (this.#queue.length > 0) {
      const frame = this.#queue[0]!;
      if (this.#policy === "block" && !this.#spool.hasRoomFor(frame)) return;
      if (this.#isHeldBack(frame)) this.#drop(frame);
      else if (this.#spoolOrDrop(frame) !== undefined) return this.#retrySpoolLater();
      this.#remove();
    }
    this.#onDrain();
  }

  /** Tries the spool again in a while, because its disk may have room or be readable then. */
  #retrySpoolLater(): void {
    this.#spoolRetry ??= setTimeout(() => {
      this.#spoolRetry = undefined;
      if (!this.#isConnected) this.#spillQueue();
      this.#resolveNext();
    }, spoolRetryMs);
  }

  /**
   * Spools a frame, or drops one because of a limit.
   *
   * @param wasInFlight whether it was in flight when the connection broke
   * @returns the error if the disk cannot take the frame now, which is then neither spooled nor dropped
   */
  #spoolOrDrop(frame: Frame, wasInFlight = false): FramesError | undefined {
    if (this.#spool === undefined) return void this.#drop(frame);
    // Frames that were in flight may exceed the limit, because the server may have them already.
    const mayExceed = this.#policy === "block" || wasInFlight;
    if (!mayExceed && !this.#spool.isLargeEnoughFor(frame)) return void this.#skip(frame);
    const error = frame.isKey === undefined ? undefined : this.#spoolEarlier(this.#spool);
    if (error !== undefined) return error;
    if (!mayExceed && !this.#makeRoom(this.#spool, frame)) return undefined;
    return this.#put(this.#spool, frame);
  }

  /**
   * Spools the pictures that are sent from memory, although they may exceed its limit.
   *
   * @returns the error if the disk cannot take one now
   */
  #spoolEarlier(spool: SourceSpool): FramesError | undefined {
    for (const frame of this.#unspooled.values()) {
      const error = frame.isKey === undefined ? undefined : this.#put(spool, frame);
      if (error !== undefined) return error;
      if (frame.isKey !== undefined && this.#isConnected) spool.skipTo(frame.sequence);
    }
    return undefined;
  }

  /** Spools a frame. Returns the error if the disk cannot take it now. */
  #put(spool: SourceSpool, frame: Frame): FramesError | undefined {
    try {
      spool.put(frame);
    } catch (error) {
      if (error instanceof FramesError) return error;
      throw error;
    }
    this.#unspooled.delete(frame.sequence);
    return undefined;
  }

  /**
   * Makes room in a full spool by dropping its oldest frames. Returns whether the frame fits; drops it
   * otherwise.
   */
  #makeRoom(spool: SourceSpool, frame: Frame): boolean {
    let oldest: Frame | undefined;
    while (!spool.hasRoomFor(frame) && (oldest = spool.oldest()) !== undefined) {
      if (oldest.isKey === undefined) {
        this.#dropSpooled(spool, oldest);
        continue;
      }
      const restart = restartAfter(spool, oldest, frame, this.type);
      // Without one, the pictures in the spool are those that can be decoded.
      if (restart === undefined) break;
      for (; oldest !== undefined && oldest.sequence < restart; oldest = spool.oldest()) {
        this.#dropSpooled(spool, oldest);
      }
      if (this.#isLeading(spool, frame)) {
        this.#drop(frame);
        return false;
      }
    }
    const hasRoom = spool.hasRoomFor(frame);
    if (!hasRoom) this.#skip(frame);
    return hasRoom;
  }

  #dropSpooled(spool: SourceSpool, frame: Frame): void {
    // A process that is killed in between leaves the frame, and the next one deletes it.
    this.#drop(frame);
    spool.delete(frame.sequence);
  }

  /**
   * Drops leading pictures behind the one with which decoding begins again: they need what was
   * dropped before it. Returns whether the frame that follows those in the spool is one, too.
   */
  #isLeading(spool: SourceSpool, frame: Frame): boolean {
    this.#gate.close();
    this.#dropHeldBack(spool, spool.oldest(), this.#gate);
    return this.#isHeldBack(frame);
  }

  /** Drops spooled pictures from `first` on that cannot be decoded because the one before it is lost. */
  #breakBefore(first: Frame | undefined): void {
    const gate = new PictureGate();
    gate.close();
    this.#dropHeldBack(this.#spool!, first, gate);
    // Those in the queue follow the spooled ones.
    if (gate.isPassed || this.#gate.isClosed) return;
    this.#gate = gate;
  }

  /** Passes spooled pictures through a gate, from `first` on, and drops those that it holds back. */
  #dropHeldBack(spool: SourceSpool, first: Frame | undefined, gate: PictureGate): void {
    for (let next = first; next !== undefined && !gate.isPassed;) {
      if (this.#isHeldBack(next, gate)) this.#dropSpooled(spool, next);
      next = spool.after(next.sequence);
    }
  }

  /** Drops a frame that the spool cannot take, and the pictures that need it. */
  #skip(frame: Frame, error?: FramesError): void {
    if (frame.isKey !== undefined) this.#gate.close();
    this.#drop(frame, error);
  }

  #drop({ sequence, name: what }: Frame, error = new FramesError("dropped")): void {
    this.#unsure.delete(sequence);
    this.#recordLoss({ first: sequence, last: sequence, what, error });
  }

  #isOverLimit(): boolean {
    if (this.#policy === "block") return false;
    const { length } = this.#queue;
    return length > this.#policy.latest || (this.#queueBytes > maxQueueBytes && length > 1);
  }

  #recordLoss(loss: Loss): void {
    const previous = this.#losses.at(-1);
    if (previous?.last === loss.first - 1 && previous.error.code === loss.error.code) {
      this.#losses[this.#losses.length - 1] = { ...previous, last: loss.last };
    } else {
      this.#losses.push(loss);
    }
    this.#spool?.recordLoss(this.#losses.at(-1)!);
  }

  #resolveNext(): void {
    if (this.#pendingNext === undefined) return;
    // Spooled frames stay in order on disk until a server is connected.
    if (this.#spool !== undefined && !this.#isConnected) return;
    const next = this.#dequeue();
    if (next === undefined && !this.#hasEnded) return;
    const { resolve, reject } = this.#pendingNext;
    this.#pendingNext = undefined;
    // Frames that remain in the spool are not delivered, so the source does not end well.
    const readError = this.#spool?.readError;
    const failure = this.#failure ?? (readError === undefined ? undefined : { error: readError });
    if (next === undefined && failure !== undefined) reject(failure.error);
    else resolve(next);
  }

  #dequeue(): Frame | Loss | undefined {
    const loss = this.#losses.shift();
    if (loss !== undefined) return loss;
    const frame = this.#dequeueFrame();
    if (this.#spool?.readError !== undefined && !this.#hasEnded) this.#retrySpoolLater();
    this.#onDrain();
    // Pictures that cannot be decoded were dropped just now.
    return frame ?? this.#losses.shift();
  }

  /**
   * Live frames go before spooled ones, which are late already. Pictures of encoded video keep their
   * order, without which no decoder can use them.
   */
  #dequeueFrame(): Frame | undefined {
    if (this.#queue[0]?.isKey === undefined) return this.#shift() ?? this.#spool?.next();
    const spooled = this.#spool?.next();
    if (spooled !== undefined) return spooled;
    // Pictures wait for earlier ones in the spool that cannot be read now.
    const mustWait = this.#spool?.readError !== undefined && !this.#hasEnded;
    return mustWait ? undefined : this.#shift();
  }

  next(): Frame | Loss | Promise<Frame | Loss | undefined> {
    this.#startPump();
    const next = this.#dequeue();
    if (next !== undefined) return next;
    const pendingNext = (this.#pendingNext = Promise.withResolvers<Frame | Loss | undefined>());
    this.#resolveNext();
    return pendingNext.promise;
  }

  #startPump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    void this.#pump();
  }

  startCapture(): void {
    if (this.#capturesOffline) this.#startPump();
  }

  onConnected(): void {
    this.#isConnected = true;
    this.#onDrain();
    this.#resolveNext();
  }

  onDisconnected(frames: readonly Frame[]): readonly Frame[] {
    this.#isConnected = false;
    if (this.#spool === undefined) return frames;
    this.#spool.rewind(frames.at(-1)?.sequence);
    // Frames that cannot be spooled are sent on the next connection, from memory.
    let unspooled = frames.filter((frame) => this.#spoolOrDrop(frame, true) !== undefined);
    if (unspooled[0]?.isKey !== undefined) {
      // Pictures keep their order, so those that were spooled are sent from memory too.
      unspooled = [...frames];
      this.#spool.skipTo(unspooled.at(-1)!.sequence);
    }
    this.#spillQueue();
    return unspooled;
  }

  onSettled({ sequence }: Frame): void {
    if (this.#unsure.delete(sequence)) this.#settledUnsure++;
    this.#unspooled.delete(sequence);
    this.#spool?.delete(sequence);
  }

  retry({ sequence, name: what, isKey }: Frame, error: FramesError): Loss {
    const loss = { first: sequence, last: sequence, what, error };
    const spool = this.#spool;
    this.#unsure.delete(sequence);
    this.#unspooled.delete(sequence);
    // A process that is killed in between leaves the frame, and the next one deletes it.
    spool?.recordLoss(loss);
    spool?.delete(sequence);
    if (isKey !== undefined && spool !== undefined) this.#breakBefore(spool.unsent());
    return loss;
  }

  /** Stops capturing, without waiting for a frame that the iterator is about to return. */
  stopCapture(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#onDrain();
    closeIterator(this.#iterator);
    this.#resolveNext();
  }

  close(): void {
    this.#hasEnded = true;
    closeIterator(this.#iterator);
    if (this.#spool !== undefined) this.#leaveToSpool(this.#spool);
    clearTimeout(this.#spoolRetry);
  }

  /** Spools what is not settled for the next process. What the disk cannot take is recorded as lost. */
  #leaveToSpool(spool: SourceSpool): void {
    this.#isConnected = false;
    for (const frame of this.#unspooled.values()) void this.#put(spool, frame);
    this.#spillQueue();
    const error = new FramesError("stopped");
    for (const frame of [...this.#unspooled.values(), ...this.#queue]) this.#drop(frame, error);
  }
}
