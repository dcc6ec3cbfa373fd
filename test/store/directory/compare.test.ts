// Answers of a store to offered frames (SPEC section 8).

import { describe, expect, test } from "bun:test";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Frame, OfferStatus } from "../../../src/frame.ts";
import { walk } from "../../../src/source/files/walk.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf, session, storeFrame, thrownCode } from "../contract.ts";
import {
  filesIn,
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

const captured = 1_795_331_523_123_456_789n;
const bytes = bytesOf(5000);
const others = bytesOf(5000, 2);
const shorter = bytesOf(4999);

/**
 * Creates a store with one frame, `a`, captured at `captured` and sent by `session` as number 7.
 */
async function storeWithA(): Promise<string> {
  const directory = temporaryFolder();
  await withStore(directory, (store) =>
    storeFrame(openVisible(store), "a", bytes, { captured, sequence: 7 }),
  );
  return directory;
}

describe("offered frames", () => {
  const cases: [what: string, offer: ReturnType<typeof offered>, standing: OfferStatus][] = [
    ["under a new name is answered wanted", offered("b", bytes, { captured }), "wanted"],
    [
      "under a new name without its CRC-32 is answered wanted",
      offeredByTime("b", bytes, captured),
      "wanted",
    ],
    [
      "with the size and time of the stored frame is answered stored",
      offeredByTime("a", bytes, captured),
      "stored",
    ],
    [
      "with the size and CRC-32 of the stored frame is answered stored, at any time",
      offered("a", bytes, { captured: 0n }),
      "stored",
    ],
    [
      "with another time needs a checksum",
      offeredByTime("a", bytes, captured + 1_000_000_000n),
      "needsChecksum",
    ],
    ["with another size is answered conflict", offeredByTime("a", shorter, captured), "conflict"],
    [
      "with another size and its CRC-32 is answered conflict",
      offered("a", shorter, { captured }),
      "conflict",
    ],
    [
      "with the time of the stored frame and another CRC-32 is answered conflict",
      offered("a", others, { captured }),
      "conflict",
    ],
  ];
  for (const [what, offer, standing] of cases) {
    test(`an offered frame ${what}`, async () => {
      const directory = await storeWithA();
      await withStore(directory, async (store) => {
        expect(openVisible(store).compare([offer])[0]!).toBe(standing);
        // The answer does not depend on the session.
        expect(openVisible(store, { session: otherSession }).compare([offer])[0]!).toBe(standing);
        expect(openVisible(store, { conflict: "skip" }).compare([offer])[0]!).toBe(standing);
        await store.flush();
      });
      // Comparing changes nothing.
      expect(names(directory)).toEqual(["a"]);
      expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", bytes]]));
    });
  }

  test("an offered frame is answered stored before the batch of the stored frame is flushed", async () => {
    await withStore(temporaryFolder(), async (store) => {
      const source = openVisible(store);
      await storeFrame(source, "a", bytes, { captured });
      expect(source.compare([offeredByTime("a", bytes, captured)])[0]!).toBe("stored");
    });
  });

  test("an offered frame is compared only with frames of its own source and stream", async () => {
    const directory = await storeWithA();
    await withStore(directory, (store) => {
      const offer = offered("a", others, { captured });
      for (const origin of [{ source: "infrared" }, { source: "run7" }, { stream: "run8" }]) {
        expect(openVisible(store, origin).compare([offer])[0]!).toBe("wanted");
      }
    });
  });
});

describe("comparison of capture times", () => {
  const cases: [off: bigint, standing: OfferStatus][] = [
    [0n, "stored"],
    [1n, "stored"],
    [-1n, "stored"],
    [999n, "stored"],
    [-999n, "stored"],
    [1000n, "needsChecksum"],
    [-1000n, "needsChecksum"],
    [1_000_000n, "needsChecksum"],
  ];
  for (const time of [captured, 0n, -1_500_000_000_000_000_500n, 4_102_444_800_000_000_001n]) {
    test(`capture times agree if they differ by less than a microsecond, around ${time}`, async () => {
      await withStore(temporaryFolder(), async (store) => {
        const source = openVisible(store);
        await storeFrame(source, "a", bytes, { captured: time });
        const found = cases.map(([off]) => [
          off,
          source.compare([offeredByTime("a", bytes, time + off)])[0]!,
        ]);
        expect(found).toEqual(cases);
      });
    });
  }

  for (const time of [2n ** 63n - 1n, -(2n ** 63n)]) {
    test(`the extreme capture time ${time} agrees only with itself`, async () => {
      await withStore(temporaryFolder(), async (store) => {
        const source = openVisible(store);
        await storeFrame(source, "a", bytes, { captured: time });
        expect(source.compare([offeredByTime("a", bytes, time)])[0]!).toBe("stored");
        expect(source.compare([offeredByTime("a", bytes, 0n)])[0]!).toBe("needsChecksum");
        expect(source.compare([offeredByTime("a", bytes, ~time)])[0]!).toBe("needsChecksum");
      });
    });
  }
});

describe("frames that were moved away", () => {
  const gone = async (): Promise<string> => {
    const directory = await storeWithA();
    rmSync(pathOf(directory, "a"));
    return directory;
  };
  const known = [offeredByTime("a", bytes, captured), offered("a", bytes, { captured: 5n })];

  test("a frame that was moved away is answered removed", async () => {
    await withStore(await gone(), (store) => {
      for (const offer of known) expect(openVisible(store).compare([offer])[0]!).toBe("removed");
      // Different content still conflicts with a removed frame.
      expect(openVisible(store).compare([offered("a", others)])[0]!).toBe("conflict");
      expect(openVisible(store).compare([offeredByTime("a", bytes, 5n)])[0]!).toBe("needsChecksum");
    });
  });

  test("a frame that was moved away is wanted once with --again", async () => {
    const directory = await gone();
    await withStore(directory, async (store) => {
      const source = openVisible(store, { session: otherSession, resendRemoved: true });
      for (const offer of known) expect(source.compare([offer])[0]!).toBe("wanted");
      expect(source.compare([offered("a", others)])[0]!).toBe("conflict");
      expect(await putAll(store, source, [["a", bytes, { captured, sequence: 9 }]])).toEqual([
        "stored",
      ]);
      for (const offer of known) expect(source.compare([offer])[0]!).toBe("stored");
      // Removed while the delivery that sent it still runs.
      rmSync(pathOf(directory, "a"));
      const own = known.map((offer) => ({ ...offer, sequence: 9 }));
      for (const offer of own) expect(source.compare([offer])[0]!).toBe("removed");
      // Under another session and number it counts as a different frame.
      for (const offer of known)
        expect(source.compare([{ ...offer, sequence: 7 }])[0]!).toBe("wanted");
      const third = openVisible(store, { resendRemoved: true });
      for (const offer of own) expect(third.compare([offer])[0]!).toBe("wanted");
    });
    expect(rows(directory, "SELECT session, seq FROM frames")).toEqual([
      { session: otherSession, seq: 9n },
    ]);
  });

  test("a frame that was moved away is not stored again by the delivery that stored it", async () => {
    const directory = await gone();
    await withStore(directory, async (store) => {
      const source = openVisible(store, { resendRemoved: true });
      // The receipt was lost with the connection, and the frame was removed meanwhile.
      const own = { captured, sequence: 7 };
      expect(await putAll(store, source, [["a", bytes, own]])).toEqual(["present"]);
      expect(filesIn(directory).size).toBe(0);
      expect(partials(directory)).toEqual([]);
      // Under another number it counts as a different frame.
      const other = { captured, sequence: 8 };
      expect(await putAll(store, source, [["a", bytes, other]])).toEqual(["stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", bytes]]));
    expect(names(directory)).toEqual(["a"]);
  });

  test("a frame that was moved away is not replaced by other bytes without --conflict replace", async () => {
    const directory = await gone();
    await withStore(directory, async (store) => {
      const source = openVisible(store, { session: otherSession, resendRemoved: true });
      expect(await putAll(store, source, [["a", others]])).toEqual(["conflict"]);
      // Unless replacing is requested as well.
      const replacing = openVisible(store, {
        ...{ session: otherSession, resendRemoved: true, conflict: "replace" },
      });
      expect(replacing.compare([offered("a", others)])[0]!).toBe("wanted");
      expect(await putAll(store, replacing, [["a", others]])).toEqual(["stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", others]]));
    expect(mismatches(directory)).toEqual([]);
  });

  for (const [what, more, own, expected] of [
    ["an old sender keeps its copy", {}, false, "present"],
    ["an old sender may delete its copy", { durable: true }, false, "conflict"],
    ["a sender keeps its copy", { knowsMovedAway: true }, false, "moved-away"],
    ["a sender may delete its copy", { knowsMovedAway: true, durable: true }, false, "moved-away"],
    [
      "a sender replaces conflicts",
      { knowsMovedAway: true, conflict: "replace" },
      false,
      "moved-away",
    ],
    [
      "a sender replaces conflicts and may delete its copy",
      { knowsMovedAway: true, durable: true, conflict: "replace" },
      false,
      "moved-away",
    ],
    ["a sender repeats its own frame", { knowsMovedAway: true }, true, "present"],
    [
      "a sender repeats its own frame and may delete its copy",
      { knowsMovedAway: true, durable: true },
      true,
      "moved-away",
    ],
  ] as const) {
    test(`a frame that was moved away and is sent without an offer is ${expected} if ${what}`, async () => {
      const directory = await gone();
      await withStore(directory, async (store) => {
        const source = openVisible(store, own ? more : { ...more, session: otherSession });
        const frame = { captured, sequence: 7 };
        expect(await putAll(store, source, [["a", bytes, frame]])).toEqual([expected]);
        expect(partials(directory)).toEqual([]);
      });
      expect(filesIn(directory).size).toBe(0);
    });
  }

  test("a frame that was moved away is stored again together with frames that were not", async () => {
    const directory = await gone();
    await withStore(directory, async (store) => {
      await putAll(store, openVisible(store), [["b", others]]);
      const source = openVisible(store, { session: otherSession, resendRemoved: true });
      const outcomes = await putAll(store, source, [
        ["a", bytes, { captured }],
        ["b", others],
        ["c", shorter],
      ]);
      expect(outcomes).toEqual(["stored", "present", "stored"]);
    });
    expect(names(directory).sort()).toEqual(["a", "b", "c"]);
    expect(mismatches(directory)).toEqual([]);
    expect(filesIn(directory).size).toBe(3);
  });
});

describe("offers with the conflict option replace", () => {
  test("with the conflict option replace, other bytes are wanted and stored bytes are not", async () => {
    await withStore(await storeWithA(), (store) => {
      const source = openVisible(store, { conflict: "replace" });
      expect(source.compare([offered("a", bytes)])[0]!).toBe("stored");
      expect(source.compare([offeredByTime("a", bytes, captured)])[0]!).toBe("stored");
      expect(source.compare([offeredByTime("a", bytes, 5n)])[0]!).toBe("needsChecksum");
      expect(source.compare([offered("a", others)])[0]!).toBe("wanted");
      expect(source.compare([offeredByTime("a", shorter, captured)])[0]!).toBe("wanted");
      expect(source.compare([offered("b", bytes)])[0]!).toBe("wanted");
    });
  });

  test("with the conflict option replace, an offer is wanted if the file has no row and other bytes", async () => {
    const directory = temporaryFolder();
    mkdirSync(join(directory, "run7/visible"), { recursive: true });
    writeFileSync(pathOf(directory, "a"), others);
    await withStore(directory, async (store) => {
      const source = openVisible(store, { conflict: "replace" });
      expect(source.compare([offered("a", bytes)])[0]!).toBe("wanted");
      expect(await putAll(store, source, [["a", bytes]])).toEqual(["stored"]);
    });
    expect(filesIn(directory)).toEqual(new Map([["run7/visible/a", bytes]]));
    expect(mismatches(directory)).toEqual([]);
  });
});

describe("damaged files and durable senders", () => {
  const harms: [what: string, harm: (path: string) => void][] = [
    ["truncated", (path) => truncateSync(path, 100)],
    ["replaced by other bytes of its size", (path) => writeFileSync(path, others)],
    [
      "a link to a copy of it",
      (path) => (writeFileSync(`${path}.new`, bytes), rmSync(path), symlinkSync("a.new", path)),
    ],
    ["gone", (path) => rmSync(path)],
  ];
  for (const [what, harm] of harms) {
    const isGone = what === "gone";
    /** Creates a store with a damaged `a`. */
    const harmed = async (): Promise<string> => {
      const directory = await storeWithA();
      harm(pathOf(directory, "a"));
      return directory;
    };

    test(`an offered or sent frame is not stored for a durable sender if its file is ${what}`, async () => {
      await withStore(await harmed(), async (store) => {
        const source = openVisible(store, { durable: true, session: otherSession });
        // An offer without CRC-32 is not enough to remove it.
        const standing = source.compare([offered("a", bytes, { captured })])[0]!;
        expect(standing).toBe(isGone ? "removed" : "conflict");
        expect(await putAll(store, source, [["a", bytes, { captured }]])).toEqual(["conflict"]);
        // Without `durable` the content is not read.
        const plain = openVisible(store, { session: otherSession });
        expect(plain.compare([offered("a", bytes)])).toEqual([isGone ? "removed" : "stored"]);
      });
    });

    // A link blocks every frame.
    if (what.startsWith("a link")) continue;
    test(`a frame whose file is ${what} is stored again with --conflict replace and --again`, async () => {
      const directory = await harmed();
      await withStore(directory, async (store) => {
        const source = openVisible(store, {
          ...{ durable: true, session: otherSession, conflict: "replace", resendRemoved: true },
        });
        expect(source.compare([offered("a", bytes, { captured })])).toEqual(["wanted"]);
        expect(await putAll(store, source, [["a", bytes, { captured }]])).toEqual(["stored"]);
        expect(source.compare([offered("a", bytes, { captured })])).toEqual(["stored"]);
      });
      expect(readFileSync(pathOf(directory, "a"))).toEqual(Buffer.from(bytes));
      expect(names(directory)).toEqual(["a"]);
    });
  }

  test("an offered frame with an intact file is stored for a durable sender", async () => {
    await withStore(await storeWithA(), async (store) => {
      const source = openVisible(store, { durable: true, session: otherSession });
      expect(source.compare([offered("a", bytes)])).toEqual(["stored"]);
      expect(await putAll(store, source, [["a", bytes]])).toEqual(["present"]);
    });
  });
});

describe("files without a row", () => {
  /** Leaves the state of a crash between renaming the file and writing its row. */
  const left = (): string => {
    const directory = temporaryFolder();
    mkdirSync(join(directory, "run7/visible"), { recursive: true });
    writeFileSync(pathOf(directory, "a"), bytes);
    return directory;
  };

  test("a file without a row needs a checksum, and gets its row when the CRC-32 matches", async () => {
    const directory = left();
    const { mtimeNs } = statSync(pathOf(directory, "a"), { bigint: true });
    await withStore(directory, async (store) => {
      const raw = { width: 4, height: 5, format: "gray8" };
      const source = openVisible(store, { raw });
      // The capture time is unknown; the file's modification time does not count.
      expect(source.compare([offeredByTime("a", bytes, mtimeNs)])[0]!).toBe("needsChecksum");
      expect(store.isStreamEmpty("run7")).toBe(true);
      expect(source.compare([offered("a", bytes, { captured, sequence: 42 })])[0]!).toBe("stored");
      expect(names(directory)).toEqual([]);
      await store.flush();
      expect(rows(directory, "SELECT * FROM frames")).toMatchObject([
        {
          ...{ stream: "run7", source: "visible", name: "a", session, seq: 42n, captured },
          ...{ bytes: 5000n, crc32: BigInt(crc32(bytes)), meta: null, format: "4x5.gray8" },
        },
      ]);
      // From now on it counts as an ordinary stored frame.
      expect(source.compare([offeredByTime("a", bytes, captured)])[0]!).toBe("stored");
      expect(source.compare([offered("a", bytes)])[0]!).toBe("stored");
    });
    expect(names(directory)).toEqual(["a"]);
  });

  test("a file of encoded video without a row gets one that says whether it is a key frame", async () => {
    const directory = left();
    const pictures = { "1.h264": "0000000165", "2.h264": "0000000141", "3.png": "0000000165" };
    const offers = Object.entries(pictures).map(([name, hex], index) => {
      const picture = Uint8Array.fromHex(hex);
      writeFileSync(pathOf(directory, name), picture);
      return offered(name, picture, { sequence: index + 1 });
    });
    await withStore(directory, async (store) => {
      expect(openVisible(store).compare(offers)).toEqual(["stored", "stored", "stored"]);
      await store.flush();
    });
    const isKeys = rows(directory, "SELECT is_key FROM frames ORDER BY seq");
    expect(isKeys).toEqual([{ is_key: 1n }, { is_key: 0n }, { is_key: null }]);
  });

  test("a file without a row and with other bytes is a conflict", async () => {
    const directory = left();
    await withStore(directory, async (store) => {
      const source = openVisible(store);
      expect(source.compare([offeredByTime("a", shorter, captured)])[0]!).toBe("conflict");
      expect(source.compare([offered("a", shorter)])[0]!).toBe("conflict");
      expect(source.compare([offered("a", others)])[0]!).toBe("conflict");
      await store.flush();
    });
    expect(names(directory)).toEqual([]);
    expect(readFileSync(pathOf(directory, "a"))).toEqual(Buffer.from(bytes));
  });

  test("an offer of a name where a folder or link exists is answered wanted", async () => {
    const directory = left();
    mkdirSync(pathOf(directory, "folder"));
    symlinkSync("a", pathOf(directory, "link"));
    await withStore(directory, (store) => {
      for (const name of ["folder", "link"]) {
        // Sending it returns the reason for refusal.
        expect(openVisible(store).compare([offered(name, bytes)])[0]!).toBe("wanted");
      }
    });
    expect(readdirSync(join(directory, "run7/visible")).sort()).toEqual(["a", "folder", "link"]);
  });

  for (const link of ["run7", "run7/visible"]) {
    test(`a file behind a link in place of ${link} is not found by an offer`, async () => {
      const directory = temporaryFolder();
      const outside = temporaryFolder();
      mkdirSync(join(outside, "visible"));
      const target = link === "run7" ? outside : join(outside, "visible");
      writeFileSync(join(outside, "visible/a"), bytes);
      if (link !== "run7") mkdirSync(join(directory, "run7"));
      symlinkSync(target, join(directory, link));
      await withStore(directory, async (store) => {
        const source = openVisible(store);
        // Answers reveal nothing about files outside the store, not even that they exist.
        for (const offer of [
          offered("a", bytes),
          offeredByTime("a", bytes, captured),
          offered("a", others),
          offered("a", shorter),
          offered("b", bytes),
        ]) {
          expect(source.compare([offer])[0]!).toBe("wanted");
        }
        await store.flush();
      });
      expect(names(directory)).toEqual([]);
    });
  }

  test("a file without a row that is offered twice in one batch gets one row", async () => {
    const directory = left();
    await withStore(directory, async (store) => {
      const source = openVisible(store);
      expect(source.compare([offered("a", bytes)])[0]!).toBe("stored");
      expect(source.compare([offered("a", bytes)])[0]!).toBe("stored");
      expect(await storeFrame(source, "a", bytes)).toBe("present");
      await store.flush();
    });
    expect(names(directory)).toEqual(["a"]);
  });
});

describe("offers with invalid names", () => {
  for (const bad of ["", ".", "..", ".hidden", "a/b", "../a", "a\0", "a\n", "x".repeat(256)]) {
    test(`an offer named ${JSON.stringify(bad.slice(0, 20))} is answered wanted, so that sending it gives the reason`, async () => {
      const directory = temporaryFolder();
      // Even if a file exists at that path.
      mkdirSync(join(directory, "run7/visible"), { recursive: true });
      writeFileSync(join(directory, "run7/a"), bytes);
      writeFileSync(pathOf(directory, ".hidden"), bytes);
      await withStore(directory, async (store) => {
        const source = openVisible(store);
        expect(source.compare([offered(bad, bytes)])[0]!).toBe("wanted");
        expect(source.compare([offeredByTime(bad, bytes, captured)])[0]!).toBe("wanted");
        await store.flush();
      });
      expect(names(directory)).toEqual([]);
    });
  }

  test("an offer with an unportable name is answered wanted if names must be portable", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        await storeFrame(source, "a.png", bytes, { captured });
        for (const name of ["A.png", "a:b", "CON", "a."]) {
          expect([name, source.compare([offered(name, bytes)])[0]!]).toEqual([name, "wanted"]);
          expect(thrownCode(() => put(source, name, bytes))).toBe("unportable-name");
        }
        expect(source.compare([offered("a.png", bytes)])[0]!).toBe("stored");
      },
      { portableNames: true },
    );
  });

  test("a file without a row does not make its unportable name acceptable", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        await storeFrame(source, "a.png", bytes, { captured });
        writeFileSync(pathOf(directory, "A.png"), bytes);
        // On a case-insensitive file system there is only one file.
        if (readdirSync(join(directory, "run7/visible")).length < 2) return;
        expect(source.compare([offered("A.png", bytes)])).toEqual(["wanted"]);
        await store.flush();
      },
      { portableNames: true },
    );
    expect(names(directory)).toEqual(["a.png"]);
  });

  test("an adopted file reserves its name if names must be portable", async () => {
    const directory = temporaryFolder();
    mkdirSync(join(directory, "run7/visible"), { recursive: true });
    writeFileSync(pathOf(directory, "a.png"), bytes);
    await withStore(
      directory,
      async (store) => {
        const source = openVisible(store);
        expect(source.compare([offered("a.png", bytes)])[0]!).toBe("stored");
        expect(thrownCode(() => put(source, "A.png", bytes))).toBe("unportable-name");
      },
      { portableNames: true },
    );
    expect(names(directory)).toEqual(["a.png"]);
  });
});

