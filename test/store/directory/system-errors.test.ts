// Every call of the file system and of SQLite that a store makes fails once with every error.
//
// Covers: store/directory/store-error.ts, store/directory/file-check.ts, store/lock.ts

import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import type { FrameStore, Outcome, SourceInfo, SourceStore } from "../../../src/frame.ts";
import type { DirectoryStore } from "../../../src/store/directory/directory-store.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { faultOf, forEachFault, SystemFaults } from "../../helper/system-faults.ts";
import { bytesOf, describeFrame, session } from "../contract.ts";
import {
  filesIn,
  mismatches,
  flushCode,
  offered,
  offeredByTime,
  openStore,
  partials,
  pathOf,
  putAll,
  rows,
} from "../fixture.ts";

const names = ["1", "2", "lying", "new"];
const allFrames = "SELECT id FROM frames";
const contentOf = (name: string) => bytesOf(300, names.indexOf(name) + 1);

/** Opens a store with a stored frame and a file without a row, as a crash leaves one. */
async function prepared(directory: string): Promise<DirectoryStore> {
  const store = openStore(directory);
  const source = store.open({ stream: "run7", source: "visible", session });
  await putAll(store, source, [["1", contentOf("1")]]);
  writeFileSync(pathOf(directory, "lying"), contentOf("lying"));
  return store;
}

/** What one connection of a sender does at a server. Ends early with an error of the whole store. */
async function deliver(
  store: FrameStore,
  more: Partial<SourceInfo>,
  refused: FramesError[],
): Promise<Set<string>> {
  const accept = <T>(act: () => T): T | FramesError => {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof FramesError) || error.wireCode < 32) throw error;
      refused.push(error);
      return error;
    }
  };
  store.isStreamEmpty("run7");
  if (accept(() => store.checkNames("run7", "visible")) instanceof FramesError) return new Set();
  const opened = accept(() => store.open({ stream: "run7", source: "visible", session, ...more }));
  if (opened instanceof FramesError) return new Set();
  const source: SourceStore = opened;
  const confirmed = new Set<string>();
  const answers = source.compare(names.map((name) => offered(name, contentOf(name))));
  source.compare([offeredByTime("1", contentOf("1"), 7n)]);
  const outcomes: [name: string, outcome: Outcome | Promise<Outcome>][] = [];
  for (const [index, name] of names.entries()) {
    if (answers[index] === "stored") confirmed.add(name);
    const bytes = contentOf(name);
    const writer = accept(() => source.begin(describeFrame(name, bytes.length)));
    if (writer instanceof FramesError) continue;
    const outcome = accept(() => {
      try {
        writer.write(bytes.slice(0, 100));
        writer.write(bytes.slice(100));
        return writer.finish(crc32(bytes));
      } catch (error) {
        writer.discard();
        throw error;
      }
    });
    if (outcome instanceof Promise) outcome.catch(() => {});
    if (!(outcome instanceof FramesError)) outcomes.push([name, outcome]);
  }
  source.recordLoss(1000, 1001, new FramesError("dropped"));
  await store.flush();
  for (const [name, outcome] of outcomes) {
    const settled = await outcome;
    if (settled instanceof FramesError) refused.push(settled);
    else confirmed.add(name);
  }
  return confirmed;
}

const kinds: [what: string, more: Partial<SourceInfo>][] = [
  ["a frame", {}],
  ["a durable frame", { durable: true }],
  ["a frame that may replace another", { conflict: "replace" }],
  ["a durable frame that may replace another", { durable: true, conflict: "replace" }],
];

