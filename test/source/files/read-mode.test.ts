// Covers: common/local-disk.ts

import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, openSync, writeFileSync } from "node:fs";
import * as fs from "node:fs";
import { join } from "node:path";
import * as localDisk from "../../../src/common/local-disk.ts";
import { ReadMode } from "../../../src/source/files/read-mode.ts";
import { temporaryFolder } from "../../helper/program.ts";

/** Reads one byte several times, each time for as many milliseconds, and tells the mode after each. */
function modesAfter(durations: readonly number[], waits: readonly number[] = []): boolean[] {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "1"), "x");
  const file = openSync(join(folder, "1"), "r");
  const mode = new ReadMode(folder);
  let now = 0;
  const clock = spyOn(performance, "now").mockImplementation(() => now);
  const realRead = fs.readSync;
  let duration = 0;
  const read = spyOn(fs, "readSync").mockImplementation(((...args: Parameters<typeof realRead>) => {
    now += duration;
    return realRead(...args);
  }) as typeof realRead);
  try {
    return durations.map((milliseconds, index) => {
      duration = milliseconds;
      mode.read(file, new Uint8Array(1), 0, 1, 0);
      now += waits[index] ?? 0;
      return mode.isSynchronous;
    });
  } finally {
    read.mockRestore();
    clock.mockRestore();
    closeSync(file);
  }
}

describe("the way in which files are read", () => {
  test.skipIf(process.platform !== "linux")(
    "files of /proc are not on a disk of this machine, files of a temporary folder are",
    () => {
      expect(new ReadMode("/proc").isSynchronous).toBe(false);
      expect(new ReadMode(temporaryFolder()).isSynchronous).toBe(true);
    },
  );

  test("files are read synchronously while their reads take under 2 ms", () => {
    expect(modesAfter([0, 1.9, 1.9, 1.9])).toEqual([true, true, true, true]);
  });

  test("three slow reads in a row change nothing", () => {
    const slow = [2, 2, 50, 1, 2, 2, 2, 0];
    expect(modesAfter(slow)).toEqual(slow.map(() => true));
  });

  test("the pool reads for a second after four slow reads in a row", () => {
    expect(modesAfter([2, 2, 2, 2], [0, 0, 0, 999])).toEqual([true, true, true, false]);
    expect(modesAfter([2, 2, 2, 2], [0, 0, 0, 1000])).toEqual([true, true, true, true]);
  });

  test("after that second, one slow read is enough, and one fast read ends it", () => {
    const waits = [0, 0, 0, 1000, 0, 0];
    expect(modesAfter([2, 2, 2, 2, 2], waits).at(-1)).toBe(false);
    expect(modesAfter([2, 2, 2, 2, 1, 2], waits).slice(-2)).toEqual([true, true]);
  });

  test("the pool reads files that are not on a disk of this machine, however fast they are", () => {
    const spy = spyOn(localDisk, "isOnLocalDisk").mockReturnValue(false);
    try {
      expect(modesAfter([0, 0])).toEqual([false, false]);
    } finally {
      spy.mockRestore();
    }
  });
});
