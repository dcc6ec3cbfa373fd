/**
 * The receiving end of the article's dialect (SPEC appendix A), as a machine without I/O: bytes and times
 * go in, answers come out, and pictures go to a store as they arrive. The last answer of a picture leaves
 * when the store was flushed, so that a client which has it can rely on it.
 */
import { crc32 } from "node:zlib";
import { FramesError } from "../errors.ts";
import type { FrameDescription, FrameStore, FrameWriter, Outcome, SourceStore } from "../frame.ts";
import { ArticleDecoder, articleAnswer, type ArticleHandler, encodeStep } from "../wire/article.ts";
import type { Done } from "../wire/messages.ts";
import { Liveness } from "./liveness.ts";
import { tooLargeError } from "./outlet.ts";
import type { Flushable, ReceiverLimits } from "./receiving.ts";
import { Tally } from "./tally.ts";

/** Milliseconds without a byte after which a client that may be waiting is waiting. */
export const quietAfter = 100;

/** What the machine tells its host. */
export interface ArticleEvents {
  /** The header came. Nothing is answered until a promise is kept; what this throws ends the connection. */
  header(stream: string, source: string): void | Promise<void>;
  /** A picture ended, and what became of it. */
  ended(frame: FrameDescription, outcome: Outcome): void;
  /** Something is to be settled or sent that was not before: flush the store. */
  wake(): void;
  /** Something failed outside `receive`: hand the error to `stop`. */
  failed(error: unknown): void;
}

/** What a machine needs to know. */
export interface ArticleConversation {
  readonly session: string;
  readonly limits: ReceiverLimits["limits"];
  /** Milliseconds after which a silent client is gone. */
  readonly timeout: number;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
}

interface Picture {
  readonly description: FrameDescription;
  readonly writer: FrameWriter;
  crc: number;
}

export class ArticleReceiver implements ArticleHandler {
  readonly #decoder = new ArticleDecoder(this);
  readonly #store: FrameStore;
  readonly #conversation: ArticleConversation;
  readonly #events: ArticleEvents;
  readonly #liveness: Liveness;
  readonly #tally = new Tally();
  #heardAt: number;
  #texts = 0;
  #origin: { readonly stream: string; readonly source: string } | undefined;
  #source: SourceStore | undefined;
  #picture: Picture | undefined;
  /** Answers that the client waits for. */
  #due = 0;
  /** Pictures whose last answer was given, which the store had to be flushed for. */
  #settled = 0;
  #isStopped = false;
  #isSaid = false;

  /** @param now milliseconds by a clock that never jumps, as everywhere here */
  constructor(
    store: FrameStore,
    conversation: ArticleConversation,
    now: number,
    events: ArticleEvents,
  ) {
    this.#store = store;
    this.#conversation = conversation;
    this.#events = events;
    this.#liveness = new Liveness(now, conversation.timeout);
    this.#heardAt = now;
  }

  /** What the header said, once it came. */
  get origin(): { readonly stream: string; readonly source: string } | undefined {
    return this.#origin;
  }

  /** How the pictures of this connection ended. */
  get counts(): Readonly<Done> {
    return this.#tally.counts;
  }

  /** Whether all pictures came and are settled. */
  get isDone(): boolean {
    return this.#decoder.isOver && this.#settled === this.#tally.ended;
  }

  /** Whether the client has said that nothing more will come. */
  get isOver(): boolean {
    return this.#decoder.isOver;
  }

  /** Whether the client waits for us, and not we for the client. */
  get owes(): boolean {
    return this.#settled < this.#tally.ended || (this.#origin !== undefined && !this.#isSaid);
  }

