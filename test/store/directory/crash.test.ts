// Kills a store's process at every system call that changes the disk.
//
// Covers: store/journal/journal.ts

import { Database } from "bun:sqlite";
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import {
  childCaptured,
  childSession,
  type Plan,
  type PlannedFrame,
} from "../../helper/crash-store.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { Journal, type Replacement } from "../../../src/store/journal/journal.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { bytesOf, session } from "../contract.ts";
import {
  filesIn,
  mismatches,
  names,
  openStore,
  openVisible,
  partials,
  pathOf,
  putAll,
  rows,
  withStore,
} from "../fixture.ts";
import {
  canTrace,
  isFlush,
  killAt,
  lineCall,
  momentsFrom,
  severalAtOnce,
  trace,
  unlessTraced,
} from "./trace.ts";

const traced = test.skipIf(!canTrace);

function planned(name: string, size: number, seed: number): PlannedFrame {
  return { name, size, seed };
}

function contentOf({ size, seed }: PlannedFrame): Uint8Array {
  return bytesOf(size, seed);
}

const folders: string[] = [];

/** Returns a copy of a store for inspection, so that the original stays unchanged. */
function copyOf(directory: string): string {
  const copy = join(temporaryFolder(), "copy");
  folders.push(copy);
  cpSync(directory, copy, { recursive: true });
  return copy;
}

afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Counts unfinished operations in a store not reopened since. */
function leftBehind(directory: string): { unfinished: number; replaced: number } {
  const partial = join(directory, ".frames/partial");
  if (!existsSync(journalPath(directory))) return { unfinished: 0, replaced: 0 };
  const copy = copyOf(directory);
  // Creates the tables if the process died before that.
  new Journal(journalPath(copy)).close();
  const begun = rows<{ partial: string }>(copy, "SELECT partial FROM replacements");
  return {
    unfinished: readdirSync(partial).length,
    replaced: begun.filter(({ partial: name }) => !existsSync(join(partial, name))).length,
  };
}

/** Returns the frames that a process reported as flushed. */
function confirmed(plan: Plan, said: readonly Record<string, unknown>[]): PlannedFrame[] {
  const flushes = said.filter((line) => "flushed" in line).length;
  const sure: PlannedFrame[] = [];
  let begun: PlannedFrame[] = [];
  let done = 0;
  for (const step of plan.steps) {
    if ("store" in step) begun.push(...step.store);
    if (!("flush" in step)) continue;
    if (++done > flushes) break;
    sure.push(...begun);
    begun = [];
  }
  return sure;
}

/** Returns the frames of a plan by name; the last one of a name counts. */
function framesOf(plan: Plan): Map<string, PlannedFrame> {
  const frames = plan.steps.flatMap((step) => ("store" in step ? step.store : []));
  return new Map(frames.map((frame) => [frame.name, frame]));
}

interface Row {
  name: string;
  session: string;
  bytes: bigint;
  crc32: bigint;
}

function rowsOf(directory: string): Map<string, Row> {
  const sql = "SELECT name, session, bytes, crc32 FROM frames";
  return new Map(rows<Row>(directory, sql).map((row) => [row.name, row]));
}

/**
 * Runs a plan on copies of a store, killed at another call each time, and checks each copy. Returns
 * how often unfinished operations were found.
 */
