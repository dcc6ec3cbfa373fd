/** A running server: listeners, connections and one store. */
import { asFramesError, type ErrorName, errors, FramesError } from "../errors.ts";
import { GarbageWatch } from "../common/memory.ts";
import { CommitLoop } from "../common/commit-loop.ts";
import { WorkQueue } from "../common/work-queue.ts";
import { CommitSignal } from "../store/journal/commit-signal.ts";
import { SourceOwners } from "./source-owners.ts";
import type { FrameStore } from "../frame.ts";
import { noCounts } from "./connection-role.ts";
import { BufferBudget } from "./buffer-budget.ts";
import type { KeyRing } from "../keys/key-file.ts";
import { formatAddress } from "../net/address.ts";
import { monotonicNow } from "../common/clock.ts";
import { localHost } from "../common/any-address.ts";
import { listen, type Listener, type ListenerTls, type ListenAddress } from "../net/listen.ts";
import { AdmissionRole } from "./admission-role.ts";
import { ArticleRole } from "./article-role.ts";
import { PeerConnection, type ServerContext } from "./peer-connection.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { FlushSnapshot, ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import { sourceFolderPath } from "../store/name-rules.ts";
import { stolenSession } from "../store/session-owner.ts";
import { replyToHttpWithoutTls } from "./wrong-protocol.ts";
import type { ClosableStore, Server, ServerOptions } from "./server-options.ts";
import { JournalTail } from "./playback/journal-tail.ts";
import { RejectedPeers } from "../common/rejected-peers.ts";
import type { HttpFrontend } from "./http-frontend.ts";

/**
 * With at least this many connections a flush is delayed, in milliseconds, so that it serves
 * several of them.
 */
const flushDelayThreshold = 16;
const flushDelayMs = 5;

/** Share of the possible connections that clients of the article's dialect may use. */
const articleConnectionShare = 0.25;

/** Interval in milliseconds of key file checks and of summaries of rejected peers. */
const pollIntervalMs = 1000;

/** Time limit of a TLS handshake in milliseconds, the same as for HELLO. */
const maxTlsHandshakeMs = 10_000;

/** Limit of received bytes that all clients have buffered. */
const maxBufferedBytes = 32 << 20;

/** Limit of bytes that receiving clients have not read. A stalled client holds about 1 MB at most. */
const maxUnreadBytes = 64 << 20;

/** Delay in milliseconds before the error reply to a peer that keeps failing authentication. */
const repeatedFailureDelayMs = 1000;

