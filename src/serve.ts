/** Receives frames: joins listener, receivers and store. */
import { asFramesError, FramesError } from "./errors.ts";
import type { FrameDescription, Outcome } from "./frame.ts";
import { type Address, formatAddress, isLoopback, parseAddress } from "./net/address.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "./net/connection.ts";
import { listen, type Listener } from "./net/listen.ts";
import { Receiver, type ReceiverLimits } from "./session/receiver.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./store/directory.ts";
import { software } from "./version.ts";
import type { Done, Hello } from "./wire/messages.ts";

/** How to serve. */
export interface ServeOptions {
  /** `HOST:PORT`; port 0 lets the system choose. Default `127.0.0.1:9726`. */
  readonly listen?: string;
  /** Lets anyone who reaches the port send frames: needed on any address but loopback. */
  readonly insecure?: boolean;
  /** Largest frame in bytes. Default 64 MiB. */
  readonly maxFrame?: number;
  /** Refuse names that Windows and macOS cannot keep; always so on these. */
  readonly portableNames?: boolean;
  /** Milliseconds after which a silent sender counts as gone. Default 30,000. */
  readonly timeout?: number;
  /** Is told what happens. */
  readonly onEvent?: (event: ServeEvent) => void;
  /** Is told of each frame that was stored; it lasts when its receipt is sent, a little later. */
  readonly onStored?: (stored: StoredEvent) => void;
}

/** A frame that was stored. */
export interface StoredEvent {
  readonly peer: string;
  readonly stream: string;
  readonly source: string;
  readonly frame: FrameDescription;
}

/** What happens at a server. `peer` is the sender's address. */
export type ServeEvent =
  | { type: "session"; peer: string; session: string; stream: string; software: string }
  | {
      type: "refused";
      peer: string;
      stream: string;
      source: string;
      frame: FrameDescription;
      error: FramesError;
    }
  | {
      type: "lost";
      peer: string;
      stream: string;
      source: string;
      frames: number;
      error: FramesError;
    }
  | { type: "delivered"; peer: string; session: string; stream: string; counts: Done }
  | {
      type: "failed";
      peer: string;
      session: string | undefined;
      stream: string | undefined;
      error: FramesError;
    };

/** A running server. */
export interface Server {
  /** Absolute path of the store. */
  readonly directory: string;
  readonly host: string;
  readonly port: number;
  /** `HOST:PORT`, as `send` takes it. */
  readonly address: string;
  /** Takes no more senders, lets those that are connected know, and closes the store. */
  stop(): Promise<void>;
}

const defaultMaxFrame = 64 << 20;

/**
 * Serves a store in `directory`, which is made if it is not there.
 *
 * @throws {FramesError} `store`, `locked`, `unreachable` or `usage`
 *
 * @example
 * ```ts
 * import { send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * const pictures = [{ name: "1.pgm", bytes: new TextEncoder().encode("P5 1 1 255\n!") }];
 * await send(pictures, { to: server.address, stream: "run7", source: "visible" });
 * await server.stop();
 * ```
 */
export async function serve(directory: string, options: ServeOptions = {}): Promise<Server> {
  const address = parseAddress(options.listen ?? "127.0.0.1:9726", "--listen");
  if (!isLoopback(address.host) && options.insecure !== true) {
    throw new FramesError(
      "usage",
      `Cannot listen at ${formatAddress(address)}: this version has no keys yet, so anyone who reaches the port could send; where that is all right, say so with --insecure`,
    );
  }
  const store = new DirectoryStore(directory, {
    portableNames: options.portableNames === true || systemNeedsPortableNames,
    clock: Date.now,
  });
  try {
    return new FrameServer(store, address, options);
  } catch (error) {
    store.close();
    throw error;
  }
}

class FrameServer implements Server {
  readonly #store: DirectoryStore;
  readonly #listener: Listener;
  readonly #connections = new Set<ServerConnection>();
  /** Connections with frames that no receipt has counted. */
  readonly #unsettled = new Set<ServerConnection>();
  #settling = false;
  #stopped: Promise<void> | undefined;
  readonly grants: ReceiverLimits;
  readonly timeout: number;
  readonly onEvent: (event: ServeEvent) => void;
  readonly onStored: ((stored: StoredEvent) => void) | undefined;

