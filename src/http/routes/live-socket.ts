/**
 * `/live`: WebSocket that sends the newest frames of the sources a page watches.
 * A new frame of a source is sent only after the page has shown the previous one.
 */
import type { ServerWebSocket } from "bun";
import type { RunSlice } from "../../frame.ts";
import type { Principal } from "../principal.ts";
import type { SocketHandler } from "../request.ts";
import { toJson } from "../responses.ts";
import type { HttpContext } from "../context.ts";
import { type CachedFrame } from "../picture/newest-frames.ts";
import type { LiveSources } from "../live/live-sources.ts";
import type { SourceStats } from "../live/source-stats.ts";
import { mediaType } from "../media-type.ts";
import type { EndReason, StreamClient } from "../stream-clients.ts";

/** Limit of sources per socket. */
const maxSubscriptions = 64;

/**
 * Limit of a stream or source name in UTF-16 code units. No store has longer names.
 * The limit bounds memory, because watched sources are remembered.
 */
const maxNameLength = 1024;

/** Limit of unread bytes per socket. Above it nothing is sent. */
const maxBufferedBytes = 4 << 20;

/** WebSocket close codes (RFC 6455, section 7.4.1). */
const goingAway = 1001;
const policyViolation = 1008;

/** Streams and sources, as a client names them. */
type SourceList = readonly (readonly [stream: string, source: string])[];

/** A watched source. */
class Subscription {
  readonly stats: SourceStats;
  /** Position of the source in the client's last list. */
  index: number;
  /** Value of the source's frame count at the last frame sent. */
  serial = 0;
  /** Whether a frame was sent that the page has not confirmed with `took`. */
  isInFlight = false;
  isReading = false;
  readonly unsubscribe: () => void;

  constructor(
    stats: SourceStats,
    index: number,
    liveSources: LiveSources,
    onFrame: (subscription: Subscription) => void,
  ) {
    this.stats = stats;
    this.index = index;
    this.unsubscribe = liveSources.subscribe(stats, () => onFrame(this));
  }
}

export class LiveSocket implements SocketHandler {
  readonly #context: HttpContext;
  readonly #client: StreamClient;
  readonly #principal: Principal;
  #socket: ServerWebSocket<unknown> | undefined;
  /** The client's last list by `sourceKey`: the position of each source that it may read. */
  #watched: ReadonlyMap<string, number> = new Map();
  /** Watched sources that have sent a frame, by `sourceKey`. */
  readonly #subscriptions = new Map<string, Subscription>();
  #unsubscribeAdded: () => void = () => {};
  readonly #run: RunSlice;
  /** A list that waits for a slice of work. A later one replaces it. */
  #waitingList: SourceList | undefined;
  /** Positions in the waiting list that the client has confirmed. */
  readonly #waitingShown = new Set<number>();

  constructor(context: HttpContext, client: StreamClient, principal: Principal, run: RunSlice) {
    this.#context = context;
    this.#client = client;
    this.#principal = principal;
    this.#run = run;
  }