async function killEverywhere(
  base: string,
  plan: Plan,
  look: (place: string, said: readonly Record<string, unknown>[]) => Promise<void>,
  since: "opened" | "start",
): Promise<{ kills: number; unfinished: number; replaced: number }> {
  const whole = copyOf(base);
  const calls = await trace(whole, plan);
  const first =
    since === "opened"
      ? lineCall(calls, "opened").start
      : calls.find(({ paths }) => paths[0]?.startsWith(whole))!.start;
  const moments = momentsFrom(calls, whole, first);
  const sum = { kills: 0, unfinished: 0, replaced: 0 };
  await severalAtOnce(moments, async (moment) => {
    const place = copyOf(base);
    const { said, isKilled } = await killAt(place, plan, moment);
    if (isKilled) sum.kills++;
    const left = leftBehind(place);
    if (left.unfinished > 0) sum.unfinished++;
    if (left.replaced > 0) sum.replaced++;
    try {
      await look(place, said);
    } catch (error) {
      const when = `${moment.call} ${moment.path} ${moment.count}`;
      throw new Error(`Killed at ${when}: ${(error as Error).message}`, { cause: error });
    }
    rmSync(place, { recursive: true });
  });
  // Calls may move between threads from one run to the next, so some may not be found.
  expect(sum.kills).toBeGreaterThanOrEqual(0.9 * moments.length);
  return sum;
}

/** Opens a store after a kill and checks the invariants of every store. */
async function reopened(
  place: string,
  act: (store: ReturnType<typeof openStore>) => void | Promise<void>,
): Promise<void> {
  const left = leftBehind(place);
  await withStore(place, async (store) => {
    expect({ ...store.recovery }).toEqual(left);
    expect(partials(place)).toEqual([]);
    expect(rows(place, "SELECT * FROM replacements")).toEqual([]);
    expect(mismatches(place)).toEqual([]);
    await act(store);
  });
  expect(mismatches(place)).toEqual([]);
  await withStore(place, (store) => {
    expect({ ...store.recovery }).toEqual({ unfinished: 0, replaced: 0 });
  });
}

