// Covers: protocol/keepalive.ts, protocol/receive/incoming-sources.ts,
//   protocol/receive/outcome-counts.ts, protocol/receive/receipts.ts,
//   protocol/receive/receiver-events.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Outcome } from "../../../src/frame.ts";
import { Keepalive } from "../../../src/protocol/keepalive.ts";
import { type } from "../../wire/vectors.ts";
import {
  Clock,
  everyByte,
  framesOf,
  grants,
  Link,
  MemoryFrame,
  MemorySource,
  MemoryStore,
  outletsOf,
} from "../memory.ts";
import { Client, deliver, grant, json, of } from "../peers.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("acquiring a source", () => {
  /** A receiver for which the test decides when a source is acquired. */
  function claiming(store = new MemoryStore()) {
    const claims: { key: string; decide: PromiseWithResolvers<void> }[] = [];
    const failures: unknown[] = [];
    let wakes = 0;
    const peer = new Client(grants, store, {
      acquireSource: (stream, source) => {
        const decide = Promise.withResolvers<void>();
        claims.push({ key: `${stream} ${source}`, decide });
        return decide.promise;
      },
      onError: (error) => failures.push(error),
      onFlushNeeded: () => wakes++,
    });
    peer.greet();
    return { peer, store, claims, failures, wakes: () => wakes };
  }

  test("a receiver holds back everything behind a SOURCE until the source is acquired", async () => {
    for (const chunker of [(bytes: Uint8Array) => [bytes], everyByte]) {
      const { peer, store, claims, wakes } = claiming();
      const bytes = Buffer.concat([
        peer.json(type.PING, 0, { time: "1" }),
        peer.source(1),
        peer.frame(1, { payload: Buffer.from("abc") }),
        peer.json(type.PING, 0, { time: "2" }),
        peer.source(2, "b"),
        peer.frame(2),
        peer.frame(1, { sequence: 2, name: "g" }),
        peer.json(type.END, 0, { frames: 3 }),
      ]);
      for (const chunk of chunker(bytes)) expect(peer.says(chunk)).toBeUndefined();
      expect(peer.heard().map((heard) => json(heard)["time"])).toEqual(["1"]);
      expect(claims.map(({ key }) => key)).toEqual(["s a"]);
      expect([peer.receiver.isPaused, peer.receiver.needsFlush]).toEqual([true, false]);
      expect(store.opened).toEqual([]);
      claims[0]!.decide.resolve();
      await turn();
      // The next acquisition blocks the messages after it.
      expect(claims.map(({ key }) => key)).toEqual(["s a", "s b"]);
      expect(store.frames.map(({ description }) => description.name)).toEqual(["f"]);
      expect(peer.heard().map((heard) => json(heard)["time"])).toEqual(["2"]);
      expect(peer.receiver.isPaused).toBe(true);
      claims[1]!.decide.resolve();
      await turn();
      expect(peer.receiver.isPaused).toBe(false);
      expect(wakes()).toBe(2);
      expect(store.frames).toHaveLength(3);
      peer.receiver.ack(0);
      expect(peer.heard().map((heard) => heard.type)).toEqual([type.RECEIPT, type.DONE]);
    }
  });

  test("a receiver acquires a source in its own stream, and again when its id is declared again", async () => {
    const { peer, claims } = claiming();
    peer.says(
      peer.json(type.SOURCE, 1, { name: "a", stream: "other" }),
      peer.json(type.SOURCE, 1, { name: "c/d" }),
    );
    claims[0]!.decide.resolve();
    await turn();
    expect(claims.map(({ key }) => key)).toEqual(["other a", "s c/d"]);
  });

  test("a receiver releases a source before its id is declared for another, and only then", () => {
    const told: string[] = [];
    const peer = new Client(grants, new MemoryStore(), {
      acquireSource: (stream, source) => void told.push(`acquire ${stream} ${source}`),
      releaseSource: (stream, source) => void told.push(`release ${stream} ${source}`),
    });
    peer.greet();
    peer.says(
      peer.source(1),
      peer.json(type.SOURCE, 2, { name: "b", stream: "other" }),
      peer.frame(1),
      peer.source(1, "c"),
      peer.json(type.SOURCE, 2, { name: "d" }),
    );
    expect(told).toEqual([
      "acquire s a",
      "acquire other b",
      ...["release s a", "acquire s c"],
      ...["release other b", "acquire s d"],
    ]);
    // A source with an unfinished frame cannot be redeclared and keeps its owner.
    expect(peer.says(peer.frame(1, { size: 5, more: true }), peer.source(1, "e"))).toBe("protocol");
    expect(told).toHaveLength(6);
  });

  test("a receiver shortens the long name of a refused source in its events", () => {
    const name = "x".repeat(60_000);
    const store = new MemoryStore({ refuseSource: () => new FramesError("bad-name") });
    const ended: string[] = [];
    const lost: string[] = [];
    const peer = new Client(grants, store, {
      reportsStored: true,
      onEvent: (event) => {
        if (event.type === "frame") ended.push(event.source);
        if (event.type === "lost") lost.push(event.source);
      },
    });
    peer.greet();
    peer.says(
      peer.source(1, name),
      peer.frame(1),
      peer.json(type.LOST, 1, { ranges: [[2, 2]], error: 48 }),
    );
    for (const kept of [...ended, ...lost]) {
      expect(kept.length).toBeLessThanOrEqual(1024);
      expect(name).toStartWith(kept);
      expect(kept).not.toBe("");
    }
    expect([ended, lost].map(({ length }) => length)).toEqual([1, 1]);
    peer.receiver.ack(0);
    expect(peer.heard()).toMatchObject([
      { type: type.REFUSED, json: { error: 33 } },
      { type: type.RECEIPT, frames: 1 },
    ]);
  });

  test("a refused source ends the connection with its error, and nothing behind it is handled", async () => {
    const { peer, store, claims, failures } = claiming();
    const busy = new FramesError("busy", "another client sends it");
    peer.says(peer.source(1), peer.frame(1));
    claims[0]!.decide.reject(busy);
    await turn();
    expect(failures).toEqual([busy]);
    peer.receiver.fail(busy);
    expect(peer.heard()).toMatchObject([
      { type: type.ERROR, json: { error: 7, message: "another client sends it" } },
    ]);
    expect([store.opened, store.begun]).toEqual([[], []]);
  });

  test("a source that is refused at once ends the connection with the same error", () => {
    const store = new MemoryStore();
    const peer = new Client(grants, store, {
      acquireSource: () => {
        throw new FramesError("busy");
      },
    });
    peer.greet();
    expect(peer.says(peer.source(1), peer.frame(1))).toBe("busy");
    expect(store.opened).toEqual([]);
  });

  test("a receiver checks limits.sources before it acquires a source", () => {
    const keys: string[] = [];
    const peer = new Client(grant({}, { sources: 1 }), new MemoryStore(), {
      acquireSource: (_stream, source) => void keys.push(source),
    });
    peer.greet();
    expect(peer.says(peer.source(1), peer.source(2, "b"))).toBe("limit");
    expect(keys).toEqual(["a"]);
  });

  test("a receiver reports a protocol error behind a SOURCE after the source is acquired", async () => {
    const { peer, claims, failures } = claiming();
    peer.says(peer.source(1), peer.json(type.END, 0, { frames: 7 }));
    expect(failures).toEqual([]);
    claims[0]!.decide.resolve();
    await turn();
    expect(failures).toMatchObject([{ code: "protocol" }]);
  });

  test("a receiver counts no silence while it waits for a source to be acquired", async () => {
    const { peer, claims } = claiming();
    peer.says(peer.source(1), peer.frame(1));
    for (let second = 0; second < 60; second++) {
      peer.now += 1000;
      peer.receiver.tick(peer.now);
    }
    claims[0]!.decide.resolve();
    await turn();
    peer.now += 29_000;
    peer.receiver.tick(peer.now);
    peer.now += 1000;
    expect(() => peer.receiver.tick(peer.now)).toThrow(
      expect.objectContaining({ code: "timeout" }),
    );
  });

  for (const end of ["was stopped", "was closed"] as const) {
    test(`a decision on a source after the connection ${end} stores nothing`, async () => {
      for (const outcome of ["resolve", "reject"] as const) {
        const { peer, store, claims } = claiming();
        peer.says(
          peer.source(1),
          peer.frame(1, { payload: Buffer.from("abc") }),
          peer.frame(1, { sequence: 2, name: "g", size: 5, more: true }),
        );
        if (end === "was stopped") peer.receiver.fail(new FramesError("superseded"));
        else peer.receiver.close();
        if (outcome === "resolve") claims[0]!.decide.resolve();
        else claims[0]!.decide.reject(new FramesError("busy"));
        await turn();
        expect(store.opened).toEqual([]);
        expect(store.begun).toEqual([]);
        expect(store.writers).toBe(0);
      }
    });
  }

  test("a sender whose sources are acquired late delivers every frame", async () => {
    const clock = new Clock();
    const sources = ["a", "b"].map((name) => new MemorySource(name, framesOf(20, 10)));
    const link = await deliver({ sources, clock, delay: 5, claim: () => clock.wait(4000) });
    expect(link.sender.done?.stored).toBe(40);
    expect(link.time).toBeGreaterThanOrEqual(8000);
  });

  test("a source of another session ends the sender with `busy`, and the next connection delivers its frames", async () => {
    const clock = new Clock();
    const outlets = outletsOf([new MemorySource("a", framesOf(5, 10))]);
    const claim = () => clock.wait(2000).then(() => Promise.reject(new FramesError("busy")));
    const first = await new Link({ outlets, clock, claim, delay: 5 }).run();
    expect(first.senderError?.code).toBe("busy");
    expect(first.store.frames).toEqual([]);
    const second = await new Link({ outlets, clock, delay: 5 }).run();
    expect(second.sender.done?.stored).toBe(5);
    expect(outlets[0]!.progress).toMatchObject({ sent: 5, settled: 5, bytes: 50 });
  });
});

