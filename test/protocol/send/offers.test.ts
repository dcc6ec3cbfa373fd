// Covers: protocol/send/sender.ts, protocol/send/write-batch.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame } from "../../../src/frame.ts";
import { maxPackedFrameBytes } from "../../../src/wire/encode.ts";
import type { Hello, Welcome } from "../../../src/wire/messages.ts";
import { Sender } from "../../../src/protocol/send/sender.ts";
import { outgoingBufferBytes } from "../../../src/protocol/send/write-batch.ts";
import { decodeAll, MOST_OFFERED } from "../../wire/oracle.ts";
import { type DecodedMessage, type FrameMessage, type } from "../../wire/vectors.ts";
import {
  Clock,
  framesOf,
  grants,
  hello,
  Link,
  type LinkOptions,
  MemoryFrame,
  MemorySource,
  MemoryStore,
  outletsOf,
} from "../memory.ts";
import { Client, deliver, grant, json, of, Server } from "../peers.ts";

/** A source whose frames are offered, as those of a folder. */
function folder(frames: Frame[], name = "a"): MemorySource {
  return new MemorySource(name, frames, { resumes: true });
}

/** A session other than the one that stored the frames. */
const other = { session: "f".repeat(32) };

/** Returns a store with these frames, stored by an earlier session. */
async function storeOf(frames: Frame[], options: LinkOptions = {}): Promise<MemoryStore> {
  const { store } = await deliver({ sources: [folder(frames)], ...options });
  return store;
}

/** Returns the numbers of the frames sent. */
function sent(link: Link): number[] {
  return of(link.said, type.FRAME).map(({ message }) => (message as FrameMessage).sequence);
}

/** Returns the entries of all OFFERs. */
function offers(link: Link): unknown[][] {
  return of(link.said, type.OFFER).flatMap((said) => json(said)["frames"] as unknown[][]);
}

function answers(link: Link): string[] {
  return of(link.answered, type.ANSWER).map((said) => json(said)["answers"] as string);
}

