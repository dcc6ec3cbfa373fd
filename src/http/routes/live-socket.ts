/**
 * `/live`: WebSocket that sends the newest frames of the sources a page watches, and the access units
 * of encoded video one after the other. A page that is slow gets fewer.
 */
import type { ServerWebSocket } from "bun";
import { toJson } from "../responses.ts";
import type { HttpContext } from "../context.ts";
import {
  FrameSubscription,
  type FrameTarget,
  type SourceSubscription,
  VideoSubscription,
} from "../picture/frame-subscription.ts";
import type { CachedFrame } from "../picture/newest-frames.ts";
import type { SourceStats } from "../live/source-stats.ts";
import { mediaType } from "../media-type.ts";
import type { StreamClient } from "../stream-clients.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import { codecOf } from "../../video/picture-head.ts";
import { attachSocket, parseMessage, policyViolation } from "../stream-socket.ts";
import type { RouteRequest, SocketHandler } from "./request.ts";

/** Limit of sources per socket. */
export const maxSubscriptions = 64;

/**
 * Limit of a stream or source name in UTF-16 code units. No store has longer names.
 * The limit bounds memory, because watched sources are remembered.
 */
const maxNameLength = 1024;

/**
 * Limits of frames that the page has not confirmed with `took`. Of other pictures the newest is sent
 * after the one before. Access units of video are sent ahead, because decoders take several before
 * they return the first picture.
 */
const maxInFlight = { picture: 1, video: 16 } as const;

/**
 * Streams and sources, as a client names them. `view` is a number of the client: with another one a
 * source begins anew.
 */
type SourceList = readonly (readonly [stream: string, source: string, view?: number])[];

/** Where a source is in the client's last list. */
interface ListedSource {
  readonly index: number;
  readonly view: number | undefined;
}

/** A watched source. */
class WatchedSource {
  readonly stats: SourceStats;
  /** Position of the source in the client's last list. */
  index: number;
  /** Number of the client's view. */
  readonly view: number | undefined;
  readonly #context: HttpContext;
  readonly #target: FrameTarget;
  readonly #unsubscribe: () => void;
  #codec: VideoCodec | undefined;
  #subscription: SourceSubscription;
  #inFlight = 0;

  constructor(
    stats: SourceStats,
    { index, view }: ListedSource,
    context: HttpContext,
    client: StreamClient,
    send: (message: Uint8Array) => void,
  ) {
    this.stats = stats;
    this.index = index;
    this.view = view;
    this.#context = context;
    this.#target = {
      client,
      isReady: () => {
        return this.#inFlight < maxInFlight[this.#codec === undefined ? "picture" : "video"];
      },
      send: (cached, skipped) => {
        this.#inFlight++;
        send(encodeMessage(this.index, stats, cached, skipped));
      },
    };
    this.#codec = this.#newestCodec();
    this.#subscription = this.#subscribe();
    this.#unsubscribe = context.liveSources.subscribe(stats, () => this.#followCodec());
  }

  #newestCodec(): VideoCodec | undefined {
    const name = this.stats.newest?.frame.name;
    return name === undefined ? undefined : codecOf(undefined, name);
  }

  #subscribe(): SourceSubscription {
    return this.#codec === undefined
      ? new FrameSubscription(this.stats, this.#context, this.#target)
      : new VideoSubscription(this.stats, this.#codec, this.#context, this.#target);
  }

  /** Subscribes anew if the source has changed between video and other pictures. */
  #followCodec(): void {
    const codec = this.#newestCodec();
    if (codec === this.#codec) return;
    this.#codec = codec;
    this.#subscription.close();
    this.#subscription = this.#subscribe();
    this.send();
  }

  onShown(count: number): void {
    this.#inFlight = Math.max(0, this.#inFlight - count);
    this.send();
  }

  /** Sends what the client has room for. */
  send(): void {
    // A picture that cannot be read is left out.
    this.#subscription.send().catch(() => {});
  }

  close(): void {
    this.#unsubscribe();
    this.#subscription.close();
  }
}

export class LiveSocket implements SocketHandler {
  readonly #client: StreamClient;
  readonly #req: Pick<RouteRequest, "context" | "run">;
  #socket: ServerWebSocket<unknown> | undefined;
  /** The client's last list by `sourceKey`, with the sources that it may read. */
  #watched: ReadonlyMap<string, ListedSource> = new Map();
  /** Watched sources that have sent a frame, by `sourceKey`. */
  readonly #sources = new Map<string, WatchedSource>();
  #unsubscribeAdded: () => void = () => {};
  /** A list that waits for a slice of work. A later one replaces it. */
  #waitingList: SourceList | undefined;
  /** How many frames the client has confirmed, by position in the waiting list. */
  readonly #waitingShown = new Map<number, number>();

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
    const readable = list.flatMap(([stream, source, view], index) =>
      this.#client.principal.canRead(stream, source)
        ? [[sourceKey(stream, source), { index, view }] as const]
        : [],
    );
    this.#watched = new Map(readable);
    for (const [key, watched] of this.#sources) {
      const listed = this.#watched.get(key);
      const isKept = listed !== undefined && listed.view === watched.view;
      if (isKept && !watched.stats.isEvicted) watched.index = listed.index;
      else this.#unsubscribe(key, watched);
    }
    for (const [stream, source] of list) {
      const stats = liveSources.get(stream, source);
      if (stats !== undefined) this.#onAdded(stats);
    }
    for (const [index, count] of this.#waitingShown) this.#onShown(index, count);
    this.#waitingShown.clear();
    this.onDrain();
  }

  /** Subscribes to a source that has statistics, if the client watches it. */
  #onAdded(stats: SourceStats): void {
    const key = sourceKey(stats.stream, stats.source);
    const listed = this.#watched.get(key);
    if (listed === undefined) return;
    const previous = this.#sources.get(key);
    if (previous?.stats === stats) return;
    if (previous !== undefined) this.#unsubscribe(key, previous);
    const watched = new WatchedSource(stats, listed, this.#req.context, this.#client, (message) =>
      this.#socket?.sendBinary(message),
    );
    this.#sources.set(key, watched);
  }

  #unsubscribe(key: string, watched: WatchedSource): void {
    watched.close();
    this.#sources.delete(key);
  }

  #onShown(index: unknown, count = 1): void {
    if (this.#waitingList !== undefined) {
      if (!isPosition(index)) return;
      this.#waitingShown.set(index, (this.#waitingShown.get(index) ?? 0) + count);
      return;
    }
    for (const watched of this.#sources.values()) {
      if (watched.index === index) watched.onShown(count);
    }
  }

  /** Called when the socket's buffer has drained: sends what had no room. */
  onDrain(): void {
    for (const watched of this.#sources.values()) watched.send();
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
): Uint8Array {
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
  const isName = (part: unknown): boolean =>
    typeof part === "string" && part.length <= maxNameLength;
  const isListed = (item: unknown): item is SourceList[number] => {
    if (!Array.isArray(item) || item.length < 2 || item.length > 3) return false;
    const [stream, source, view = 0] = item as unknown[];
    return isName(stream) && isName(source) && Number.isSafeInteger(view);
  };
  return value.every(isListed) ? value : undefined;
}
