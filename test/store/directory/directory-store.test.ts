// Covers: store/conflict.ts, store/directory/copied-stream.ts,
//   store/directory/directory-contents.ts, store/directory/existing-file.ts,
//   store/directory/file-check.ts, store/directory/frame-deleter.ts, store/directory/fsync.ts,
//   store/directory/name-index.ts, store/directory/open-checks.ts,
//   store/directory/partial-file.ts, store/directory/recovery.ts,
//   store/directory/store-folder.ts, store/existing-frame-writer.ts,
//   store/journal/source-list.ts, store/lock.ts, store/offers.ts, store/paths.ts

import { Database } from "bun:sqlite";
import { afterAll, describe, expect, spyOn, test } from "bun:test";
import * as fs from "node:fs";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { listSources } from "../../../src/store/journal/source-list.ts";
import { environment, temporaryFolder } from "../../helper/program.ts";
import {
  bytesOf,
  describeFrame,
  type OpenStore,
  openSource,
  outcomeCode,
  type RecordedLoss,
  session,
  storeContract,
  storeFrame,
  thrownCode,
} from "../contract.ts";
import { alter, filesIn, names, openStore, rows, withStore } from "../fixture.ts";

function opened(directory: string, durable = false): OpenStore {
  const store = openStore(directory, { durable });
  return {
    store,
    frames: () => filesIn(directory),
    losses: () =>
      rows<Record<keyof RecordedLoss, bigint | string>>(
        directory,
        "SELECT stream, source, session, first, last, reason FROM losses",
      ).map((row) => {
        return { ...row, first: Number(row.first), last: Number(row.last) } as RecordedLoss;
      }),
    numbers: () =>
      rows<{ seq: bigint }>(directory, "SELECT seq FROM frames ORDER BY id").map(({ seq }) =>
        Number(seq),
      ),
    place(path, bytes) {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), bytes);
    },
    reopen() {
      store.close();
      return opened(directory, durable);
    },
    close: () => store.close(),
  };
}

storeContract("directory store", () => opened(temporaryFolder()));
storeContract("durable directory store", () => opened(temporaryFolder(), true));

describe("journal", () => {
  test("the journal has a row for each frame, with exact numbers", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const raw = { width: 640, height: 512, format: "gray16le" };
      const source = store.open({ stream: "run7", source: "infrared", session, raw });
      const metadata = '{"gain":1.5}';
      const description = { sequence: 42, captured: 1_795_331_523_123_456_789n, metadata };
      await storeFrame(source, "1.raw", bytesOf(1000), description);
      await storeFrame(openSource(store, "run7", "run7"), "2", bytesOf(0), {
        sequence: 2 ** 40,
        captured: -1n,
      });
      store.flush();
    });
    const all = rows(directory, "SELECT * FROM frames ORDER BY id");
    const received = 1_795_331_523_123_456_000n;
    expect(all).toEqual([
      {
        ...{ id: 1n, stream: "run7", source: "infrared", name: "1.raw", session, seq: 42n },
        ...{ bytes: 1000n, crc32: BigInt(crc32(bytesOf(1000))), captured: 1795331523123456789n },
        ...{ received, key: null, meta: '{"gain":1.5}', format: "640x512.gray16le", is_key: null },
      },
      {
        ...{ id: 2n, stream: "run7", source: "run7", name: "2", session, seq: 2n ** 40n },
        ...{
          bytes: 0n,
          crc32: 0n,
          captured: -1n,
          received,
          key: null,
          meta: null,
          format: null,
          is_key: null,
        },
      },
    ]);
    expect(Object.keys(all[0]!)).toEqual(
      "id stream source name session seq bytes crc32 captured received key meta format is_key".split(
        " ",
      ),
    );
  });

  for (const captured of [
    0n,
    1n,
    -1n,
    -1_000_000_000n,
    999_999_999_999_999_999n,
    9_007_199_254_740_993n,
    1_795_331_523_123_456_789n,
    -6_795_331_523_123_456_789n,
    2n ** 63n - 1n,
    -(2n ** 63n),
  ]) {
    test(`the journal stores the capture time ${captured} exactly`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openSource(store, "run7", "visible");
        expect(await storeFrame(source, "a", bytesOf(1), { captured })).toBe("stored");
      });
      expect(rows(directory, "SELECT captured FROM frames")).toEqual([{ captured }]);
      const [summary] = listSources(directory);
      expect(summary).toMatchObject({ firstCaptured: captured, lastCaptured: captured });
    });
  }

  test("the journal has a row for each loss", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => {
      openSource(store, "run7", "visible").recordLoss(3, 2 ** 40, new FramesError("dropped"));
    });
    expect(rows(directory, "SELECT * FROM losses")).toEqual([
      {
        ...{ stream: "run7", source: "visible", session, first: 3n, last: 2n ** 40n },
        ...{ reason: "dropped", at: 1_795_331_523_123_456_000n, name: null, state: null },
      },
    ]);
  });

  test("the journal shows no frame of a batch to other readers before the flush", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1));
      expect(names(directory)).toEqual([]);
      store.flush();
      expect(names(directory)).toEqual(["1"]);
    });
  });

  test("the journal can be read by others while the store is served", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      expect(listSources(directory)).toEqual([]);
      const visible = openSource(store, "run7", "visible");
      await storeFrame(visible, "1", bytesOf(10), { captured: 5n });
      await storeFrame(visible, "2", bytesOf(20), { captured: -5n });
      visible.recordLoss(3, 7, new FramesError("dropped"));
      await storeFrame(openSource(store, "run8", "run8"), "1", bytesOf(1), { captured: 1n });
      openSource(store, "run7", "infrared").recordLoss(1, 1, new FramesError("vanished"));
      store.flush();
      // Open readers do not block writing.
      await storeFrame(visible, "3", bytesOf(1));
      const infrared = {
        ...{ stream: "run7", source: "infrared", frames: 0, bytes: 0, lost: 1 },
        ...{ firstCaptured: null, lastCaptured: null },
      };
      const run7 = {
        ...{ stream: "run7", source: "visible", frames: 2, bytes: 30, lost: 5 },
        ...{ firstCaptured: -5n, lastCaptured: 5n },
      };
      const run8 = {
        ...{ stream: "run8", source: "run8", frames: 1, bytes: 1, lost: 0 },
        ...{ firstCaptured: 1n, lastCaptured: 1n },
      };
      expect(listSources(directory)).toEqual([infrared, run7, run8]);
      expect(listSources(directory, "run8")).toEqual([run8]);
      expect(listSources(directory, "run9")).toEqual([]);
    });
  });

  const most = Number.MAX_SAFE_INTEGER;
  const losses: [what: string, ranges: [first: number, last: number][], lost: number][] = [
    ["of all numbers 1,100 times", Array.from({ length: 1100 }, () => [1, most]), most],
    ["of all numbers once", [[1, most]], most],
    ["of all numbers but one", [[2, most]], most - 1],
    [
      "of all numbers and one of them again",
      [
        [1, most],
        [7, 7],
      ],
      most,
    ],
    [
      "of a few numbers",
      [
        [1, 3],
        [5, 5],
        [2 ** 52, 2 ** 52 + 1],
      ],
      6,
    ],
  ];
  for (const [what, ranges, lost] of losses) {
    test(`losses ${what} are summed without counting a number twice`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openSource(store, "run7", "visible");
        await storeFrame(source, "1", bytesOf(10));
        for (const [first, last] of ranges)
          source.recordLoss(first, last, new FramesError("vanished"));
        openSource(store, "run8", "run8").recordLoss(1, 2, new FramesError("vanished"));
      });
      const visible = { stream: "run7", source: "visible", frames: 1, bytes: 10, lost };
      expect(listSources(directory)).toMatchObject([
        visible,
        { stream: "run8", source: "run8", frames: 0, bytes: 0, lost: 2 },
      ]);
      expect(listSources(directory, "run7")).toMatchObject([visible]);
    });
  }

  test("listing a folder without a journal is an error that says why", () => {
    const directory = temporaryFolder();
    for (const [place, why] of [
      [directory, "it is not a store of frames"],
      [join(directory, "nowhere"), "no such directory"],
    ] as const) {
      expect(thrownCode(() => listSources(place))).toBe("missing");
      expect(() => listSources(place)).toThrow(
        `Cannot list ${place}: ${why}; name the store with --dir DIR`,
      );
    }
    expect(readdirSync(directory)).toEqual([]);
  });

  const malformed: [string, (path: string) => void][] = [
    ["is no database", (path) => writeFileSync(path, bytesOf(10_000))],
    ["is a short text file", (path) => writeFileSync(path, "this is no journal\n".repeat(10))],
    ["is a folder", (path) => (rmSync(path), mkdirSync(path))],
    ["is truncated", (path) => truncateSync(path, 5000)],
    [
      "is another program's database",
      (path) => {
        rmSync(path);
        const database = new Database(path);
        database.run("CREATE TABLE frames (x)");
        database.close();
      },
    ],
  ];
  for (const [what, spoil] of malformed) {
    test(`a journal that ${what} is an error with its path, and leaves no lock behind`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1));
      });
      const path = journalPath(directory);
      const kept = readFileSync(path);
      spoil(path);
      for (const act of [() => openStore(directory), () => listSources(directory)]) {
        let error: unknown;
        try {
          act();
        } catch (caught) {
          error = caught;
        }
        expect(error).toBeInstanceOf(FramesError);
        expect((error as FramesError).code).toBe("store");
        expect((error as FramesError).message).toContain(path);
      }
      rmSync(path, { recursive: true });
      writeFileSync(path, kept);
      await withStore(directory, (store) => expect(store.isStreamEmpty("run7")).toBe(false));
    });
  }
});

