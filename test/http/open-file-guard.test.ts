import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { devNull } from "node:os";

import { maxOpenFiles, countOpenFiles } from "../../src/common/open-files.ts";
import { OpenFileGuard } from "../../src/http/open-file-guard.ts";

test("the open files of this process are counted, and are fewer than the limit", () => {
  const before = countOpenFiles();
  const files = Array.from({ length: 20 }, () => openSync(devNull, "r"));
  expect(countOpenFiles()).toBeGreaterThanOrEqual(before + 10);
  files.forEach(closeSync);
  expect(countOpenFiles()).toBeLessThan(before + 10);
  expect(countOpenFiles()).toBeLessThan(maxOpenFiles());
});

test("the guard pauses accepting at many open files, drops connections at more, and resumes later", () => {
  let open = 0;
  let isFree = true;
  const did: string[] = [];
  const guard = new OpenFileGuard(1000, () => open, {
    pauseAccepting: () => void did.push("close"),
    dropAll: () => void did.push("clear"),
    resumeAccepting: () => (did.push("open"), isFree),
  });
  const look = (files: number): string[] => {
    open = files;
    did.length = 0;
    guard.check();
    return [...did];
  };
  expect(look(750)).toEqual([]);
  expect(look(751)).toEqual(["close"]);
  expect(look(800)).toEqual([]);
  expect(look(700)).toEqual([]);
  isFree = false;
  expect(look(600)).toEqual(["open"]);
  isFree = true;
  expect(look(600)).toEqual(["open"]);
  expect(look(600)).toEqual([]);
  expect(look(Infinity)).toEqual(["close", "clear"]);
  expect(look(900)).toEqual(["clear"]);
  expect(look(10)).toEqual(["open"]);
});