for (const durable of [false, true]) {
  const kind = durable ? "a durable store" : "a store";

  describe(`${kind} killed at a system call`, () => {
    const plan: Plan = {
      durable,
      steps: [
        { store: [planned("1", 3000, 1), planned("2", 0, 2)] },
        { flush: "once" },
        { store: [planned("3", 5000, 3), planned("4", 4000, 4)] },
        { flush: "once" },
      ],
    };

    traced(`${kind} killed at any time has every confirmed frame${unlessTraced}`, async () => {
      const base = temporaryFolder();
      const frames = framesOf(plan);
      let adopted = 0;
      const sum = await killEverywhere(
        base,
        plan,
        async (place, said) => {
          const files = filesIn(place);
          for (const [path, bytes] of files) {
            const name = path.slice("run7/visible/".length);
            expect([path, bytes]).toEqual([path, contentOf(frames.get(name)!)]);
          }
          const there = new Set([...files.keys()].map((path) => path.split("/").at(-1)!));
          await reopened(place, async (store) => {
            const known = new Set(names(place));
            for (const { name } of confirmed(plan, said)) {
              expect([name, there.has(name), known.has(name)]).toEqual([name, true, true]);
            }
            for (const name of known) expect(there).toContain(name);
            adopted += there.size - known.size;
            // Sending every frame again gives the expected outcome.
            const source = openVisible(store, { session: childSession, durable });
            const outcomes = await putAll(
              store,
              source,
              [...frames.values()].map((frame) => [frame.name, contentOf(frame)]),
            );
            const expected = [...frames.keys()].map((name) =>
              there.has(name) ? "present" : "stored",
            );
            expect(outcomes).toEqual(expected);
          });
          expect(names(place).sort()).toEqual([...frames.keys()].sort());
          expect(filesIn(place).size).toBe(frames.size);
        },
        durable ? "opened" : "start",
      );
      // Kills occurred during every important operation.
      expect(sum.kills).toBeGreaterThan(30);
      expect(sum.unfinished).toBeGreaterThan(0);
      expect(adopted).toBeGreaterThan(0);
    });

    const old = [
      planned("same size", 3000, 1),
      planned("shorter", 5000, 2),
      planned("later", 100, 3),
      planned("left alone", 200, 4),
    ];
    const replacing: Plan = {
      durable,
      conflict: "replace",
      steps: [
        {
          store: [
            planned("same size", 3000, 11),
            planned("shorter", 2000, 12),
            planned("new", 700, 13),
          ],
        },
        { flush: "once" },
        { store: [planned("later", 4000, 14)] },
        { flush: "once" },
      ],
    };

    /** Creates a store with these frames of another session. */
    async function storeOf(frames: readonly PlannedFrame[]): Promise<string> {
      const directory = temporaryFolder();
      await withStore(directory, async (store) => {
        const more = { captured: childCaptured - 1_000_000_000n };
        const given = frames.map((frame) => [frame.name, contentOf(frame), more] as const);
        await putAll(store, openVisible(store), given);
      });
      return directory;
    }

    traced(
      `${kind} killed while it replaces frames has the old or the new frames, each with its row${unlessTraced}`,
      async () => {
        const base = await storeOf(old);
        const wanted = framesOf(replacing);
        const seen = new Set<string>();
        const sum = await killEverywhere(
          base,
          replacing,
          async (place, said) => {
            const sure = new Set(confirmed(replacing, said).map(({ name }) => name));
            await reopened(place, async (store) => {
              const known = rowsOf(place);
              const files = filesIn(place);
              for (const frame of old) {
                const bytes = files.get(`run7/visible/${frame.name}`);
                const next = wanted.get(frame.name) ?? frame;
                const isNew = bytes !== undefined && crc32(bytes) === crc32(contentOf(next));
                const actual = isNew ? next : frame;
                seen.add(`${frame.name}: ${isNew ? "new" : "old"}`);
                expect([frame.name, bytes]).toEqual([frame.name, contentOf(actual)]);
                const row = known.get(frame.name)!;
                expect(row).toEqual({
                  name: frame.name,
                  session: actual === frame ? session : childSession,
                  bytes: BigInt(actual.size),
                  crc32: BigInt(crc32(contentOf(actual))),
                });
                if (sure.has(frame.name)) expect(isNew).toBe(true);
              }
              if (sure.has("new")) expect(known.has("new")).toBe(true);
              const more = { session: childSession, conflict: "replace", durable } as const;
              const all = [...wanted.values()];
              const outcomes = await putAll(
                store,
                openVisible(store, more),
                all.map((frame) => [frame.name, contentOf(frame)]),
              );
              const expected = all.map((frame) => {
                const bytes = files.get(`run7/visible/${frame.name}`);
                const isThere = bytes !== undefined && crc32(bytes) === crc32(contentOf(frame));
                return isThere ? "present" : "stored";
              });
              expect(outcomes).toEqual(expected);
            });
            const final = [...old, ...wanted.values()].map(({ name }) => {
              const frame = wanted.get(name) ?? old.find((one) => one.name === name)!;
              return [`run7/visible/${name}`, contentOf(frame)] as const;
            });
            expect(filesIn(place)).toEqual(new Map(final));
            expect(names(place).sort()).toEqual(
              [...new Map(final).keys()].map((path) => path.slice(13)).sort(),
            );
          },
          "opened",
        );
        expect(sum.kills).toBeGreaterThan(20);
        expect(sum.unfinished).toBeGreaterThan(0);
        expect(sum.replaced).toBeGreaterThan(0);
        expect([...seen].sort()).toEqual([
          ...["later: new", "later: old", "left alone: new"],
          ...["same size: new", "same size: old", "shorter: new", "shorter: old"],
        ]);
      },
    );

    // The writes are the same as for other replacements.
    if (durable) return;
    traced(
      `${kind} killed while it stores removed frames again has each frame with its own row${unlessTraced}`,
      async () => {
        const frames = [planned("1", 3000, 1), planned("2", 4000, 2), planned("3", 10, 3)];
        const base = await storeOf(frames);
        for (const name of ["1", "2"]) rmSync(pathOf(base, name));
        const plan: Plan = { durable, again: true, steps: [{ store: frames }, { flush: "once" }] };
        const sum = await killEverywhere(
          base,
          plan,
          async (place, said) => {
            const sure = confirmed(plan, said).map(({ name }) => name);
            await reopened(place, async (store) => {
              const known = rowsOf(place);
              const files = filesIn(place);
              for (const { name } of frames) {
                const isThere = files.has(`run7/visible/${name}`);
                const isNew = name !== "3" && isThere;
                expect([name, known.get(name)?.session]).toEqual([
                  name,
                  isNew ? childSession : session,
                ]);
                if (sure.includes(name)) expect(isThere).toBe(true);
              }
              // Another delivery with --again succeeds.
              const source = openVisible(store, { resendRemoved: true, durable });
              const given = frames.map((frame) => [frame.name, contentOf(frame)] as const);
              for (const outcome of await putAll(store, source, given)) {
                expect(["stored", "present"]).toContain(outcome);
              }
            });
            expect([...filesIn(place).keys()].sort()).toEqual(
              ["1", "2", "3"].map((name) => `run7/visible/${name}`),
            );
          },
          "opened",
        );
        expect(sum.unfinished).toBeGreaterThan(0);
        expect(sum.replaced).toBeGreaterThan(0);
      },
    );
  });
}

