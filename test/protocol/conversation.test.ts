// Covers: frame.ts, protocol/frame-errors.ts, protocol/large-frame.ts, protocol/progress.ts,
//   protocol/rate-limiter.ts, protocol/send/loss-reports.ts, protocol/send/scheduler.ts,
//   protocol/send/send-window.ts, protocol/send/sender-event.ts, protocol/send/sender-options.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import type { Frame, FrameSource, Loss } from "../../src/frame.ts";
import { ServerEnd } from "./server-end.ts";
import { Sender } from "../../src/protocol/send/sender.ts";
import type { ReportedEvents } from "../../src/protocol/send/sender-options.ts";
import { outgoingBufferBytes } from "../../src/protocol/send/write-batch.ts";
import { maxPackedFrameBytes } from "../../src/wire/encode.ts";
import { Random } from "../wire/fuzz.ts";
import { decodeAll, misplacement } from "../wire/oracle.ts";
import {
  type DecodedMessage,
  type FrameMessage,
  message,
  misplaced,
  type ReceiptMessage,
  type,
} from "../wire/vectors.ts";
import {
  Clock,
  everyByte,
  framesOf,
  grants,
  hello,
  Link,
  lossOf,
  MemoryFrame,
  MemorySource,
  MemoryStore,
  outletsOf,
  randomly,
  type Said,
  whole,
} from "./memory.ts";
import { Client, deliver, grant, json, of, Server } from "./peers.ts";

const MiB = 1 << 20;
function senderOf(sources: readonly FrameSource[], reports: ReportedEvents = {}): Sender {
  return new Sender({
    ...{ sources: outletsOf(sources), hello, checksum: false, timeoutMs: 30_000, now: 0, reports },
    onWritable() {},
  });
}

describe("Sender and Receiver", () => {
  for (const [name, chunker] of Object.entries({
    whole,
    everyByte,
    randomly: randomly((end) => end >> 1, 40),
  })) {
    test(`a delivery of two sources stores every frame, and DONE counts them (chunks: ${name})`, async () => {
      const first = framesOf(10, 100);
      const second = [
        new MemoryFrame(1, 0, { metadata: '{"exposure": 1}', captured: -5n }),
        new MemoryFrame(7, 3, { name: "Bild äöü 写真 😀.png", captured: 2n ** 62n }),
      ];
      const link = await deliver({
        sources: [new MemorySource("a", first), new MemorySource("b/c", second)],
        chunker,
        delay: 5,
      });
      expect(link.sender.done).toEqual({
        frames: 12,
        stored: 12,
        present: 0,
        refused: 0,
        aborted: 0,
      });
      for (const [source, frames] of [
        ["a", first],
        ["b/c", second],
      ] as const) {
        const stored = link.store.frames.filter(({ origin }) => origin.source === source);
        expect(stored.map(({ description }) => description)).toEqual(
          frames.map(({ name, sequence, captured, size, metadata }) => ({
            name,
            sequence,
            captured,
            size,
            metadata,
          })),
        );
        for (const [index, { bytes, origin }] of stored.entries()) {
          expect(Buffer.from(frames[index]!.bytes).equals(bytes)).toBe(true);
          expect(origin.stream).toBe("s");
          expect(origin.session).toBe(hello.session);
        }
      }
      expect(
        link.progress.map(({ sent, settled, refused, lost }) => [sent, settled, refused, lost]),
      ).toEqual([
        [10, 10, 0, 0],
        [2, 2, 0, 0],
      ]);
    });
  }

  test("a delivery without frames sends END with 0 frames", async () => {
    const link = await deliver({ sources: [new MemorySource("a", [])] });
    expect(link.sender.done?.frames).toBe(0);
    expect(link.said.map(({ message }) => message.type)).toEqual([type.HELLO, type.END]);
  });

  test("DONE counts frames that the store already has as present", async () => {
    const store = new MemoryStore();
    await deliver({ sources: [new MemorySource("a", framesOf(3, 10))], store });
    const link = await deliver({ sources: [new MemorySource("a", framesOf(5, 10))], store });
    expect(link.sender.done).toEqual({ frames: 5, stored: 2, present: 3, refused: 0, aborted: 0 });
    expect(json(link.answered[0]!)["fresh"]).toBe(false);
  });

  test("a delivery fails with the error that a source threw", async () => {
    const broken = new Error("the camera is on fire");
    function* camera(): Generator<Frame | Promise<never>> {
      yield new MemoryFrame(1, 1);
      yield Promise.reject(broken);
    }
    const source = new MemorySource("a", camera());
    await expect(new Link({ sources: [source] }).run()).rejects.toBe(broken);
  });
});

describe("round trips", () => {
  /** Returns the milliseconds from the first byte to DONE. */
  async function took(count: number, delay: number): Promise<number> {
    return (await deliver({ sources: [new MemorySource("a", framesOf(count, 1000))], delay })).time;
  }

  test("a delivery of 30 or 3,000 frames takes two round trips in all", async () => {
    expect(await took(30, 0)).toBe(0);
    expect(await took(30, 50)).toBe(200);
    expect(await took(3000, 50)).toBe(200);
  });

  test("the sender writes the first frame one round trip after HELLO", async () => {
    const link = await deliver({ sources: [new MemorySource("a", framesOf(30, 1000))], delay: 50 });
    const { said } = link;
    expect(said[0]).toMatchObject({ at: 0, message: { type: type.HELLO } });
    for (const { at } of of(said, type.SOURCE, type.FRAME, type.END)) expect(at).toBe(100);
  });

  test("the sender writes a live frame at the moment of its capture", async () => {
    const clock = new Clock();
    function* camera(): Generator<Promise<Frame>> {
      for (let sequence = 1; sequence <= 50; sequence++) {
        yield clock
          .wait(40)
          .then(
            () => new MemoryFrame(sequence, 100, { captured: BigInt(clock.now - clock.start) }),
          );
      }
    }
    const link = await deliver({ sources: [new MemorySource("a", camera())], delay: 300, clock });
    const frames = of(link.said, type.FRAME);
    expect(frames.length).toBe(50);
    for (const { at, message } of frames)
      expect(BigInt(at)).toBe((message as FrameMessage).captured);
  });
});

describe("SendWindow", () => {
  test("unsettled frames and bytes never exceed the window, and the sender makes full use of it", async () => {
    for (const window of [
      { bytes: 1000, frames: 1000 },
      { bytes: 1 << 20, frames: 3 },
      { bytes: 1, frames: 1 },
      { bytes: 1001, frames: 7 },
    ]) {
      const sources = ["a", "b", "c"].map(
        (name) =>
          new MemorySource(
            name,
            [0, 1, 99, 100, 101, 700, 10].map((size, index) => new MemoryFrame(index + 1, size)),
          ),
      );
      const link = await deliver({ sources, grants: grant(window), delay: 10 });
      expect(link.sender.done?.stored).toBe(21);
      // `check` in `deliver` has compared each step with the window.
      const { mostFrames, mostBytes } = link.check();
      expect(mostFrames === window.frames || mostBytes > window.bytes / 2).toBe(true);
    }
  });

  test("the sender sends a frame that is larger than the window", async () => {
    for (const size of [5000, 2 * MiB]) {
      const frames = [new MemoryFrame(1, 10), new MemoryFrame(2, size), new MemoryFrame(3, 10)];
      const link = await deliver({
        sources: [new MemorySource("a", frames)],
        grants: grant({ bytes: 1000 }),
        delay: 10,
      });
      expect(link.store.frames.map(({ bytes }) => bytes.length)).toEqual([10, size, 10]);
    }
  });

  test("the window holds two frames that are each larger than half of it", async () => {
    const link = await deliver({
      sources: [new MemorySource("a", framesOf(10, 900))],
      grants: grant({ bytes: 1000 }),
      delay: 10,
    });
    expect(link.check().mostFrames).toBe(2);
    expect(link.check().mostBytes).toBe(1000);
  });

  test("a small frame is delivered although large frames of other sources fill the window", async () => {
    const large = (name: string) => new MemorySource(name, [new MemoryFrame(1, 3 * MiB)]);
    const link = await deliver({
      sources: [large("a"), large("b"), new MemorySource("c", framesOf(3, 100))],
      grants: grant({ bytes: 4 * MiB }),
      delay: 10,
    });
    expect(link.sender.done?.stored).toBe(5);
  });

  test("a window of one frame does not block two sources when one has a large frame", async () => {
    const link = await deliver({
      sources: [
        new MemorySource("a", [new MemoryFrame(1, 2 * MiB)]),
        new MemorySource("b", framesOf(3, 100)),
      ],
      grants: grant({ frames: 1 }),
      delay: 10,
    });
    expect(link.sender.done?.stored).toBe(4);
  });

  test("the receiver fails with `limit` when a sender exceeds the window", () => {
    const peer = new Client(grant({ frames: 2 }));
    peer.greet();
    expect(
      peer.says(peer.source(1), peer.frame(1), peer.frame(1, { sequence: 2 })),
    ).toBeUndefined();
    expect(peer.says(peer.frame(1, { sequence: 3 }))).toBe("limit");
  });

  test("a RECEIPT frees the window for further frames", () => {
    const peer = new Client(grant({ frames: 2 }));
    peer.greet();
    peer.says(peer.source(1));
    for (let sequence = 1; sequence <= 10; sequence += 2) {
      expect(
        peer.says(peer.frame(1, { sequence }), peer.frame(1, { sequence: sequence + 1 })),
      ).toBeUndefined();
      peer.receiver.ack(0);
    }
    expect(peer.heard().at(-1)).toMatchObject({ type: type.RECEIPT, frames: 10 });
  });
});

