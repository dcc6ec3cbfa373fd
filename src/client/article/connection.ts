/** One connection to the article's server (SPEC appendix A): sends one source over a socket. */
import { asFramesError, FramesError, systemCode } from "../../errors.ts";
import type { Frame, FrameSource, Loss } from "../../frame.ts";
import { monotonicNow } from "../../common/clock.ts";
import type { Connection } from "../../net/connection.ts";
import { ClientConnection, type ClientConnectionOptions } from "../client-connection.ts";
import type { SendOptions } from "../send-options.ts";
import type { SourceProgress, Undelivered } from "../../protocol/progress.ts";
import { ArticleSender } from "../../protocol/article/article-sender.ts";

export interface ArticleSendConnectionOptions extends ClientConnectionOptions {
  readonly stream: string;
  readonly source: FrameSource;
  /** Progress of the source, which the connection updates. */
  readonly progress: SourceProgress;
  /** The server accepted the header. */
  readonly onWelcome: () => void;
  readonly onUndelivered: (report: Undelivered) => void;
  readonly onMessage: SendOptions["onMessage"];
}

/** Time that the server has to close the connection after `over`. */
const closeTimeoutMs = 250;

/** Larger pictures are read while they are sent; a change meanwhile fails the connection. */
const maxBufferedBytes = 32 << 20;

/** A picture that is open for reading. */
interface OpenedFrame {
  readonly frame: Frame;
  readonly pieces: AsyncIterator<Uint8Array, undefined>;
}

export class ArticleSendConnection extends ClientConnection<void> {
  protected readonly verb = "delivered";
  readonly #options: ArticleSendConnectionOptions;
  readonly #source: FrameSource;
  readonly #progress: SourceProgress;
  readonly #sender: ArticleSender;
  #timer: NodeJS.Timeout | undefined;
  /** Whether a read of the source is pending; sending pauses meanwhile. */
  #isReading = false;
  #isStopping = false;
  #isInterrupted = false;
  #isWelcomed = false;
  #current: OpenedFrame | undefined;
  /** Pictures of one byte, sent last because the published server never finishes one. */
  readonly #oneByteFrames: Frame[] = [];
  #isSourceDone = false;

  constructor(options: ArticleSendConnectionOptions) {
    super(options);
    const { source, stream, progress, timeout } = options;
    this.#options = options;
    this.#source = source;
    this.#progress = progress;
    this.#sender = new ArticleSender(source.name, stream, timeout);
  }

  /** Whether `interrupt` ended it before the source did; never true of a live source. */
  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  protected get isWelcomed(): boolean {
    return this.#sender.isAccepted;
  }

  /**
   * Connects and sends until the server has read all pictures.
   *
   * @throws {FramesError} if the connection failed
   */
  override async run(): Promise<void> {
    try {
      await super.run();
    } catch (error) {
      const isRefused = error instanceof FramesError && systemCode(error.cause) === "ECONNREFUSED";
      if (!isRefused) throw error;
      const message = `Cannot connect to ${this.peer}: connection refused; start the article's server there`;
      throw new FramesError("unreachable", message, { cause: error });
    } finally {
      clearTimeout(this.#timer);
      await this.#current?.pieces.return?.();
    }
  }

  /** Finishes the current picture, and ends; fails at once if the server has not answered yet. */
  interrupt(): void {
    const message = `Interrupted: ${this.peer} did not answer the last frame in time`;
    const error = new FramesError("interrupted", message);
    if (!this.beginStop(error, error) || this.isEnded) return;
    this.#isStopping = true;
    this.#source.stopCapture?.();
  }

  protected onConnected(): void {}

  /** Executes steps of the sender until one has to wait for an answer, a timer or the source. */
  protected send(connection: Connection): void {
    clearTimeout(this.#timer);
    while (!this.isEnded && !this.#isReading && connection.queuedBytes === 0) {
      const step = this.#sender.step(monotonicNow());
      switch (step.action) {
        case "send":
          this.#options.onMessage?.("->", step.what);
          connection.send(step.bytes);
          this.#progress.largeFrameSent = this.#sender.sent;
          this.#progress.largeFrameSize = this.#current?.frame.size ?? 0;
          break;
        case "wait": {
          if (step.until === Infinity) return;
          // Read the socket first: answers may have arrived while this process was busy.
          const sendLater = () => setImmediate(() => this.wake());
          this.#timer = setTimeout(sendLater, Math.max(1, Math.ceil(step.until - monotonicNow())));
          return;
        }
        case "next":
          return this.#await(() => this.#advance());
        case "give":
          return this.#await(() => this.#sendPiece());
        case "stuck":
          return this.#rejectOneByteFrames();
        case "done":
          return this.complete(undefined, closeTimeoutMs);
      }
    }
  }

  /** Waits for a read of the source, and then continues to send. */
  #await(wait: () => Promise<void>): void {
    this.#isReading = true;
    wait().then(
      () => {
        this.#isReading = false;
        this.wake();
      },
      (error: unknown) => this.failWith(error),
    );
  }

  /** Reports the current picture as delivered, and begins the next one. */
  async #advance(): Promise<void> {
    if (!this.#isWelcomed) {
      this.#isWelcomed = true;
      this.#options.onWelcome();
    }
    if (this.#current !== undefined) this.#onDelivered(this.#current.frame);
    this.#current = undefined;
    // A live source ends by itself, after the frames that it has captured.
    if (this.#isStopping && this.#source.stopCapture === undefined) {
      this.#isInterrupted = true;
      return this.#sender.finish();
    }
    const opened = await this.#openNext();
    if (opened === undefined) return this.#sender.finish();
    this.#current = opened;
    this.#sender.begin(opened.frame.size, opened.frame.name);
  }

  #onDelivered(frame: Frame): void {
    const progress = this.#progress;
    this.#source.onSettled?.(frame);
    progress.sent++;
    progress.settled++;
    progress.bytes += frame.size;
    progress.settledBytes += frame.size;
    progress.largeFrameSent = progress.largeFrameSize = 0;
  }