describe("LOST without frames", () => {
  test("a LOST without frames makes the store flush once", () => {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1));
    expect(peer.receiver.needsFlush).toBe(false);
    peer.says(peer.json(type.LOST, 1, { ranges: [[3, 4]], error: 51 }));
    expect(peer.receiver.needsFlush).toBe(true);
    peer.receiver.ack(0);
    expect(peer.receiver.needsFlush).toBe(false);
    expect(peer.heard()).toEqual([]);
    expect(peer.store.losses).toEqual([{ source: "a", first: 3, last: 4, code: "dropped" }]);
  });
});

describe("errors after frames that ended", () => {
  test("a receiver that stops settles ended frames before ERROR, and discards unfinished ones", async () => {
    const peer = new Client();
    peer.greet();
    await peer.saysAll(
      peer.source(1),
      peer.frame(1),
      peer.json(type.OFFER, 1, { frames: [["x", 1, "0", 9]] }),
      peer.frame(1, { sequence: 2, name: "g", size: 5, more: true }),
    );
    peer.receiver.stop();
    expect(peer.store.writers).toBe(0);
    // Further input is ignored.
    expect(peer.says(peer.data(1, Buffer.alloc(0), Buffer.from("12345"), false))).toBeUndefined();
    expect(peer.says(Buffer.from("no message at all"))).toBeUndefined();
    peer.receiver.ack(0);
    peer.receiver.fail(new FramesError("stopping"));
    peer.receiver.ack(0);
    expect(peer.heard()).toMatchObject([
      { type: type.ANSWER, json: { answers: "w" } },
      { type: type.RECEIPT, frames: 1 },
      { type: type.ERROR, json: { error: 10 } },
    ]);
    expect(peer.heard()).toEqual([]);
    expect(peer.store.begun).toEqual(["f", "g"]);
    expect(peer.store.frames).toHaveLength(1);
  });

  test("a receiver that stops after END answers DONE, without ERROR", () => {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1), peer.frame(1), peer.json(type.END, 0, { frames: 1 }));
    peer.receiver.stop();
    peer.receiver.ack(0);
    peer.receiver.fail(new FramesError("stopping"));
    expect(peer.heard().map((heard) => heard.type)).toEqual([type.RECEIPT, type.DONE]);
  });

  test("a receiver that stops settles the frames that the store finishes before the ERROR", async () => {
    const finishing: PromiseWithResolvers<Outcome | undefined>[] = [];
    const store = new MemoryStore({
      finish: () => {
        const later = Promise.withResolvers<Outcome | undefined>();
        finishing.push(later);
        return later.promise;
      },
    });
    const peer = new Client(grants, store);
    peer.greet();
    peer.says(
      peer.source(1),
      ...[1, 2, 3].map((sequence) => peer.frame(1, { sequence, name: `f${sequence}` })),
    );
    peer.receiver.stop();
    finishing[0]!.resolve(undefined);
    finishing[1]!.resolve(new FramesError("not-stored"));
    await turn();
    peer.receiver.ack(0);
    peer.receiver.fail(new FramesError("stopping"));
    finishing[2]!.resolve(undefined);
    await turn();
    peer.receiver.ack(0);
    expect(peer.heard()).toMatchObject([
      { type: type.REFUSED, json: { sequence: 2 } },
      { type: type.RECEIPT, frames: 2 },
      { type: type.ERROR },
    ]);
  });

  for (const [what, make, named] of [
    ["a payload", (peer: Client) => flip(peer.frame(1, victim), -1), { source: 1, sequence: 7 }],
    ["a description", (peer: Client) => flip(peer.frame(1, victim), 12 + 33), {}],
    ["a header", (peer: Client) => flip(peer.frame(1, victim), 3), {}],
    ["a message other than FRAME", (peer: Client) => flip(peer.source(2), -3), {}],
  ] as [string, (peer: Client) => Uint8Array, object][]) {
    test(`a receiver reports damage in ${what}, and names the frame if it is known`, () => {
      const peer = new Client();
      peer.greet();
      peer.says(peer.source(1), peer.source(2, "b"), peer.frame(1));
      expect(peer.says(make(peer))).toBe("damaged");
      const error = json(peer.heard().at(-1)!);
      expect(error).toEqual({ error: 4, message: expect.any(String), ...named });
    });
  }

  test("a receiver names the large frame with the damaged piece, not another unfinished one", () => {
    const peer = new Client();
    peer.greet();
    const nothing = Buffer.alloc(0);
    peer.says(
      peer.source(1),
      peer.source(2, "b"),
      peer.frame(1, { sequence: 4, name: "l", size: 9, more: true }),
      peer.frame(2, { sequence: 5, name: "m", size: 9, more: true }),
    );
    expect(peer.says(flip(peer.data(2, nothing, Buffer.from("123456789"), false), -2))).toBe(
      "damaged",
    );
    expect(json(peer.heard().at(-1)!)).toMatchObject({ error: 4, source: 2, sequence: 5 });
    expect(peer.store.writers).toBe(0);
  });

  test("a receiver names a frame only in an ERROR for damage", () => {
    const peer = new Client();
    peer.greet();
    const frame = peer.frame(1, victim);
    peer.says(peer.source(1), frame.subarray(0, frame.length - 1));
    peer.receiver.fail(new FramesError("timeout"));
    expect(json(peer.heard().at(-1)!)).toEqual({ error: 5, message: expect.any(String) });
  });
});

