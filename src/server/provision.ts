/** Gives frames out to one client that receives: joins a provider, what the journal holds, and a socket. */
import type { KeyEntry } from "../auth/key.ts";
import { asFramesError, FramesError, heard } from "../errors.ts";
import type { Guest } from "./guest.ts";
import type { Host } from "./host.ts";
import { CompleteSupply, LatestSupply, type Wanted } from "./journal-supply.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "../net/connection.ts";
import { Provider } from "../session/provider.ts";
import { RemoteSupply } from "./remote-supply.ts";
import type { Flushable } from "../session/receiving.ts";
import type { Supply } from "../session/supply.ts";
import { outgoingBuffer, Transmission } from "../session/transmission.ts";
import type { OldFrame } from "../store/removals.ts";
import type { Follower } from "../store/retention.ts";
import type { Decoder } from "../wire/decode.ts";
import type { Done, Hello } from "../wire/messages.ts";

/** Bytes that one client is given before all others have their turn: senders too. */
const mostAtOnce = 1 << 20;

/** A client that confirms nothing for so long, in milliseconds, keeps no frame from being removed. */
const awaitsFor = 60_000;

/**
 * Buffers that nobody uses now. A client has one only while bytes in it wait for its socket: a thousand that
 * are up to date have none.
 */
const spare: Uint8Array[] = [];
const mostSpare = 4;

/** Whoever was let in to receive. */
type Admitted = Pick<Guest, "peer" | "since" | "key">;

export class Provision implements ConnectionHandler, Guest, Follower {
  readonly peer: string;
  readonly since: Date;
  readonly key: KeyEntry | undefined;
  /** Its own session is nobody's: nothing supersedes it, and it supersedes nothing. */
  readonly session = undefined;
  readonly flushable: Flushable = { frames: 0, answers: 0 };
  readonly #server: Host;
  readonly #hello: Hello;
  readonly #wanted: Wanted;
  readonly #supply: Supply;
  /** Where it goes on. */
  readonly #start: number;
  readonly #gone = Promise.withResolvers<void>();
  readonly #unfollow: () => void;
  #provider: Provider | undefined;
  #connection: Connection | undefined;
  #buffer: Uint8Array | undefined;
  #isPumping = false;
  #isScheduled = false;
  #isPaused = false;
  #failure: FramesError | undefined;
  #reported = false;
  /** What it had settled when that was last looked at, and since when it is so. */
  #seen = { position: 0, at: steadyNow() };

