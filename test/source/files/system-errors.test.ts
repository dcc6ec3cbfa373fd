// Every call of the file system that a source of files makes fails once with every error.
//
// Covers: common/close-file.ts

import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { createRoot, walk } from "../../../src/source/files/walk.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { faultOf, forEachFault, SystemFaults } from "../../helper/system-faults.ts";

const paths = ["a/1", "a/2", "b/1", "b/2"];

/** Reads and removes all frames below a folder, as a delivery with --move does. */
async function deliver(folder: string, offered: boolean) {
  const read = new Set<string>();
  const problems: FramesError[] = [];
  const root = createRoot(folder, undefined, false);
  const { sources, unreadable, skipped } = walk([root], { include: [], exclude: [] });
  for (const { path, why } of [...unreadable, ...skipped])
    problems.push(new FramesError("unreadable", `${path}: ${why}`));
  for (const source of sources) {
    for (let item: Frame | Loss | undefined; (item = await source.next(offered)) !== undefined;) {
      while (!("error" in item)) {
        const bytes = new Uint8Array(item.size);
        try {
          item.read(bytes);
        } catch (error) {
          if (!(error instanceof FramesError)) throw error;
          item = source.retry(item, error);
          continue;
        }
        read.add(Buffer.from(bytes).toString());
        try {
          await source.remove(item, crc32(bytes));
        } catch (error) {
          if (!(error instanceof FramesError)) throw error;
          problems.push(error);
        }
        break;
      }
      if ("error" in item) problems.push(item.error);
    }
    source.close();
  }
  return { read, problems };
}

describe("a source of files with one failing call", () => {
  for (const offered of [false, true]) {
    test(`one frame or folder is lost and named, and the others are read, if frames are ${offered ? "offered" : "sent at once"}`, async () => {
      using faults = new SystemFaults();
      const runs = await forEachFault(faults, async (fault) => {
        const folder = join(temporaryFolder(), "run7");
        for (const path of paths) {
          mkdirSync(join(folder, path, ".."), { recursive: true });
          writeFileSync(join(folder, path), path);
        }
        const wrong: string[] = [];
        try {
          const { read, problems } = await faults.within(() => deliver(folder, offered));
          wrong.push(...problems.map(faultOf).filter((problem) => problem !== undefined));
          // The fault is told, unless it did no harm.
          const lost = paths.filter((path) => !read.has(path));
          if (problems.length > 1) wrong.push(`${problems.length} problems`);
          if (lost.length > 0 && problems.length === 0)
            wrong.push(`${lost.join()} lost unreported`);
          // A file is removed only after it was read.
          for (const path of lost)
            if (!existsSync(join(folder, path))) wrong.push(`${path} is gone`);
        } catch (error) {
          // The root itself cannot be read.
          const problem = faultOf(error) ?? (error as FramesError).code;
          if (problem !== "missing") wrong.push(problem);
        }
        rmSync(folder, { recursive: true });
        expect([fault, ...wrong]).toEqual([fault]);
      });
      expect(runs).toBeGreaterThan(100);
    });
  }
});

describe("a delivered file when too many files are open", () => {
  for (const failing of [1, 2]) {
    test(`it is removed when open ${failing} of its removal fails once, and later if it fails again`, async () => {
      using faults = new SystemFaults();
      const folder = temporaryFolder();
      writeFileSync(join(folder, "1"), "one");
      const root = createRoot(folder, undefined, false);
      const [source] = walk([root], { include: [], exclude: [] }).sources;
      const frame = source!.next(true) as Frame;
      frame.read(new Uint8Array(frame.size));
      let opened = 0;
      let isLasting = true;
      faults.decide = (call) => {
        if (call !== "openSync" || ++opened < failing) return undefined;
        return isLasting || opened === failing ? "EMFILE" : undefined;
      };
      const removed = await faults.within(() => source!.remove(frame, crc32("one")));
      expect(removed).toMatchObject({ error: { message: "too many open files" } });
      expect(existsSync(join(folder, "1"))).toBe(true);
      [opened, isLasting] = [0, false];
      expect(await faults.within(() => source!.remove(frame, crc32("one")))).toBe("removed");
      expect(existsSync(join(folder, "1"))).toBe(false);
    });
  }
});
