// Whether data is on disk when a store reports it as durable, checked by its system calls.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  childCaptured,
  childSession,
  type PlannedFrame,
  type Step,
} from "../helper/crash-store.ts";
import { temporaryFolder } from "../helper/program.ts";
import { bytesOf, storeFrame } from "../store/contract.ts";
import { withStore } from "../store/fixture.ts";
import {
  type Call,
  canTrace,
  isFlush,
  lineCall,
  trace,
  unlessTraced,
} from "../store/directory/trace.ts";

/** Returns frames `1`, `2`, …, each with different content. */
function planned(count: number, source = "visible", seed = 1): PlannedFrame[] {
  return Array.from({ length: count }, (_, index) => ({
    ...{ name: String(index + 1), size: 2000, seed: seed + index, source },
  }));
}

const traced = test.skipIf(!canTrace);

/** The steps of a store and its system calls. */
class Trace {
  readonly place: string;
  readonly calls: readonly Call[];

  constructor(place: string, calls: readonly Call[]) {
    this.place = place;
    this.calls = calls;
  }

  /** Returns the only flush of `path` that began after `after` and ended before `before`. */
  flushOf(path: string, after: Call | number, before: Call | number): Call {
    const found = this.flushesOf(path, after, before);
    const [first] = found;
    if (first === undefined) throw new Error(`${path} is not flushed when it should be`);
    return first;
  }

  flushesOf(path: string, after: Call | number, before: Call | number): Call[] {
    const from = typeof after === "number" ? after : after.end;
    const to = typeof before === "number" ? before : before.start;
    const whole = join(this.place, path);
    return this.calls.filter(
      (call) => isFlush(call) && call.paths[0] === whole && call.start > from && call.end < to,
    );
  }

  /** Returns the call that renamed a frame to `path`, and its previous name. */
  renameOf(path: string): { call: Call; from: string } {
    const whole = join(this.place, path);
    const call = this.calls.find(
      ({ name, paths }) => name.startsWith("rename") && paths.at(-1) === whole,
    );
    if (call === undefined) throw new Error(`Nothing is renamed to ${path}`);
    const from = call.paths.find((other) => other.includes("/.frames/partial/"))!;
    return { call, from: from.slice(this.place.length + 1) };
  }

  /** Checks that each call for a new frame ends before the next begins. */
  checkFrame(path: string, begun: Call, flushed: Call): void {
    const { call: rename, from } = this.renameOf(path);
    this.flushOf(from, begun, rename);
    const folder = this.flushOf(path.slice(0, path.lastIndexOf("/")), rename, flushed);
    this.flushOf(wal, folder, flushed);
  }
}

const wal = ".frames/journal.sqlite-wal";

async function traceOf(place: string, steps: readonly Step[], durable?: boolean) {
  const plan = { steps, ...(durable === undefined ? {} : { durable }) };
  return new Trace(place, await trace(place, plan));
}

/** Creates a store with these frames and closes it. */
async function storeWith(frames: readonly PlannedFrame[]): Promise<string> {
  const directory = temporaryFolder();
  await withStore(directory, async (store) => {
    for (const { source = "visible", name, size, seed } of frames) {
      const opened = store.open({ stream: "run7", source, session: childSession });
      await storeFrame(opened, name, bytesOf(size, seed), { captured: childCaptured });
    }
  });
  return directory;
}