describe("large frames", () => {
  test("the receiver assembles a large frame from its pieces", async () => {
    for (const size of [maxPackedFrameBytes, maxPackedFrameBytes + 1, 1 << 20, 3 * MiB + 7]) {
      const frame = new MemoryFrame(1, size, { piece: 700_001 });
      const link = await deliver({ sources: [new MemorySource("a", [frame])], delay: 1 });
      expect(Buffer.from(frame.bytes).equals(link.store.frames[0]!.bytes)).toBe(true);
    }
  });

  test("a large frame does not delay the small frames of another source", async () => {
    const clock = new Clock();
    const slow = new MemoryFrame(1, 8 * MiB, { wait: () => clock.wait(10) });
    const link = await deliver({
      sources: [new MemorySource("a", [slow]), new MemorySource("b", framesOf(200, 1000))],
      delay: 50,
      clock,
    });
    const { said } = link;
    const small = said.filter(({ message }) => message.type === type.FRAME && message.source === 2);
    expect(small.length).toBe(200);
    for (const { at } of small) expect(at).toBe(100);
    expect(said.findLast(({ message }) => message.type === type.DATA)?.at).toBe(180);
  });

  test("the sender keeps at most limits.unfinished large frames unfinished at once", async () => {
    for (const unfinished of [1, 2, 8]) {
      const sources = ["a", "b", "c"].map(
        (name) => new MemorySource(name, [new MemoryFrame(1, 2 * MiB)]),
      );
      const link = await deliver({ sources, grants: grant({}, { unfinished }), delay: 1 });
      expect(link.sender.done?.stored).toBe(3);
    }
  });

  for (const size of [2 * MiB, 6 * MiB]) {
    test(`a large frame of ${size / MiB} MiB begins after at most half a window of small frames`, async () => {
      const clock = new Clock();
      const window = 3 * MiB;
      const small = 64 << 10;
      // The small frames always exceed the window, and receipts free it in small steps. Without a
      // reservation there would never be room for the large frame.
      const camera = function* (): Generator<Promise<Frame>> {
        for (let sequence = 1; sequence <= 250; sequence++) {
          yield clock.wait(1).then(() => new MemoryFrame(sequence, small));
        }
      };
      const asked = 200;
      const large = clock.wait(asked).then(() => new MemoryFrame(1, size));
      const link = new Link({
        sources: [new MemorySource("a", camera()), new MemorySource("b", [large])],
        grants: grant({ bytes: window }),
        delay: 50,
        clock,
      });
      await link.run(asked + 600);
      link.stop();
      await link.run();
      link.check();
      const begun = of(link.said, type.FRAME);
      const at = begun.findIndex(({ message }) => message.source === 2);
      expect(at).toBeGreaterThan(-1);
      const passed = begun.slice(0, at).filter((said) => said.at >= asked);
      // It waited for the window, but no longer than that.
      expect(passed.length).toBeGreaterThan(1);
      expect(passed.length * small).toBeLessThanOrEqual(window / 2 + small);
      expect(link.progress[1]).toMatchObject({ sent: 1, settled: 1, settledBytes: size });
      // Afterwards the small frames continue beside it.
      expect(begun.length).toBeGreaterThan(at + 1);
    });
  }

  test("each further large frame lets half a window of small frames pass, and no more", async () => {
    const clock = new Clock();
    const window = 3 * MiB;
    const size = 1.5 * MiB;
    const small = 64 << 10;
    const camera = function* (): Generator<Promise<Frame>> {
      for (let sequence = 1; sequence <= 400; sequence++) {
        yield clock.wait(1).then(() => new MemoryFrame(sequence, small));
      }
    };
    const large = [1, 2, 3].map((sequence) =>
      clock.wait(200).then(() => new MemoryFrame(sequence, size)),
    );
    const link = new Link({
      sources: [new MemorySource("a", camera()), new MemorySource("b", large)],
      grants: grant({ bytes: window }),
      delay: 50,
      clock,
    });
    await link.run(1500);
    link.stop();
    await link.run();
    link.check();
    const begun = of(link.said, type.FRAME).map(({ message }) => message.source);
    const turns = begun.flatMap((source, index) => (source === 2 ? [index] : []));
    expect(turns).toHaveLength(3);
    for (const index of [1, 2]) {
      const between = (turns[index]! - turns[index - 1]! - 1) * small;
      expect(between).toBeGreaterThanOrEqual(window / 2);
      expect(between).toBeLessThanOrEqual(window / 2 + small);
    }
  });

  test("progress follows a large frame from its first piece to its receipt", async () => {
    const clock = new Clock();
    const size = 4 * MiB;
    const frame = new MemoryFrame(1, size, { wait: () => clock.wait(100) });
    const link = new Link({ sources: [new MemorySource("a", [frame])], clock, delay: 10 });
    const seen: number[] = [];
    link.onStep = () => {
      const { largeFrameSent: part, largeFrameSize: partOf, settledBytes } = link.progress[0]!;
      if (part > 0) expect(partOf).toBe(size);
      // A frame counts either as in transit or as settled, never twice.
      expect(part + settledBytes).toBeLessThanOrEqual(size);
      if (part !== seen.at(-1)) seen.push(part);
    };
    await link.run();
    expect(seen.slice(0, 4)).toEqual([0, MiB, 2 * MiB, 3 * MiB]);
    expect(link.progress[0]).toMatchObject({
      ...{ sent: 1, bytes: size, settled: 1, settledBytes: size, largeFrameSent: 0 },
    });
  });

  test("small frames are delivered beside a large one when limits.unfinished is 1", async () => {
    const link = await deliver({
      sources: [
        new MemorySource("a", [new MemoryFrame(1, 2 * MiB)]),
        new MemorySource("b", framesOf(5, 100)),
      ],
      grants: grant({}, { unfinished: 1 }),
      delay: 1,
    });
    expect(link.sender.done?.stored).toBe(6);
  });

  test("the sender ends a large frame with ABORT when reading it fails, and sends it again", async () => {
    const frame = new MemoryFrame(1, 3 * MiB, { failures: 2, failAfter: 2 * MiB });
    const link = await deliver({
      sources: [new MemorySource("a", [frame, new MemoryFrame(2, 5)])],
      delay: 10,
    });
    expect(link.sender.done).toEqual({ frames: 4, stored: 2, present: 0, refused: 0, aborted: 2 });
    expect(Buffer.from(frame.bytes).equals(link.store.frames[0]!.bytes)).toBe(true);
    const aborts = of(link.said, type.ABORT);
    expect(aborts.map(json)).toEqual(
      [1, 1].map((sequence) => ({ sequence, error: 49, message: "it changed" })),
    );
    expect(link.progress[0]).toMatchObject({
      sent: 2,
      settled: 2,
      bytes: 3 * MiB + 5,
      largeFrameSent: 0,
    });
  });

  test("the sender reports a large frame as LOST after its ABORT when reading keeps failing", async () => {
    const frame = new MemoryFrame(1, 2 * MiB, { failures: 9 });
    const link = await deliver({ sources: [new MemorySource("a", [frame])], delay: 10 });
    expect(link.sender.done).toEqual({ frames: 3, stored: 0, present: 0, refused: 0, aborted: 3 });
    expect(link.store.losses).toEqual([{ source: "a", first: 1, last: 1, code: "changed" }]);
    expect(link.undelivered.map(({ error }) => error.code)).toEqual(["changed"]);
  });

  test("the sender reports a large frame as LOST when it becomes shorter while it is read", async () => {
    class Shrinking extends MemoryFrame {
      override async *pieces(): AsyncGenerator<Uint8Array, undefined> {
        yield this.bytes.slice(0, 1000);
        return undefined;
      }
    }
    const link = await deliver({ sources: [new MemorySource("a", [new Shrinking(1, 2 * MiB)])] });
    expect(link.store.losses).toEqual([{ source: "a", first: 1, last: 1, code: "changed" }]);
  });

  test("the sender aborts a refused large frame at once, and each end reports it once", async () => {
    const clock = new Clock();
    const store = new MemoryStore({
      refuse: ({ name }) => (name === "f1" ? new FramesError("bad-name") : undefined),
    });
    const frame = new MemoryFrame(1, 50 * MiB, { wait: () => clock.wait(10) });
    const link = await deliver({
      sources: [new MemorySource("a", [frame, new MemoryFrame(2, 5)])],
      store,
      delay: 20,
      clock,
    });
    expect(link.sender.done).toEqual({ frames: 2, stored: 1, present: 0, refused: 1, aborted: 0 });
    expect(of(link.said, type.DATA).length).toBeLessThan(10);
    expect(link.undelivered.map(({ what, error }) => [what, error.code])).toEqual([
      ["f1", "bad-name"],
    ]);
    expect(link.outcomes.map(({ name, outcome }) => [name, outcome])).toEqual([
      ["f1", "bad-name"],
      ["f2", "stored"],
    ]);
  });

  test("a large frame that is refused while it is being sent again is reported once", async () => {
    const clock = new Clock();
    const store = new MemoryStore({ refuse: () => new FramesError("bad-name") });
    const frame = new MemoryFrame(1, 4 * MiB, {
      failures: 1,
      failAfter: MiB,
      wait: () => clock.wait(15),
    });
    const link = await deliver({
      sources: [new MemorySource("a", [frame])],
      store,
      delay: 50,
      clock,
    });
    expect(link.sender.done?.refused).toBe(2);
    expect(link.undelivered.map(({ what }) => what)).toEqual(["f1"]);
    expect(link.progress[0]?.refused).toBe(1);
  });

  test("the sender reports a frame with a name over 255 bytes as lost, and delivers the others", async () => {
    const name = "n".repeat(256);
    for (const size of [10, 2 * MiB]) {
      const frames = [new MemoryFrame(1, size, { name }), new MemoryFrame(2, 5)];
      const link = await deliver({ sources: [new MemorySource("a", frames)] });
      expect(link.sender.done).toMatchObject({ frames: 1, stored: 1 });
      expect(link.undelivered.map(({ error }) => error.code)).toEqual(["bad-name"]);
    }
  });
});

