/**
 * `/live`: WebSocket that sends the newest frames of the sources a page watches.
 * A new frame of a source is sent only after the page has shown the previous one.
 */
import type { ServerWebSocket } from "bun";
import { toJson } from "../responses.ts";
import { FrameSubscription } from "../picture/frame-subscription.ts";
import type { CachedFrame } from "../picture/newest-frames.ts";
import type { SourceStats } from "../live/source-stats.ts";
import { mediaType } from "../media-type.ts";
import type { StreamClient } from "../stream-clients.ts";
import { attachSocket, parseMessage, policyViolation } from "../stream-socket.ts";
import type { RouteRequest, SocketHandler } from "./request.ts";

/** Limit of sources per socket. */
export const maxSubscriptions = 64;

/**
 * Limit of a stream or source name in UTF-16 code units. No store has longer names.
 * The limit bounds memory, because watched sources are remembered.
 */
const maxNameLength = 1024;

/** Streams and sources, as a client names them. */
type SourceList = readonly (readonly [stream: string, source: string])[];

/** A watched source. */
interface WatchedSource {
  readonly subscription: FrameSubscription;
  /** Position of the source in the client's last list. */
  index: number;
  /** Whether a frame was sent that the page has not confirmed with `took`. */
  isInFlight: boolean;
}

export class LiveSocket implements SocketHandler {
  readonly #client: StreamClient;
  readonly #req: Pick<RouteRequest, "context" | "run">;
  #socket: ServerWebSocket<unknown> | undefined;
  /** The client's last list by `sourceKey`: the position of each source that it may read. */
  #watched: ReadonlyMap<string, number> = new Map();
  /** Watched sources that have sent a frame, by `sourceKey`. */
  readonly #sources = new Map<string, WatchedSource>();
  #unsubscribeAdded: () => void = () => {};
  /** A list that waits for a slice of work. A later one replaces it. */
  #waitingList: SourceList | undefined;
  /** Positions in the waiting list that the client has confirmed. */
  readonly #waitingShown = new Set<number>();

  constructor(client: StreamClient, req: Pick<RouteRequest, "context" | "run">) {
    this.#client = client;
    this.#req = req;
  }

  onOpen(socket: ServerWebSocket<unknown>): void {
    this.#socket = socket;
    this.#unsubscribeAdded = this.#req.context.liveSources.onAdded((stats) => this.#onAdded(stats));
    attachSocket(this.#client, socket, () => this.#onEnd());
  }

  onMessage(message: string | Buffer): void {
    const request = parseMessage(message);
    if (request !== undefined && "took" in request) return this.#onShown(request["took"]);
    const list =
      request !== undefined && "watch" in request ? parseSources(request["watch"]) : undefined;
    if (list === undefined) {
      return this.#socket?.close(policyViolation, "Expected a message watch or took");
    }
    const isWaiting = this.#waitingList !== undefined;
    this.#waitingList = list;
    this.#waitingShown.clear();
    // A server that stops has ended the client already.
    if (!isWaiting) this.#req.run(() => this.#subscribe()).catch(() => {});
  }

  /** Replaces the subscriptions by those of the waiting list. */
  #subscribe(): void {
    const list = this.#waitingList;
    this.#waitingList = undefined;
    if (list === undefined || this.#client.isEnded) return;
    const { liveSources } = this.#req.context;
    const readable = list.flatMap(([stream, source], index) =>
      this.#client.principal.canRead(stream, source)
        ? [[sourceKey(stream, source), index] as const]
        : [],
    );
    this.#watched = new Map(readable);
    for (const [key, watched] of this.#sources) {
      const index = this.#watched.get(key);
      if (index !== undefined && !watched.subscription.stats.isEvicted) watched.index = index;
      else this.#unsubscribe(key, watched);
    }
    for (const [stream, source] of list) {
      const stats = liveSources.get(stream, source);
      if (stats !== undefined) this.#onAdded(stats);
    }
    for (const index of this.#waitingShown) this.#onShown(index);
    this.#waitingShown.clear();
    this.onDrain();
  }

  /** Subscribes to a source that has statistics, if the client watches it. */
  #onAdded(stats: SourceStats): void {
    const key = sourceKey(stats.stream, stats.source);
    const index = this.#watched.get(key);
    if (index === undefined) return;
    const previous = this.#sources.get(key);
    if (previous?.subscription.stats === stats) return;
    if (previous !== undefined) this.#unsubscribe(key, previous);
    const watched: WatchedSource = {
      subscription: new FrameSubscription(stats, this.#req.context, {
        client: this.#client,
        isReady: () => !watched.isInFlight,
        send: (cached, skipped) => {
          watched.isInFlight = true;
          this.#socket?.sendBinary(encodeMessage(watched.index, stats, cached, skipped));
        },
      }),
      index,
      isInFlight: false,
    };
    this.#sources.set(key, watched);
  }

  #unsubscribe(key: string, { subscription }: WatchedSource): void {
    subscription.close();
    this.#sources.delete(key);
  }

  #onShown(index: unknown): void {
    if (this.#waitingList !== undefined) {
      if (isPosition(index)) this.#waitingShown.add(index);
      return;
    }
    for (const watched of this.#sources.values()) {
      if (watched.index !== index) continue;
      watched.isInFlight = false;
      void watched.subscription.send();
    }
  }

  /** Called when the socket's buffer has drained: sends what had no room. */
  onDrain(): void {
    for (const { subscription } of this.#sources.values()) void subscription.send();
  }

  #onEnd(): void {
    this.#unsubscribeAdded();
    this.#watched = new Map();
    for (const [key, watched] of this.#sources) this.#unsubscribe(key, watched);
  }

  onClose(): void {
    this.#client.end("left");
  }
}

/** Encodes the header length (4 bytes, big-endian), the JSON header and the frame. */
function encodeMessage(
  index: number,
  stats: SourceStats,
  { newest, bytes }: CachedFrame,
  skipped: number,
) {
  const { frame, raw, received } = newest;
  const header = new TextEncoder().encode(
    toJson({
      index,
      stream: stats.stream,
      source: stats.source,
      number: frame.sequence,
      name: frame.name,
      captured: frame.captured,
      received: BigInt(received) * 1_000_000n,
      type: mediaType(frame.name, raw),
      raw: raw ?? null,
      skipped,
    }),
  );
  const message = new Uint8Array(4 + header.length + bytes.length);
  new DataView(message.buffer).setUint32(0, header.length);
  message.set(header, 4);
  message.set(bytes, 4 + header.length);
  return message;
}

function isPosition(index: unknown): index is number {
  return Number.isInteger(index) && Number(index) >= 0 && Number(index) < maxSubscriptions;
}

function sourceKey(stream: string, source: string): string {
  return JSON.stringify([stream, source]);
}

function parseSources(value: unknown): SourceList | undefined {
  if (!Array.isArray(value) || value.length > maxSubscriptions) return undefined;
  const isName = (item: unknown): item is [string, string] =>
    Array.isArray(item) &&
    item.length === 2 &&
    item.every((part) => typeof part === "string" && part.length <= maxNameLength);
  return value.every(isName) ? value : undefined;
}
