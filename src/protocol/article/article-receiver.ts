/**
 * The receiving end of the article's dialect (SPEC appendix A), without I/O: bytes and times go in,
 * answers come out, and pictures go to a store. The last answer to a picture confirms that it is
 * stored, because it is sent after a flush of the store.
 */
import { crc32 } from "../../common/checksum.ts";
import { FramesError } from "../../errors.ts";
import type {
  FrameDescription,
  FrameStore,
  FrameWriter,
  Outcome,
  SourceStore,
} from "../../frame.ts";
import {
  ArticleDecoder,
  articleAnswer,
  type ArticleHandler,
  encodeStep,
} from "../../wire/article.ts";
import type { Done } from "../../wire/messages.ts";
import { Keepalive } from "../keepalive.ts";
import { tooLargeError } from "../frame-errors.ts";
import type { FlushSnapshot, ReceiverLimits } from "../receive/receiver-events.ts";
import { OutcomeCounts } from "../receive/outcome-counts.ts";

/** Time without a byte, in ms, after which the client is taken to wait for an answer. */
export const quietTimeoutMs = 100;

/** Callbacks of a receiver. */
export interface ArticleReceiverEvents {
  /**
   * Called for the header. The answer is sent once a returned promise resolves. An error, thrown or
   * rejected, ends the connection.
   */
  onHeader(stream: string, source: string): void | Promise<void>;
  /** Called when a picture has ended and its outcome is known. */
  onFrameEnded(frame: FrameDescription, outcome: Outcome): void;
  /** Called when the store should be flushed or an answer can be sent. */
  onFlushNeeded(): void;
  /** Called when something failed asynchronously. Pass the error to `stop`. */
  onError(error: unknown): void;
}

/** Options of a receiver. */
export interface ArticleReceiverOptions {
  readonly session: string;
  readonly limits: ReceiverLimits["limits"];
  /** A client silent for this long counts as gone, in ms. */
  readonly timeoutMs: number;
  /** Returns the wall clock time in ms since 1970, used as capture time. */
  readonly clock: () => number;
}

interface IncomingPicture {
  readonly description: FrameDescription;
  readonly writer: FrameWriter;
  crc: number;
}

export class ArticleReceiver implements ArticleHandler {
  readonly #decoder = new ArticleDecoder(this);
  readonly #store: FrameStore;
  readonly #options: ArticleReceiverOptions;
  readonly #events: ArticleReceiverEvents;
  readonly #keepalive: Keepalive;
  readonly #outcomes = new OutcomeCounts();
  #lastReceivedAt: number;
  #textCount = 0;
  #headerFields: { readonly stream: string; readonly source: string } | undefined;
  #sourceStore: SourceStore | undefined;
  #picture: IncomingPicture | undefined;
  /** Answers to send. */
  #pendingAnswers = 0;
  /** Pictures for which the last answer was released by a flush. */
  #settledCount = 0;
  #isStopped = false;
  #isHeaderAnswered = false;

  /** @param now in ms of a monotonic clock, as in all methods */
  constructor(
    store: FrameStore,
    options: ArticleReceiverOptions,
    now: number,
    events: ArticleReceiverEvents,
  ) {
    this.#store = store;
    this.#options = options;
    this.#events = events;
    this.#keepalive = new Keepalive(now, options.timeoutMs);
    this.#lastReceivedAt = now;
  }

  /** Stream and source from the header, or `undefined` until it arrives. */
  get headerFields(): { readonly stream: string; readonly source: string } | undefined {
    return this.#headerFields;
  }

  /** How the pictures of this connection ended. */
  get counts(): Readonly<Done> {
    return this.#outcomes.counts;
  }

  /** Whether the client has sent `over` and all pictures are settled. */
  get isDone(): boolean {
    return this.#decoder.isOver && this.#settledCount === this.#outcomes.endedCount;
  }

  /** Whether the client has sent `over`. */
  get isOver(): boolean {
    return this.#decoder.isOver;
  }

