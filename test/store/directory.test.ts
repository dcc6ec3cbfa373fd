import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../src/errors.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { journalPath, summarize } from "../../src/store/journal.ts";
import { environment, temporaryFolder } from "../helper/program.ts";
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
} from "./contract.ts";

/** What the wall clock says in these tests, in milliseconds since 1970. */
const now = 1_795_331_523_123.456;

function openStore(directory: string, portableNames = false): DirectoryStore {
  return new DirectoryStore(directory, { portableNames, clock: () => now });
}

/** Runs `act` with a store that is closed afterwards. */
async function withStore<T>(
  directory: string,
  act: (store: DirectoryStore) => T | Promise<T>,
  portableNames = false,
): Promise<T> {
  const store = openStore(directory, portableNames);
  try {
    return await act(store);
  } finally {
    store.close();
  }
}

/** Every file below `directory` that is not hidden or a link, by its path. */
function filesIn(directory: string): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  const visit = (below: string): void => {
    for (const entry of readdirSync(join(directory, below), { withFileTypes: true })) {
      if (entry.name.startsWith(".")) continue;
      const path = below === "" ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (!entry.isSymbolicLink())
        found.set(path, new Uint8Array(readFileSync(join(directory, path))));
    }
  };
  visit("");
  return found;
}

/** Rows of the journal; every integer a bigint. */
function rows<T>(directory: string, sql: string): T[] {
  const options = { readonly: true, safeIntegers: true };
  const database = new Database(journalPath(directory), options);
  try {
    return database.query<T, []>(sql).all();
  } finally {
    database.close();
  }
}

function names(directory: string): string[] {
  const found = rows<{ name: string }>(directory, "SELECT name FROM frames ORDER BY id");
  return found.map(({ name }) => name);
}

function opened(directory: string): OpenStore {
  const store = openStore(directory);
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
    reopen() {
      store.close();
      return opened(directory);
    },
    close: () => store.close(),
  };
}

storeContract("A directory", () => opened(temporaryFolder()));

describe("the journal", () => {
  test("has a row for each frame, with its numbers exactly", async () => {
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
        ...{ received, key: null, meta: '{"gain":1.5}', format: "640x512.gray16le" },
      },
      {
        ...{ id: 2n, stream: "run7", source: "run7", name: "2", session, seq: 2n ** 40n },
        ...{ bytes: 0n, crc32: 0n, captured: -1n, received, key: null, meta: null, format: null },
      },
    ]);
    expect(Object.keys(all[0]!)).toEqual(
      "id stream source name session seq bytes crc32 captured received key meta format".split(" "),
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
    test(`holds a frame captured at ${captured} exactly`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openSource(store, "run7", "visible");
        expect(await storeFrame(source, "a", bytesOf(1), { captured })).toBe("stored");
      });
      expect(rows(directory, "SELECT captured FROM frames")).toEqual([{ captured }]);
      const [summary] = summarize(directory);
      expect(summary).toMatchObject({ firstCaptured: captured, lastCaptured: captured });
    });
  }

  test("has a row for each loss", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => {
      openSource(store, "run7", "visible").lost(3, 2 ** 40, new FramesError("dropped"));
    });
    expect(rows(directory, "SELECT * FROM losses")).toEqual([
      {
        ...{ stream: "run7", source: "visible", session, first: 3n, last: 2n ** 40n },
        ...{ reason: "dropped", at: 1_795_331_523_123_456_000n },
      },
    ]);
  });

  test("has nothing of a batch that was not flushed, for others", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1));
      expect(names(directory)).toEqual([]);
      store.flush();
      expect(names(directory)).toEqual(["1"]);
    });
  });

  test("is read by others while the store is served", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      expect(summarize(directory)).toEqual([]);
      const visible = openSource(store, "run7", "visible");
      await storeFrame(visible, "1", bytesOf(10), { captured: 5n });
      await storeFrame(visible, "2", bytesOf(20), { captured: -5n });
      visible.lost(3, 7, new FramesError("dropped"));
      await storeFrame(openSource(store, "run8", "run8"), "1", bytesOf(1), { captured: 1n });
      openSource(store, "run7", "infrared").lost(1, 1, new FramesError("vanished"));
      store.flush();
      // Whoever reads holds nothing up.
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
      expect(summarize(directory)).toEqual([infrared, run7, run8]);
      expect(summarize(directory, "run8")).toEqual([run8]);
      expect(summarize(directory, "run9")).toEqual([]);
    });
  });

  test("that is missing means that there is no store", () => {
    const directory = temporaryFolder();
    expect(thrownCode(() => summarize(directory))).toBe("missing");
    expect(thrownCode(() => summarize(join(directory, "nowhere")))).toBe("missing");
    expect(readdirSync(directory)).toEqual([]);
  });

  const malformed: [string, (path: string) => void][] = [
    ["is no database", (path) => writeFileSync(path, bytesOf(10_000))],
    ["is a short text", (path) => writeFileSync(path, "this is no journal\n".repeat(10))],
    ["is a folder", (path) => (rmSync(path), mkdirSync(path))],
    ["is cut short", (path) => truncateSync(path, 5000)],
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
    test(`that ${what} is an error that names it, and no lock is kept`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1));
      });
      const path = journalPath(directory);
      const kept = readFileSync(path);
      spoil(path);
      for (const act of [() => openStore(directory), () => summarize(directory)]) {
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
      await withStore(directory, (store) => expect(store.isFresh("run7")).toBe(false));
    });
  }
});