describe("sending on a store's own tree", () => {
  // Various times: round ones, ones that no file system stores exactly, far past and future.
  const times = [
    0n,
    1n,
    999n,
    1_000_000_001n,
    -1n,
    -1_500_000_001n,
    -86_400_000_000_000n,
    951_782_400_123_456_789n,
    1_795_331_523_123_456_789n,
    1_795_331_523_999_999_999n,
    4_102_444_800_000_000_001n,
    4_102_444_799_999_999_999n,
    ...Array.from(
      { length: 300 },
      (_, index) => 1_700_000_000_000_000_000n + BigInt(index) * 7_919_131_313_131n,
    ),
    ...Array.from({ length: 100 }, (_, index) => BigInt(index) * 41_024_447_999_999_983n),
  ];

  test("a tree written by a store is recognized by its capture times when it is sent on and back", async () => {
    const frame = (index: number): Uint8Array => bytesOf(100 + index, index + 1);
    const [first, second, third] = [temporaryFolder(), temporaryFolder(), temporaryFolder()];
    const stores = [first, second, third].map((directory) => openStore(directory));
    const sources = stores.map((store) => openVisible(store));
    for (const [index, time] of times.entries()) {
      await storeFrame(sources[0]!, `${index}`, frame(index), { captured: time });
    }
    await stores[0]!.flush();
    /** Returns the frames below `directory`, as a sender finds them. */
    const treeOf = (directory: string): Frame[] => {
      const root = { path: join(directory, "run7/visible"), name: "visible", isNested: false };
      const [source] = walk([root], { include: [], exclude: [] }).sources;
      return times.map(() => source!.next(true) as Frame);
    };
    const standings = (directory: string, store: number): OfferStatus[] =>
      treeOf(directory).map(
        ({ name, size, captured: time, sequence }) =>
          sources[store]!.compare([{ name, size, captured: time, sequence, crc32: undefined }])[0]!,
      );
    const all = (standing: OfferStatus): OfferStatus[] => times.map(() => standing);
    // Back to the store that wrote them,
    expect(standings(first, 0)).toEqual(all("stored"));
    // on to another and from there to a third,
    for (const [from, to] of [
      [first, 1],
      [second, 2],
    ] as const) {
      expect(standings(from, to)).toEqual(all("wanted"));
      for (const { name, captured: time } of treeOf(from)) {
        await storeFrame(sources[to]!, name, frame(Number(name)), { captured: time });
      }
      await stores[to]!.flush();
      expect(standings(from, to)).toEqual(all("stored"));
    }
    // and back: precision lost by a file system is lost only once.
    expect(standings(third, 1)).toEqual(all("stored"));
    expect(standings(third, 0)).toEqual(all("stored"));
    for (const store of stores) store.close();
  });
});
