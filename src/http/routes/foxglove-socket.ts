/**
 * `/foxglove`: Foxglove's WebSocket protocol. Each live source is a channel with the messages of
 * MCAP files. A slow client gets the newest frame of each source when its buffer is empty. Of a video
 * it gets all pictures, as far as it can be decoded.
 */
import type { ServerWebSocket } from "bun";
import { encodeFrame, schemaOf } from "../../mcap/frame-message.ts";
import { schemaData, type SchemaName } from "../../mcap/schemas.ts";
import { software } from "../../version.ts";
import type { SourceStats } from "../live/source-stats.ts";
import {
  FrameSubscription,
  type FrameTarget,
  type SourceSubscription,
  VideoSubscription,
} from "../picture/frame-subscription.ts";
import { newestCodec } from "../picture/video-follower.ts";
import type { CachedFrame } from "../picture/newest-frames.ts";
import { toJson } from "../responses.ts";
import type { StreamClient } from "../stream-clients.ts";
import { attachSocket, parseMessage } from "../stream-socket.ts";
import { maxSubscriptions } from "./live-socket.ts";
import type { RouteRequest, SocketHandler } from "./request.ts";

/** Names of the protocol, with the same messages for what is needed here. */
export const foxgloveSubprotocols: readonly string[] = ["foxglove.websocket.v1", "foxglove.sdk.v1"];

/** Returns the first known subprotocol of a Sec-WebSocket-Protocol header. */
export function chooseSubprotocol(header: string | null): string | undefined {
  const offered = (header ?? "").split(",").map((name) => name.trim());
  return offered.find((name) => foxgloveSubprotocols.includes(name));
}

/** Channels that are advertised in one slice of work. */
const channelBatchSize = 100;

/** Opcode, subscription id and time before the message. */
const dataOpcode = 1;
const dataHeadBytes = 13;

/** Level of a `status` message. */
const warning = 1;

/** What a client may do wrong. Each is reported once, so that no client can make many reports. */
const mistakes = {
  message: "Cannot answer this message: the server understands subscribe and unsubscribe only",
  channel: "Cannot subscribe: there is no such channel; choose one that was advertised",
  id: "Cannot subscribe: the id or the channel is in use, or the id has more than 32 bits",
  limit: `Cannot subscribe: ${maxSubscriptions} subscriptions are open, which is the limit; end one`,
} as const;

/** A source with the schema of its newest frame. Another schema makes another channel. */
interface Channel {
  readonly id: number;
  readonly stats: SourceStats;
  readonly schema: SchemaName;
}

interface Subscription {
  readonly channel: Channel;
  readonly frames: SourceSubscription;
}

export class FoxgloveSocket implements SocketHandler {
  readonly #client: StreamClient;
  readonly #req: Pick<RouteRequest, "context" | "run">;
  /** The stream to advertise. Undefined for all, and then their names are part of the topics. */
  readonly #stream: string | undefined;
  #socket: ServerWebSocket<unknown> | undefined;
  #unsubscribeTick: () => void = () => {};
  /** Advertised channels by id and by source. */
  readonly #channels = new Map<number, Channel>();
  readonly #channelOf = new Map<SourceStats, Channel>();
  #lastChannelId = 0;
  /** Channels that the client has subscribed to, by subscription id. */
  readonly #wanted = new Map<number, Channel>();
  /** Subscriptions by id, as of the last slice. The one that was served last is at the end. */
  readonly #subscriptions = new Map<number, Subscription>();
  readonly #reported = new Set<keyof typeof mistakes>();
  /** Whether sources may have changed since channels were advertised. No frame is sent before. */
  #isUpdateDue = true;
  #isScheduled = false;

  constructor(
    client: StreamClient,
    req: Pick<RouteRequest, "context" | "run">,
    stream: string | undefined,
  ) {
    this.#client = client;
    this.#req = req;
    this.#stream = stream;
  }