describe("OFFER", () => {
  test("a sender offers an unchanged folder and sends none of its frames", async () => {
    const store = await storeOf(framesOf(5, 10));
    const link = await deliver({ sources: [folder(framesOf(5, 10))], store, hello: other });
    expect(answers(link)).toEqual(["sssss"]);
    expect(offers(link)[0]).toEqual(["f1", 10, "1", 1]);
    expect(link.said.map(({ message }) => message.type)).toEqual([
      type.HELLO,
      type.SOURCE,
      type.OFFER,
      type.END,
    ]);
    expect(link.sender.done).toMatchObject({ frames: 0 });
    expect(link.receiver.foundCount).toBe(5);
    expect(link.progress[0]).toMatchObject({ settled: 5, present: 5, sent: 0, bytes: 0 });
    // Contents were not compared, so the frames do not count as delivered.
    expect(link.delivered).toEqual([]);
  });

  test("a sender offers the frames of a watched folder only as long as they may be stored already", async () => {
    const store = await storeOf(framesOf(2, 10));
    const later = Promise.withResolvers<Frame>();
    const frames = framesOf(5, 10);
    const watched = folder([...frames.slice(0, 4), later.promise as never]);
    Object.defineProperty(watched, "isResumable", { get: () => watched.taken < 2 });
    const link = new Link({ sources: [watched], store, hello: other, delay: 5 });
    await link.run(1000);
    later.resolve(frames[4]!);
    await link.run();
    expect([answers(link), watched.described]).toEqual([["ss"], 2]);
    expect(sent(link)).toEqual([3, 4, 5]);
    expect(link.progress[0]).toMatchObject({ settled: 5, present: 2, sent: 3 });
  });

  test("a sender sends the offered frames that the store wants, in their order", async () => {
    const store = await storeOf(framesOf(4, 10).filter(({ sequence }) => sequence % 2 === 0));
    const link = await deliver({ sources: [folder(framesOf(5, 10))], store, hello: other });
    expect(answers(link)).toEqual(["wswsw"]);
    expect(sent(link)).toEqual([1, 3, 5]);
    expect(link.progress[0]).toMatchObject({ settled: 5, present: 2, sent: 3, bytes: 30 });
    expect(store.frames).toHaveLength(5);
  });

  test("a frame with another capture time is offered again with its CRC-32, and not sent if equal", async () => {
    const store = await storeOf(framesOf(3, 10));
    const touched = framesOf(3, 10).map(
      ({ sequence, bytes }) => new MemoryFrame(sequence, bytes, { captured: 5_000_000n }),
    );
    const link = await deliver({ sources: [folder(touched)], store, hello: other });
    expect(answers(link).join("").slice(0, 3)).toBe("ccc");
    expect(answers(link).join("").slice(3)).toBe("sss");
    expect(offers(link).slice(3).sort()).toEqual(
      touched.map(({ sequence, bytes }) => {
        return [`f${sequence}`, 10, "5000000", sequence, Bun.hash.crc32(bytes)];
      }),
    );
    expect(sent(link)).toEqual([]);
    expect(link.progress[0]).toMatchObject({ settled: 3, present: 3 });
    // Contents were compared.
    expect(link.delivered.map(({ name }) => name).sort()).toEqual(["f1", "f2", "f3"]);
    // Times that differ by less than a microsecond are equal.
    const rounded = framesOf(3, 10).map(
      ({ sequence, bytes }) =>
        new MemoryFrame(sequence, bytes, { captured: BigInt(sequence) + 999n }),
    );
    expect(answers(await deliver({ sources: [folder(rounded)], store, hello: other }))).toEqual([
      "sss",
    ]);
  });

  test("a frame that cannot be read for its CRC-32 is tried again and then lost", async () => {
    const store = await storeOf(framesOf(3, 10));
    const touched = [1, 9, 0].map(
      (failures, index) => new MemoryFrame(index + 1, 10, { captured: 9_000_000n, failures }),
    );
    const link = await deliver({ sources: [folder(touched)], store, hello: other });
    expect(sent(link)).toEqual([]);
    expect(link.undelivered.map(({ first, error }) => [first, error.code])).toEqual([
      [2, "changed"],
    ]);
    expect(store.losses.map(({ first, code }) => [first, code])).toEqual([[2, "changed"]]);
    expect(link.progress[0]).toMatchObject({ settled: 2, present: 2, lost: 1 });
  });

  test("a frame that was moved away is sent again only with `again`", async () => {
    const moved = async (said: Partial<Hello>) => {
      const store = await storeOf(framesOf(3, 10));
      store.moveAway("a", "f2");
      return deliver({ sources: [folder(framesOf(3, 10))], store, hello: said });
    };
    const link = await moved(other);
    expect(answers(link)).toEqual(["sms"]);
    expect(link.progress[0]).toMatchObject({ settled: 3, present: 2, removedAtServer: 1, sent: 0 });
    expect(link.receiver.foundCount).toBe(3);
    const anew = await moved({ ...other, again: true });
    expect(answers(anew)).toEqual(["sws"]);
    expect(anew.progress[0]).toMatchObject({ settled: 3, present: 2, removedAtServer: 0, sent: 1 });
    // Frames stored by the same session are never sent again, even if they were removed since.
    expect(answers(await moved({ again: true }))).toEqual(["sms"]);
  });

  for (const conflict of ["fail", "skip", "replace"] as const) {
    test(`an offered frame with other bytes under its name follows --on-conflict ${conflict}`, async () => {
      const store = await storeOf(framesOf(4, 10));
      const changed = framesOf(4, 10);
      // One frame has another size. Another has the same size and can be detected only by its
      // CRC-32.
      changed[1] = new MemoryFrame(2, 11);
      changed[2] = new MemoryFrame(3, Buffer.from("other..one"), { captured: 9_000_000n });
      const link = await deliver({
        sources: [folder(changed)],
        store,
        hello: { ...other, conflict },
        delay: 5,
      });
      const isReplaced = conflict === "replace";
      expect(answers(link)).toEqual(isReplaced ? ["swcs", "w"] : ["sxcs", "x"]);
      expect(sent(link)).toEqual(isReplaced ? [2, 3] : []);
      expect(link.undelivered.map(({ first, error }) => [first, error.code])).toEqual(
        conflict === "fail"
          ? [
              [2, "conflict"],
              [3, "conflict"],
            ]
          : [],
      );
      expect(link.progress[0]).toMatchObject({
        settled: 4,
        present: 2,
        sent: isReplaced ? 2 : 0,
        refused: conflict === "fail" ? 2 : 0,
        conflictsSkipped: conflict === "skip" ? 2 : 0,
        lost: 0,
      });
      const kept = store.frames.find(({ description }) => description.name === "f3")!;
      const expected = isReplaced ? changed[2]! : framesOf(4, 10)[2]!;
      expect(Buffer.from(kept.bytes).equals(Buffer.from(expected.bytes))).toBe(true);
      expect(store.frames).toHaveLength(4);
      expect(store.losses).toEqual([]);
    });
  }

  test("a name conflict found only after sending is refused or skipped, as --on-conflict says", async () => {
    const store = await storeOf(framesOf(1, 10));
    for (const conflict of ["fail", "skip"] as const) {
      // A live source sends without offering.
      const sources = [new MemorySource("a", [new MemoryFrame(1, 11), new MemoryFrame(2, 5)])];
      const link = await deliver({ sources, store, hello: { ...other, conflict } });
      expect(link.undelivered).toHaveLength(Number(conflict === "fail"));
      expect(link.progress[0]).toMatchObject({
        settled: 2,
        refused: Number(conflict === "fail"),
        conflictsSkipped: Number(conflict === "skip"),
      });
    }
  });

  test("pictures of encoded video are sent in their order, although an earlier one takes longer to read", async () => {
    const store = await storeOf(framesOf(1, 10));
    const size = maxPackedFrameBytes + 1;
    const gates = [2, 5].map((number) => ({ number, gate: Promise.withResolvers<void>() }));
    const frames = Array.from({ length: 7 }, (_, index) => {
      const sequence = index + 2;
      const { gate } = gates.find(({ number }) => number === sequence) ?? {};
      return new MemoryFrame(sequence, size, {
        isKey: sequence === 2,
        piece: size,
        wait: async () => await gate?.promise,
      });
    });
    const link = new Link({ sources: [folder(frames)], store, hello: other, checksum: true });
    link.onStep = () => {
      // The others were read and are wanted.
      if (answers(link).join("").length === 7 - gates.length) gates[0]!.gate.resolve();
      if (answers(link).join("").length === 8 - gates.length) gates[1]!.gate.resolve();
    };
    await link.run();
    expect(link.senderError).toBeUndefined();
    expect(sent(link)).toEqual([2, 3, 4, 5, 6, 7, 8]);
  });

  test("a sender with `checksum` reads each frame's CRC-32 first, and offers the frame once", async () => {
    const store = await storeOf(framesOf(4, 10));
    const changed = framesOf(5, 10);
    // Name, size and time equal those of the stored frame, so only the CRC-32 differs.
    changed[2] = new MemoryFrame(3, Buffer.from("other..one"), { captured: 3n });
    const plain = await deliver({ sources: [folder(changed)], store, hello: other });
    expect(answers(plain).join("")).toBe("ssssw");
    store.frames.splice(4);
    const fresh = await storeOf(framesOf(4, 10));
    const link = await deliver({
      sources: [folder(changed)],
      store: fresh,
      hello: other,
      checksum: true,
    });
    expect(offers(link).map((entry) => [entry[3], entry[4]])).toEqual(
      changed.map(({ sequence, bytes }) => [sequence, Bun.hash.crc32(bytes)]),
    );
    expect(answers(link).join("")).toBe("ssxsw");
    expect(link.undelivered.map(({ first, error }) => [first, error.code])).toEqual([
      [3, "conflict"],
    ]);
    expect(sent(link)).toEqual([5]);
  });

  test("offered frames of a source that the server does not accept are wanted, then refused with the reason", async () => {
    const store = await storeOf(framesOf(1, 10));
    store.options.refuseSource = () => new FramesError("bad-name", "no such name here");
    const link = await deliver({ sources: [folder(framesOf(3, 10), "b")], store, hello: other });
    expect(answers(link)).toEqual(["www"]);
    expect(link.undelivered.map(({ first, error }) => [first, error.message])).toEqual(
      [1, 2, 3].map((first) => [first, "no such name here"]),
    );
  });

  test("an offered frame is wanted whatever its capture time, also beyond 64 bits", async () => {
    const peer = new Client();
    peer.greet();
    const entry = (captured: string) => ["f", 1, captured, 1];
    const times = ["9223372036854775807", "9223372036854775808", "-9223372036854775809", "-0"];
    await peer.saysAll(peer.source(1), peer.json(type.OFFER, 1, { frames: times.map(entry) }));
    peer.receiver.ack(0);
    expect(peer.heard()).toMatchObject([{ type: type.ANSWER, json: { answers: "wwww" } }]);
  });

  test("a sender offers frames of folders only, and sends a live source at once", async () => {
    const store = await storeOf(framesOf(1, 10));
    const link = await deliver({
      sources: [new MemorySource("b", framesOf(3, 10)), folder(framesOf(3, 10), "c")],
      store,
      hello: other,
    });
    expect(offers(link)).toHaveLength(3);
    expect(of(link.said, type.OFFER).map(({ message }) => message.source)).toEqual([2]);
    expect(store.frames).toHaveLength(7);
  });

  test("a sender describes frames before it offers them, and offers none to a fresh stream", async () => {
    const first = folder(framesOf(3, 10));
    const link = await deliver({ sources: [first] });
    expect(offers(link)).toEqual([]);
    expect([first.taken, first.described]).toEqual([3, 0]);
    const second = folder(framesOf(3, 10));
    await deliver({ sources: [second], store: link.store, hello: other });
    expect([second.taken, second.described]).toEqual([3, 3]);
  });
});

