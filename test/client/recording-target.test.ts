// A target writes one MCAP file over any number of connections, and fails as a whole.
//
// Covers: client/recording-file.ts, client/unjournaled-target.ts

import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { RecordingTarget, type SegmentLimits } from "../../src/client/recording-target.ts";
import { pictureDecoder } from "../../src/mcap/picture.ts";
import { temporaryFolder } from "../helper/program.ts";
import { refusal } from "../helper/refusal.ts";
import { faultOf, forEachFault, SystemFaults } from "../helper/system-faults.ts";
import { until } from "../helper/time.ts";
import { noise, readEvents, session } from "../mcap/files.ts";

const source = { stream: "s", source: "a", session };

interface Opened {
  readonly target: RecordingTarget;
  readonly path: string;
  readonly files: string[];
  /** Passes a frame as a connection does. */
  put(sequence: number, size?: number): Promise<unknown>;
}

function openTarget(segment?: SegmentLimits, folder = temporaryFolder()): Opened {
  const path = join(folder, "out.mcap");
  const files: string[] = [];
  const onFile = (file: string) => void files.push(file);
  const target = new RecordingTarget(path, { stream: "s", segment, onFile });
  target.onConnected("identity", "a store");
  return {
    target,
    path,
    files,
    async put(sequence, size = 100) {
      const bytes = noise(sequence, size);
      const writer = target.open(source).begin(describe(sequence, size));
      writer.write(bytes.subarray(0, size >> 1));
      writer.write(bytes.subarray(size >> 1));
      return writer.finish(crc32(bytes));
    },
  };
}

function describe(sequence: number, size: number) {
  return { name: `${sequence}.jpg`, sequence, captured: BigInt(sequence), size, metadata: "" };
}

function numbersIn(path: string): number[] {
  const { messages, problems } = readEvents(readFileSync(path));
  expect(problems).toEqual([]);
  return messages.map(({ channel, data }) => pictureDecoder(channel)!(data).facts!.sequence);
}

test("a frame that is sent again after a reconnect is in the file once", async () => {
  const { target, put, path } = openTarget();
  for (const sequence of [1, 2, 3]) expect(await put(sequence)).toBe("stored");
  const save = target.onCursor("after 2");
  target.onConnected("identity", "a store");
  expect(await put(3)).toBe("present");
  save();
  expect(target.cursor).toBe("after 2");
  expect(await put(4)).toBe("stored");
  target.close(true);
  expect(numbersIn(path)).toEqual([1, 2, 3, 4]);
  expect(refusal(() => target.onConnected("another", "b"))).toMatchObject({ code: "other-store" });
});

test("a frame that breaks off with its connection leaves the file as it was", async () => {
  for (const size of [1000, 3_000_000]) {
    const { target, put, path } = openTarget();
    await put(1);
    const writer = target.open(source).begin(describe(2, size));
    writer.write(noise(9, size >> 1));
    writer.discard();
    expect(await put(2, size)).toBe("stored");
    target.close(true);
    expect(numbersIn(path)).toEqual([1, 2]);
  }
});

test("a second frame that begins before the first has ended is an error of the server", () => {
  const { target } = openTarget();
  target.open(source).begin(describe(1, 10));
  const second = refusal(() => target.open({ ...source, source: "b" }).begin(describe(1, 10)));
  expect(second).toMatchObject({ code: "protocol" });
});

test("a single file keeps its temporary name unless everything was received", async () => {
  const { target, put, path, files } = openTarget();
  await put(1, 3_000_000);
  target.close(false);
  expect(existsSync(path)).toBe(false);
  expect(statSync(`${path}.part`).size).toBeGreaterThan(3_000_000);
  expect(files).toEqual([]);
  expect(readEvents(readFileSync(`${path}.part`)).messages.length).toBe(1);
});

test("a target that receives nothing makes no file", () => {
  for (const segment of [undefined, { bytes: 10 }]) {
    const { target, path } = openTarget(segment);
    target.close(true);
    expect(readdirSync(join(path, ".."))).toEqual([]);
  }
});

test("segments end before the frame that exceeds their size, and each has at least one frame", async () => {
  const { target, put, files } = openTarget({ bytes: 10_000 });
  for (const [index, size] of [4000, 4000, 4000, 50_000, 10, 10].entries())
    await put(index + 1, size);
  target.close(false);
  expect(files.map(numbersIn)).toEqual([[1, 2], [3], [4], [5, 6]]);
  expect(files.toSorted()).toEqual(files);
});

test("a segment whose time ends while a frame arrives is complete with that frame", async () => {
  const { target, files } = openTarget({ milliseconds: 1 });
  const bytes = noise(1, 100);
  const writer = target.open(source).begin(describe(1, 100));
  // The timer of the segment fires before this one, which was started later.
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(files).toEqual([]);
  writer.write(bytes);
  await writer.finish(crc32(bytes));
  expect(files.map(numbersIn)).toEqual([[1]]);
  target.close(true);
  expect(files.length).toBe(1);
});

test("an error of the disk at the end of a segment's time is told with the next frame or the end", async () => {
  const { target, put, path } = openTarget({ milliseconds: 1 });
  await put(1);
  const folder = join(path, "..");
  const [part] = readdirSync(folder).filter((name) => name.endsWith(".part"));
  rmSync(join(folder, part!));
  await until("the end of the segment", () => target.failure !== undefined);
  expect(target.failure).toMatchObject({ code: "store" });
  expect(await put(2).catch((error: unknown) => error)).toBe(target.failure);
  expect(refusal(() => target.close(true))).toBe(target.failure as never);
});

test("a file of another process in the place of the partial one is never taken for it", async () => {
  const { target, put, path } = openTarget();
  await put(1);
  rmSync(`${path}.part`);
  writeFileSync(`${path}.part`, "of another process");
  const error = refusal(() => target.close(true));
  expect(error).toMatchObject({ code: "store" });
  expect(error.message).toContain("another process removed or replaced");
  expect(readFileSync(`${path}.part`, "utf8")).toBe("of another process");
  expect(existsSync(path)).toBe(false);
});

test("a file that appears under the name meanwhile is not replaced", async () => {
  const { target, put, path } = openTarget();
  await put(1);
  writeFileSync(path, "mine");
  expect(refusal(() => target.close(true))).toMatchObject({ code: "usage" });
  expect(readFileSync(path, "utf8")).toBe("mine");
});

test("whichever call of the file system fails, the target fails with it and makes no broken file", async () => {
  using faults = new SystemFaults();
  const runs = await forEachFault(faults, async (fault) => {
    const { target, put, path } = openTarget();
    const failure = await faults
      .within(async () => {
        for (const sequence of [1, 2]) await put(sequence, 2_000_000);
        const writer = target.open(source).begin(describe(3, 2_000_000));
        writer.write(noise(3, 10));
        writer.discard();
        target.close(true);
      })
      .catch((error: unknown) => error);
    const problems = failure === undefined ? [] : [faultOf(failure)];
    expect([fault, ...problems.filter((problem) => problem !== undefined)]).toEqual([fault]);
    if (existsSync(path)) expect([fault, ...numbersIn(path)]).toEqual([fault, 1, 2]);
    else expect([fault, failure]).toEqual([fault, expect.objectContaining({ code: "store" })]);
  });
  expect(runs).toBeGreaterThan(50);
});
