// Sources that release frames at a pace, with a fake clock.

import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, FrameSource, Loss } from "../../../src/frame.ts";
import {
  type Pacer,
  PacedSource,
  RatePacer,
  ReplayPacer,
} from "../../../src/source/live/paced-source.ts";

let now = 0;

/** Sources opened by the current test, closed at its end. */
const opened: FrameSource[] = [];

function paced(source: FrameSource, pace: Pacer): PacedSource {
  const made = new PacedSource(source, pace, () => now);
  opened.push(made);
  return made;
}

beforeEach(() => {
  now = 1_000_000;
  jest.useFakeTimers();
});

afterEach(async () => {
  for (const source of opened.splice(0)) source.close();
  await settle();
  // No timers are left.
  expect(jest.getTimerCount()).toBe(0);
  jest.useRealTimers();
});

/** Lets all pending promises settle. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

/** Advances the clock in steps of `atOnce` milliseconds. */
async function pass(milliseconds: number, atOnce = 1): Promise<void> {
  for (let gone = 0; gone < milliseconds; gone += atOnce) {
    const step = Math.min(atOnce, milliseconds - gone);
    now += step;
    jest.advanceTimersByTime(step);
    await settle();
  }
}

/** Returns a frame captured `after` milliseconds after the first. */
function frame(sequence: number, after = 0): Frame {
  return {
    ...{ name: `${sequence}.png`, sequence, size: 1, metadata: "" },
    captured: 1_795_331_523_000_000_000n + BigInt(Math.round(after * 1e6)),
    read: () => {},
    pieces: () => {
      throw new Error("nobody reads it");
    },
  };
}

function loss(first: number, last: number): Loss {
  return { first, last, what: "x", error: new FramesError("vanished") };
}

/**
 * A source of given frames that records when each was requested, in milliseconds since the start.
 */
class Given implements FrameSource {
  readonly name = "visible";
  readonly total = 17;
  readonly capturedCount = 5;
  readonly asked: number[] = [];
  readonly calls: string[] = [];
  readonly #items: (Frame | Loss | Promise<Frame>)[];
  readonly #began = now;

  constructor(items: readonly (Frame | Loss | Promise<Frame>)[]) {
    this.#items = [...items];
  }

