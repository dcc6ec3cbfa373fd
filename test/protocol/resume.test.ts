// Covers: protocol/send/outgoing-source.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import type { Frame, FrameSource, Loss } from "../../src/frame.ts";
import { maxPackedFrameBytes } from "../../src/wire/encode.ts";
import type { OutgoingSource } from "../../src/protocol/send/outgoing-source.ts";
import { Random } from "../wire/fuzz.ts";
import { type FrameMessage, type } from "../wire/vectors.ts";
import {
  Clock,
  type Cut,
  framesOf,
  Link,
  type LinkOptions,
  lossOf,
  MemoryFrame,
  MemorySource,
  MemoryStore,
  outletsOf,
} from "./memory.ts";
import { grant, json, of } from "./peers.ts";

const MiB = 1 << 20;

/** Timeout in milliseconds for a test that tries every cut while other tests run. */
const patience = 60_000;

/** A delivery over several connections. */
interface Delivery {
  links: Link[];
  last: Link;
  store: MemoryStore;
  outlets: readonly OutgoingSource[];
  /** Undelivered frames of all connections: source, number and reason. */
  undelivered: string[];
}

/**
 * Delivers over one connection for each cut and a last one, which must complete the delivery.
 * Checks every connection against the rules, and that no frame with a receipt was sent again.
 */
async function deliverOver(
  options: LinkOptions & { sources: readonly FrameSource[] },
  cuts: readonly Cut[],
  { isSmall = true, between = async (_link: Link) => {} } = {},
): Promise<Delivery> {
  const clock = options.clock ?? new Clock();
  const store = options.store ?? new MemoryStore();
  const outlets = outletsOf(options.sources);
  const links: Link[] = [];
  for (const cut of [...cuts, undefined]) {
    const link = await new Link({ ...options, clock, store, outlets, cut }).run();
    links.push(link);
    if (link.receiverError !== undefined) throw link.receiverError;
    if (link.sender.done !== undefined) break;
    if (link.senderError?.code !== "network") throw link.senderError ?? new Error("it got stuck");
    await between(link);
  }
  const last = links.at(-1)!;
  if (last.sender.done === undefined) throw new Error("it never came to an end");
  expect(store.writers).toBe(0);
  const undelivered = links.flatMap((link) =>
    link.undelivered.map(({ source, first, error }) => `${source} ${first} ${error.code}`),
  );
  if (isSmall) checkLinks(links);
  return { links, last, store, outlets, undelivered: undelivered.sort() };
}

function checkLinks(links: readonly Link[]): void {
  const receipted = new Set<string>();
  for (const link of links) {
    link.check();
    for (const { message } of of(link.said, type.FRAME)) {
      const key = `${message.source} ${(message as FrameMessage).sequence}`;
      if (receipted.has(key)) throw new Error(`${key} had a receipt and was sent again`);
    }
    for (const { source, sequence } of link.receipted) receipted.add(`${source} ${sequence}`);
  }
}

