// Reasons for a sender not to begin frames: its caller has paused it, or many losses must be
// reported first.

import { expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame } from "../../../src/frame.ts";
import { OutgoingSource } from "../../../src/protocol/send/outgoing-source.ts";
import { Sender } from "../../../src/protocol/send/sender.ts";
import { outgoingBufferBytes } from "../../../src/protocol/send/write-batch.ts";
import { maxPackedFrameBytes } from "../../../src/wire/encode.ts";
import { decodeAll } from "../../wire/oracle.ts";
import { type FrameMessage, type } from "../../wire/vectors.ts";
import {
  Clock,
  framesOf,
  hello,
  Link,
  type LinkOptions,
  lossOf,
  MemoryFrame,
  MemorySource,
  outletsOf,
} from "../memory.ts";
import { deliver, json, of, Server } from "../peers.ts";

/** Returns a link whose sender begins nothing between `hold` and `go`. */
function held(options: LinkOptions) {
  let isHeld = false;
  const link = new Link({ ...options, isHeld: () => isHeld });
  return {
    link,
    hold: () => void (isHeld = true),
    go() {
      isHeld = false;
      link.resume();
    },
  };
}

/** Returns the frames begun, as source and number. */
function begun(link: Link): string[] {
  return of(link.said, type.FRAME).map(
    ({ message }) => `${message.source} ${(message as FrameMessage).sequence}`,
  );
}

test("a paused sender begins no frame and no OFFER, answers PING, and continues when resumed", async () => {
  const { store } = await deliver({
    sources: [new MemorySource("a", framesOf(3, 10), { resumes: true })],
  });
  const a = new MemorySource("a", framesOf(3, 10), { resumes: true });
  const camera = new MemorySource("b", framesOf(3, 10));
  const { link, hold, go } = held({
    sources: [a, camera],
    store,
    hello: { session: "f".repeat(32) },
    delay: 5,
  });
  hold();
  // Twice the timeout of both sides passes. Keepalive messages maintain the connection.
  await link.run(65_000);
  expect([begun(link), of(link.said, type.OFFER), a.taken, camera.taken]).toEqual([[], [], 0, 0]);
  link.sender.receive(new Server().json(type.PING, 0, { time: "77" }), link.clock.now);
  link.resume();
  expect(of(link.said, type.PONG).map((said) => json(said)["time"])).toContain("77");
  expect(begun(link)).toEqual([]);
  go();
  await link.run();
  expect(link.sender.done).toMatchObject({ frames: 3, stored: 3 });
  expect(link.progress[0]).toMatchObject({ settled: 3, present: 3 });
});

test("a paused sender finishes the frame it has begun, so that other sources get their receipts", async () => {
  const size = maxPackedFrameBytes + (3 << 20);
  const clock = new Clock();
  const large = new MemoryFrame(1, size, { wait: () => clock.wait(100) });
  const { link, hold, go } = held({
    clock,
    sources: [
      new MemorySource("a", [large, new MemoryFrame(2, 10)]),
      new MemorySource(
        "b",
        [1, 2].map((sequence) =>
          clock.wait(200 * sequence).then(() => new MemoryFrame(sequence, 10)),
        ),
      ),
    ],
    delay: 5,
  });
  await link.run(120);
  expect(begun(link)).toEqual(["1 1"]);
  hold();
  await link.run(10_000);
  expect(begun(link)).toEqual(["1 1"]);
  expect(link.store.frames.map(({ description }) => description.size)).toEqual([size]);
  expect(link.progress[0]).toMatchObject({ settled: 1 });
  go();
  await link.run();
  expect(link.sender.done).toMatchObject({ frames: 4, stored: 4 });
});

test("a sender reports neighbouring losses with the same error as one range", async () => {
  const changed = { ...lossOf(7), error: new FramesError("changed") };
  const items = [
    ...[lossOf(1), lossOf(2), new MemoryFrame(3, 10)],
    ...[lossOf(4), lossOf(5, 6), changed, lossOf(8), lossOf(10), lossOf(11)],
  ];
  const link = await deliver({ sources: [new MemorySource("a", items)] });
  const told = of(link.said, type.LOST).map((said) => [json(said)["ranges"], json(said)["error"]]);
  expect(told).toEqual([
    [[[1, 2]], 51],
    [[[4, 6]], 51],
    [[[7, 7]], 49],
    [[[8, 8]], 51],
    [[[10, 11]], 51],
  ]);
  // Each loss is reported to the user separately.
  expect(link.undelivered.map(({ first }) => first)).toEqual([1, 2, 4, 5, 7, 8, 10, 11]);
  expect(link.store.losses).toHaveLength(5);
});

