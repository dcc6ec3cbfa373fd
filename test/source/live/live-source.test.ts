// A live source: its queue, dropped frames, and that every number is accounted for.
//
// Covers: source/live/frame-feed.ts, source/live/pipe.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import type { CapturedFrame } from "../../../src/source/live/iterable-source.ts";
import { LiveSource } from "../../../src/source/live/live-source.ts";
import type { QueuePolicy } from "../../../src/source/per-source.ts";
import { until } from "../../helper/time.ts";

const naming = { started: Date.UTC(2026, 10, 22, 7, 12, 3, 123), clock: () => 0 };

/** A camera that captures a frame on demand. */
class Shutter implements AsyncIterable<CapturedFrame> {
  /** Number of frames taken from it. */
  taken = 0;
  isEnded = false;
  readonly #ready: CapturedFrame[] = [];
  #failure: Error | undefined;
  #wake = () => {};

  shoot(count = 1, size = 1): void {
    for (let left = count; left > 0; left--) this.#ready.push({ bytes: new Uint8Array(size) });
    this.#wake();
  }

  give(frame: CapturedFrame): void {
    this.#ready.push(frame);
    this.#wake();
  }

  end(failure?: Error): void {
    this.isEnded = true;
    this.#failure = failure;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<CapturedFrame, undefined> {
    for (;;) {
      while (this.#ready.length > 0) {
        this.taken++;
        yield this.#ready.shift()!;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.isEnded) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

function begin(policy: QueuePolicy): { camera: Shutter; source: LiveSource } {
  const camera = new Shutter();
  const source = new LiveSource("visible", camera, { policy, settings: naming });
  source.onConnected();
  return { camera, source };
}

function textOf(item: Frame | Loss | undefined): string {
  if (item === undefined) return "the end";
  if ("error" in item) return `${item.error.code} ${item.first}-${item.last}`;
  return `${item.sequence}`;
}

/** Takes everything that a source yields without waiting, and its end if reached. */
async function takeAll(source: LiveSource): Promise<string[]> {
  const found: string[] = [];
  for (;;) {
    const item = await source.next();
    found.push(textOf(item));
    if (item === undefined) return found;
  }
}

describe("queue with the policy latest", () => {
  test("a latest queue drops no frame while frames are taken as they arrive", async () => {
    const { camera, source } = begin({ latest: 1 });
    for (let number = 1; number <= 20; number++) {
      const next = source.next();
      camera.shoot();
      expect(textOf(await next)).toBe(`${number}`);
    }
    camera.end();
    expect(textOf(await source.next())).toBe("the end");
  });

  for (const latest of [1, 2, 7]) {
    test(`a latest queue of ${latest} drops the oldest frames, and reports them before the next frame`, async () => {
      const { camera, source } = begin({ latest });
      const first = source.next();
      camera.shoot();
      expect(textOf(await first)).toBe("1");
      camera.shoot(50);
      await until("all of them", () => source.capturedCount === 51);
      camera.end();
      const kept = Array.from({ length: latest }, (_, index) => `${52 - latest + index}`);
      expect(await takeAll(source)).toEqual([`dropped 2-${51 - latest}`, ...kept, "the end"]);
      expect(source.capturedCount).toBe(51);
    });
  }

  test("a latest queue takes frames from its camera also if none are requested", async () => {
    const { camera, source } = begin({ latest: 1 });
    void source.next();
    camera.shoot(1000);
    await until("all", () => camera.taken === 1000);
  });

  test("a latest queue buffers at most its byte limit, but always one frame", async () => {
    const { camera, source } = begin({ latest: 1000 });
    void source.next();
    // Untouched bytes occupy no memory.
    camera.shoot(1 + 8, 64 << 20);
    await until("all", () => source.capturedCount === 9);
    camera.end();
    const [loss, ...kept] = await takeAll(source);
    expect(loss).toBe("dropped 2-5");
    expect(kept).toEqual(["6", "7", "8", "9", "the end"]);
  });

  test("a source with the policy latest uses the live window, and one with block does not", () => {
    expect(begin({ latest: 1 }).source.usesLiveWindow).toBe(true);
    expect(begin("block").source.usesLiveWindow).toBe(false);
    expect(begin("block").source.isLive).toBe(true);
  });

  test("an invalid frame of a live source is lost under its number, and the next frame follows", async () => {
    const { camera, source } = begin({ latest: 10 });
    const first = source.next();
    camera.give({ bytes: "text" as unknown as Uint8Array });
    camera.shoot();
    camera.end();
    expect([textOf(await first), ...(await takeAll(source))]).toEqual([
      "unreadable 1-1",
      "2",
      "the end",
    ]);
  });
});

describe("queue with the policy block", () => {
  test("a block queue pauses its camera, and drops no frame", async () => {
    const { camera, source } = begin("block");
    const first = source.next();
    camera.shoot(100);
    camera.end();
    await first;
    await Bun.sleep(0);
    // One frame was returned, one is queued, and one may be in between.
    expect(camera.taken).toBeLessThanOrEqual(3);
    const all = await takeAll(source);
    expect(all).toEqual([...Array.from({ length: 99 }, (_, index) => `${index + 2}`), "the end"]);
  });

  test("a block queue pauses its camera also while no server is connected", async () => {
    const { camera, source } = begin("block");
    const first = source.next();
    camera.shoot(100);
    const frame = (await first) as Frame;
    expect(source.onDisconnected([frame])).toEqual([frame]);
    await Bun.sleep(0);
    expect(camera.taken).toBeLessThanOrEqual(3);
    source.onConnected();
    camera.end();
    expect((await takeAll(source)).length).toBe(100);
  });
});

describe("the end of a live source", () => {
  test("a live source ends after all frames of its camera", async () => {
    const { camera, source } = begin({ latest: 3 });
    const first = source.next();
    camera.shoot(3);
    camera.end();
    expect([textOf(await first), ...(await takeAll(source))]).toEqual(["1", "2", "3", "the end"]);
  });

  test("a live source fails with its camera's error, after all frames of the camera", async () => {
    const failure = new FramesError("unreadable", "the cable is out");
    const { camera, source } = begin({ latest: 3 });
    const first = source.next();
    camera.shoot(2);
    camera.end(failure);
    expect(textOf(await first)).toBe("1");
    expect(textOf(await source.next())).toBe("2");
    await expect(Promise.resolve(source.next())).rejects.toBe(failure);
  });

  test("a stopped live source ends after the frames captured before the stop", async () => {
    const { camera, source } = begin({ latest: 3 });
    const first = source.next();
    camera.shoot(3);
    expect(textOf(await first)).toBe("1");
    await until("the others", () => source.capturedCount === 3);
    source.stopCapture();
    // A frame captured after the stop is ignored.
    camera.shoot();
    expect(await takeAll(source)).toEqual(["2", "3", "the end"]);
    expect(source.capturedCount).toBe(3);
  });

  test("stopping a live source ends a pending request for a frame", async () => {
    const { source } = begin("block");
    const waiting = source.next();
    source.stopCapture();
    source.stopCapture();
    expect(await waiting).toBeUndefined();
  });

  test("stopping or closing a live source calls the return method of its camera", async () => {
    for (const end of ["stopCapture", "close"] as const) {
      let isTold = false;
      const frames = {
        [Symbol.asyncIterator]: () => ({
          next: () => new Promise<never>(() => {}),
          return: () => {
            isTold = true;
            return Promise.resolve({ done: true, value: undefined } as const);
          },
        }),
      };
      const source = new LiveSource("visible", frames, { policy: "block", settings: naming });
      void source.next();
      source[end]();
      await until("its being told", () => isTold);
    }
  });
});

test("a frame of a live source is lost, not read again, if reading it failed", async () => {
  const { camera, source } = begin("block");
  const next = source.next();
  camera.shoot();
  const frame = (await next) as Frame;
  const error = new FramesError("changed");
  expect(source.retry(frame, error)).toEqual({ first: 1, last: 1, what: frame.name, error });
});

test("a live source keeps the extension and time that a program gives its frames", async () => {
  const { camera, source } = begin("block");
  const next = source.next();
  camera.give({ bytes: new Uint8Array(3), extension: "pgm", captured: 5n });
  expect((await next) as Frame).toMatchObject({
    name: "20261122T071203.123Z-00000001.pgm",
    sequence: 1,
    captured: 5n,
    size: 3,
  });
});