  /** When a quiet moment will have passed that means something; to be told by `quiet`. */
  get quietAt(): number | undefined {
    if (this.#isStopped || !this.#decoder.awaitsQuiet) return undefined;
    return this.#heardAt + quietAfter;
  }

  /**
   * Takes bytes from the client.
   *
   * @throws {FramesError} if the conversation has failed: hand it to `stop`
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#heardAt = now;
    this.#liveness.heard(now);
    if (this.#isStopped) return;
    if (!this.#decoder.isAmidText) this.#texts++;
    this.#decoder.receive(chunk);
  }

  /** @throws {FramesError} likewise */
  quiet(now: number): void {
    const { quietAt } = this;
    if (quietAt !== undefined && now >= quietAt) this.#decoder.quiet();
  }

  /**
   * The client sends nothing more.
   *
   * @throws {FramesError} likewise
   */
  end(now: number): void {
    this.#heardAt = now;
    if (!this.#isStopped) this.#decoder.quiet();
  }

  /**
   * To be called about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (this.#isStopped || this.isDone) return;
    // Whoever waits for us is not silent.
    if (this.owes) this.#liveness.heard(now);
    const incomplete = this.#decoder.isAmidText ? this.#texts : 0;
    this.#liveness.tick(now, this.#decoder.awaited, incomplete);
  }

  /** The answers to send now, if any. They wait for the last of a picture that is whole already. */
  take(): Uint8Array | undefined {
    if (this.#due === 0 || this.#isStopped || this.#settled < this.#tally.ended) return undefined;
    const bytes = encodeStep(articleAnswer.repeat(this.#due));
    this.#due = 0;
    return bytes;
  }

  /** Whether a flush of the store would settle something. */
  get wantsFlush(): boolean {
    return this.#settled < this.#tally.ended;
  }

  /** To be handed to `settle` when a flush of the store that begins now is done. */
  get flushable(): Flushable {
    return { frames: this.#tally.known, answers: 0 };
  }

  /** The store was flushed: what was `flushable` before is settled. */
  settle({ frames }: Flushable): void {
    this.#due += Math.max(0, frames - this.#settled);
    this.#settled = Math.max(frames, this.#settled);
  }

  /** Takes nothing more: what is unfinished is discarded. */
  stop(): void {
    this.#isStopped = true;
    this.#picture?.writer.discard();
    this.#picture = undefined;
  }

  // What the decoder tells.

  header(kind: string, folder: string): void {
    this.#liveness.greeted();
    const origin = { stream: streamOf(folder), source: kind };
    const { session } = this.#conversation;
    this.#source = this.#store.open({ ...origin, session });
    this.#origin = origin;
    const open = () => {
      this.#isSaid = true;
      this.#decoder.answered();
      this.#due++;
    };
    const admitted = this.#events.header(origin.stream, origin.source);
    if (!(admitted instanceof Promise)) return open();
    admitted
      .then(() => {
        if (this.#isStopped) return;
        open();
        this.#events.wake();
      })
      .catch((error: unknown) => this.#events.failed(error));
  }

  begin(size: number, name: string): void {
    const description: FrameDescription = {
      name,
      sequence: this.#tally.ended + 1,
      captured: BigInt(this.#conversation.clock()) * 1_000_000n,
      size,
      metadata: "",
    };
    try {
      const { frame } = this.#conversation.limits;
      if (size > frame) throw tooLargeError(size, frame);
      this.#picture = { description, writer: this.#source!.begin(description), crc: 0 };
    } catch (error) {
      this.#refuse(description, error);
    }
  }

  payload(bytes: Uint8Array): void {
    const picture = this.#picture!;
    picture.crc = crc32(bytes, picture.crc);
    try {
      picture.writer.write(bytes);
    } catch (error) {
      this.#refuse(picture.description, error);
    }
  }

  answer(): void {
    this.#due++;
  }

  complete(): void {
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
      this.#tally.add(outcome);
      return this.#events.ended(description, outcome);
    }
    const settle = this.#tally.addPending();
    outcome
      .then((settled) => {
        settle(settled);
        this.#events.ended(description, settled);
        if (settled instanceof FramesError) throw settled;
        this.#events.wake();
      })
      .catch((error: unknown) => this.#events.failed(error));
  }

  over(): void {}

  /** The dialect has no word for it, so that the connection ends. */
  #refuse(description: FrameDescription, error: unknown): never {
    this.#picture?.writer.discard();
    this.#picture = undefined;
    if (!(error instanceof FramesError) || error.wire < 32) throw error;
    const { sequence } = description;
    // A conflict is no loss: something is stored under that name.
    if (error.code !== "conflict") this.#source?.lost(sequence, sequence, error);
    this.#tally.add(error);
    this.#events.ended(description, error);
    throw error;
  }
}

/**
 * The stream that a client's folder becomes. A path has no place in a store: its parts are joined, so that
 * `data/run7` is data-run7, and what would lead elsewhere stays in for the store to refuse.
 */
export function streamOf(folder: string): string {
  const parts = folder.split(/[/\\]/).filter((part, index) => {
    return part !== "" && part !== "." && !(index === 0 && /^[A-Za-z]:$/.test(part));
  });
  const isStraight = parts.every((part) => !part.startsWith("."));
  return isStraight && parts.length > 0 ? parts.join("-") : folder;
}
