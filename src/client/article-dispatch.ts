/** Sends one source to the article's server (SPEC appendix A): joins a machine and a socket. */
import { asFramesError, FramesError, systemCode } from "../errors.ts";
import type { Frame, FrameSource, Loss } from "../frame.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { connect } from "../net/connect.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "../net/connection.ts";
import { ArticleSender } from "../session/article-sender.ts";

/** Times are in milliseconds. */
export interface ArticleDispatchOptions {
  readonly stream: string;
  readonly timeout: number;
  readonly connectWithin: number;
}

/** What a dispatch tells. */
export interface ArticleDispatchEvents {
  /** The server took the header. */
  welcome(): void;
  /** Bytes of the picture under way are sent, of so many. */
  part(sent: number, size: number): void;
  /** The server has read a picture. */
  delivered(frame: Frame): void;
  undelivered(loss: Loss): void;
  /** About once a second. */
  tick(): void;
  trace?(direction: "->" | "<-", line: string): void;
}

/** What is on its way when a delivery is stopped gets this long, in milliseconds. */
const stopWithin = 10_000;

/** The server gets this long, in milliseconds, to close after `over`. */
const closeWithin = 250;

/** Larger pictures are read while they are sent: one that changes then ends the delivery. */
const mostInMemory = 32 << 20;

/** A picture that is ready to be sent. */
interface Ready {
  readonly frame: Frame;
  /** Its bytes in order. */
  readonly pieces: AsyncIterator<Uint8Array, undefined>;
}

export class ArticleDispatch implements ConnectionHandler {
  readonly #address: Address;
  readonly #source: FrameSource;
  readonly #options: ArticleDispatchOptions;
  readonly #events: ArticleDispatchEvents;
  readonly #sender: ArticleSender;
  readonly #finished = Promise.withResolvers<void>();
  #connection: Connection | undefined;
  #timer: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;
  /** Whether something that was asked for is on its way. */
  #isReading = false;
  #ended = false;
  #stopping = false;
  #interrupted = false;
  #welcomed = false;
  #under: Ready | undefined;
  /** Pictures of one byte, which the published server cannot take: they come last. */
  readonly #tiny: Frame[] = [];
  #isSourceDone = false;

  constructor(
    address: Address,
    source: FrameSource,
    options: ArticleDispatchOptions,
    events: ArticleDispatchEvents,
  ) {
    this.#address = address;
    this.#source = source;
    this.#options = options;
    this.#events = events;
    this.#sender = new ArticleSender(source.name, options.stream, options.timeout);
  }

  /** Whether it was stopped before everything was sent. */
  get isInterrupted(): boolean {
    return this.#interrupted;
  }