describe("files of frames", () => {
  test("a frame is stored under its name, with its capture time as modification time", async () => {
    const directory = temporaryFolder();
    const captured = 1_695_331_523_123_456_789n;
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "a/b"), "1.png", bytesOf(10), { captured });
      const { mtimeNs, size } = statSync(join(directory, "run7/a/b/1.png"), { bigint: true });
      expect(size).toBe(10n);
      const off = mtimeNs - captured;
      // The system call takes seconds as a floating-point number.
      expect(off > -1000n && off < 1000n).toBe(true);
    });
  });

  test("a frame captured before 1970 has that time as modification time", async () => {
    const directory = temporaryFolder();
    const captured = -86_400_000_000_000n;
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "visible"), "1.png", bytesOf(10), { captured });
    });
    const { mtimeNs } = statSync(join(directory, "run7/visible/1.png"), { bigint: true });
    expect(mtimeNs).toBe(captured);
  });

  test("a frame creates no folders before it is whole", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => {
      const writer = openSource(store, "run7", "visible").begin(describeFrame("1.png", 10));
      writer.write(bytesOf(9));
      expect(readdirSync(directory)).toEqual([".frames"]);
      expect(readdirSync(join(directory, ".frames/partial"))).toHaveLength(1);
      writer.discard();
      expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
      expect(readdirSync(directory)).toEqual([".frames"]);
    });
  });

  test("a frame leaves no file in the folder of partial frames, whatever its outcome", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      await storeFrame(source, "1", bytesOf(10));
      await storeFrame(source, "1", bytesOf(10));
      await storeFrame(source, "1", bytesOf(11));
      writeFileSync(join(directory, "run7/visible/2"), "in the way");
      expect(outcomeCode(await storeFrame(source, "2", bytesOf(10)))).toBe("conflict");
      mkdirSync(join(directory, "run7/visible/3"));
      expect(outcomeCode(await storeFrame(source, "3", bytesOf(10)))).toBe("not-stored");
      expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
    });
  });

  test("a frame that was moved away still counts as stored", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      await storeFrame(source, "1", bytesOf(10));
      rmSync(join(directory, "run7/visible/1"));
      expect(await storeFrame(source, "1", bytesOf(10))).toBe("present");
      expect(outcomeCode(await storeFrame(source, "1", bytesOf(10, 2)))).toBe("conflict");
      expect(filesIn(directory)).toEqual(new Map());
    });
  });

  test("a frame is stored in a folder that was removed while the store is served", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "a/b");
      expect(await storeFrame(source, "1", bytesOf(1))).toBe("stored");
      rmSync(join(directory, "run7/a/b"), { recursive: true });
      expect(await storeFrame(source, "2", bytesOf(2))).toBe("stored");
      rmSync(join(directory, "run7"), { recursive: true });
      expect(await storeFrame(source, "3", bytesOf(3))).toBe("stored");
      renameSync(join(directory, "run7"), join(directory, "moved"));
      expect(await storeFrame(source, "4", bytesOf(4))).toBe("stored");
      expect([...filesIn(directory).keys()].sort()).toEqual(["moved/a/b/3", "run7/a/b/4"]);
    });
  });
});