test("the sender packs a frame that just fits one message behind the longest SOURCE", async () => {
  const metadata = `{"x":"${"m".repeat(4088)}"}`;
  const frame = new MemoryFrame(1, maxPackedFrameBytes, { name: "n".repeat(255), metadata });
  const link = await deliver({
    sources: [new MemorySource("d/".repeat(31) + "e".repeat(255), [frame])],
  });
  expect(Buffer.from(frame.bytes).equals(link.store.frames[0]!.bytes)).toBe(true);
});

describe("limits.frame", () => {
  const limited = grant({}, { frame: 1000 });

  test("the sender reports frames over limits.frame as LOST and does not send them", async () => {
    const frames = [1000, 1001, 2 * MiB, 5].map((size, index) => new MemoryFrame(index + 1, size));
    const link = await deliver({ sources: [new MemorySource("a", frames)], grants: limited });
    expect(link.store.frames.map(({ description }) => description.sequence)).toEqual([1, 4]);
    expect(
      link.undelivered.map(({ first, last, what, error }) => [first, last, what, error.code]),
    ).toEqual([
      [2, 2, "f2", "too-large"],
      [3, 3, "f3", "too-large"],
    ]);
    expect(link.store.losses.map(({ first, code }) => [first, code])).toEqual([
      [2, "too-large"],
      [3, "too-large"],
    ]);
    expect(link.progress[0]?.lost).toBe(2);
  });

  for (const end of ["goes on with its pieces", "is aborted"] as const) {
    test(`a receiver refuses a frame over limits.frame before storing any of it, and the frame ${end}`, () => {
      const peer = new Client(limited);
      peer.greet();
      const size = 3 * MiB;
      const piece = Buffer.alloc(MiB - 100);
      const first = peer.frame(1, { size, payload: piece, more: true });
      peer.says(peer.source(1), peer.frame(1, { sequence: 9 }));
      peer.heard();
      // Only the description, no payload.
      expect(peer.says(first.subarray(0, 12 + 32 + 2))).toBeUndefined();
      expect(peer.heard()).toMatchObject([
        { type: type.REFUSED, source: 1, json: { sequence: 1, error: 32 } },
      ]);
      expect(peer.says(first.subarray(12 + 32 + 2))).toBeUndefined();
      let sent = piece.length;
      if (end === "is aborted") {
        peer.says(peer.json(type.ABORT, 1, { sequence: 1 }));
      } else {
        let whole = piece;
        while (sent < size) {
          const next = Buffer.alloc(Math.min(piece.length, size - sent));
          const before = whole;
          whole = Buffer.concat([whole, next]);
          sent += next.length;
          peer.says(peer.data(1, before, next, sent < size));
        }
      }
      expect(peer.store.begun).toEqual(["f"]);
      expect(peer.store.written).toBe(0);
      expect(
        peer.says(peer.frame(1, { sequence: 2, name: "g" }), peer.json(type.END, 0, { frames: 3 })),
      ).toBeUndefined();
      peer.receiver.ack(0);
      expect(peer.heard()).toMatchObject([
        { type: type.RECEIPT, frames: 3 },
        { type: type.DONE, json: { frames: 3, stored: 2, present: 0, refused: 1, aborted: 0 } },
      ]);
      expect(peer.store.losses).toEqual([{ source: "a", first: 1, last: 1, code: "too-large" }]);
    });
  }
});

describe("refused frames", () => {
  test("refused frames are counted and reported by name, and the others are stored", async () => {
    const store = new MemoryStore({
      refuse: ({ name }) =>
        name === "f3" ? new FramesError("unportable-name", "a reason") : undefined,
      failWrite: ({ name }) => (name === "f5" ? new FramesError("not-stored") : undefined),
      finish: ({ name }) =>
        name === "f7" ? Promise.resolve(new FramesError("conflict")) : undefined,
    });
    const link = await deliver({
      sources: [new MemorySource("a", framesOf(10, 10))],
      store,
      delay: 10,
    });
    expect(link.sender.done).toEqual({ frames: 10, stored: 7, present: 0, refused: 3, aborted: 0 });
    const refused = [
      ["f3", "unportable-name"],
      ["f5", "not-stored"],
      ["f7", "conflict"],
    ];
    expect(link.undelivered.map(({ what, error }) => [what, error.code])).toEqual(refused);
    expect(link.undelivered[0]?.error.message).toBe("a reason");
    expect(
      link.outcomes
        .filter(({ outcome }) => outcome !== "stored")
        .map(({ name, outcome }) => [name, outcome])
        .sort(),
    ).toEqual(refused);
    expect(link.progress[0]).toMatchObject({ sent: 10, settled: 10, refused: 3, lost: 0 });
    // A conflict is not a loss, because a frame with that name is stored.
    expect(link.store.losses.map(({ first, code }) => [first, code]).sort()).toEqual([
      [3, "unportable-name"],
      [5, "not-stored"],
    ]);
  });

  test("the receiver sends REFUSED before the RECEIPT that counts the frame", async () => {
    const clock = new Clock();
    const store = new MemoryStore({
      finish: ({ sequence }) =>
        clock
          .wait(sequence % 7)
          .then(() => (sequence % 3 === 0 ? new FramesError("not-stored") : undefined)),
    });
    const link = await deliver({
      sources: [new MemorySource("a", framesOf(60, 10))],
      store,
      clock,
      delay: 3,
    });
    const refused = new Set<unknown>();
    for (const { message } of link.answered) {
      if (message.type === type.REFUSED) refused.add(json(message)["sequence"]);
      const settled = message.type === type.RECEIPT ? (message as ReceiptMessage).frames : 0;
      for (let sequence = 3; sequence <= settled; sequence += 3)
        expect(refused.has(sequence)).toBe(true);
    }
    expect(link.sender.done?.refused).toBe(20);
  });

  test("the receiver refuses every frame of a source that the store does not accept", async () => {
    const store = new MemoryStore({
      refuseSource: ({ source }) => (source === "b" ? new FramesError("bad-name") : undefined),
    });
    const sources = ["a", "b"].map(
      (name) => new MemorySource(name, [...framesOf(5, 10), lossOf(6)]),
    );
    const link = await deliver({ sources, store });
    expect(link.sender.done).toMatchObject({ frames: 10, stored: 5, refused: 5 });
    expect(
      link.undelivered.filter(({ source }) => source === "b").map(({ error }) => error.code),
    ).toContain("bad-name");
    expect(link.lost).toContainEqual({ source: "b", frames: 1, code: "dropped" });
  });

  test("the receiver shortens a long reason for a refusal so that it fits into REFUSED", async () => {
    const store = new MemoryStore({
      refuse: () => new FramesError("not-stored", "\u0001".repeat(100_000)),
    });
    const link = await deliver({ sources: [new MemorySource("a", framesOf(2, 10))], store });
    expect(link.sender.done?.refused).toBe(2);
  });

  test("the connection ends when the store as a whole fails, instead of refusing frames", async () => {
    const failures = [
      new MemoryStore({ refuse: () => new FramesError("store", "the disk is gone") }),
      new MemoryStore({ refuseSource: () => new FramesError("store", "the disk is gone") }),
      new MemoryStore({ failWrite: () => new FramesError("store", "the disk is gone") }),
    ];
    for (const store of failures) {
      const link = await new Link({
        sources: [new MemorySource("a", framesOf(2, 10))],
        store,
      }).run();
      expect(link.receiverError?.code).toBe("store");
      expect(link.senderError?.code).toBe("store");
      expect(link.store.writers).toBe(0);
    }
  });
});

