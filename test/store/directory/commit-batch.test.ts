// Frames that receive their names together in a flush: durable frames, and frames that replace
// others.

import { describe, expect, spyOn, test } from "bun:test";
import * as fs from "node:fs";
import {
  existsSync,
  lstatSync,
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
import type { FramesError } from "../../../src/errors.ts";
import type { SourceInfo, FrameStore } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf, describeFrame, session, storeFrame, thrownCode } from "../contract.ts";
import {
  alter,
  codeOf,
  filesIn,
  flushCode,
  mismatches,
  names,
  offered,
  offeredByTime,
  openStore,
  openVisible,
  otherSession,
  partials,
  pathOf,
  put,
  putAll,
  rows,
  withStore,
} from "../fixture.ts";

const [first, second, third] = [bytesOf(5000, 1), bytesOf(5000, 2), bytesOf(700, 3)];

/** Source options under test. */
const kinds: [what: string, origin: Partial<SourceInfo>][] = [
  ["durable frames", { durable: true }],
  ["frames that may replace others", { conflict: "replace" }],
  ["durable frames that may replace others", { durable: true, conflict: "replace" }],
];

for (const [what, origin] of kinds) {
  describe(what, () => {
    test(`${what} have no name and no row before the flush, and both after it`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openVisible(store, origin);
        const outcomes = [put(source, "1", first), put(source, "2", second)];
        expect(outcomes.every((outcome) => outcome instanceof Promise)).toBe(true);
        // Only the flush renames them.
        await new Promise((resolve) => setImmediate(resolve));
        expect([...filesIn(directory).keys()]).toEqual([]);
        expect(partials(directory)).toHaveLength(2);
        expect(store.isStreamEmpty("run7")).toBe(true);
        expect(source.compare([offered("1", first)])[0]!).toBe("wanted");
        await store.flush();
        expect(await Promise.all(outcomes)).toEqual(["stored", "stored"]);
        expect(partials(directory)).toEqual([]);
        expect(names(directory)).toEqual(["1", "2"]);
        expect(filesIn(directory)).toEqual(
          new Map([
            ["run7/visible/1", first],
            ["run7/visible/2", second],
          ]),
        );
        expect(source.compare([offered("1", first)])[0]!).toBe("stored");
      });
    });

    test(`${what} of one name with the same bytes in one batch are stored once`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const outcomes = await putAll(store, openVisible(store, origin), [
          ["1", first],
          ["1", first],
          ["2", second],
          ["1", first],
        ]);
        expect(outcomes).toEqual(["stored", "present", "stored", "present"]);
      });
      expect(names(directory).sort()).toEqual(["1", "2"]);
      expect(partials(directory)).toEqual([]);
    });

    test(`${what} of one name with other bytes in one batch get their outcomes in order`, async () => {
      const directory = temporaryFolder();
      const replaces = origin.conflict === "replace";
      await withStore(directory, async (store) => {
        const outcomes = await putAll(store, openVisible(store, origin), [
          ["1", first],
          ["1", second],
          ["1", third],
          ["2", first],
        ]);
        const next = replaces ? "stored" : "conflict";
        expect(outcomes).toEqual(["stored", next, next, "stored"]);
      });
      expect(names(directory).sort()).toEqual(["1", "2"]);
      const expected = replaces ? third : first;
      expect(filesIn(directory).get("run7/visible/1")).toEqual(expected);
      expect(mismatches(directory)).toEqual([]);
      expect(partials(directory)).toEqual([]);
      expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
    });

    test(`${what} whose names differ only in case in one batch are refused if names must be portable`, async () => {
      const directory = temporaryFolder();
      await withStore(
        directory,
        async (store) => {
          const source = openVisible(store, origin);
          const outcomes = await putAll(store, source, [
            ["A.jpg", first],
            ["a.jpg", first],
            ["\u00e9", second],
            ["e\u0301", third],
            ["b.jpg", third],
          ]);
          const refused = "unportable-name";
          expect(outcomes).toEqual(["stored", refused, "stored", refused, "stored"]);
          // The same applies to folders.
          const other = openVisible(store, { ...origin, source: "Left" });
          const alike = openVisible(store, { ...origin, source: "left" });
          const both = [put(other, "1", first), put(alike, "2", second)];
          await store.flush();
          expect(await Promise.all(both.map(codeOf))).toEqual(["stored", refused]);
        },
        { portableNames: true },
      );
      expect(names(directory).sort()).toEqual(["1", "A.jpg", "b.jpg", "\u00e9"]);
      expect(filesIn(directory).size).toBe(4);
      expect(partials(directory)).toEqual([]);
      expect(mismatches(directory)).toEqual([]);
    });

    test(`${what} that are refused do not affect the others of their batch`, async () => {
      const directory = temporaryFolder();
      mkdirSync(pathOf(directory, "folder"), { recursive: true });
      symlinkSync("nowhere", pathOf(directory, "link"));
      writeFileSync(join(directory, "run7/blocked"), "no folder");
      await withStore(directory, async (store) => {
        const blocked = store.open({ stream: "run7", source: "blocked", session, ...origin });
        const source = openVisible(store, origin);
        const outcomes = [
          put(source, "1", first),
          put(source, "folder", first),
          put(blocked, "1", first),
          put(source, "link", first),
          put(source, "2", second),
        ];
        await store.flush();
        expect(await Promise.all(outcomes.map(codeOf))).toEqual([
          ...["stored", "not-stored", "not-stored", "not-stored", "stored"],
        ]);
        const error = (await outcomes[1]) as FramesError;
        expect(error.message).toBe(
          `Cannot store "folder": ${pathOf(directory, "folder")} is not a file`,
        );
      });
      expect(names(directory)).toEqual(["1", "2"]);
      expect(partials(directory)).toEqual([]);
      expect(lstatSync(pathOf(directory, "folder")).isDirectory()).toBe(true);
      expect(lstatSync(pathOf(directory, "link")).isSymbolicLink()).toBe(true);
    });

    test(`${what} are stored in a folder that was removed before the flush`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openVisible(store, origin);
        await putAll(store, source, [["1", first]]);
        rmSync(join(directory, "run7"), { recursive: true });
        const outcome = put(source, "2", second);
        await store.flush();
        expect(await outcome).toBe("stored");
        rmSync(join(directory, "run7/visible"), { recursive: true });
        expect(await putAll(store, source, [["3", third]])).toEqual(["stored"]);
      });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/3", third]]));
      expect(names(directory)).toEqual(["1", "2", "3"]);
    });

    test(`${what} keep their capture times`, async () => {
      const directory = temporaryFolder();
      const captured = -86_400_000_000_000n;
      await withStore(directory, async (store) => {
        const source = openVisible(store, origin);
        await putAll(store, source, [["1", first, { captured }]]);
        await putAll(store, source, [["1", second, { captured: 2n * captured }]]);
      });
      const last = origin.conflict === "replace" ? 2n * captured : captured;
      expect(statSync(pathOf(directory, "1"), { bigint: true }).mtimeNs).toBe(last);
      expect(rows(directory, "SELECT captured FROM frames")).toEqual([{ captured: last }]);
    });

    test(`${what} that arrive during a flush are stored by the next flush`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openVisible(store, origin);
        const early = put(source, "1", first);
        const flushing = store.flush();
        const late = put(source, "2", second);
        const next = store.flush();
        await flushing;
        expect(await early).toBe("stored");
        await next;
        expect(await late).toBe("stored");
        expect(names(directory)).toEqual(["1", "2"]);
      });
    });

    test(`${what} are stored when any flush that began after them has finished`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openVisible(store, origin);
        const said: string[] = [];
        const waits: Promise<unknown>[] = [];
        for (let index = 0; index < 20; index++) {
          const name = `${index}`;
          void Promise.resolve(put(source, name, bytesOf(100, index + 1))).then(() =>
            said.push(name),
          );
          const before = index;
          const flushed = Promise.resolve(store.flush()).then(() => {
            // All frames that ended before this flush are present, with their rows.
            const known = new Set(names(directory));
            for (let earlier = 0; earlier <= before; earlier++) {
              expect(known.has(`${earlier}`)).toBe(true);
              expect(existsSync(pathOf(directory, `${earlier}`))).toBe(true);
            }
          });
          waits.push(flushed);
          if (index % 5 === 4) await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(waits);
        expect(said.sort()).toEqual(names(directory).sort());
        expect(names(directory)).toHaveLength(20);
      });
    });

    test(`${what} are flushed together with other frames`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const plain = store.open({ stream: "run7", source: "infrared", session: otherSession });
        const source = openVisible(store, origin);
        const outcome = put(source, "1", first);
        expect(await storeFrame(plain, "1", second)).toBe("stored");
        const flushing = store.flush();
        expect(await storeFrame(plain, "2", third)).toBe("stored");
        await flushing;
        expect(await outcome).toBe("stored");
        await store.flush();
        expect(names(directory).sort()).toEqual(["1", "1", "2"]);
      });
      expect(mismatches(directory)).toEqual([]);
    });

    test(`${what} of a failed batch all fail once, and are stored when they are sent again`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const source = openVisible(store, origin);
        const plain = store.open({ stream: "run7", source: "infrared", session: otherSession });
        await putAll(store, source, [["0", third]]);
        alter(
          directory,
          `CREATE TRIGGER full BEFORE INSERT ON frames WHEN NEW.name = '2'
            BEGIN SELECT RAISE(ABORT, 'full'); END`,
        );
        const frames = [
          ["1", first],
          ["2", second],
          ["3", third],
        ] as const;
        const outcomes = frames.map(([name, bytes]) => put(source, name, bytes));
        expect(await storeFrame(plain, "plain", third)).toBe("stored");
        expect(await flushCode(store)).toBe("store");
        expect(await Promise.all(outcomes.map(codeOf))).toEqual(frames.map(() => "rejected store"));
        expect(names(directory)).toEqual(["0"]);
        expect(partials(directory)).toEqual([]);
        // The error was reported to every frame, and no part of the failed batch remains.
        expect(await flushCode(store)).toBeUndefined();
        expect(names(directory)).toEqual(["0"]);
        alter(directory, "DROP TRIGGER full");
        for (const outcome of await putAll(store, source, frames)) {
          expect(["stored", "present"]).toContain(outcome);
        }
        expect(await storeFrame(plain, "plain", third)).toBe("present");
      });
      expect(names(directory).sort()).toEqual(["0", "1", "2", "3", "plain"]);
      expect(mismatches(directory)).toEqual([]);
      expect(filesIn(directory).size).toBe(5);
    });

    if (origin.durable === true) {
      test(`${what} that come while a batch fails have no row before those of the batch`, async () => {
        const directory = temporaryFolder();
        await withStore(directory, async (store) => {
          const source = openVisible(store, origin);
          await putAll(store, source, [["0", third]]);
          alter(
            directory,
            `CREATE TRIGGER full BEFORE INSERT ON frames WHEN NEW.name = '1'
              BEGIN SELECT RAISE(ABORT, 'full'); END`,
          );
          const outcomes = [put(source, "1", first)];
          const flushed = flushCode(store);
          // The flush takes its batch in the next turn, and then waits for the disk.
          for (let turn = 0; turn < 5; turn++) await Promise.resolve();
          outcomes.push(put(source, "2", second));
          expect(await flushed).toBe("store");
          alter(directory, "DROP TRIGGER full");
          expect(await flushCode(store)).toBeUndefined();
          expect(await Promise.all(outcomes.map(codeOf))).toEqual(
            outcomes.map(() => "rejected store"),
          );
          await putAll(store, source, [
            ["1", first],
            ["2", second],
          ]);
        });
        expect(names(directory)).toEqual(["0", "1", "2"]);
        expect(mismatches(directory)).toEqual([]);
        expect(partials(directory)).toEqual([]);
      });
    }

    for (const code of ["ENOSPC", "EIO", "EROFS"]) {
      test(`${what} of a batch all fail if a rename fails with ${code}`, async () => {
        const directory = temporaryFolder();
        await withStore(directory, async (store) => {
          const source = openVisible(store, origin);
          const outcomes = [put(source, "1", first), put(source, "2", second)];
          const real = renameSync;
          let calls = 0;
          const spy = spyOn(fs, "renameSync").mockImplementation((from, to) => {
            if (++calls === 1) return real(from, to);
            throw Object.assign(new Error(`${code}: as the system says it`), { code });
          });
          try {
            expect(await flushCode(store)).toBe("store");
          } finally {
            spy.mockRestore();
          }
          expect(calls).toBe(2);
          expect(await Promise.all(outcomes.map(codeOf))).toEqual([
            ...["rejected store", "rejected store"],
          ]);
          expect(names(directory)).toEqual([]);
          expect(partials(directory)).toEqual([]);
          // The file that was renamed before the failure is recognized.
          const again = await putAll(store, source, [
            ["1", first],
            ["2", second],
          ]);
          expect(again).toEqual(["present", "stored"]);
        });
        expect(names(directory).sort()).toEqual(["1", "2"]);
        expect(mismatches(directory)).toEqual([]);
      });
    }
  });
}

