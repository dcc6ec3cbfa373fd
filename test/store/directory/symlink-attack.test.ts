// Attacks by a user who can write in the store's folder. No file outside it may be created,
// changed, removed or read, and the sender must get an error.

import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import type { SourceInfo, FrameStore, SourceStore } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { describeFrame } from "../contract.ts";
import {
  codeOf,
  filesIn,
  flushCode,
  offered,
  openStore,
  openVisible,
  otherSession,
  partials,
  put,
  putAll,
  withStore,
} from "../fixture.ts";

const bytes = new TextEncoder().encode("what the camera saw");
const secret = new TextEncoder().encode("what lies outside!!");
const windows = process.platform === "win32";

/** Creates a store, and beside it a folder with a file of the frame's name. */
function scene() {
  const parent = temporaryFolder();
  const [place, outside] = [join(parent, "store"), join(parent, "outside")];
  for (const folder of [place, outside]) mkdirSync(folder);
  writeFileSync(join(outside, "1"), secret);
  return { place, outside };
}

function expectUntouched(outside: string): void {
  expect([...filesIn(outside)]).toEqual([["1", secret]]);
}

/** Replaces `path` by a link to `target`. */
function swap(path: string, target: string): void {
  renameSync(path, `${path}.moved`);
  symlinkSync(target, path);
}

/** Waits until the store no longer relies on its last check of a folder. */
const seenAgain = () => Bun.sleep(2);

/** Stores a frame and returns its outcome, whether returned or thrown. */
async function storeOne(
  store: FrameStore,
  source: SourceStore,
  name: string,
  content: Uint8Array,
): Promise<string> {
  try {
    return (await putAll(store, source, [[name, content]]))[0]!;
  } catch (error) {
    return (error as FramesError).code;
  }
}

/** Writes half of each frame, runs `attack`, writes the rest, and returns the outcomes. */
async function halfWritten(
  store: FrameStore,
  sources: readonly SourceStore[],
  name: string,
  attack: () => void,
): Promise<string[]> {
  const writers = sources.map((source) => source.begin(describeFrame(name, bytes.length)));
  for (const writer of writers) writer.write(bytes.slice(0, 5));
  attack();
  await seenAgain();
  for (const writer of writers) writer.write(bytes.slice(5));
  const outcomes = writers.map((writer) => {
    try {
      return writer.finish(crc32(bytes));
    } catch (error) {
      return error as FramesError;
    }
  });
  const codes = outcomes.map(codeOf);
  await flushCode(store);
  return Promise.all(codes);
}

const ways: [string, Partial<SourceInfo>][] = [
  ["plainly", {}],
  ["durably", { durable: true }],
  ["with conflict replace", { conflict: "replace" }],
];

describe.skipIf(windows)("folders that become links", () => {
  for (const [how, origin] of ways) {
    for (const [what, below] of [
      ["source", "run7/visible"],
      ["stream", "run7"],
    ] as const) {
      test(`a frame stored ${how} is refused if the folder of its ${what} becomes a link meanwhile`, async () => {
        const { place, outside } = scene();
        mkdirSync(join(outside, "visible"));
        await withStore(place, async (store) => {
          const source = openVisible(store, origin);
          expect(await putAll(store, source, [["0", bytes]])).toEqual(["stored"]);
          const attack = () => swap(join(place, below), outside);
          expect(await halfWritten(store, [source], "2", attack)).toEqual(["not-stored"]);
          expect(await halfWritten(store, [source], "1", () => {})).toEqual(["not-stored"]);
          expectUntouched(outside);
          expect(partials(place)).toEqual([]);
        });
      });
    }
  }

  test("frames are stored again when a link becomes a folder again", async () => {
    const { place, outside } = scene();
    await withStore(place, async (store) => {
      const source = openVisible(store);
      await putAll(store, source, [["0", bytes]]);
      swap(join(place, "run7"), outside);
      await seenAgain();
      expect(await storeOne(store, source, "1", bytes)).toBe("not-stored");
      rmSync(join(place, "run7"));
      renameSync(join(place, "run7.moved"), join(place, "run7"));
      await seenAgain();
      expect(await putAll(store, source, [["1", bytes]])).toEqual(["stored"]);
      expect([...filesIn(join(place, "run7")).keys()].toSorted()).toEqual([
        "visible/0",
        "visible/1",
      ]);
      expectUntouched(outside);
    });
  });

  test("no frame is begun when the folder of partial frames becomes a link, and the store fails", async () => {
    for (const below of [".frames/partial", ".frames"]) {
      const { place, outside } = scene();
      mkdirSync(join(outside, "partial"));
      await withStore(place, async (store) => {
        const source = openVisible(store);
        await putAll(store, source, [["0", bytes]]);
        swap(join(place, below), outside);
        await seenAgain();
        expect(() => put(source, "1", bytes)).toThrow(
          expect.objectContaining({ code: "store" }) as Error,
        );
        expectUntouched(outside);
      });
    }
  });

  test("a frame with the right bytes behind a link is not read, and does not count as stored", async () => {
    const { place, outside } = scene();
    mkdirSync(join(outside, "visible"));
    for (const folder of [outside, join(outside, "visible")])
      writeFileSync(join(folder, "2"), bytes);
    await withStore(place, async (store) => {
      const keeps = openVisible(store);
      const moves = openVisible(store, {
        durable: true,
        verifyStored: true,
        session: otherSession,
      });
      expect(await putAll(store, keeps, [["2", bytes]])).toEqual(["stored"]);
      swap(join(place, "run7"), outside);
      await seenAgain();
      // A sender that may delete its copy must not be told that the frame is stored.
      for (const source of [keeps, moves]) {
        expect(source.compare([offered("2", bytes)])).toEqual(["removed"]);
      }
      expect(await putAll(store, moves, [["2", bytes]])).toEqual(["conflict"]);
      const fresh = openVisible(store, { session: otherSession });
      expect(fresh.compare([offered("1", secret)])).toEqual(["wanted"]);
    });
  });
});