describe("Durable store", () => {
  traced(`a durable store flushes files, folders and journal first${unlessTraced}`, async () => {
    const frames = [...planned(3), ...planned(2, "left/infrared", 50), ...planned(1, "run7", 90)];
    const found = await traceOf(
      temporaryFolder(),
      [{ store: frames }, { flush: "once" }, { store: planned(5).slice(3) }, { flush: "once" }],
      true,
    );
    const begun = lineCall(found.calls, "begun");
    const flushed = lineCall(found.calls, "flushed");
    for (const { source, name } of frames) {
      const path = source === "run7" ? `run7/${name}` : `run7/${source}/${name}`;
      found.checkFrame(path, begun, flushed);
    }
    // The second batch is flushed like the first, independently of it.
    const [begun2, flushed2] = [
      lineCall(found.calls, "begun", 2),
      lineCall(found.calls, "flushed", 2),
    ];
    for (const name of ["4", "5"]) found.checkFrame(`run7/visible/${name}`, begun2, flushed2);
  });

  traced(`a durable store flushes the folders above a new folder${unlessTraced}`, async () => {
    const found = await traceOf(
      temporaryFolder(),
      [{ store: planned(1, "a/b/c") }, { flush: "once" }],
      true,
    );
    const flushed = lineCall(found.calls, "flushed");
    for (const folder of ["run7/a/b/c", "run7/a/b", "run7/a", "run7", ""]) {
      const parent = join(found.place, folder);
      const made = found.calls.find(
        ({ name, paths }) => name.startsWith("mkdir") && paths.at(-1)!.startsWith(`${parent}/run7`),
      );
      const last = folder === "run7/a/b/c" ? found.renameOf("run7/a/b/c/1").call : made;
      found.flushOf(folder, last ?? lineCall(found.calls, "begun"), flushed);
    }
  });

  traced(`a durable store flushes its own new folders when it opens${unlessTraced}`, async () => {
    const found = await traceOf(join(temporaryFolder(), "new/store"), [{ flush: "once" }], true);
    const opened = lineCall(found.calls, "opened");
    for (const folder of [".frames/partial", ".frames", ".", ".."])
      found.flushOf(folder, -1, opened);
  });

  traced(`a durable store flushes journal and folders once per batch${unlessTraced}`, async () => {
    const found = await traceOf(
      temporaryFolder(),
      [{ store: planned(200) }, { flush: "once" }],
      true,
    );
    const [begun, flushed] = [lineCall(found.calls, "begun"), lineCall(found.calls, "flushed")];
    expect(found.flushesOf(wal, begun, flushed)).toHaveLength(1);
    expect(found.flushesOf("run7/visible", begun, flushed)).toHaveLength(1);
    const partial = join(found.place, ".frames/partial/");
    const bytes = found.calls.filter((call) => isFlush(call) && call.paths[0]!.startsWith(partial));
    expect(bytes).toHaveLength(200);
  });

  traced(`a durable store flushes a replacement's row before the file${unlessTraced}`, async () => {
    const place = await storeWith(planned(1));
    const plan = { durable: true, conflict: "replace", again: false } as const;
    const steps = [{ store: planned(1, "visible", 7) }, { flush: "once" }] as const;
    const found = new Trace(place, await trace(place, { ...plan, steps }));
    const [begun, flushed] = [lineCall(found.calls, "begun"), lineCall(found.calls, "flushed")];
    const { call: rename, from } = found.renameOf("run7/visible/1");
    const bytes = found.flushOf(from, begun, rename);
    const folder = found.flushOf(".frames/partial", bytes, rename);
    found.flushOf(wal, folder, rename);
    found.checkFrame("run7/visible/1", begun, flushed);
  });

  for (const [how, step] of [
    ["offered", { compare: planned(3) }],
    ["sent", { store: planned(3) }],
  ] as const) {
    traced(`a durable store flushes frames that are ${how} again${unlessTraced}`, async () => {
      const place = await storeWith(planned(3));
      const found = await traceOf(place, [step, { flush: "twice" }], true);
      const opened = lineCall(found.calls, "opened");
      const flushed = lineCall(found.calls, "flushed");
      for (const name of ["1", "2", "3"]) found.flushOf(`run7/visible/${name}`, opened, flushed);
      expect(found.flushesOf("run7/visible", opened, flushed)).toHaveLength(1);
    });
  }
});

describe("Durable store after one that was not durable", () => {
  traced(`a durable store flushes rows that a killed store left${unlessTraced}`, async () => {
    const place = temporaryFolder();
    await trace(place, { steps: [{ store: planned(3) }, { flush: "once" }] });
    // The frames exist, so no new row is written whose flush would include the earlier rows.
    const found = await traceOf(place, [{ compare: planned(3) }, { flush: "twice" }], true);
    found.flushOf(wal, lineCall(found.calls, "standings"), lineCall(found.calls, "flushed"));
  });

  traced(`a durable store flushes folders that it did not create${unlessTraced}`, async () => {
    // The earlier process created the folders without flushing them, so they may not be on disk.
    const place = await storeWith(planned(1, "a/b"));
    const frames = planned(2, "a/b").slice(1);
    const found = await traceOf(place, [{ store: frames }, { flush: "once" }], true);
    const [begun, flushed] = [lineCall(found.calls, "begun"), lineCall(found.calls, "flushed")];
    found.checkFrame("run7/a/b/2", begun, flushed);
    for (const folder of ["run7/a/b", "run7/a", "run7", ""]) {
      found.flushOf(folder, begun, flushed);
    }
  });
});

describe("Store that is not durable", () => {
  traced(`a store that is not durable flushes nothing for new frames${unlessTraced}`, async () => {
    const found = await traceOf(temporaryFolder(), [{ store: planned(20) }, { flush: "once" }]);
    const [opened, flushed] = [lineCall(found.calls, "opened"), lineCall(found.calls, "flushed")];
    const between = found.calls.filter(({ start }) => start > opened.end && start < flushed.start);
    expect(between.filter(isFlush).map(({ paths }) => paths[0])).toEqual([]);
  });

  traced(`a store flushes the frames of a sender that asks for it${unlessTraced}`, async () => {
    const found = await traceOf(temporaryFolder(), [
      { durable: true },
      { store: planned(3) },
      { flush: "once" },
    ]);
    const [begun, flushed] = [lineCall(found.calls, "begun"), lineCall(found.calls, "flushed")];
    for (const name of ["1", "2", "3"]) found.checkFrame(`run7/visible/${name}`, begun, flushed);
    expect(found.flushesOf(wal, begun, flushed)).toHaveLength(1);
  });

  traced(`a store flushes earlier rows that a durable sender offers${unlessTraced}`, async () => {
    const found = await traceOf(temporaryFolder(), [
      ...[{ store: planned(3) }, { flush: "once" as const }],
      ...[{ durable: true }, { compare: planned(3) }, { flush: "twice" as const }],
    ]);
    const durable = lineCall(found.calls, "durable");
    const flushed = lineCall(found.calls, "flushed", 2);
    for (const name of ["1", "2", "3"]) found.flushOf(`run7/visible/${name}`, durable, flushed);
    // Committed before durability was requested, and not flushed by a later commit.
    found.flushOf(wal, durable, flushed);
  });
});