  constructor(store: DirectoryStore, address: Address, options: ServeOptions) {
    this.#store = store;
    this.timeout = options.timeout ?? 30_000;
    this.onEvent = options.onEvent ?? (() => {});
    this.onStored = options.onStored;
    this.grants = {
      window: { bytes: 64 << 20, frames: 8192 },
      limits: { frame: options.maxFrame ?? defaultMaxFrame, sources: 10_000, unfinished: 16 },
    };
    this.#listener = listen(address, (peer, isFull) => new ServerConnection(this, peer, isFull));
  }

  get directory(): string {
    return this.#store.place;
  }

  get store(): DirectoryStore {
    return this.#store;
  }

  get host(): string {
    return this.#listener.address.host;
  }

  get port(): number {
    return this.#listener.address.port;
  }

  get address(): string {
    return formatAddress({ host: this.host || "127.0.0.1", port: this.port });
  }

  add(connection: ServerConnection): void {
    this.#connections.add(connection);
  }

  remove(connection: ServerConnection): void {
    this.#connections.delete(connection);
    this.#unsettled.delete(connection);
  }

  /** The newer connection of a session takes over; the older is told, and never comes back. */
  supersede(session: string, by: ServerConnection): void {
    for (const connection of this.#connections) {
      if (connection !== by && connection.session === session) {
        connection.failed(new FramesError("superseded"));
      }
    }
  }