describe("LOST", () => {
  test("the receiver counts LOST ranges over all numbers, and records a repeated range once", async () => {
    const lost: number[] = [];
    const store = new MemoryStore();
    const receiver = new ServerEnd(store, grants, 30_000, 0, {
      onHello: () => ({ fresh: true }),
      onEvent: (event) => event.type === "lost" && lost.push(event.frames),
    });
    const peer = new Client();
    const most = Number.MAX_SAFE_INTEGER;
    receiver.receive(Buffer.concat([peer.hello(), peer.source(1)]), 0);
    const ranges = Array.from({ length: 1100 }, () => [1, most]);
    receiver.receive(peer.json(type.LOST, 1, { ranges, error: 48 }), 0);
    while (receiver.isPaused) await Promise.resolve();
    receiver.receive(peer.json(type.LOST, 1, { ranges: [[5, 7]], error: 48 }), 0);
    expect(lost).toEqual([most, 3]);
    // A range of the same session is recorded only once.
    expect(store.losses).toHaveLength(2);
  });

  test("the store records losses before, between and after frames", async () => {
    const items: (Frame | Loss)[] = [
      lossOf(1, 3),
      new MemoryFrame(4, 10),
      lossOf(5),
      new MemoryFrame(6, 10),
      lossOf(7, 9),
    ];
    const link = await deliver({ sources: [new MemorySource("a", items)] });
    expect(link.store.losses).toEqual([
      { source: "a", first: 1, last: 3, code: "dropped" },
      { source: "a", first: 5, last: 5, code: "dropped" },
      { source: "a", first: 7, last: 9, code: "dropped" },
    ]);
    expect(link.lost.map(({ frames }) => frames)).toEqual([3, 1, 3]);
    expect(link.progress[0]?.lost).toBe(7);
  });

  test("the sender reports a small frame as LOST when reading it keeps failing", async () => {
    const frames = [
      new MemoryFrame(1, 10, { failures: 2 }),
      new MemoryFrame(2, 10, { failures: 9 }),
      new MemoryFrame(3, 10),
    ];
    const link = await deliver({ sources: [new MemorySource("a", frames)] });
    expect(link.store.frames.map(({ description }) => description.sequence)).toEqual([1, 3]);
    expect(link.store.losses).toEqual([{ source: "a", first: 2, last: 2, code: "changed" }]);
    expect(link.sender.done).toMatchObject({ frames: 2, aborted: 0 });
  });
});

describe("RECEIPT", () => {
  function receipts(said: Said[]): number[] {
    return of(said, type.RECEIPT).map(({ message }) => (message as ReceiptMessage).frames);
  }

  test("the receiver sends a RECEIPT at once when no further frame has arrived", async () => {
    const clock = new Clock();
    function* camera(): Generator<Promise<Frame>> {
      for (let sequence = 1; sequence <= 5; sequence++)
        yield clock.wait(1000).then(() => new MemoryFrame(sequence, 10));
    }
    const link = await deliver({ sources: [new MemorySource("a", camera())], clock, delay: 20 });
    const left = of(link.answered, type.RECEIPT);
    expect(left.map(({ at }) => at)).toEqual([1060, 2060, 3060, 4060, 5060]);
    expect(receipts(left)).toEqual([1, 2, 3, 4, 5]);
  });

  test("a RECEIPT is due at least every 1,000 frames", async () => {
    const link = await deliver({
      sources: [new MemorySource("a", framesOf(4000, 10))],
      chunker: randomly(
        (
          (random) => (end: number) =>
            random.below(end)
        )(new Random(1)),
        5000,
      ),
    });
    const steps = [0, ...receipts(link.answered)].map(
      (frames, index, all) => frames - (all[index - 1] ?? 0),
    );
    // The chunk that reaches the limit may contain more frames.
    for (const step of steps) expect(step).toBeLessThan(1000 + 5000 / 60);
    expect(steps.length).toBeGreaterThan(3);
  });

  test("a RECEIPT is due at least every 16 MiB", async () => {
    const link = await deliver({
      sources: [new MemorySource("a", framesOf(50, MiB - 5000))],
      chunker: randomly(() => 65_535, 1),
    });
    const steps = [0, ...receipts(link.answered)].map(
      (frames, index, all) => frames - (all[index - 1] ?? 0),
    );
    for (const step of steps) expect(step).toBeLessThanOrEqual(17);
  });

  test("a RECEIPT is due every 100 ms while frames keep coming", () => {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1));
    for (let sequence = 1; sequence <= 100; sequence++) {
      peer.now += 9;
      peer.says(peer.frame(1, { sequence, name: `f${sequence}` }));
      if (peer.receiver.isFlushDue()) peer.receiver.ack(peer.now);
    }
    expect(
      of(
        peer.heard().map((message) => ({ at: 0, message })),
        type.RECEIPT,
      ).length,
    ).toBe(8);
  });

  test("a flush is due once no more data comes, and not while it keeps coming", () => {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1));
    peer.says(peer.frame(1));
    expect([peer.receiver.isFlushDue(), peer.receiver.isFlushDue()]).toEqual([false, true]);
    peer.says(peer.frame(1, { sequence: 2, name: "g" }));
    expect(peer.receiver.isFlushDue()).toBe(false);
  });

  test("receipts stay in order when the store finishes frames out of order", async () => {
    const clock = new Clock();
    const random = new Random(5);
    const finished = new Set<number>();
    const store = new MemoryStore({
      finish: ({ sequence }) =>
        clock.wait(random.below(500)).then(() => {
          finished.add(sequence);
          return undefined;
        }),
    });
    const link = new Link({
      sources: [new MemorySource("a", framesOf(200, 10))],
      store,
      clock,
      delay: 5,
      grants: grant({ frames: 32 }),
    });
    let settled = 0;
    link.onStep = () => {
      for (const frames of receipts(link.answered).slice(-1)) {
        for (; settled < frames; settled++) expect(finished.has(settled + 1)).toBe(true);
      }
    };
    await link.run();
    link.check();
    expect(link.sender.done).toEqual({
      frames: 200,
      stored: 200,
      present: 0,
      refused: 0,
      aborted: 0,
    });
    const given = receipts(link.answered);
    expect(given).toEqual([...given].sort((one, other) => one - other));
    // The frames really finished out of order.
    expect([...finished]).not.toEqual([...finished].sort((one, other) => one - other));
  });

  test("a RECEIPT counts no frame that ended after the flush began", () => {
    const peer = new Client();
    peer.greet();
    const frame = (sequence: number) => peer.frame(1, { sequence, name: `f${sequence}` });
    peer.says(peer.source(1), frame(1), frame(2));
    const first = peer.receiver.flushSnapshot;
    expect(first).toEqual({ frames: 2, answers: 0 });
    peer.says(frame(3));
    const second = peer.receiver.flushSnapshot;
    expect(second).toEqual({ frames: 3, answers: 0 });
    peer.says(frame(4), peer.json(type.END, 0, { frames: 4 }));
    peer.receiver.ack(0, first);
    expect(peer.heard()).toMatchObject([{ type: type.RECEIPT, frames: 2 }]);
    expect([peer.receiver.unreceipted, peer.receiver.needsFlush]).toEqual([2, true]);
    // Acknowledging the same flush again sends nothing.
    peer.receiver.ack(0, first);
    expect(peer.heard()).toEqual([]);
    peer.receiver.ack(0, second);
    expect(peer.heard()).toMatchObject([{ type: type.RECEIPT, frames: 3 }]);
    expect([peer.receiver.isDone, peer.receiver.needsFlush]).toEqual([false, true]);
    // A flush may complete after one that started later.
    peer.receiver.ack(0, second);
    peer.receiver.ack(0, first);
    expect(peer.heard()).toEqual([]);
    peer.receiver.ack(0, peer.receiver.flushSnapshot);
    expect(peer.heard()).toMatchObject([
      { type: type.RECEIPT, frames: 4 },
      { type: type.DONE, json: { frames: 4, stored: 4 } },
    ]);
    expect(peer.receiver.isDone).toBe(true);
  });

  test("a RECEIPT counts no frame that the store finished after the flush began", async () => {
    const finishing = new Map<number, PromiseWithResolvers<undefined>>();
    const store = new MemoryStore({
      finish: ({ sequence }) => {
        if (sequence === 3) return undefined;
        const later = Promise.withResolvers<undefined>();
        finishing.set(sequence, later);
        return later.promise;
      },
    });
    const peer = new Client(grants, store);
    peer.greet();
    peer.says(peer.source(1));
    for (const sequence of [1, 2, 3]) {
      peer.says(peer.frame(1, { sequence, name: `f${sequence}` }));
    }
    peer.says(peer.json(type.END, 0, { frames: 3 }));
    const settle = async (sequence: number) => {
      finishing.get(sequence)!.resolve(undefined);
      await new Promise(setImmediate);
    };
    expect(peer.receiver.flushSnapshot.frames).toBe(0);
    await settle(2);
    const early = peer.receiver.flushSnapshot;
    expect(early.frames).toBe(0);
    await settle(1);
    expect(peer.receiver.flushSnapshot.frames).toBe(3);
    peer.receiver.ack(0, early);
    expect(peer.heard()).toEqual([]);
    expect(peer.receiver.isDone).toBe(false);
    peer.receiver.ack(0);
    expect(peer.heard().map((heard) => heard.type)).toEqual([type.RECEIPT, type.DONE]);
  });

  test("the receiver reports a store that fails, and no RECEIPT counts the failed frame", async () => {
    const failures: unknown[] = [];
    const broken = new FramesError("store", "no space left on the disk");
    const late = Promise.withResolvers<undefined>();
    const peer = new Client(
      grants,
      new MemoryStore({ finish: ({ sequence }) => (sequence === 2 ? late.promise : undefined) }),
      { onError: (error) => failures.push(error) },
    );
    peer.greet();
    peer.says(peer.source(1));
    for (const sequence of [1, 2, 3]) {
      peer.says(peer.frame(1, { sequence, name: `f${sequence}` }));
    }
    late.reject(broken);
    await new Promise(setImmediate);
    expect(failures).toEqual([broken]);
    expect(peer.receiver.flushSnapshot.frames).toBe(1);
    peer.receiver.ack(0);
    expect(peer.heard()).toMatchObject([{ type: type.RECEIPT, frames: 1 }]);
    peer.receiver.fail(broken);
    expect(peer.heard()).toMatchObject([
      { type: type.ERROR, json: { error: 8, message: "no space left on the disk" } },
    ]);
    expect(peer.store.losses).toEqual([]);
  });

  test("a RECEIPT counts only the frames before the first one that the store has not finished", async () => {
    const stuck = Promise.withResolvers<undefined>();
    const store = new MemoryStore({
      finish: ({ sequence }) => (sequence === 3 ? stuck.promise : undefined),
    });
    const link = new Link({ sources: [new MemorySource("a", framesOf(6, 10))], store });
    await link.run(5000);
    expect(receipts(link.answered)).toEqual([2]);
    expect(link.sender.done).toBeUndefined();
    stuck.resolve(undefined);
    await link.run();
    expect(link.sender.done?.stored).toBe(6);
  });
});