test("a sender packs ten thousand losses into few messages and delays no other source", async () => {
  const losses = Array.from({ length: 10_000 }, (_, index) => lossOf(index + 1));
  const b = framesOf(5, 10);
  const outlets = outletsOf([new MemorySource("a", losses), new MemorySource("b", b)]);
  const link = await deliver({ outlets });
  const lost = of(link.said, type.LOST);
  expect(lost.length).toBeLessThanOrEqual(20);
  const ranges = lost.flatMap((said) => json(said)["ranges"] as [number, number][]);
  expect(ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0)).toBe(10_000);
  const types = link.said.map(({ message }) => message.type);
  expect(types.indexOf(type.FRAME)).toBeLessThan(types.lastIndexOf(type.LOST));
  expect(outlets[0]!.progress.lost).toBe(10_000);
  expect(link.undelivered).toHaveLength(10_000);
  expect(link.store.losses).toHaveLength(ranges.length);
});

test("a sender reports at most a thousand losses with each batch, so that others have their turn", () => {
  const losses = Array.from({ length: 2500 }, (_, index) => lossOf(index + 1));
  const sources = [new MemorySource("a", losses), new MemorySource("b", [lossOf(1)])];
  const sender = new Sender({
    ...{ sources: outletsOf(sources), hello, checksum: false, timeoutMs: 30_000, now: 0 },
    onWritable() {},
  });
  const buffer = new Uint8Array(outgoingBufferBytes);
  sender.transmit(buffer, 0);
  sender.receive(new Server().welcome(), 0);
  expect(sender.takeEvents().map((event) => event.type)).toEqual(["welcome"]);
  const reported: [a: number, b: number][] = [];
  while (sender.transmit(buffer, 0).length > 0) {
    const names = sender.takeEvents().map((event) => "report" in event && event.report.source);
    reported.push([names.filter((name) => name === "a").length, names.indexOf("b")]);
  }
  expect(reported).toEqual([
    [1000, -1],
    [999, 0],
    [501, -1],
  ]);
});

test("a sender reports the loss of a frame that it cannot read, although sources may be added later", async () => {
  const next = Promise.withResolvers<Frame>();
  const source = new MemorySource("a", [new MemoryFrame(1, 10), next.promise]);
  const sender = new Sender({
    ...{ sources: outletsOf([source]), hello, checksum: false },
    ...{ timeoutMs: 30_000, now: 0, canAddSources: () => true },
    onWritable() {},
  });
  const buffer = new Uint8Array(outgoingBufferBytes);
  sender.transmit(buffer, 0);
  sender.receive(new Server().welcome(), 0);
  const typesSent = () => {
    const { length } = sender.transmit(buffer, 0);
    return decodeAll(buffer.slice(0, length)).messages.map((message) => message.type);
  };
  expect(typesSent()).toEqual([type.SOURCE, type.FRAME]);
  next.resolve(new MemoryFrame(2, 10, { failures: 3 }));
  await new Promise(setImmediate);
  expect(typesSent()).toEqual([type.LOST]);
});

test("a live source that is added limits the frames in flight of all sources from then on", async () => {
  const next = Promise.withResolvers<Frame>();
  const end = Promise.withResolvers<undefined>();
  const frames = framesOf(4, 10);
  const outlets = outletsOf([
    new MemorySource("a", [...frames.slice(0, 3), next.promise, end.promise]),
  ]);
  const link = new Link({ outlets, delay: 50 });
  // WELCOME has arrived, the receipts of three frames have not.
  await link.run(150);
  expect(begun(link)).toEqual(["1 1", "1 2", "1 3"]);
  const live = Object.assign(new MemorySource("b", framesOf(20, 10)), { usesLiveWindow: true });
  outlets.push(new OutgoingSource(2, live));
  link.sender.addSource(outlets[1]!);
  next.resolve(frames[3]!);
  await link.run(20);
  expect(begun(link)).toEqual(["1 1", "1 2", "1 3", "2 1"]);
  end.resolve(undefined);
  await link.run(60_000);
  expect(begun(link)).toHaveLength(24);
  expect(link.progress.map(({ settled }) => settled)).toEqual([4, 20]);
});
