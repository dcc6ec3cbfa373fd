/** A connected client: joins its socket, its role and the server, from opening to closing. */
import { allowsStream, type KeyEntry } from "../auth/key.ts";
import type { CommitLoop, CommitMember } from "../common/commit-loop.ts";
import type { WorkQueue } from "../common/work-queue.ts";
import { FramesError } from "../errors.ts";
import type { FrameStore, RunSlice } from "../frame.ts";
import type { KeyRing } from "../keys/key-file.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { FlushSnapshot, ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import type { ConnectionRole } from "./connection-role.ts";
import type { JournalTail } from "./playback/journal-tail.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { Hello } from "../wire/messages.ts";

const nothingToFlush: FlushSnapshot = { frames: 0, answers: 0 };

export class PeerConnection implements ConnectionHandler, CommitMember<FlushSnapshot> {
  readonly peer: string;
  /** When the client connected. */
  readonly since = new Date();
  /** The key that the client has proved. */
  key: KeyEntry | undefined;
  /** Whether the client has closed its sending side. */
  hasInputEnded = false;
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

  /** The session that the client sends. */
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

  /** Whether the connection failed, ended or closed. */
  get isFinished(): boolean {
    return this.hasFailed || this.role.isDone || this.#connection!.isClosed;
  }

  /** Resolves when the connection is closed. */
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
    this.hasInputEnded = true;
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

  /** Checks whether the client still answers. */
  isAlive(): Promise<boolean> {
    if (this.isFinished) return Promise.resolve(false);
    return this.role.isAlive?.() ?? Promise.resolve(true);
  }

  /** Ends the connection with `error`. */
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

  /** @param found frames that the client did not have to send */
  reportDelivered(found: number): void {
    const { session, stream, counts } = this.role;
    const client = { peer: this.peer, session: session!, stream: stream! };
    this.reportDone({ type: "delivered", ...client, counts, found });
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
    await this.role.onClose?.();
    const reason = this.#failure ?? this.role.closeReason?.() ?? error;
    if (!this.hasFailed) this.role.stop();
    this.#server.remove(this);
    const message = `The ${this.role.peerName} closed the connection before it was done`;
    if (reason !== undefined) this.#reportFailure(reason);
    else if (this.role.hasHello) this.#reportFailure(new FramesError("network", message));
    this.#closed.resolve();
  }
}

/** The server, as its connections see it. */
export interface ServerContext {
  readonly store: FrameStore;
  /** Keys that clients must prove; undefined if none is required. */
  readonly keys: KeyRing | undefined;
  readonly grants: ReceiverLimits;
  /** Milliseconds of silence after which a client is disconnected. */
  readonly timeoutMs: number;
  /** `HOST:PORT`, in the form that `send` accepts. */
  readonly address: string;
  /** Runs the costly work of all peers. */
  readonly workQueue: WorkQueue<unknown>;
  /** Reads stored frames for receiving clients. */
  readonly journalTail: JournalTail;
  /** Flushes the store for clients that send, and acknowledges their frames. */
  readonly commits: CommitLoop<FlushSnapshot>;
  emit(event: ServeEvent): void;
  /** Whether `emitStored` has an effect. */
  readonly reportsStored: boolean;
  emitStored(event: StoredEvent): void;
  /** Delay in milliseconds before a failed proof is answered; 0 for a peer that rarely fails. */
  authFailureDelayMs(peer: string): number;
  add(connection: PeerConnection): void;
  remove(connection: PeerConnection): void;
  supersede(session: string, newer: PeerConnection): void;
  /**
   * Makes `owner` the only sender of a source. If another connection owns it, first checks whether
   * that client is still alive.
   *
   * @throws {FramesError} `busy` if the other client is alive; the promise then rejects
   */
  acquireSource(stream: string, source: string, owner: PeerConnection): void | Promise<void>;
  /** Releases a source, so that another sender can acquire it. */
  releaseSource(stream: string, source: string, owner: PeerConnection): void;
  /**
   * Sets the number of received bytes that a connection has buffered.
   *
   * @param isQueued whether they wait for the server's own work, not for the client or another peer
   */
  setBufferedBytes(connection: PeerConnection, bytes: number, isQueued?: boolean): void;
  /** Sets the number of bytes held for a receiving client until it reads; 0 when it has. */
  setUnreadBytes(connection: PeerConnection, bytes: number): void;
}