describe.skipIf(windows)("links, pipes and hard links in place of frames", () => {
  for (const conflict of ["fail", "replace"] as const) {
    test(`a link in place of a frame is neither followed nor replaced, with conflict ${conflict}`, async () => {
      const { place, outside } = scene();
      mkdirSync(join(place, "run7/visible"), { recursive: true });
      symlinkSync(join(outside, "1"), join(place, "run7/visible/1"));
      symlinkSync(join(outside, "none"), join(place, "run7/visible/2"));
      await withStore(place, async (store) => {
        const source = openVisible(store, { conflict });
        for (const [name, content] of [
          ["1", bytes],
          ["1", secret],
          ["2", bytes],
        ] as const) {
          expect(source.compare([offered(name, content)])).toEqual(["wanted"]);
          expect(await storeOne(store, source, name, content)).toBe("not-stored");
        }
        expectUntouched(outside);
      });
    });
  }

  test("a hard link to a file outside is replaced, and that file stays", async () => {
    const { place, outside } = scene();
    mkdirSync(join(place, "run7/visible"), { recursive: true });
    linkSync(join(outside, "1"), join(place, "run7/visible/1"));
    await withStore(place, async (store) => {
      const source = openVisible(store, { conflict: "replace" });
      expect(await putAll(store, source, [["1", bytes]])).toEqual(["stored"]);
      expectUntouched(outside);
      expect(new Uint8Array(readFileSync(join(place, "run7/visible/1")))).toEqual(bytes);
    });
  });

  test.skipIf(Bun.which("mkfifo") === null)("a pipe in place of a frame is refused", async () => {
    const { place } = scene();
    await withStore(place, async (store) => {
      const source = openVisible(store);
      const moves = openVisible(store, {
        durable: true,
        verifyStored: true,
        session: otherSession,
      });
      expect(await putAll(store, source, [["2", bytes]])).toEqual(["stored"]);
      rmSync(join(place, "run7/visible/2"));
      for (const name of ["1", "2"]) {
        expect(spawnSync("mkfifo", [join(place, "run7/visible", name)]).status).toBe(0);
        expect(moves.compare([offered(name, bytes)])).toEqual([
          name === "1" ? "wanted" : "conflict",
        ]);
        const outcome = name === "1" ? "not-stored" : "conflict";
        expect(await putAll(store, moves, [[name, bytes]])).toEqual([outcome]);
      }
    });
  });
});

describe.skipIf(windows)("links in place of the store's own files", () => {
  for (const file of [
    "journal.sqlite",
    "journal.sqlite-wal",
    "journal.sqlite-shm",
    "lock.sqlite",
    "lock.json",
    "partial",
  ]) {
    test(`a store whose ${file} is a link does not open, and the target stays`, () => {
      const { place, outside } = scene();
      mkdirSync(join(place, ".frames"));
      const target = file === "partial" ? outside : join(outside, "1");
      symlinkSync(target, join(place, ".frames", file));
      const before = statSync(target).mtimeMs;
      let thrown: unknown;
      try {
        openStore(place).close();
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toMatchObject({ code: "store", message: expect.stringContaining(file) });
      expect(statSync(target).mtimeMs).toBe(before);
      expectUntouched(outside);
    });
  }

  test("a store whose folder .frames is a link does not open", () => {
    const { place, outside } = scene();
    mkdirSync(join(outside, "partial"));
    symlinkSync(outside, join(place, ".frames"));
    expect(() => openStore(place)).toThrow(expect.objectContaining({ code: "store" }) as Error);
    expectUntouched(outside);
  });
});

test("losses do not use the reserve of a disk: the store fails when it is reached", async () => {
  const { place } = scene();
  let free = 100_000;
  const diskSpace = () => ({ free, total: 1_000_000 });
  await withStore(
    place,
    async (store) => {
      const source = openVisible(store);
      const lose = () => source.recordLoss(1, 2, new FramesError("dropped"));
      lose();
      await store.flush();
      free = 100;
      expect(lose).toThrow(expect.objectContaining({ code: "store" }) as Error);
    },
    { reserve: 1000, diskSpace },
  );
});