describe("a store with one failing call", () => {
  for (const [what, more] of kinds) {
    test(`${what} is refused or sent again with an error of the table, and nothing else is lost`, async () => {
      using faults = new SystemFaults();
      const runs = await forEachFault(faults, async (fault) => {
        const directory = temporaryFolder();
        const store = await prepared(directory);
        const problems: string[] = [];
        const refused: FramesError[] = [];
        let confirmed = new Set<string>();
        await faults
          .within(() => deliver(store, more, refused))
          .then((names) => void (confirmed = names))
          .catch((error: unknown) => {
            const problem = faultOf(error);
            if (problem !== undefined) problems.push(problem);
            else if ((error as FramesError).code !== "store") problems.push(String(error));
          });
        problems.push(...refused.map(faultOf).filter((problem) => problem !== undefined));
        // One failing call refuses one frame, or a source with all its frames.
        if (refused.length > 1) problems.push(`${refused.length} refused`);
        const found = filesIn(directory);
        for (const name of confirmed) {
          const file = found.get(`run7/visible/${name}`);
          if (file === undefined || !Bun.deepEquals(file, contentOf(name)))
            problems.push(`${name} was confirmed and is not stored`);
        }
        // The sender tries again, at the same server.
        await flushCode(store);
        const again: FramesError[] = [];
        const stored = await deliver(store, more, again);
        if (stored.size !== names.length || again.length > 0)
          problems.push(`then refused: ${again.map(({ message }) => message).join()}`);
        if (partials(directory).length > 0) problems.push("a partial file is left");
        store.close();
        if (mismatches(directory).length > 0) problems.push("rows and files differ");
        if (filesIn(directory).size !== names.length) problems.push("a file is missing");
        rmSync(directory, { recursive: true });
        expect([fault, ...problems]).toEqual([fault]);
      });
      expect(runs).toBeGreaterThan(100);
    });
  }

  test("a store that cannot be opened says why, and can be opened afterwards", async () => {
    using faults = new SystemFaults();
    const runs = await forEachFault(faults, async (fault) => {
      const directory = temporaryFolder();
      (await prepared(directory)).close();
      const partial = join(directory, ".frames/partial");
      mkdirSync(partial, { recursive: true });
      writeFileSync(join(partial, "7"), "unfinished");
      const problems: string[] = [];
      try {
        faults.within(() => {
          const store = openStore(directory, { durable: true, portableNames: true });
          store.close();
        });
      } catch (error) {
        const problem = faultOf(error);
        if (problem !== undefined) problems.push(problem);
        else if ((error as FramesError).code !== "store") problems.push(String(error));
      }
      const store = openStore(directory);
      store.close();
      if (rows(directory, allFrames).length !== 1) problems.push("a row is missing");
      rmSync(directory, { recursive: true });
      expect([fault, ...problems]).toEqual([fault]);
    });
    expect(runs).toBeGreaterThan(50);
  });

  test("retention goes on after a failing call, and loses no row of a file that is left", async () => {
    using faults = new SystemFaults();
    const runs = await forEachFault(faults, async (fault) => {
      const directory = temporaryFolder();
      const store = openStore(directory, { keep: { bytes: 300 }, durable: true });
      const source = store.open({ stream: "run7", source: "visible", session });
      await putAll(
        store,
        source,
        ["1", "2", "new"].map((name) => [name, contentOf(name)] as const),
      );
      const problems: string[] = [];
      await faults
        .within(async () => {
          while (await store.retention!.step());
        })
        .catch((error: unknown) => {
          const problem = faultOf(error);
          if (problem !== undefined) problems.push(problem);
        });
      await flushCode(store);
      store.close();
      const reopened = openStore(directory);
      reopened.close();
      const files = readdirSync(join(directory, "run7/visible"));
      if (files.length !== rows(directory, allFrames).length)
        problems.push(`${files.join()} and rows differ`);
      rmSync(directory, { recursive: true });
      expect([fault, ...problems]).toEqual([fault]);
    });
    expect(runs).toBeGreaterThan(50);
  });
});

describe("one stored file that cannot be read", () => {
  const calls = ["openSync", "readSync", "lstatSync"] as const;
  for (const call of calls) {
    for (const code of ["EACCES", "EIO"] as const) {
      test(`it refuses its own frame alone if ${call} fails with ${code}, and is named with the reason`, async () => {
        using faults = new SystemFaults();
        const directory = temporaryFolder();
        const store = await prepared(directory);
        let openedBad = false;
        faults.decide = (called, args) => {
          const isBad = String(args[0]).endsWith("visible/lying");
          if (called === "openSync") openedBad = isBad;
          const isAffected = called === "readSync" ? openedBad : isBad;
          return called === call && isAffected ? code : undefined;
        };
        const refused: FramesError[] = [];
        const confirmed = await faults.within(() => deliver(store, {}, refused));
        expect([...confirmed].sort()).toEqual(["1", "2", "new"]);
        expect(refused.map((error) => error.code)).toEqual(["not-stored"]);
        const reason = code === "EIO" ? "input/output error" : "permission denied";
        expect(refused[0]!.message).toEndWith(`run7/visible/lying: ${reason}`);
        store.close();
        expect(filesIn(directory).get("run7/visible/lying")).toEqual(contentOf("lying"));
      });
    }
  }

  test("it refuses a frame of a sender that removes its own copies, and the other frames count as stored", async () => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    const store = await prepared(directory);
    await deliver(store, {}, []);
    faults.decide = (call, args) =>
      call === "openSync" && String(args[0]).endsWith("visible/2") ? "EIO" : undefined;
    const refused: FramesError[] = [];
    const confirmed = await faults.within(() => deliver(store, { durable: true }, refused));
    expect([...confirmed].sort()).toEqual(["1", "lying", "new"]);
    expect(refused.map((error) => error.code)).toEqual(["not-stored"]);
    store.close();
  });

  test("it is replaced by a frame that may replace others", async () => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    const store = await prepared(directory);
    await deliver(store, {}, []);
    faults.decide = (call, args) =>
      call === "openSync" && /visible\/(?:2|lying)$/.test(String(args[0])) ? "EIO" : undefined;
    const more = { durable: true, conflict: "replace" } as const;
    const refused: FramesError[] = [];
    const confirmed = await faults.within(() => deliver(store, more, refused));
    expect([[...confirmed].sort(), refused]).toEqual([[...names].sort(), []]);
    store.close();
    expect(mismatches(directory)).toEqual([]);
  });
});