  /**
   * Connects and sends until all is read.
   *
   * @throws {FramesError} if the connection failed
   */
  async run(): Promise<void> {
    try {
      const connecting = connect(this.#address, this, this.#options.connectWithin);
      await Promise.race([connecting.then(() => this.#finished.promise), this.#finished.promise]);
    } catch (error) {
      this.#end();
      const isRefused = error instanceof FramesError && systemCode(error.cause) === "ECONNREFUSED";
      if (!isRefused) throw error;
      const message = `Cannot connect to ${this.#where()}: connection refused; is the article's server running there?`;
      throw new FramesError("unreachable", message, { cause: error });
    } finally {
      await this.#under?.pieces.return?.();
    }
  }

  /** Sends nothing more than the picture that is under way. */
  interrupt(): void {
    if (this.#stopping || this.#ended) return;
    this.#stopping = true;
    const message = `Interrupted: ${this.#where()} did not take the last picture in time`;
    const fail = () => this.#fail(new FramesError("interrupted", message));
    if (!this.#welcomed) return fail();
    this.#deadline = setTimeout(fail, stopWithin);
    this.#source.stop?.();
  }

  get tickEvery(): number {
    return Math.min(1000, this.#options.timeout / 4);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    if (this.#ended) return connection.terminate();
    this.#pump();
  }

  /** Does what there is to be done, until something has to be waited for. */
  #pump(): void {
    clearTimeout(this.#timer);
    while (!this.#ended && !this.#isReading && this.#connection?.queued === 0) {
      const step = this.#sender.step(steadyNow());
      switch (step.act) {
        case "send":
          this.#events.trace?.("->", step.what);
          this.#connection.send(step.bytes);
          this.#events.part(this.#sender.sent, this.#under?.frame.size ?? 0);
          break;
        case "wait": {
          if (step.until === Infinity) return;
          // What came while this process was busy is read first.
          const late = () => setImmediate(() => this.#pump());
          this.#timer = setTimeout(late, Math.max(1, Math.ceil(step.until - steadyNow())));
          return;
        }
        case "next":
          return this.#read(() => this.#next());
        case "give":
          return this.#read(() => this.#give());
        case "stuck":
          return this.#stuck();
        case "done":
          this.#end();
          this.#connection.finish(closeWithin);
          return this.#finished.resolve();
      }
    }
  }

  /** Waits for the source, and goes on. */
  #read(act: () => Promise<void>): void {
    this.#isReading = true;
    act().then(
      () => {
        this.#isReading = false;
        this.#pump();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  /** What was under way is there: goes on to the next picture. */
  async #next(): Promise<void> {
    if (!this.#welcomed) {
      this.#welcomed = true;
      this.#events.welcome();
    }
    if (this.#under !== undefined) {
      const { frame } = this.#under;
      this.#under = undefined;
      this.#events.delivered(frame);
    }
    // What captures live gives what it has, and then ends.
    if (this.#stopping && this.#source.stop === undefined) {
      this.#interrupted = true;
      return this.#sender.finish();
    }
    const ready = await this.#nextReady();
    if (ready === undefined) return this.#sender.finish();
    this.#under = ready;
    this.#sender.begin(ready.frame.size, ready.frame.name);
  }

  async #nextReady(): Promise<Ready | undefined> {
    while (!this.#isSourceDone) {
      const item = await this.#source.next(false);
      if (item === undefined) this.#isSourceDone = true;
      else if ("error" in item) this.#events.undelivered(item);
      else if (item.size === 1) this.#tiny.push(item);
      else {
        const ready = await this.#open(item);
        if (ready !== undefined) return ready;
      }
    }
    for (let frame; (frame = this.#tiny.shift()) !== undefined;) {
      const ready = await this.#open(frame);
      if (ready !== undefined) return ready;
    }
    return undefined;
  }

  /** Reads a picture, or reports that it cannot be sent. */
  async #open(given: Frame): Promise<Ready | undefined> {
    let frame = given;
    if (frame.name.includes("|")) {
      const error = new FramesError("bad-name", "the article's dialect cannot say a name with |");
      this.#events.undelivered(lossOf(frame, error));
      return undefined;
    }
    for (;;) {
      try {
        if (frame.size > mostInMemory) return { frame, pieces: frame.pieces() };
        const bytes = new Uint8Array(frame.size);
        frame.read(bytes);
        return { frame, pieces: [bytes].values() as unknown as Ready["pieces"] };
      } catch (error) {
        const again = this.#source.again(frame, asFramesError(error, "unreadable"));
        if ("error" in again) {
          this.#events.undelivered(again);
          return undefined;
        }
        frame = again;
      }
    }
  }

  async #give(): Promise<void> {
    const { frame, pieces } = this.#under!;
    const { value } = await pieces.next();
    if (value === undefined)
      throw new FramesError("changed", `${frame.name} is shorter than it was`);
    this.#sender.give(value as Uint8Array<ArrayBuffer>);
  }

  /** What is left are pictures of one byte, none of which the server can take. */
  #stuck(): void {
    const message = "the published server never finishes a picture of one byte";
    const error = new FramesError("not-stored", message);
    for (const frame of [this.#under!.frame, ...this.#tiny]) {
      this.#events.undelivered(lossOf(frame, error));
    }
    this.#end();
    this.#connection!.terminate();
    this.#finished.resolve();
  }

  data(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#events.trace?.("<-", new TextDecoder("latin1").decode(chunk.subarray(0, 80)));
    this.#sender.receive(chunk, steadyNow());
    this.#pump();
  }

  drained(): void {
    this.#pump();
  }

  tick(): void {
    if (this.#ended) return;
    this.#events.tick();
    // Whoever has not taken what was sent is waited for in TCP.
    this.#sender.tick(steadyNow());
  }

  ended(): void {
    if (this.#sender.isWelcome) {
      const message = `${this.#where()} closed the connection before all was delivered`;
      return this.#fail(new FramesError("network", message));
    }
    const header = `${this.#source.name}|${this.#options.stream}`;
    const hint = "is it the article's server, and does it take that kind?";
    const message = `${this.#where()} closed the connection instead of answering ${header}: ${hint}`;
    this.#fail(new FramesError("foreign", message));
  }

  failed(error: FramesError): void {
    const where = this.#where();
    if (error.code === "foreign") {
      const message = `${where} does not speak the article's dialect: ${error.message}`;
      return this.#fail(new FramesError("foreign", message));
    }
    if (error.code !== "timeout") return this.#fail(error);
    this.#fail(new FramesError("timeout", `${where}: ${error.message}`));
  }

  closed(error: FramesError | undefined): void {
    if (error === undefined) return this.ended();
    const message = `The connection to ${this.#where()} broke: ${error.message}`;
    this.#fail(new FramesError("network", message));
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#end();
    this.#connection?.terminate();
    this.#finished.reject(error);
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#deadline);
  }

  #where(): string {
    return formatAddress(this.#address);
  }
}

function lossOf({ sequence, name }: Frame, error: FramesError): Loss {
  return { first: sequence, last: sequence, what: name, error };
}