describe("replacing frames", () => {
  const replacing = { conflict: "replace", session: otherSession } as const;

  test("a replacing frame gets its own row, as the newest", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [
        ["1", first],
        ["2", second],
      ]);
      const source = openVisible(store, {
        ...replacing,
        raw: { width: 1, height: 2, format: "x" },
      });
      const more = { sequence: 77, captured: 5n, metadata: '{"gain":2}' };
      expect(await putAll(store, source, [["1", third, more]])).toEqual(["stored"]);
    });
    const found = rows(directory, "SELECT * FROM frames ORDER BY id");
    expect(found).toMatchObject([
      { name: "2", session, bytes: 5000n },
      {
        ...{ name: "1", session: otherSession, seq: 77n, bytes: 700n, captured: 5n },
        ...{ crc32: BigInt(crc32(third)), meta: '{"gain":2}', format: "1x2.x" },
      },
    ]);
    expect(found).toHaveLength(2);
    expect(mismatches(directory)).toEqual([]);
    expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
  });

  test("a frame with the bytes of the stored one replaces nothing, and the row stays", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [["1", first, { captured: 7n }]]);
      const { ino } = statSync(pathOf(directory, "1"));
      const source = openVisible(store, replacing);
      expect(await putAll(store, source, [["1", first, { captured: 9n }]])).toEqual(["present"]);
      expect(statSync(pathOf(directory, "1")).ino).toBe(ino);
    });
    expect(rows(directory, "SELECT session, captured FROM frames")).toEqual([
      { session, captured: 7n },
    ]);
    expect(partials(directory)).toEqual([]);
  });

  test("a frame that cannot replace another is refused, and the stored frame and its row stay", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [
        ["1", first],
        ["2", first],
      ]);
      rmSync(pathOf(directory, "2"));
      mkdirSync(pathOf(directory, "2"));
      const outcomes = await putAll(store, openVisible(store, replacing), [
        ["1", third],
        ["2", third],
      ]);
      expect(outcomes).toEqual(["stored", "not-stored"]);
    });
    const found = rows<{ name: string; session: string }>(
      directory,
      "SELECT name, session FROM frames",
    );
    expect(new Map(found.map(({ name, session: who }) => [name, who]))).toEqual(
      new Map([
        ["1", otherSession],
        ["2", session],
      ]),
    );
    expect(partials(directory)).toEqual([]);
    expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
  });

  for (const code of ["EACCES", "EPERM"]) {
    test(`a replacing frame whose rename fails with ${code} is refused, and the stored frame stays`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        await putAll(store, openVisible(store), [["1", first]]);
        const outcome = put(openVisible(store, replacing), "1", second);
        const spy = spyOn(fs, "renameSync").mockImplementation((): never => {
          throw Object.assign(new Error(`${code}: as the system says it`), { code });
        });
        try {
          await store.flush();
        } finally {
          spy.mockRestore();
        }
        expect(await codeOf(outcome)).toBe("not-stored");
        expect(openVisible(store).compare([offered("1", first)])[0]!).toBe("stored");
      });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/1", first]]));
      expect(mismatches(directory)).toEqual([]);
      expect(partials(directory)).toEqual([]);
      expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
    });
  }

  for (const code of ["ENOSPC", "EIO", "EROFS"]) {
    test(`a replacing frame whose rename fails with ${code} fails with its batch`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        await putAll(store, openVisible(store), [["1", first]]);
        const source = openVisible(store, replacing);
        const outcome = put(source, "1", second);
        const spy = spyOn(fs, "renameSync").mockImplementation((): never => {
          throw Object.assign(new Error(`${code}: as the system says it`), { code });
        });
        try {
          expect(await flushCode(store)).toBe("store");
        } finally {
          spy.mockRestore();
        }
        // Not a refusal: the sender keeps the frame and sends it again when there is space.
        expect(await codeOf(outcome)).toBe("rejected store");
        expect(partials(directory)).toEqual([]);
        expect(filesIn(directory)).toEqual(new Map([["run7/visible/1", first]]));
        expect(mismatches(directory)).toEqual([]);
        expect(openVisible(store).compare([offered("1", first)])[0]!).toBe("stored");
        expect(await putAll(store, source, [["1", second]])).toEqual(["stored"]);
      });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/1", second]]));
      expect(mismatches(directory)).toEqual([]);
      expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
    });
  }

  for (const by of ["flush", "offer"]) {
    test(`a replacing frame gets its row with the next ${by} if the journal failed after the rename`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        await putAll(store, openVisible(store), [["1", first, { captured: 5n }]]);
        alter(
          directory,
          `CREATE TRIGGER full BEFORE DELETE ON replacements
            BEGIN SELECT RAISE(ABORT, 'full'); END`,
        );
        const outcome = put(openVisible(store, replacing), "1", second, { captured: 9000n });
        expect(await flushCode(store)).toBe("store");
        expect(await codeOf(outcome)).toBe("rejected store");
        // The new content has the name, but the journal could not be updated.
        expect(filesIn(directory)).toEqual(new Map([["run7/visible/1", second]]));
        expect(mismatches(directory)).toHaveLength(1);
        alter(directory, "DROP TRIGGER full");
        if (by === "flush") {
          expect(await flushCode(store)).toBeUndefined();
          expect(mismatches(directory)).toEqual([]);
        }
        const source = openVisible(store);
        // Size and time alone would match the old content.
        expect(source.compare([offeredByTime("1", first, 5n)])[0]!).toBe("needsChecksum");
        expect(source.compare([offered("1", first)])[0]!).toBe("conflict");
        expect(source.compare([offeredByTime("1", second, 9000n)])[0]!).toBe("stored");
        expect(mismatches(directory)).toEqual([]);
        expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
      });
      expect(rows(directory, "SELECT name, session, captured FROM frames")).toEqual([
        { name: "1", session: otherSession, captured: 9000n },
      ]);
    });
  }

  test("a replacing frame is not visible before it is whole, nor after it is discarded", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [["1", first]]);
      const source = openVisible(store, replacing);
      for (const end of ["discard", "leave"]) {
        const writer = source.begin(describeFrame("1", second.length));
        writer.write(second.slice(0, 4999));
        await store.flush();
        expect(readFileSync(pathOf(directory, "1"))).toEqual(Buffer.from(first));
        if (end === "discard") writer.discard();
      }
      expect(mismatches(directory)).toEqual([]);
    });
    await withStore(directory, (store) => {
      expect({ ...store.recovery }).toEqual({ unfinished: 1, replaced: 0 });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/1", first]]));
    });
  });

  test("a batch of replacing frames takes two journal transactions: one before and one after the renames", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const frames = (seed: number) =>
        Array.from({ length: 50 }, (_, index) => [`${index}`, bytesOf(100, seed + index)] as const);
      await putAll(store, openVisible(store), frames(1));
      const flush = spyOn(store.journal, "flush");
      expect(new Set(await putAll(store, openVisible(store, replacing), frames(100)))).toEqual(
        new Set(["stored"]),
      );
      // The third call flushes rows that do not belong to the batch.
      expect(flush.mock.calls.length).toBeLessThanOrEqual(3);
      flush.mockRestore();
    });
    expect(mismatches(directory)).toEqual([]);
    expect(names(directory)).toHaveLength(50);
  });
});

