/** A source whose frames come as they are captured, and what its queue does when it is full. */
import { asFramesError, FramesError } from "../errors.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../frame.ts";
import { type CapturedFrame, endIterator, frameOf, iteratorOf, type Naming } from "./iterable.ts";
import type { SourceSpool } from "./spool.ts";

/** Bytes that the queue of one source holds at most, however few frames that are; one always fits. */
const mostBytes = 256 << 20;

/** Holds the source up, or keeps the newest frames: so many, whatever comes. */
export type QueuePolicy = "block" | { readonly latest: number };

/** Takes frames as they are captured, and keeps them until they can be sent. */
export class LiveSource implements FrameSource {
  readonly name: string;
  readonly isLive = true;
  readonly raw?: RawShape;
  readonly #frames: AsyncIterator<CapturedFrame> | Iterator<CapturedFrame>;
  readonly #naming: Naming;
  /** Where frames are kept that cannot be sent now. */
  readonly #spool: SourceSpool | undefined;
  #isConnected = false;
  readonly #policy: QueuePolicy;
  readonly #queue: Frame[] = [];
  #bytes = 0;
  /** What was dropped and not told yet, oldest first: it lies before all frames of the queue. */
  #losses: Loss[] = [];
  #sequence = 0;
  #waiting: PromiseWithResolvers<Frame | Loss | undefined> | undefined;
  #onRoom = () => {};
  #isPumping = false;
  #hasEnded = false;
  #failure: { error: unknown } | undefined;

  constructor(
    name: string,
    frames: AsyncIterable<CapturedFrame> | Iterable<CapturedFrame>,
    policy: QueuePolicy,
    naming: Naming,
    more: { readonly raw?: RawShape; readonly spool?: SourceSpool } = {},
  ) {
    this.name = name;
    this.#frames = iteratorOf(frames);
    this.#policy = policy;
    this.#naming = naming;
    if (more.raw !== undefined) this.raw = more.raw;
    this.#spool = more.spool;
    this.#sequence = more.spool?.lastNumber ?? 0;
    this.#losses = more.spool?.losses() ?? [];
  }

  get keepsFresh(): boolean {
    return this.#policy !== "block";
  }

  get captured(): number {
    return this.#sequence;
  }

  get untold(): readonly Loss[] {
    return this.#losses;
  }