describe("after a crash", () => {
  test("opening a store empties the folder of partial frames, without following links", async () => {
    const directory = temporaryFolder();
    const outside = temporaryFolder();
    writeFileSync(join(outside, "kept"), "kept");
    const partial = join(directory, ".frames/partial");
    mkdirSync(join(partial, "folder/deeper"), { recursive: true });
    writeFileSync(join(partial, "1"), bytesOf(100));
    writeFileSync(join(partial, "folder/deeper/file"), "left over");
    symlinkSync(outside, join(partial, "link"));
    await withStore(directory, async (store) => {
      expect(readdirSync(partial)).toEqual([]);
      expect(readdirSync(outside)).toEqual(["kept"]);
      expect(await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1))).toBe(
        "stored",
      );
    });
  });

  test("a whole file without a row is adopted when the same frame is sent", async () => {
    const directory = temporaryFolder();
    mkdirSync(join(directory, "run7/visible"), { recursive: true });
    // Sizes of several reads during comparison, and of exactly one.
    const sizes = [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000];
    for (const size of sizes) writeFileSync(join(directory, `run7/visible/${size}`), bytesOf(size));
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      for (const size of sizes) {
        expect(await storeFrame(source, `${size}`, bytesOf(size))).toBe("present");
        // It has a row now.
        expect(await storeFrame(source, `${size}`, bytesOf(size))).toBe("present");
        expect(outcomeCode(await storeFrame(source, `${size}`, bytesOf(size + 1)))).toBe(
          "conflict",
        );
      }
    });
    expect(names(directory)).toEqual(sizes.map(String));
  });

  test("a file without a row is a conflict if its bytes differ, and folders and links stay", async () => {
    const directory = temporaryFolder();
    const folder = join(directory, "run7/visible");
    mkdirSync(join(folder, "folder"), { recursive: true });
    writeFileSync(join(folder, "other bytes"), bytesOf(10, 2));
    writeFileSync(join(folder, "shorter"), bytesOf(9));
    writeFileSync(join(folder, "longer"), bytesOf(11));
    writeFileSync(join(folder, "target"), bytesOf(10));
    symlinkSync("target", join(folder, "link"));
    symlinkSync("nowhere", join(folder, "dangling"));
    const before = filesIn(directory).get("run7/visible/other bytes");
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      for (const name of ["other bytes", "shorter", "longer"]) {
        const outcome = (await storeFrame(source, name, bytesOf(10))) as FramesError;
        expect([name, outcome.code]).toEqual([name, "conflict"]);
        expect(outcome.message).toBe("other bytes are stored under this name");
      }
      // No content exists under these names, so this is not a conflict.
      for (const name of ["folder", "link", "dangling"]) {
        const outcome = (await storeFrame(source, name, bytesOf(10))) as FramesError;
        expect([name, outcome.code]).toEqual([name, "not-stored"]);
        expect(outcome.message).toContain(`${join(folder, name)} is not a file`);
      }
      expect(await storeFrame(source, "new", bytesOf(10))).toBe("stored");
    });
    expect(names(directory)).toEqual(["new"]);
    expect(lstatSync(join(folder, "folder")).isDirectory()).toBe(true);
    expect(readlinkSync(join(folder, "link"))).toBe("target");
    expect(readlinkSync(join(folder, "dangling"))).toBe("nowhere");
    expect(filesIn(directory).get("run7/visible/other bytes")).toEqual(before!);
    expect(existsSync(join(folder, "nowhere"))).toBe(false);
  });

  test("files that a killed process did not journal are adopted or a conflict", async () => {
    const directory = temporaryFolder();
    const child = startChild(
      `${openInChild(directory)}
      const source = store.open({ stream: "run7", source: "visible", session: "${session}" });
      for (const name of ["1", "2", "3", "4"]) {
        const bytes = new Uint8Array(1000).fill(Number(name));
        const writer = source.begin({ name, sequence: Number(name), captured: 1n, size: 1000, metadata: "" });
        writer.write(bytes);
        if (name < "4") writer.finish(crc32(bytes));
        if (name === "1") store.flush();
      }
      console.log("ready");
      setInterval(() => {}, 1000);`,
    );
    try {
      expect(await firstLine(child)).toBe("ready");
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
    expect([...filesIn(directory).keys()].sort()).toEqual(
      ["1", "2", "3"].map((name) => `run7/visible/${name}`),
    );
    await withStore(directory, async (store) => {
      expect(names(directory)).toEqual(["1"]);
      expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
      const source = openSource(store, "run7", "visible");
      const filled = (value: number) => new Uint8Array(1000).fill(value);
      expect(await storeFrame(source, "1", filled(1))).toBe("present");
      expect(await storeFrame(source, "2", filled(2))).toBe("present");
      expect(outcomeCode(await storeFrame(source, "3", filled(9)))).toBe("conflict");
      expect(await storeFrame(source, "4", filled(4))).toBe("stored");
    });
    expect(names(directory)).toEqual(["1", "2", "4"]);
    expect(filesIn(directory).get("run7/visible/3")).toEqual(new Uint8Array(1000).fill(3));
  });
});