const victim = { sequence: 7, name: "victim", payload: Buffer.from("payload") };

/** Returns the message with one bit flipped. A negative offset counts from the end. */
function flip(message: Uint8Array, at: number): Uint8Array {
  message[at < 0 ? message.length + at : at]! ^= 2;
  return message;
}

describe("timeouts", () => {
  /** A source that never yields anything. */
  const quiet = () => new MemorySource("a", [new Promise<never>(() => {})]);

  for (const [timeout, first] of [
    [30_000, 10_000],
    [60_000, 10_000],
    [9000, 3000],
    [3000, 1000],
  ] as const) {
    test(`a sender with a timeout of ${timeout / 1000} s sends PING after ${first / 1000} s of silence and stays connected`, async () => {
      const link = new Link({ sources: [quiet()], timeout, delay: 20 });
      await link.run(5 * timeout);
      expect(link.isOver).toBe(false);
      expect(of(link.said, type.PING)[0]?.at).toBe(first);
      expect(link.receiverError).toBeUndefined();
      link.check();
    });
  }

  test("both ends fail with `timeout` after 3 s of silence, and the sender names the timeout", async () => {
    const link = new Link({ sources: [quiet()], timeout: 3000 });
    await link.run(1500);
    link.isCut = true;
    await link.run(10_000);
    expect(link.senderError?.message).toContain("3 s");
    expect([link.senderError?.code, link.receiverError?.code]).toEqual(["timeout", "timeout"]);
  });
});

