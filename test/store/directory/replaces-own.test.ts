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

describe("new versions of watched files", () => {
  for (const durable of [false, true]) {
    test(`a later version of a watched file replaces the earlier one, durable ${durable}`, async () => {
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

  test("several versions of a watched file in one batch are stored in order, and the last stays", async () => {
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

  test("a later version with the same bytes is present", async () => {
    const directory = await storeWithA();
    await withStore(directory, async (store) => {
      const frames = [["a", first, { captured: later, sequence: 9 }]] as const;
      expect(await putAll(store, openVisible(store, own), frames)).toEqual(["present"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", first]]));
  });

  test("a later version is stored after the earlier one was moved away", async () => {
    const directory = await storeWithA();
    rmSync(pathOf(directory, "a"));
    await withStore(directory, async (store) => {
      const frames = [["a", second, { captured: later, sequence: 9 }]] as const;
      expect(await putAll(store, openVisible(store, own), frames)).toEqual(["stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", second]]));
    expect(rowsOfA(directory)).toEqual([[9, 6000]]);
  });

  test("later versions replace earlier ones also after the store was opened again", async () => {
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

describe("versions that do not replace", () => {
  const cases: [what: string, origin: Partial<SourceInfo>, sequence: number][] = [
    ["of another session", { session: otherSession }, 9],
    ["with an earlier number", {}, 6],
    ["with the same number and other bytes", {}, 7],
    ["of a sender that does not replace its own frames", { replacesOwn: false }, 9],
  ];
  for (const [what, origin, sequence] of cases) {
    test(`a version ${what} is a conflict`, async () => {
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
describe("offered versions", () => {
  const cases: [
    what: string,
    offer: ReturnType<typeof offered>,
    origin: Partial<SourceInfo>,
    standing: OfferStatus,
  ][] = [
    [
      "that is later than the stored one is wanted",
      offered("a", second, { captured: later, sequence: 9 }),
      {},
      "wanted",
    ],
    [
      "that is later and as long as the stored one is wanted",
      offered("a", third, { captured: later, sequence: 9 }),
      {},
      "wanted",
    ],
    [
      "of another session is a conflict",
      offered("a", second, { captured: later, sequence: 9 }),
      { session: otherSession },
      "conflict",
    ],
    [
      "of a sender that does not replace its own frames is a conflict",
      offered("a", second, { captured: later, sequence: 9 }),
      { replacesOwn: false },
      "conflict",
    ],
    [
      "that is the stored one is stored",
      offered("a", first, { captured, sequence: 7 }),
      {},
      "stored",
    ],
  ];
  for (const [what, offer, origin, standing] of cases) {
    test(`an offered version ${what}`, async () => {
      await withStore(await storeWithA(), (store) => {
        expect(openVisible(store, { ...own, ...origin }).compare([offer])).toEqual([standing]);
      });
    });
  }

  test("an offered version that its sender replaced meanwhile is stored, not a conflict", async () => {
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