  /**
   * Frames came in on this connection: they are settled when its input runs dry, or when enough of
   * them wait. One flush of the store serves all connections.
   */
  settleLater(connection: ServerConnection): void {
    this.#unsettled.add(connection);
    if (this.#settling) return;
    this.#settling = true;
    setImmediate(() => this.#settle());
  }

  /** Runs once a turn of the event loop while there is something unsettled. */
  #settle(): void {
    const due: ServerConnection[] = [];
    for (const connection of this.#unsettled) {
      if (connection.isDue()) due.push(connection);
    }
    if (due.length > 0) {
      this.flush();
      for (const connection of due) {
        this.#unsettled.delete(connection);
        connection.settle();
      }
    }
    this.#settling = this.#unsettled.size > 0;
    if (this.#settling) setImmediate(() => this.#settle());
  }

  /** Without its journal no server can keep its promise: every sender is told. */
  flush(): void {
    try {
      this.#store.flush();
    } catch (error) {
      const failure = asFramesError(error, "store");
      for (const connection of [...this.#connections]) connection.failed(failure);
    }
  }

  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#listener.stop();
    this.flush();
    for (const connection of [...this.#connections]) {
      connection.settle();
      connection.failed(new FramesError("stopping"));
    }
    await Promise.all([...this.#connections].map((connection) => connection.gone));
    this.#store.close();
  }
}

/** More than this many bytes that a sender does not read: nothing more is read from it. */
const mostQueued = 1 << 20;

/** One sender's connection. */
class ServerConnection implements ConnectionHandler {
  readonly #server: FrameServer;
  readonly #peer: string;
  readonly #receiver: Receiver;
  readonly #gone = Promise.withResolvers<void>();
  readonly #isFull: boolean;
  #connection: Connection | undefined;
  #paused = false;
  #failure: FramesError | undefined;
  #reported = false;
  /** Whether anything came since the last turn of the event loop. */
  #fresh = false;
  #heard = false;

  constructor(server: FrameServer, peer: string, isFull: boolean) {
    this.#server = server;
    this.#peer = peer;
    this.#isFull = isFull;
    this.#receiver = new Receiver(server.store, server.grants, server.timeout, steadyNow(), {
      hello: (hello) => this.#hello(hello),
      ended: (source, frame, outcome) => this.#ended(source, frame, outcome),
      lost: (source, frames, error) =>
        server.onEvent({ type: "lost", ...this.#who(), source, frames, error }),
      wake: () => server.settleLater(this),
    });
  }

  get session(): string | undefined {
    return this.#receiver.hello?.session;
  }

  /** Settled when the connection is closed. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    if (this.#isFull) this.failed(new FramesError("full"));
  }

  #who(): { peer: string; stream: string } {
    return { peer: this.#peer, stream: this.#receiver.hello!.stream };
  }

  #hello(hello: Hello): { fresh: boolean; store: string; software: string } {
    if (hello.role !== "send") {
      throw new FramesError("protocol", "Cannot send frames out: this version only receives");
    }
    this.#server.supersede(hello.session, this);
    this.#server.onEvent({
      type: "session",
      ...this.#who(),
      session: hello.session,
      software: hello.software ?? "unknown software",
    });
    const { store } = this.#server;
    return { fresh: store.isFresh(hello.stream), store: store.place, software };
  }

  #ended(source: string, frame: FrameDescription, outcome: Outcome): void {
    if (outcome instanceof FramesError) {
      this.#server.onEvent({ type: "refused", ...this.#who(), source, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.onStored?.({ ...this.#who(), source, frame });
    }
  }

  data(chunk: Uint8Array): void {
    if (!this.#heard) {
      this.#heard = true;
      if (looksLikeHttp(chunk)) return this.#answerHttp();
    }
    if (this.#failure !== undefined) return;
    this.#fresh = true;
    this.#receiver.receive(chunk, steadyNow());
    if (this.#receiver.wantsFlush) this.#server.settleLater(this);
    this.#send();
  }

  /** Whether a receipt must leave now: nothing came in this turn, or enough waits. */
  isDue(): boolean {
    const dry = !this.#fresh;
    this.#fresh = false;
    return dry || this.#receiver.isReceiptDue;
  }

  /** The store was flushed. */
  settle(): void {
    if (this.#failure !== undefined) return;
    this.#receiver.settle(steadyNow());
    this.#send();
    if (!this.#receiver.isDone || this.#reported) return;
    this.#reported = true;
    this.#connection!.finish();
    this.#server.onEvent({
      type: "delivered",
      ...this.#who(),
      session: this.session!,
      counts: { ...this.#receiver.counts },
    });
  }

  #send(): void {
    const connection = this.#connection!;
    for (const bytes of this.#receiver.take(steadyNow())) connection.send(bytes);
    if (connection.queued > mostQueued && !this.#paused) {
      this.#paused = true;
      connection.pause();
    }
  }

  drained(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#connection!.resume();
  }

  tick(): void {
    if (this.#failure !== undefined || this.#receiver.isDone) return;
    this.#receiver.tick(steadyNow());
    this.#send();
  }

  ended(): void {
    // A sender may close its sending side after END: its DONE is still on the way.
    if (this.#receiver.wantsFlush) this.#server.flush();
    this.settle();
    this.#connection!.finish();
  }

  failed(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#receiver.fail(error);
    this.#send();
    this.#connection!.finish();
    this.#report(error);
  }

  /** What is wrong with a sender is said once, with what it had delivered. */
  #report(error: FramesError): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#server.onEvent({
      type: "failed",
      peer: this.#peer,
      session: this.session,
      stream: this.#receiver.hello?.stream,
      error,
    });
  }

  closed(error: FramesError | undefined): void {
    this.#receiver.close();
    this.#server.remove(this);
    // What ended before the connection did is stored all the same.
    this.#server.flush();
    if (this.#receiver.hello !== undefined || error !== undefined) {
      this.#report(error ?? new FramesError("network", "The sender closed before it was done"));
    }
    this.#gone.resolve();
  }

  #answerHttp(): void {
    const { address } = this.#server;
    const body = `This is a FRAMES/1 port, not a web server. Send frames to it with: frames send DIR --to ${address}\n`;
    const bytes = new TextEncoder().encode(
      `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    );
    this.#connection!.send(bytes);
    this.failed(new FramesError("foreign", "An HTTP request came to the port for frames"));
  }
}

function looksLikeHttp(chunk: Uint8Array): boolean {
  const start = new TextDecoder("latin1").decode(chunk.subarray(0, 16));
  return /^(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|PATCH|TRACE|PRI) /.test(start);
}
