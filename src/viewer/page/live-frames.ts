/** Brings the frames of the sources that are looked at, as they come. */
/// <reference lib="dom" />
import type { Raw } from "./api.ts";

/** What stands before a frame. */
export interface LiveHeader {
  readonly stream: string;
  readonly source: string;
  readonly number: number;
  readonly name: string;
  readonly captured: string;
  readonly received: string;
  readonly type: string;
  readonly raw: Raw | null;
  /** Frames that were passed over for this page since the one before. */
  readonly skipped: number;
}

/** Sources that one page may watch. */
export const mostWatched = 64;

const longestPause = 5_000;

/** A source of a stream, as the server is asked for it. */
export type Watched = readonly [stream: string, source: string];

/** Shows a frame; resolves when it is on the page. */
type Show = (header: LiveHeader, bytes: Uint8Array<ArrayBuffer>) => Promise<void>;

export class LiveFrames {
  readonly #show: Show;
  #socket: WebSocket | undefined;
  #watched: readonly Watched[] = [];
  #isPresent = false;
  #pause = 0;
  #timer = 0;

  constructor(show: Show) {
    this.#show = show;
  }

  /** From now on these are watched, and nothing else. */
  watch(list: readonly Watched[]): void {
    const next = list.slice(0, mostWatched);
    if (JSON.stringify(next) === JSON.stringify(this.#watched)) return;
    this.#watched = next;
    if (this.#socket === undefined) this.#connect();
    else this.#ask();
  }

  /** Whether the server answers: while it does not, it is not asked for frames either. */
  set isPresent(value: boolean) {
    if (value === this.#isPresent) return;
    this.#isPresent = value;
    this.#pause = 0;
    this.#connect();
  }

  /** Connects, unless there is no use in it now. */
  #connect(): void {
    const isIdle = this.#socket === undefined && this.#timer === 0;
    if (!isIdle || !this.#isPresent || this.#watched.length === 0) return;
    const address = new URL("/live", location.href);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.#pause = 0;
      this.#ask();
    });
    socket.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) void this.#take(socket, data);
    });
    socket.addEventListener("close", () => {
      this.#socket = undefined;
      this.#timer = window.setTimeout(() => {
        this.#timer = 0;
        this.#connect();
      }, this.#pause);
      this.#pause = Math.min(this.#pause * 2 + 250, longestPause);
    });
    this.#socket = socket;
  }

  /** Says what is watched; who watches nothing needs no connection. */
  #ask(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (this.#watched.length === 0) this.#socket.close();
    else this.#socket.send(JSON.stringify({ watch: this.#watched }));
  }

  async #take(socket: WebSocket, message: ArrayBuffer): Promise<void> {
    const frame = read(message);
    if (frame === undefined) return;
    const [header, bytes] = frame;
    try {
      await this.#show(header, bytes);
    } finally {
      // The list may have changed meanwhile: the place counts in the one that was said last.
      const place = this.#watched.findIndex(
        ([stream, source]) => stream === header.stream && source === header.source,
      );
      if (place >= 0 && socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ took: place }));
      }
    }
  }
}

/** Header and frame of a message; undefined if it is not made as it should. */
function read(message: ArrayBuffer): [LiveHeader, Uint8Array<ArrayBuffer>] | undefined {
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
