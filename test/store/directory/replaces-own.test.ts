// A frame that changed after it was sent replaces the version of its own sender, but no other
// frame.

import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import type { SourceInfo, OfferStatus } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf } from "../contract.ts";
import {
  filesIn,
  mismatches,
  offered,
  openStore,
  openVisible,
  otherSession,
  partials,
  pathOf,
  putAll,
  rows,
  withStore,
} from "../fixture.ts";

const captured = 1_795_331_523_123_456_789n;
const later = captured + 5_000_000_000n;
const [first, second, third] = [bytesOf(5000, 1), bytesOf(6000, 2), bytesOf(5000, 3)];
const own = { replacesOwn: true } as const;

/** Creates a store with `a`, number 7 of the default session. */
async function storeWithA(): Promise<string> {
  const directory = temporaryFolder();
  await withStore(directory, async (store) => {
    const frames = [["a", first, { captured, sequence: 7 }]] as const;
    expect(await putAll(store, openVisible(store, own), frames)).toEqual(["stored"]);
  });
  return directory;
}

interface Kept {
  readonly seq: bigint;
  readonly bytes: bigint;
  readonly captured: bigint;
  readonly session: string;
}

function rowsOfA(directory: string): [number, number][] {
  const query = "SELECT seq, bytes, captured, session FROM frames WHERE name = 'a'";
  return rows<Kept>(directory, query).map(({ seq, bytes }) => [Number(seq), Number(bytes)]);
}

describe("a later number of the same session and name", () => {
  for (const durable of [false, true]) {
    test(`takes the place of the earlier one, durable ${durable}`, async () => {
      const directory = await storeWithA();
      await withStore(directory, async (store) => {
        const source = openVisible(store, { ...own, durable });
        const frames = [["a", second, { captured: later, sequence: 9 }]] as const;
        expect(await putAll(store, source, frames)).toEqual(["stored"]);
      });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", second]]));
      expect(rowsOfA(directory)).toEqual([[9, 6000]]);
      expect(mismatches(directory)).toEqual([]);
      expect(partials(directory)).toEqual([]);
    });
  }

  test("does so several times in one batch, and the last one stays", async () => {
    const directory = await storeWithA();
    await withStore(directory, async (store) => {
      const frames = [second, third, first, second].map(
        (bytes, index) => ["a", bytes, { captured: later, sequence: 8 + index }] as const,
      );
      const outcomes = await putAll(store, openVisible(store, own), frames);
      expect(outcomes).toEqual(["stored", "stored", "stored", "stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", second]]));
    expect(rowsOfA(directory)).toEqual([[11, 6000]]);
    expect(mismatches(directory)).toEqual([]);
  });

  test("with the same bytes is there already", async () => {
    const directory = await storeWithA();
    await withStore(directory, async (store) => {
      const frames = [["a", first, { captured: later, sequence: 9 }]] as const;
      expect(await putAll(store, openVisible(store, own), frames)).toEqual(["present"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", first]]));
  });

  test("comes where the earlier one was moved away from", async () => {
    const directory = await storeWithA();
    rmSync(pathOf(directory, "a"));
    await withStore(directory, async (store) => {
      const frames = [["a", second, { captured: later, sequence: 9 }]] as const;
      expect(await putAll(store, openVisible(store, own), frames)).toEqual(["stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", second]]));
    expect(rowsOfA(directory)).toEqual([[9, 6000]]);
  });

  test("does so however often the store is opened between", async () => {
    const directory = await storeWithA();
    for (const [index, bytes] of [second, third, first].entries()) {
      await withStore(directory, async (store) => {
        const frames = [["a", bytes, { captured: later, sequence: 8 + index }]] as const;
        expect(await putAll(store, openVisible(store, own), frames)).toEqual(["stored"]);
      });
    }
    openStore(directory).close();
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", first]]));
    expect(mismatches(directory)).toEqual([]);
  });
});

describe("what is stored stays", () => {
  const cases: [what: string, origin: Partial<SourceInfo>, sequence: number][] = [
    ["against another session, whatever that says of itself", { session: otherSession }, 9],
    ["against an earlier number", {}, 6],
    ["against the same number with other bytes", {}, 7],
    ["against a sender that does not revise", { replacesOwn: false }, 9],
  ];
  for (const [what, origin, sequence] of cases) {
    test(what, async () => {
      const directory = await storeWithA();
      await withStore(directory, async (store) => {
        const source = openVisible(store, { ...own, ...origin });
        const frames = [["a", second, { captured: later, sequence }]] as const;
        expect(await putAll(store, source, frames)).toEqual(["conflict"]);
      });
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", first]]));
      expect(rowsOfA(directory)).toEqual([[7, 5000]]);
    });
  }
});

// After a reconnect the frames in flight are offered before they are sent.
describe("a version that is offered", () => {
  const cases: [
    what: string,
    offer: ReturnType<typeof offered>,
    origin: Partial<SourceInfo>,
    standing: OfferStatus,
  ][] = [
    [
      "later than what is stored is wanted",
      offered("a", second, { captured: later, sequence: 9 }),
      {},
      "wanted",
    ],
    [
      "later and as long as what is stored is wanted",
      offered("a", third, { captured: later, sequence: 9 }),
      {},
      "wanted",
    ],
    [
      "by another session is a conflict",
      offered("a", second, { captured: later, sequence: 9 }),
      { session: otherSession },
      "conflict",
    ],
    [
      "by a sender that does not revise is a conflict",
      offered("a", second, { captured: later, sequence: 9 }),
      { replacesOwn: false },
      "conflict",
    ],
    [
      "that is what is stored is stored",
      offered("a", first, { captured, sequence: 7 }),
      {},
      "stored",
    ],
  ];
  for (const [what, offer, origin, standing] of cases) {
    test(what, async () => {
      await withStore(await storeWithA(), (store) => {
        expect(openVisible(store, { ...own, ...origin }).compare([offer])).toEqual([standing]);
      });
    });
  }

  test("and was replaced by its sender since is no conflict", async () => {
    const directory = await storeWithA();
    await withStore(directory, async (store) => {
      const source = openVisible(store, own);
      await putAll(store, source, [["a", second, { captured: later, sequence: 9 }]]);
      // Both were in flight, and both were stored.
      const offers = [
        offered("a", first, { captured, sequence: 7 }),
        offered("a", second, { captured: later, sequence: 9 }),
      ];
      expect(source.compare(offers)).toEqual(["stored", "stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", second]]));
  });
});
