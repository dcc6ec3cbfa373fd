// The pace of playback, on a clock that stands still between frames.

import { expect, test } from "bun:test";
import type { FrameJson } from "../../../src/http/page/api.ts";
import { Player, type PlayerTarget } from "../../../src/http/page/player.ts";

/** Frames captured at these times in ms, and what a player shows of them at which time. */
class Recording implements PlayerTarget {
  now = 0;
  readonly shown: [number: number, at: number][] = [];
  readonly #frames: readonly FrameJson[];
  readonly player = new Player(this, {
    now: () => this.now,
    wait: async (ms) => void (this.now += ms),
  });
  frame: FrameJson | undefined;
  isInterrupted = false;
  /** Time in ms that showing a frame takes. */
  cost = 0;
  onShow = (): void => {};

  constructor(times: readonly number[], start: number) {
    this.#frames = times.map(
      (time, index) => ({ number: index + 1, captured: `${time * 1_000_000}` }) as FrameJson,
    );
    this.frame = this.#frames[start];
  }

  framesBeyond({ number }: FrameJson, direction: -1 | 1): Promise<FrameJson[]> {
    const beyond =
      direction > 0 ? this.#frames.slice(number) : this.#frames.slice(0, number - 1).reverse();
    return Promise.resolve(beyond.slice(0, 3));
  }

  showFrame(frame: FrameJson): Promise<void> {
    this.frame = frame;
    this.shown.push([frame.number, this.now]);
    this.now += this.cost;
    this.onShow();
    return Promise.resolve();
  }

  onPlayingChange(): void {}
}

const steady = Array.from({ length: 11 }, (_, index) => index * 100);

test("frames are played at the times of their capture, in both directions, until there are no more", async () => {
  const forward = new Recording([0, 40, 50, 350], 0);
  await forward.player.run();
  expect(forward.shown).toEqual([
    [2, 40],
    [3, 50],
    [4, 350],
  ]);
  expect(forward.player.isPlaying).toBe(false);
  const back = new Recording([0, 40, 50, 350], 3);
  back.player.direction = -1;
  await back.player.run();
  expect(back.shown).toEqual([
    [3, 300],
    [2, 310],
    [1, 350],
  ]);
});

test("the speed scales the pauses, and a change counts from the frame that is shown", async () => {
  const recording = new Recording(steady, 0);
  recording.player.speed = 0.5;
  recording.onShow = () => {
    if (recording.frame!.number === 3) recording.player.speed = 4;
  };
  await recording.player.run();
  expect(recording.shown.slice(0, 4)).toEqual([
    [2, 200],
    [3, 400],
    [4, 425],
    [5, 450],
  ]);
});

test("a pause longer than a second is shortened, and the frames after it keep their pace", async () => {
  const recording = new Recording([0, 100, 3_600_100, 3_600_200], 0);
  await recording.player.run();
  expect(recording.shown).toEqual([
    [2, 100],
    [3, 1100],
    [4, 1200],
  ]);
});

test("frames are left out where showing them takes longer than their pauses", async () => {
  const recording = new Recording(steady, 0);
  recording.cost = 250;
  await recording.player.run();
  const numbers = recording.shown.map(([number]) => number);
  expect(numbers.length).toBeLessThan(7);
  expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
  expect(numbers.at(-1)).toBe(11);
  expect(recording.shown.at(-1)![1]).toBeLessThan(1500);
});

test("playback ends when it is stopped, and when something else is to be shown", async () => {
  const stopped = new Recording(steady, 0);
  stopped.onShow = () => {
    if (stopped.frame!.number === 4) stopped.player.stop();
  };
  await stopped.player.run();
  expect(stopped.frame!.number).toBe(4);
  const interrupted = new Recording(steady, 0);
  interrupted.onShow = () => (interrupted.isInterrupted = true);
  await interrupted.player.run();
  expect(interrupted.frame!.number).toBe(2);
});