describe("frames of two sessions in one batch", () => {
  test("frames of one name from a durable and a replacing session get their outcomes in order", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const durable = openVisible(store, { durable: true });
      const replacing = openVisible(store, { conflict: "replace", session: otherSession });
      const outcomes = [
        put(durable, "1", first),
        put(replacing, "1", second),
        put(durable, "1", first),
        put(durable, "2", third),
        put(replacing, "2", third),
      ];
      await store.flush();
      expect(await Promise.all(outcomes.map(codeOf))).toEqual([
        ...["stored", "stored", "conflict", "stored", "present"],
      ]);
    });
    expect(filesIn(directory).get("run7/visible/1")).toEqual(second);
    expect(mismatches(directory)).toEqual([]);
  });

  test("a frame that a plain session stores first is present or a conflict for a durable batch", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const durable = openVisible(store, { durable: true });
      const plain = openVisible(store, { durable: false, session: otherSession });
      const outcomes = [put(durable, "1", first), put(durable, "2", second)];
      expect(await storeFrame(plain, "1", first)).toBe("stored");
      expect(await storeFrame(plain, "2", third)).toBe("stored");
      await store.flush();
      expect(await Promise.all(outcomes.map(codeOf))).toEqual(["present", "conflict"]);
    });
    expect(mismatches(directory)).toEqual([]);
    expect(partials(directory)).toEqual([]);
  });
});

