/** A running server: joins a listener, receptions and a store. */
import { asFramesError, type ErrorName, FramesError } from "../errors.ts";
import { Arrivals } from "../store/arrivals.ts";
import { Claims } from "./claims.ts";
import type { FrameStore } from "../frame.ts";
import type { Guest } from "./guest.ts";
import { HeldBytes } from "./held.ts";
import type { KeyRing } from "../keys.ts";
import { formatAddress } from "../net/address.ts";
import { steadyNow } from "../net/connection.ts";
import { listen, type Listener, type ListenerTls, type Place } from "../net/listen.ts";
import { ArticleReception } from "./article-reception.ts";
import type { Host } from "./host.ts";
import { Reception } from "./reception.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { ReceiverLimits } from "../session/receiving.ts";
import { sourceFolder } from "../store/name.ts";
import type { ClosableStore, Server, ServerOptions } from "./options.ts";
import { StoreReader } from "./store-reader.ts";
import { TurnedAway } from "../turned-away.ts";
import type { Viewing } from "../viewing.ts";
import type { Done } from "../wire/messages.ts";

/** What came of a peer with which no conversation began. */
const nothing: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };

/** So many senders are a crowd: a flush then waits so many milliseconds, to serve several of them. */
const crowd = 16;
const crowdPause = 5;

/** Clients of the article may have so many of the connections that there can be, beside all others. */
const articleShare = 0.25;

/** How often the key file, and whom to tell of, are looked at, in milliseconds. */
const lookEvery = 1000;

/** A TLS handshake gets this long, in milliseconds, as HELLO does. */
const handshakeWithin = 10_000;

/** Whoever fails again and again to prove a key is told so this late, in milliseconds. */
const penance = 1000;

export class FrameServer implements Server, Host {
  readonly #store: ClosableStore;
  /** Where frames are put: the store, seen by those who look on. */
  readonly #frames: FrameStore;
  readonly #viewing: Viewing | undefined;
  readonly #listener: Listener;
  readonly #article: Listener | undefined;
  readonly #options: ServerOptions;
  readonly #receptions = new Set<Guest>();
  /** Those with frames that no receipt has counted. */
  readonly #unsettled = new Set<Guest>();
  /** Who sends which source of which stream. */
  readonly #claims = new Claims<Guest>();
  readonly #held = new HeldBytes<Guest>();
  /** Whoever reads frames back out is woken by it. */
  readonly arrivals = new Arrivals();
  #reader: StoreReader | undefined;
  readonly #turnedAway = new TurnedAway();
  readonly #refusals = new Map<ErrorName, number>();
  #settling = false;
  readonly #lookTimer: NodeJS.Timeout;
  /** What was wrong with the key file when it was last read. */
  #keyFailure: string | undefined;
  #stopped: Promise<void> | undefined;

  /**
   * Listens first, so that a port that is taken leaves no new store behind; nothing can come in
   * before the store is open, since that needs a turn of the event loop.
   */
  constructor(address: Place, openStore: () => ClosableStore, options: ServerOptions) {
    this.#options = options;
    const accept = (...connection: [string, boolean, Uint8Array | undefined]) =>
      new Reception(this, ...connection);
    this.#listener = listen(address, accept, this.#tls());
    try {
      this.#article = this.#listenForArticle();
      this.#viewing = options.openViewing?.();
      this.#store = openStore();
      this.#frames = this.#viewing?.watch(this.#store) ?? this.#store;
      this.#viewing?.show(this, this.#store.kept);
    } catch (error) {
      this.#listener.stop();
      this.#article?.stop();
      void this.#viewing?.stop();
      throw error;
    }
    this.#store.arrivals?.follow(() => this.arrivals.came());
    this.#lookTimer = setInterval(() => this.#look(), lookEvery);
  }