  #onUndelivered({ first, last, what, error }: Loss): void {
    this.#progress.lost += last - first + 1;
    this.#options.onUndelivered({ source: this.#source.name, first, last, what, error });
  }

  async #openNext(): Promise<OpenedFrame | undefined> {
    while (!this.#isSourceDone) {
      const item = await this.#source.next(false);
      if (item === undefined) this.#isSourceDone = true;
      else if ("error" in item) this.#onUndelivered(item);
      else if (item.size === 1) this.#oneByteFrames.push(item);
      else {
        const opened = await this.#openFrame(item);
        if (opened !== undefined) return opened;
      }
    }
    for (let frame; (frame = this.#oneByteFrames.shift()) !== undefined;) {
      const opened = await this.#openFrame(frame);
      if (opened !== undefined) return opened;
    }
    return undefined;
  }

  /** Opens a picture; returns undefined after reporting one that cannot be sent. */
  async #openFrame(original: Frame): Promise<OpenedFrame | undefined> {
    let frame = original;
    if (frame.name.includes("|")) {
      const error = new FramesError(
        "bad-name",
        "the article's dialect cannot carry a name with |; rename the file",
      );
      this.#onUndelivered(toLoss(frame, error));
      return undefined;
    }
    for (;;) {
      try {
        if (frame.size > maxBufferedBytes) return { frame, pieces: frame.pieces() };
        const bytes = new Uint8Array(frame.size);
        frame.read(bytes);
        return { frame, pieces: [bytes].values() as unknown as OpenedFrame["pieces"] };
      } catch (error) {
        const retried = this.#source.retry(frame, asFramesError(error, "unreadable"));
        if ("error" in retried) {
          this.#onUndelivered(retried);
          return undefined;
        }
        frame = retried;
      }
    }
  }

  async #sendPiece(): Promise<void> {
    const { frame, pieces } = this.#current!;
    const { value } = await pieces.next();
    if (value === undefined)
      throw new FramesError("changed", `${frame.name} became shorter while it was read`);
    this.#sender.pushPayload(value as Uint8Array<ArrayBuffer>);
  }

  /** Reports the remaining pictures, all of one byte, as not stored, and closes the connection. */
  #rejectOneByteFrames(): void {
    const message = "the article's server never finishes a frame of one byte";
    const error = new FramesError("not-stored", message);
    for (const frame of [this.#current!.frame, ...this.#oneByteFrames]) {
      this.#onUndelivered(toLoss(frame, error));
    }
    // The server still waits for the rest of the picture.
    this.complete(undefined, 0);
  }

  /** The dialect has no keys, so the first bytes are an answer, as all others. */
  override onData(chunk: Uint8Array, now: number): void {
    if (!this.isEnded) this.receive(chunk, now);
  }

  protected receive(chunk: Uint8Array, now: number): void {
    this.#options.onMessage?.("<-", new TextDecoder("latin1").decode(chunk.subarray(0, 80)));
    this.#sender.receive(chunk, now);
  }

  protected checkTimeouts(now: number): void {
    // Throws `timeout` if an answer is overdue, also when the server does not read at all.
    this.#sender.tick(now);
  }

  protected override closedError(): FramesError {
    if (this.isWelcomed) return super.closedError();
    const header = `${this.#source.name}|${this.#options.stream}`;
    const hint = "check that it is the article's server, and that it accepts this kind";
    const message = `${this.peer} closed the connection instead of answering ${header}: ${hint}`;
    return new FramesError("foreign", message);
  }

  override fail(error: FramesError): void {
    const { peer } = this;
    if (error.code === "foreign") {
      const message = `${peer} does not speak the article's dialect: ${error.message}`;
      return this.failWith(new FramesError("foreign", message));
    }
    if (error.code !== "timeout") return this.failWith(error);
    this.failWith(new FramesError("timeout", `${peer}: ${error.message}`));
  }

  protected leave(connection: Connection): void {
    connection.terminate();
  }

  protected release(): void {}
}

function toLoss({ sequence, name }: Frame, error: FramesError): Loss {
  return { first: sequence, last: sequence, what: name, error };
}