describe("journal write failures", () => {
  // SQLite rolls back by itself after some errors, such as a full disk, but not after others.
  for (const action of ["ROLLBACK", "ABORT", "FAIL"]) {
    describe(`journal failure with ${action}`, () => {
      const block = (table: string) =>
        `CREATE TRIGGER full BEFORE INSERT ON ${table} BEGIN SELECT RAISE(${action}, 'full'); END`;

      test(`a failed batch is reported once, and stored when it is sent again (${action})`, async () => {
        const directory = temporaryFolder();
        await withStore(directory, async (store) => {
          const source = openSource(store, "run7", "visible");
          expect(await storeFrame(source, "0", bytesOf(1))).toBe("stored");
          store.flush();
          alter(
            directory,
            `CREATE TRIGGER full BEFORE INSERT ON frames WHEN NEW.name = '3'
              BEGIN SELECT RAISE(${action}, 'full'); END`,
          );
          for (const name of ["1", "2"]) {
            expect(await storeFrame(source, name, bytesOf(10))).toBe("stored");
          }
          const failure = (await storeFrame(source, "3", bytesOf(10))) as FramesError;
          expect(failure).toBeInstanceOf(FramesError);
          expect([failure.code, failure.message]).toEqual([
            "store",
            `Cannot write the journal ${journalPath(directory)}: full`,
          ]);
          // Everything else in the failed batch is refused too.
          expect(outcomeCode(await storeFrame(source, "4", bytesOf(10)))).toBe("store");
          const lost = () => source.recordLoss(5, 5, new FramesError("vanished"));
          expect(thrownCode(lost)).toBe("store");
          expect(thrownCode(() => store.flush())).toBe("store");
          // The failure was reported, so this flush succeeds.
          store.flush();
          expect(names(directory)).toEqual(["0"]);
          expect(rows(directory, "SELECT * FROM losses")).toEqual([]);
          alter(directory, "DROP TRIGGER full");
          // Files without rows are adopted. None counted as stored before.
          for (const name of ["1", "2", "3", "4"]) {
            expect(await storeFrame(source, name, bytesOf(10))).toBe("present");
          }
          lost();
          expect(await storeFrame(source, "6", bytesOf(10))).toBe("stored");
          expect(names(directory)).toEqual(["0"]);
          store.flush();
          expect(names(directory)).toEqual(["0", "1", "2", "3", "4", "6"]);
          expect(rows(directory, "SELECT first FROM losses")).toEqual([{ first: 5n }]);
        });
        expect(filesIn(directory).size).toBe(6);
        expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
      });

      test(`frames stored before a failed loss fail with it (${action})`, async () => {
        const directory = temporaryFolder();
        await withStore(directory, async (store) => {
          const source = openSource(store, "run7", "visible");
          alter(directory, block("losses"));
          for (const name of ["1", "2"]) {
            expect(await storeFrame(source, name, bytesOf(10))).toBe("stored");
          }
          expect(thrownCode(() => source.recordLoss(3, 3, new FramesError("vanished")))).toBe(
            "store",
          );
          expect(thrownCode(() => store.flush())).toBe("store");
          store.flush();
          expect(names(directory)).toEqual([]);
          expect(store.isStreamEmpty("run7")).toBe(true);
          for (const name of ["1", "2"]) {
            expect(await storeFrame(source, name, bytesOf(10))).toBe("present");
          }
          store.flush();
          expect(names(directory)).toEqual(["1", "2"]);
        });
      });

      test(`a failed batch is reported to flushes, not only to the opening of a durable source (${action})`, async () => {
        const directory = temporaryFolder();
        await withStore(directory, async (store) => {
          const source = openSource(store, "run7", "visible");
          alter(
            directory,
            `CREATE TRIGGER full BEFORE INSERT ON frames WHEN NEW.name = '2'
              BEGIN SELECT RAISE(${action}, 'full'); END`,
          );
          expect(await storeFrame(source, "1", bytesOf(10))).toBe("stored");
          expect(outcomeCode(await storeFrame(source, "2", bytesOf(10)))).toBe("store");
          // Opening a durable source flushes the journal. Its failure must also be reported to
          // later flushes.
          const durable = () => openSource(store, "run8", "visible", { durable: true });
          expect(thrownCode(durable)).toBe("store");
          expect(thrownCode(durable)).toBe("store");
          expect(thrownCode(() => store.flush())).toBe("store");
          store.flush();
          alter(directory, "DROP TRIGGER full");
          expect(await storeFrame(durable(), "1", bytesOf(10))).toBe("stored");
          for (const name of ["1", "2"]) {
            expect(await storeFrame(source, name, bytesOf(10))).toBe("present");
          }
          await store.flush();
        });
        expect(names(directory)).toEqual(["1", "1", "2"]);
      });

      test(`a failed batch is reported by close, which still releases the store (${action})`, async () => {
        const directory = temporaryFolder();
        const store = openStore(directory);
        const source = openSource(store, "run7", "visible");
        alter(directory, block("frames"));
        expect(outcomeCode(await storeFrame(source, "1", bytesOf(10)))).toBe("store");
        expect(thrownCode(() => store.close())).toBe("store");
        alter(directory, "DROP TRIGGER full");
        await withStore(directory, async (again) => {
          const same = openSource(again, "run7", "visible");
          expect(await storeFrame(same, "1", bytesOf(10))).toBe("present");
        });
        expect(names(directory)).toEqual(["1"]);
      });

      test(`a failed batch reserves no portable names (${action})`, async () => {
        const directory = temporaryFolder();
        await withStore(
          directory,
          async (store) => {
            const source = openSource(store, "run7", "visible");
            alter(directory, block("frames"));
            expect(outcomeCode(await storeFrame(source, "a", bytesOf(10)))).toBe("store");
            expect(thrownCode(() => store.flush())).toBe("store");
            alter(directory, "DROP TRIGGER full");
            expect(rows(directory, "SELECT * FROM folded")).toEqual([]);
            expect(await storeFrame(source, "b", bytesOf(10))).toBe("stored");
            store.flush();
            expect(names(directory)).toEqual(["b"]);
          },
          { portableNames: true },
        );
      });
    });
  }

  test("a store waits for a journal that another process locks for 300 ms", async () => {
    const directory = temporaryFolder();
    const go = join(temporaryFolder(), "go");
    await withStore(directory, async (store) => {
      const child = startChild(`
        const { Database } = require("bun:sqlite");
        const { existsSync } = require("node:fs");
        const database = new Database(${JSON.stringify(journalPath(directory))});
        database.run("BEGIN IMMEDIATE");
        console.log("ready");
        for (let wait = 0; wait < 20_000 && !existsSync(${JSON.stringify(go)}); wait++) Bun.sleepSync(1);
        Bun.sleepSync(300);
        database.run("COMMIT");
        process.exit(0);`);
      try {
        expect(await firstLine(child)).toBe("ready");
        const source = openSource(store, "run7", "visible");
        const bytes = bytesOf(10);
        const started = performance.now();
        // The child holds its lock for 300 ms from here on.
        writeFileSync(go, "");
        const writer = source.begin(describeFrame("1", bytes.length));
        writer.write(bytes);
        const outcome = writer.finish(crc32(bytes));
        store.flush();
        const took = performance.now() - started;
        expect(outcome).toBe("stored");
        expect(took).toBeGreaterThan(250);
        expect(names(directory)).toEqual(["1"]);
        expect(await storeFrame(source, "2", bytesOf(10))).toBe("stored");
      } finally {
        child.kill("SIGKILL");
        await child.exited;
      }
    });
    expect(names(directory)).toEqual(["1", "2"]);
  });
});

