/** `/live`: the frames of the sources that a page watches, each as fresh as the page can show it. */
import type { ServerWebSocket } from "bun";
import type { Visitor } from "./access.ts";
import { jsonText } from "./answers.ts";
import type { Exhibition } from "./exhibition.ts";
import { type FrameCopy } from "./copies.ts";
import type { Feed } from "./feed.ts";
import { mediaType } from "./media.ts";
import type { End, Viewer } from "./viewers.ts";

/** Sources that one page watches. */
const mostWatched = 64;

/** Letters of a name: no store has longer ones, and what is watched is remembered. */
const longestName = 1024;

/** With so many bytes unread, nothing more is sent. */
const mostUnread = 4 << 20;

/** Codes of WebSocket for what ended it. */
const goingAway = 1001;
const violation = 1008;

/** A source that is watched. */
interface Watch {
  index: number;
  readonly feed: Feed;
  /** Frames that had come with the one that was sent last. */
  serial: number;
  /** Whether a frame is under way that the page has not shown. */
  isUnderWay: boolean;
  isReading: boolean;
  readonly unwatch: () => void;
}

export class PageSocket {
  readonly #exhibition: Exhibition;
  readonly #viewer: Viewer;
  readonly #visitor: Visitor;
  #socket: ServerWebSocket<unknown> | undefined;
  #watched: Watch[] = [];

  constructor(exhibition: Exhibition, viewer: Viewer, visitor: Visitor) {
    this.#exhibition = exhibition;
    this.#viewer = viewer;
    this.#visitor = visitor;
  }

  opened(socket: ServerWebSocket<unknown>): void {
    this.#socket = socket;
    this.#viewer.held = () => socket.getBufferedAmount();
    this.#viewer.onEnd = (why) => this.#end(why);
    if (this.#viewer.isOver) this.#end("stopping");
  }

  heard(message: string | Buffer): void {
    const said = typeof message === "string" ? parsed(message) : undefined;
    if (said !== undefined && "took" in said) return this.#took(said.took);
    const list = said !== undefined && "watch" in said ? namesIn(said.watch) : undefined;
    if (list !== undefined) return this.#watch(list);
    this.#socket?.close(violation, "Expected watch or took");
  }

  #watch(list: readonly (readonly [string, string])[]): void {
    const { live } = this.#exhibition;
    const before = this.#watched;
    const taken = new Set<Watch>();
    this.#watched = list.flatMap(([stream, source], index) => {
      if (!this.#visitor.maySee(stream, source)) return [];
      const kept = before.find((one) => {
        return !taken.has(one) && one.feed.stream === stream && one.feed.source === source;
      });
      if (kept !== undefined && !kept.feed.isForgotten) {
        taken.add(kept);
        kept.index = index;
        return [kept];
      }
      const feed = live.known(stream, source);
      const watch: Watch = {
        index,
        feed,
        serial: 0,
        isUnderWay: false,
        isReading: false,
        unwatch: live.watch(feed, () => void this.#send(watch)),
      };
      return [watch];
    });
    for (const watch of before) if (!this.#watched.includes(watch)) watch.unwatch();
    this.drained();
  }

  #took(index: unknown): void {
    const watch = this.#watched.find((one) => one.index === index);
    if (watch === undefined) return;
    watch.isUnderWay = false;
    void this.#send(watch);
  }

  /** There is room again for what waited. */
  drained(): void {
    for (const watch of this.#watched) void this.#send(watch);
  }

  /** Sends the newest frame, if there is one that was not sent, and room for it. */
  async #send(watch: Watch): Promise<void> {
    const { feed } = watch;
    if (watch.isUnderWay || watch.isReading || feed.frames === watch.serial) return;
    if (this.#unread > mostUnread) return;
    watch.isReading = true;
    const seen = feed.frames;
    const copy = await this.#exhibition.copies.newest(feed);
    watch.isReading = false;
    if (!this.#watched.includes(watch)) return;
    if (copy === undefined || copy.serial <= watch.serial) {
      // It is gone, or too large; the next one may not be.
      watch.serial = seen;
      return;
    }
    const message = messageOf(watch, copy);
    if (this.#unread > mostUnread || !this.#viewer.mayTake(message.length)) {
      // It is sent when there is room, or a newer one.
      return;
    }
    if (watch.serial > 0) this.#viewer.passedOver(copy.serial - watch.serial - 1);
    watch.serial = copy.serial;
    watch.isUnderWay = true;
    this.#socket?.sendBinary(message);
  }

  get #unread(): number {
    return this.#socket?.getBufferedAmount() ?? 0;
  }

  #end(why: End): void {
    for (const { unwatch } of this.#watched) unwatch();
    this.#watched = [];
    if (why === "left") return;
    const code = why === "stopping" ? goingAway : violation;
    this.#socket?.close(code, why);
  }

  closed(): void {
    this.#viewer.end("left");
  }
}

/** Length of the header, the header, and the frame as it is. */
function messageOf({ index, feed, serial }: Watch, { newest, bytes, serial: now }: FrameCopy) {
  const { frame, raw, received } = newest;
  const header = new TextEncoder().encode(
    jsonText({
      index,
      stream: feed.stream,
      source: feed.source,
      number: frame.sequence,
      name: frame.name,
      captured: frame.captured,
      received: BigInt(received) * 1_000_000n,
      type: mediaType(frame.name, raw),
      raw: raw ?? null,
      skipped: serial === 0 ? 0 : now - serial - 1,
    }),
  );
  const message = new Uint8Array(4 + header.length + bytes.length);
  new DataView(message.buffer).setUint32(0, header.length);
  message.set(header, 4);
  message.set(bytes, 4 + header.length);
  return message;
}

function parsed(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function namesIn(value: unknown): [string, string][] | undefined {
  if (!Array.isArray(value) || value.length > mostWatched) return undefined;
  const isName = (one: unknown): one is [string, string] =>
    Array.isArray(one) &&
    one.length === 2 &&
    one.every((part) => typeof part === "string" && part.length <= longestName);
  return value.every(isName) ? value : undefined;
}