describe("OFFER limits", () => {
  test("a sender offers at most 8,192 frames without an answer, and needs few round trips", async () => {
    const store = await storeOf(framesOf(1, 1));
    const count = 20_000;
    const link = await deliver({
      sources: [folder(framesOf(count, 1)), folder(framesOf(5000, 1), "b")],
      store,
      hello: other,
      delay: 50,
      grants: grant({ frames: 30_000 }),
    });
    // `check` in `deliver` has compared each OFFER with the limit.
    const { mostOffered } = link.check();
    expect(mostOffered).toBeGreaterThan(MOST_OFFERED / 2);
    expect(mostOffered).toBeLessThanOrEqual(MOST_OFFERED);
    expect(store.frames).toHaveLength(count + 5000);
    // Two round trips for handshake and end, three for the offers in transit, one for the last
    // frames, and reserve.
    expect(link.time).toBeLessThanOrEqual(100 * 8);
    for (const { message } of of(link.said, type.OFFER)) {
      expect(JSON.stringify((message as { json?: object }).json).length).toBeLessThan(65_536);
    }
  });

  test("offers with the longest names fit into their messages", async () => {
    const store = await storeOf(framesOf(1, 1));
    const names = ["\u0001".repeat(255), "😀".repeat(63), '"'.repeat(255), "ä".repeat(127)];
    const frames = Array.from({ length: 400 }, (_, index) => {
      const name = `${String(index).padStart(3, "0")}${names[index % 4]!}`;
      return new MemoryFrame(index + 1, 1, { name: Buffer.from(name).subarray(0, 255).toString() });
    }).filter(({ name }) => !name.includes("\uFFFD"));
    const link = await deliver({ sources: [folder(frames)], store, hello: other });
    expect(link.sender.done?.stored).toBe(frames.length);
  });

  test("wanted frames wait for the window, and the sender offers no more meanwhile", async () => {
    const store = await storeOf(framesOf(1, 1));
    const source = folder(framesOf(40_000, 1));
    const clock = new Clock();
    const stuck = new MemoryStore({ finish: () => new Promise(() => {}) });
    stuck.frames.push(...store.frames);
    const link = new Link({
      sources: [source],
      store: stuck,
      clock,
      grants: grant({ frames: 10 }),
    });
    await link.run(3000);
    link.check();
    expect(sent(link)).toHaveLength(10);
    expect(source.taken).toBeGreaterThan(10);
    expect(source.taken).toBeLessThanOrEqual(MOST_OFFERED + 11);
  });

  test("the receiver fails with `limit` when a sender offers more than 8,192 frames without an answer", async () => {
    const peer = new Client();
    peer.greet();
    const frames = Array.from({ length: 1024 }, (_, index) => [`f${index}`, 1, "0", index + 1]);
    const offer = peer.json(type.OFFER, 1, { frames });
    peer.says(peer.source(1));
    for (let index = 0; index < 8; index++) expect(await peer.saysAll(offer)).toBeUndefined();
    // The answers make room for more offers.
    peer.receiver.ack(0);
    expect(peer.heard()).toHaveLength(8);
    for (let index = 0; index < 8; index++) expect(await peer.saysAll(offer)).toBeUndefined();
    const oneMore = peer.json(type.OFFER, 1, { frames: frames.slice(0, 1) });
    expect(await peer.saysAll(oneMore)).toBe("limit");
  });
});