describe("full disk", () => {
  const probe = "mount -t tmpfs -o size=64k none /mnt";
  const hasMounts =
    process.platform === "linux" &&
    Bun.which("unshare") !== null &&
    Bun.spawnSync(["unshare", "-Urm", "sh", "-c", probe]).exitCode === 0;

  /** Runs a program with its own disk of 1,200 KiB, `place`, and returns its output. */
  async function onSmallDisk(program: string): Promise<Record<string, unknown>> {
    const place = temporaryFolder();
    const script = `mount -t tmpfs -o size=1200k none "$2" && exec "$0" -e "$1"`;
    const whole = `${imports}
      import { rmSync, readdirSync, statfsSync, writeFileSync } from "node:fs";
      const place = ${JSON.stringify(place)};
      ${openInChild(join(place, "store"))}
      const source = store.open({ stream: "run7", source: "visible", session: "${session}" });
      let sequence = 0;
      const begin = (name, size) =>
        source.begin({ name, sequence: ++sequence, captured: 1n, size, metadata: "" });
      const keep = (name, size) => {
        const bytes = new Uint8Array(size).fill(7);
        const writer = begin(name, size);
        if (size > 0) writer.write(bytes);
        return writer.finish(crc32(bytes));
      };
      const attempt = (act) => {
        try {
          return act() ?? "done";
        } catch (error) {
          return [error.code, error.message];
        }
      };
      const filler = place + "/filler";
      /** Leaves so many bytes of the disk. */
      const fill = (left) => {
        const { bavail, bsize } = statfsSync(place);
        writeFileSync(filler, new Uint8Array(bavail * bsize - left));
      };
      ${program}
      process.exit(0);`;
    const command = ["unshare", "-Urm", "sh", "-c", script, process.execPath, whole, place];
    const child = Bun.spawn(command, {
      ...{ env: environment(), stdin: "pipe", stdout: "pipe", stderr: "inherit" },
    });
    const text = await new Response(child.stdout).text();
    expect(await child.exited).toBe(0);
    return JSON.parse(text) as Record<string, unknown>;
  }

  const unless = hasMounts ? "" : " (skipped: this user may not mount a disk of his own)";

  test.skipIf(!hasMounts)(`a disk that fills up during a frame is an error${unless}`, async () => {
    const said = await onSmallDisk(`
      keep("1", 1000);
      store.flush();
      // It fits when it begins, but another program then fills the disk.
      const large = begin("large", 100_000);
      fill(16_384);
      const written = attempt(() => large.write(new Uint8Array(100_000)));
      large.discard();
      const left = readdirSync(place + "/store/.frames/partial");
      rmSync(filler);
      const again = attempt(() => keep("large", 100_000));
      store.flush();
      const [{ frames }] = listSources(place + "/store");
      console.log(JSON.stringify({ written, left, again, frames }));`);
    expect(said).toEqual({
      written: ["store", 'Cannot store "large": no space left on the disk'],
      left: [],
      again: "stored",
      frames: 2,
    });
  });

  test.skipIf(!hasMounts)(`a batch fails on a full disk, and then succeeds${unless}`, async () => {
    const said = await onSmallDisk(`
      keep("1", 0);
      store.flush();
      // Frames without bytes need no space except in the journal.
      fill(4096);
      const outcomes = new Set();
      for (let index = 0; index < 500; index++) outcomes.add(String(attempt(() => keep("a" + index, 0))));
      const flushed = attempt(() => store.flush());
      const after = attempt(() => store.flush());
      const [{ frames: between }] = listSources(place + "/store");
      rmSync(filler);
      const again = new Set();
      for (let index = 0; index < 500; index++) again.add(String(attempt(() => keep("a" + index, 0))));
      const last = attempt(() => store.flush());
      const [{ frames }] = listSources(place + "/store");
      console.log(JSON.stringify({
        outcomes: [...outcomes], flushed: flushed[0], after, between, again: [...again].sort(), last, frames }));`);
    expect(said).toMatchObject({ flushed: "store", after: "done", between: 1 });
    expect(said).toMatchObject({ last: "done", frames: 501 });
    // The failed flush left the files without rows, so every frame is found as present.
    expect(said["again"]).toEqual(["present"]);
  });

  for (const conflict of ["fail", "replace"]) {
    const which = conflict === "replace" ? "frames that replace others" : "durable frames";
    test.skipIf(!hasMounts)(
      `a batch of ${which} on a full disk fails, and is stored when it is sent again${unless}`,
      async () => {
        const said = await onSmallDisk(`
        const origin = { stream: "run7", source: "durable", session: "${session}" };
        const durable = store.open({ ...origin, durable: true, conflict: "${conflict}" });
        const hand = (name, value) => {
          const bytes = new Uint8Array(10).fill(value);
          const description = { name, sequence: ++sequence, captured: 1n, size: 10, metadata: "" };
          const writer = durable.begin(description);
          writer.write(bytes);
          const outcome = writer.finish(crc32(bytes));
          return outcome.then((said) => said.code ?? said, (error) => "rejected " + error.code);
        };
        const flush = async () => {
          try {
            await store.flush();
            return "done";
          } catch (error) {
            return error.code;
          }
        };
        const all = async (value) => {
          const outcomes = [];
          for (let index = 0; index < 100; index++) outcomes.push(hand("name".repeat(50) + index, value));
          const flushed = await flush();
          return { flushed, outcomes: [...new Set(await Promise.all(outcomes))] };
        };
        const pairs = () => {
          const { Database } = require("bun:sqlite");
          const { readFileSync } = require("node:fs");
          const journal = new Database(place + "/store/.frames/journal.sqlite", { readonly: true });
          const found = journal.query("SELECT * FROM frames WHERE source = 'durable'").all();
          journal.close();
          return found.filter((row) => {
            return crc32(readFileSync(place + "/store/run7/durable/" + row.name)) === row.crc32;
          }).length;
        };
        if ("${conflict}" === "replace") await all(1);
        else keep("first", 0), await flush();
        const before = pairs();
        const outcomes = [];
        for (let index = 0; index < 100; index++) outcomes.push(hand("name".repeat(50) + index, 2));
        fill(0);
        const flushed = await flush();
        const settled = [...new Set(await Promise.all(outcomes))];
        const partial = readdirSync(place + "/store/.frames/partial").length;
        rmSync(filler);
        await flush();
        const again = await all(2);
        console.log(JSON.stringify({ before, flushed, settled, partial, again, after: pairs() }));`);
        const before = conflict === "replace" ? 100 : 0;
        expect(said).toMatchObject({
          before,
          flushed: "store",
          settled: ["rejected store"],
          partial: 0,
        });
        const again = conflict === "replace" ? "stored" : "present";
        expect(said).toMatchObject({ again: { flushed: "done", outcomes: [again] }, after: 100 });
      },
    );
  }

  const codes: [code: string, ours: string, why: string][] = [
    ["ENOSPC", "store", "no space left on the disk"],
    ["EDQUOT", "store", "disk quota exceeded"],
    ["EROFS", "store", "the file system is read-only"],
    ["EIO", "store", "input/output error"],
    ["EACCES", "not-stored", "permission denied"],
    ["ENAMETOOLONG", "not-stored", "the name is too long"],
  ];
  for (const [code, ours, why] of codes) {
    for (const call of [
      "openSync",
      "writeSync",
      "futimesSync",
      "mkdirSync",
      "renameSync",
    ] as const) {
      test(`a frame fails with the right error when ${call} fails with ${code}`, async () => {
        const directory = temporaryFolder();
        await withStore(directory, async (store) => {
          const source = openSource(store, "run7", "visible");
          const spy = spyOn(fs, call).mockImplementation((): never => {
            throw Object.assign(new Error(`${code}: as the system says it`), { code });
          });
          let failure: unknown;
          const writer = source.begin(describeFrame("1", 10));
          try {
            writer.write(bytesOf(10));
            writer.finish(crc32(bytesOf(10)));
          } catch (error) {
            failure = error;
          } finally {
            expect(spy).toHaveBeenCalled();
            spy.mockRestore();
          }
          expect(failure).toBeInstanceOf(FramesError);
          const { code: said, message } = failure as FramesError;
          // Without a new file in the folder of unfinished frames, no frame can be stored.
          const expected = call === "openSync" ? "store" : ours;
          expect([said, message]).toEqual([expected, `Cannot store "1": ${why}`]);
          writer.discard();
          expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
          expect(await storeFrame(source, "1", bytesOf(10))).toBe("stored");
        });
      });
    }
  }
});

