// Reports of lost frames: the same loss is one loss, what came later is not lost, and an accepted
// loss is history.

import { describe, expect, test } from "bun:test";
import { runAtOnce } from "../../../src/common/work-queue.ts";
import { FramesError } from "../../../src/errors.ts";
import type { FrameStore } from "../../../src/frame.ts";
import { GapIndex } from "../../../src/store/journal/gap-index.ts";
import { readGaps } from "../../../src/store/journal/gaps.ts";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { listSources } from "../../../src/store/journal/source-list.ts";
import { SourceTotals } from "../../../src/store/journal/source-totals.ts";
import type { Finding } from "../../../src/store/verify/store-verifier.ts";
import { verify } from "../../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { SystemFaults } from "../../helper/system-faults.ts";
import { bytesOf, session } from "../contract.ts";
import { alter, offered, openVisible, otherSession, putAll, rows, withStore } from "../fixture.ts";

const bytes = bytesOf(100);
const unreadable = new FramesError("unreadable");

/** Records the loss of a frame in a session of its own, as each run of a sender has. */
function lose(
  store: FrameStore,
  name: string,
  run: number,
  sequence = 1,
  error = unreadable,
): void {
  const source = openVisible(store, { session: String(run).padStart(32, "0") });
  source.recordLoss(sequence, sequence, error, name);
}

/** Returns the losses that verify reports, and its counts. */
async function lossesOf(directory: string, accept = false) {
  const found: Finding[] = [];
  const result = await verify(directory, { accept, onFinding: (finding) => found.push(finding) });
  const { lost, cameLater, accepted } = result;
  return { found: found.map(({ what, why }) => `${what}: ${why}`), lost, cameLater, accepted };
}

/** Returns the lost numbers of `run7/visible` as `frames ls`, its gaps and a server count them. */
async function lostByAll(directory: string): Promise<[number, number, number, number]> {
  const reader = new JournalReader(journalPath(directory));
  const totals = new SourceTotals(reader, runAtOnce);
  await totals.refresh();
  const gaps = await new GapIndex(reader, runAtOnce).gaps("run7", () => true, undefined, 100);
  reader.close();
  return [
    listSources(directory)[0]!.lost,
    [...readGaps(directory, "run7")].length,
    totals.source("run7", "visible")?.lost ?? 0,
    gaps.length,
  ];
}

describe("repeated losses", () => {
  test("a frame that each run of a sender loses for the same reason is one loss with a name", async () => {
    const directory = temporaryFolder();
    for (const run of [1, 2, 3]) {
      await withStore(directory, async (store) => {
        lose(store, "bad\nname.png", run, 7);
        await store.flush();
      });
    }
    const path = "run7/visible/bad\nname.png, number 7";
    expect((await lossesOf(directory)).found).toEqual([`${path}: unreadable`]);
    // The number of the last run is only below it, so it is no gap of its own.
    expect(
      [...readGaps(directory, "run7")].filter(({ reason }) => reason !== undefined),
    ).toHaveLength(1);
  });

  test("losses of other frames, sources or reasons, and of several versions in one run, are counted each", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      lose(store, "a.png", 1, 1);
      lose(store, "a.png", 1, 2);
      lose(store, "b.png", 1, 3);
      lose(store, "a.png", 2, 1, new FramesError("too-large"));
      openVisible(store, { source: "infrared" }).recordLoss(1, 1, unreadable, "a.png");
      await store.flush();
    });
    expect((await lossesOf(directory)).lost).toBe(5);
  });

  test("a loss that is reported again on another connection is recorded once", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      for (let connection = 0; connection < 3; connection++) lose(store, "a.png", 1, 4);
      await store.flush();
    });
    expect((await lossesOf(directory)).lost).toBe(1);
  });

  test("numbers without a name are recorded as before", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      openVisible(store).recordLoss(1, 3, unreadable);
      openVisible(store, { session: otherSession }).recordLoss(1, 3, unreadable);
      await putAll(store, openVisible(store), [["1.png", bytes, { sequence: 4 }]]);
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 2, cameLater: 0 });
    expect(await lostByAll(directory)).toEqual([6, 2, 6, 2]);
  });
});