  next(offered: boolean) {
    expect(offered).toBe(false);
    this.asked.push(now - this.#began);
    return this.#items.shift();
  }

  retry({ sequence }: Frame, error: FramesError): Loss {
    this.calls.push(`again ${sequence} ${error.code}`);
    return loss(sequence, sequence);
  }

  stopCapture(): void {
    this.calls.push("stop");
  }

  close(): void {
    this.calls.push("close");
  }
}

/** Takes all frames of a source and records their numbers and times. */
function take(source: FrameSource): { readonly came: [number, number][]; isOver: boolean } {
  const began = now;
  const taken = { came: [] as [number, number][], isOver: false };
  const go = async () => {
    for (;;) {
      const item = await source.next(false);
      if (item === undefined) break;
      taken.came.push(["error" in item ? item.first : item.sequence, now - began]);
    }
    taken.isOver = true;
  };
  void go();
  return taken;
}

function frames(count: number): Frame[] {
  return Array.from({ length: count }, (_, index) => frame(index + 1));
}

describe("RatePacer", () => {
  test("a rate releases the first frame at once, and the others at even intervals", async () => {
    const given = new Given(frames(5));
    const taken = take(paced(given, new RatePacer(4)));
    await settle();
    expect(taken.came).toEqual([[1, 0]]);
    await pass(249);
    expect(taken.came).toHaveLength(1);
    await pass(1);
    expect(taken.came).toEqual([
      [1, 0],
      [2, 250],
    ]);
    await pass(1000);
    expect(taken.came.map(([, at]) => at)).toEqual([0, 250, 500, 750, 1000]);
    expect(taken.isOver).toBe(true);
  });

  test("a rate requests a frame only when it can be released, so live frames are fresh", async () => {
    const given = new Given(frames(4));
    take(paced(given, new RatePacer(10)));
    await settle();
    expect(given.asked).toEqual([0]);
    await pass(99);
    expect(given.asked).toEqual([0]);
    await pass(301);
    expect(given.asked).toEqual([0, 100, 200, 300, 400]);
  });

  for (const rate of [1, 7, 24, 29.97, 60]) {
    test(`a rate of ${rate} releases that many frames a second over ten seconds`, async () => {
      const taken = take(paced(new Given(frames(1000)), new RatePacer(rate)));
      await settle();
      await pass(10_000);
      expect(Math.abs(taken.came.length - 1 - rate * 10)).toBeLessThanOrEqual(1.5);
      // No period of one second contains more frames.
      for (const [, at] of taken.came) {
        const within = taken.came.filter(([, other]) => other >= at && other < at + 1000);
        expect(within.length).toBeLessThanOrEqual(Math.ceil(rate) + 1);
      }
    });
  }

  test("a rate makes up for timers that are a little late", async () => {
    const taken = take(paced(new Given(frames(100)), new RatePacer(100)));
    await settle();
    // Each timer is noticed up to 7 ms late.
    await pass(700, 7);
    expect(taken.came.length).toBeGreaterThanOrEqual(69);
    expect(taken.came.length).toBeLessThanOrEqual(71);
  });

  test("a rate does not speed up after a delay", async () => {
    const rate = new RatePacer(10);
    const first = frame(1);
    expect(rate.releaseAt(first, 1000)).toBe(1000);
    expect(rate.requestAt()).toBe(1100);
    // After a pause of ten seconds the missed frames are not caught up.
    expect(rate.releaseAt(first, 11_000)).toBe(11_000);
    expect(rate.requestAt()).toBe(11_100);
    // A short delay is caught up.
    expect(rate.releaseAt(first, 11_160)).toBe(11_160);
    expect(rate.requestAt()).toBe(11_200);
  });

  test("a rate does not speed up after a source had no frames for a while", async () => {
    const late = Promise.withResolvers<Frame>();
    const given = new Given([frame(1), late.promise, frame(3), frame(4)]);
    const taken = take(paced(given, new RatePacer(10)));
    await settle();
    await pass(5000, 50);
    expect(taken.came).toEqual([[1, 0]]);
    late.resolve(frame(2));
    await settle();
    await pass(300);
    expect(taken.came).toEqual([
      [1, 0],
      [2, 5000],
      [3, 5100],
      [4, 5200],
    ]);
  });

  test("a rate passes losses on with the next frame, and does not count them", async () => {
    const items = [frame(1), loss(2, 4), loss(5, 5), frame(6)];
    const taken = take(paced(new Given(items), new RatePacer(2)));
    await settle();
    await pass(1000);
    expect(taken.came).toEqual([
      [1, 0],
      [2, 500],
      [5, 500],
      [6, 500],
    ]);
  });
});

describe("ReplayPacer", () => {
  test("a replay releases frames at the intervals of their capture", async () => {
    const items = [frame(1, 0), frame(2, 100), frame(3, 130), frame(4, 1130)];
    const taken = take(paced(new Given(items), new ReplayPacer()));
    await settle();
    await pass(2000);
    expect(taken.came).toEqual([
      [1, 0],
      [2, 100],
      [3, 130],
      [4, 1130],
    ]);
    expect(taken.isOver).toBe(true);
  });

  test("a replay releases a frame at once if it was captured before an earlier one", async () => {
    const items = [frame(1, 0), frame(2, 500), frame(3, 200), frame(4, -100), frame(5, 600)];
    const taken = take(paced(new Given(items), new ReplayPacer()));
    await settle();
    await pass(1000);
    expect(taken.came).toEqual([
      [1, 0],
      [2, 500],
      [3, 500],
      [4, 500],
      [5, 600],
    ]);
  });

  test("a replay catches up after a delay, because the times of a recording are fixed", async () => {
    const late = Promise.withResolvers<Frame>();
    const given = new Given([frame(1, 0), late.promise, frame(3, 200), frame(4, 900)]);
    const taken = take(paced(given, new ReplayPacer()));
    await settle();
    await pass(500);
    late.resolve(frame(2, 100));
    await settle();
    expect(taken.came).toEqual([
      [1, 0],
      [2, 500],
      [3, 500],
    ]);
    await pass(400);
    expect(taken.came.at(-1)).toEqual([4, 900]);
  });

  test("a replay keeps the times between all sources of a recording", async () => {
    const replay = new ReplayPacer();
    const one = take(paced(new Given([frame(1, 0), frame(2, 300)]), replay));
    await settle();
    const two = take(paced(new Given([frame(1, 100), frame(2, 200)]), replay));
    await settle();
    await pass(400);
    expect(one.came).toEqual([
      [1, 0],
      [2, 300],
    ]);
    expect(two.came).toEqual([
      [1, 100],
      [2, 200],
    ]);
  });

  test("a replay can wait longer than the longest timer", async () => {
    const days = 40 * 86_400_000;
    const taken = take(paced(new Given([frame(1), frame(2, days)]), new ReplayPacer()));
    await settle();
    await pass(days - 1000, 86_400_000);
    expect(taken.came).toHaveLength(1);
    await pass(1000, 1000);
    expect(taken.came).toEqual([
      [1, 0],
      [2, days],
    ]);
  });
});

describe("PacedSource", () => {
  /** A pacer that delays every frame by an hour. */
  const slow: Pacer = { requestAt: () => 0, releaseAt: (_, at) => at + 3_600_000 };

  test("a paced source passes all other properties and calls on to its source", async () => {
    const calls: string[] = [];
    const whole: FrameSource = {
      ...{
        name: "cam",
        type: "image/jpeg",
        isLive: true,
        usesLiveWindow: true,
        total: 3,
        capturedCount: 2,
      },
      raw: { width: 1, height: 2, format: "gray" },
      next: () => undefined,
      retry: ({ sequence }) => loss(sequence, sequence),
      startCapture: () => void calls.push("begin"),
      onConnected: () => void calls.push("connected"),
      onDisconnected: (given) => {
        calls.push(`disconnected ${given.length}`);
        return given.slice(1);
      },
      onSettled: ({ sequence }) => void calls.push(`settled ${sequence}`),
      remove: async ({ sequence }, crc) => {
        calls.push(`remove ${sequence} ${crc}`);
        return "removed";
      },
      close: () => void calls.push("close"),
    };
    const source = paced(whole, new RatePacer(1));
    const {
      name,
      type,
      isLive,
      usesLiveWindow: keepsFresh,
      total,
      capturedCount: captured,
      raw,
    } = whole;
    expect(source).toMatchObject({
      name,
      type,
      isLive,
      usesLiveWindow: keepsFresh,
      total,
      capturedCount: captured,
      raw,
    });
    source.startCapture!();
    source.onConnected!();
    expect(source.onDisconnected!([frame(1), frame(2)])).toMatchObject([{ sequence: 2 }]);
    source.onSettled!(frame(3));
    await source.remove!(frame(4), 5);
    source.close();
    expect(calls).toEqual([
      ...["begin", "connected", "disconnected 2", "settled 3", "remove 4 5", "close"],
    ]);
    expect(source.retry(frame(9), new FramesError("changed"))).toMatchObject({ first: 9, last: 9 });
  });

  test("a paced source lacks the optional members that its source lacks", () => {
    const bare: FrameSource = {
      name: "visible",
      next: () => undefined,
      retry: ({ sequence }) => loss(sequence, sequence),
      close: () => {},
    };
    const source: FrameSource = paced(bare, new RatePacer(1));
    for (const part of [
      ...(["type", "raw", "isLive", "usesLiveWindow", "stopCapture", "startCapture"] as const),
      ...(["onConnected", "onDisconnected", "onSettled", "remove", "total"] as const),
    ]) {
      expect([part, source[part]]).toEqual([part, undefined]);
    }
    expect(source.capturedCount).toBe(0);
  });

  test("a stopped paced source releases its captured frames at once", async () => {
    const given = new Given(frames(3));
    const source = paced(given, slow);
    const taken = take(source);
    await settle();
    await pass(50);
    expect(taken.came).toEqual([]);
    source.stopCapture!();
    await settle();
    expect(given.calls).toEqual(["stop"]);
    expect(taken.came.map(([number]) => number)).toEqual([1, 2, 3]);
    expect(taken.isOver).toBe(true);
  });

  test("a closed paced source ends without further waiting", async () => {
    const given = new Given(frames(1));
    const source = paced(given, slow);
    const taken = take(source);
    await settle();
    source.close();
    await settle();
    expect(given.calls).toEqual(["close"]);
    expect(taken.isOver).toBe(true);
  });
});

for (const isTakenBack of [true, false]) {
  const what = isTakenBack ? "returned again once it was" : "released if it was not";
  test(`a frame that waits while the connection breaks is ${what} taken back`, async () => {
    const held = frame(2, 1000);
    const given = new Given([frame(1), held]);
    const calls: number[][] = [];
    const source: FrameSource = Object.assign(given, {
      onDisconnected(lost: readonly Frame[]) {
        calls.push(lost.map(({ sequence }) => sequence));
        return isTakenBack ? [] : lost;
      },
    });
    const pacedSource = paced(source, new ReplayPacer());
    const taken = take(pacedSource);
    await settle();
    expect(taken.came).toEqual([[1, 0]]);
    expect(pacedSource.onDisconnected!([frame(1)]).map(({ sequence }) => sequence)).toEqual(
      isTakenBack ? [] : [1],
    );
    expect(calls).toEqual([[1, 2]]);
    await pass(1000);
    expect(taken.came).toEqual(
      isTakenBack
        ? [[1, 0]]
        : [
            [1, 0],
            [2, 1000],
          ],
    );
  });
}