describe("stores removed while they are served", () => {
  const removals: [string, (directory: string) => void][] = [
    [
      "whose folder .frames is removed",
      (directory) => rmSync(join(directory, ".frames"), { recursive: true }),
    ],
    [
      "whose folder .frames is moved away",
      (directory) => renameSync(join(directory, ".frames"), join(directory, "moved")),
    ],
    [
      "whose folder .frames is replaced by another store",
      (directory) => {
        renameSync(join(directory, ".frames"), join(directory, "moved"));
        openStore(directory).close();
      },
    ],
    ["whose journal is removed", (directory) => rmSync(journalPath(directory))],
    ["that is removed entirely", (directory) => rmSync(directory, { recursive: true })],
  ];
  for (const [what, remove] of removals) {
    test.skipIf(process.platform === "win32")(`a served store ${what} fails`, async () => {
      const directory = temporaryFolder();
      const store = openStore(directory);
      const source = openSource(store, "run7", "visible");
      expect(await storeFrame(source, "1", bytesOf(10))).toBe("stored");
      store.flush();
      expect(await storeFrame(source, "2", bytesOf(10))).toBe("stored");
      remove(directory);
      const message = `The store ${directory} was deleted while it was served; stop the server, and start it again`;
      for (const act of [
        () => store.isStreamEmpty("run7"),
        () => store.isStreamEmpty("run8"),
        () => store.flush(),
      ]) {
        expect(thrownCode(act)).toBe("store");
        expect(act).toThrow(message);
      }
      // Later frames never count as durable either.
      await storeFrame(source, "3", bytesOf(10)).catch(() => {});
      expect(thrownCode(() => store.flush())).toBe("store");
      store.close();
    });
  }

  test.skipIf(process.platform === "win32")(
    "opening a durable source of a removed store fails with the code store",
    () => {
      const directory = temporaryFolder();
      const store = openStore(directory);
      rmSync(directory, { recursive: true });
      // Not a system error: the folders to flush do not exist any more.
      const durable = () => openSource(store, "run7", "visible", { durable: true });
      expect(thrownCode(durable)).toBe("store");
      expect(thrownCode(durable)).toBe("store");
      store.close();
    },
  );

  test.skipIf(process.platform === "win32")(
    "flushing a removed store without pending frames succeeds",
    async () => {
      const directory = temporaryFolder();
      const store = openStore(directory);
      await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(10));
      store.flush();
      rmSync(join(directory, ".frames"), { recursive: true });
      store.flush();
      expect(thrownCode(() => store.isStreamEmpty("run7"))).toBe("store");
      store.close();
    },
  );
});

describe("store lock", () => {
  test("the lock refuses a second process, names the first, and ends with it", async () => {
    const directory = temporaryFolder();
    const child = startChild(`${openInChild(directory)}
      console.log("ready");
      setInterval(() => {}, 1000);`);
    try {
      expect(await firstLine(child)).toBe("ready");
      let error: unknown;
      try {
        openStore(directory).close();
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect((error as FramesError).code).toBe("locked");
      expect((error as FramesError).exitCode).toBe(11);
      expect((error as FramesError).message).toContain(`process ${child.pid},`);
      // Reading needs no lock.
      expect(listSources(directory)).toEqual([]);
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
    await withStore(directory, async (store) => {
      expect(await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1))).toBe(
        "stored",
      );
    });
  });

  test("the lock refuses a second store of the same process until the first is closed", async () => {
    const directory = temporaryFolder();
    const store = openStore(directory);
    expect(thrownCode(() => openStore(directory))).toBe("locked");
    // A failed attempt does not release the lock.
    expect(thrownCode(() => openStore(directory))).toBe("locked");
    store.close();
    await withStore(directory, () => {
      expect(thrownCode(() => openStore(directory))).toBe("locked");
    });
  });

  test("a refused second store does not empty the folder of partial frames", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const writer = openSource(store, "run7", "visible").begin(describeFrame("1", 3));
      writer.write(new Uint8Array([1, 2, 3]));
      expect(thrownCode(() => openStore(directory))).toBe("locked");
      expect(await writer.finish(crc32(new Uint8Array([1, 2, 3])))).toBe("stored");
    });
  });

  test("stores in different directories have different locks", async () => {
    const one = openStore(temporaryFolder());
    await withStore(temporaryFolder(), () => {});
    one.close();
  });
});