describe("ANSWER", () => {
  test("the receiver sends ANSWER when the store is flushed, and the sender's END waits for it", async () => {
    const flushing = Promise.withResolvers<void>();
    const store = await storeOf(framesOf(3, 10));
    store.options.flush = () => flushing.promise;
    const link = new Link({ sources: [folder(framesOf(3, 10))], store, hello: other });
    await link.run(3000);
    expect(store.compared).toHaveLength(3);
    expect(answers(link)).toEqual([]);
    expect(of(link.said, type.END)).toEqual([]);
    flushing.resolve();
    delete store.options.flush;
    await link.run();
    expect(answers(link)).toEqual(["sss"]);
    expect(link.sender.done).toBeDefined();
    link.check();
  });

  test("an ANSWER leaves with the flush that began after its OFFER", async () => {
    const peer = new Client();
    peer.greet();
    const offer = (name: string) => peer.json(type.OFFER, 1, { frames: [[name, 1, "0", 1]] });
    await peer.saysAll(peer.source(1), offer("a"));
    const first = peer.receiver.flushSnapshot;
    expect(first).toEqual({ frames: 0, answers: 1 });
    await peer.saysAll(offer("b"), peer.frame(1));
    expect(peer.receiver.needsFlush).toBe(true);
    peer.receiver.ack(0, first);
    expect(peer.heard().map((heard) => heard.type)).toEqual([type.ANSWER]);
    expect(peer.says(peer.json(type.END, 0, { frames: 1 }))).toBe("protocol");
  });

  /** A sender that has offered a folder of three frames. */
  function offering(frames = framesOf(3, 10), welcome: Partial<Welcome> = {}) {
    const peer = new Server();
    const outlets = outletsOf([folder(frames), folder(framesOf(2, 10), "b")]);
    const sender = new Sender({
      ...{ sources: outlets, hello, checksum: false, timeoutMs: 30_000, now: 0 },
      onWritable() {},
    });
    const buffer = new Uint8Array(outgoingBufferBytes);
    const says = (): DecodedMessage[] => {
      const parts: Uint8Array[] = [];
      for (;;) {
        const { length } = sender.transmit(buffer, 0);
        if (length === 0) break;
        parts.push(buffer.slice(0, length));
      }
      const bytes: Uint8Array = Buffer.concat(parts);
      const start = Buffer.from(bytes.subarray(0, 8)).toString();
      return decodeAll(bytes.subarray(start === "FRAMES/1" ? 8 : 0)).messages;
    };
    says();
    sender.receive(peer.welcome({ ...grants, features: ["offer", "replace"], ...welcome }), 0);
    const answer = (source: number, letters: string) =>
      sender.receive(peer.json(type.ANSWER, source, { answers: letters }), 0);
    return { peer, sender, outlets, says, answer };
  }

  const cases: Record<string, [source: number, letters: string][]> = {
    "with too few letters": [[1, "ss"]],
    "with too many letters": [[1, "ssss"]],
    "with no letters": [[1, ""]],
    "with an unknown letter": [[1, "sys"]],
    "with a capital letter": [[1, "Sss"]],
    "from another source than the OFFER": [[2, "sss"]],
    "out of the order of the OFFERs": [[2, "ss"]],
    "that comes twice": [
      [1, "sss"],
      [1, "sss"],
    ],
    "for an unknown source": [[3, "sss"]],
    "with a Cyrillic letter that looks like s": [[1, "s\u0455s"]],
  };
  for (const [name, given] of Object.entries(cases)) {
    test(`an ANSWER ${name} fails with \`protocol\`, and the next connection delivers the frames`, async () => {
      const { sender, outlets, says, answer } = offering();
      expect(says().filter((said) => said.type === type.OFFER)).toHaveLength(2);
      for (const [source, letters] of given.slice(0, -1)) answer(source, letters);
      const [source, letters] = given.at(-1)!;
      expect(() => answer(source, letters)).toThrow(expect.objectContaining({ code: "protocol" }));
      sender.returnToSources();
      const settled = outlets[0]!.progress.settled;
      const link = await new Link({
        outlets,
        onHello: () => ({ fresh: false }),
      }).run();
      expect(link.sender.done).toBeDefined();
      // Frames not settled by the wrong answer are sent on the next connection.
      expect(link.store.frames).toHaveLength(5 - settled);
      expect(outlets.map(({ progress }) => progress.settled)).toEqual([3, 2]);
    });
  }

  test("the answer `c` to a frame that was offered with its CRC-32 fails with `protocol`", async () => {
    const { says, answer } = offering();
    says();
    answer(1, "csw");
    await new Promise(setImmediate);
    const again = says().find((said) => said.type === type.OFFER)!;
    expect((json(again)["frames"] as unknown[][])[0]).toHaveLength(5);
    answer(2, "ss");
    expect(() => answer(1, "c")).toThrow(expect.objectContaining({ code: "protocol" }));
  });

  for (const [why, welcome] of [
    ["a server that takes no offers", { features: ["replace"] }],
    ["a server without features", { features: [] }],
    ["a fresh server", { fresh: true }],
  ] as [string, Partial<Welcome>][]) {
    test(`an ANSWER from ${why} fails with \`protocol\`, because nothing was offered`, () => {
      const { says, answer } = offering(framesOf(3, 10), welcome);
      const said = says();
      expect(said.filter(({ type: number }) => number === type.OFFER)).toEqual([]);
      expect(said.filter(({ type: number }) => number === type.FRAME)).toHaveLength(5);
      expect(() => answer(1, "sss")).toThrow(expect.objectContaining({ code: "protocol" }));
    });
  }
});

