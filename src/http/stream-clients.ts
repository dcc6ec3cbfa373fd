/**
 * Those who look on. Each has a place of its own that is bounded: what it does not read is passed over for it,
 * and nobody else waits.
 */
import { FramesError } from "../errors.ts";
import type { Principal } from "./auth/access.ts";

/** So many look on at a time. */
const maxStreamClients = 256;

/** What waits to be read: by each one so many bytes, and of what is beyond that so many for all. */
const reservedBytesPerClient = 1 << 20;
const sharedBytes = 256 << 20;

/** How somebody looks on. */
export type StreamClientKind = "events" | "mjpeg" | "page";

export const streamClientKinds: readonly StreamClientKind[] = ["events", "mjpeg", "page"];

/** Why somebody's looking on ends. */
export type EndReason = "stopping" | "not-allowed" | "left";

export class StreamClients {
  readonly #clients = new Set<StreamClient>();
  /** Frames that were passed over for slow ones, since the server began. */
  dropped = 0;
  #isStopping = false;

  /**
   * Gives somebody a place.
   *
   * @throws {FramesError} `full`, or `stopping`
   */
  add(kind: StreamClientKind, principal: Principal): StreamClient {
    if (this.#isStopping) throw new FramesError("stopping");
    if (this.#clients.size >= maxStreamClients) {
      throw new FramesError("full", `${maxStreamClients} look on already, which is the most`);
    }
    const client = new StreamClient(kind, principal, this);
    this.#clients.add(client);
    return client;
  }

  remove(client: StreamClient): void {
    this.#clients.delete(client);
  }

  count(kind: StreamClientKind): number {
    let count = 0;
    for (const client of this.#clients) if (client.kind === kind) count++;
    return count;
  }

  /** Whether somebody may be given so many bytes more to read. */
  hasRoomFor(client: StreamClient, bytes: number): boolean {
    const own = client.bufferedBytes() + bytes;
    if (own <= reservedBytesPerClient) return true;
    let others = 0;
    for (const other of this.#clients) {
      if (other !== client) others += Math.max(0, other.bufferedBytes() - reservedBytesPerClient);
    }
    // Alone, anybody may have one frame, however large.
    return others === 0 || others + own - reservedBytesPerClient <= sharedBytes;
  }

  /**
   * Ends them all: the server stops.
   *
   * @returns how many there were
   */
  endAll(): number {
    this.#isStopping = true;
    const clients = [...this.#clients];
    for (const client of clients) client.end("stopping");
    return clients.length;
  }
}

/** One who looks on. */
export class StreamClient {
  readonly kind: StreamClientKind;
  readonly principal: Principal;
  readonly #clients: StreamClients;
  #isEnded = false;
  readonly #onRevoked = () => this.end("not-allowed");
  /** Bytes that it was given and has not read. */
  bufferedBytes: () => number = () => 0;
  /** Called once, when it ends, whoever ends it. */
  onEnd: (reason: EndReason) => void = () => {};

  constructor(kind: StreamClientKind, principal: Principal, clients: StreamClients) {
    this.kind = kind;
    this.principal = principal;
    this.#clients = clients;
    principal.signal.addEventListener("abort", this.#onRevoked);
    if (principal.signal.aborted) queueMicrotask(this.#onRevoked);
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  hasRoomFor(bytes: number): boolean {
    return this.#clients.hasRoomFor(this, bytes);
  }

  /** Frames were passed over for it. */
  countDropped(frames: number): void {
    if (frames > 0) this.#clients.dropped += frames;
  }

  end(reason: EndReason): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.principal.signal.removeEventListener("abort", this.#onRevoked);
    this.#clients.remove(this);
    this.onEnd(reason);
  }
}