describe("incomplete messages", () => {
  /**
   * Sends part of a message. Its rest never arrives, so later bytes would be read as part of it.
   */
  function begin(part: (peer: Client) => Uint8Array): Client {
    const peer = new Client();
    peer.greet();
    peer.says(peer.source(1));
    peer.says(part(peer));
    return peer;
  }

  /** Returns the seconds until the peer times out if it sends `fill` once a second. */
  function secondsUntilTimeout(peer: Client, fill: () => Uint8Array): number {
    for (let second = 1; second <= 100; second++) {
      peer.now += 1000;
      try {
        peer.receiver.tick(peer.now);
      } catch (error) {
        expect(error).toMatchObject({ code: "timeout", message: expect.stringContaining("rest") });
        return second;
      }
      peer.says(fill());
    }
    return Infinity;
  }

  // A corrupted length: the receiver expects 60 KB of JSON but gets PINGs.
  const huge = (peer: Client) => {
    const bytes = peer.json(type.PING, 0, { time: "0" });
    bytes.writeUInt32BE(60_000, 4);
    return bytes;
  };

  test("a message that stays incomplete ends the connection with `timeout`, even while bytes keep coming", () => {
    const peer = begin(huge);
    const seconds = secondsUntilTimeout(peer, () => peer.json(type.PING, 0, { time: "0" }));
    expect(seconds).toBeGreaterThanOrEqual(30);
    expect(seconds).toBeLessThanOrEqual(32);
  });

  test("slow messages that are each complete in time do not end the connection", () => {
    const message = () => new Client().json(type.PING, 0, { time: "0" });
    const peer = begin(() => message().subarray(0, 20));
    let had = 20;
    for (let index = 0; index < 20; index++) {
      // Each chunk completes one message and begins the next. No single message takes 30 s.
      for (let second = 0; second < 16; second++) {
        peer.now += 1000;
        peer.receiver.tick(peer.now);
      }
      const next = index % 2 === 0 ? 5 : 20;
      expect(
        peer.says(Buffer.concat([message().subarray(had), message().subarray(0, next)])),
      ).toBeUndefined();
      had = next;
    }
  });

  test("the payload of a frame may take any time as long as bytes keep coming", () => {
    const payload = Buffer.alloc(50, 0x5a);
    const whole = new Client().frame(1, { payload });
    const peer = begin(() => whole.subarray(0, whole.length - payload.length));
    for (const byte of everyByte(payload)) {
      peer.now += 25_000;
      peer.receiver.tick(peer.now);
      expect(peer.says(byte)).toBeUndefined();
    }
    expect(peer.store.frames).toHaveLength(1);
  });

  test("a message that stays incomplete ends a sender with `timeout`", async () => {
    const link = new Link({ sources: [new MemorySource("a", [new Promise<never>(() => {})])] });
    await link.run(500);
    const { sender, clock } = link;
    const peer = new Client();
    sender.receive(huge(peer), clock.now);
    const start = clock.now;
    expect(() => {
      for (let second = 1; second <= 100; second++) {
        sender.receive(peer.json(type.PONG, 0, { time: "0", clock: "0" }), start + second * 1000);
        sender.tick(start + second * 1000);
      }
    }).toThrow(expect.objectContaining({ code: "timeout" }));
  });

  test("the timeout of an incomplete message runs from the tick that first saw it", () => {
    const liveness = new Keepalive(0, 10_000);
    liveness.onHandshakeDone();
    const look = (now: number, incomplete: number) => {
      liveness.onReceived(now);
      return liveness.tick(now, "frames", incomplete);
    };
    look(0, 3);
    look(9000, 3);
    // A different message.
    look(9500, 4);
    look(19_000, 4);
    // No incomplete message, then one with the same number.
    look(19_400, 0);
    look(20_000, 4);
    look(29_900, 4);
    expect(() => look(30_000, 4)).toThrow("10 s");
  });
});