describe("WELCOME and HELLO", () => {
  test("WELCOME lists the features of the server and says whether receipts are durable", () => {
    for (const [isDurable, asked, expected] of [
      [false, {}, false],
      [false, { durable: true }, true],
      [true, {}, true],
      [true, { durable: false }, true],
    ] as const) {
      const peer = new Client(grants, new MemoryStore({ isDurable }));
      peer.says(peer.hello(asked));
      const [welcome] = peer.heard();
      const features = ["offer", "replace", "moved-away", "video"];
      expect(json(welcome!)).toMatchObject({ features, durable: expected });
    }
  });

  test("HELLO lists the same features as WELCOME", async () => {
    const link = await deliver({ sources: [] });
    expect(json(link.said[0]!)["features"]).toEqual(["offer", "replace", "moved-away", "video"]);
  });

  test("the receiver passes the options of HELLO on to the store", () => {
    const peer = new Client();
    peer.greet({ conflict: "replace", again: true, durable: true });
    peer.says(peer.source(1), peer.frame(1));
    expect(peer.store.opened).toMatchObject([
      { conflict: "replace", resendRemoved: true, durable: true },
    ]);
  });

  const refusing = (said: Partial<Hello>, welcome: Partial<Welcome>) =>
    new Link({
      sources: [folder(framesOf(2, 10))],
      hello: said,
      onHello: () => ({ fresh: true, ...welcome }),
    }).run();

  test("a WELCOME that does not grant what HELLO asks for ends the delivery before any frame", async () => {
    for (const link of [
      await refusing({ durable: true }, { durable: false }),
      await refusing({ conflict: "replace" }, { features: ["offer"] }),
    ]) {
      expect(link.senderError?.code).toBe("usage");
      expect(link.store.frames).toEqual([]);
    }
    expect((await refusing({ durable: true, conflict: "replace" }, {})).sender.done?.stored).toBe(
      2,
    );
  });
});

