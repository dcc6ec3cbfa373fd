/** A running server: joins a listener, receptions and a store. */
import { asFramesError, type ErrorName, FramesError } from "../errors.ts";
import { CommitSignal } from "../store/journal/commit-signal.ts";
import { SourceOwners } from "./source-owners.ts";
import type { FrameStore } from "../frame.ts";
import type { ServerConnection } from "./server-connection.ts";
import { BufferBudget } from "./buffer-budget.ts";
import type { KeyRing } from "../keys/key-file.ts";
import { formatAddress } from "../net/address.ts";
import { monotonicNow } from "../common/clock.ts";
import { listen, type Listener, type ListenerTls, type ListenAddress } from "../net/listen.ts";
import { ArticleConnection } from "./article-connection.ts";
import type { ServerContext } from "./server-context.ts";
import { IngestConnection } from "./ingest-connection.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import { sourceFolderPath } from "../store/name-rules.ts";
import type { ClosableStore, Server, ServerOptions } from "./server-options.ts";
import { JournalTail } from "./playback/journal-tail.ts";
import { RejectedPeers } from "../common/rejected-peers.ts";
import type { HttpFrontend } from "./http-frontend.ts";
import type { Done } from "../wire/messages.ts";

/** What came of a peer with which no conversation began. */
const noCounts: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };

/** So many senders are a crowd: a flush then waits so many milliseconds, to serve several of them. */
const flushDelayThreshold = 16;
const flushDelayMs = 5;

/** Clients of the article may have so many of the connections that there can be, beside all others. */
const articleConnectionShare = 0.25;

/** How often the key file, and whom to tell of, are looked at, in milliseconds. */
const pollIntervalMs = 1000;

/** A TLS handshake gets this long, in milliseconds, as HELLO does. */
const maxTlsHandshakeMs = 10_000;

/** Whoever fails again and again to prove a key is told so this late, in milliseconds. */
const repeatedFailureDelayMs = 1000;

export class FrameServer implements Server, ServerContext {
  readonly #store: ClosableStore;
  /** Where frames are put: the store, seen by those who look on. */
  readonly #instrumentedStore: FrameStore;
  readonly #httpFrontend: HttpFrontend | undefined;
  readonly #listener: Listener;
  readonly #articleListener: Listener | undefined;
  readonly #options: ServerOptions;
  readonly #connections = new Set<ServerConnection>();
  /** Those with frames that no receipt has counted. */
  readonly #unacknowledged = new Set<ServerConnection>();
  /** Who sends which source of which stream. */
  readonly #sourceOwners = new SourceOwners<ServerConnection>();
  readonly #bufferBudget = new BufferBudget<ServerConnection>();
  /** Whoever reads frames back out is woken by it. */
  readonly commitSignal = new CommitSignal();
  #journalTail: JournalTail | undefined;
  readonly #rejectedPeers = new RejectedPeers();
  readonly #refusals = new Map<ErrorName, number>();
  #isFlushScheduled = false;
  readonly #pollTimer: NodeJS.Timeout;
  /** What was wrong with the key file when it was last read. */
  #keyFileError: string | undefined;
  #stopping: Promise<void> | undefined;

  /**
   * Listens first, so that a port that is taken leaves no new store behind; nothing can come in
   * before the store is open, since that needs a turn of the event loop.
   */
  constructor(address: ListenAddress, openStore: () => ClosableStore, options: ServerOptions) {
    this.#options = options;
    const accept = (...connection: [string, boolean, Uint8Array | undefined]) =>
      new IngestConnection(this, ...connection);
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
  }