describe("a slow store", () => {
  test("a slow store finishes what a cut connection began, and the next connection repeats nothing", async () => {
    for (let after = 200; after < 900; after += 20) {
      const clock = new Clock();
      let order = 0;
      const store = new MemoryStore({
        finish: () => clock.wait(10 + (order++ % 3) * 15).then(() => undefined),
        flush: () => clock.wait(7),
      });
      const outlets = outletsOf([new MemorySource("a", framesOf(8, 30), { resumes: true })]);
      const options = { clock, store, outlets, delay: 5, grants: grant({ frames: 3 }) };
      const first = await new Link({ ...options, cut: { way: "said", after } }).run();
      if (first.sender.done !== undefined) continue;
      // The server lets frames of the old connection finish before it sends WELCOME on the new one.
      await clock.run(100, () => false);
      const stored = store.frames.length;
      const second = await new Link(options).run();
      expect(second.sender.done).toMatchObject({ stored: 8 - stored, present: 0 });
      expect(store.frames).toHaveLength(8);
      expect(outlets[0]!.progress).toMatchObject({ settled: 8, bytes: 240, settledBytes: 240 });
      second.check();
    }
  });

  test("a frame that a slow store has not finished counts as present on the next connection", async () => {
    const clock = new Clock();
    const store = new MemoryStore({ finish: () => clock.wait(500).then(() => undefined) });
    const outlets = outletsOf([new MemorySource("a", framesOf(4, 30))]);
    const options = { clock, store, outlets, delay: 5, onHello: () => ({ fresh: false }) };
    const first = new Link(options);
    await first.run(100);
    first.break();
    const second = await new Link(options).run();
    expect(second.sender.done).toMatchObject({ frames: 4, present: 4 });
    expect(store.frames).toHaveLength(4);
    expect(outlets[0]!.progress).toMatchObject({ sent: 4, settled: 4, bytes: 120 });
  });

  test("a store that fails ends the connection, and the next one continues after the last receipt", async () => {
    const clock = new Clock();
    let isBroken = true;
    const store = new MemoryStore({
      finish: ({ sequence }) =>
        clock.wait(20).then(() => {
          if (isBroken && sequence === 3) throw new FramesError("store", "the disk is full");
          return undefined;
        }),
    });
    const outlets = outletsOf([new MemorySource("a", framesOf(6, 30))]);
    const options = { clock, store, outlets, delay: 5, grants: grant({ frames: 2 }) };
    const first = await new Link(options).run();
    expect(first.senderError?.code).toBe("store");
    expect(outlets[0]!.progress.settled).toBe(2);
    isBroken = false;
    await clock.run(100, () => false);
    const second = await new Link(options).run();
    expect(second.sender.done).toBeDefined();
    expect(store.frames.map(({ description }) => description.sequence).sort()).toEqual([
      1, 2, 3, 4, 5, 6,
    ]);
    expect(outlets[0]!.progress).toMatchObject({ sent: 6, settled: 6, bytes: 180 });
  });

  test("a large frame cut in the middle of its pieces is discarded, and the next connection stores it", async () => {
    const clock = new Clock();
    const store = new MemoryStore({ finish: () => clock.wait(30).then(() => undefined) });
    const frame = new MemoryFrame(1, 5 << 20, { wait: () => clock.wait(10) });
    const outlets = outletsOf([new MemorySource("a", [frame])]);
    const first = await new Link({
      ...{ clock, store, outlets, delay: 5 },
      cut: { way: "said", after: 3 << 20 },
    }).run();
    expect(first.senderError?.code).toBe("network");
    expect(store.writers).toBe(0);
    expect(outlets[0]!.progress).toMatchObject({ bytes: 0, largeFrameSent: 0, sent: 0 });
    const second = await new Link({ clock, store, outlets, delay: 5 }).run();
    expect(second.sender.done).toMatchObject({ stored: 1, aborted: 0 });
    expect(Buffer.from(frame.bytes).equals(store.frames[0]!.bytes)).toBe(true);
  });
});