describe("a frame", () => {
  test("lies under its final name with its capture time as modification time", async () => {
    const directory = temporaryFolder();
    const captured = 1_695_331_523_123_456_789n;
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "a/b"), "1.png", bytesOf(10), { captured });
      const { mtimeNs, size } = statSync(join(directory, "run7/a/b/1.png"), { bigint: true });
      expect(size).toBe(10n);
      const off = mtimeNs - captured;
      // The system's call takes a floating-point number of seconds.
      expect(off > -1000n && off < 1000n).toBe(true);
    });
  });

  test("captured before 1970 has that as its modification time", async () => {
    const directory = temporaryFolder();
    const captured = -86_400_000_000_000n;
    await withStore(directory, async (store) => {
      await storeFrame(openSource(store, "run7", "visible"), "1.png", bytesOf(10), { captured });
    });
    const { mtimeNs } = statSync(join(directory, "run7/visible/1.png"), { bigint: true });
    expect(mtimeNs).toBe(captured);
  });

  test("makes no folders before it is whole", async () => {
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

  test("leaves nothing in the folder of partial frames, however it ends", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      await storeFrame(source, "1", bytesOf(10));
      await storeFrame(source, "1", bytesOf(10));
      await storeFrame(source, "1", bytesOf(11));
      writeFileSync(join(directory, "run7/visible/2"), "in the way");
      expect(outcomeCode(await storeFrame(source, "2", bytesOf(10)))).toBe("conflict");
      mkdirSync(join(directory, "run7/visible/3"));
      expect(outcomeCode(await storeFrame(source, "3", bytesOf(10)))).toBe("conflict");
      expect(readdirSync(join(directory, ".frames/partial"))).toEqual([]);
    });
  });

  test("that was moved away is still stored", async () => {
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

  test("is stored again in a folder that was removed while it is served", async () => {
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
  test("the folder of partial frames is emptied, whatever lies in it", async () => {
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

  test("a whole frame without its row is adopted when the same comes", async () => {
    const directory = temporaryFolder();
    mkdirSync(join(directory, "run7/visible"), { recursive: true });
    // More than one read of the comparison, and exactly one.
    const sizes = [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000];
    for (const size of sizes) writeFileSync(join(directory, `run7/visible/${size}`), bytesOf(size));
    await withStore(directory, async (store) => {
      const source = openSource(store, "run7", "visible");
      for (const size of sizes) {
        expect(await storeFrame(source, `${size}`, bytesOf(size))).toBe("present");
        // Now it has its row.
        expect(await storeFrame(source, `${size}`, bytesOf(size))).toBe("present");
        expect(outcomeCode(await storeFrame(source, `${size}`, bytesOf(size + 1)))).toBe(
          "conflict",
        );
      }
    });
    expect(names(directory)).toEqual(sizes.map(String));
  });

  test("a file without a row that is anything else is a conflict, and stays", async () => {
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
      for (const name of ["other bytes", "shorter", "longer", "folder", "link", "dangling"]) {
        const outcome = outcomeCode(await storeFrame(source, name, bytesOf(10)));
        expect([name, outcome]).toEqual([name, "conflict"]);
      }
      expect(await storeFrame(source, "new", bytesOf(10))).toBe("stored");
    });
    expect(names(directory)).toEqual(["new"]);
    expect(filesIn(directory).get("run7/visible/other bytes")).toEqual(before!);
    expect(existsSync(join(folder, "nowhere"))).toBe(false);
  });

  test("of a real process, what it renamed and did not journal is adopted or a conflict", async () => {
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

describe("the lock", () => {
  test("keeps a second process out, names the first, and goes with it", async () => {
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
      expect((error as FramesError).exit).toBe(11);
      expect((error as FramesError).message).toContain(`process ${child.pid},`);
      // Reading is free.
      expect(summarize(directory)).toEqual([]);
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

  test("keeps a second store of one process out as well, until it is closed", async () => {
    const directory = temporaryFolder();
    const store = openStore(directory);
    expect(thrownCode(() => openStore(directory))).toBe("locked");
    // That it was tried does not let go of it.
    expect(thrownCode(() => openStore(directory))).toBe("locked");
    store.close();
    await withStore(directory, () => {
      expect(thrownCode(() => openStore(directory))).toBe("locked");
    });
  });

  test("does not empty the folder of partial frames of the one who has it", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const writer = openSource(store, "run7", "visible").begin(describeFrame("1", 3));
      writer.write(new Uint8Array([1, 2, 3]));
      expect(thrownCode(() => openStore(directory))).toBe("locked");
      expect(await writer.finish(crc32(new Uint8Array([1, 2, 3])))).toBe("stored");
    });
  });

  test("of another store is another one", async () => {
    const one = openStore(temporaryFolder());
    await withStore(temporaryFolder(), () => {});
    one.close();
  });
});

describe("a store that cannot be written", () => {
  test("is an error that says where, if a file is in its place", () => {
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
      expect((error as FramesError).exit).toBe(11);
      expect((error as FramesError).message).toContain(place);
    }
    expect(readFileSync(file, "utf8")).toBe("kept");
  });

  test("is an error if a file is in the place of what it keeps for itself", () => {
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

  test.skipIf(process.platform === "win32")("is an error if it is read-only", async () => {
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
      message: `Cannot write the store ${directory}: permission denied`,
    });
  });

  test.skipIf(process.platform === "win32")("can be listed by whoever may read it", async () => {
    // A path may hold what means something in an address.
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
      const [{ frames, bytes, firstCaptured }] = summarize(${JSON.stringify(directory)});
      console.log(frames, bytes, firstCaptured);`);
    expect(said).toBe("1 5 7n");
  });

  test.skipIf(process.platform === "win32")("refuses frames one by one", async () => {
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

describe("nothing leads out of the store:", () => {
  test("a link in the place of a stream or source is not followed", async () => {
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

  test("what lies behind a link in the place of a source is never taken for a stored frame", async () => {
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

  test("a file where a source's folder should be refuses its frames, and the rest arrive", async () => {
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
      // As soon as it is out of the way, frames are kept there.
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

describe("with portable names", () => {
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
        // The very same name is none of these.
        expect(await storeFrame(source, "a.png", bytesOf(1))).toBe("present");
        // In another folder it is another name.
        const other = openSource(store, "run7", "infrared");
        expect(await storeFrame(other, "A.png", bytesOf(1))).toBe("stored");
      },
      true,
    );
    expect(names(directory)).toEqual(["a.png", composed, "b.png", "A.png"]);
  });

  test("so are sources and streams, whichever part of them it is", async () => {
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
      true,
    );
  });

  test("a frame named like a folder beside it but for case is refused", async () => {
    await withStore(
      temporaryFolder(),
      async (store) => {
        await storeFrame(openSource(store, "run7", "visible"), "1", bytesOf(1));
        const source = openSource(store, "run7", "run7");
        const code = thrownCode(() => source.begin(describeFrame("Visible", 1)));
        expect(code).toBe("unportable-name");
      },
      true,
    );
  });

  test("names that this system could keep and Windows could not are refused", async () => {
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
      true,
    );
  });

  test("a name is held against those of earlier runs", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      (store) => storeFrame(openSource(store, "run7", "visible"), "a", bytesOf(1)),
      true,
    );
    await withStore(
      directory,
      (store) => {
        expect(thrownCode(() => openSource(store, "run7", "Visible"))).toBe("unportable-name");
        const source = openSource(store, "run7", "visible");
        expect(thrownCode(() => source.begin(describeFrame("A", 1)))).toBe("unportable-name");
      },
      true,
    );
  });

  test("a name is held against frames that were stored before names had to be portable", async () => {
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
      true,
    );
  });

  test("a name is held against every folder on the way to frames stored before", async () => {
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
      true,
    );
  });

  test("a name is held against frames stored while names did not have to be portable", async () => {
    const directory = temporaryFolder();
    const keep = (name: string, portable: boolean) =>
      withStore(
        directory,
        async (store) => {
          const source = openSource(store, "run7", "visible");
          expect(await storeFrame(source, name, bytesOf(1))).toBe("stored");
        },
        portable,
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
      true,
    );
  });

  test("a frame that was not stored takes no name from others", async () => {
    await withStore(
      temporaryFolder(),
      async (store) => {
        const source = openSource(store, "run7", "visible");
        source.begin(describeFrame("a.png", 10)).discard();
        expect(await storeFrame(source, "A.png", bytesOf(10))).toBe("stored");
      },
      true,
    );
  });
});

// Child processes.

type Child = Bun.Subprocess<"pipe", "pipe", "inherit">;

function modulePath(name: string): string {
  return JSON.stringify(join(import.meta.dir, "../../src/store", name));
}

/** The beginning of a child's program: what it may need, imported before it gives up any rights. */
const imports = `
  import { crc32 } from "node:zlib";
  import { DirectoryStore } from ${modulePath("directory.ts")};
  import { summarize } from ${modulePath("journal.ts")};
  // Whoever started it is gone when its input ends.
  void Bun.stdin.text().then(() => process.exit(0));
`;

function openInChild(directory: string): string {
  const place = JSON.stringify(directory);
  // What nobody holds is collected, and its lock with it.
  return `const store = globalThis.held =
    new DirectoryStore(${place}, { portableNames: false, clock: Date.now });`;
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

/** What a program says that runs as somebody who owns nothing: to root nothing is read-only. */
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

/** A new folder that everybody can reach. */
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