  onOpen(socket: ServerWebSocket<unknown>): void {
    this.#socket = socket;
    const { liveSources } = this.#req.context;
    this.#unsubscribeTick = liveSources.onTick(() => {
      this.#isUpdateDue = true;
      this.#schedule();
    });
    attachSocket(this.#client, socket, () => this.#onEnd());
    if (this.#client.isEnded) return;
    this.#send({
      op: "serverInfo",
      name: software,
      capabilities: [],
      // Channel ids are of this connection, so that it is a session of its own.
      sessionId: crypto.randomUUID(),
    });
    this.#schedule();
  }

  onMessage(message: string | Buffer): void {
    const { op, subscriptions, subscriptionIds } = parseMessage(message) ?? {};
    if (op === "subscribe" && Array.isArray(subscriptions)) {
      for (const entry of subscriptions) this.#subscribe(entry);
    } else if (op === "unsubscribe" && Array.isArray(subscriptionIds)) {
      for (const id of subscriptionIds) this.#wanted.delete(id);
    } else return this.#report("message");
    this.#schedule();
  }

  #subscribe(entry: unknown): void {
    const { id, channelId } = Object(entry) as { id?: unknown; channelId?: unknown };
    const channel = this.#channels.get(channelId as number);
    if (channel === undefined) return this.#report("channel");
    if (this.#wanted.size >= maxSubscriptions) return this.#report("limit");
    const isTaken = this.#wanted.has(id as number) || [...this.#wanted.values()].includes(channel);
    if (isTaken || !isUint32(id)) return this.#report("id");
    this.#wanted.set(id, channel);
  }

  /** Called when the socket's buffer has drained: sends what had no room. */
  onDrain(): void {
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // A server that stops has ended the client already.
    this.#req.run(() => this.#work()).catch(() => {});
  }

  #work(): void {
    this.#isScheduled = false;
    if (this.#client.isEnded) return;
    if (this.#isUpdateDue && this.#client.bufferedBytes() === 0) this.#updateChannels();
    for (const [id, { channel, frames }] of this.#subscriptions) {
      if (this.#wanted.get(id) === channel) continue;
      frames.close();
      this.#subscriptions.delete(id);
    }
    for (const [id, channel] of this.#wanted) {
      if (!this.#subscriptions.has(id)) this.#open(id, channel);
    }
    for (const { frames } of this.#subscriptions.values()) void frames.send();
  }

  /** Advertises sources that are new or have another schema, and takes back what is no more. */
  #updateChannels(): void {
    const added: Channel[] = [];
    const removed = [...this.#channels.values()].filter(({ stats }) => stats.isEvicted);
    for (const stats of this.#req.context.liveSources.all()) {
      if (added.length === channelBatchSize) break;
      const { newest } = stats;
      if (newest === undefined || !this.#isVisible(stats)) continue;
      const schema = schemaOf({ ...newest.frame, raw: newest.raw });
      const previous = this.#channelOf.get(stats);
      if (previous?.schema === schema) continue;
      if (previous !== undefined) removed.push(previous);
      added.push({ id: ++this.#lastChannelId, stats, schema });
    }
    // Viewers accept only one channel of a topic at a time.
    if (removed.length > 0) this.#unadvertise(removed);
    if (added.length > 0) this.#advertise(added);
    this.#isUpdateDue = added.length === channelBatchSize;
    if (this.#isUpdateDue) this.#schedule();
  }

  #isVisible({ stream, source }: SourceStats): boolean {
    if (this.#stream !== undefined && stream !== this.#stream) return false;
    return this.#client.principal.canRead(stream, source);
  }

  #advertise(channels: readonly Channel[]): void {
    for (const channel of channels) {
      this.#channels.set(channel.id, channel);
      this.#channelOf.set(channel.stats, channel);
    }
    const list = channels.map(({ id, stats: { stream, source }, schema }) => ({
      id,
      topic: this.#stream === undefined ? `/${stream}/${source}` : `/${source}`,
      encoding: "protobuf",
      schemaName: schema,
      schema: schemaData(schema).toBase64(),
      schemaEncoding: "protobuf",
    }));
    this.#send({ op: "advertise", channels: list });
  }

  #unadvertise(channels: readonly Channel[]): void {
    for (const channel of channels) {
      this.#channels.delete(channel.id);
      this.#channelOf.delete(channel.stats);
      for (const [id, wanted] of this.#wanted) if (wanted === channel) this.#wanted.delete(id);
    }
    this.#send({ op: "unadvertise", channelIds: channels.map(({ id }) => id) });
  }

  #open(id: number, channel: Channel): void {
    const { stats } = channel;
    const target: FrameTarget = {
      client: this.#client,
      isReady: () => !this.#isUpdateDue && this.#client.bufferedBytes() === 0,
      send: (cached) => {
        const message = encodeMessage(id, channel, cached);
        if (message !== undefined) this.#socket?.sendBinary(message);
        this.#subscriptions.delete(id);
        this.#subscriptions.set(id, subscription);
      },
    };
    const codec = newestCodec(this.#req.context, stats.stream, stats.source, stats);
    const frames =
      codec === undefined
        ? new FrameSubscription(stats, this.#req.context, target)
        : new VideoSubscription(stats, codec, this.#req.context, target);
    const subscription = { channel, frames };
    this.#subscriptions.set(id, subscription);
  }

  #report(mistake: keyof typeof mistakes): void {
    if (this.#reported.has(mistake)) return;
    this.#reported.add(mistake);
    this.#send({ op: "status", level: warning, message: mistakes[mistake] });
  }

  #send(message: object): void {
    this.#socket?.sendText(toJson(message));
  }

  #onEnd(): void {
    this.#unsubscribeTick();
    for (const { frames } of this.#subscriptions.values()) frames.close();
    this.#subscriptions.clear();
  }

  onClose(): void {
    this.#client.end("left");
  }
}

/**
 * Encodes the subscription, the time of arrival and the message of a frame. Undefined if the frame
 * has another schema, so that its channel is not advertised yet.
 */
function encodeMessage(
  id: number,
  { stats, schema }: Channel,
  { newest, bytes }: CachedFrame,
): Uint8Array<ArrayBuffer> | undefined {
  const { frame, session, crc32, raw } = newest;
  const received = BigInt(newest.received) * 1_000_000n;
  const { source } = stats;
  const encoded = encodeFrame({ ...frame, source, session, crc32, raw, received });
  if (encoded?.schema !== schema) return undefined;
  const message = new Uint8Array(dataHeadBytes + encoded.head.length + bytes.length);
  const view = new DataView(message.buffer);
  view.setUint8(0, dataOpcode);
  view.setUint32(1, id, true);
  view.setBigUint64(5, received, true);
  message.set(encoded.head, dataHeadBytes);
  message.set(bytes, dataHeadBytes + encoded.head.length);
  return message;
}

function isUint32(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 32;
}
