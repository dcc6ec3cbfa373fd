/** Receives from one sender: joins a receiver and a socket. */
import { allowsStream, type KeyEntry } from "../auth/key.ts";
import { asFramesError, FramesError, heard } from "../errors.ts";
import type { FrameDescription, Outcome } from "../frame.ts";
import type { Guest } from "./guest.ts";
import type { Host } from "./host.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "../net/connection.ts";
import { Provision } from "./provision.ts";
import { Receiver } from "../session/receiver.ts";
import type { Flushable, Gate, Greeted } from "../session/receiving.ts";
import { StoreWait } from "./store-wait.ts";
import { answerToStranger } from "./strangers.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";

/** A sender whose source another one claims gets this long, in milliseconds, to answer a PING. */
const answerWithin = 5000;

/** One that goes on sending for so long, in milliseconds, is there, whatever it answers. */
const answerAtLast = 60_000;

/** More than this many bytes that a sender does not read: nothing more is read from it. */
const mostQueued = 1 << 20;

/** One sender, as long as it is connected. */
export class Reception implements ConnectionHandler, Guest {
  readonly #server: Host;
  readonly peer: string;
  /** When it connected. */
  readonly since = new Date();
  readonly #receiver: Receiver;
  readonly #gone = Promise.withResolvers<void>();
  readonly #isFull: boolean;
  readonly #wait: StoreWait;
  #key: KeyEntry | undefined;
  /** What gives frames out, if that is wanted. */
  #provision: Provision | undefined;
  /** Whether HELLO came, and the proof of its key if that is asked for. */
  #isKnown = false;
  #connection: Connection | undefined;
  #paused = false;
  #failure: FramesError | undefined;
  #reported = false;
  /** Whether anything came since the last turn of the event loop. */
  #fresh = false;
  #heard = false;
  /** Whether the sender has closed its sending side. */
  #hasEnded = false;
  /** The PING that somebody waits for the answer to, and when anything came last. */
  #asked: { time: string; answer: (isThere: boolean) => void } | undefined;
  #probe: Promise<boolean> | undefined;
  #heardAt = 0;

