/**
 * The receiving end of the article's dialect (SPEC appendix A), as a machine without I/O: bytes and times
 * go in, answers come out, and pictures go to a store as they arrive. The last answer of a picture leaves
 * when the store was flushed, so that a client which has it can rely on it.
 */
import { crc32 } from "node:zlib";
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

/** Milliseconds without a byte after which a client that may be waiting is waiting. */
export const quietTimeoutMs = 100;

/** What the machine tells its host. */
export interface ArticleReceiverEvents {
  /** The header came. Nothing is answered until a promise is kept; what this throws ends the connection. */
  onHeader(stream: string, source: string): void | Promise<void>;
  /** A picture ended, and what became of it. */
  onFrameEnded(frame: FrameDescription, outcome: Outcome): void;
  /** Something is to be settled or sent that was not before: flush the store. */
  onFlushNeeded(): void;
  /** Something failed outside `receive`: hand the error to `stop`. */
  onError(error: unknown): void;
}

/** What a machine needs to know. */
export interface ArticleReceiverOptions {
  readonly session: string;
  readonly limits: ReceiverLimits["limits"];
  /** Milliseconds after which a silent client is gone. */
  readonly timeoutMs: number;
  /** Wall clock, in milliseconds since 1970. */
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
  /** Answers that the client waits for. */
  #pendingAnswers = 0;
  /** Pictures whose last answer was given, which the store had to be flushed for. */
  #settledCount = 0;
  #isStopped = false;
  #isHeaderAnswered = false;

  /** @param now milliseconds by a clock that never jumps, as everywhere here */
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

  /** What the header said, once it came. */
  get headerFields(): { readonly stream: string; readonly source: string } | undefined {
    return this.#headerFields;
  }

  /** How the pictures of this connection ended. */
  get counts(): Readonly<Done> {
    return this.#outcomes.counts;
  }

  /** Whether all pictures came and are settled. */
  get isDone(): boolean {
    return this.#decoder.isOver && this.#settledCount === this.#outcomes.endedCount;
  }

  /** Whether the client has said that nothing more will come. */
  get isOver(): boolean {
    return this.#decoder.isOver;
  }

  /** Whether the client waits for us, and not we for the client. */
  get isClientWaiting(): boolean {
    return (
      this.#settledCount < this.#outcomes.endedCount ||
      (this.#headerFields !== undefined && !this.#isHeaderAnswered)
    );
  }

  /** When a quiet moment will have passed that means something; to be told by `quiet`. */
  get quietAt(): number | undefined {
    if (this.#isStopped || !this.#decoder.canEndOnQuiet) return undefined;
    return this.#lastReceivedAt + quietTimeoutMs;
  }

  /**
   * Takes bytes from the client.
   *
   * @throws {FramesError} if the conversation has failed: hand it to `stop`
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#lastReceivedAt = now;
    this.#keepalive.onReceived(now);
    if (this.#isStopped) return;
    if (!this.#decoder.hasPartialText) this.#textCount++;
    this.#decoder.receive(chunk);
  }

  /** @throws {FramesError} likewise */
  onQuiet(now: number): void {
    const { quietAt } = this;
    if (quietAt !== undefined && now >= quietAt) this.#decoder.onQuiet();
  }

  /**
   * The client sends nothing more.
   *
   * @throws {FramesError} likewise
   */
  onEnd(now: number): void {
    this.#lastReceivedAt = now;
    if (!this.#isStopped) this.#decoder.onQuiet();
  }

  /**
   * To be called about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (this.#isStopped || this.isDone) return;
    // Whoever waits for us is not silent.
    if (this.isClientWaiting) this.#keepalive.onReceived(now);
    const incomplete = this.#decoder.hasPartialText ? this.#textCount : 0;
    this.#keepalive.tick(now, this.#decoder.awaited, incomplete);
  }

  /** The answers to send now, if any. They wait for the last of a picture that is whole already. */
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

  /** Whether a flush of the store would settle something. */
  get needsFlush(): boolean {
    return this.#settledCount < this.#outcomes.endedCount;
  }

  /** To be handed to `settle` when a flush of the store that begins now is done. */
  get flushSnapshot(): FlushSnapshot {
    return { frames: this.#outcomes.knownCount, answers: 0 };
  }

  /** The store was flushed: what was `flushable` before is settled. */
  ack({ frames }: FlushSnapshot): void {
    this.#pendingAnswers += Math.max(0, frames - this.#settledCount);
    this.#settledCount = Math.max(frames, this.#settledCount);
  }

  /** Takes nothing more: what is unfinished is discarded. */
  stop(): void {
    this.#isStopped = true;
    this.#picture?.writer.discard();
    this.#picture = undefined;
  }

  // What the decoder tells.

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

  /** The dialect has no word for it, so that the connection ends. */
  #refuse(description: FrameDescription, error: unknown): never {
    this.#picture?.writer.discard();
    this.#picture = undefined;
    if (!(error instanceof FramesError) || error.wireCode < 32) throw error;
    const { sequence } = description;
    // A conflict is no loss: something is stored under that name.
    if (error.code !== "conflict") this.#sourceStore?.recordLoss(sequence, sequence, error);
    this.#outcomes.add(error);
    this.#events.onFrameEnded(description, error);
    throw error;
  }
}

/**
 * The stream that a client's folder becomes. A path has no place in a store: its parts are joined, so that
 * `data/run7` is data-run7, and what would lead elsewhere stays in for the store to refuse.
 */
export function streamFromFolder(folder: string): string {
  const parts = folder.split(/[/\\]/).filter((part, index) => {
    return part !== "" && part !== "." && !(index === 0 && /^[A-Za-z]:$/.test(part));
  });
  const hasOnlyPlainParts = parts.every((part) => !part.startsWith("."));
  return hasOnlyPlainParts && parts.length > 0 ? parts.join("-") : folder;
}