  #listenForArticle(): Listener | undefined {
    const { article } = this.#options;
    if (article === undefined) return undefined;
    const accept = (peer: string, isFull: boolean) => new ArticleReception(this, peer, isFull);
    return listen(article, accept, undefined, articleShare);
  }

  #tls(): ListenerTls | undefined {
    const { security, timeout } = this.#options;
    if (security === undefined) return undefined;
    return {
      certificate: security.certificate,
      within: Math.min(handshakeWithin, timeout),
      failed: (peer, error) => this.turnedAway(peer, error),
    };
  }

  /** A peer was not let in. */
  turnedAway(peer: string, error: FramesError): void {
    const counts = nothing;
    this.tell({ type: "failed", peer, session: undefined, stream: undefined, counts, error });
  }

  #look(): void {
    if (this.#options.keys !== undefined) this.#checkKeys(this.#options.keys);
    this.#tellSums();
  }

  #tellSums(isEnd = false): void {
    for (const sum of this.#turnedAway.sums(steadyNow(), isEnd)) {
      this.#notify({ type: "turned-away", ...sum });
    }
  }

  /** Whoever sends with a key that was taken out of the file is told, and closed. */
  #checkKeys(keys: KeyRing): void {
    try {
      if (!keys.reload()) return;
    } catch (error) {
      const failure = asFramesError(error, "usage");
      if (failure.message !== this.#keyFailure) this.tell({ type: "keys", error: failure });
      this.#keyFailure = failure.message;
      return;
    }
    this.#keyFailure = undefined;
    this.tell({ type: "keys", error: undefined });
    for (const reception of [...this.#receptions]) {
      const { key } = reception;
      if (key !== undefined && !keys.holds(key)) reception.failed(new FramesError("key-revoked"));
    }
  }

  reload(): void {
    const { security, keys } = this.#options;
    let failure: FramesError | undefined;
    if (keys !== undefined) {
      // What is still wrong is said again.
      this.#keyFailure = undefined;
      this.#checkKeys(keys);
    }
    if (security !== undefined) {
      try {
        this.#listener.renew(security.renewed());
      } catch (error) {
        failure = asFramesError(error, "usage");
      }
    }
    this.tell({ type: "reloaded", error: failure });
  }

  get keys(): KeyRing | undefined {
    return this.#options.security?.keys;
  }

  get isSecure(): boolean {
    return this.keys !== undefined;
  }

  get reader(): StoreReader {
    const { kept, retention } = this.#store;
    return (this.#reader ??= new StoreReader(kept, this.arrivals, retention?.followers));
  }

  get store(): FrameStore {
    return this.#frames;
  }

  get directory(): string {
    return this.#store.place;
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
    return this.#article === undefined ? undefined : formatAddress(this.#article.address);
  }

  get http(): string | undefined {
    return this.#viewing?.address;
  }

  get page(): string | undefined {
    return this.#viewing?.url;
  }

  get connections(): number {
    return this.#receptions.size;
  }

  get grants(): ReceiverLimits {
    return this.#options.grants;
  }

  get timeout(): number {
    return this.#options.timeout;
  }

  get refusals(): ReadonlyMap<ErrorName, number> {
    return this.#refusals;
  }

  /** Counts what is refused, and tells the program that serves. */
  tell(event: ServeEvent): void {
    if (event.type === "failed" || event.type === "refused") {
      const { code } = event.error;
      this.#refusals.set(code, (this.#refusals.get(code) ?? 0) + 1);
    }
    // Of those who were not let in, some come again and again.
    const isStranger = event.type === "failed" && event.stream === undefined;
    if (isStranger && !this.#turnedAway.add(hostOf(event.peer), steadyNow())) return;
    this.#notify(event);
  }

  /** What the program throws is its own affair, and no sender's. */
  #notify(event: ServeEvent): void {
    this.#viewing?.told(event);
    outside(() => this.#options.onEvent(event));
  }

  penanceOf(peer: string): number {
    return this.#turnedAway.isNotorious(hostOf(peer)) ? penance : 0;
  }

  tellStored(makeEvent: () => StoredEvent): void {
    const { onStored } = this.#options;
    if (onStored !== undefined) outside(() => onStored(makeEvent()));
  }

  add(reception: Guest): void {
    this.#receptions.add(reception);
  }

  remove(reception: Guest): void {
    this.#receptions.delete(reception);
    this.#unsettled.delete(reception);
    this.#held.forget(reception);
    // What ended before its connection did is stored all the same.
    void this.flush();
  }

  /** The newer connection of a session takes over; the older is told, and never comes back. */
  supersede(session: string, by: Guest): void {
    for (const reception of this.#receptions) {
      if (reception !== by && reception.session === session) {
        if (reception.key?.name !== by.key?.name) throw new FramesError("stolen-session");
        reception.failed(new FramesError("superseded"));
      }
    }
  }

  /** Memory is for those who go on. */
  noteHeld(reception: Guest, bytes: number): void {
    for (const oldest of this.#held.note(reception, bytes)) {
      const why = "The server cannot hold more that is not whole, and others want to go on";
      oldest.failed(new FramesError("full", why));
    }
  }

  claim(stream: string, source: string, by: Guest): void | Promise<void> {
    // What cannot be kept is refused frame by frame, and is nobody's.
    if (!isSource(stream, source)) return;
    const holder = this.#claims.holderOf(stream, source);
    if (holder !== undefined && holder !== by) return this.#contest(stream, source, holder, by);
    if (!by.isOver) this.#claims.set(stream, source, by);
  }

  /** A sender whose machine was switched off holds a source until it fails to answer. */
  async #contest(stream: string, source: string, holder: Guest, by: Guest): Promise<void> {
    if (await holder.isThere()) {
      const since = holder.since.toISOString().replace(/\.\d+Z$/, "Z");
      throw new FramesError(
        "busy",
        `${holder.peer} sends ${source} of ${stream} since ${since}: choose another --stream`,
      );
    }
    // Whoever is gone itself takes nothing over.
    if (by.isOver) return;
    holder.failed(
      new FramesError("superseded", "Another sender took over, while this one gave no answer"),
    );
    await this.claim(stream, source, by);
  }

  unclaim(stream: string, source: string, by: Guest): void {
    if (this.#claims.holderOf(stream, source) === by) this.#claims.delete(stream, source);
  }

  /**
   * Frames came in: they are settled when the input of their connection runs dry, or when enough of
   * them wait. One flush of the store serves all connections.
   */
  settleLater(reception: Guest): void {
    this.#unsettled.add(reception);
    if (this.#settling) return;
    this.#settling = true;
    this.#settleSoon();
  }

  #settleSoon(): void {
    if (this.#receptions.size < crowd) setImmediate(() => void this.#settle());
    else setTimeout(() => void this.#settle(), crowdPause);
  }

  /** Runs once a turn of the event loop, or less often, while there is something unsettled. */
  async #settle(): Promise<void> {
    const due = [...this.#unsettled].filter((reception) => reception.isDue());
    for (const reception of due) this.#unsettled.delete(reception);
    if (due.length > 0) await this.#settleNow(due);
    this.#settling = this.#unsettled.size > 0;
    if (this.#settling) this.#settleSoon();
  }

  /** Flushes the store, and lets receipts leave for what that covered. */
  async #settleNow(receptions: readonly Guest[]): Promise<void> {
    const marks = receptions.map((reception) => reception.flushable);
    if (!(await this.flush())) return;
    receptions.forEach((reception, index) => reception.settle(marks[index]!));
  }

  /** Settles one connection at once: nothing more will come from it. */
  async settleLast(reception: Guest): Promise<void> {
    await this.#settleNow([reception]);
  }

  /** Without its journal no server can keep its promise: every sender is told. Never rejects. */
  async flush(): Promise<boolean> {
    try {
      await this.#store.flush();
      this.arrivals.came();
      this.#viewing?.stores(undefined);
      return true;
    } catch (error) {
      const failure = asFramesError(error, "store");
      this.#viewing?.stores(failure);
      for (const reception of [...this.#receptions]) reception.failed(failure);
      return false;
    }
  }

  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#listener.stop();
    this.#article?.stop();
    clearInterval(this.#lookTimer);
    const unseen = this.#viewing?.stop();
    try {
      await this.#settleNow([...this.#receptions]);
      for (const reception of [...this.#receptions]) {
        reception.failed(new FramesError("stopping"));
      }
      await Promise.all([...this.#receptions].map((reception) => reception.gone));
      this.#tellSums(true);
    } finally {
      // What the last of them left is stored too.
      await this.flush();
      await unseen;
      this.#reader?.close();
      await this.#store.close();
    }
  }
}

/** The address of a peer, without its port; a viewer's comes without one. */
function hostOf(peer: string): string {
  return peer.replace(/:\d+$/, "");
}

function isSource(stream: string, source: string): boolean {
  try {
    sourceFolder(stream, source, false);
    return true;
  } catch {
    return false;
  }
}

/** Calls what is not ours: an error in it surfaces as the program's own. */
function outside(act: () => void): void {
  try {
    act();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