/** Compares the store with the frames sent, and progress with both. */
function audit(
  { links, store, outlets, undelivered }: Delivery,
  frames: Record<string, readonly MemoryFrame[]>,
  {
    refused = [] as string[],
    lost = [] as string[],
    lostFrames = {} as Record<string, number>,
  } = {},
): void {
  const sum = (of: readonly MemoryFrame[]) => of.reduce((total, { size }) => total + size, 0);
  const stored = Object.entries(frames).flatMap(([source, all]) =>
    all.map((frame) => ({ source, frame })),
  );
  expect(
    store.frames.map(({ origin, description }) => `${origin.source} ${description.name}`).sort(),
  ).toEqual(stored.map(({ source, frame }) => `${source} ${frame.name}`).sort());
  for (const { source, frame } of stored) {
    const found = store.frames.find(
      ({ origin, description }) => origin.source === source && description.name === frame.name,
    )!;
    if (!Buffer.from(frame.bytes).equals(found.bytes)) throw new Error(`${frame.name} is damaged`);
    expect(found.description.sequence).toBe(frame.sequence);
  }
  // `--move` must be notified of each stored frame exactly once, with its CRC-32.
  expect(
    links
      .flatMap(({ delivered }) => delivered.map(({ source, name }) => `${source} ${name}`))
      .sort(),
  ).toEqual(stored.map(({ source, frame }) => `${source} ${frame.name}`).sort());
  for (const { source, name, crc } of links.flatMap(({ delivered }) => delivered)) {
    const { frame } = stored.find((one) => one.source === source && one.frame.name === name)!;
    expect(crc).toBe(Bun.hash.crc32(frame.bytes));
  }
  expect(undelivered).toEqual([...refused, ...lost].sort());
  expect(
    store.losses.map(({ source, first, code }) => `${source} ${first} ${code}`).sort(),
  ).toEqual(
    // A conflict is not a loss, because a frame with that name is stored.
    [...refused.filter((report) => !report.endsWith("conflict")), ...lost].sort(),
  );
  for (const { progress } of outlets) {
    const { name } = progress;
    const own = frames[name] ?? [];
    const of = (reports: string[]) => reports.filter((report) => report.startsWith(`${name} `));
    const count = of(refused).length;
    expect(progress).toMatchObject({
      settled: own.length + count,
      refused: count,
      lost: lostFrames[name] ?? of(lost).length,
      bytes: sum(own),
      largeFrameSent: 0,
    });
    expect(progress.present + progress.removedAtServer + progress.conflictsSkipped).toBe(0);
    // Refused frames were sent, or skipped once their names were known to be taken.
    expect(progress.sent).toBeGreaterThanOrEqual(own.length);
    expect(progress.sent).toBeLessThanOrEqual(own.length + count);
  }
}

/** Returns every cut position in both directions of an uninterrupted delivery. */
async function everyCut(make: () => LinkOptions, step = 1): Promise<Cut[]> {
  const link = await new Link(make()).run();
  if (link.sender.done === undefined) throw link.senderError ?? new Error("it got stuck");
  const cuts: Cut[] = [];
  for (const way of ["said", "answered"] as const) {
    for (let after = 0; after < link.length[way]; after += step) cuts.push({ way, after });
  }
  return cuts;
}

/**
 * Returns a cut after which everything sent arrives but the server's replies after WELCOME are
 * lost.
 */
async function afterWelcome(options: LinkOptions): Promise<Cut> {
  const link = await new Link(options).run();
  return { way: "answered", after: link.ends("answered")[0]! + 1 };
}

