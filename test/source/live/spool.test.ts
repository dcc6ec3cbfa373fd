// Frames that are spooled while no server is connected, across processes.
//
// Covers: source/live/source-spool.ts, source/live/spooled-frame.ts

import { Database } from "bun:sqlite";
import { describe, expect, spyOn, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../../src/errors.ts";
import type { Frame } from "../../../src/frame.ts";
import type { CapturedFrame } from "../../../src/source/live/iterable-source.ts";
import { LiveSource } from "../../../src/source/live/live-source.ts";
import type { QueuePolicy } from "../../../src/source/per-source.ts";
import { SourceSpool } from "../../../src/source/live/source-spool.ts";
import { Spool, type SpooledSession } from "../../../src/source/live/spool.ts";
import { Room } from "../../chaos/room.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { refusal } from "../../helper/refusal.ts";
import { MemoryFrame } from "../../protocol/memory.ts";

const session = { id: "a".repeat(32), started: Date.UTC(2026, 10, 22) };
const other = { id: "b".repeat(32), started: Date.UTC(2026, 10, 23) };

function open(path: string, more: { stream?: string; most?: number } = {}): Spool {
  return spoolAt(path, session, more.stream, more.most);
}

function spoolAt(directory: string, as: SpooledSession, stream = "run7", maxBytes = 1e9): Spool {
  return new Spool({ directory, stream, session: as, maxBytes });
}

/** Reopens a spool. Since it still has frames, its state is the same as after a crash. */
function reopen(spool: Spool, path: string, as = other): Spool {
  spool.close();
  return spoolAt(path, as);
}

function frame(sequence: number, size = 10): MemoryFrame {
  return new MemoryFrame(sequence, size, {
    captured: 1_795_331_523_123_456_789n,
    metadata: `{"gain":${sequence}}`,
  });
}

function given(spool: SourceSpool): number[] {
  const found: number[] = [];
  for (let next; (next = spool.next()) !== undefined;) found.push(next.sequence);
  return found;
}

const canMount =
  process.platform === "linux" && spawnSync("unshare", ["--mount", "true"]).status === 0;

describe("Spool", () => {
  test("the database of a spool keeps its log small beside the frames", () => {
    const directory = temporaryFolder();
    const spool = open(directory, { most: 2 ** 20 });
    const source = spool.sourceSpool("visible");
    for (let sequence = 1; sequence <= 500; sequence++) {
      source.put(frame(sequence));
      source.delete(sequence);
    }
    expect(statSync(join(directory, "spool.sqlite-wal")).size).toBeLessThan(2 ** 17);
    spool.close();
  });

  test.skipIf(!canMount)(
    `${canMount ? "" : "(needs mount) "}a spool that has filled its disk takes frames again after the server has confirmed those`,
    async () => {
      const room = new Room(2 ** 20);
      try {
        const directory = join(room.disk, "spool");
        const spool = open(directory);
        const source = spool.sourceSpool("visible");
        for (let round = 0, last = 0; round < 3; round++) {
          const first = last + 1;
          expect(() => {
            for (; ; last++) source.put(frame(last + 1));
          }).toThrow("no space left on the disk");
          expect(last).toBeGreaterThan(first);
          for (let sequence = first; sequence <= last; sequence++) source.delete(sequence);
        }
        spool.close();
        expect(open(directory).spooledSources()).toEqual([]);
      } finally {
        await room.close();
      }
    },
  );

  test("a spool returns frames unchanged, with exact times, in the order of their numbers", async () => {
    const spool = open(temporaryFolder());
    const source = spool.sourceSpool("visible");
    const frames = [3, 1, 2].map((sequence) => frame(sequence, 5000));
    for (const one of frames) source.put(one);
    expect(source.length).toBe(3);
    for (const sequence of [1, 2, 3]) {
      const kept = source.next()!;
      const { name, captured, size, metadata, bytes } = frame(sequence, 5000);
      expect(kept).toMatchObject({ name, sequence, captured, size, metadata });
      const into = new Uint8Array(size);
      kept.read(into);
      expect(Buffer.from(into)).toEqual(Buffer.from(bytes));
      const pieces: Uint8Array[] = [];
      for await (const piece of { [Symbol.asyncIterator]: () => kept.pieces() }) pieces.push(piece);
      expect(Buffer.concat(pieces)).toEqual(Buffer.from(bytes));
    }
    expect(source.next()).toBeUndefined();
    spool.close();
  });

  test("a spool returns each frame once for a connection, and unconfirmed frames again for the next", () => {
    const spool = open(temporaryFolder());
    const source = spool.sourceSpool("visible");
    for (const sequence of [1, 2, 3]) source.put(frame(sequence));
    expect(given(source)).toEqual([1, 2, 3]);
    source.put(frame(4));
    expect(given(source)).toEqual([4]);
    source.delete(2);
    source.rewind();
    expect(given(source)).toEqual([1, 3, 4]);
    spool.close();
  });

  test("a spool keeps frames, last number and session for the next process until it is empty", () => {
    const path = temporaryFolder();
    let spool = open(path);
    spool.sourceSpool("visible").put(frame(5));
    spool.sourceSpool("visible").lastNumber = 7;
    spool = reopen(spool, path);
    expect(spool.session).toEqual(session);
    const source = spool.sourceSpool("visible");
    expect([source.length, source.lastNumber, given(source)]).toEqual([1, 7, [5]]);
    source.delete(5);
    spool = reopen(spool, path);
    expect(spool.session).toEqual(other);
    expect([spool.sourceSpool("visible").length, spool.sourceSpool("visible").lastNumber]).toEqual([
      0, 0,
    ]);
    spool.close();
  });

  test("a spool keeps the shape of each frame in a table that earlier versions ignore", () => {
    const path = temporaryFolder();
    let spool = open(path);
    const shapes = [
      { width: 2, height: 1, format: "bgr8" },
      undefined,
      { width: 1, height: 2, format: "gray16le" },
    ];
    for (const [index, raw] of shapes.entries()) {
      spool.sourceSpool("ir").put(Object.assign(frame(index + 1), { raw }));
    }
    spool = reopen(spool, path);
    expect(spool.spooledSources()).toEqual(["ir"]);
    const source = spool.sourceSpool("ir");
    expect(shapes.map(() => source.next()?.raw)).toEqual(shapes);
    spool.close();
    const database = new Database(join(path, "spool.sqlite"));
    const columns = database.query<{ name: string }, []>("PRAGMA table_info(frames)").all();
    expect(columns.map(({ name }) => name)).toEqual([
      ...["source", "seq", "name", "captured", "size", "meta"],
    ]);
    database.close();
  });

  test("a spool keeps sources apart and writes no file outside, for any source name", () => {
    const path = temporaryFolder();
    const spool = open(path);
    const names = ["visible", "a/b", "../..", "."];
    for (const [index, name] of names.entries()) spool.sourceSpool(name).put(frame(index + 1));
    for (const [index, name] of names.entries())
      expect(given(spool.sourceSpool(name))).toEqual([index + 1]);
    spool.close();
    // No file was created outside the spool.
    expect(readdirSync(join(path, "..")).filter((name) => /^\d+$/.test(name))).toEqual([]);
  });

  test("a spool counts the bytes of all sources and processes, and stores a frame once", () => {
    const path = temporaryFolder();
    let spool = open(path, { most: 100 });
    const [visible, infrared] = [spool.sourceSpool("visible"), spool.sourceSpool("infrared")];
    visible.put(frame(1, 40));
    visible.put(frame(1, 40));
    infrared.put(frame(1, 40));
    expect([visible.hasRoomFor(frame(2, 20)), infrared.hasRoomFor(frame(2, 21))]).toEqual([
      true,
      false,
    ]);
    spool.close();
    spool = open(path, { most: 100 });
    expect([spool.hasRoom(20), spool.hasRoom(21)]).toEqual([true, false]);
    spool.sourceSpool("visible").delete(1);
    spool.sourceSpool("visible").delete(1);
    expect([spool.hasRoom(60), spool.hasRoom(61)]).toEqual([true, false]);
    spool.close();
  });

  test("a spool removes the files of deleted frames", () => {
    const path = temporaryFolder();
    const spool = open(path);
    const source = spool.sourceSpool("visible");
    for (const sequence of [1, 2, 3]) source.put(frame(sequence));
    for (const sequence of [1, 2, 3]) source.delete(sequence);
    expect(readdirSync(join(path, "visible"))).toEqual([]);
    spool.close();
  });

  test("a spool deletes a frame whose loss was recorded by a process that was killed before deleting it", () => {
    const path = temporaryFolder();
    const spool = open(path);
    const source = spool.sourceSpool("visible");
    for (const sequence of [1, 2, 3, 4]) source.put(frame(sequence));
    const error = new FramesError("dropped");
    source.recordLoss({ first: 2, last: 3, what: "2", error });
    const next = reopen(spool, path);
    const left = next.sourceSpool("visible");
    expect([left.length, given(left)]).toEqual([2, [1, 4]]);
    expect(readdirSync(join(path, "visible")).sort()).toEqual(["1", "4"]);
    expect(left.losses()).toEqual([{ first: 2, last: 3, what: "2", error }]);
    next.close();
  });

  test("a spool refuses to return bytes that were changed or removed on the disk", () => {
    const path = temporaryFolder();
    const spool = open(path);
    const source = spool.sourceSpool("visible");
    for (const sequence of [1, 2]) source.put(frame(sequence));
    writeFileSync(join(path, "visible/1"), "other");
    rmSync(join(path, "visible/2"));
    for (const why of [
      "another program changed the spool",
      "the spool cannot be read: no such file",
    ]) {
      const kept = source.next()!;
      const { code, message } = refusal(() => kept.read(new Uint8Array(kept.size)));
      expect(code).toBe("unreadable");
      expect(message).toContain(why);
    }
    spool.close();
  });

  test("a spool that cannot be written reports an error, and keeps no part of the frame", () => {
    const path = temporaryFolder();
    const spool = open(path);
    const source = spool.sourceSpool("visible");
    rmSync(join(path, "visible"), { recursive: true });
    const { code, message } = refusal(() => source.put(frame(1)));
    expect([code, message.startsWith("the spool cannot be written")]).toEqual(["unreadable", true]);
    expect(source.length).toBe(0);
    spool.close();
  });
});

describe("refused spools", () => {
  test("a spool that another process has open is refused", () => {
    const path = temporaryFolder();
    const spool = open(path);
    const { code, message } = refusal(() => open(path));
    expect(code).toBe("usage");
    expect(message).toBe(
      `Cannot use the spool ${path}: another process uses it; stop it, or choose another --spool`,
    );
    spool.close();
    open(path).close();
  });

  test("a spool with frames of another stream is refused and stays unchanged", () => {
    const path = temporaryFolder();
    const spool = open(path);
    spool.sourceSpool("visible").put(frame(1));
    spool.close();
    const { code, message } = refusal(() => open(path, { stream: "run8" }));
    expect(code).toBe("usage");
    expect(message).toContain("for run8: it contains frames of run7; send those first");
    const again = open(path);
    expect(given(again.sourceSpool("visible"))).toEqual([1]);
    again.close();
  });

  test("a path that is no folder or no spool is refused", () => {
    const folder = temporaryFolder();
    const file = join(folder, "file");
    writeFileSync(file, "");
    for (const path of [file, join(file, "below")]) {
      expect(refusal(() => open(path)).code).toBe("missing");
    }
    writeFileSync(join(folder, "spool.sqlite"), "this is no database, whatever its name says");
    expect(refusal(() => open(folder)).code).toBe("missing");
  });
});

/** A source with a spool, and a camera that captures on demand. */
function camera(policy: QueuePolicy, most = 1e9) {
  const path = temporaryFolder();
  const spool = spoolAt(path, session, "run7", most);
  const ready: CapturedFrame[] = [];
  let shot = 0;
  let wake = () => {};
  async function* frames(): AsyncGenerator<CapturedFrame, undefined> {
    for (;;) {
      while (ready.length > 0) yield ready.shift()!;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  }
  const naming = { started: session.started, clock: () => 0 };
  const parts = spool.sourceSpool("visible");
  const source = new LiveSource("visible", frames(), { policy, settings: naming, spool: parts });
  source.startCapture();
  return {
    source,
    spool: parts,
    numbers: () => {
      const folder = join(path, "visible");
      const names = existsSync(folder) ? readdirSync(folder) : [];
      return names.map(Number).sort((a, b) => a - b);
    },
    /** Captures this many frames, and waits until the source has each of them. */
    async shoot(count: number, size = 10): Promise<void> {
      const all = (shot += count);
      for (let left = count; left > 0; left--) ready.push({ bytes: new Uint8Array(size) });
      wake();
      await until("all that was shot", () => source.capturedCount === all);
    },
    [Symbol.dispose]: () => {
      source.close();
      spool.close();
    },
  };
}

/** Returns what a source yields for a connected server without waiting. */
function ready(source: LiveSource): string[] {
  const found: string[] = [];
  for (;;) {
    const item = source.next();
    if (item instanceof Promise) return found;
    found.push(
      "error" in item ? `${item.error.code} ${item.first}-${item.last}` : `${item.sequence}`,
    );
  }
}

describe("a live source with a spool", () => {
  test("a live source spools frames at once while no server is connected", async () => {
    using one = camera("block");
    await one.shoot(5);
    expect(one.numbers()).toEqual([1, 2, 3, 4, 5]);
    one.source.onConnected();
    expect(ready(one.source)).toEqual(["1", "2", "3", "4", "5"]);
    // The frames stay until the server confirms them.
    expect(one.numbers()).toEqual([1, 2, 3, 4, 5]);
  });

  test("a live source writes no frame to the spool while a server is connected", async () => {
    using one = camera({ latest: 3 });
    one.source.onConnected();
    const next = one.source.next();
    await one.shoot(1);
    expect((await next) as Frame).toMatchObject({ sequence: 1 });
    expect(one.numbers()).toEqual([]);
  });

  test("frames in flight when the server disconnects are spooled, and come first after the reconnect", async () => {
    using one = camera("block");
    one.source.onConnected();
    const next = one.source.next();
    await one.shoot(1);
    const frame = (await next) as Frame;
    expect(one.source.onDisconnected([frame])).toEqual([]);
    await one.shoot(3);
    expect(one.numbers()).toEqual([1, 2, 3, 4]);
    one.source.onConnected();
    expect(ready(one.source)).toEqual(["1", "2", "3", "4"]);
  });

  test("a request for a frame from before a disconnect gets the first spooled frame after the reconnect", async () => {
    using one = camera("block");
    one.source.onConnected();
    const waiting = one.source.next();
    one.source.onDisconnected([]);
    await one.shoot(3);
    one.source.onConnected();
    expect((await waiting) as Frame).toMatchObject({ sequence: 1 });
    expect(ready(one.source)).toEqual(["2", "3"]);
  });

  test("a request from before a disconnect gets the frame that was in flight, if no other frame comes", async () => {
    using one = camera("block");
    one.source.onConnected();
    const next = one.source.next();
    await one.shoot(1);
    const frame = (await next) as Frame;
    const waiting = one.source.next();
    one.source.onDisconnected([frame]);
    one.source.onConnected();
    expect((await waiting) as Frame).toMatchObject({ sequence: 1 });
  });

  test("a request from before a disconnect gets no frame before the reconnect", async () => {
    using one = camera("block");
    one.source.onConnected();
    const waiting = one.source.next();
    one.source.onDisconnected([]);
    const order: string[] = [];
    void Promise.resolve(waiting).then(() => order.push("given"));
    await one.shoot(2);
    await Bun.sleep(0);
    // A frame given before the reconnect would be offered first, and sent after later frames.
    order.push("connected");
    one.source.onConnected();
    expect((await waiting) as Frame).toMatchObject({ sequence: 1 });
    expect(order).toEqual(["connected", "given"]);
  });

  test("a live source gives live frames before spooled ones", async () => {
    using one = camera({ latest: 5 });
    await one.shoot(3);
    one.source.onConnected();
    await one.shoot(2);
    expect(ready(one.source)).toEqual(["4", "5", "1", "2", "3"]);
  });

  test("a live source deletes spooled frames that the server confirmed", async () => {
    using one = camera("block");
    await one.shoot(3);
    one.source.onConnected();
    const frames = [one.source.next(), one.source.next()] as Frame[];
    for (const frame of frames) one.source.onSettled(frame);
    expect(one.numbers()).toEqual([3]);
    expect(one.spool.length).toBe(1);
  });

  test("a live source with the policy latest drops the oldest frames when the spool is full", async () => {
    using one = camera({ latest: 1 }, 100);
    await one.shoot(25);
    expect(one.numbers()).toEqual([16, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
    one.source.onConnected();
    const found = ready(one.source);
    expect(found[0]).toBe("dropped 1-15");
    expect(found.slice(1)).toEqual(one.numbers().map(String));
  });

  test("a live source records the loss of a spooled frame before it deletes the frame", async () => {
    using one = camera({ latest: 1 }, 100);
    await one.shoot(10);
    const calls: string[] = [];
    const { prototype } = SourceSpool;
    const recorded = spyOn(prototype, "recordLoss").mockImplementation(() => {
      calls.push("recordLoss");
    });
    const { delete: realDelete } = prototype;
    const deleted = spyOn(prototype, "delete").mockImplementation(function (
      this: SourceSpool,
      sequence,
    ) {
      calls.push("delete");
      realDelete.call(this, sequence);
    });
    await one.shoot(1).finally(() => [recorded, deleted].forEach((spy) => spy.mockRestore()));
    expect(calls).toEqual(["recordLoss", "delete"]);
  });

  test("a live source drops a frame larger than the whole spool, and keeps the others", async () => {
    using one = camera({ latest: 1 }, 100);
    await one.shoot(2);
    await one.shoot(1, 101);
    await one.shoot(1);
    one.source.onConnected();
    expect(ready(one.source)).toEqual(["dropped 3-3", "1", "2", "4"]);
  });

  test("a live source with the policy block pauses when the spool is full, and drops no frame", async () => {
    using one = camera("block", 100);
    void one.shoot(25);
    await until("a full spool", () => one.numbers().length === 10);
    one.source.onConnected();
    const found: number[] = [];
    while (found.length < 25) {
      const next = await one.source.next();
      if (next === undefined) break;
      if ("error" in next) throw next.error;
      found.push(next.sequence);
      one.source.onSettled(next);
    }
    expect(found.toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 25 }, (_, index) => index + 1),
    );
  });

  test("a live source keeps the newest frames in memory while they cannot be spooled, and loses older ones under their numbers", async () => {
    using one = camera({ latest: 1 });
    await one.shoot(1);
    const put = one.spool.put.bind(one.spool);
    let isFull = true;
    one.spool.put = (frame) => {
      if (isFull) throw new FramesError("unreadable", "the spool cannot be written");
      put(frame);
    };
    await one.shoot(2);
    isFull = false;
    await one.shoot(1);
    one.source.onConnected();
    expect(ready(one.source)).toEqual(["unreadable 2-2", "1", "3", "4"]);
  });
});