  /** Whether the client waits for the server's answer. */
  get isClientWaiting(): boolean {
    return (
      this.#settledCount < this.#outcomes.endedCount ||
      (this.#headerFields !== undefined && !this.#isHeaderAnswered)
    );
  }

  /**
   * Time at which silence completes the text received so far; call `onQuiet` then. `undefined` if
   * silence has no meaning now.
   */
  get quietAt(): number | undefined {
    if (this.#isStopped || !this.#decoder.canEndOnQuiet) return undefined;
    return this.#lastReceivedAt + quietTimeoutMs;
  }

  /**
   * Processes bytes from the client, until a picture has ended and `isTurnOver` returns true.
   *
   * @returns the number of bytes processed
   * @throws {FramesError} if the connection has failed; call `stop`
   */
  receive(chunk: Uint8Array, now: number, isTurnOver?: () => boolean): number {
    this.#lastReceivedAt = now;
    this.#keepalive.onReceived(now);
    if (this.#isStopped) return chunk.length;
    if (!this.#decoder.hasPartialText) this.#textCount++;
    return this.#decoder.receive(chunk, isTurnOver);
  }

  /**
   * Completes the text received so far if the client was silent long enough.
   *
   * @throws {FramesError} if the connection has failed; call `stop`
   */
  onQuiet(now: number): void {
    const { quietAt } = this;
    if (quietAt !== undefined && now >= quietAt) this.#decoder.onQuiet();
  }

  /**
   * Handles the end of the client's bytes, which completes the text received so far.
   *
   * @throws {FramesError} if the connection has failed; call `stop`
   */
  onEnd(now: number): void {
    this.#lastReceivedAt = now;
    if (!this.#isStopped) this.#decoder.onQuiet();
  }

  /**
   * Checks timeouts. Call it about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (this.#isStopped || this.isDone) return;
    // A client that waits for an answer has no reason to send.
    if (this.isClientWaiting) this.#keepalive.onReceived(now);
    const incomplete = this.#decoder.hasPartialText ? this.#textCount : 0;
    this.#keepalive.tick(now, this.#decoder.awaited, incomplete);
  }

  /**
   * Returns the answers to send now, if any. They wait for the last answer to a completed picture,
   * because answers have an order.
   */
  drainAnswers(): Uint8Array | undefined {
    if (
      this.#pendingAnswers === 0 ||
      this.#isStopped ||
      this.#settledCount < this.#outcomes.endedCount
    )
      return undefined;
    const bytes = encodeStep(articleAnswer.repeat(this.#pendingAnswers));
    this.#pendingAnswers = 0;
    return bytes;
  }

  /** Whether a flush of the store would release an answer. */
  get needsFlush(): boolean {
    return this.#settledCount < this.#outcomes.endedCount;
  }

  /** What a flush that begins now will cover. Pass it to `ack` when that flush is done. */
  get flushSnapshot(): FlushSnapshot {
    return { frames: this.#outcomes.knownCount, answers: 0 };
  }

  /** Releases the last answers of pictures that a flush of the store has covered. */
  ack({ frames }: FlushSnapshot): void {
    this.#pendingAnswers += Math.max(0, frames - this.#settledCount);
    this.#settledCount = Math.max(frames, this.#settledCount);
  }

  /** Stops receiving and discards the unfinished picture. */
  stop(): void {
    this.#isStopped = true;
    this.#picture?.writer.discard();
    this.#picture = undefined;
  }

  // Callbacks of the decoder.

  onHeader(kind: string, folder: string): void {
    this.#keepalive.onHandshakeDone();
    const headerFields = { stream: streamFromFolder(folder), source: kind };
    const { session } = this.#options;
    this.#sourceStore = this.#store.open({ ...headerFields, session });
    this.#headerFields = headerFields;
    const answerHeader = () => {
      this.#isHeaderAnswered = true;
      this.#decoder.onHeaderAnswered();
      this.#pendingAnswers++;
    };
    const admitted = this.#events.onHeader(headerFields.stream, headerFields.source);
    if (!(admitted instanceof Promise)) return answerHeader();
    admitted
      .then(() => {
        if (this.#isStopped) return;
        answerHeader();
        this.#events.onFlushNeeded();
      })
      .catch((error: unknown) => this.#events.onError(error));
  }

  onPicture(size: number, name: string): void {
    const description: FrameDescription = {
      name,
      sequence: this.#outcomes.endedCount + 1,
      captured: BigInt(this.#options.clock()) * 1_000_000n,
      size,
      metadata: "",
    };
    try {
      const { frame } = this.#options.limits;
      if (size > frame) throw tooLargeError(size, frame);
      this.#picture = { description, writer: this.#sourceStore!.begin(description), crc: 0 };
    } catch (error) {
      this.#refuse(description, error);
    }
  }

  onPayload(bytes: Uint8Array): void {
    const picture = this.#picture!;
    picture.crc = crc32(bytes, picture.crc);
    try {
      picture.writer.write(bytes);
    } catch (error) {
      this.#refuse(picture.description, error);
    }
  }

  onAnswerDue(): void {
    this.#pendingAnswers++;
  }

  onPictureComplete(): void {
    const { description, writer, crc } = this.#picture!;
    let outcome: Outcome | Promise<Outcome>;
    try {
      outcome = writer.finish(crc);
    } catch (error) {
      this.#refuse(description, error);
    }
    this.#picture = undefined;
    if (!(outcome instanceof Promise)) {
      if (outcome instanceof FramesError) this.#refuse(description, outcome);
      this.#outcomes.add(outcome);
      return this.#events.onFrameEnded(description, outcome);
    }
    const resolve = this.#outcomes.addPending();
    outcome
      .then((resolved) => {
        resolve(resolved);
        this.#events.onFrameEnded(description, resolved);
        if (resolved instanceof FramesError) throw resolved;
        this.#events.onFlushNeeded();
      })
      .catch((error: unknown) => this.#events.onError(error));
  }

  onOver(): void {}

  /**
   * Records the error and throws it. The dialect has no message for a refusal, so the connection
   * ends.
   */
  #refuse(description: FrameDescription, error: unknown): never {
    this.#picture?.writer.discard();
    this.#picture = undefined;
    if (!(error instanceof FramesError) || error.wireCode < 32) throw error;
    const { sequence, name } = description;
    // A conflict is not recorded as a loss, because a picture is stored under that name.
    if (error.code !== "conflict") this.#sourceStore?.recordLoss(sequence, sequence, error, name);
    this.#outcomes.add(error);
    this.#events.onFrameEnded(description, error);
    throw error;
  }
}

/**
 * Returns the stream for a client's folder. The parts of a path are joined by `-`: `data/run7`
 * becomes data-run7. A path with a part that begins with a dot is returned unchanged, and the store
 * refuses it.
 */
export function streamFromFolder(folder: string): string {
  const parts = folder.split(/[/\\]/).filter((part, index) => {
    return part !== "" && part !== "." && !(index === 0 && /^[A-Za-z]:$/.test(part));
  });
  const hasOnlyPlainParts = parts.every((part) => !part.startsWith("."));
  return hasOnlyPlainParts && parts.length > 0 ? parts.join("-") : folder;
}
