// A client of Foxglove's WebSocket protocol, as far as tests need it.

import { until } from "./time.ts";

export interface FoxgloveChannel {
  readonly id: number;
  readonly topic: string;
  readonly schemaName: string;
}

/** Connects to `/foxglove` and keeps what the server sends. */
export class FoxgloveViewer {
  readonly socket: WebSocket;
  /** Messages with an `op`. */
  readonly texts: any[] = [];
  /** Channels advertised now. */
  readonly channels = new Map<number, FoxgloveChannel>();
  /** Messages with a frame. */
  readonly data: { readonly id: number; readonly time: bigint; readonly message: Buffer }[] = [];
  /** Code of the end, once the connection is over. */
  closed: number | undefined;

  /** @param address `HOST:PORT`, with the path and query behind it if they are others */
  constructor(address: string, headers: Record<string, string> = {}) {
    const url = address.includes("/") ? `ws://${address}` : `ws://${address}/foxglove`;
    const protocols = ["unknown.v9", "foxglove.websocket.v1"];
    this.socket = new WebSocket(url, { headers, protocols } as never);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => this.#onMessage(data);
    this.socket.onclose = ({ code }) => (this.closed = code);
  }

  #onMessage(data: string | ArrayBuffer): void {
    if (typeof data !== "string") {
      const bytes = Buffer.from(data);
      if (bytes[0] !== 1) throw new Error(`The opcode is ${bytes[0]}`);
      const [id, time] = [bytes.readUInt32LE(1), bytes.readBigUInt64LE(5)];
      this.data.push({ id, time, message: bytes.subarray(13) });
      return;
    }
    const message = JSON.parse(data);
    this.texts.push(message);
    for (const channel of message.channels ?? []) this.channels.set(channel.id, channel);
    for (const id of message.channelIds ?? []) this.channels.delete(id);
  }

  /** Messages of one kind. */
  of(op: string): any[] {
    return this.texts.filter((message) => message.op === op);
  }

  send(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  get topics(): string[] {
    return [...this.channels.values()].map(({ topic }) => topic).toSorted();
  }

  /** Waits until a topic is advertised. */
  async channel(topic: string): Promise<FoxgloveChannel> {
    let found: FoxgloveChannel | undefined;
    await until(`the channel ${topic}`, () => {
      if (this.closed !== undefined) throw new Error(`The connection ended: ${this.closed}`);
      found = [...this.channels.values()].find((channel) => channel.topic === topic);
      return found !== undefined;
    });
    return found!;
  }

  /** Subscribes to a topic once it is advertised. */
  async subscribe(topic: string, id: number): Promise<FoxgloveChannel> {
    const channel = await this.channel(topic);
    this.send({ op: "subscribe", subscriptions: [{ id, channelId: channel.id }] });
    return channel;
  }

  [Symbol.dispose](): void {
    this.socket.close();
  }
}