export class FrameServer implements Server, ServerContext {
  readonly #store: ClosableStore;
  /**
   * The store that connections write to. It counts frames for the HTTP front end, if there is one.
   */
  readonly #instrumentedStore: FrameStore;
  readonly #httpFrontend: HttpFrontend | undefined;
  readonly #listener: Listener;
  readonly #articleListener: Listener | undefined;
  readonly #options: ServerOptions;
  readonly #connections = new Set<PeerConnection>();
  readonly commits = new CommitLoop<FlushSnapshot>(
    () => this.flush(),
    () => (this.#connections.size < flushDelayThreshold ? 0 : flushDelayMs),
  );
  /** The sending connection of each source. */
  readonly #sourceOwners = new SourceOwners<PeerConnection>();
  readonly #bufferBudget = new BufferBudget<PeerConnection>(maxBufferedBytes);
  readonly #unreadBudget = new BufferBudget<PeerConnection>(maxUnreadBytes);
  readonly workQueue = new WorkQueue<unknown>();
  /** Wakes receiving clients after a commit. */
  readonly commitSignal = new CommitSignal();
  #journalTail: JournalTail | undefined;
  readonly #rejectedPeers = new RejectedPeers();
  readonly #refusals = new Map<ErrorName, number>();
  readonly #pollTimer: NodeJS.Timeout;
  readonly #garbageWatch: GarbageWatch;
  /** Message of the last failure to read the key file. */
  #keyFileError: string | undefined;
  #stopping: Promise<void> | undefined;

  /**
   * Listens before opening the store, so that a taken port leaves no new store behind. No
   * connection arrives before the store is open, because accepting needs a turn of the event loop.
   */
  constructor(address: ListenAddress, openStore: () => ClosableStore, options: ServerOptions) {
    this.#options = options;
    const accept = (peer: string, isFull: boolean, exporter: Uint8Array | undefined) =>
      new PeerConnection(this, peer, isFull, (connection) => {
        return new AdmissionRole(this, connection, exporter);
      });
    this.#listener = listen(address, accept, this.#tls());
    try {
      this.#articleListener = this.#listenForArticle();
      this.#httpFrontend = options.openHttpFrontend?.();
      this.#store = openStore();
      this.#instrumentedStore = this.#httpFrontend?.instrument(this.#store) ?? this.#store;
      this.#httpFrontend?.attachStore(this, this.#store.contents);
    } catch (error) {
      this.#listener.stop();
      this.#articleListener?.stop();
      void this.#httpFrontend?.stop();
      throw error;
    }
    this.#store.commitSignal?.subscribe(() => this.commitSignal.notify());
    this.#pollTimer = setInterval(() => this.#poll(), pollIntervalMs);
    this.#garbageWatch = new GarbageWatch();
  }

  #listenForArticle(): Listener | undefined {
    const { article } = this.#options;
    if (article === undefined) return undefined;
    const accept = (peer: string, isFull: boolean) =>
      new PeerConnection(this, peer, isFull, (connection) => new ArticleRole(this, connection));
    return listen(article, accept, undefined, articleConnectionShare);
  }

