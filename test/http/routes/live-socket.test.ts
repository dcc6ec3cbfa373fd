// The memory of pages that watch sources: none for names that no store has, and no more after a day.
//
// Covers: http/live/live-sources.ts, http/live/source-stats.ts, http/routes/events.ts

import { heapStats } from "bun:jsc";
import type { ServerWebSocket } from "bun";
import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { runAtOnce } from "../../../src/common/work-queue.ts";
import { fullAccess } from "../../../src/http/auth/access.ts";
import type { HttpContext } from "../../../src/http/context.ts";
import { LiveSources } from "../../../src/http/live/live-sources.ts";
import type { RouteRequest } from "../../../src/http/routes/request.ts";
import { handleEvents } from "../../../src/http/routes/events.ts";
import { LiveSocket } from "../../../src/http/routes/live-socket.ts";
import { StreamClients } from "../../../src/http/stream-clients.ts";

const session = "1".repeat(32);
const bytes = new Uint8Array(100);
const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

/** Live sources on a fake clock, with a page that watches them. */
class World {
  now = 1_700_000_000_000;
  sent = 0;
  isClosed = false;
  readonly #ticks: (() => void)[] = [];
  readonly sources: LiveSources;
  readonly context: HttpContext;
  readonly clients = new StreamClients();
  readonly socket: LiveSocket;
  #sequence = 0;

  constructor() {
    const intervals = spyOn(globalThis, "setInterval").mockImplementation(((tick: () => void) => {
      this.#ticks.push(tick);
      return { unref() {} };
    }) as unknown as typeof setInterval);
    const sources = (this.sources = new LiveSources(() => this.now));
    intervals.mockRestore();
    closing.push(() => sources.close());
    this.context = {
      liveSources: sources,
      newestFrames: {
        newest: async (stats: { newest: unknown; frames: number }) => {
          return { newest: stats.newest, bytes, serial: stats.frames };
        },
      },
      refresh: async () => {},
      status: { jsonFor: () => JSON.stringify(sources.senders) },
    } as unknown as HttpContext;
    const client = this.clients.add("page", fullAccess);
    this.socket = new LiveSocket(client, { context: this.context, run: runAtOnce });
    const webSocket = {
      getBufferedAmount: () => 0,
      sendBinary: () => void this.sent++,
      close: () => (this.isClosed = true),
    };
    this.socket.onOpen(webSocket as unknown as ServerWebSocket<unknown>);
  }

  watchViews(...list: [string, string, number][]): void {
    this.socket.onMessage(JSON.stringify({ watch: list }));
  }

  watch(...list: [string, string][]): void {
    this.socket.onMessage(JSON.stringify({ watch: list }));
  }

  /** Stores a frame. */
  store(source: string): void {
    const frame = { name: `${++this.#sequence}.png`, sequence: this.#sequence, size: 100 };
    const description = { ...frame, captured: BigInt(this.now) * 1_000_000n, metadata: "" };
    this.sources.recorder({ stream: "s", source, session }).recordStored(description, 1);
    this.sources.onFlushed();
  }

  /** Lets five seconds pass. */
  pass(): void {
    this.now += 5000;
    for (const tick of this.#ticks) tick();
  }
}

/** Bytes of the objects that are in use, and of what they refer to outside the heap. */
function heapBytes(): number {
  Bun.gc(true);
  const { heapSize, extraMemorySize } = heapStats();
  return heapSize + extraMemorySize;
}

/** Waits until the promises of a page have run. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("what a page is sent", () => {
  test("a source of which nothing new came begins anew for another view, and only then", async () => {
    const world = new World();
    world.store("a");
    world.watchViews(["s", "a", 1]);
    await settle();
    expect(world.sent).toBe(1);
    world.socket.onMessage('{"took":0}');
    world.watchViews(["s", "other", 7], ["s", "a", 1]);
    await settle();
    expect(world.sent).toBe(1);
    world.watchViews(["s", "a", 2]);
    await settle();
    expect(world.sent).toBe(2);
  });

  test("a list with anything but names and a number ends the socket", () => {
    for (const entry of [
      ["s"],
      ["s", "a", "1"],
      ["s", "a", 1, 2],
      ["s", 5],
      "s",
      ["s", "a", 0.5],
    ]) {
      const world = new World();
      world.socket.onMessage(JSON.stringify({ watch: [entry] }));
      expect([entry, world.isClosed]).toEqual([entry, true]);
    }
  });
});

describe("a page's memory", () => {
  test("watching sources that do not exist makes no statistics, and an earlier list is forgotten", async () => {
    const world = new World();
    const list = (round: number) =>
      Array.from({ length: 64 }, (_, index): [string, string] => [
        "s",
        `${"x".repeat(900)}${round}/${index}`,
      ]);
    world.watch(...list(0));
    const before = heapBytes();
    for (let round = 1; round <= 1000; round++) world.watch(...list(round));
    await settle();
    expect([...world.sources.all()]).toEqual([]);
    // The lists have 58 MB together, and the last one 58 KB.
    expect(heapBytes() - before).toBeLessThan(3e6);
  });

  test("a source that is watched before its first frame is shown from that frame on", async () => {
    const world = new World();
    world.watch(["s", "later"], ["s", "never"]);
    world.store("other");
    await settle();
    expect(world.sent).toBe(0);
    world.store("later");
    await settle();
    expect(world.sent).toBe(1);
    world.watch(["s", "never"]);
    world.store("later");
    await settle();
    expect(world.sent).toBe(1);
  });

  test("an open page takes as much after a day as after an hour", async () => {
    const world = new World();
    const request = {
      context: world.context,
      request: new Request("http://localhost/events"),
      principal: fullAccess,
      clients: world.clients,
      run: runAtOnce,
      setIdleTimeout: () => {},
    } as unknown as RouteRequest;
    const events = handleEvents(request).body!.getReader();
    let afterAnHour = 0;
    for (let second = 5; second <= 24 * 3600; second += 5) {
      // A page scrolls, a camera is renamed, and a sender fails.
      if (second % 30 === 0) world.watch(["s", "a"], ["s", `${second}`], ["s", `b${second % 90}`]);
      world.store("a");
      if (second % 600 === 0) world.sources.problems.add("timeout", `${second}`, "s", `${second}`);
      world.socket.onMessage('{"took":0}');
      world.pass();
      await events.read();
      if (second === 3600) afterAnHour = heapBytes();
    }
    expect(world.sent).toBeGreaterThan(17_000);
    expect(heapBytes() - afterAnHour).toBeLessThan(0.5e6);
    await events.cancel();
  });
});