describe("stores that cannot be written", () => {
  test("a file in place of the store is an error with its path", () => {
    const file = join(temporaryFolder(), "file");
    writeFileSync(file, "kept");
    for (const place of [file, join(file, "below")]) {
      let error: unknown;
      try {
        openStore(place);
      } catch (caught) {
        error = caught;
      }
      expect((error as FramesError).code).toBe("store");
      expect((error as FramesError).exitCode).toBe(11);
      expect((error as FramesError).message).toContain(place);
    }
    expect(readFileSync(file, "utf8")).toBe("kept");
  });

  test("a file in place of a folder of the store is an error", () => {
    for (const [folder, file] of [
      ["", ".frames"],
      [".frames", "partial"],
    ] as const) {
      const directory = temporaryFolder();
      mkdirSync(join(directory, folder), { recursive: true });
      writeFileSync(join(directory, folder, file), "in the way");
      expect(thrownCode(() => openStore(directory))).toBe("store");
    }
  });

  test.skipIf(process.platform === "win32")("a read-only store cannot be opened", async () => {
    const directory = openToAll();
    chmodSync(directory, 0o555);
    const said = await asNobody(`
      try {
        new DirectoryStore(${JSON.stringify(directory)}, { portableNames: false, clock: Date.now });
        console.log("opened");
      } catch (error) {
        console.log(JSON.stringify({ code: error.code, message: error.message }));
      }`);
    expect(JSON.parse(said)).toEqual({
      code: "store",
      message: `Cannot write the store ${directory}: permission denied; choose a folder that this user can write`,
    });
  });

  test.skipIf(process.platform === "win32")("a read-only store can be listed", async () => {
    // A path may contain characters that are special in a URL.
    const directory = join(openToAll(), "50% #1?");
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(5), { captured: 7n });
    });
    for (const entry of readdirSync(directory, { recursive: true })) {
      const path = join(directory, String(entry));
      chmodSync(path, statSync(path).isDirectory() ? 0o555 : 0o444);
    }
    chmodSync(directory, 0o555);
    const said = await asNobody(`
      const [{ frames, bytes, firstCaptured }] = listSources(${JSON.stringify(directory)});
      console.log(frames, bytes, firstCaptured);`);
    expect(said).toBe("1 5 7n");
  });

  test.skipIf(process.platform === "win32")("a read-only folder refuses its frames", async () => {
    const directory = openToAll();
    chmodSync(directory, 0o777);
    const said = await asNobody(`
      import { chmodSync, mkdirSync } from "node:fs";
      const store = new DirectoryStore(${JSON.stringify(directory)}, {
        portableNames: false, clock: Date.now });
      mkdirSync(${JSON.stringify(join(directory, "run7"))});
      chmodSync(${JSON.stringify(join(directory, "run7"))}, 0o555);
      for (const stream of ["run7", "run8"]) {
        const source = store.open({ stream, source: "visible", session: "${session}" });
        const writer = source.begin({ name: "1", sequence: 1, captured: 1n, size: 0, metadata: "" });
        try {
          console.log(writer.finish(0));
        } catch (error) {
          console.log(error.message);
        }
      }
      store.close();`);
    expect(said).toBe('Cannot store "1": permission denied\nstored');
  });
});

describe("links and files in the way", () => {
  test("a link in place of a stream or source is not followed", async () => {
    const directory = temporaryFolder();
    const outside = temporaryFolder();
    mkdirSync(join(directory, "run8"));
    symlinkSync(outside, join(directory, "run7"));
    symlinkSync(outside, join(directory, "run8/visible"));
    await withStore(directory, async (store) => {
      for (const [stream, source] of [
        ["run7", "run7"],
        ["run7", "visible"],
        ["run8", "visible"],
        ["run8", "visible/deeper"],
      ] as const) {
        const outcome = await storeFrame(openSource(store, stream, source), "1.png", bytesOf(10));
        expect([stream, source, outcomeCode(outcome)]).toEqual([stream, source, "not-stored"]);
      }
      expect(await storeFrame(openSource(store, "run8", "infrared"), "1.png", bytesOf(10))).toBe(
        "stored",
      );
    });
    expect(readdirSync(outside)).toEqual([]);
    expect(names(directory)).toEqual(["1.png"]);
  });

  test("a file behind a link in place of a source is never adopted as a stored frame", async () => {
    const directory = temporaryFolder();
    const outside = temporaryFolder();
    writeFileSync(join(outside, "same"), bytesOf(10));
    writeFileSync(join(outside, "other"), bytesOf(10, 2));
    mkdirSync(join(directory, "run7"));
    symlinkSync(outside, join(directory, "run7/visible"));
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      for (const name of ["same", "other"]) {
        const outcome = outcomeCode(await storeFrame(source, name, bytesOf(10)));
        expect([name, outcome]).toEqual([name, "not-stored"]);
      }
    });
    expect(names(directory)).toEqual([]);
    expect([...filesIn(outside).keys()].sort()).toEqual(["other", "same"]);
  });

  test("a file in place of a source's folder refuses its frames, and other sources are stored", async () => {
    const directory = temporaryFolder();
    mkdirSync(join(directory, "run7"));
    writeFileSync(join(directory, "run7/visible"), "a file");
    await withStore(directory, async (store) => {
      const blocked = openSource(store, "run7", "visible");
      const deeper = openSource(store, "run7", "visible/deeper");
      const free = openSource(store, "run7", "infrared");
      for (const name of ["1", "2"]) {
        const refused = await storeFrame(blocked, name, bytesOf(10));
        expect(outcomeCode(refused)).toBe("not-stored");
        expect((refused as FramesError).message).toContain(join(directory, "run7/visible"));
        expect(outcomeCode(await storeFrame(deeper, name, bytesOf(10)))).toBe("not-stored");
        expect(await storeFrame(free, name, bytesOf(10))).toBe("stored");
      }
      // After it is removed, frames can be stored there.
      rmSync(join(directory, "run7/visible"));
      expect(await storeFrame(blocked, "1", bytesOf(10))).toBe("stored");
    });
    expect(readFileSync(join(directory, "run7/visible/1"))).toHaveLength(10);
    expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
  });

  test("a source inside another source's frame is refused, and the frame stays", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "run7"), "visible", bytesOf(10));
      const below = openSource(store, "run7", "visible");
      expect(outcomeCode(await storeFrame(below, "1", bytesOf(1)))).toBe("not-stored");
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible", bytesOf(10)]]));
  });
});