/** Adds the cut positions to the error of a failing test. */
async function at(cuts: readonly Cut[], act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    const where = cuts.map(({ way, after }) => `${after} bytes ${way}`).join(", ");
    throw new Error(`cut after ${where}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

describe("resuming after a cut at any byte", () => {
  for (const resumes of [false, true]) {
    for (const isTold of [false, true]) {
      const kind = resumes ? "of folders" : "of cameras";
      const others = isTold ? ", into a stream with earlier frames" : "";
      test(
        `a delivery ${kind} resumes after a cut at any byte${others}`,
        async () => {
          const make = () => {
            const a = framesOf(5, 10);
            const b = [1, 2, 4, 5].map((sequence) => new MemoryFrame(sequence, sequence * 7));
            const store = new MemoryStore({
              refuse: ({ name }) => (name === "f2" ? new FramesError("bad-name") : undefined),
            });
            const options = {
              sources: [
                new MemorySource("a", [...a, lossOf(6, 8)], { resumes }),
                new MemorySource("b/c", [...b.slice(0, 2), lossOf(3), ...b.slice(2)], { resumes }),
              ],
              store,
              delay: 5,
              grants: grant({ frames: 3 }),
            };
            if (isTold) {
              // Another session stored a frame with a different name, and f5 with other content.
              for (const [name, sequence] of [
                ["other", 1],
                ["f5", 9],
              ] as const) {
                const writer = store
                  .open({ stream: "s", source: "b/c", session: "f".repeat(32) })
                  .begin({ name, sequence, captured: 0n, size: 1, metadata: "" });
                writer.write(Buffer.from("x"));
                void writer.finish(Bun.hash.crc32("x"));
              }
            }
            return { options, a, b };
          };
          for (const cut of await everyCut(() => make().options)) {
            await at([cut], async () => {
              const { options, a, b } = make();
              const delivery = await deliverOver(options, [cut]);
              const others = delivery.store.frames.splice(0, isTold ? 2 : 0);
              expect(others).toHaveLength(isTold ? 2 : 0);
              const without = (frames: MemoryFrame[], ...names: string[]) =>
                frames.filter(({ name }) => !names.includes(name));
              audit(
                delivery,
                { a: without(a, "f2"), "b/c": without(b, "f2", ...(isTold ? ["f5"] : [])) },
                {
                  refused: [
                    "a 2 bad-name",
                    "b/c 2 bad-name",
                    ...(isTold ? ["b/c 5 conflict"] : []),
                  ],
                  lost: ["a 6 dropped", "b/c 3 dropped"],
                  lostFrames: { a: 3, "b/c": 1 },
                },
              );
              // No frame that was already stored was sent again.
              for (const link of delivery.links) expect(link.receiver.counts.present).toBe(0);
            });
          }
        },
        patience,
      );
    }
  }
});

test(
  "a delivery over several cut connections loses no frame and repeats none",
  async () => {
    for (let seed = 0; seed < 250; seed++) {
      const random = new Random(seed);
      const clock = new Clock();
      const wait = () => clock.wait(random.below(40));
      const a = framesOf(12, 20);
      const b = framesOf(9, 50);
      function* camera(): Generator<Promise<Frame | Loss>> {
        for (const frame of b) yield wait().then(() => frame);
        yield wait().then(() => lossOf(10));
      }
      const isAsync = random.below(2) === 0;
      const store = new MemoryStore({
        refuse: ({ name }) => (name === "f7" ? new FramesError("not-stored") : undefined),
        flush: () => (isAsync ? wait() : undefined),
      });
      const cuts = Array.from({ length: 1 + random.below(6) }, (): Cut => {
        const way = random.pick(["said", "answered"] as const);
        return { way, after: random.below(way === "said" ? 1500 : 400) };
      });
      const options = {
        sources: [
          new MemorySource("a", a, { resumes: random.below(2) === 0 }),
          new MemorySource("b", camera(), { resumes: random.below(2) === 0 }),
        ],
        store,
        clock,
        delay: random.below(20),
        checksum: random.below(2) === 0,
        grants: grant({ frames: 1 + random.below(8) }),
      };
      await at(cuts, async () => {
        const pause = () => clock.run(random.below(200), () => false);
        const delivery = await deliverOver(options, cuts, { between: pause });
        const without = (frames: MemoryFrame[]) => frames.filter(({ name }) => name !== "f7");
        audit(
          delivery,
          { a: without(a), b: without(b) },
          { refused: ["a 7 not-stored", "b 7 not-stored"], lost: ["b 10 dropped"] },
        );
      });
    }
  },
  patience,
);

describe("large frames on a cut connection", () => {
  /** Large frames, one of which fails midway once and is aborted, and a small one. */
  function make() {
    const size = maxPackedFrameBytes + 500_000;
    const a = [new MemoryFrame(1, size, { failures: 1, failAfter: MiB }), new MemoryFrame(2, 10)];
    const b = [new MemoryFrame(1, 100), new MemoryFrame(2, size + 7, { piece: 700_001 })];
    const options = {
      sources: [new MemorySource("a", a, { resumes: true }), new MemorySource("b", b)],
      delay: 5,
    };
    return { options, a, b };
  }

  test(
    "a large frame that is cut anywhere is sent again from its beginning, and its first pieces are discarded",
    async () => {
      const link = await new Link(make().options).run();
      const { said } = link.length;
      const random = new Random(7);
      const cuts = new Set<number>();
      for (const end of link.ends("said"))
        for (const near of [-1, 0, 1, 11, 12, 13, 60]) cuts.add(end + near);
      for (let index = 0; index < 40; index++) cuts.add(random.below(said));
      for (const after of cuts) {
        if (after < 0 || after >= said) continue;
        await at([{ way: "said", after }], async () => {
          const { options, a, b } = make();
          const delivery = await deliverOver(options, [{ way: "said", after }], { isSmall: false });
          audit(delivery, { a, b });
          for (const { receiver } of delivery.links) expect(receiver.counts.present).toBe(0);
        });
      }
    },
    patience,
  );

  test(
    "a large frame that was stored is not sent again when the connection breaks before its answers",
    async () => {
      const { answered } = (await new Link(make().options).run()).length;
      for (let after = 0; after < answered; after += 3) {
        await at([{ way: "answered", after }], async () => {
          const { options, a, b } = make();
          const delivery = await deliverOver(options, [{ way: "answered", after }], {
            isSmall: false,
          });
          audit(delivery, { a, b });
          for (const { receiver } of delivery.links) expect(receiver.counts.present).toBe(0);
        });
      }
    },
    patience,
  );
});

describe("sources that wait for their next frame", () => {
  /** A source with one frame at once and one item when the test resolves it. */
  function waiting(resumes: boolean) {
    const late = Promise.withResolvers<Frame | Loss | undefined>();
    const items = [new MemoryFrame(1, 10), late.promise];
    return { late, source: new MemorySource("a", items, { resumes }) };
  }

  for (const resumes of [false, true]) {
    for (const comes of ["between two connections", "after the reconnection"] as const) {
      for (const [what, item] of [
        ["a frame", () => new MemoryFrame(2, 20)],
        ["a loss", () => lossOf(2)],
        ["the end of a source", () => undefined],
      ] as const) {
        test(`a sender handles ${what} that comes ${comes} exactly once (${resumes ? "folder" : "camera"})`, async () => {
          const { late, source } = waiting(resumes);
          const clock = new Clock();
          const store = new MemoryStore();
          const outlets = outletsOf([source]);
          const options = { clock, store, outlets, delay: 5 };
          const first = new Link(options);
          await first.run(1000);
          expect(store.frames).toHaveLength(1);
          first.break();
          if (comes === "between two connections") {
            late.resolve(item());
            await new Promise(setImmediate);
          }
          const second = new Link(options);
          if (comes === "after the reconnection") {
            await second.run(1000);
            expect(second.isOver).toBe(false);
            late.resolve(item());
          }
          await second.run();
          expect(second.sender.done).toBeDefined();
          second.check();
          const given = item();
          const isFrame = given !== undefined && !("error" in given);
          const isLoss = given !== undefined && !isFrame;
          expect(store.frames.map(({ description }) => description.sequence)).toEqual(
            isFrame ? [1, 2] : [1],
          );
          expect(of(second.said, type.FRAME)).toHaveLength(Number(isFrame));
          expect(store.losses).toHaveLength(Number(isLoss));
          expect([...first.undelivered, ...second.undelivered]).toHaveLength(Number(isLoss));
          expect(outlets[0]?.progress).toMatchObject({
            sent: isFrame ? 2 : 1,
            settled: isFrame ? 2 : 1,
            lost: Number(isLoss),
            present: 0,
          });
        });
      }
    }

    test(`a frame over limits.frame that comes between two connections is lost (${resumes ? "folder" : "camera"})`, async () => {
      const { late, source } = waiting(resumes);
      const outlets = outletsOf([source]);
      const options = { clock: new Clock(), store: new MemoryStore(), outlets };
      const limited = { ...options, grants: grant({}, { frame: 1000 }) };
      const first = new Link(limited);
      await first.run(1000);
      first.break();
      late.resolve(new MemoryFrame(2, 1001));
      await new Promise(setImmediate);
      const second = await new Link(limited).run();
      expect(second.sender.done).toBeDefined();
      second.check();
      expect(second.undelivered.map(({ first, error }) => [first, error.code])).toEqual([
        [2, "too-large"],
      ]);
    });

    test(`an error that a source throws between two connections ends the next one (${resumes ? "folder" : "camera"})`, async () => {
      const { late, source } = waiting(resumes);
      const outlets = outletsOf([source]);
      const options = { clock: new Clock(), store: new MemoryStore(), outlets };
      const first = new Link(options);
      await first.run(1000);
      first.break();
      const broken = new Error("the camera is on fire");
      late.reject(broken);
      await new Promise(setImmediate);
      await expect(new Link(options).run()).rejects.toBe(broken);
    });
  }
});

describe("stored frames after a reconnection", () => {
  test("a sender offers a stored live frame after a reconnection with the CRC-32 of what it sent", async () => {
    const frames = framesOf(3, 10);
    const make = () => ({ sources: [new MemorySource("a", frames)], delay: 5 });
    const { links, store, outlets } = await deliverOver(make(), [await afterWelcome(make())]);
    expect(links).toHaveLength(2);
    const offers = of(links[1]!.said, type.OFFER);
    expect(offers.map(json)).toEqual([
      {
        frames: frames.map(({ name, size, captured, sequence, bytes }) => {
          return [name, size, String(captured), sequence, Bun.hash.crc32(bytes)];
        }),
      },
    ]);
    expect(of(links[1]!.said, type.FRAME)).toEqual([]);
    expect(links[1]!.delivered).toHaveLength(3);
    expect(store.frames).toHaveLength(3);
    // They count as sent although a later connection received the confirmation.
    expect(outlets[0]!.progress).toMatchObject({
      sent: 3,
      settled: 3,
      present: 0,
      settledBytes: 30,
    });
  });

  test("a stored frame that was moved away before its receipt is not sent again", async () => {
    for (const again of [false, true]) {
      const make = () => ({
        sources: [new MemorySource("a", framesOf(3, 10))],
        delay: 5,
        hello: { again },
      });
      const { links, outlets } = await deliverOver(make(), [await afterWelcome(make())], {
        between: async (link) => link.store.moveAway("a", "f2"),
      });
      expect(of(links[1]!.said, type.FRAME)).toEqual([]);
      expect(outlets[0]!.progress).toMatchObject({
        sent: 3,
        settled: 3,
        removedAtServer: 0,
        present: 0,
      });
    }
  });

  test("a server without offers counts stored frames as present, and settled ones are not sent again", async () => {
    const clock = new Clock();
    const store = new MemoryStore();
    const outlets = outletsOf([new MemorySource("a", framesOf(5, 10))]);
    const options = { clock, store, outlets, delay: 5, grants: grant({ frames: 2 }) };
    const welcome = () => ({ fresh: false, features: [] });
    const first = new Link({ ...options, onHello: welcome });
    await first.run(21);
    const { settled } = outlets[0]!.progress;
    expect(settled).toBe(2);
    await first.run(6);
    first.break();
    const stored = store.frames.length;
    expect(stored).toBeGreaterThan(settled);
    const second = await new Link({ ...options, onHello: welcome }).run();
    expect(of(second.said, type.OFFER)).toEqual([]);
    expect(second.sender.done).toMatchObject({ frames: 3, present: stored - settled });
    expect(store.frames).toHaveLength(5);
    expect(outlets[0]!.progress).toMatchObject({ sent: 5, settled: 5, bytes: 50 });
    checkLinks([first, second]);
  });
});

describe("pictures of encoded video after a reconnection", () => {
  test("a camera's pictures are sent again before new ones, in their order, after a cut at any byte", async () => {
    const make = () => {
      const frames = [1, 2, 3, 4, 5, 6, 7, 8].map(
        (sequence) => new MemoryFrame(sequence, 10, { isKey: sequence % 4 === 1 }),
      );
      return { sources: [new MemorySource("a", frames)], delay: 5, grants: grant({ frames: 4 }) };
    };
    let repeated = 0;
    for (const cut of await everyCut(make)) {
      await at([cut], async () => {
        const { links, store } = await deliverOver(make(), [cut]);
        const numbers = store.frames.map(({ description }) => description.sequence);
        expect(numbers).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
        repeated += links.at(-1)!.receiver.counts.present;
      });
    }
    expect(repeated).toBeGreaterThan(0);
  });
});

describe("frames with metadata after a reconnection", () => {
  for (const resumes of [false, true]) {
    test(`a frame with metadata but no receipt is sent again instead of offered (${resumes ? "folder" : "camera"})`, async () => {
      const make = () => {
        const frames = [1, 2, 3, 4].map(
          (sequence) =>
            new MemoryFrame(sequence, 10, sequence % 2 === 0 ? { metadata: '{"gain":2}' } : {}),
        );
        return { sources: [new MemorySource("a", frames, { resumes })], delay: 5 };
      };
      for (const cut of await everyCut(make, 7)) {
        await at([cut], async () => {
          const { links, store, outlets } = await deliverOver(make(), [cut]);
          const second = links[1];
          if (second === undefined) return;
          const offered = of(second.said, type.OFFER).flatMap((one) =>
            (json(one)["frames"] as unknown[][]).map(([name]) => name),
          );
          const again = of(second.said, type.FRAME).map(({ message }) => message as FrameMessage);
          const settled = links[0]!.receipted.map(({ sequence }) => sequence);
          for (const sequence of [2, 4].filter((one) => !settled.includes(one))) {
            // A frame not begun before may be offered first.
            const begun = of(links[0]!.said, type.FRAME).some(
              ({ message }) => (message as FrameMessage).sequence === sequence,
            );
            if (begun) expect(offered).not.toContain(`f${sequence}`);
            expect(again.map((one) => one.sequence)).toContain(sequence);
          }
          expect(
            store.frames
              .map(({ description: { sequence, metadata } }) => [sequence, metadata])
              .sort(),
          ).toEqual([
            [1, ""],
            [2, '{"gain":2}'],
            [3, ""],
            [4, '{"gain":2}'],
          ]);
          expect(outlets[0]!.progress).toMatchObject({ settled: 4, lost: 0, refused: 0 });
        });
      }
    });
  }
});

test("a sender repeats an offer when the connection breaks while it reads the frame's CRC-32", async () => {
  const size = maxPackedFrameBytes + 1;
  const clock = new Clock();
  const { store } = await new Link({
    clock,
    sources: [new MemorySource("a", [new MemoryFrame(1, size)], { resumes: true })],
  }).run();
  const gate = Promise.withResolvers<void>();
  const waits = [gate.promise];
  const touched = new MemoryFrame(1, size, {
    captured: 9_000_000n,
    piece: size,
    wait: () => waits.shift() ?? Promise.resolve(),
  });
  const outlets = outletsOf([new MemorySource("a", [touched], { resumes: true })]);
  const options = { clock, store, outlets, delay: 5, hello: { session: "f".repeat(32) } };
  const first = new Link(options);
  await first.run(1000);
  expect(waits).toEqual([]);
  first.break();
  const second = new Link(options);
  // The first read ends only when the new OFFER, which lacks its result, is in transit.
  second.onStep = () => {
    if (of(second.said, type.OFFER).length === 1) gate.resolve();
  };
  await second.run();
  expect(second.senderError).toBeUndefined();
  expect(
    of(second.said, type.OFFER).map((one) => (json(one)["frames"] as unknown[][])[0]!.slice(4)),
  ).toEqual([[], [Bun.hash.crc32(touched.bytes)]]);
  expect(of(second.answered, type.ANSWER).map((one) => json(one)["answers"])).toEqual(["c", "s"]);
  expect(outlets[0]!.progress).toMatchObject({ settled: 1, present: 1, sent: 0 });
});

describe("LOST after a reconnection", () => {
  const rangesOf = ({ said }: Link) => of(said, type.LOST).flatMap((one) => json(one)["ranges"]);

  test("a sender repeats losses after a reconnection in the ranges that it sent before", async () => {
    const store = new MemoryStore();
    const more = Promise.withResolvers<Loss | undefined>();
    const items = [lossOf(1), lossOf(2), lossOf(3, 9), more.promise];
    const outlets = outletsOf([new MemorySource("a", items)]);
    const first = new Link({ store, outlets, delay: 5 });
    await first.run(1000);
    expect(rangesOf(first)).toEqual([[1, 9]]);
    first.break();
    more.resolve(lossOf(10, 12));
    await new Promise(setImmediate);
    const second = await new Link({ store, outlets, delay: 5 }).run();
    expect(second.sender.done).toBeDefined();
    expect(rangesOf(second)).toEqual([
      [1, 9],
      [10, 12],
    ]);
    // The store would count a different range as another loss.
    expect(store.losses.map(({ first: from, last }) => [from, last])).toEqual([
      [1, 9],
      [10, 12],
    ]);
    expect(outlets[0]!.progress.lost).toBe(12);
  });

  test("a sender repeats losses after each reconnection until a later frame has its receipt", async () => {
    const clock = new Clock();
    const store = new MemoryStore();
    const more = Promise.withResolvers<Frame | undefined>();
    const items = [
      new MemoryFrame(1, 10),
      lossOf(2),
      new MemoryFrame(3, 10),
      lossOf(4, 5),
      more.promise,
    ];
    const outlets = outletsOf([new MemorySource("a", items)]);
    const first = new Link({ clock, store, outlets, delay: 5 });
    await first.run(1000);
    first.break();
    const second = new Link({ clock, store, outlets, delay: 5 });
    await second.run(1000);
    second.break();
    more.resolve(new MemoryFrame(6, 10));
    const third = new Link({ clock, store, outlets, delay: 5 });
    await third.run();
    expect(third.sender.done).toBeDefined();
    const told = [first, second, third].map(({ said }) =>
      of(said, type.LOST).map((one) => json(one)["ranges"]),
    );
    // Messages sent after the receipt for frame 3 arrived cannot have been lost before it.
    expect(told).toEqual([[[[2, 2]], [[4, 5]]], [[[4, 5]]], [[[4, 5]]]]);
    expect(store.losses.map(({ first }) => first)).toEqual([2, 4]);
    expect(outlets[0]?.progress.lost).toBe(3);
    expect([first, second, third].map(({ undelivered }) => undelivered.length)).toEqual([2, 0, 0]);
  });
});

describe("WELCOME with fresh", () => {
  const code = async (outlets: readonly OutgoingSource[], store = new MemoryStore()) =>
    (await new Link({ outlets, store, onHello: () => ({ fresh: true }) }).run()).senderError?.code;

  test("a sender with settled frames sends nothing to a server that says `fresh`", async () => {
    const outlets = outletsOf([new MemorySource("a", framesOf(9, 10))]);
    const first = new Link({ outlets, delay: 5, grants: grant({ frames: 2 }) });
    await first.run(25);
    first.break();
    expect(outlets[0]!.progress.settled).toBeGreaterThan(0);
    const other = new MemoryStore();
    expect(await code(outlets, other)).toBe("other-store");
    expect(other.begun).toEqual([]);
    // Repeating it gives the same error. The right store completes the delivery.
    expect(await code(outlets, other)).toBe("other-store");
    const last = await new Link({ outlets, store: first.store }).run();
    expect(last.sender.done).toBeDefined();
    expect(first.store.frames).toHaveLength(9);
    expect(outlets[0]!.progress).toMatchObject({ sent: 9, settled: 9, bytes: 90 });
  });

  test("a sender without settled frames sends its frames without OFFER to a server that says `fresh`", async () => {
    const outlets = outletsOf([new MemorySource("a", framesOf(3, 10), { resumes: true })]);
    const first = await new Link({ outlets, delay: 5, cut: { way: "said", after: 300 } }).run();
    expect(first.senderError?.code).toBe("network");
    const store = new MemoryStore();
    const second = await new Link({ outlets, store }).run();
    expect(second.sender.done).toMatchObject({ stored: 3 });
    expect(of(second.said, type.OFFER)).toEqual([]);
    expect(outlets[0]!.progress).toMatchObject({ sent: 3, settled: 3, bytes: 30, present: 0 });
  });

  test("a sender whose frames were all refused accepts a server that says `fresh`", async () => {
    const store = new MemoryStore({ refuse: () => new FramesError("bad-name") });
    const late = new Promise<never>(() => {});
    const outlets = outletsOf([new MemorySource("a", [...framesOf(2, 10), late])]);
    const first = new Link({ outlets, store });
    await first.run(1000);
    expect(outlets[0]!.progress).toMatchObject({ settled: 2, refused: 2 });
    first.break();
    const second = new Link({ outlets, store });
    await second.run(1000);
    expect(second.senderError).toBeUndefined();
  });
});

describe("damaged frames", () => {
  /** Flips a bit in the payload of frame `f2` (10 bytes of 5a), or in its name if `inName`. */
  function flip(inName: boolean) {
    const name = Buffer.from("victim");
    return (bytes: Uint8Array) => {
      const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(name);
      if (at >= 0) bytes[at + (inName ? 0 : name.length)]! ^= 4;
    };
  }

  for (const where of ["in its payload", "in its name"]) {
    for (const resumes of [false, true]) {
      test(`a frame damaged three times ${where} is reported once as garbled, and the others arrive (${resumes ? "folder" : "camera"})`, async () => {
        const clock = new Clock();
        const store = new MemoryStore();
        const frames = framesOf(6, 10);
        frames[2] = new MemoryFrame(3, 10, { name: "victim" });
        const outlets = outletsOf([
          new MemorySource("a", framesOf(2, 10)),
          new MemorySource("b", frames, { resumes }),
        ]);
        const links: Link[] = [];
        // OFFERs also contain the name; these are not modified.
        const flipped = flip(where !== "in its payload");
        const tamper = (bytes: Uint8Array) => {
          for (const [from, to] of bordersOf(bytes)) {
            if (bytes[from] === type.FRAME) flipped(bytes.subarray(from, to));
          }
        };
        for (let index = 0; index < 10 && links.at(-1)?.sender.done === undefined; index++) {
          links.push(await new Link({ clock, store, outlets, delay: 5, tamper }).run());
        }
        expect(links.map(({ senderError }) => senderError?.code)).toEqual([
          "damaged",
          "damaged",
          "damaged",
          undefined,
        ]);
        const errors = links.flatMap(({ answered }) => of(answered, type.ERROR)).map(json);
        const named = where === "in its payload" ? { source: 2, sequence: 3 } : {};
        for (const error of errors) {
          expect(error).toEqual({ error: 4, message: expect.any(String), ...named });
        }
        const reports = links.flatMap(({ undelivered }) => undelivered);
        expect(
          reports.map(({ source, first, what, error }) => [source, first, what, error.code]),
        ).toEqual([["b", 3, "victim", "garbled"]]);
        expect(store.losses).toEqual([{ source: "b", first: 3, last: 3, code: "garbled" }]);
        expect(store.frames).toHaveLength(7);
        expect(outlets[1]!.progress).toMatchObject({ sent: 5, settled: 5, lost: 1, bytes: 50 });
        checkLinks(links);
      });
    }
  }

  test("a frame that is damaged twice and then whole is stored and not reported", async () => {
    const clock = new Clock();
    const store = new MemoryStore();
    const outlets = outletsOf([
      new MemorySource("a", [new MemoryFrame(1, 10, { name: "victim" }), new MemoryFrame(2, 10)]),
    ]);
    for (const isLast of [false, false, true]) {
      const tamper = isLast ? {} : { tamper: flip(false) };
      const link = await new Link({ clock, store, outlets, delay: 5, ...tamper }).run();
      expect(link.senderError?.code).toBe(isLast ? undefined : "damaged");
      expect(link.undelivered).toEqual([]);
    }
    expect(store.frames).toHaveLength(2);
  });

  test("a large frame damaged three times is reported by its number, whatever else is unsettled", async () => {
    const clock = new Clock();
    const store = new MemoryStore();
    const outlets = outletsOf([
      new MemorySource("a", [new MemoryFrame(1, 3 * MiB)]),
      new MemorySource("b", framesOf(3, 10)),
    ]);
    const links: Link[] = [];
    const tamper = (bytes: Uint8Array) => {
      for (const [from] of bordersOf(bytes))
        if (bytes[from] === type.DATA) bytes[from + 5000]! ^= 1;
    };
    while (links.length < 6 && links.at(-1)?.sender.done === undefined) {
      links.push(await new Link({ clock, store, outlets, delay: 5, tamper }).run());
    }
    expect(links).toHaveLength(4);
    const reports = links.flatMap(({ undelivered }) => undelivered);
    expect(reports.map(({ source, first, error }) => [source, first, error.code])).toEqual([
      ["a", 1, "garbled"],
    ]);
    expect(store.frames.map(({ origin }) => origin.source)).toEqual(["b", "b", "b"]);
    expect(outlets[0]!.progress).toMatchObject({
      sent: 0,
      settled: 0,
      lost: 1,
      bytes: 0,
      largeFrameSent: 0,
    });
    expect(store.writers).toBe(0);
  });
});

/** Returns the bounds of each message in a transmission, without a preface. */
function bordersOf(bytes: Uint8Array): [from: number, to: number][] {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const borders: [number, number][] = [];
  let at = view.subarray(0, 8).toString("latin1") === "FRAMES/1" ? 8 : 0;
  while (at + 12 <= view.length) {
    const end = at + 12 + view.readUInt32BE(at + 4);
    borders.push([at, end]);
    at = end;
  }
  return borders;
}