describe("durable frames between rename and row", () => {
  for (const [what, come, said] of [
    [
      "is offered",
      (store) => openVisible(store, { session: otherSession }).compare([offered("1", first)])[0]!,
      "stored",
    ],
    [
      "is sent by a session that is not durable",
      (store) => put(openVisible(store, { session: otherSession }), "1", first),
      "present",
    ],
  ] satisfies [string, (store: FrameStore) => unknown, string][]) {
    test(`a durable frame is stored although it ${what} between its rename and its row`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const outcome = put(openVisible(store, { durable: true }), "1", first);
        const answers: unknown[] = [];
        const real = renameSync;
        const spy = spyOn(fs, "renameSync").mockImplementation((from, to) => {
          real(from, to);
          // Runs as soon as the flush yields. The operation records what it finds.
          queueMicrotask(() => answers.push(come(store)));
        });
        try {
          expect(await flushCode(store)).toBeUndefined();
        } finally {
          spy.mockRestore();
        }
        expect(answers).toEqual([said]);
        expect(await codeOf(outcome)).toBe("stored");
        await store.flush();
      });
      expect(names(directory)).toEqual(["1"]);
      expect(mismatches(directory)).toEqual([]);
      expect(partials(directory)).toEqual([]);
    });
  }
});

describe("durable store", () => {
  test("a durable store makes every source durable", async () => {
    await withStore(temporaryFolder(), (store) => {
      expect(store.isDurable).toBe(false);
      expect(put(openVisible(store), "1", first)).toBe("stored");
    });
    await withStore(
      temporaryFolder(),
      async (store) => {
        expect(store.isDurable).toBe(true);
        const origins = [{}, { durable: false }, { durable: true }];
        for (const [index, origin] of origins.entries()) {
          const outcome = put(openVisible(store, origin), `${index}`, first);
          expect(outcome).toBeInstanceOf(Promise);
          await store.flush();
          expect(await outcome).toBe("stored");
        }
      },
      { durable: true },
    );
  });

  test("a durable store without pending frames has nothing to flush", async () => {
    await withStore(
      temporaryFolder(),
      async (store) => {
        expect(store.flush()).toBeUndefined();
        await putAll(store, openVisible(store), [["1", first]]);
        expect(store.flush()).toBeUndefined();
      },
      { durable: true },
    );
  });

  test("a durable store continues if a frame is removed before it is flushed", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        await putAll(store, source, [
          ["1", first],
          ["2", second],
        ]);
        expect(source.compare([offered("1", first)])[0]!).toBe("stored");
        expect(await storeFrame(source, "2", second)).toBe("present");
        rmSync(join(directory, "run7"), { recursive: true });
        await store.flush();
        expect(source.compare([offered("1", first)])[0]!).toBe("removed");
      },
      { durable: true },
    );
  });

  test("a durable store fails as long as a frame that it found cannot be flushed", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        await putAll(store, source, [["1", first]]);
        expect(source.compare([offered("1", first)])[0]!).toBe("stored");
        // A symbolic link to itself cannot be opened.
        rmSync(pathOf(directory, "1"));
        symlinkSync("1", pathOf(directory, "1"));
        // The second flush must repeat what the first failed to do.
        expect(await Promise.all([flushCode(store), flushCode(store)])).toEqual(["store", "store"]);
        expect(await flushCode(store)).toBe("store");
        rmSync(pathOf(directory, "1"));
        expect(await flushCode(store)).toBeUndefined();
        expect(store.flush()).toBeUndefined();
      },
      { durable: true },
    );
  });

  test("a durable store that is moved away while it is served fails, and keeps no frame of its batch", async () => {
    const directory = temporaryFolder();
    const store = openStore(directory, { durable: true });
    const source = openVisible(store);
    await putAll(store, source, [["1", first]]);
    put(source, "2", second);
    renameSync(join(directory, ".frames"), join(directory, "moved"));
    expect(thrownCode(() => store.flush())).toBe("store");
    expect(thrownCode(() => store.flush())).toBe("store");
    store.close();
  });
});