describe("control messages over the limit", () => {
  const pings = (peer: Client, count: number) =>
    Buffer.concat(
      Array.from({ length: count }, (_, index) => {
        return peer.json(type.PING, 0, { time: String(index) });
      }),
    );

  test("a receiver answers control messages over 10,000 a second in order in the next seconds", () => {
    const peer = new Client();
    peer.greet();
    const answered = () => peer.heard().map((heard) => json(heard)["time"]);
    // HELLO used one message of the allowance.
    expect(peer.says(pings(peer, 25_000))).toBeUndefined();
    const first = answered();
    expect([first.length, peer.receiver.isPaused]).toEqual([9_999, true]);
    peer.receiver.tick(999);
    expect(answered()).toEqual([]);
    peer.receiver.tick(1000);
    const second = answered();
    expect([second.length, peer.receiver.isPaused]).toEqual([10_000, true]);
    peer.receiver.tick(2000);
    const third = answered();
    expect([third.length, peer.receiver.isPaused]).toEqual([5_001, false]);
    const expected = Array.from({ length: 25_000 }, (_, index) => String(index));
    expect([...first, ...second, ...third]).toEqual(expected);
  });

  test("control messages over the limit delay the frames behind them without a `timeout`", () => {
    const peer = new Client(grants, new MemoryStore(), {}, 1500);
    peer.greet();
    const end = peer.json(type.END, 0, { frames: 1 });
    peer.says(peer.source(1), pings(peer, 15_000), peer.frame(1), end);
    expect(peer.store.frames).toHaveLength(0);
    for (const now of [600, 1100, 1600]) peer.receiver.tick(now);
    peer.receiver.ack(1600);
    expect(peer.store.frames).toHaveLength(1);
    expect(peer.receiver.isDone).toBe(true);
  });
});

