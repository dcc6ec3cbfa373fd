/** What one connection receives: joins a receiver, a keeper of frames, and a socket. */
import type { Key } from "../auth/key.ts";
import { asksForKey, broken, closedEarly, conversationError } from "./errors.ts";
import { asFramesError, FramesError } from "../errors.ts";
import type { FrameKeeper } from "../frame.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { connect } from "../net/connect.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "../net/connection.ts";
import { ClientGreeting } from "../session/greeting.ts";
import { Receiver } from "../session/receiver.ts";
import type { ReceiverEvents, ReceiverLimits } from "../session/receiving.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

/** How one connection goes. Times are in milliseconds. */
export interface PickupOptions {
  readonly grants: ReceiverLimits;
  readonly timeout: number;
  readonly connectWithin: number;
  /** Is proved over TLS 1.3; without it the connection is plain. */
  readonly key: Key | undefined;
}

/** What it tells. */
export interface PickupEvents extends Pick<
  ReceiverEvents,
  "welcome" | "ended" | "lost" | "gone" | "trace"
> {
  /** About once a second. What it throws ends the connection. */
  tick(): void;
  /** Frames are settled, and the server can be told to go on behind the first `ended` of this connection. */
  kept(ended: number): void;
}

/** How a connection ended on which nothing broke. */
export interface PickedUp {
  readonly counts: Readonly<Done>;
  /** Whether the server had nothing more; if not, this end wanted no more. */
  readonly isComplete: boolean;
}

/** A cursor that came. */
interface Mark {
  readonly keep: () => void;
  /** Frames that had ended then. */
  readonly ended: number;
}

/** What is on its way when receiving is stopped gets this long, in milliseconds. */
const stopWithin = 10_000;

export class Pickup implements ConnectionHandler {
  readonly #address: Address;
  readonly #keeper: FrameKeeper;
  readonly #options: PickupOptions;
  readonly #events: PickupEvents;
  readonly #receiver: Receiver;
  readonly #finished = Promise.withResolvers<PickedUp>();
  /** Cursors that came, and how to keep them when so many frames are settled. */
  readonly #marks: Mark[] = [];
  #connection: Connection | undefined;
  #isWelcome = false;
  #isPaused = false;
  #isOver = false;
  #heard = false;
  /** Whether anything came since the last turn of the event loop. */
  #fresh = false;
  #isSettling = false;
  #settlesAgain = false;
  #deadline: NodeJS.Timeout | undefined;
  /** Told when the connection is closed. */
  #result: PickedUp | undefined;