describe("replacing frames with keys", () => {
  const keyed = (key?: string): Partial<SourceInfo> => ({
    ...(key === undefined ? {} : { key }),
    conflict: "replace",
  });
  const cases: [string, string | undefined, string | undefined, boolean][] = [
    ["is replaced with the same key", "cam-1", "cam-1", true],
    [
      "is not replaced with another key, also with the conflict option replace",
      "cam-1",
      "cam-2",
      false,
    ],
    ["is replaced without a key, after keys were turned off", "cam-1", undefined, true],
    ["is replaced with a key if it was stored without one", undefined, "cam-1", true],
  ];
  for (const [what, before, after, replaces] of cases) {
    test(`a frame ${what}`, async () => {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        await putAll(store, openVisible(store, keyed(before)), [["1", first]]);
        const source = openVisible(store, { ...keyed(after), session: otherSession });
        expect(source.compare([offered("1", second)])).toEqual([replaces ? "wanted" : "conflict"]);
        const [outcome] = await putAll(store, source, [["1", second]]);
        expect(outcome).toBe(replaces ? "stored" : "conflict");
        // The same content counts as stored with any key.
        const kept = replaces ? second : first;
        expect(source.compare([offered("1", kept)])).toEqual(["stored"]);
      });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/1", replaces ? second : first]]));
      const key = (replaces ? after : before) ?? null;
      expect(rows(directory, "SELECT key FROM frames")).toEqual([{ key }]);
    });
  }
});