  #tls(): ListenerTls | undefined {
    const { security, timeoutMs } = this.#options;
    if (security === undefined) return undefined;
    return {
      certificate: security.certificate,
      handshakeTimeoutMs: Math.min(maxTlsHandshakeMs, timeoutMs),
      onHandshakeFailed: (peer, error) => this.onRejected(peer, error),
      replyToHttp: () => replyToHttpWithoutTls(this.address),
    };
  }

  /** Reports a peer that was rejected before its handshake was done. */
  onRejected(peer: string, error: FramesError): void {
    const counts = noCounts;
    this.emit({ type: "failed", peer, session: undefined, stream: undefined, counts, error });
  }

  #poll(): void {
    if (this.#options.keys !== undefined) this.#reloadKeys(this.#options.keys);
    this.#emitRejectedSummaries();
  }

  #emitRejectedSummaries(isEnd = false): void {
    for (const summary of this.#rejectedPeers.takeSummaries(monotonicNow(), isEnd)) {
      this.#dispatch({ type: "peers-rejected", ...summary });
    }
  }

  /** Reads the key file again and disconnects clients whose key was removed or changed. */
  #reloadKeys(keys: KeyRing): void {
    try {
      if (!keys.reload()) return;
    } catch (error) {
      const failure = asFramesError(error, "usage");
      if (failure.message !== this.#keyFileError) this.emit({ type: "keys", error: failure });
      this.#keyFileError = failure.message;
      return;
    }
    this.#keyFileError = undefined;
    this.emit({ type: "keys", error: undefined });
    for (const connection of [...this.#connections]) {
      const { key } = connection;
      if (key !== undefined && !keys.isValid(key)) this.#revoke(connection);
    }
  }

  /** Ends a connection whose key was removed or changed. */
  #revoke(connection: PeerConnection): void {
    const hint = "on the server run frames key new NAME, then paste it into frames key save";
    const message = `${errors["key-revoked"].sentence}; ${hint}`;
    connection.fail(new FramesError("key-revoked", message));
  }

  reload(): void {
    const { security, keys } = this.#options;
    let failure: FramesError | undefined;
    if (keys !== undefined) {
      // An error that persists is reported again.
      this.#keyFileError = undefined;
      this.#reloadKeys(keys);
    }
    if (security !== undefined) {
      try {
        this.#listener.setCertificate(security.reloadCertificate());
      } catch (error) {
        failure = asFramesError(error, "usage");
      }
    }
    this.emit({ type: "reloaded", error: failure });
  }

  get keys(): KeyRing | undefined {
    return this.#options.security?.keys;
  }

  get isSecure(): boolean {
    return this.keys !== undefined;
  }

  get journalTail(): JournalTail {
    const { contents, retention } = this.#store;
    return (this.#journalTail ??= new JournalTail(contents, this.commitSignal, retention?.holds));
  }

  get store(): FrameStore {
    return this.#instrumentedStore;
  }

  get directory(): string {
    return this.#store.location;
  }

  get host(): string {
    return this.#listener.address.host;
  }

  get port(): number {
    return this.#listener.address.port;
  }

  get address(): string {
    return formatAddress({ host: localHost(this.host), port: this.port });
  }

  get article(): string | undefined {
    if (this.#articleListener === undefined) return undefined;
    const { host, port } = this.#articleListener.address;
    return formatAddress({ host: localHost(host), port });
  }

  get http(): string | undefined {
    return this.#httpFrontend?.address;
  }

  get pageUrl(): string | undefined {
    return this.#httpFrontend?.url;
  }

  get connections(): number {
    return this.#connections.size;
  }

  get grants(): ReceiverLimits {
    return this.#options.grants;
  }

  get timeoutMs(): number {
    return this.#options.timeoutMs;
  }

  get refusals(): ReadonlyMap<ErrorName, number> {
    return this.#refusals;
  }

  /** Counts refusals, and passes the event on unless its peer is over the log limit. */
  emit(event: ServeEvent): void {
    if (event.type === "failed" || event.type === "refused") {
      const { code } = event.error;
      this.#refusals.set(code, (this.#refusals.get(code) ?? 0) + 1);
    }
    // Some unauthenticated peers reconnect all the time, so their events are limited.
    const isRejected = event.type === "failed" && event.stream === undefined;
    if (isRejected && !this.#rejectedPeers.add(withoutPort(event.peer), monotonicNow())) return;
    this.#dispatch(event);
  }

  /**
   * Passes an event to the HTTP front end and to the program. Errors that the program throws do not
   * reach a connection.
   */
  #dispatch(event: ServeEvent): void {
    this.#httpFrontend?.onEvent(event);
    callUserCode(() => this.#options.onEvent(event));
  }

  authFailureDelayMs(peer: string): number {
    return this.#rejectedPeers.isOverLimit(withoutPort(peer)) ? repeatedFailureDelayMs : 0;
  }

  get reportsStored(): boolean {
    return this.#options.onStored !== undefined;
  }

  emitStored(event: StoredEvent): void {
    const { onStored } = this.#options;
    if (onStored !== undefined) callUserCode(() => onStored(event));
  }

  add(connection: PeerConnection): void {
    this.#connections.add(connection);
  }

  remove(connection: PeerConnection): void {
    this.#connections.delete(connection);
    this.commits.remove(connection);
    this.#bufferBudget.remove(connection);
    this.#unreadBudget.remove(connection);
    // Stores the frames that ended before the connection did.
    void this.flush();
  }

  /**
   * Closes older connections of the same session, because the newer one takes over.
   *
   * @throws {FramesError} `stolen-session` if the older connection proved another key
   */
  supersede(session: string, newer: PeerConnection): void {
    for (const connection of this.#connections) {
      if (connection !== newer && connection.session === session) {
        if (connection.key?.key.id !== newer.key?.key.id) throw stolenSession();
        connection.fail(new FramesError("superseded"));
      }
    }
  }

  setBufferedBytes(connection: PeerConnection, bytes: number, isQueued = false): void {
    const message =
      "The server's memory for incomplete messages is full, and this client has used it longest";
    disconnect(this.#bufferBudget.update(connection, bytes, isQueued), message);
    this.#bufferBudget.releaseEvicted();
  }

  setUnreadBytes(connection: PeerConnection, bytes: number): void {
    const message =
      "The server's memory for slow receivers is full, and this client has read nothing for longest";
    disconnect(this.#unreadBudget.update(connection, bytes), message);
    this.#unreadBudget.releaseEvicted();
  }

  acquireSource(stream: string, source: string, owner: PeerConnection): void | Promise<void> {
    // Frames under an invalid name are refused one by one, so their source needs no owner.
    if (!isValidSource(stream, source)) return;
    const current = this.#sourceOwners.ownerOf(stream, source);
    if (current !== undefined && current !== owner)
      return this.#takeOverSource(stream, source, current, owner);
    if (!owner.isFinished) this.#sourceOwners.set(stream, source, owner);
  }

  /**
   * Checks whether the current owner answers, because the connection of a machine that was switched
   * off stays open. If it does not answer, `owner` takes over the source.
   */
  async #takeOverSource(
    stream: string,
    source: string,
    current: PeerConnection,
    owner: PeerConnection,
  ): Promise<void> {
    if (await current.isAlive()) {
      const since = current.since.toISOString().replace(/\.\d+Z$/, "Z");
      throw new FramesError(
        "busy",
        `Cannot send ${source} of ${stream}: ${current.peer} has been sending it since ${since}; stop that sender, or choose another --stream`,
      );
    }
    // The new owner may have disconnected meanwhile.
    if (owner.isFinished) return;
    this.releaseSource(stream, source, current);
    current.fail(
      new FramesError(
        "superseded",
        "Another sender took over the source, because this one did not answer",
      ),
    );
    await this.acquireSource(stream, source, owner);
  }

  releaseSource(stream: string, source: string, owner: PeerConnection): void {
    if (this.#sourceOwners.ownerOf(stream, source) === owner)
      this.#sourceOwners.delete(stream, source);
  }

  /**
   * Flushes the store. On failure all connections end, because no frame can be confirmed without
   * the journal. Never rejects.
   *
   * @returns whether the flush succeeded
   */
  async flush(): Promise<boolean> {
    try {
      await this.#store.flush();
      this.commitSignal.notify();
      this.#httpFrontend?.setStoreError(undefined);
      return true;
    } catch (error) {
      const failure = asFramesError(error, "store");
      this.#httpFrontend?.setStoreError(failure);
      for (const connection of [...this.#connections]) {
        this.commits.exclude(connection);
        connection.fail(failure);
      }
      return false;
    }
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#listener.stop();
    this.#articleListener?.stop();
    clearInterval(this.#pollTimer);
    this.#garbageWatch.stop();
    const httpStopped = this.#httpFrontend?.stop();
    try {
      await this.commits.commit([...this.#connections]);
      for (const connection of [...this.#connections]) {
        connection.fail(new FramesError("stopping"));
      }
      await Promise.all([...this.#connections].map((connection) => connection.closed));
      this.#emitRejectedSummaries(true);
    } finally {
      // Stores frames that ended while the connections were closing.
      await this.flush();
      await httpStopped;
      this.#journalTail?.close();
      await this.#store.close();
    }
  }
}

/** Disconnects clients that hold too much memory. */
function disconnect(connections: readonly PeerConnection[], message: string): void {
  for (const connection of connections) connection.fail(new FramesError("full", message));
}

/** Strips the port from a peer's address. The address of an HTTP client has no port. */
function withoutPort(peer: string): string {
  return peer.replace(/:\d+$/, "");
}

function isValidSource(stream: string, source: string): boolean {
  try {
    sourceFolderPath(stream, source, false);
    return true;
  } catch {
    return false;
  }
}

/** Calls a callback of the program. An error in it surfaces as an uncaught error of the program. */
function callUserCode(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
