// Retention: which frames are deleted, what is deleted with them, and what is remembered.
//
// Covers: store/verify/store-verifier.ts, store/verify/verify-directory.ts

import { Database } from "bun:sqlite";
import { describe, expect, spyOn, test } from "bun:test";
import * as fs from "node:fs";
import { existsSync, lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import type { SourceInfo, FrameStore, OfferedFrame, OfferStatus } from "../../../src/frame.ts";
import type {
  DirectoryStore,
  DirectoryStoreOptions,
} from "../../../src/store/directory/directory-store.ts";
import type { RetentionHold, RetentionLimit } from "../../../src/store/directory/retention.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { verify } from "../../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { within } from "../../helper/time.ts";
import { bytesOf, openSource, outcomeCode, session, storeFrame, thrownCode } from "../contract.ts";
import {
  filesIn,
  names,
  now,
  offered,
  offeredByTime,
  openStore,
  openVisible,
  otherSession,
  put,
  putAll,
  rows,
  withStore,
} from "../fixture.ts";

const captured = 1_795_331_523_123_456_789n;
const day = 86_400_000;
const week: RetentionLimit = { milliseconds: 7 * day };
const hundred = bytesOf(100);

/** A wall clock set by the test. */
class Clock {
  time = now;
  readonly read = (): number => this.time;
}

/** Runs `act` with a store that has these retention limits, and believes its clock at once. */
async function keeping<T>(
  keep: RetentionLimit,
  act: (store: DirectoryStore, clock: Clock, directory: string) => Promise<T>,
  options: Partial<DirectoryStoreOptions> = {},
): Promise<T> {
  const directory = temporaryFolder();
  const clock = new Clock();
  return await withStore(directory, (store) => act(store, clock, directory), {
    keep,
    clock: clock.read,
    clockTrustMs: 0,
    ...options,
  });
}

/** Deletes everything over the limits. Returns the number of steps. */
async function removeAll(store: DirectoryStore): Promise<number> {
  let steps = 0;
  while (await store.retention!.step()) {
    if (++steps > 10_000) throw new Error("there is no end to it");
  }
  return steps;
}

/** Stores frames of 100 bytes with these names, numbered from `sequence`. */
async function storeAll(
  store: FrameStore,
  frames: readonly string[],
  origin: Partial<SourceInfo> = {},
  sequence = 1,
): Promise<void> {
  const { stream = "run7", source = "visible" } = origin;
  const opened = openSource(store, stream, source, origin);
  for (const [index, name] of frames.entries()) {
    const more = { sequence: sequence + index, captured };
    expect(await storeFrame(opened, name, hundred, more)).toBe("stored");
  }
  await store.flush();
}

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${index + 1}.png`);
}

describe("retention by age", () => {
  test("retention deletes frames that arrived before the limit, with their rows, and no others", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, ["1", "2"]);
      clock.time += 5 * day;
      await storeAll(store, ["3", "4"], {}, 3);
      await removeAll(store);
      expect(names(directory)).toEqual(["1", "2", "3", "4"]);
      clock.time += 2 * day;
      await removeAll(store);
      expect(names(directory)).toEqual(["3", "4"]);
      expect([...filesIn(directory).keys()].sort()).toEqual(["run7/visible/3", "run7/visible/4"]);
    });
  });

  test("retention ignores capture times", async () => {
    await keeping(week, async (store, clock, directory) => {
      const source = openVisible(store);
      await putAll(store, source, [["old", hundred, { captured: 0n }]]);
      await putAll(store, source, [["new", hundred, { captured: 2n ** 62n }]]);
      await removeAll(store);
      expect(names(directory)).toEqual(["old", "new"]);
      clock.time += 8 * day;
      await storeAll(store, ["now"], {}, 10);
      await removeAll(store);
      expect(names(directory)).toEqual(["now"]);
    });
  });

  test("retention by age keeps the newest frame of the store", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, ["1", "2", "3"]);
      clock.time += 100 * day;
      await removeAll(store);
      expect(names(directory)).toEqual(["3"]);
      await storeAll(store, ["4"], {}, 4);
      await removeAll(store);
      expect(rows(directory, "SELECT id, name FROM frames")).toEqual([{ id: 4n, name: "4" }]);
    });
  });

  test("retention does not delete frames early that arrived while the server's clock was behind", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, ["before"]);
      const { time } = clock;
      clock.time = 0;
      await storeAll(store, ["without a clock"], {}, 2);
      clock.time = time + day;
      await storeAll(store, ["after"], {}, 3);
      await removeAll(store);
      expect(names(directory)).toEqual(["before", "without a clock", "after"]);
      clock.time = time + 7.5 * day;
      await removeAll(store);
      expect(names(directory)).toEqual(["after"]);
    });
  });

  test("retention deletes frames that arrived while the server's clock was ahead", async () => {
    await keeping(week, async (store, clock, directory) => {
      const { time } = clock;
      clock.time = time + 10_000 * day;
      await storeAll(store, ["ahead 1"]);
      clock.time = time;
      await storeAll(store, ["right"], {}, 2);
      clock.time = time + 10_000 * day;
      await storeAll(store, ["ahead 2"], {}, 3);
      clock.time = time + 5 * day;
      await storeAll(store, ["last"], {}, 4);
      await removeAll(store);
      expect(names(directory)).toEqual(["ahead 1", "right", "ahead 2", "last"]);
      clock.time = time + 8 * day;
      await removeAll(store);
      expect(names(directory)).toEqual(["last"]);
    });
  });

  test("retention deletes losses before the limit, without leaving a gap", async () => {
    await keeping(week, async (store, clock, directory) => {
      const source = openVisible(store);
      source.recordLoss(1, 10, new FramesError("dropped"));
      await store.flush();
      clock.time += 6 * day;
      source.recordLoss(11, 20, new FramesError("dropped"));
      await storeAll(store, ["21"], {}, 21);
      await removeAll(store);
      const losses = () => rows(directory, "SELECT first FROM losses");
      expect(losses()).toEqual([{ first: 1n }, { first: 11n }]);
      clock.time += 2 * day;
      await removeAll(store);
      expect(losses()).toEqual([{ first: 11n }]);
      expect(rows(directory, "SELECT first, last FROM accounted")).toEqual([
        { first: 0n, last: 10n },
      ]);
    });
  });

  test("retention deletes 1,000 losses in steps", async () => {
    await keeping(week, async (store, clock, directory) => {
      const source = openVisible(store);
      for (let number = 2; number <= 2000; number += 2) {
        source.recordLoss(number, number, new FramesError("dropped"));
      }
      await store.flush();
      clock.time += 8 * day;
      expect(await removeAll(store)).toBe(10);
      expect(rows(directory, "SELECT 1 FROM losses")).toEqual([]);
    });
  });
});

describe("retention by size", () => {
  test("retention deletes the oldest frames until the rest fits the size limit", async () => {
    await keeping({ bytes: 350 }, async (store, _, directory) => {
      await storeAll(store, ["b", "a", "d", "c", "e"]);
      await removeAll(store);
      expect(names(directory)).toEqual(["d", "c", "e"]);
      expect(await removeAll(store)).toBe(0);
      await storeAll(store, ["f"], {}, 6);
      await removeAll(store);
      expect(names(directory)).toEqual(["c", "e", "f"]);
      expect(filesIn(directory).size).toBe(3);
    });
  });

  test("retention by size counts frames stored before the server started", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => storeAll(store, numbered(10)));
    await withStore(directory, removeAll, { keep: { bytes: 400 } });
    expect(names(directory)).toEqual(["7.png", "8.png", "9.png", "10.png"]);
  });

  test("retention by size counts a replacing frame with its own size, as the newest", async () => {
    await keeping({ bytes: 1000 }, async (store, _, directory) => {
      await storeAll(store, ["1", "2", "3"]);
      await removeAll(store);
      const replacing = openVisible(store, { conflict: "replace" });
      expect(await putAll(store, replacing, [["1", bytesOf(850)]])).toEqual(["stored"]);
      await removeAll(store);
      expect(names(directory)).toEqual(["3", "1"]);
      // With 100 and 850 bytes stored, 50 more fit.
      expect(await putAll(store, openVisible(store), [["4", bytesOf(50)]])).toEqual(["stored"]);
      await removeAll(store);
      expect(names(directory)).toEqual(["3", "1", "4"]);
    });
  });

  test("retention by size does not count refused or present frames", async () => {
    await keeping({ bytes: 200 }, async (store, _, directory) => {
      await storeAll(store, ["1", "2"]);
      await removeAll(store);
      const source = openVisible(store);
      for (let times = 0; times < 10; times++) {
        const outcomes = await putAll(store, source, [
          ["1", hundred],
          ["2", bytesOf(99)],
        ]);
        expect(outcomes).toEqual(["present", "conflict"]);
      }
      await removeAll(store);
      expect(names(directory)).toEqual(["1", "2"]);
    });
  });

  test("the byte total stays right after the journal could not be written", async () => {
    await keeping({ bytes: 300 }, async (store, _, directory) => {
      await storeAll(store, ["1", "2"]);
      await removeAll(store);
      const database = new Database(journalPath(directory));
      database.run(
        "CREATE TRIGGER full BEFORE INSERT ON frames BEGIN SELECT RAISE(ROLLBACK, 'full'); END",
      );
      expect(outcomeCode(await storeFrame(openVisible(store), "x", bytesOf(5000)))).toBe("store");
      expect(() => store.flush()).toThrow();
      database.run("DROP TRIGGER full");
      database.close();
      rmSync(join(directory, "run7/visible/x"));
      await storeAll(store, ["3", "4"], {}, 3);
      await removeAll(store);
      expect(names(directory)).toEqual(["2", "3", "4"]);
    });
  });

  test("retention by size deletes losses with the frames of their time", async () => {
    await keeping({ bytes: 200 }, async (store, _, directory) => {
      const source = openVisible(store);
      source.recordLoss(2, 4, new FramesError("dropped"));
      source.recordLoss(8, 9, new FramesError("dropped"));
      await storeAll(store, ["1"], {}, 1);
      await storeAll(store, ["5", "6", "7"], {}, 5);
      await removeAll(store);
      expect(names(directory)).toEqual(["6", "7"]);
      expect(rows(directory, "SELECT first FROM losses")).toEqual([{ first: 8n }]);
    });
  });

  test("the byte total of a large store is computed in steps", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => storeAll(store, ["1"]));
    const database = new Database(journalPath(directory));
    database.run(`INSERT INTO frames (stream, source, name, session, seq, bytes, crc32, captured, received)
      WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < 50000)
      SELECT 'run7', 'visible', n, '${session}', n, 10, 0, 0, 0 FROM numbers`);
    database.close();
    await withStore(
      directory,
      async (store) => {
        expect(await store.retention!.step()).toBe(true);
        // Frames stored in the meantime count too.
        await storeAll(store, ["a", "b"], {}, 50_001);
        await removeAll(store);
      },
      { keep: { bytes: 499_990 + 200 } },
    );
    expect(rows(directory, "SELECT count(*) AS frames, min(id) AS first FROM frames")).toEqual([
      { frames: 50_001n, first: 2n },
    ]);
  });
});

describe("retention of encoded video", () => {
  /** Stores pictures of 100 bytes: `K` is a key frame, `d` another picture, `p` a frame of no video. */
  async function storePictures(
    store: FrameStore,
    letters: string,
    origin: Partial<SourceInfo> = {},
    first = 1,
  ): Promise<void> {
    const opened = openVisible(store, origin);
    for (const [index, letter] of [...letters].entries()) {
      const sequence = first + index;
      const isKey = letter === "p" ? undefined : letter === "K";
      const more = { sequence, captured, isKey };
      expect(await storeFrame(opened, `${letter}${sequence}`, hundred, more)).toBe("stored");
    }
    await store.flush();
  }

  test("retention cuts before a key frame, also of the sources between which others arrive", async () => {
    await keeping({ bytes: 1000 }, async (store, _, directory) => {
      await storePictures(store, "KdddKddp");
      await storePictures(store, "pp", { source: "other" });
      await storePictures(store, "dd", {}, 9);
      await removeAll(store);
      // The limit needs two frames less. The others of their group are of no use.
      expect(names(directory)).toEqual(["K5", "d6", "d7", "p8", "p1", "p2", "d9", "d10"]);
    });
  });

  test("retention keeps pictures without a later key frame until their age or size says so", async () => {
    await keeping({ bytes: 500 }, async (store, _, directory) => {
      await storePictures(store, "Kddddd");
      await removeAll(store);
      expect(names(directory)).toEqual(["d2", "d3", "d4", "d5", "d6"]);
      await storePictures(store, "K", {}, 7);
      await storePictures(store, "d", {}, 8);
      await removeAll(store);
      expect(names(directory)).toEqual(["K7", "d8"]);
    });
  });

  test("retention leaves pictures that a follower still needs", async () => {
    await keeping({ bytes: 500 }, async (store, _, directory) => {
      const hold = { needs: ({ id }: { id: number }) => id > 2, onPassedOver: () => {} };
      store.retention!.holds.add(hold);
      await storePictures(store, "KddKdd");
      await removeAll(store);
      expect(names(directory)).toEqual(["d3", "K4", "d5", "d6"]);
      store.retention!.holds.delete(hold);
      await removeAll(store);
      expect(names(directory)).toEqual(["K4", "d5", "d6"]);
    });
  });
});

describe("steps of retention", () => {
  /** Removes everything over the limits, with 6 ms for each file. Returns the number of steps. */
  async function removeSlowly(store: DirectoryStore): Promise<number> {
    const unlink = fs.unlinkSync;
    const spied = spyOn(fs, "unlinkSync").mockImplementation((path) => {
      unlink(path);
      Bun.sleepSync(6);
    });
    try {
      return await removeAll(store);
    } finally {
      spied.mockRestore();
    }
  }

  test("a retention step deletes at most 100 frames", async () => {
    await keeping({ bytes: 100 }, async (store, _, directory) => {
      await storeAll(store, numbered(250));
      const left: number[] = [];
      // The first step only computes the sum.
      while (await store.retention!.step()) left.push(names(directory).length);
      for (const [index, frames] of left.entries()) {
        expect((left[index - 1] ?? 250) - frames).toBeLessThanOrEqual(100);
      }
      expect(left.at(-1)).toBe(1);
    });
  });

  test("a retention step stops when its time is over, and the next one continues", async () => {
    await keeping({ bytes: 100 }, async (store, _, directory) => {
      await storeAll(store, numbered(20));
      // Deleting two files exceeds the time of a step.
      expect(await removeSlowly(store)).toBeGreaterThanOrEqual(9);
      expect(names(directory)).toEqual(["20.png"]);
      expect(rows(directory, "SELECT 1 FROM removing")).toEqual([]);
    });
  });

  test("a step by age that stops early leaves expired frames beside younger ones to the next", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, numbered(4));
      clock.time += 8 * day;
      await storeAll(store, ["young", "younger"], {}, 5);
      clock.time += day;
      expect(await removeSlowly(store)).toBeGreaterThanOrEqual(2);
      expect(names(directory)).toEqual(["young", "younger"]);
    });
  });

  test("retention removes empty folders of sources and streams, but not the store itself", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, ["1"], { stream: "old", source: "site/cam-3" });
      await storeAll(store, ["1"], { stream: "old", source: "site/cam-4" });
      await storeAll(store, ["1"], { stream: "other", source: "other" });
      clock.time += 8 * day;
      await storeAll(store, ["1"], { stream: "new", source: "visible" });
      await removeAll(store);
      expect(fs.readdirSync(directory).sort()).toEqual([".frames", "new"]);
    });
  });

  test("retention keeps folders that contain other files", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, ["1"]);
      writeFileSync(join(directory, "run7/visible/.note"), "");
      clock.time += 8 * day;
      await storeAll(store, ["1"], { stream: "new" });
      await removeAll(store);
      expect(fs.readdirSync(join(directory, "run7/visible"))).toEqual([".note"]);
    });
  });

  test("a frame being written is stored although retention removes its folder", async () => {
    for (const durable of [false, true]) {
      await keeping(
        { bytes: 100 },
        async (store, _, directory) => {
          const source = openVisible(store);
          await putAll(store, source, [["1", hundred]]);
          await storeAll(store, ["2"], { stream: "run8" });
          const writer = source.begin({
            ...{ name: "3", sequence: 3, captured, size: 100, metadata: "" },
          });
          writer.write(hundred);
          await removeAll(store);
          expect(existsSync(join(directory, "run7"))).toBe(false);
          const outcome = writer.finish(crc32(hundred));
          await store.flush();
          expect(await outcome).toBe("stored");
          expect([...filesIn(directory).keys()].sort()).toEqual([
            "run7/visible/3",
            "run8/visible/2",
          ]);
        },
        { durable },
      );
    }
  });

  test("retention deletes only files that the store created", async () => {
    await keeping({ bytes: 100 }, async (store, _, directory) => {
      await storeAll(store, ["link", "changed", "folder", "away", "mine", "last"]);
      const folder = join(directory, "run7/visible");
      const elsewhere = join(directory, "../elsewhere");
      writeFileSync(elsewhere, hundred);
      for (const name of ["link", "folder", "away"]) rmSync(join(folder, name));
      symlinkSync(elsewhere, join(folder, "link"));
      mkdirSync(join(folder, "folder"));
      writeFileSync(join(folder, "changed"), "somebody's own");
      await removeAll(store);
      expect(names(directory)).toEqual(["last"]);
      expect(fs.readdirSync(folder).sort()).toEqual(["changed", "folder", "last", "link"]);
      expect(lstatSync(elsewhere).size).toBe(100);
    });
  });

  test("retention deletes no files behind a link in place of a folder", async () => {
    await keeping(week, async (store, clock, directory) => {
      await storeAll(store, ["1"]);
      const elsewhere = join(temporaryFolder(), "elsewhere");
      fs.renameSync(join(directory, "run7"), elsewhere);
      symlinkSync(elsewhere, join(directory, "run7"));
      clock.time += 8 * day;
      await storeAll(store, ["1"], { stream: "new" });
      await removeAll(store);
      expect(existsSync(join(elsewhere, "visible/1"))).toBe(true);
      expect(rows(directory, "SELECT stream FROM frames")).toEqual([{ stream: "new" }]);
    });
  });

  /** A receiver of the stream `followed` that has its frames up to the id `has`. */
  class Follower implements RetentionHold {
    has = 0;
    readonly passedOver: number[] = [];

    needs({ id, stream }: { id: number; stream: string }): boolean {
      return stream === "followed" && id > this.has;
    }

    onPassedOver({ id }: { id: number }): void {
      this.passedOver.push(id);
    }
  }

  const minute = 60_000;

  test("retention keeps frames that a follower still needs", async () => {
    await keeping({ bytes: 1000 }, async (store, clock, directory) => {
      await storeAll(store, numbered(1), { stream: "followed" });
      await storeAll(store, numbered(150), { stream: "other" });
      const follower = new Follower();
      store.retention!.holds.add(follower);
      await removeAll(store);
      // Frames of others do not give way to the one that waits.
      expect(names(directory)).toEqual(["1.png", ...numbered(150).slice(140)]);
      follower.has = 1;
      // The limits are checked again after a minute.
      expect(await removeAll(store)).toBe(0);
      clock.time += minute;
      await removeAll(store);
      expect(names(directory)).toEqual(numbered(150).slice(140));
      expect(follower.passedOver).toEqual([]);
    });
  });

  test("frames that wait for a follower take a tenth of the limit, and the oldest of them are passed over", async () => {
    await keeping({ bytes: 3000 }, async (store, _, directory) => {
      const follower = new Follower();
      store.retention!.holds.add(follower);
      await storeAll(store, numbered(100), { stream: "followed" });
      await removeAll(store);
      expect(names(directory)).toEqual(numbered(100).slice(67));
      expect(follower.passedOver).toEqual(Array.from({ length: 67 }, (_, index) => index + 1));
      // Also while more arrive, before those that wait are considered again.
      for (let round = 0; round < 5; round++) {
        await storeAll(store, [`${round}`], { stream: "followed" }, 101 + round);
        await removeAll(store);
        expect(names(directory)).toHaveLength(33);
      }
      expect(follower.passedOver).toHaveLength(72);
    });
  });

  test("a frame waits 10 minutes for a follower, however often that connects again", async () => {
    for (const keep of [{ bytes: 10_000 }, { milliseconds: 7 * day }] as const) {
      await keeping(keep, async (store, clock, directory) => {
        const { holds } = store.retention!;
        await storeAll(store, numbered(3), { stream: "followed" });
        if ("milliseconds" in keep) clock.time += 8 * day;
        await storeAll(store, numbered(100), { stream: "other" });
        let followers = 0;
        const passedOver: number[] = [];
        for (let minutes = 0; minutes < 11; minutes++) {
          holds.clear();
          const follower = new Follower();
          follower.onPassedOver = ({ id }) => void passedOver.push(id);
          holds.add(follower);
          followers++;
          await removeAll(store);
          if (passedOver.length > 0) break;
          expect(names(directory).slice(0, 3)).toEqual(numbered(3));
          clock.time += minute;
        }
        expect([followers, passedOver]).toEqual([11, [1, 2, 3]]);
        expect(names(directory)).toEqual(numbered(100));
      });
    }
  });

  test("a frame that no longer exceeds the limit is not passed over after 10 minutes", async () => {
    await keeping({ bytes: 1000 }, async (store, clock, directory) => {
      const follower = new Follower();
      store.retention!.holds.add(follower);
      await storeAll(store, numbered(11), { stream: "followed" });
      await removeAll(store);
      const smaller = openVisible(store, { stream: "followed", conflict: "replace" });
      expect(await putAll(store, smaller, [["11.png", bytesOf(0)]])).toEqual(["stored"]);
      for (let minutes = 0; minutes < 15; minutes++) {
        clock.time += minute;
        await removeAll(store);
      }
      expect(names(directory)).toEqual(numbered(11));
      expect(follower.passedOver).toEqual([]);
    });
  });

  test("retention keeps a file that the system does not let it delete, and tries again", async () => {
    await keeping({ bytes: 100 }, async (store, clock, directory) => {
      await storeAll(store, ["1", "2", "3"]);
      const unlink = fs.unlinkSync;
      const spied = spyOn(fs, "unlinkSync").mockImplementation((path) => {
        if (String(path).endsWith("/1")) throw Object.assign(new Error("busy"), { code: "EBUSY" });
        unlink(path);
      });
      try {
        await removeAll(store);
      } finally {
        spied.mockRestore();
      }
      expect(names(directory)).toEqual(["1", "3"]);
      expect([...filesIn(directory).keys()].sort()).toEqual(["run7/visible/1", "run7/visible/3"]);
      clock.time += 60_000;
      await removeAll(store);
      expect(names(directory)).toEqual(["3"]);
    });
  });

  test("retention steps and flushes can run at the same time", async () => {
    await keeping(
      { bytes: 1000 },
      async (store, _, directory) => {
        await storeAll(store, numbered(10));
        await removeAll(store);
        const replacing = openVisible(store, { conflict: "replace" });
        // Started together: flushes and steps take turns.
        const outcomes: (string | Promise<unknown>)[] = [];
        for (let round = 0; round < 30; round++) {
          const name = `${(round % 10) + 1}.png`;
          outcomes.push(
            Promise.resolve(put(replacing, name, bytesOf(300, round + 2))),
            Promise.resolve(store.flush()),
            store.retention!.step(),
          );
        }
        await Promise.all(outcomes);
        await removeAll(store);
        const files = filesIn(directory);
        expect(files.size).toBe(names(directory).length);
        type Row = { name: string; crc32: bigint };
        for (const row of rows<Row>(directory, "SELECT name, crc32 FROM frames")) {
          const bytes = files.get(`run7/visible/${row.name}`)!;
          expect([row.name, BigInt(crc32(bytes))]).toEqual([row.name, row.crc32]);
        }
      },
      { durable: true },
    );
  });
});

describe("retention with portable names", () => {
  test("retention releases the names of deleted frames and of their folders", async () => {
    await keeping(
      { bytes: 100 },
      async (store, _, directory) => {
        await storeAll(store, ["a"], { source: "Visible/Left" });
        await storeAll(store, ["b", "c"], { source: "Visible/Right" });
        const folded = () =>
          rows<{ actual: string }>(directory, "SELECT actual FROM folded ORDER BY actual").map(
            ({ actual }) => actual,
          );
        expect(thrownCode(() => openSource(store, "run7", "visible"))).toBe("unportable-name");
        await removeAll(store);
        expect(folded()).toEqual([
          "run7",
          "run7/Visible",
          "run7/Visible/Right",
          "run7/Visible/Right/c",
        ]);
        await storeAll(store, ["x"], { stream: "RUN8", source: "LEFT" });
        await removeAll(store);
        expect(folded()).toEqual(["RUN8", "RUN8/LEFT", "RUN8/LEFT/x"]);
        await storeAll(store, ["x"], { source: "visible/LEFT" });
      },
      { portableNames: true },
    );
  });

  test("a folder name stays reserved while frames that were moved away have rows", async () => {
    await keeping(
      { bytes: 200 },
      async (store, _, directory) => {
        await storeAll(store, ["a", "b", "c"], { source: "Visible" });
        for (const name of ["b", "c"]) rmSync(join(directory, "run7/Visible", name));
        await removeAll(store);
        expect(existsSync(join(directory, "run7"))).toBe(false);
        expect(thrownCode(() => openSource(store, "run7", "visible"))).toBe("unportable-name");
      },
      { portableNames: true },
    );
  });
});

describe("offers of frames deleted by retention", () => {
  const cases: [what: string, offer: OfferedFrame, origin: Partial<SourceInfo>, OfferStatus][] = [
    ["is answered removed", offered("1", hundred, { captured }), {}, "removed"],
    [
      "without its CRC-32 is answered removed",
      offeredByTime("1", hundred, captured),
      {},
      "removed",
    ],
    [
      "from another session is answered removed",
      offered("1", hundred),
      { session: otherSession },
      "removed",
    ],
    [
      "from a sender that verifies stored frames is answered removed",
      offered("1", hundred),
      { verifyStored: true } as object,
      "removed",
    ],
    [
      "with another time needs a checksum",
      offeredByTime("1", hundred, captured + 5000n),
      {},
      "needsChecksum",
    ],
    [
      "with other bytes is answered wanted",
      offered("1", bytesOf(100, 2), { captured }),
      {},
      "wanted",
    ],
    [
      "with another size is answered wanted",
      offeredByTime("1", bytesOf(99), captured),
      {},
      "wanted",
    ],
    ["under another name is answered wanted", offered("x", hundred, { captured }), {}, "wanted"],
    ["with --again is answered wanted", offered("1", hundred), { resendRemoved: true }, "wanted"],
  ];
  for (const [what, offer, origin, standing] of cases) {
    test(`an offer of a frame deleted by retention ${what}`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, (store) => storeAll(store, ["1", "2"]));
      await withStore(directory, removeAll, { keep: { bytes: 100 } });
      // Also by a server without retention.
      await withStore(directory, async (store) => {
        expect(openVisible(store, origin).compare([offer])).toEqual([standing]);
        await store.flush();
        expect(openVisible(store).compare([offered("2", hundred)])).toEqual(["stored"]);
      });
    });
  }

  test("a frame deleted by retention is stored again with --again, as the newest", async () => {
    await keeping({ bytes: 200 }, async (store, _, directory) => {
      await storeAll(store, ["1", "2", "3"]);
      await removeAll(store);
      const source = openVisible(store, { resendRemoved: true, session: otherSession });
      expect(await putAll(store, source, [["1", hundred]])).toEqual(["stored"]);
      await removeAll(store);
      expect(names(directory)).toEqual(["3", "1"]);
      await storeAll(store, ["4", "5"], {}, 4);
      await removeAll(store);
      expect(names(directory)).toEqual(["4", "5"]);
      expect(rows(directory, "SELECT count(*) AS count FROM removed")).toEqual([{ count: 3n }]);
    });
  });

  test("a stream whose frames were all deleted by retention does not count as empty", async () => {
    await keeping({ bytes: 100 }, async (store) => {
      await storeAll(store, ["1"]);
      await storeAll(store, ["1"], { stream: "run8" });
      await removeAll(store);
      // Otherwise the sender would conclude that the store was replaced.
      expect(store.isStreamEmpty("run7")).toBe(false);
      expect(store.isStreamEmpty("run9")).toBe(true);
    });
  });

  test("frames deleted by retention are still known after verify rebuilt the journal", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => storeAll(store, ["1", "2"]));
    await withStore(directory, removeAll, { keep: { bytes: 100 } });
    const database = new Database(journalPath(directory));
    database.run("DROP TABLE replacements");
    database.run("DROP TABLE losses");
    database.close();
    expect((await verify(directory, { repair: true })).rebuilt).toBe(1);
    await withStore(directory, (store) => {
      expect(openVisible(store).compare([offered("1", hundred)])).toEqual(["removed"]);
      expect(store.isStreamEmpty("run7")).toBe(false);
    });
    expect(rows(directory, "SELECT first, last FROM accounted WHERE first = 0")).toEqual([
      { first: 0n, last: 1n },
    ]);
  });
});

describe("server killed during retention", () => {
  /** Creates a store in which the deletion of the first two of three frames was only recorded. */
  async function begun(): Promise<string> {
    const directory = temporaryFolder();
    await withStore(directory, (store) => storeAll(store, ["1", "2", "3"]));
    const database = new Database(journalPath(directory));
    database.run("INSERT INTO removing (id) VALUES (1), (2)");
    database.close();
    return directory;
  }

  test("deletions recorded before a crash are completed at the next start, with any limits", async () => {
    for (const keep of [undefined, week]) {
      const directory = await begun();
      expect(await verify(directory)).toMatchObject({ frames: 3, missing: 0, unknown: 0 });
      openStore(directory, { keep }).close();
      expect(names(directory)).toEqual(["3"]);
      expect([...filesIn(directory).keys()].sort()).toEqual(["run7/visible/3"]);
      expect(rows(directory, "SELECT 1 FROM removing")).toEqual([]);
      expect(await verify(directory)).toMatchObject({ frames: 1, missing: 0, unknown: 0 });
    }
  });

  test("files deleted before a crash are not missing, and the deletion is completed", async () => {
    const directory = await begun();
    rmSync(join(directory, "run7/visible/1"));
    rmSync(join(directory, "run7/visible/2"));
    expect(await verify(directory)).toMatchObject({ missing: 0, unknown: 0 });
    openStore(directory).close();
    expect(names(directory)).toEqual(["3"]);
    await withStore(directory, (store) => {
      const again = ["1", "2", "3"].map((name) => offered(name, hundred));
      expect(openVisible(store).compare(again)).toEqual(["removed", "removed", "stored"]);
    });
  });

  test("a removed file without a recorded deletion is missing", async () => {
    const directory = await begun();
    for (const name of ["1", "3"]) rmSync(join(directory, "run7/visible", name));
    expect(await verify(directory)).toMatchObject({ missing: 1, unknown: 0 });
  });
});

describe("store without retention", () => {
  test("a store without retention limits deletes no frames", async () => {
    const directory = temporaryFolder();
    const clock = new Clock();
    await withStore(
      directory,
      async (store) => {
        await storeAll(store, numbered(10));
        clock.time += 10_000 * day;
        expect(store.retention).toBeUndefined();
      },
      { clock: clock.read },
    );
    await withStore(directory, () => {}, { clock: clock.read });
    expect(names(directory)).toEqual(numbered(10));
  });
});

describe("running retention", () => {
  test("started retention reports what it deleted, and stops with the store", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => storeAll(store, numbered(500)));
    const store = openStore(directory, { keep: { bytes: 1000 } });
    const { promise, resolve } = Promise.withResolvers<unknown>();
    store.retention!.start(resolve);
    const told = await within(promise, () => "nothing was removed");
    expect(told).toEqual({ frames: 490, bytes: 49_000, undeletable: 0, passedOver: 0 });
    store.close();
    expect(await store.retention!.step().catch((error: unknown) => error)).toBe(false);
    expect(names(directory)).toEqual(numbered(500).slice(490));
  });
});