describe("silence", () => {
  /** A source that never yields anything. */
  const quiet = () => new MemorySource("a", [new Promise<never>(() => {})]);

  test("the sender sends PING after 10 s of silence, and PONG has the clocks of both ends", async () => {
    const link = new Link({ sources: [quiet()], delay: 50 });
    await link.run(60_000);
    expect(link.isOver).toBe(false);
    link.check();
    const pings = of(link.said, type.PING);
    expect(pings[0]?.at).toBe(10_000);
    expect(pings.length).toBeGreaterThanOrEqual(5);
    const pongs = of(link.answered, type.PONG);
    for (const [index, { at, message }] of pongs.entries()) {
      const ping = pings[index]!;
      expect(at).toBe(ping.at + 50);
      expect(json(message)).toEqual({
        time: `${link.started + ping.at}000000`,
        clock: `${link.started + at}000000`,
      });
    }
  });

  test("both ends fail with `timeout` after silence, and name what they waited for", async () => {
    const link = new Link({ sources: [quiet()], timeout: 5000 });
    await link.run(2000);
    link.isCut = true;
    await link.run(10_000);
    expect(link.senderError?.code).toBe("timeout");
    expect(link.senderError?.message).toContain("receipts");
    expect(link.receiverError?.code).toBe("timeout");
    expect(link.receiverError?.message).toContain("frames");
    expect(of(link.answered, type.ERROR).map((said) => json(said)["error"])).toEqual([5]);
  });

  test("a sender that times out after END names DONE as what it waited for", async () => {
    const stuck = new MemoryStore({ finish: () => new Promise(() => {}) });
    const link = new Link({
      sources: [new MemorySource("a", framesOf(1, 1))],
      store: stuck,
      timeout: 5000,
    });
    await link.run(2000);
    link.isCut = true;
    await link.run(10_000);
    expect(link.senderError?.message).toContain("DONE");
  });

  test("the sender fails with `timeout` when WELCOME does not come within 10 s of HELLO", async () => {
    const link = new Link({ sources: [quiet()] });
    link.isCut = true;
    await link.run(9999);
    expect(link.senderError).toBeUndefined();
    await link.run(2000);
    expect(link.senderError?.code).toBe("timeout");
    expect(link.senderError?.message).toContain("WELCOME");
    expect(link.time).toBe(10_000);
  });

  test("the receiver fails with `timeout` when HELLO is not complete within 10 s", () => {
    const peer = new Client();
    const bytes = peer.json(type.HELLO, 0, hello);
    peer.says(Buffer.from("FRAMES/1"));
    // Single bytes do not extend the time for HELLO.
    for (let second = 1; second <= 9; second++) {
      peer.now += 1000;
      peer.says(bytes.subarray(second - 1, second));
      peer.receiver.tick(peer.now);
    }
    peer.now += 1000;
    expect(() => peer.receiver.tick(peer.now)).toThrow(
      expect.objectContaining({ code: "timeout" }),
    );
    expect(() => peer.receiver.tick(peer.now)).toThrow("HELLO");
  });

  test("the receiver's error for a late HELLO says how long the deadline was", () => {
    const receiver = new ServerEnd(new MemoryStore(), grants, 3000, 0, { onHello: () => ({}) });
    expect(() => receiver.tick(3000)).toThrow("3 s");
  });
});