  /** Takes frames as they come, whether anybody wants them or not, unless the source is to be held up. */
  async #pump(): Promise<void> {
    try {
      for (;;) {
        if (this.#isHeldUp()) await this.#room();
        if (this.#hasEnded) break;
        const { done, value } = await this.#frames.next();
        if (done === true || this.#hasEnded) break;
        this.#add(value);
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#hasEnded = true;
    this.#answer();
  }

  #isHeldUp(): boolean {
    if (this.#policy !== "block" || this.#queue.length === 0) return false;
    return this.#isConnected || this.#spool?.hasRoomFor(this.#queue[0]!) !== true;
  }

  /** Resolves when the queue has been emptied. */
  #room(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onRoom = resolve;
    return promise;
  }

  #add(captured: CapturedFrame): void {
    const item = frameOf(captured, ++this.#sequence, this.#naming);
    if (this.#spool !== undefined) this.#spool.lastNumber = this.#sequence;
    if ("error" in item) {
      this.#lose(item);
    } else {
      this.#queue.push(item);
      this.#bytes += item.size;
    }
    if (!this.#isConnected) this.#unload();
    while (this.#isOverfull()) this.#keepOrLose(this.#shift()!);
    this.#answer();
  }

  #shift(): Frame | undefined {
    const frame = this.#queue.shift();
    if (frame !== undefined) this.#bytes -= frame.size;
    return frame;
  }

  /** Whoever is killed now loses nothing that is on the disk. */
  #unload(): void {
    if (this.#spool === undefined) return;
    while (this.#queue.length > 0) {
      if (this.#policy === "block" && !this.#spool.hasRoomFor(this.#queue[0]!)) return;
      this.#keepOrLose(this.#shift()!);
    }
    this.#onRoom();
  }

  #keepOrLose(frame: Frame): void {
    if (this.#spool === undefined) return this.#drop(frame);
    // With block only what was on its way comes here, and that is never dropped, full or not.
    const isHeldUp = this.#policy === "block";
    if (!isHeldUp && !this.#spool.isLargeEnoughFor(frame)) return this.#drop(frame);
    // A spool that is full keeps the newest too.
    for (
      let oldest;
      !isHeldUp && !this.#spool.hasRoomFor(frame) && (oldest = this.#spool.oldest());
    ) {
      this.#spool.delete(oldest.sequence);
      this.#drop(oldest);
    }
    if (!isHeldUp && !this.#spool.hasRoomFor(frame)) return this.#drop(frame);
    try {
      this.#spool.put(frame);
    } catch (error) {
      this.#drop(frame, asFramesError(error, "unreadable"));
    }
  }

  #drop({ sequence, name: what }: Frame, error = new FramesError("dropped")): void {
    this.#lose({ first: sequence, last: sequence, what, error });
  }

  #isOverfull(): boolean {
    if (this.#policy === "block") return false;
    const { length } = this.#queue;
    return length > this.#policy.latest || (this.#bytes > mostBytes && length > 1);
  }

  #lose(loss: Loss): void {
    const before = this.#losses.at(-1);
    if (before?.last === loss.first - 1 && before.error.code === loss.error.code) {
      this.#losses[this.#losses.length - 1] = { ...before, last: loss.last };
    } else {
      this.#losses.push(loss);
    }
    this.#spool?.lose(this.#losses.at(-1)!);
  }

  #answer(): void {
    if (this.#waiting === undefined) return;
    // What the spool has stays there, in its order, until somebody can take it.
    if (this.#spool !== undefined && !this.#isConnected) return;
    const next = this.#take();
    if (next === undefined && !this.#hasEnded) return;
    const { resolve, reject } = this.#waiting;
    this.#waiting = undefined;
    if (next === undefined && this.#failure !== undefined) reject(this.#failure.error);
    else resolve(next);
  }

  #take(): Frame | Loss | undefined {
    const loss = this.#losses.shift();
    if (loss !== undefined) return loss;
    // What is live goes first; what is kept has waited already.
    const frame = this.#shift() ?? this.#spool?.next();
    this.#onRoom();
    return frame;
  }

  next(): Frame | Loss | Promise<Frame | Loss | undefined> {
    this.#start();
    const next = this.#take();
    if (next !== undefined) return next;
    const waiting = (this.#waiting = Promise.withResolvers<Frame | Loss | undefined>());
    this.#answer();
    return waiting.promise;
  }

  #start(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    void this.#pump();
  }

  begin(): void {
    // Without a place for them, frames are worth nothing before there is a server.
    if (this.#spool !== undefined) this.#start();
  }

  connected(): void {
    this.#isConnected = true;
    this.#onRoom();
    this.#answer();
  }

  disconnected(frames: readonly Frame[]): readonly Frame[] {
    this.#isConnected = false;
    if (this.#spool === undefined) return frames;
    this.#spool.rewind();
    for (const frame of frames) this.#keepOrLose(frame);
    this.#unload();
    return [];
  }

  settled({ sequence }: Frame): void {
    this.#spool?.delete(sequence);
  }

  again(frame: Frame, error: FramesError): Loss {
    this.#spool?.delete(frame.sequence);
    return { first: frame.sequence, last: frame.sequence, what: frame.name, error };
  }

  /** Captures nothing more: what a source is still about to give is not waited for. */
  stop(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#onRoom();
    endIterator(this.#frames);
    this.#answer();
  }

  close(): void {
    this.#hasEnded = true;
    endIterator(this.#frames);
  }
}