  #listenForArticle(): Listener | undefined {
    const { article } = this.#options;
    if (article === undefined) return undefined;
    const accept = (peer: string, isFull: boolean) => new ArticleConnection(this, peer, isFull);
    return listen(article, accept, undefined, articleConnectionShare);
  }

  #tls(): ListenerTls | undefined {
    const { security, timeoutMs } = this.#options;
    if (security === undefined) return undefined;
    return {
      certificate: security.certificate,
      handshakeTimeoutMs: Math.min(maxTlsHandshakeMs, timeoutMs),
      onHandshakeFailed: (peer, error) => this.onRejected(peer, error),
    };
  }

  /** A peer was not let in. */
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

  /** Whoever sends with a key that was taken out of the file is told, and closed. */
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
      if (key !== undefined && !keys.isValid(key)) connection.fail(new FramesError("key-revoked"));
    }
  }

  reload(): void {
    const { security, keys } = this.#options;
    let failure: FramesError | undefined;
    if (keys !== undefined) {
      // What is still wrong is said again.
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
    return formatAddress({ host: this.host || "127.0.0.1", port: this.port });
  }

  get article(): string | undefined {
    return this.#articleListener === undefined
      ? undefined
      : formatAddress(this.#articleListener.address);
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

  /** Counts what is refused, and tells the program that serves. */
  emit(event: ServeEvent): void {
    if (event.type === "failed" || event.type === "refused") {
      const { code } = event.error;
      this.#refusals.set(code, (this.#refusals.get(code) ?? 0) + 1);
    }
    // Of those who were not let in, some come again and again.
    const isRejected = event.type === "failed" && event.stream === undefined;
    if (isRejected && !this.#rejectedPeers.add(withoutPort(event.peer), monotonicNow())) return;
    this.#dispatch(event);
  }

  /** What the program throws is its own affair, and no sender's. */
  #dispatch(event: ServeEvent): void {
    this.#httpFrontend?.onEvent(event);
    callUserCode(() => this.#options.onEvent(event));
  }

  authFailureDelayMs(peer: string): number {
    return this.#rejectedPeers.isOverLimit(withoutPort(peer)) ? repeatedFailureDelayMs : 0;
  }

  emitStored(makeEvent: () => StoredEvent): void {
    const { onStored } = this.#options;
    if (onStored !== undefined) callUserCode(() => onStored(makeEvent()));
  }

  add(connection: ServerConnection): void {
    this.#connections.add(connection);
  }

  remove(connection: ServerConnection): void {
    this.#connections.delete(connection);
    this.#unacknowledged.delete(connection);
    this.#bufferBudget.remove(connection);
    // What ended before its connection did is stored all the same.
    void this.flush();
  }

  /** The newer connection of a session takes over; the older is told, and never comes back. */
  supersede(session: string, newer: ServerConnection): void {
    for (const connection of this.#connections) {
      if (connection !== newer && connection.session === session) {
        if (connection.key?.name !== newer.key?.name) throw new FramesError("stolen-session");
        connection.fail(new FramesError("superseded"));
      }
    }
  }

  /** Memory is for those who go on. */
  setBufferedBytes(connection: ServerConnection, bytes: number): void {
    for (const oldest of this.#bufferBudget.update(connection, bytes)) {
      const message = "The server cannot hold more that is not whole, and others want to go on";
      oldest.fail(new FramesError("full", message));
    }
  }

  acquireSource(stream: string, source: string, owner: ServerConnection): void | Promise<void> {
    // What cannot be kept is refused frame by frame, and is nobody's.
    if (!isValidSource(stream, source)) return;
    const current = this.#sourceOwners.ownerOf(stream, source);
    if (current !== undefined && current !== owner)
      return this.#takeOverSource(stream, source, current, owner);
    if (!owner.isFinished) this.#sourceOwners.set(stream, source, owner);
  }

  /** A sender whose machine was switched off holds a source until it fails to answer. */
  async #takeOverSource(
    stream: string,
    source: string,
    current: ServerConnection,
    owner: ServerConnection,
  ): Promise<void> {
    if (await current.isAlive()) {
      const since = current.since.toISOString().replace(/\.\d+Z$/, "Z");
      throw new FramesError(
        "busy",
        `${current.peer} sends ${source} of ${stream} since ${since}: choose another --stream`,
      );
    }
    // Whoever is gone itself takes nothing over.
    if (owner.isFinished) return;
    current.fail(
      new FramesError("superseded", "Another sender took over, while this one gave no answer"),
    );
    await this.acquireSource(stream, source, owner);
  }

  releaseSource(stream: string, source: string, owner: ServerConnection): void {
    if (this.#sourceOwners.ownerOf(stream, source) === owner)
      this.#sourceOwners.delete(stream, source);
  }

  /**
   * Frames came in: they are settled when the input of their connection runs dry, or when enough of
   * them wait. One flush of the store serves all connections.
   */
  flushLater(connection: ServerConnection): void {
    this.#unacknowledged.add(connection);
    if (this.#isFlushScheduled) return;
    this.#isFlushScheduled = true;
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#connections.size < flushDelayThreshold) setImmediate(() => void this.#flushDue());
    else setTimeout(() => void this.#flushDue(), flushDelayMs);
  }

  /** Runs once a turn of the event loop, or less often, while there is something unsettled. */
  async #flushDue(): Promise<void> {
    const due = [...this.#unacknowledged].filter((connection) => connection.isFlushDue());
    for (const connection of due) this.#unacknowledged.delete(connection);
    if (due.length > 0) await this.#flushAndAckAll(due);
    this.#isFlushScheduled = this.#unacknowledged.size > 0;
    if (this.#isFlushScheduled) this.#scheduleFlush();
  }

  /** Flushes the store, and lets receipts leave for what that covered. */
  async #flushAndAckAll(connections: readonly ServerConnection[]): Promise<void> {
    const snapshots = connections.map((connection) => connection.flushable);
    if (!(await this.flush())) return;
    connections.forEach((connection, index) => connection.ack(snapshots[index]!));
  }

  /** Settles one connection at once: nothing more will come from it. */
  async flushAndAck(connection: ServerConnection): Promise<void> {
    await this.#flushAndAckAll([connection]);
  }

  /** Without its journal no server can keep its promise: every sender is told. Never rejects. */
  async flush(): Promise<boolean> {
    try {
      await this.#store.flush();
      this.commitSignal.notify();
      this.#httpFrontend?.setStoreError(undefined);
      return true;
    } catch (error) {
      const failure = asFramesError(error, "store");
      this.#httpFrontend?.setStoreError(failure);
      for (const connection of [...this.#connections]) connection.fail(failure);
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
    const httpStopped = this.#httpFrontend?.stop();
    try {
      await this.#flushAndAckAll([...this.#connections]);
      for (const connection of [...this.#connections]) {
        connection.fail(new FramesError("stopping"));
      }
      await Promise.all([...this.#connections].map((connection) => connection.closed));
      this.#emitRejectedSummaries(true);
    } finally {
      // What the last of them left is stored too.
      await this.flush();
      await httpStopped;
      this.#journalTail?.close();
      await this.#store.close();
    }
  }
}

/** The address of a peer, without its port; a viewer's comes without one. */
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

/** Calls what is not ours: an error in it surfaces as the program's own. */
function callUserCode(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