describe("frames that came later", () => {
  test("a frame that came in a later run is not lost anywhere", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      lose(store, "a.png", 1);
      lose(store, "b.png", 1, 2);
      await store.flush();
    });
    expect(await lostByAll(directory)).toEqual([2, 2, 2, 2]);
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [["a.png", bytes, { sequence: 1 }]]);
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, cameLater: 1 });
    expect(await lostByAll(directory)).toEqual([1, 1, 1, 1]);
  });

  test("a server that is running stops counting a loss whose frame came", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const reader = new JournalReader(journalPath(directory));
      const totals = new SourceTotals(reader, runAtOnce);
      const lost = async () => {
        await store.flush();
        await totals.refresh();
        return totals.source("run7", "visible")?.lost;
      };
      lose(store, "a.png", 1);
      lose(store, "b.png", 1, 2);
      expect(await lost()).toBe(2);
      await putAll(store, openVisible(store), [["a.png", bytes, { sequence: 1 }]]);
      expect(await lost()).toBe(1);
      lose(store, "c.png", 1, 3);
      expect(await lost()).toBe(2);
      reader.close();
    });
  });

  test("a frame that was stored before and is found again ends its loss", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [["a.png", bytes, { sequence: 1 }]]);
      lose(store, "a.png", 1);
      await store.flush();
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1 });
    await withStore(directory, async (store) => {
      const source = openVisible(store, { session: otherSession });
      expect(source.compare([offered("a.png", bytes)])).toEqual(["stored"]);
      await store.flush();
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 0, cameLater: 1 });
  });

  test("a frame that is lost after it came is a new loss", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      lose(store, "a.png", 1);
      await putAll(store, openVisible(store), [["a.png", bytes, { sequence: 1 }]]);
      lose(store, "a.png", 2);
      lose(store, "a.png", 3);
      await store.flush();
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, cameLater: 1 });
  });

  test("a frame of the same name in another source ends no loss", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      lose(store, "a.png", 1);
      await putAll(store, openVisible(store, { source: "infrared" }), [["a.png", bytes]]);
      await putAll(store, openVisible(store), [["A.png", bytes, { sequence: 1 }]]);
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, cameLater: 0 });
  });
});

describe("accepted losses", () => {
  test("an accepted loss is not reported again, and later losses are", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      lose(store, "a.png", 1);
      openVisible(store).recordLoss(5, 9, unreadable);
      await store.flush();
    });
    const accepted = await lossesOf(directory, true);
    expect(accepted.found).toHaveLength(2);
    expect(accepted).toMatchObject({ lost: 0, accepted: 2 });
    expect(await lossesOf(directory)).toMatchObject({ found: [], lost: 0, accepted: 2 });
    await withStore(directory, async (store) => {
      // The next run loses the accepted frame again, and another one.
      lose(store, "a.png", 2);
      lose(store, "b.png", 2, 2);
      await store.flush();
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, accepted: 2 });
    // The frames are still lost, and came later if they do.
    expect((await lostByAll(directory))[0]).toBe(7);
    await withStore(directory, (store) => putAll(store, openVisible(store), [["a.png", bytes]]));
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, accepted: 1, cameLater: 1 });
  });

  test("losses keep their names and states when the journal is rebuilt", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      lose(store, "a.png", 1);
      await store.flush();
    });
    await lossesOf(directory, true);
    await withStore(directory, async (store) => {
      lose(store, "b.png", 1, 2);
      await putAll(store, openVisible(store), [["c.png", bytes, { metadata: "{}" }]]);
    });
    alter(directory, "UPDATE frames SET meta = '{'");
    await verify(directory, { repair: true });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, accepted: 1 });
  });

  test("a journal of an earlier version is verified as it is, and gets names and states when it is opened", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      openVisible(store).recordLoss(1, 3, unreadable);
      await putAll(store, openVisible(store), [["a.png", bytes, { sequence: 4 }]]);
    });
    alter(directory, "DROP INDEX losses_by_name");
    alter(directory, "DROP INDEX losses_ended");
    alter(directory, "ALTER TABLE losses DROP COLUMN name");
    alter(directory, "ALTER TABLE losses DROP COLUMN state");
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, cameLater: 0, accepted: 0 });
    expect([listSources(directory)[0]!.lost, [...readGaps(directory, "run7")].length]).toEqual([
      3, 1,
    ]);
    expect(await lossesOf(directory, true)).toMatchObject({ lost: 0, accepted: 1 });
    await withStore(directory, async (store) => {
      lose(store, "b.png", 9);
      await store.flush();
    });
    expect(await lossesOf(directory)).toMatchObject({ lost: 1, accepted: 1 });
    expect(
      rows(directory, "SELECT session FROM losses WHERE session = ?".replace("?", `'${session}'`)),
    ).toHaveLength(1);
  });
});

test("a loss ends although the first attempt to record that its frame came was rolled back", async () => {
  using faults = new SystemFaults();
  const directory = temporaryFolder();
  await withStore(directory, async (store) => {
    lose(store, "a", 1);
    await store.flush();
    const deliver = () => putAll(store, openVisible(store), [["a", bytes]]);
    faults.decide = (_, args) => (args[0] === "COMMIT" ? "SQLITE_FULL" : undefined);
    const failure = await faults.within(deliver).catch((error: unknown) => error);
    expect((failure as FramesError).code).toBe("store");
    faults.decide = undefined;
    await deliver();
  });
  expect(await lossesOf(directory)).toMatchObject({ found: [], lost: 0, cameLater: 1 });
});
