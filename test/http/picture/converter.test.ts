// Turns of keys, and conversions that fail, with a worker that answers when the test says so.

import { expect, test } from "bun:test";
import { Converter, type FrameToConvert } from "../../../src/http/picture/converter.ts";
import type { ConversionResult } from "../../../src/http/picture/to-jpeg.ts";

/** A worker that converts nothing by itself. */
class IdleWorker {
  readonly received: FrameToConvert[] = [];
  isTerminated = false;
  onmessage: (event: { data: ConversionResult }) => void = () => {};
  onerror: (event: { message: string }) => void = () => {};
  postMessage(frame: FrameToConvert): void {
    this.received.push(frame);
  }
  terminate(): void {
    this.isTerminated = true;
  }
  unref(): void {}
}

function start() {
  const workers: IdleWorker[] = [];
  const converter = new Converter(() => {
    workers.push(new IdleWorker());
    return workers.at(-1)! as unknown as Worker;
  });
  /** Names of the frames that were read, in order. */
  const read: string[] = [];
  const convert = (keyId: string, name: string) =>
    converter.convert(keyId, async () => {
      read.push(name);
      return { bytes: new Uint8Array([read.length]), raw: undefined };
    });
  /** Answers the conversion that the worker has now. */
  const answer = async (result: ConversionResult = { jpeg: new Uint8Array(1) }) => {
    await settle();
    workers.at(-1)!.onmessage({ data: result });
    await settle();
  };
  return { workers, converter, read, convert, answer };
}

/** Runs all that waits for no timer. */
async function settle(): Promise<void> {
  for (let count = 0; count < 20; count++) await Promise.resolve();
}

test("frames are converted one at a time, and a waiting frame is not read before its turn", async () => {
  const { workers, read, convert, answer } = start();
  const results = ["1", "2", "3"].map((name) => convert("a", name));
  await settle();
  expect([read, workers[0]!.received.length]).toEqual([["1"], 1]);
  for (const expected of [
    ["1", "2"],
    ["1", "2", "3"],
    ["1", "2", "3"],
  ]) {
    await answer();
    expect(read).toEqual(expected);
  }
  expect((await Promise.all(results)).map((result) => result?.jpeg?.length)).toEqual([1, 1, 1]);
});

test("keys take turns, so that the many pictures of one key do not delay those of another", async () => {
  const { read, convert, answer } = start();
  for (let count = 1; count <= 100; count++) void convert("evil", `e${count}`);
  void convert("good", "g1");
  void convert("good", "g2");
  void convert("other", "o1");
  for (let count = 0; count < 6; count++) await answer();
  expect(read).toEqual(["e1", "e2", "g1", "o1", "e3", "g2", "e4"]);
});

test("a key with too many waiting pictures is refused, and another key is not", async () => {
  const { converter, convert, read, answer } = start();
  const waiting = Array.from({ length: 257 }, () => convert("evil", "e"));
  await expect(convert("evil", "one more")).rejects.toMatchObject({ code: "full" });
  const good = convert("good", "g");
  await answer();
  await answer();
  await answer();
  expect(read.slice(0, 3)).toEqual(["e", "e", "g"]);
  expect((await good)?.jpeg).toBeDefined();
  converter.close();
  const failures = await Promise.all(waiting);
  expect(failures.at(-1)).toEqual({ failure: "the server is stopping" });
});

test("a worker that fails ends one conversion only, and the next one gets a new worker", async () => {
  const { workers, convert, answer } = start();
  const [first, second] = [convert("a", "1"), convert("a", "2")];
  await settle();
  workers[0]!.onerror({ message: "no memory left" });
  expect(await first).toEqual({ failure: "no memory left" });
  await answer();
  expect((await second)?.jpeg).toBeDefined();
  expect(workers.map(({ isTerminated }) => isTerminated)).toEqual([true, false]);
});

test("a frame that was removed, or cannot be read, uses no worker", async () => {
  const { workers, converter } = start();
  expect(await converter.convert("a", async () => undefined)).toBeUndefined();
  const failing = converter.convert("a", () => Promise.reject(new Error("gone")));
  expect(await failing).toBeUndefined();
  expect(workers).toEqual([]);
});

test("a frame that is read while the converter closes starts no worker", async () => {
  const { workers, converter } = start();
  const reading = Promise.withResolvers<FrameToConvert>();
  const result = converter.convert("a", () => reading.promise);
  converter.close();
  reading.resolve({ bytes: new Uint8Array(1), raw: undefined });
  expect(await result).toEqual({ failure: "the server is stopping" });
  expect(workers).toEqual([]);
});