describe("portable names", () => {
  const composed = "\u00e9";
  const decomposed = "e\u0301";

  test("frames whose names differ only in case or Unicode form are refused", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        const source = openSource(store, "run7", "visible");
        expect(await storeFrame(source, "a.png", bytesOf(1))).toBe("stored");
        expect(await storeFrame(source, composed, bytesOf(1))).toBe("stored");
        for (const name of ["A.png", "a.PNG", decomposed, "E\u0301"]) {
          const code = thrownCode(() => source.begin(describeFrame(name, 1)));
          expect([name, code]).toEqual([name, "unportable-name"]);
        }
        expect(await storeFrame(source, "b.png", bytesOf(1))).toBe("stored");
        // An identical name is allowed.
        expect(await storeFrame(source, "a.png", bytesOf(1))).toBe("present");
        // In another folder the name does not collide.
        const other = openSource(store, "run7", "infrared");
        expect(await storeFrame(other, "A.png", bytesOf(1))).toBe("stored");
      },
      { portableNames: true },
    );
    expect(names(directory)).toEqual(["a.png", composed, "b.png", "A.png"]);
  });

  test("sources and streams that differ only in the case of a part are refused", async () => {
    await withStore(
      temporaryFolder(),
      async (store) => {
        await storeFrame(openSource(store, "run7", "left/visible"), "1", bytesOf(1));
        for (const [stream, source] of [
          ["Run7", "left/visible"],
          ["RUN7", "other"],
          ["RUN7", "RUN7"],
          ["run7", "Left/visible"],
          ["run7", "left/VISIBLE"],
          ["run7", "LEFT"],
          ["run7", "LEFT/other"],
        ] as const) {
          const code = thrownCode(() => openSource(store, stream, source));
          expect([stream, source, code]).toEqual([stream, source, "unportable-name"]);
        }
        expect(await storeFrame(openSource(store, "run7", "left"), "1", bytesOf(1))).toBe("stored");
      },
      { portableNames: true },
    );
  });

  test("a frame named like a folder beside it except for case is refused", async () => {
    await withStore(
      temporaryFolder(),
      async (store) => {
        await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1));
        const source = openSource(store, "run7", "run7");
        const code = thrownCode(() => source.begin(describeFrame("Visible", 1)));
        expect(code).toBe("unportable-name");
      },
      { portableNames: true },
    );
  });

  test("names that only Windows cannot store are refused", async () => {
    await withStore(
      temporaryFolder(),
      (store) => {
        const source = openSource(store, "run7", "visible");
        for (const name of ["a:b", "CON", "a.", "2026-11-22T07:12:00.png"]) {
          expect(thrownCode(() => source.begin(describeFrame(name, 1)))).toBe("unportable-name");
          expect(thrownCode(() => openSource(store, name, "a"))).toBe("unportable-name");
          expect(thrownCode(() => openSource(store, "a", name))).toBe("unportable-name");
        }
      },
      { portableNames: true },
    );
  });

  test("a name is compared with names of earlier runs", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      (store) => storeFrame(openSource(store, "run7", "visible"), "a", bytesOf(1)),
      { portableNames: true },
    );
    await withStore(
      directory,
      (store) => {
        expect(thrownCode(() => openSource(store, "run7", "Visible"))).toBe("unportable-name");
        const source = openSource(store, "run7", "visible");
        expect(thrownCode(() => source.begin(describeFrame("A", 1)))).toBe("unportable-name");
      },
      { portableNames: true },
    );
  });

  test("a name is compared with frames stored before names had to be portable", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "visible"), "a", bytesOf(1));
      await storeFrame(openSource(store, "run7", "run7"), composed, bytesOf(1));
    });
    await withStore(
      directory,
      async (store) => {
        const source = openSource(store, "run7", "visible");
        expect(thrownCode(() => source.begin(describeFrame("A", 1)))).toBe("unportable-name");
        expect(await storeFrame(source, "a", bytesOf(1))).toBe("present");
        const own = openSource(store, "run7", "run7");
        expect(thrownCode(() => own.begin(describeFrame(decomposed, 1)))).toBe("unportable-name");
        expect(thrownCode(() => openSource(store, "run7", "VISIBLE"))).toBe("unportable-name");
        expect(thrownCode(() => openSource(store, "RUN7", "x"))).toBe("unportable-name");
      },
      { portableNames: true },
    );
  });

  test("a name is compared with every parent folder of frames stored before", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) =>
      storeFrame(openSource(store, "run7", "left/visible"), "a", bytesOf(1)),
    );
    await withStore(
      directory,
      (store) => {
        for (const [stream, source] of [
          ["RUN7", "other"],
          ["run7", "LEFT"],
        ] as const) {
          const code = thrownCode(() => openSource(store, stream, source));
          expect([stream, source, code]).toEqual([stream, source, "unportable-name"]);
        }
      },
      { portableNames: true },
    );
  });

  test("a name is compared with frames stored while names did not have to be portable", async () => {
    const directory = temporaryFolder();
    const keep = (name: string, portableNames: boolean) =>
      withStore(
        directory,
        async (store) => {
          const source = openSource(store, "run7", "visible");
          expect(await storeFrame(source, name, bytesOf(1))).toBe("stored");
        },
        { portableNames },
      );
    await keep("first", true);
    await keep("second", false);
    await withStore(
      directory,
      (store) => {
        const source = openSource(store, "run7", "visible");
        expect(thrownCode(() => source.begin(describeFrame("First", 1)))).toBe("unportable-name");
        expect(thrownCode(() => source.begin(describeFrame("Second", 1)))).toBe("unportable-name");
      },
      { portableNames: true },
    );
  });

  test("a frame that was not stored reserves no name", async () => {
    await withStore(
      temporaryFolder(),
      async (store) => {
        const source = openSource(store, "run7", "visible");
        source.begin(describeFrame("a.png", 10)).discard();
        expect(await storeFrame(source, "A.png", bytesOf(10))).toBe("stored");
      },
      { portableNames: true },
    );
  });
});

// Child processes.

type Child = Bun.Subprocess<"pipe", "pipe", "inherit">;

function modulePath(name: string): string {
  return JSON.stringify(join(import.meta.dir, "../../../src/store", name));
}

/** Start of a child's program: imports that must happen before it drops its privileges. */
const imports = `
  import { crc32 } from "node:zlib";
  import { DirectoryStore } from ${modulePath("directory/directory-store.ts")};
  import { listSources } from ${modulePath("journal/source-list.ts")};
  // The parent process is gone when standard input ends.
  void Bun.stdin.text().then(() => process.exit(0));
`;

function openInChild(directory: string): string {
  const place = JSON.stringify(directory);
  // Without a reference the store would be collected and its lock released.
  return `const store = globalThis.held =
    new DirectoryStore(${place}, { portableNames: false, reserve: 0, clock: Date.now });`;
}

function startChild(program: string): Child {
  return Bun.spawn([process.execPath, "-e", imports + program], {
    ...{ env: environment(), stdin: "pipe", stdout: "pipe", stderr: "inherit" },
  });
}

async function firstLine(child: Child): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes("\n")) break;
  }
  return text.trim();
}

/**
 * Runs a program as an unprivileged user, because nothing is read-only to root. Returns its output.
 */
async function asNobody(program: string): Promise<string> {
  const statements = program.replaceAll(/^\s*import .*$/gm, "");
  const more = program.match(/^\s*import .*$/gm)?.join("\n") ?? "";
  const child = startChild(`${more}
    if (process.getuid?.() === 0) {
      process.setgid(65534);
      process.setuid(65534);
    }
    ${statements}
    process.exit(0);`);
  const text = await new Response(child.stdout).text();
  expect(await child.exited).toBe(0);
  return text.trim();
}

/** Creates a folder that every user can enter. */
function openToAll(): string {
  const folder = mkdtempSync(join(tmpdir(), "frames-store-"));
  foldersOpenToAll.push(folder);
  chmodSync(folder, 0o755);
  return folder;
}

const foldersOpenToAll: string[] = [];

afterAll(() => {
  for (const folder of foldersOpenToAll) {
    Bun.spawnSync(["chmod", "-R", "u+rwx", folder]);
    rmSync(folder, { recursive: true, force: true });
  }
});
