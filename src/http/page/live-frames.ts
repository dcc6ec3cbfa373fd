/** Brings the frames of the sources that are looked at, as they come. */
/// <reference lib="dom" />
import type { RawShapeJson } from "./api.ts";

/** What stands before a frame. */
export interface LiveHeader {
  readonly stream: string;
  readonly source: string;
  readonly number: number;
  readonly name: string;
  readonly captured: string;
  readonly received: string;
  readonly type: string;
  readonly raw: RawShapeJson | null;
  /** Frames that were passed over for this page since the one before. */
  readonly skipped: number;
}

/** Sources that one page may watch. */
export const maxWatchedSources = 64;

const maxReconnectDelayMs = 5_000;

/** A source of a stream, as the server is asked for it. */
export type SourceRef = readonly [stream: string, source: string];

/** Shows a frame; resolves when it is on the page. */
type ShowFrame = (header: LiveHeader, bytes: Uint8Array<ArrayBuffer>) => Promise<void>;

export class LiveFrames {
  readonly #showFrame: ShowFrame;
  #socket: WebSocket | undefined;
  #watched: readonly SourceRef[] = [];
  #isOnline = false;
  #reconnectDelayMs = 0;
  #timer = 0;

  constructor(showFrame: ShowFrame) {
    this.#showFrame = showFrame;
  }

  /** From now on these are watched, and nothing else. */
  watch(list: readonly SourceRef[]): void {
    const next = list.slice(0, maxWatchedSources);
    if (JSON.stringify(next) === JSON.stringify(this.#watched)) return;
    this.#watched = next;
    if (this.#socket === undefined) this.#connect();
    else this.#sendWatchList();
  }

  /** Whether the server answers: while it does not, it is not asked for frames either. */
  set isOnline(value: boolean) {
    if (value === this.#isOnline) return;
    this.#isOnline = value;
    this.#reconnectDelayMs = 0;
    this.#connect();
  }

  /** Connects, unless there is no use in it now. */
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

  /** Says what is watched; who watches nothing needs no connection. */
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
      // The list may have changed meanwhile: the place counts in the one that was said last.
      const index = this.#watched.findIndex(
        ([stream, source]) => stream === header.stream && source === header.source,
      );
      if (index >= 0 && socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ took: index }));
      }
    }
  }
}

/** Header and frame of a message; undefined if it is not made as it should. */
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