describe("ERROR", () => {
  for (const code of ["busy", "superseded", "stopping", "not-let-in", "full", "version"] as const) {
    test(`an ERROR from the server ends the sender with its code: ${code}`, async () => {
      const link = new Link({
        sources: [new MemorySource("a", framesOf(3, 3))],
        delay: 10,
        onHello: () => {
          throw new FramesError(code, "for this reason");
        },
      });
      await link.run();
      expect(link.senderError?.code).toBe(code);
      expect(link.senderError?.message).toContain("for this reason");
      expect(link.answered.map(({ message }) => message.type)).toEqual([type.ERROR]);
    });
  }

  test("an ERROR in the middle of a frame ends the sender, and the receiver discards the frame", async () => {
    const clock = new Clock();
    const frame = new MemoryFrame(1, 8 * MiB, { wait: () => clock.wait(100) });
    const link = new Link({ sources: [new MemorySource("a", [frame])], clock, delay: 10 });
    await link.run(400);
    expect(link.store.writers).toBe(1);
    link.failReceiver(new FramesError("stopping"));
    await link.run();
    expect(link.senderError?.code).toBe("stopping");
    expect(link.store.writers).toBe(0);
    expect(link.answered.at(-1)?.message.type).toBe(type.ERROR);
  });

  test("ERROR is the receiver's last message, even when the store finishes a frame after it", async () => {
    const late = Promise.withResolvers<FramesError>();
    const store = new MemoryStore({ finish: () => late.promise });
    const link = new Link({ sources: [new MemorySource("a", framesOf(2, 3))], store });
    await link.run(2000);
    link.failReceiver(new FramesError("stopping"));
    late.resolve(new FramesError("not-stored"));
    await Promise.resolve();
    await link.run(1);
    expect(link.receiver.drain(0).length).toBe(0);
    expect(link.answered.at(-1)?.message.type).toBe(type.ERROR);
    expect(misplacement(link.answered.map(({ message }) => message))).toBeUndefined();
  });

  /** Returns the messages that a sender has sent since the last call. */
  function saidBy(sender: Sender): DecodedMessage[] {
    const parts: Uint8Array[] = [];
    for (;;) {
      const { length, piece } = sender.transmit(buffer, 0);
      if (length === 0) break;
      parts.push(buffer.slice(0, length), piece ?? new Uint8Array(0));
    }
    let bytes: Uint8Array = Buffer.concat(parts);
    if (Buffer.from(bytes.subarray(0, 8)).toString() === "FRAMES/1") bytes = bytes.subarray(8);
    const decoded = decodeAll(bytes);
    expect([decoded.error, decoded.consumed]).toEqual([undefined, bytes.length]);
    return decoded.messages;
  }

  const buffer = new Uint8Array(outgoingBufferBytes);
  const stopped = new FramesError("interrupted", "The user left");
  const told = { type: type.ERROR, json: { error: 17, message: "The user left" } };

  test("a sender that fails before WELCOME sends HELLO and then ERROR as its last message", () => {
    const sender = senderOf([new MemorySource("a", framesOf(5, 10))]);
    sender.fail(stopped);
    expect(saidBy(sender)).toMatchObject([{ type: type.HELLO }, told]);
    sender.fail(new FramesError("damaged"));
    sender.tick(60_000);
    expect(saidBy(sender)).toEqual([]);
    sender.returnToSources();
  });

  test("a sender that fails in the middle of frames sends ERROR as its last message, without END", async () => {
    const peer = new Server();
    const sources = [
      new MemorySource("a", [new MemoryFrame(1, 3 * MiB)]),
      new MemorySource("b", [...framesOf(3, 10), lossOf(4)]),
      new MemorySource("c", [new MemoryFrame(1, 10), new Promise<never>(() => {})]),
    ];
    const sender = senderOf(sources);
    saidBy(sender);
    sender.receive(peer.welcome(), 0);
    const before = saidBy(sender);
    expect(before.filter((said) => said.type === type.FRAME)).toHaveLength(5);
    expect(misplacement(before)).toBeUndefined();
    // Lets the first piece be read.
    await new Promise(setImmediate);
    sender.fail(new FramesError("timeout", "The peer was silent"));
    expect(saidBy(sender)).toMatchObject([
      { type: type.ERROR, json: { error: 5, message: "The peer was silent" } },
    ]);
    await new Promise(setImmediate);
    sender.fail(stopped);
    sender.tick(60_000);
    expect(saidBy(sender)).toEqual([]);
    sender.returnToSources();
  });

  test("a sender that fails sends its pending PONG, and ERROR as its last message", () => {
    const peer = new Server();
    const sender = senderOf([new MemorySource("a", [new Promise<never>(() => {})])]);
    saidBy(sender);
    sender.receive(peer.welcome(), 0);
    sender.receive(peer.json(type.PING, 0, { time: "5" }), 0);
    sender.fail(stopped);
    expect(saidBy(sender)).toMatchObject([{ type: type.PONG }, told]);
    sender.returnToSources();
  });

  test("a sender answers at most 1,000 PINGs at a time with PONG", () => {
    const peer = new Server();
    const source = new MemorySource("a", [new Promise<never>(() => {})]);
    const sender = senderOf([source]);
    saidBy(sender);
    sender.receive(peer.welcome(), 0);
    const pings = (count: number) => {
      const ping = peer.json(type.PING, 0, { time: "5" });
      for (let number = 0; number < count; number++) sender.receive(ping, 0);
    };
    pings(1000);
    expect(saidBy(sender)).toHaveLength(1000);
    pings(1500);
    expect(saidBy(sender)).toHaveLength(1000);
    sender.returnToSources();
  });

  test("ERROR is the sender's last message, even when its sources still have items", async () => {
    const peer = new Server();
    const late = Promise.withResolvers<Loss>();
    const sources = [
      new MemorySource("a", [late.promise]),
      new MemorySource("b", [new MemoryFrame(1, 3 * MiB, { failures: 1, failAfter: MiB })]),
    ];
    const sender = senderOf(sources);
    saidBy(sender);
    sender.receive(peer.welcome(), 0);
    saidBy(sender);
    sender.fail(stopped);
    expect(saidBy(sender)).toMatchObject([told]);
    late.resolve(lossOf(1));
    await new Promise(setImmediate);
    expect(saidBy(sender)).toEqual([]);
    sender.returnToSources();
  });

  test("a sender that is done sends no ERROR, because its server has closed", async () => {
    const link = await deliver({ sources: [new MemorySource("a", framesOf(2, 10))] });
    link.sender.fail(stopped);
    expect(saidBy(link.sender)).toEqual([]);
  });

  test("an ERROR from the sender ends the receiver with its code", () => {
    const peer = new Client();
    peer.greet();
    expect(peer.says(peer.json(type.ERROR, 0, { error: 12, message: "x" }))).toBe("internal");
  });

  test("the receiver handles an ERROR with a message of maximum length", () => {
    const peer = new Client();
    peer.greet();
    const text = "x".repeat(65_536 - '{"error":1,"message":""}'.length);
    expect(peer.says(peer.json(type.ERROR, 0, { error: 1, message: text }))).toBe("protocol");
    expect(peer.heard().at(-1)?.type).toBe(type.ERROR);
  });

  test("a sender that traces its messages handles deeply nested JSON in a PING", () => {
    const sender = senderOf([], { messages: true });
    const deep = `{"time":"0","x":${"[".repeat(30_000)}${"]".repeat(30_000)}}`;
    const peer = new Server();
    sender.receive(peer.welcome(), 0);
    const bytes = message(
      { type: type.PING, flags: 0, source: 0 },
      Buffer.from(deep).toString("hex"),
    );
    sender.receive(Buffer.from(bytes, "hex"), 0);
    const lines = sender.takeEvents().filter((event) => event.type === "message");
    expect(lines.length).toBeGreaterThan(2);
  });
});

describe("Receiver and protocol errors", () => {
  type Case = (peer: Client) => Uint8Array[];
  const cases: Record<string, Case> = {
    "FRAME before HELLO": (peer) => [Buffer.from("FRAMES/1"), peer.frame(1)],
    "SOURCE before HELLO": (peer) => [Buffer.from("FRAMES/1"), peer.source(1)],
    "PING before HELLO": (peer) => [
      Buffer.from("FRAMES/1"),
      peer.json(type.PING, 0, { time: "0" }),
    ],
    "END before HELLO": (peer) => [Buffer.from("FRAMES/1"), peer.json(type.END, 0, { frames: 0 })],
    "a second HELLO": (peer) => [peer.hello(), peer.json(type.HELLO, 0, hello)],
    WELCOME: (peer) => [peer.hello(), peer.json(type.WELCOME, 0, grants)],
    RECEIPT: (peer) => [
      peer.hello(),
      Buffer.from(message({ type: type.RECEIPT, flags: 0, source: 0 }, "00".repeat(8)), "hex"),
    ],
    REFUSED: (peer) => [
      peer.hello(),
      peer.source(1),
      peer.json(type.REFUSED, 1, { sequence: 1, error: 35, message: "" }),
    ],
    DONE: (peer) => [
      peer.hello(),
      peer.json(type.DONE, 0, { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 }),
    ],
    ANSWER: (peer) => [peer.hello(), peer.source(1), peer.json(type.ANSWER, 1, { answers: "" })],
    CURSOR: (peer) => [peer.hello(), peer.json(type.CURSOR, 0, { cursor: "" })],
    GONE: (peer) => [
      peer.hello(),
      peer.source(1),
      peer.json(type.GONE, 1, { sequence: 1, name: "a" }),
    ],
    "PROOF after a frame": (peer) => [
      peer.hello(),
      peer.source(1),
      peer.frame(1),
      Buffer.from(message({ type: type.PROOF, flags: 0, source: 0 }, "00".repeat(32)), "hex"),
    ],
    "FRAME of a source without SOURCE": (peer) => [peer.hello(), peer.source(1), peer.frame(2)],
    "LOST of a source without SOURCE": (peer) => [
      peer.hello(),
      peer.json(type.LOST, 1, { ranges: [[1, 1]], error: 51 }),
    ],
    "END that counts too many": (peer) => [
      peer.hello(),
      peer.source(1),
      peer.frame(1),
      peer.json(type.END, 0, { frames: 2 }),
    ],
    "END that counts too few": (peer) => [
      peer.hello(),
      peer.source(1),
      peer.frame(1),
      peer.json(type.END, 0, { frames: 0 }),
    ],
  };
  for (const [name, make] of Object.entries(cases)) {
    test(`a receiver fails with \`protocol\` on ${name}`, () => {
      const peer = new Client();
      const bytes = make(peer);
      expect(peer.says(...bytes.slice(0, -1))).toBeUndefined();
      expect(peer.says(bytes.at(-1)!)).toBe("protocol");
      const heard = peer.heard();
      expect(heard.at(-1)).toMatchObject({ type: type.ERROR, json: { error: 1 } });
      expect(misplacement(heard)).toBeUndefined();
      expect(peer.store.writers).toBe(0);
    });
  }

  for (const vector of misplaced.filter(({ from }) => from === "sender")) {
    test(`a receiver ends the connection: ${vector.name} (SPEC section ${vector.section})`, () => {
      const peer = new Client();
      const bytes = Buffer.from(vector.hex.replaceAll(" ", ""), "hex");
      const first = decodeAll(bytes).messages[0]?.type;
      // The vector contains only the faulty message, so send the required messages before it.
      const before = [peer.hello(), peer.source(1)];
      if (first === type.HELLO) before.splice(0, 2, Buffer.from("FRAMES/1"));
      const code = peer.says(...before, bytes);
      if (first === type.ERROR) expect(code).toBe("internal");
      else expect(code).toBe("protocol");
    });
  }
});