  /** @param hello of a client that may receive */
  constructor(server: Host, { peer, since, key }: Admitted, hello: Hello) {
    this.#server = server;
    this.peer = peer;
    this.since = since;
    this.key = key;
    this.#hello = hello;
    const { stream, sources, cursor, follow = false } = hello;
    const time = hello.since === undefined ? undefined : BigInt.asIntN(64, BigInt(hello.since));
    this.#wanted = { stream, sources, since: time, cursor, follow };
    const { reader } = server;
    const supply =
      hello.latest === true
        ? new LatestSupply(reader, this.#wanted)
        : new CompleteSupply(reader, this.#wanted);
    this.#supply =
      reader.fetch === undefined
        ? supply
        : new RemoteSupply(supply, reader.fetch, () => this.#schedule());
    this.#start = this.#supply.position;
    this.#unfollow = reader.arrivals.follow(() => this.#schedule());
    // Whoever wants the newest only awaits none of those before.
    if (hello.latest !== true) reader.followers.add(this);
  }

  /** The client is let in: `decoder` has read its greeting. */
  takeOver(decoder: Decoder): void {
    const { timeout, keys } = this.#server;
    const events = { wake: () => this.#schedule() };
    const isGated = keys !== undefined;
    const now = steadyNow();
    this.#provider = new Provider(
      this.#hello,
      decoder,
      this.#supply,
      timeout,
      isGated,
      now,
      events,
    );
  }

  /** The connection is its own from now on. */
  opened(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    const { stream, software = "unknown software" } = this.#hello;
    const key = this.key?.name;
    const { peer } = this;
    this.#server.tell({ type: "receiving", peer, stream, software: heard(software), key });
    this.#schedule();
  }

  awaits({ id, stream, source }: Pick<OldFrame, "id" | "stream" | "source">): boolean {
    const { stream: wanted, sources } = this.#wanted;
    if (stream !== wanted || (sources !== undefined && !sources.includes(source))) return false;
    const isAwaiting = this.#provider?.isAwaiting === true;
    const position = this.#positionOf(isAwaiting);
    const now = steadyNow();
    if (position > this.#seen.position || !isAwaiting) this.#seen = { position, at: now };
    return id > position && now - this.#seen.at < awaitsFor;
  }

  /** The last row that the client has for good. */
  #positionOf(isAwaiting: boolean): number {
    if (!isAwaiting) return this.#supply.position;
    return Math.max(this.#provider!.position, this.#start);
  }

  /** Whether it goes on at the client's cursor; nothing where there is none. */
  get isResumed(): boolean | undefined {
    const { cursor, latest } = this.#hello;
    return cursor === undefined || latest === true ? undefined : this.#start > 0;
  }

  get isOver(): boolean {
    return this.#failure !== undefined || this.#connection?.isClosed === true;
  }

  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  get tickEvery(): number {
    return Math.min(1000, this.#server.timeout / 4);
  }

  // It has nothing that the store would have to settle.

  isDue(): boolean {
    return false;
  }

  settle(): void {}

  isThere(): Promise<boolean> {
    return Promise.resolve(!this.isOver);
  }

  /** Goes on in the next turn of the event loop, when all others had theirs. */
  #schedule(): void {
    if (this.#isScheduled || this.#connection === undefined || this.isOver) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#pump();
    });
  }

  /** Sends what there is, until the socket is full, nothing is ready, or it is the turn of others. */
  #pump(): void {
    const connection = this.#connection!;
    if (this.#isPumping || connection.isClosed || connection.queued > 0) return;
    this.#isPumping = true;
    try {
      let left = mostAtOnce;
      const buffer = (this.#buffer ??= spare.pop() ?? new Uint8Array(outgoingBuffer));
      while (connection.queued === 0 && !connection.isClosed && left > 0) {
        const out = new Transmission(buffer);
        this.#provider!.transmit(out, steadyNow());
        if (out.length === 0) break;
        connection.send(buffer.subarray(0, out.length));
        if (out.piece !== undefined) connection.send(out.piece);
        left -= out.length + (out.piece?.length ?? 0);
      }
      if (connection.queued === 0) this.#giveBack();
      // Nobody else wakes it.
      if (connection.queued === 0 && (left <= 0 || this.#supply.isBusy)) this.#schedule();
    } catch (error) {
      this.failed(asFramesError(error, "internal"));
    } finally {
      this.#isPumping = false;
    }
  }

  #giveBack(): void {
    if (this.#buffer !== undefined && spare.length < mostSpare) spare.push(this.#buffer);
    this.#buffer = undefined;
  }

  data(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    const provider = this.#provider!;
    provider.receive(chunk, steadyNow());
    if (provider.isPaused) this.#pause();
    if (!provider.isDone) return;
    this.#report();
    this.#connection!.finish();
  }

  /** Reads nothing more for now. */
  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#connection!.pause();
  }

  drained(): void {
    this.#pump();
  }

  tick(): void {
    const provider = this.#provider!;
    if (this.#failure !== undefined || provider.isDone) return;
    provider.tick(steadyNow());
    if (!this.#isPaused || provider.isPaused) return;
    this.#isPaused = false;
    this.#connection!.resume();
  }

  ended(): void {
    // Whoever wants no more closes: what has no receipt comes again another time.
    this.#report();
    this.#connection!.finish();
  }

  failed(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.discard();
    this.#report(error);
    const connection = this.#connection!;
    // Only behind a whole message: what waits already would have to be read first.
    if (connection.queued > 0 || connection.isClosed) return connection.terminate();
    this.#provider!.fail(error);
    const out = new Transmission(new Uint8Array(1 << 17));
    this.#provider!.transmit(out, steadyNow());
    connection.send(out.bytes);
    connection.finish();
  }

  /** It is over, once. */
  #report(error?: FramesError): void {
    if (this.#reported) return;
    this.#reported = true;
    const { peer } = this;
    const { stream } = this.#hello;
    const { provided } = this.#provider!;
    if (error === undefined) {
      return this.#server.tell({ type: "received", peer, stream, provided });
    }
    const { frames, refused } = provided;
    const counts: Done = {
      frames: frames + refused,
      stored: frames,
      present: 0,
      refused,
      aborted: 0,
    };
    this.#server.tell({ type: "failed", peer, session: undefined, stream, counts, error });
  }

  /** Holds nothing more of the store. */
  discard(): void {
    this.#unfollow();
    this.#server.reader.followers.delete(this);
    this.#provider?.close();
  }

  closed(error: FramesError | undefined): void {
    this.discard();
    this.#buffer = undefined;
    this.#server.remove(this);
    this.#report(error ?? new FramesError("network", "The receiver closed before it was done"));
    this.#gone.resolve();
  }
}