  onOpen(socket: ServerWebSocket<unknown>): void {
    this.#socket = socket;
    this.#client.bufferedBytes = () => socket.getBufferedAmount();
    this.#client.onEnd = (reason) => this.#end(reason);
    this.#unsubscribeAdded = this.#context.liveSources.onAdded((stats) => this.#onAdded(stats));
    if (this.#client.isEnded) this.#end("stopping");
  }

  onMessage(message: string | Buffer): void {
    const request = typeof message === "string" ? parseObject(message) : undefined;
    if (request !== undefined && "took" in request) return this.#onShown(request.took);
    const list =
      request !== undefined && "watch" in request ? parseSources(request.watch) : undefined;
    if (list === undefined) {
      return this.#socket?.close(policyViolation, "Expected a message watch or took");
    }
    const isWaiting = this.#waitingList !== undefined;
    this.#waitingList = list;
    this.#waitingShown.clear();
    // A server that stops has ended the client already.
    if (!isWaiting) this.#run(() => this.#subscribe()).catch(() => {});
  }

  /** Replaces the subscriptions by those of the waiting list. */
  #subscribe(): void {
    const list = this.#waitingList;
    this.#waitingList = undefined;
    if (list === undefined || this.#client.isEnded) return;
    const { liveSources } = this.#context;
    const readable = list.flatMap(([stream, source], index) =>
      this.#principal.canRead(stream, source) ? [[sourceKey(stream, source), index] as const] : [],
    );
    this.#watched = new Map(readable);
    for (const [key, subscription] of this.#subscriptions) {
      const index = this.#watched.get(key);
      if (index !== undefined && !subscription.stats.isEvicted) subscription.index = index;
      else this.#unsubscribe(key, subscription);
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
    const previous = this.#subscriptions.get(key);
    if (previous?.stats === stats) return;
    if (previous !== undefined) this.#unsubscribe(key, previous);
    const { liveSources } = this.#context;
    const onFrame = (subscription: Subscription) => void this.#send(key, subscription);
    this.#subscriptions.set(key, new Subscription(stats, index, liveSources, onFrame));
  }

  #unsubscribe(key: string, subscription: Subscription): void {
    subscription.unsubscribe();
    this.#subscriptions.delete(key);
  }

  #onShown(index: unknown): void {
    if (this.#waitingList !== undefined) {
      if (isPosition(index)) this.#waitingShown.add(index);
      return;
    }
    for (const [key, subscription] of this.#subscriptions) {
      if (subscription.index !== index) continue;
      subscription.isInFlight = false;
      void this.#send(key, subscription);
    }
  }

  /** Called when the socket's buffer has drained: sends what had no room. */
  onDrain(): void {
    for (const [key, subscription] of this.#subscriptions) void this.#send(key, subscription);
  }

  /** Sends the newest frame unless it was sent already, one is in flight, or the buffer is full. */
  async #send(key: string, subscription: Subscription): Promise<void> {
    const { stats } = subscription;
    if (subscription.isInFlight || subscription.isReading || stats.frames === subscription.serial)
      return;
    if (this.#bufferedBytes > maxBufferedBytes) return;
    subscription.isReading = true;
    const seenFrames = stats.frames;
    const cached = await this.#context.newestFrames.newest(stats);
    subscription.isReading = false;
    if (this.#subscriptions.get(key) !== subscription) return;
    if (cached === undefined || cached.serial <= subscription.serial) {
      // The frame was removed or is too large. Waits for the next one.
      subscription.serial = seenFrames;
      return;
    }
    const { length } = cached.bytes;
    // Sent later, by `onDrain` or with a newer frame.
    if (this.#bufferedBytes > maxBufferedBytes || !this.#client.hasRoomFor(length)) return;
    const message = encodeMessage(subscription, cached);
    if (subscription.serial > 0) this.#client.countDropped(cached.serial - subscription.serial - 1);
    subscription.serial = cached.serial;
    subscription.isInFlight = true;
    this.#socket?.sendBinary(message);
  }

  get #bufferedBytes(): number {
    return this.#socket?.getBufferedAmount() ?? 0;
  }

  #end(reason: EndReason): void {
    this.#unsubscribeAdded();
    this.#watched = new Map();
    for (const [key, subscription] of this.#subscriptions) this.#unsubscribe(key, subscription);
    if (reason === "left") return;
    const code = reason === "stopping" ? goingAway : policyViolation;
    this.#socket?.close(code, reason);
  }

  onClose(): void {
    this.#client.end("left");
  }
}

/** Encodes the header length (4 bytes, big-endian), the JSON header and the frame. */
function encodeMessage(
  { index, stats, serial }: Subscription,
  { newest, bytes, serial: newSerial }: CachedFrame,
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
      skipped: serial === 0 ? 0 : newSerial - serial - 1,
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

function parseObject(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function parseSources(value: unknown): SourceList | undefined {
  if (!Array.isArray(value) || value.length > maxSubscriptions) return undefined;
  const isName = (item: unknown): item is [string, string] =>
    Array.isArray(item) &&
    item.length === 2 &&
    item.every((part) => typeof part === "string" && part.length <= maxNameLength);
  return value.every(isName) ? value : undefined;
}