describe("stopping a Sender with offers", () => {
  test("a sender that is stopped waits for its answers and sends none of the wanted frames", async () => {
    const store = await storeOf(framesOf(2, 10));
    const live = new MemorySource("b", [new MemoryFrame(1, 1), new Promise<never>(() => {})]);
    const source = folder(framesOf(2000, 10));
    const link = new Link({ sources: [source, live], store, hello: other, delay: 50 });
    await link.run(120);
    expect(of(link.said, type.OFFER).length).toBeGreaterThan(0);
    expect(answers(link)).toEqual([]);
    expect(link.outlets[0]!.hasUnsent).toBe(true);
    link.stop();
    await link.run();
    expect(link.sender.done).toMatchObject({ frames: 1, stored: 1 });
    link.check();
    // Frames at the server are known; the others remain for the next delivery.
    expect(link.progress[0]).toMatchObject({ settled: 2, present: 2, sent: 0 });
    expect(link.undelivered).toEqual([]);
  });

  test("a sender that is stopped while it reads CRC-32s reads no further frame", async () => {
    const clock = new Clock();
    const store = await storeOf(framesOf(50, 10));
    let read = 0;
    const wait = () => {
      read++;
      return clock.wait(100);
    };
    const frames = Array.from(
      { length: 50 },
      (_, index) => new MemoryFrame(index + 1, 10, { captured: 9_000_000n, wait }),
    );
    const link = new Link({ sources: [folder(frames)], store, hello: other, clock, delay: 5 });
    await link.run(150);
    expect(read).toBeGreaterThan(0);
    link.stop();
    const begun = read;
    await link.run();
    expect(link.sender.done).toBeDefined();
    expect(read).toBe(begun);
  });

  test("a sender that is stopped before WELCOME sends no OFFER", async () => {
    const store = await storeOf(framesOf(2, 10));
    const link = new Link({ sources: [folder(framesOf(5, 10))], store, hello: other, delay: 5 });
    link.stop();
    await link.run();
    expect(link.said.map(({ message }) => message.type)).toEqual([type.HELLO, type.END]);
  });
});
