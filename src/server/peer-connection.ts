/** A connected client: joins its socket, its role and the server, from opening to closing. */
import { allowsStream, type KeyEntry } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import type { RunSlice } from "../frame.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";
import type { ConnectionRole } from "./connection-role.ts";
import type { ServeEvent } from "./serve-event.ts";
import type { Hello } from "../wire/messages.ts";
import type { ServerConnection, ServerContext } from "./server-context.ts";

const nothingToFlush: FlushSnapshot = { frames: 0, answers: 0 };

export class PeerConnection implements ConnectionHandler, ServerConnection {
  readonly peer: string;
  readonly since = new Date();
  /** The key that the client has proved. */
  key: KeyEntry | undefined;
  readonly #server: ServerContext;
  readonly #isFull: boolean;
  readonly #closed = Promise.withResolvers<void>();
  /** The current role. Another one follows the admission. */
  role: ConnectionRole;
  #connection: Connection | undefined;
  #failure: FramesError | undefined;
  #isReported = false;

  /** @param createRole creates the first role */
  constructor(
    server: ServerContext,
    peer: string,
    isFull: boolean,
    createRole: (connection: PeerConnection) => ConnectionRole,
  ) {
    this.#server = server;
    this.peer = peer;
    this.#isFull = isFull;
    this.role = createRole(this);
  }

  /** The socket, which is open before anything is received. */
  get socket(): Connection {
    return this.#connection!;
  }

  get session(): string | undefined {
    return this.role.session;
  }

  get timeoutMs(): number {
    return this.#server.timeoutMs;
  }

  get isPaused(): boolean {
    return this.role.isPaused;
  }

  /** Whether the conversation has failed. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  get isFinished(): boolean {
    return this.hasFailed || this.role.isDone || this.#connection!.isClosed;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Runs costly work for this client until it is gone. */
  readonly runSlice: RunSlice = (slice) =>
    this.#server.workQueue.run(this, () => {
      if (this.hasFailed || this.#connection!.isClosed) {
        throw new FramesError("network", "The client closed the connection");
      }
      return slice();
    });

  /** @throws {FramesError} `wrong-role` or `wrong-stream` if the client's key does not allow it */
  checkKey({ role, stream }: Pick<Hello, "role" | "stream">): void {
    if (this.key !== undefined && this.key.role !== "both" && this.key.role !== role) {
      const hint = `on the server run frames key new NAME --role ${role}`;
      const message = `The key ${this.key.name} allows ${this.key.role}, not ${role}; ${hint}`;
      throw new FramesError("wrong-role", message);
    }
    this.checkStream(stream);
  }

  /** @throws {FramesError} `wrong-stream` if the client's key does not allow the stream */
  checkStream(stream: string): void {
    if (this.key === undefined || allowsStream(this.key, stream)) return;
    const { name, streams } = this.key;
    throw new FramesError(
      "wrong-stream",
      `The key ${name} allows streams called ${streams}, not ${stream}; on the server run frames key new NAME --streams GLOB`,
    );
  }

  onOpen(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    if (this.#isFull) this.fail(new FramesError("full"));
  }

  onData(chunk: Uint8Array, now: number): void {
    if (!this.hasFailed) this.role.receive(chunk, now);
  }

  transmit(): void {
    if (!this.hasFailed) this.role.transmit();
  }

  tick(now: number): void {
    if (!this.isFinished) this.role.tick(now);
  }

  onEnd(): void {
    if (!this.hasFailed) this.role.onEnd();
  }

  isFlushDue(): boolean {
    return this.role.isFlushDue?.() ?? false;
  }

  get flushable(): FlushSnapshot {
    return this.role.flushable ?? nothingToFlush;
  }

  ack(flushed: FlushSnapshot): void {
    this.role.ack?.(flushed);
  }

  isAlive(): Promise<boolean> {
    if (this.isFinished) return Promise.resolve(false);
    return this.role.isAlive?.() ?? Promise.resolve(true);
  }

  fail(error: FramesError): void {
    if (this.hasFailed) return;
    this.#failure = error;
    this.role.stop(error);
    this.#server.setBufferedBytes(this, 0);
    void this.#finishWithError(error);
  }

  async #finishWithError(error: FramesError): Promise<void> {
    await this.role.sendError(error);
    this.#reportFailure(error);
  }

  /** Reports that the conversation is complete. */
  reportDone(event: ServeEvent): void {
    if (this.#isReported) return;
    this.#isReported = true;
    this.#server.emit(event);
  }

  /** Reports the failure once, with the counts so far. */
  #reportFailure(error: FramesError): void {
    const { session, stream, counts } = this.role;
    const reported = this.role.errorForLog?.(error) ?? error;
    this.reportDone({ type: "failed", peer: this.peer, session, stream, counts, error: reported });
  }

  onClose(error: FramesError | undefined): void {
    void this.#close(error);
  }

  async #close(error: FramesError | undefined): Promise<void> {
    await this.role.onClose();
    this.#server.remove(this);
    const message = `The ${this.role.peerName} closed the connection before it was done`;
    const reason = this.#failure ?? error;
    if (reason !== undefined) this.#reportFailure(reason);
    else if (this.role.hasHello) this.#reportFailure(new FramesError("network", message));
    this.#closed.resolve();
  }
}