  /** @param exporter what the TLS channel exports, where the server asks for a key */
  constructor(server: Host, peer: string, isFull: boolean, exporter: Uint8Array | undefined) {
    this.#server = server;
    this.peer = peer;
    this.#isFull = isFull;
    this.#wait = new StoreWait(server.store, {
      goOn: (kept) => this.#readOn(kept),
      failed: (error) => this.failed(asFramesError(error, "store")),
    });
    this.#receiver = new Receiver(
      server.store,
      server.grants,
      server.timeout,
      steadyNow(),
      {
        hello: (hello) => this.#hello(hello),
        handOver: (decoder) => this.#provision!.takeOver(decoder),
        claim: (stream, source) => {
          this.#checkStream(stream);
          return server.claim(stream, source, this);
        },
        unclaim: (stream, source) => server.unclaim(stream, source, this),
        answered: (time) => {
          if (time === this.#asked?.time) this.#asked.answer(true);
        },
        ended: (source, frame, outcome) => this.#ended(source, frame, outcome),
        lost: (source, frames, error) =>
          server.tell({ type: "lost", ...this.#who(), source, frames, error }),
        wake: () => {
          // What waited may have been read meanwhile.
          server.noteHeld(this, this.#receiver.held);
          this.#goOn();
          server.settleLater(this);
        },
        failed: (error) => this.failed(asFramesError(error, "internal")),
      },
      this.#gate(exporter),
    );
  }

  /** Whom the sender proves its key to. */
  #gate(exporter: Uint8Array | undefined): Gate | undefined {
    const { keys } = this.#server;
    if (keys === undefined) return undefined;
    if (exporter === undefined)
      throw new FramesError("internal", "A key was asked for without TLS");
    const nameOf = () => this.#key?.name;
    return {
      exporter,
      find: (id) => {
        this.#key = keys.find(id);
        return this.#key?.key;
      },
      get name() {
        return nameOf();
      },
    };
  }

  /** The key that it has proved. */
  get key(): KeyEntry | undefined {
    return this.#isKnown ? this.#key : undefined;
  }

  #checkStream(stream: string): void {
    if (this.#key === undefined || allowsStream(this.#key, stream)) return;
    const { name, streams } = this.#key;
    throw new FramesError(
      "wrong-stream",
      `The key ${name} is for streams called ${streams}, and not for ${stream}`,
    );
  }

  get session(): string | undefined {
    return this.#isKnown ? this.#receiver.hello?.session : undefined;
  }

  /** Whether nothing more comes of it. */
  get isOver(): boolean {
    return this.#failure !== undefined || this.#receiver.isDone || this.#connection!.isClosed;
  }

  /** Settled when the connection is closed. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  get tickEvery(): number {
    return Math.min(1000, this.#server.timeout / 4);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    if (this.#isFull) this.failed(new FramesError("full"));
  }

  #who(): { peer: string; stream: string } {
    return { peer: this.peer, stream: this.#receiver.hello!.stream };
  }

  #hello(hello: Hello): Greeted {
    this.#isKnown = true;
    this.#connection!.known();
    if (this.#key !== undefined && this.#key.role !== "both" && this.#key.role !== hello.role) {
      const { name, role } = this.#key;
      throw new FramesError("wrong-role", `The key ${name} may only ${role}, not ${hello.role}`);
    }
    this.#checkStream(hello.stream);
    if (hello.role === "receive") return this.#givesOut(hello);
    this.#server.supersede(hello.session, this);
    this.#server.tell({
      type: "session",
      ...this.#who(),
      session: hello.session,
      software: heard(hello.software ?? "unknown software"),
      key: this.#key?.name,
    });
    const { store } = this.#server;
    return { fresh: store.isFresh(hello.stream), store: store.place, software };
  }

  /** From WELCOME on somebody else looks after whoever receives. */
  #givesOut(hello: Hello): Greeted {
    const { reader, store } = this.#server;
    this.#provision = new Provision(this.#server, this, hello);
    const identity = reader.catalog.property("identity");
    const { isResumed } = this.#provision;
    return {
      fresh: !reader.catalog.has(hello),
      store: store.place,
      software,
      ...(identity === undefined ? {} : { identity }),
      ...(isResumed === undefined ? {} : { resumed: isResumed }),
    };
  }

  #handOver(): void {
    const connection = this.#connection!;
    this.#server.remove(this);
    connection.handOver(this.#provision!);
    this.#provision!.opened(connection);
    this.#gone.resolve();
  }

  #ended(source: string, frame: FrameDescription, outcome: Outcome): void {
    if (outcome instanceof FramesError) {
      this.#server.tell({ type: "refused", ...this.#who(), source, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.tellStored(() => ({ ...this.#who(), source, frame }));
    }
  }

  data(chunk: Uint8Array): void {
    if (!this.#heard) {
      this.#heard = true;
      const stranger = answerToStranger(chunk, this.#server);
      if (stranger !== undefined) {
        this.#connection!.send(stranger.answer);
        return this.failed(stranger.error);
      }
    }
    if (this.#failure !== undefined) return;
    if (this.#wait.keeps(chunk)) return this.#hold();
    this.#fresh = true;
    if (this.#asked !== undefined) this.#heardAt = steadyNow();
    this.#receiver.receive(chunk, steadyNow());
    if (this.#receiver.isPaused || this.#wait.isOn) this.#hold();
    this.#server.noteHeld(this, this.#receiver.held);
    if (this.#receiver.wantsFlush) this.#server.settleLater(this);
    this.#send();
    if (this.#provision !== undefined) this.#handOver();
  }

  /** Whether a receipt must leave now: nothing came in this turn, or enough waits. */
  isDue(): boolean {
    const dry = !this.#fresh;
    this.#fresh = false;
    return dry || this.#receiver.isReceiptDue;
  }

  /** Frames that a flush of the store which begins now will settle. */
  get flushable(): Flushable {
    return this.#receiver.flushable;
  }

  /** The store was flushed; `flushed` is what was `flushable` before. */
  settle(flushed: Flushable): void {
    if (this.#connection!.isClosed) return;
    this.#receiver.settle(steadyNow(), flushed);
    this.#send();
    if (this.#failure !== undefined) return;
    const { isDone, isEnding } = this.#receiver;
    // Without END nothing more can come of it; after END, DONE may still wait for the store.
    const isRead = this.#hasEnded && !this.#receiver.isPaused && !this.#wait.isOn;
    if (isRead && !isDone && !isEnding) this.#connection!.finish();
    if (!isDone || this.#reported) return;
    this.#reported = true;
    this.#releaseSources();
    // The sender closes when it has read DONE, however slow its link is.
    this.#connection!.finish(this.#server.timeout);
    this.#server.tell({
      type: "delivered",
      ...this.#who(),
      session: this.session!,
      counts: { ...this.#receiver.counts },
      found: this.#receiver.found,
    });
  }

  /** Whoever ends has no source any more. */
  #releaseSources(): void {
    for (const { stream, name } of this.#receiver.sources) {
      this.#server.unclaim(stream, name, this);
    }
  }

  #send(): void {
    const connection = this.#connection!;
    for (const bytes of this.#receiver.take(steadyNow())) connection.send(bytes);
    if (connection.queued > mostQueued) this.#hold();
  }

  /** Reads nothing more for now. */
  #hold(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#connection!.pause();
  }

  /** Reads on, if nothing is against it. */
  #goOn(): void {
    const isFull = this.#connection!.queued > mostQueued;
    if (!this.#paused || isFull || this.#receiver.isPaused || this.#wait.isOn) return;
    this.#paused = false;
    this.#connection!.resume();
  }

  /** The store is ready for what came meanwhile, and for more. */
  #readOn(kept: readonly Uint8Array[]): void {
    try {
      for (const chunk of kept) this.data(chunk);
    } catch (error) {
      return this.failed(asFramesError(error, "internal"));
    }
    this.#goOn();
    if (this.#hasEnded) this.#server.settleLater(this);
  }

  drained(): void {
    this.#goOn();
  }

  /**
   * Whether the sender answers a PING. What its system had still to send is no answer, but while that
   * comes the answer may be behind it.
   */
  isThere(): Promise<boolean> {
    if (this.isOver) return Promise.resolve(false);
    return (this.#probe ??= this.#ask());
  }

  async #ask(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const asked = steadyNow();
    this.#heardAt = asked;
    this.#asked = { time: this.#receiver.ping(asked), answer: resolve };
    this.#send();
    const isSilent = () => steadyNow() - this.#heardAt >= answerWithin;
    const timer = setInterval(() => {
      if (this.#receiver.isPaused || this.#wait.isOn) {
        // It waits for a source itself and is not read meanwhile; but two may wait for each other.
        this.#heardAt = steadyNow();
        if (this.#heardAt - asked >= answerWithin) resolve(true);
        return;
      }
      // What came while this process was busy is read first.
      if (isSilent()) setImmediate(() => isSilent() && resolve(false));
      else if (steadyNow() - asked >= answerAtLast) resolve(true);
    }, 100);
    const isThere = await promise;
    clearInterval(timer);
    this.#asked = this.#probe = undefined;
    return isThere;
  }

  tick(): void {
    if (this.#failure !== undefined || this.#receiver.isDone) return;
    this.#receiver.tick(steadyNow(), this.#wait.isOn);
    this.#send();
  }

  ended(): void {
    // A sender may close its sending side after END: its DONE is still on the way.
    this.#hasEnded = true;
    void this.#server.settleLast(this);
  }

  failed(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#provision?.discard();
    this.#receiver.stop(error);
    this.#releaseSources();
    this.#server.noteHeld(this, 0);
    this.#asked?.answer(false);
    void this.#end(error);
  }

  /** What ended before is settled first: the sender need not send it again. */
  async #end(error: FramesError): Promise<void> {
    await this.#server.settleLast(this);
    const penance = error.code === "not-let-in" ? this.#server.penanceOf(this.peer) : 0;
    if (penance > 0) await Bun.sleep(penance);
    this.#receiver.fail(error);
    this.#send();
    this.#connection!.finish();
    this.#report(error);
  }

  /** What is wrong with a sender is said once, with what it had delivered. */
  #report(error: FramesError): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#server.tell({
      type: "failed",
      peer: this.peer,
      session: this.session,
      // What somebody says who was not let in is not worth a line in a log.
      stream: this.#isKnown ? this.#receiver.hello?.stream : undefined,
      counts: { ...this.#receiver.counts },
      error,
    });
  }

  closed(error: FramesError | undefined): void {
    this.#receiver.close();
    this.#provision?.discard();
    this.#asked?.answer(false);
    this.#releaseSources();
    this.#server.remove(this);
    if (this.#receiver.hello !== undefined || error !== undefined) {
      this.#report(error ?? new FramesError("network", "The sender closed before it was done"));
    }
    this.#gone.resolve();
  }
}
