/** Receives live frames over the `/live` WebSocket and reconnects. */
/// <reference lib="dom" />
import type { RawShapeJson } from "./api.ts";

/** JSON header of a binary message. */
export interface LiveHeader {
  readonly stream: string;
  readonly source: string;
  readonly number: number;
  readonly name: string;
  readonly captured: string;
  readonly received: string;
  readonly type: string;
  readonly raw: RawShapeJson | null;
  /** Frames dropped for this page since the previous one. */
  readonly skipped: number;
}

/** Maximum number of sources that the server accepts per socket. */
export const maxWatchedSources = 64;

const maxReconnectDelayMs = 5_000;

/** A source as sent to the server. It begins anew if it is for another view. */
export type WatchEntry = readonly [stream: string, source: string, view: number];

/** Shows a frame. Resolves when it is on the page, which requests the next one. */
type ShowFrame = (header: LiveHeader, bytes: Uint8Array<ArrayBuffer>) => Promise<void>;

export class LiveFrames {
  readonly #showFrame: ShowFrame;
  #socket: WebSocket | undefined;
  #watched: readonly WatchEntry[] = [];
  #isOnline = false;
  #reconnectDelayMs = 0;
  #timer = 0;

  constructor(showFrame: ShowFrame) {
    this.#showFrame = showFrame;
  }

  /** Replaces the list of watched sources. */
  watch(list: readonly WatchEntry[]): void {
    const next = list.slice(0, maxWatchedSources);
    if (JSON.stringify(next) === JSON.stringify(this.#watched)) return;
    this.#watched = next;
    if (this.#socket === undefined) this.#connect();
    else this.#sendWatchList();
  }

  /** Whether the server responds. While it does not, the socket does not reconnect. */
  set isOnline(value: boolean) {
    if (value === this.#isOnline) return;
    this.#isOnline = value;
    this.#reconnectDelayMs = 0;
    this.#connect();
  }

  /** Connects if the server is online and sources are watched. */
  #connect(): void {
    const isIdle = this.#socket === undefined && this.#timer === 0;
    if (!isIdle || !this.#isOnline || this.#watched.length === 0) return;
    const url = new URL("/live", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.#reconnectDelayMs = 0;
      this.#sendWatchList();
    });
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) void this.#onMessage(socket, data);
    });
    socket.addEventListener("close", () => {
      this.#socket = undefined;
      this.#timer = window.setTimeout(() => {
        this.#timer = 0;
        this.#connect();
      }, this.#reconnectDelayMs);
      this.#reconnectDelayMs = Math.min(this.#reconnectDelayMs * 2 + 250, maxReconnectDelayMs);
    });
    this.#socket = socket;
  }

  /** Sends the list of watched sources. Closes the socket if the list is empty. */
  #sendWatchList(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (this.#watched.length === 0) this.#socket.close();
    else this.#socket.send(JSON.stringify({ watch: this.#watched }));
  }

  async #onMessage(socket: WebSocket, message: ArrayBuffer): Promise<void> {
    const frame = parseMessage(message);
    if (frame === undefined) return;
    const [header, bytes] = frame;
    try {
      await this.#showFrame(header, bytes);
    } finally {
      // The list may have changed meanwhile. The index refers to the list sent last.
      const index = this.#watched.findIndex(
        ([stream, source]) => stream === header.stream && source === header.source,
      );
      if (index >= 0 && socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ took: index }));
      }
    }
  }
}

/** Splits a message into header and frame. Undefined if it is malformed. */
function parseMessage(message: ArrayBuffer): [LiveHeader, Uint8Array<ArrayBuffer>] | undefined {
  if (message.byteLength < 4) return undefined;
  const length = new DataView(message).getUint32(0);
  if (length > message.byteLength - 4) return undefined;
  try {
    const text = new TextDecoder().decode(new Uint8Array(message, 4, length));
    return [JSON.parse(text) as LiveHeader, new Uint8Array(message, 4 + length)];
  } catch {
    return undefined;
  }
}