describe("work in turns", () => {
  /** A client whose costly work waits until the test runs it. */
  function inTurns(store = new MemoryStore()) {
    const waiting: (() => void)[] = [];
    const released: string[] = [];
    const acquiring = Promise.withResolvers<void>();
    let isOver = false;
    const peer = new Client(grants, store, {
      runSlice: (slice) => new Promise((resolve) => waiting.push(() => resolve(slice()))),
      isTurnOver: () => isOver,
      acquireSource: (_stream, source) => (source === "busy" ? acquiring.promise : undefined),
      releaseSource: (_stream, source) => void released.push(source),
    });
    peer.greet();
    return {
      peer,
      acquiring,
      released,
      end: (over: boolean) => void (isOver = over),
      /** Runs the next slice. Returns whether there was one. */
      async run(): Promise<boolean> {
        await Bun.sleep(0);
        const slice = waiting.shift();
        slice?.();
        await Bun.sleep(0);
        return slice !== undefined;
      },
    };
  }

  test("an OFFER of 1,000 names is compared in slices of 256, and the next message waits", async () => {
    const { peer, run } = inTurns();
    const frames = Array.from({ length: 1000 }, (_, index) => [`f${index}`, 1, "0", index + 1]);
    peer.says(peer.source(1), peer.json(type.OFFER, 1, { frames }), peer.frame(1));
    for (const compared of [256, 512, 768, 1000]) {
      expect(await run()).toBe(true);
      expect(peer.store.compared).toHaveLength(compared);
      expect(peer.store.begun).toEqual([]);
      expect(peer.receiver.isPaused).toBe(true);
    }
    expect(await run()).toBe(true);
    expect(peer.store.begun).toEqual(["f"]);
    expect([peer.receiver.isPaused, await run()]).toEqual([false, false]);
  });

  test("a LOST of 1,000 ranges is recorded in slices of 256", async () => {
    const { peer, run } = inTurns();
    const ranges = Array.from({ length: 1000 }, (_, index) => [2 * index + 1, 2 * index + 1]);
    peer.says(peer.source(1), peer.json(type.LOST, 1, { ranges, error: 48 }));
    for (const recorded of [256, 512, 768, 1000]) {
      expect(await run()).toBe(true);
      expect(peer.store.losses).toHaveLength(recorded);
    }
  });

  test("messages wait for a slice when the turn is over, and come in order", async () => {
    const { peer, run, end } = inTurns();
    peer.says(peer.source(1));
    end(true);
    const frames = [1, 2, 3].map((sequence) => peer.frame(1, { sequence, name: `${sequence}` }));
    peer.says(Buffer.concat(frames));
    expect(peer.store.begun).toEqual(["1"]);
    expect(await run()).toBe(true);
    expect(peer.store.begun).toEqual(["1", "2"]);
    end(false);
    expect(await run()).toBe(true);
    expect(peer.store.begun).toEqual(["1", "2", "3"]);
    expect([peer.receiver.isPaused, await run()]).toEqual([false, false]);
  });

  test("a sender is not paused when the turn is over and nothing more has come", async () => {
    const { peer, run, end } = inTurns();
    end(true);
    peer.says(peer.source(1));
    peer.says(peer.frame(1));
    expect(peer.store.begun).toEqual(["f"]);
    expect([peer.receiver.isPaused, await run()]).toEqual([false, false]);
  });

  test("a source that is acquired for a peer which is gone is released", async () => {
    const { peer, run, acquiring, released } = inTurns();
    peer.says(peer.source(1, "busy"), peer.frame(1));
    peer.receiver.close();
    acquiring.resolve();
    await run();
    expect(released).toEqual(["busy"]);
    expect(peer.store.begun).toEqual([]);
  });
});
