import { describe, expect, test } from "bun:test";
import { openFileShares } from "../../src/common/open-files.ts";
import { OpenFileLimit } from "../../src/common/open-file-limit.ts";

/** Files that record in which order they were closed. */
function filesOf(limit: OpenFileLimit, count: number) {
  const closed: number[] = [];
  const files = Array.from({ length: count }, (_, index) => ({
    close: () => void closed.push(index),
  }));
  for (const file of files) limit.acquire(file);
  return { files, closed };
}

describe("OpenFileLimit", () => {
  test("the file that was opened first is closed when there are too many", () => {
    expect(filesOf(new OpenFileLimit(3), 5).closed).toEqual([0, 1]);
  });

  test("a released file makes room", () => {
    const limit = new OpenFileLimit(2);
    const { files, closed } = filesOf(limit, 2);
    limit.release(files[1]!);
    limit.acquire({ close: () => {} });
    expect(closed).toEqual([]);
  });

  test("one file may be open even if the limit is zero", () => {
    expect(filesOf(new OpenFileLimit(0), 2).closed).toEqual([0]);
  });

  test("all files can be closed at once, and once only", () => {
    const limit = new OpenFileLimit(9);
    const { closed } = filesOf(limit, 3);
    limit.closeAll();
    limit.closeAll();
    expect(closed).toEqual([0, 1, 2]);
  });
});

describe("shares of the open files", () => {
  for (const limit of [1, 16, 30, 64, 100, 256, 1024, 20_000, 1_048_576]) {
    test(`each use has a share of ${limit} open files, and no more than there are`, () => {
      const { connections, leaving, frames } = openFileShares(limit);
      expect(Math.min(connections, leaving, frames)).toBeGreaterThan(0);
      if (limit >= 64) expect(connections + leaving + frames).toBeLessThan(limit);
    });
  }
});