describe("Sender and protocol errors", () => {
  /** Passes messages after WELCOME to a sender with two frames, and returns the error code. */
  function codeOf(
    messages: Uint8Array[],
    { welcome = true, frames = 2, live = false } = {},
  ): string | undefined {
    const items = [...framesOf(frames, 10), ...(live ? [new Promise<never>(() => {})] : [])];
    const sender = senderOf([new MemorySource("a", items)]);
    const buffer = new Uint8Array(outgoingBufferBytes);
    const peer = new Server();
    const pump = () => {
      while (sender.transmit(buffer, 0).length > 0);
    };
    pump();
    sender.receive(welcome ? peer.welcome() : Buffer.from("FRAMES/1"), 0);
    pump();
    for (const [index, bytes] of messages.entries()) {
      try {
        sender.receive(bytes, 0);
        pump();
      } catch (error) {
        if (!(error instanceof FramesError)) throw error;
        expect(index).toBe(messages.length - 1);
        return error.code;
      }
    }
    return undefined;
  }

  const peer = new Server();
  const done = (frames: number, counts: object = {}) =>
    peer.json(type.DONE, 0, {
      frames,
      stored: frames,
      present: 0,
      refused: 0,
      aborted: 0,
      ...counts,
    });
  const cases: [string, Uint8Array[], { welcome?: boolean; frames?: number; live?: boolean }?][] = [
    ["RECEIPT before WELCOME", [peer.receipt(0)], { welcome: false }],
    ["PING before WELCOME", [peer.json(type.PING, 0, { time: "0" })], { welcome: false }],
    ["DONE before WELCOME", [done(0)], { welcome: false }],
    ["a second WELCOME", [peer.json(type.WELCOME, 0, grants)]],
    ["HELLO", [peer.json(type.HELLO, 0, hello)]],
    ["SOURCE", [peer.source(1)]],
    ["FRAME", [peer.frame(1)]],
    ["DATA", [peer.data(1, Buffer.alloc(0), Buffer.alloc(1), false)]],
    ["END", [peer.json(type.END, 0, { frames: 0 })]],
    ["LOST", [peer.json(type.LOST, 1, { ranges: [], error: 51 })]],
    ["ANSWER without an OFFER", [peer.json(type.ANSWER, 1, { answers: "" })]],
    ["RECEIPT of more frames than were sent", [peer.receipt(3)]],
    ["RECEIPT that is lower than the last one", [peer.receipt(2), peer.receipt(1)]],
    [
      "REFUSED of a number that was not sent",
      [peer.json(type.REFUSED, 1, { sequence: 3, error: 35, message: "" })],
    ],
    [
      "REFUSED of a number that is settled",
      [peer.receipt(2), peer.json(type.REFUSED, 1, { sequence: 1, error: 35, message: "" })],
    ],
    [
      "REFUSED of an unknown source",
      [peer.json(type.REFUSED, 2, { sequence: 1, error: 35, message: "" })],
    ],
    ["DONE of too few frames", [done(1)]],
    ["DONE of too many frames", [done(3)]],
    ["DONE that does not add up", [done(2, { stored: 1 })]],
    ["DONE that adds up to another number", [done(2, { refused: 1 })]],
    ["DONE before END", [done(2)], { live: true }],
    [
      "PROOF that it did not request",
      [Buffer.from(message({ type: type.PROOF, flags: 0, source: 0 }, "00".repeat(32)), "hex")],
    ],
  ];
  for (const [name, messages, options] of cases) {
    test(`a sender fails with \`protocol\` on ${name}`, () =>
      expect(codeOf(messages, options)).toBe("protocol"));
  }

  test("a sender accepts RECEIPT, PING and DONE that are in order", () => {
    expect(
      codeOf([
        peer.receipt(0),
        peer.receipt(1),
        peer.receipt(1),
        peer.json(type.PING, 0, { time: "0" }),
        done(2),
      ]),
    ).toBeUndefined();
    expect(codeOf([done(2, { stored: 0, present: 2 })])).toBeUndefined();
  });

  test("a sender fails with `limit` when the server grants fewer sources than it has", async () => {
    const sources = ["a", "b"].map((name) => new MemorySource(name, framesOf(1, 1)));
    const link = await new Link({ sources, grants: grant({}, { sources: 1 }) }).run();
    expect(link.senderError?.code).toBe("limit");
  });

  for (const vector of misplaced.filter(({ from }) => from === "receiver")) {
    test(`a sender fails with \`protocol\`: ${vector.name} (SPEC section ${vector.section})`, () => {
      const bytes = Buffer.from(vector.hex.replaceAll(" ", ""), "hex");
      const { messages, ends } = decodeAll(bytes);
      const last = bytes.subarray(ends.at(-2) ?? 0);
      const before = bytes.subarray(0, ends.at(-2) ?? 0);
      if (messages[0]?.type === type.WELCOME) return expect(codeOf([last])).toBe("protocol");
      const given = before.length > 0 ? [before, last] : [last];
      return expect(
        codeOf(given, {
          frames: 3 - Number(messages[0]?.type === type.DONE && messages.length > 1),
        }),
      ).toBe("protocol");
    });
  }
});

