// Each received frame reaches the callback once, over any number of connections.

import { expect, test } from "bun:test";
import { CallbackSink } from "../../src/client/callback-sink.ts";

const origin = { stream: "s", source: "a", session: "1".repeat(32) };

/** Passes frames to a sink as a connection does, with cursors after some of them. */
async function connection(output: CallbackSink, first: number, last: number, cursors: number[]) {
  output.onConnected("i", "a store");
  const source = output.open(origin);
  const keeps: (() => void)[] = [];
  for (let sequence = first; sequence <= last; sequence++) {
    const writer = source.begin({
      name: `${sequence}`,
      sequence,
      captured: 1n,
      size: 1,
      metadata: "",
    });
    writer.write(new Uint8Array([sequence]));
    await writer.finish(0);
    if (cursors.includes(sequence)) keeps.push(output.onCursor(`c${sequence}`));
  }
  return keeps;
}

test("a frame that is sent again is passed to the callback once, whichever cursor was saved", async () => {
  const taken: number[] = [];
  const output = new CallbackSink(({ sequence }) => void taken.push(sequence), "pipe");
  const [keep] = await connection(output, 1, 50, [10, 20, 30, 40]);
  // The later cursors arrived but were not persisted.
  keep!();
  expect(output.cursor).toBe("c10");
  const again = await connection(output, 11, 25, [15, 20]);
  for (const one of again) one();
  expect(output.cursor).toBe("c20");
  const last = await connection(output, 21, 70, [60]);
  for (const one of last) one();
  await connection(output, 61, 75, []);
  expect(taken).toEqual(Array.from({ length: 75 }, (_, index) => index + 1));
});

test("a callback sink is full while bytes wait for its callback", async () => {
  let go = (): void => {};
  const output = new CallbackSink(() => new Promise((resolve) => (go = resolve)), undefined);
  const source = output.open(origin);
  const size = 5 << 20;
  const finished = [1, 2].map((sequence) => {
    expect(output.isFull).toBe(false);
    return source
      .begin({ name: `${sequence}`, sequence, captured: 1n, size, metadata: "" })
      .finish(0);
  });
  expect(output.isFull).toBe(true);
  go();
  expect(await finished[0]).toBe("stored");
  await Bun.sleep(0);
  expect(output.isFull).toBe(false);
});

test("names of a hostile server are refused, as they are for a directory", () => {
  const output = new CallbackSink(() => {}, undefined);
  for (const source of ["a\r\nX-Sequence: 9", "..", "a/../b", "", "a\0", "/etc"]) {
    expect(() => output.checkNames("s", source)).toThrow(
      expect.objectContaining({ code: "bad-name" }),
    );
  }
  expect(() => output.checkNames("s\n", "a")).toThrow(
    expect.objectContaining({ code: "bad-name" }),
  );
  const frame = { sequence: 1, captured: 1n, size: 1, metadata: "" };
  for (const name of ["1.jpg\r\nContent-Length: 0", "../1", "\x1b[2J", ""]) {
    expect(() => output.open(origin).begin({ ...frame, name })).toThrow(
      expect.objectContaining({ code: "bad-name" }),
    );
  }
});

test("a callback is told which pictures of encoded video are key frames", async () => {
  const isKeys: (boolean | undefined)[] = [];
  const output = new CallbackSink(({ isKey }) => void isKeys.push(isKey), undefined);
  const source = output.open(origin);
  for (const [index, isKey] of [true, false, undefined].entries()) {
    const facts = { name: `${index}`, sequence: index + 1, captured: 1n, size: 0, metadata: "" };
    await source.begin({ ...facts, isKey }).finish(0);
  }
  expect(isKeys).toEqual([true, false, undefined]);
});
