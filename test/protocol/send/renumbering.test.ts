// New numbers for what a source has not had settled when a new session begins.

import { expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, FrameSource, Loss } from "../../../src/frame.ts";
import { OutgoingSource } from "../../../src/protocol/send/outgoing-source.ts";
import { originalOf } from "../../../src/protocol/send/renumbering.ts";

function frameOf(sequence: number): Frame {
  return {
    ...{ name: `${sequence}.png`, sequence, captured: 5n, size: 1, metadata: "", revises: true },
    needsPieces: true,
    read: (into) => void into.fill(sequence),
    async *pieces() {
      yield Uint8Array.of(sequence);
      return undefined;
    },
  };
}

const lossOf = (first: number, last: number): Loss => {
  return { first, last, what: "x", error: new FramesError("dropped") };
};

/** A source that gives these items, and what it is told. */
class Items implements FrameSource {
  readonly name = "a";
  readonly settled: Frame[] = [];
  taken: readonly Frame[] = [];
  readonly #items: (Frame | Loss)[];

  constructor(...items: (Frame | Loss)[]) {
    this.#items = items;
  }

  next(): Frame | Loss | undefined {
    return this.#items.shift();
  }

  retry(frame: Frame, error: FramesError): Frame | Loss {
    const { sequence } = frame;
    return error.code === "changed"
      ? frame
      : { first: sequence, last: sequence, what: frame.name, error };
  }

  onSettled(frame: Frame): void {
    this.settled.push(frame);
  }

  /** Takes back every frame but the first. */
  onDisconnected(frames: readonly Frame[]): readonly Frame[] {
    this.taken = frames.slice(1);
    return frames.slice(0, 1);
  }

  close(): void {}
}

/** Takes all that a source gives. */
function take(source: OutgoingSource): (Frame | Loss)[] {
  const taken: (Frame | Loss)[] = [];
  for (;;) {
    const item = source.next(Infinity, false);
    if (typeof item === "string") return taken;
    taken.push(item);
  }
}

const numbersOf = (items: readonly (Frame | Loss)[]) =>
  items.map((item) => ("error" in item ? [item.first, item.last] : item.sequence));

test("frames and losses of a new session are numbered from 1, in the order in which they are sent", () => {
  const source = new OutgoingSource(1, new Items(frameOf(9), lossOf(10, 14), frameOf(20)));
  source.requeue(frameOf(7), 3, true);
  source.requeue(frameOf(8), undefined, false);
  source.unconfirmedLosses = [{ first: 2, last: 3, error: 51, text: "" }];
  source.unreportedLosses = [lossOf(5, 5)];
  source.beginSession();
  expect(source.candidates.map(({ frame, ...more }) => [frame.sequence, more])).toEqual([
    [1, { crc: 3, wasSent: true }],
    [2, { crc: undefined, wasSent: false }],
  ]);
  expect(source.unconfirmedLosses).toEqual([{ first: 3, last: 4, error: 51, text: "" }]);
  expect(numbersOf(source.unreportedLosses)).toEqual([[5, 5]]);
  expect(numbersOf(take(source))).toEqual([6, [7, 11], 12]);
});

test("a source of a new session is told of its frames as it knows them", () => {
  const frames = [frameOf(7), frameOf(8)];
  const items = new Items();
  const source = new OutgoingSource(1, items);
  for (const frame of frames) source.requeue(frame, undefined, true);
  source.beginSession();
  const [first, second] = source.candidates.map(({ frame }) => frame);
  source.disconnect();
  expect(items.taken).toEqual([frames[1]!]);
  expect(source.candidates.map(({ frame }) => frame)).toEqual([first!]);
  source.settle(second!);
  expect(items.settled).toEqual([frames[1]!]);
  expect(originalOf(first!)).toBe(frames[0]!);
});

test("a frame that its source takes back keeps its new number until it is settled", () => {
  const [frame, other] = [frameOf(7), frameOf(8)];
  const source = new OutgoingSource(1, new Items(frame, other, frame, other));
  source.beginSession();
  const [first, second, again, secondAgain] = take(source) as Frame[];
  expect(numbersOf([first!, second!, again!, secondAgain!])).toEqual([1, 2, 1, 2]);
  source.settle(again!);
  source.beginSession();
  expect(numbersOf([source.retry(again!, new FramesError("changed"), Infinity)])).toEqual([1]);
});

test("a frame of a new session that cannot be read is lost under its new number", () => {
  const source = new OutgoingSource(1, new Items(frameOf(7)));
  source.beginSession();
  const [frame] = take(source) as [Frame];
  expect(numbersOf([source.retry(frame, new FramesError("changed"), Infinity)])).toEqual([1]);
  expect(numbersOf([source.retry(frame, new FramesError("vanished"), Infinity)])).toEqual([[1, 1]]);
});

test("a frame of a new session has everything else of its own", async () => {
  const source = new OutgoingSource(1, new Items(frameOf(7)));
  source.beginSession();
  const [frame] = take(source) as [Frame];
  const { name, captured, size, metadata, revises, needsPieces } = frame;
  expect({ name, captured, size, metadata, revises, needsPieces }).toEqual({
    ...{ name: "7.png", captured: 5n, size: 1, metadata: "", revises: true, needsPieces: true },
  });
  const bytes = new Uint8Array(1);
  frame.read(bytes);
  expect([...bytes]).toEqual([7]);
  expect((await frame.pieces().next()).value).toEqual(Uint8Array.of(7));
});

test("another new session numbers from 1 again", () => {
  const source = new OutgoingSource(1, new Items(frameOf(9)));
  source.requeue(frameOf(7), undefined, true);
  source.beginSession();
  source.beginSession();
  expect(source.candidates.map(({ frame }) => frame.sequence)).toEqual([1]);
  expect(source.candidates.map(({ frame }) => originalOf(frame).sequence)).toEqual([7]);
  expect(numbersOf(take(source))).toEqual([2]);
});
