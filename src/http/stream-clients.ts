/**
 * Open event, MJPEG and WebSocket clients. Each has a bounded buffer.
 * Frames that do not fit are dropped for that client only.
 */
import { FramesError } from "../errors.ts";
import type { Principal } from "./principal.ts";

/** Limit of streaming clients. */
const maxStreamClients = 256;

/** Limits of unread bytes: guaranteed to each client, and shared by all clients beyond that. */
const reservedBytesPerClient = 256 << 10;
const sharedBytes = 32 << 20;

export const streamClientKinds = [
  "events",
  "export",
  "foxglove",
  "mjpeg",
  "page",
  "video",
] as const;

/** Transport of a streaming client; `page` and `foxglove` are WebSockets. */
export type StreamClientKind = (typeof streamClientKinds)[number];

/** Why a stream ends: server stop, access revoked, or client disconnected. */
export type EndReason = "stopping" | "not-allowed" | "left";

export class StreamClients {
  readonly #clients = new Set<StreamClient>();
  /** Frames dropped for slow clients since the server started. */
  dropped = 0;
  #isStopping = false;

  /**
   * Adds a client.
   *
   * @throws {FramesError} `full` if there are too many clients, `stopping`
   */
  add(kind: StreamClientKind, principal: Principal): StreamClient {
    if (this.#isStopping) throw new FramesError("stopping");
    if (this.#clients.size >= maxStreamClients) {
      throw new FramesError(
        "full",
        `Cannot open another live view: ${maxStreamClients} are open, which is the limit; close one`,
      );
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

  /** Returns whether `bytes` more may be queued for the client. */
  hasRoomFor(client: StreamClient, bytes: number): boolean {
    const own = client.bufferedBytes() + bytes;
    if (own <= reservedBytesPerClient) return true;
    let others = 0;
    for (const other of this.#clients) {
      if (other !== client) others += Math.max(0, other.bufferedBytes() - reservedBytesPerClient);
    }
    // If no other client uses the shared part, one frame of any size is allowed.
    return others === 0 || others + own - reservedBytesPerClient <= sharedBytes;
  }

  /**
   * Ends all clients because the server stops.
   *
   * @returns number of clients ended
   */
  endAll(): number {
    this.#isStopping = true;
    const clients = [...this.#clients];
    for (const client of clients) client.end("stopping");
    return clients.length;
  }
}

/** One streaming client. */
export class StreamClient {
  readonly kind: StreamClientKind;
  readonly principal: Principal;
  readonly #clients: StreamClients;
  #isEnded = false;
  readonly #onRevoked = () => this.end("not-allowed");
  /** Returns the bytes queued for the client that it has not read. Set by the transport. */
  bufferedBytes: () => number = () => 0;
  /** Called once when the client ends, whatever the reason. Set by the transport. */
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

  /** Counts frames that were dropped for this client. */
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