describe("recovery", () => {
  /** Leaves a store as if its process was killed during a replacement. */
  async function leave(
    directory: string,
    name: string,
    how: { partial: string; renamed: boolean },
  ): Promise<void> {
    const bytes = bytesOf(500, 99);
    const row = {
      ...{ stream: "run7", source: "visible", name, session: childSession, seq: 1 },
      ...{ bytes: 500, crc32: crc32(bytes), captured: childCaptured, received: 1n },
      ...{ key: null, meta: null, format: null, is_key: null },
    };
    const journal = new Journal(journalPath(directory));
    const replacement: Replacement = { row, partial: how.partial };
    journal.addReplacement(replacement);
    journal.close();
    const partial = join(directory, ".frames/partial", how.partial);
    writeFileSync(how.renamed ? pathOf(directory, name) : partial, bytes);
  }

  async function storeOf(count: number): Promise<string> {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const source = openVisible(store);
      const frames = Array.from({ length: count }, (_, index) => {
        return [`${index}`, bytesOf(10 + (index % 5), index + 1)] as const;
      });
      await putAll(store, source, frames);
    });
    return directory;
  }

  test("recovery reports unfinished frames, and for each replacement whether it was made", async () => {
    const directory = await storeOf(5);
    await leave(directory, "1", { partial: "1", renamed: true });
    await leave(directory, "2", { partial: "2", renamed: false });
    // After a power failure a file may have neither name, or be truncated.
    await leave(directory, "3", { partial: "3", renamed: true });
    rmSync(pathOf(directory, "3"));
    await leave(directory, "4", { partial: "4", renamed: true });
    writeFileSync(pathOf(directory, "4"), bytesOf(499, 99));
    writeFileSync(join(directory, ".frames/partial/5"), "half a frame");
    mkdirSync(join(directory, ".frames/partial/6"));
    await withStore(directory, (store) => {
      expect({ ...store.recovery }).toEqual({ unfinished: 3, replaced: 1 });
      expect(partials(directory)).toEqual([]);
      expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
      const sessions = [...rowsOf(directory).values()].map((row) => [row.name, row.session]);
      expect(sessions.sort()).toEqual([
        ["0", session],
        ["1", childSession],
        ["2", session],
        ["3", session],
        ["4", session],
      ]);
    });
    // Recovery is reported only once.
    await withStore(directory, (store) => {
      expect({ ...store.recovery }).toEqual({ unfinished: 0, replaced: 0 });
    });
  });

  test("recovery reports no changes for a closed or new store", async () => {
    const none = { unfinished: 0, replaced: 0 };
    await withStore(temporaryFolder(), (store) => expect({ ...store.recovery }).toEqual(none));
    const directory = await storeOf(3);
    await withStore(directory, (store) => expect({ ...store.recovery }).toEqual(none));
  });

  test("recovery updates the row of a replaced frame in the source named like its stream", async () => {
    const directory = temporaryFolder();
    const origin = { stream: "run7", source: "run7", session };
    await withStore(directory, (store) => putAll(store, store.open(origin), [["a", bytesOf(9)]]));
    const bytes = bytesOf(500, 99);
    const journal = new Journal(journalPath(directory));
    const row = {
      ...{ ...origin, name: "a", session: childSession, seq: 1 },
      ...{ bytes: 500, crc32: crc32(bytes), captured: 2n ** 62n + 1n, received: -1n },
      ...{ key: "cam-3", meta: '{"a":1}', format: "1x2.gray", is_key: 1 },
    };
    journal.addReplacement({ row, partial: "1" });
    journal.close();
    writeFileSync(join(directory, "run7/a"), bytes);
    await withStore(directory, (store) => expect(store.recovery.replaced).toBe(1));
    expect(rows(directory, "SELECT * FROM frames")).toMatchObject([
      {
        ...{ name: "a", session: childSession, bytes: 500n, captured: 2n ** 62n + 1n },
        ...{ received: -1n, key: "cam-3", meta: '{"a":1}', format: "1x2.gray" },
      },
    ]);
  });

  test("recovery accepts unfinished replacements in a journal without a column for keys", async () => {
    const directory = await storeOf(1);
    const database = new Database(journalPath(directory));
    database.run("ALTER TABLE replacements DROP COLUMN key");
    database.run(`INSERT INTO replacements (partial, stream, source, name, session, seq, bytes,
      crc32, captured, received) VALUES ('1', 's', 'a', 'n', '${session}', 1, 2, 3, 4, 5)`);
    database.close();
    await withStore(directory, (store) => expect(store.recovery.replaced).toBe(0));
    const columns = rows(directory, "PRAGMA table_info(replacements)");
    expect(columns).toContainEqual(expect.objectContaining({ name: "key" }));
    expect(rows(directory, "SELECT * FROM replacements")).toEqual([]);
  });

  traced(
    `recovery reads only unfinished files, independent of the number of frames${unlessTraced}`,
    async () => {
      /** Returns the files and journal pages that a process reads while it opens such a store. */
      const openedWith = async (count: number): Promise<{ looked: string[]; pages: number }> => {
        const directory = await storeOf(count);
        await leave(directory, "3", { partial: "1", renamed: true });
        await leave(directory, "4", { partial: "2", renamed: false });
        writeFileSync(join(directory, ".frames/partial/3"), "half a frame");
        const calls = await trace(directory, { durable: true, steps: [] }, "looking");
        const opened = lineCall(calls, "opened");
        const first = calls.findIndex(({ paths }) => paths.some((path) => path === directory));
        const own = calls.slice(first).filter(({ start, paths }) => {
          return start < opened.start && paths.some((path) => path.startsWith(directory));
        });
        const isJournal = ({ paths }: { paths: readonly string[] }) =>
          paths.some((path) => path.includes("/.frames/journal.sqlite"));
        return {
          looked: own
            .filter((call) => !isJournal(call))
            .map((call) => {
              const where = call.paths.map((path) => path.replace(directory, ""));
              return `${call.name} ${where.join(" ")}`;
            }),
          pages: own.filter((call) => isJournal(call) && !isFlush(call)).length,
        };
      };
      const [few, many] = [await openedWith(10), await openedWith(3000)];
      expect(many.looked).toEqual(few.looked);
      const frames = many.looked.filter((call) => call.includes("/run7"));
      expect(frames.length).toBeGreaterThan(0);
      // The folders above it are looked at too, because one of them may be a link.
      for (const call of frames) expect(call).toMatch(/ \/run7(?:\/visible(?:\/3)?)? ?$/);
      // The larger journal has hundreds of pages; a lookup reads one or two more of them.
      expect(many.pages - few.pages).toBeLessThan(20);
    },
  );
});
