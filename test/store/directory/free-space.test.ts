// How much disk space a store leaves free.
//
// Covers: store/store-contents.ts

import { describe, expect, test } from "bun:test";
import { statfsSync } from "node:fs";
import { FramesError } from "../../../src/errors.ts";
import { diskSpace, FreeSpace } from "../../../src/store/directory/free-space.ts";
import type { DiskSpace } from "../../../src/store/store-contents.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { refusal } from "../../helper/refusal.ts";
import { bytesOf, storeFrame, thrownCode } from "../contract.ts";
import { names, offered, openVisible, partials, put, putAll, withStore } from "../fixture.ts";

/** A disk with settable free space that counts measurements. */
class Disk {
  free: number;
  readonly total: number;
  freeInodes: number | undefined;
  looks: string[] = [];
  readonly measure = (path: string): DiskSpace => {
    this.looks.push(path);
    return { free: this.free, total: this.total, freeInodes: this.freeInodes };
  };

  constructor(free: number, total: number) {
    this.free = free;
    this.total = total;
  }
}

/** Finds by trial the most bytes that a new `FreeSpace` can reserve. */
function mostOf(free: number, total: number, reserve?: number): number {
  const fits = (bytes: number): boolean => {
    const room = new FreeSpace("/store", reserve, new Disk(free, total).measure);
    return thrownCode(() => room.reserve(bytes)) === undefined;
  };
  let [low, high] = [-1, free];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

describe("FreeSpace", () => {
  const gigabyte = 1e9;
  const cases: [
    what: string,
    free: number,
    total: number,
    reserve: number | undefined,
    kept: number,
  ][] = [
    ["5 % of a small disk", 50 * gigabyte, 100 * gigabyte, undefined, 5 * gigabyte],
    ["5 % of a disk of up to 200 GB", 150 * gigabyte, 200 * gigabyte, undefined, 10 * gigabyte],
    ["10 GB of a large disk", 1000 * gigabyte, 8000 * gigabyte, undefined, 10 * gigabyte],
    ["a larger configured reserve", 50 * gigabyte, 100 * gigabyte, 20 * gigabyte, 20 * gigabyte],
    ["a smaller configured reserve", 50 * gigabyte, 100 * gigabyte, 1000, 1000],
    ["no bytes with a configured reserve of 0", 5000, 100 * gigabyte, 0, 0],
  ];
  for (const [what, free, total, reserve, kept] of cases) {
    test(`a store keeps ${what} free`, () => {
      // One more byte stays free, because a disk without a free byte is full.
      expect(mostOf(free, total, reserve)).toBe(free - kept - 1);
    });
  }

  test("a file system without a known size has no reserve", () => {
    const disk = new Disk(0, 0);
    const room = new FreeSpace("/store", undefined, disk.measure);
    room.measure();
    for (let count = 0; count < 1000; count++) room.reserve(1e15);
    room.invalidate();
    room.reserve(Number.MAX_SAFE_INTEGER);
    room.measure(Number.MAX_SAFE_INTEGER);
  });

  test("free space is measured in the folder of the store", () => {
    const disk = new Disk(1000, 1000);
    new FreeSpace("/some/where", 0, disk.measure).reserve(1);
    expect(disk.looks).toEqual(["/some/where"]);
    const folder = temporaryFolder();
    const { free, total } = diskSpace(folder);
    const { bsize, blocks } = statfsSync(folder);
    expect(total).toBe(bsize * blocks);
    expect(free).toBeGreaterThan(0);
    expect(free).toBeLessThanOrEqual(total);
  });
});

describe("full disks", () => {
  test("a full disk is an error of the store with the free space and the option to change", () => {
    const room = new FreeSpace("/store", undefined, new Disk(4_999e6, 100e9).measure);
    for (const act of [() => room.reserve(0), () => room.reserve(1), () => room.measure()]) {
      let error: unknown;
      try {
        act();
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      const { code, message, retry } = error as FramesError;
      expect([code, retry]).toEqual(["store", "always"]);
      expect(message).toBe(
        "The disk of /store is full: 4999 MB are free, --reserve is 5000 MB; delete files, or run frames serve with --keep",
      );
    }
  });

  test("a full disk accepts frames again when space is freed", () => {
    const disk = new Disk(1000, 10_000);
    const room = new FreeSpace("/store", 1000, disk.measure);
    expect(thrownCode(() => room.reserve(1))).toBe("store");
    disk.free = 1100;
    room.reserve(99);
    // Together with the bytes reserved since, the limit is exceeded.
    expect(thrownCode(() => room.reserve(100))).toBe("store");
    disk.free = 2000;
    room.reserve(100);
  });

  test("a disk accepts small frames while large ones do not fit", () => {
    const room = new FreeSpace("/store", 0, new Disk(1000, 10_000).measure);
    expect(thrownCode(() => room.reserve(1000))).toBe("store");
    room.reserve(500);
    room.measure(100);
    expect(thrownCode(() => room.measure(1000))).toBe("store");
  });
});

describe("disks without inodes", () => {
  for (const freeInodes of [0, 1, 9]) {
    test(`a disk with ${freeInodes} free inodes is full, and its error tells inodes from bytes`, () => {
      const disk = new Disk(1e9, 2e9);
      disk.freeInodes = freeInodes;
      const room = new FreeSpace("/store", 0, disk.measure);
      const acts = [() => room.reserve(1), () => room.checkAdmission(), () => room.check()];
      for (const act of acts) {
        const { code, message } = refusal(act);
        expect(code).toBe("store");
        expect(message).toBe(
          `The disk of /store can hold no more files: it has free bytes, but ${freeInodes} free inodes (df -i); remove files there, or use a disk with more inodes`,
        );
      }
      disk.freeInodes = 10;
      for (const act of acts) act();
    });
  }

  for (const freeInodes of [undefined, 10, 1e9]) {
    test(`a disk with ${freeInodes ?? "no limit of"} inodes is not full`, () => {
      const disk = new Disk(1e9, 2e9);
      disk.freeInodes = freeInodes;
      const room = new FreeSpace("/store", 0, disk.measure);
      room.check();
      room.checkAdmission();
      room.reserve(1);
    });
  }

  test("a store without inodes is not ready, admits no sender, and is ready again with inodes", async () => {
    const disk = new Disk(1e9, 2e9);
    await withStore(
      temporaryFolder(),
      async (store) => {
        const source = openVisible(store);
        expect(await putAll(store, source, [["1", bytesOf(100)]])).toEqual(["stored"]);
        disk.freeInodes = 0;
        expect(thrownCode(() => store.contents.checkReady())).toBe("store");
        expect(thrownCode(() => store.isStreamEmpty("run7"))).toBe("store");
        expect(thrownCode(() => put(source, "2", bytesOf(1)))).toBe("store");
        disk.freeInodes = 1000;
        store.contents.checkReady();
        expect(await putAll(store, source, [["2", bytesOf(1)]])).toEqual(["stored"]);
      },
      { reserve: 0, diskSpace: disk.measure },
    );
  });
});

describe("measurements", () => {
  test("free space is measured once for many frames, and again when it is used up", () => {
    const disk = new Disk(1_000_000, 10_000_000);
    const room = new FreeSpace("/store", 0, disk.measure);
    for (let count = 0; count < 999; count++) room.reserve(1000);
    expect(disk.looks).toHaveLength(1);
    // Another measurement found more space, because files were removed or were smaller than
    // reserved.
    for (let count = 0; count < 999; count++) room.reserve(1000);
    expect(disk.looks).toHaveLength(2);
    room.invalidate();
    disk.looks = [];
    room.reserve(1);
    room.reserve(1);
    expect(disk.looks).toHaveLength(1);
  });
});

describe("store on a full disk", () => {
  test("a store on a full disk refuses a new frame before it begins, and confirms stored ones", async () => {
    const directory = temporaryFolder();
    const disk = new Disk(10_000, 100_000);
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        expect(await storeFrame(source, "1", bytesOf(100), { captured: 1n })).toBe("stored");
        await store.flush();
        disk.free = 5000;
        expect(thrownCode(() => store.isStreamEmpty("run7"))).toBe("store");
        expect(thrownCode(() => store.isStreamEmpty("run8"))).toBe("store");
        expect(thrownCode(() => put(source, "2", bytesOf(1)))).toBe("store");
        expect(partials(directory)).toEqual([]);
        // A stored frame needs no space.
        expect(await storeFrame(source, "1", bytesOf(100))).toBe("present");
        expect(source.compare([offered("1", bytesOf(100))])[0]!).toBe("stored");
        await store.flush();
        // With free space everything works again.
        disk.free = 6000;
        expect(store.isStreamEmpty("run7")).toBe(false);
        expect(await storeFrame(source, "2", bytesOf(1))).toBe("stored");
      },
      { reserve: undefined, diskSpace: disk.measure },
    );
    expect(names(directory)).toEqual(["1", "2"]);
  });

  test("a store whose disk cannot be measured fails until it can be", async () => {
    const disk = new Disk(10_000, 100_000);
    let isBroken = false;
    const measure = (path: string): DiskSpace => {
      if (isBroken) throw Object.assign(new Error("EIO: as the system says it"), { code: "EIO" });
      return disk.measure(path);
    };
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        expect(await putAll(store, source, [["1", bytesOf(100)]])).toEqual(["stored"]);
        isBroken = true;
        // Any error of the system must become a `store` error, which the server handles.
        expect(thrownCode(() => store.isStreamEmpty("run7"))).toBe("store");
        expect(thrownCode(() => put(source, "2", bytesOf(100)))).toBe("store");
        expect(partials(directory)).toEqual([]);
        isBroken = false;
        expect(store.isStreamEmpty("run7")).toBe(false);
        expect(await putAll(store, source, [["2", bytesOf(100)]])).toEqual(["stored"]);
      },
      { reserve: 0, diskSpace: measure },
    );
    expect(names(directory)).toEqual(["1", "2"]);
  });

  test("a store keeps the configured reserve free", async () => {
    const disk = new Disk(10_000, 100_000);
    await withStore(
      temporaryFolder(),
      async (store) => {
        const source = openVisible(store);
        expect(thrownCode(() => put(source, "large", bytesOf(7000)))).toBe("store");
        expect(await storeFrame(source, "small", bytesOf(6999))).toBe("stored");
      },
      { reserve: 3000, diskSpace: disk.measure },
    );
  });

  test("a store measures its disk again with each flush, and rarely between flushes", async () => {
    const disk = new Disk(1e9, 1e10);
    await withStore(
      temporaryFolder(),
      async (store) => {
        const source = openVisible(store);
        for (let batch = 0; batch < 5; batch++) {
          disk.looks = [];
          const frames = Array.from({ length: 50 }, (_, index) => {
            return [`${batch}-${index}`, bytesOf(100, index + 1)] as const;
          });
          await putAll(store, source, frames);
          expect(disk.looks).toHaveLength(1);
        }
        // Space used by other programs is noticed with the next batch.
        disk.free = 0;
        expect(thrownCode(() => put(source, "last", bytesOf(1)))).toBe("store");
      },
      { reserve: 0, diskSpace: disk.measure },
    );
  });

  for (const conflict of ["fail", "replace"] as const) {
    test(`a ${conflict === "replace" ? "replacing" : "new"} frame is refused on a full disk`, async () => {
      const directory = temporaryFolder();
      const disk = new Disk(1e6, 1e7);
      await withStore(
        directory,
        async (store) => {
          const source = openVisible(store, { conflict });
          expect(await putAll(store, source, [["1", bytesOf(100)]])).toEqual(["stored"]);
          disk.free = 50;
          const act = () => put(source, conflict === "replace" ? "1" : "2", bytesOf(100, 2));
          expect(thrownCode(act)).toBe("store");
          disk.free = 1e6;
          expect(await putAll(store, source, [["3", bytesOf(3)]])).toEqual(["stored"]);
        },
        { reserve: 0, diskSpace: disk.measure },
      );
    });
  }
});