  constructor(
    address: Address,
    hello: Hello,
    keeper: FrameKeeper,
    options: PickupOptions,
    events: PickupEvents,
  ) {
    this.#address = address;
    this.#keeper = keeper;
    this.#options = options;
    this.#events = events;
    const { grants, timeout, key } = options;
    const greeting = new ClientGreeting(hello, key);
    this.#receiver = new Receiver(
      keeper,
      grants,
      timeout,
      steadyNow(),
      {
        ...events,
        hello: () => {
          throw new FramesError("internal");
        },
        welcome: (welcome) => {
          keeper.welcomed(welcome.identity, `${welcome.store ?? "a store"} on ${this.#where}`);
          this.#checkResumed(hello, welcome);
          this.#isWelcome = true;
          events.welcome?.(welcome);
        },
        claim: (stream) => {
          if (stream === hello.stream) return;
          throw new FramesError("protocol", `Cannot accept SOURCE: it is of another stream`);
        },
        cursor: (cursor, ended) => this.#marks.push({ keep: keeper.mark(cursor), ended }),
        wake: () => {
          this.#goOn();
          this.#settleLater();
        },
        failed: (error) => {
          // What a program throws that takes frames is its own affair.
          if (error instanceof FramesError) this.failed(error);
          else this.#fail(error);
        },
      },
      greeting,
    );
  }

  /** How the frames of this connection ended so far. */
  get counts(): Readonly<Done> {
    return this.#receiver.counts;
  }

  get #where(): string {
    return formatAddress(this.#address);
  }

  /** Whoever keeps nothing would take what has come for new. */
  #checkResumed({ cursor }: Hello, { resumed }: Welcome): void {
    if (cursor === undefined || resumed !== false || this.#keeper.isLasting) return;
    throw new FramesError(
      "other-store",
      `${this.#where} cannot go on where this was: its journal has another order, and all would come twice; begin anew, or into a directory`,
    );
  }

  /**
   * Connects and receives until there is nothing more.
   *
   * @throws {FramesError} if the connection failed
   */
  async run(): Promise<PickedUp> {
    const { connectWithin, key } = this.#options;
    try {
      const connecting = connect(this.#address, this, connectWithin, key !== undefined);
      // Whichever fails first is told: when it is stopped, nobody waits for a connection.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } catch (error) {
      this.#end();
      this.#receiver.close();
      throw error;
    }
  }

  /** Receives no more than what has begun. */
  interrupt(): void {
    if (this.#isOver || this.#deadline !== undefined) return;
    if (!this.#isWelcome) {
      return this.#fail(new FramesError("interrupted", `Interrupted before ${this.#where} sent`));
    }
    this.#deadline = setTimeout(() => {
      const message = "Interrupted: what was on its way did not come in time";
      this.#fail(new FramesError("interrupted", message));
    }, stopWithin);
    this.#receiver.leave();
    this.#settleLater();
  }

  get tickEvery(): number {
    return Math.min(1000, this.#options.timeout / 4);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    if (this.#isOver) return connection.terminate();
    this.#receiver.connected(steadyNow(), connection.exporter);
    this.#send();
  }

  #send(): void {
    const connection = this.#connection!;
    for (const bytes of this.#receiver.take(steadyNow())) connection.send(bytes);
  }

  data(chunk: Uint8Array): void {
    if (this.#isOver) return;
    if (!this.#heard && this.#options.key === undefined) {
      const asks = asksForKey(chunk, this.#where);
      if (asks !== undefined) return this.#fail(asks);
    }
    this.#heard = true;
    this.#fresh = true;
    const receiver = this.#receiver;
    receiver.receive(chunk, steadyNow());
    if (receiver.isPaused || this.#keeper.isFull) this.#hold();
    if (receiver.wantsFlush || receiver.hasLeft || this.#marks.length > 0) this.#settleLater();
    this.#send();
  }

  /** Reads nothing more for now. */
  #hold(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#connection!.pause();
  }

  #goOn(): void {
    if (!this.#isPaused || this.#receiver.isPaused || this.#keeper.isFull) return;
    this.#isPaused = false;
    this.#connection!.resume();
  }

  /** What came is settled when nothing more comes in this turn of the event loop, or enough waits. */
  #settleLater(): void {
    this.#settlesAgain = true;
    if (this.#isSettling) return;
    this.#isSettling = true;
    setImmediate(() => void this.#settle());
  }

  async #settle(): Promise<void> {
    try {
      while (this.#settlesAgain && !this.#isOver) {
        const isDry = !this.#fresh;
        this.#fresh = false;
        if (isDry || this.#receiver.isReceiptDue || this.#receiver.hasLeft) {
          this.#settlesAgain = false;
          await this.#settleNow();
        }
        if (this.#settlesAgain) await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      this.failed(asFramesError(error, "store"));
    } finally {
      this.#isSettling = false;
    }
  }

  async #settleNow(): Promise<void> {
    const receiver = this.#receiver;
    const { flushable } = receiver;
    let mark: Mark | undefined;
    while ((this.#marks[0]?.ended ?? Infinity) <= flushable.frames) mark = this.#marks.shift();
    mark?.keep();
    await this.#keeper.flush();
    if (mark !== undefined) this.#events.kept(mark.ended);
    if (this.#isOver || this.#connection!.isClosed) return;
    receiver.settle(steadyNow(), flushable);
    this.#send();
    const hasLeft = receiver.hasLeft && receiver.unreceipted === 0;
    if (!receiver.isDone && !hasLeft) return;
    const isComplete = receiver.isDone;
    const counts = { ...receiver.counts };
    this.#end();
    // What was said last is to reach the server.
    this.#connection!.finish();
    this.#result = { counts, isComplete };
  }

  drained(): void {}

  tick(): void {
    if (this.#isOver) return;
    this.#events.tick();
    this.#receiver.tick(steadyNow(), this.#isPaused);
    this.#goOn();
    this.#send();
  }

  ended(): void {
    if (!this.#isOver) this.#fail(closedEarly(this.#where, this.#isWelcome, "received"));
  }

  failed(failure: FramesError): void {
    const hasKey = this.#options.key !== undefined;
    const { error, said } = conversationError(failure, this.#where, hasKey);
    this.#fail(error, said);
  }

  closed(error: FramesError | undefined): void {
    if (this.#result !== undefined) return this.#finished.resolve(this.#result);
    if (error === undefined) return this.ended();
    this.#fail(broken(this.#where, error));
  }

  /** @param said what the server is told, if it can be */
  #fail(error: unknown, said?: FramesError): void {
    if (this.#isOver) return;
    this.#end();
    const connection = this.#connection;
    if (connection !== undefined && !connection.isClosed) {
      const reason = said ?? (error instanceof FramesError ? error : undefined);
      // What is wrong here only is no error to the server.
      if (reason !== undefined && reason.wire !== 0) this.#receiver.fail(reason);
      this.#send();
      connection.finish();
    }
    this.#finished.reject(error);
  }

  #end(): void {
    this.#isOver = true;
    clearTimeout(this.#deadline);
  }
}
