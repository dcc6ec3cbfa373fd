import { expect, test } from "bun:test";

import { GarbageWatch } from "../../src/common/memory.ts";

test("a process that takes much memory collects at the limit, and again after 16 MiB of growth", () => {
  const mebibyte = 1 << 20;
  let bytes = 0;
  let inUse = 0;
  let collections = 0;
  const watch = new GarbageWatch(
    () => bytes,
    () => {
      collections++;
      bytes = inUse;
    },
  );
  const collectionsAt = (mebibytes: number) => {
    const before = collections;
    bytes = mebibytes * mebibyte;
    watch.check();
    return collections - before;
  };
  try {
    inUse = 100 * mebibyte;
    expect([127, 128, 120, 127, 129].map(collectionsAt)).toEqual([0, 1, 0, 0, 1]);
    // What is in use is not collected again and again.
    inUse = 200 * mebibyte;
    expect([200, 215, 216, 215].map(collectionsAt)).toEqual([1, 0, 1, 0]);
    // Once it has shrunk, the limit holds again.
    inUse = 100 * mebibyte;
    expect([110, 127, 128].map(collectionsAt)).toEqual([0, 0, 1]);
  } finally {
    watch.stop();
  }
});