describe("Receiver", () => {
  test("a receiver fails with `limit` on a source id over limits.sources, and counts a repeated id once", () => {
    const peer = new Client(grant({}, { sources: 2 }));
    peer.greet();
    expect(
      peer.says(peer.source(1), peer.source(9), peer.frame(9), peer.source(9), peer.source(1)),
    ).toBeUndefined();
    expect(peer.says(peer.source(3))).toBe("limit");
  });

  test("a receiver fails with `limit` on an unfinished frame beyond limits.unfinished", () => {
    const peer = new Client(grant({}, { unfinished: 2 }));
    peer.greet();
    const begin = (source: number) => peer.frame(source, { size: 5, more: true });
    expect(
      peer.says(peer.source(1), peer.source(2), peer.source(3), begin(1), begin(2)),
    ).toBeUndefined();
    expect(peer.says(begin(3))).toBe("limit");
  });

  test("a receiver accepts a small frame beside limits.unfinished unfinished frames", () => {
    const peer = new Client(grant({}, { unfinished: 1 }));
    peer.greet();
    peer.says(peer.source(1), peer.source(2), peer.frame(1, { size: 5, more: true }));
    expect(peer.says(peer.frame(2, { payload: Buffer.from("whole") }))).toBeUndefined();
  });

  test("a receiver stores frames under the new name after a source id is declared again", () => {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1, "a"), peer.frame(1), peer.source(1, "b"), peer.frame(1));
    expect(peer.store.frames.map(({ origin }) => origin.source)).toEqual(["a", "b"]);
  });

  test("a receiver uses a source's own stream instead of the stream in HELLO", () => {
    const peer = new Client();
    peer.greet();
    peer.says(
      peer.json(type.SOURCE, 1, {
        name: "a",
        stream: "other",
        raw: { width: 2, height: 1, format: "gray8" },
      }),
      peer.frame(1),
    );
    expect(peer.store.opened).toMatchObject([{ stream: "other", source: "a", raw: { width: 2 } }]);
  });

  test("a receiver answers PING after END, and sends nothing after DONE", () => {
    const peer = new Client();
    const ping = peer.json(type.PING, 0, { time: "0" });
    peer.greet();
    peer.says(peer.json(type.END, 0, { frames: 0 }), ping);
    expect(peer.heard().map((heard) => heard.type)).toEqual([type.PONG]);
    peer.receiver.ack(0);
    expect(peer.heard().map((heard) => heard.type)).toEqual([type.DONE]);
    // A PING that crossed DONE.
    expect(peer.says(ping)).toBeUndefined();
    expect(peer.heard()).toEqual([]);
    peer.now += 15_000;
    peer.receiver.tick(peer.now);
    expect(peer.heard()).toEqual([]);
  });

  test("a receiver answers another FRAMES version with ERROR, and another protocol with nothing", () => {
    const other = new Client();
    expect(other.says(Buffer.from("FRAMES/2"))).toBe("version");
    expect(other.heard()).toMatchObject([{ type: type.ERROR, json: { error: 2 } }]);
    const foreign = new Client();
    expect(foreign.says(Buffer.from("GET / HT"))).toBe("foreign");
    expect(foreign.receiver.drain(0)).toEqual([]);
  });

  test("a receiver reports damaged bytes, discards their frame, and keeps the frames before it", () => {
    const peer = new Client();
    peer.greet();
    const bytes = peer.frame(1, { sequence: 2, payload: Buffer.from("abc"), name: "g" });
    bytes[bytes.length - 1]! ^= 1;
    expect(peer.says(peer.source(1), peer.frame(1), bytes)).toBe("damaged");
    expect(peer.store.frames.map(({ description }) => description.name)).toEqual(["f"]);
    expect(peer.store.writers).toBe(0);
    expect(peer.heard().at(-1)).toMatchObject({ type: type.ERROR, json: { error: 4 } });
  });

  test("a receiver discards an unfinished frame when the connection closes", () => {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1), peer.frame(1, { size: 5, more: true }));
    expect(peer.store.writers).toBe(1);
    peer.receiver.close();
    peer.receiver.close();
    expect(peer.store.writers).toBe(0);
  });

  test("a receiver without keys ignores PROOF", () => {
    const peer = new Client();
    const proof = Buffer.from(
      message({ type: type.PROOF, flags: 0, source: 0 }, "00".repeat(32)),
      "hex",
    );
    expect(peer.says(peer.hello(), proof, peer.source(1), peer.frame(1))).toBeUndefined();
  });
});

describe("stopping a Sender", () => {
  test("a sender that is stopped finishes the frames it has begun and sends END", async () => {
    const clock = new Clock();
    const large = new MemoryFrame(1, 4 * MiB, { wait: () => clock.wait(100) });
    const sources = [
      new MemorySource("a", [large, new MemoryFrame(2, 10)]),
      new MemorySource("b", framesOf(1000, 10)),
    ];
    const link = new Link({ sources, clock, delay: 10, grants: grant({ frames: 10 }) });
    await link.run(150);
    expect(link.outlets.some(({ hasUnsent: isCutShort }) => isCutShort)).toBe(true);
    link.stop();
    await link.run();
    link.check();
    const { said } = link;
    const begun = of(said, type.FRAME).length;
    expect(begun).toBeLessThan(500);
    expect(link.sender.done?.stored).toBe(begun);
    expect(said.at(-1)?.message.type).toBe(type.END);
    expect(link.store.frames.some(({ bytes }) => bytes.length === 4 * MiB)).toBe(true);
    // At most the frame already requested from each source was sent after the stop.
    expect(sources[0]?.taken).toBe(1);
  });

  test("a sender that is stopped does not wait for a source that has no frame ready", async () => {
    const link = new Link({
      sources: [new MemorySource("a", [new MemoryFrame(1, 1), new Promise<never>(() => {})])],
    });
    await link.run(1000);
    expect(link.isOver).toBe(false);
    link.stop();
    await link.run();
    expect(link.sender.done?.stored).toBe(1);
  });

  test("a sender that is stopped before WELCOME sends HELLO and END only", async () => {
    const link = new Link({ sources: [new MemorySource("a", framesOf(5, 1))], delay: 10 });
    link.stop();
    await link.run();
    expect(link.said.map(({ message }) => message.type)).toEqual([type.HELLO, type.END]);
  });

  test("a sender has no unsent frames after a complete delivery", async () => {
    const link = await deliver({ sources: [new MemorySource("a", framesOf(5, 1))] });
    expect(link.outlets.some(({ hasUnsent: isCutShort }) => isCutShort)).toBe(false);
    link.stop();
  });
});

describe("random deliveries", () => {
  /** Runs a delivery with random events of every kind, deterministic for a seed. */
  async function run(seed: number): Promise<void> {
    const random = new Random(seed);
    const clock = new Clock();
    const chance = (of: number) => random.below(of) === 0;
    const wait = () => clock.wait(random.below(30));
    const refusals = chance(2);
    const isAsync = chance(2);
    const code = () => random.pick(["bad-name", "conflict", "not-stored"] as const);
    const store = new MemoryStore({
      refuse: () => (refusals && chance(10) ? new FramesError(code()) : undefined),
      failWrite: () => (refusals && chance(20) ? new FramesError(code()) : undefined),
      finish: () =>
        isAsync ? wait().then(() => (chance(10) ? new FramesError(code()) : undefined)) : undefined,
    });
    const withLarge = seed % 5 === 0;
    function* items(): Generator<Frame | Loss | Promise<Frame | Loss>> {
      let sequence = 0;
      const count = random.below(40);
      for (let index = 0; index < count; index++) {
        sequence++;
        let item: Frame | Loss = lossOf(sequence, sequence + random.below(3));
        if (chance(8)) {
          sequence = item.last;
        } else {
          const large = withLarge && chance(15);
          const size = large
            ? maxPackedFrameBytes + random.below(MiB)
            : random.below(chance(4) ? 3000 : 30);
          item = new MemoryFrame(sequence, size, {
            failures: chance(5) ? 1 + random.below(4) : 0,
            failAfter: random.below(size + 1),
            piece: 1 + random.below(MiB) + (MiB >> 1),
            ...(chance(2) ? { wait } : {}),
          });
        }
        const given = item;
        yield chance(4) ? wait().then(() => given) : given;
      }
    }
    const names = ["a", "b", "c", "d"].slice(0, 1 + random.below(4));
    const link = new Link({
      sources: names.map((name) => new MemorySource(name, items())),
      store,
      clock,
      delay: random.below(30),
      chunker: random.pick([
        whole,
        randomly((end) => random.below(end), withLarge ? 200_000 : 200),
      ]),
      grants: grant(
        {
          bytes: 1 + random.below(chance(2) ? 5000 : 5 * MiB),
          frames: 1 + random.below(chance(2) ? 3 : 100),
        },
        { frame: chance(3) ? 2000 : 64 * MiB, unfinished: 2 },
      ),
    });
    if (chance(6)) clock.after(random.below(200), () => link.stop());
    await link.run();
    if (link.senderError !== undefined) throw link.senderError;
    if (link.receiverError !== undefined) throw link.receiverError;
    const { done } = link.sender;
    if (done === undefined) throw new Error("it never came to an end");
    link.check();
    // Both sides must report the same counts.
    const { said, answered } = link;
    expect(answered.at(-1)?.message.type).toBe(type.DONE);
    expect(json(of(said, type.END)[0]!)["frames"]).toBe(done.frames);
    expect(done).toEqual({ ...link.receiver.counts });
    const progress = link.progress;
    const sum = (count: (of: (typeof progress)[number]) => number) =>
      progress.reduce((total, one) => total + count(one), 0);
    expect(store.frames.length).toBe(done.stored);
    expect(link.lost.reduce((total, { frames }) => total + frames, 0)).toBe(
      sum(({ lost }) => lost),
    );
    expect(store.writers).toBe(0);
    expect(of(answered, type.REFUSED).length).toBe(done.refused);
  }

  for (let group = 0; group < 10; group++) {
    test(`both ends agree on every count in random deliveries, group ${group}`, async () => {
      for (let index = 0; index < 12; index++) {
        const seed = group * 12 + index;
        try {
          await run(seed);
        } catch (error) {
          throw new Error(
            `seed ${seed}: ${error instanceof Error ? error.message : String(error)}`,
            { cause: error },
          );
        }
      }
    });
  }
});
