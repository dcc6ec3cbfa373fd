// Tests that every store must pass.

import { describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { FramesError } from "../../src/errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameStore,
  FrameWriter,
  Outcome,
  SourceStore,
} from "../../src/frame.ts";

/** A store under test with functions to inspect it from outside. */
export interface OpenStore {
  readonly store: FrameStore;
  /** Returns all frames by path, `STREAM/SOURCE/NAME` or `STREAM/NAME`. Fails on any other file. */
  frames(): Map<string, Uint8Array> | Promise<Map<string, Uint8Array>>;
  /** Returns all losses reported and flushed. */
  losses(): RecordedLoss[] | Promise<RecordedLoss[]>;
  /** Returns the numbers of all frames in the order of their rows. */
  numbers(): number[];
  /** Puts the bytes of a frame in place without a row, as a process that was killed leaves them. */
  place(path: string, bytes: Uint8Array): void | Promise<void>;
  /** Closes the store and opens it again. */
  reopen(): OpenStore | Promise<OpenStore>;
  close(): void | Promise<void>;
}

/** A loss as stored in the journal. */
export interface RecordedLoss {
  readonly stream: string;
  readonly source: string;
  readonly session: string;
  readonly first: number;
  readonly last: number;
  readonly reason: string;
}

/** Default session of these tests. */
export const session = "0123456789abcdef0123456789abcdef";

/** Store of each open source. Deferred outcomes settle when it is flushed. */
const storeOf = new WeakMap<SourceStore, FrameStore>();

/** Opens a source for a session. */
export function openSource(
  store: FrameStore,
  stream: string,
  source: string,
  more: Partial<SourceInfo> = {},
): SourceStore {
  const opened = store.open({ stream, source, session, ...more });
  storeOf.set(opened, store);
  return opened;
}

let lastSequence = 0;

/** Describes a frame of `size` bytes. */
export function describeFrame(
  name: string,
  size: number,
  more: Partial<FrameDescription> = {},
): FrameDescription {
  const captured = 1_795_331_523_123_456_789n;
  return { name, sequence: ++lastSequence, captured, size, metadata: "", ...more };
}

/** Stores a frame in pieces of at most `piece` bytes and returns its outcome. */
export async function storeFrame(
  source: SourceStore,
  name: string,
  bytes: Uint8Array,
  more: Partial<FrameDescription> = {},
  piece = Infinity,
): Promise<Outcome> {
  const writer = source.begin(describeFrame(name, bytes.length, more));
  return await finish(storeOf.get(source), writer, bytes, piece);
}

/** Writes a frame. Returns a refusal as an outcome, whether thrown, returned or delayed. */
async function finish(
  store: FrameStore | undefined,
  writer: FrameWriter,
  bytes: Uint8Array,
  piece = Infinity,
): Promise<Outcome> {
  try {
    for (let from = 0; from < bytes.length; from += piece) {
      writer.write(bytes.slice(from, Math.min(from + piece, bytes.length)));
    }
    const outcome = writer.finish(crc32(bytes));
    if (outcome instanceof Promise) await store?.flush();
    return await outcome;
  } catch (error) {
    if (error instanceof FramesError) return error;
    throw error;
  }
}

/** Returns pseudo-random bytes, deterministic for a seed. */
export function bytesOf(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed >>> 0 || 1;
  for (let index = 0; index < size; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
  return bytes;
}

/** Returns the error code of a refusal, or the outcome itself. */
export function outcomeCode(outcome: Outcome): string {
  return outcome instanceof FramesError ? outcome.code : outcome;
}

/** Returns the error code with which `act` is refused. */
export function thrownCode(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof FramesError) return error.code;
    throw error;
  }
}

/**
 * Runs the tests on a store. `open` creates an empty one; `needs` is a prefix if the machine lacks
 * something for it.
 */
export function storeContract(
  name: string,
  open: () => OpenStore | Promise<OpenStore>,
  needs = "",
): void {
  /** Defines a test with an empty store. `reopen` continues with its content. */
  const holds = (
    behaviour: string,
    check: (opened: OpenStore, reopen: () => Promise<OpenStore>) => Promise<void>,
  ): void => {
    test.skipIf(needs !== "")(`${needs}${behaviour}`, async () => {
      let opened = await open();
      try {
        await check(opened, async () => (opened = await opened.reopen()));
      } finally {
        await opened.close();
      }
    });
  };

  describe(`${name}: contract of all stores`, () => {
    holds("a store keeps a frame byte for byte under its name", async ({ store, frames }) => {
      const bytes = bytesOf(100_000);
      expect(await storeFrame(openSource(store, "run7", "visible"), "1.png", bytes)).toBe("stored");
      await store.flush();
      expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytes]]));
    });

    holds("a source named like its stream stores in the folder of the stream", async (opened) => {
      const { store, frames } = opened;
      await storeFrame(openSource(store, "run7", "run7"), "1.png", bytesOf(10));
      await storeFrame(openSource(store, "run7", "a/b"), "1.png", bytesOf(11));
      await store.flush();
      expect([...(await frames()).keys()].sort()).toEqual(["run7/1.png", "run7/a/b/1.png"]);
    });

    for (const size of [0, 1, 4096, 1_048_577]) {
      holds(`a frame of ${size} bytes is stored, and then present`, async ({ store, frames }) => {
        const source = openSource(store, "run7", "visible");
        const bytes = bytesOf(size);
        expect(await storeFrame(source, "a", bytes)).toBe("stored");
        expect(await storeFrame(source, "a", bytes)).toBe("present");
        await store.flush();
        expect(await frames()).toEqual(new Map([["run7/visible/a", bytes]]));
      });
    }

    holds("a frame written in many pieces is stored whole", async ({ store, frames }) => {
      const source = openSource(store, "run7", "visible");
      const bytes = bytesOf(300_007);
      expect(await storeFrame(source, "pieces", bytes, {}, 997)).toBe("stored");
      const small = bytesOf(500, 2);
      expect(await storeFrame(source, "single bytes", small, {}, 1)).toBe("stored");
      await store.flush();
      expect((await frames()).get("run7/visible/pieces")).toEqual(bytes);
      expect((await frames()).get("run7/visible/single bytes")).toEqual(small);
    });

    holds(
      "frames of a source are recorded in the order of their arrival, whatever is in place",
      async (opened) => {
        const { store, numbers, place } = opened;
        // The first one takes long, and three have no row.
        const bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((sequence) =>
          bytesOf(sequence % 4 === 1 ? 5_000_000 : 100, sequence),
        );
        for (const number of [3, 4, 5])
          await place(`run7/visible/${number}.h264`, bytes[number - 1]!);
        const source = openSource(store, "run7", "visible");
        const outcomes = bytes.map((frame, index) =>
          storeFrame(source, `${index + 1}.h264`, frame, { sequence: index + 1 }),
        );
        const expected = bytes.map((_, index) =>
          [2, 3, 4].includes(index) ? "present" : "stored",
        );
        expect(await Promise.all(outcomes)).toEqual(expected);
        await store.flush();
        expect(numbers()).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
      },
    );

    holds("empty pieces of a frame do not change it", async ({ store, frames }) => {
      const writer = openSource(store, "run7", "visible").begin(describeFrame("a", 2));
      for (const piece of [[], [1], [], [2], []]) writer.write(new Uint8Array(piece));
      const outcome = writer.finish(crc32(new Uint8Array([1, 2])));
      await store.flush();
      expect(await outcome).toBe("stored");
      expect((await frames()).get("run7/visible/a")).toEqual(new Uint8Array([1, 2]));
    });

    holds("the same frame sent again is present, also after a restart", async (opened, reopen) => {
      const bytes = bytesOf(5000);
      await storeFrame(openSource(opened.store, "run7", "visible"), "1.png", bytes);
      await opened.store.flush();
      const { store, frames } = await reopen();
      const again = openSource(store, "run7", "visible");
      expect(await storeFrame(again, "1.png", bytes)).toBe("present");
      await store.flush();
      expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytes]]));
    });

    for (const [what, other] of [
      ["other bytes", bytesOf(5000, 2)],
      ["fewer bytes", bytesOf(4999)],
      ["more bytes", bytesOf(5001)],
      ["no bytes", bytesOf(0)],
    ] as const) {
      holds(`${what} under a stored name are a conflict, and replace nothing`, async (opened) => {
        const { store, frames } = opened;
        const source = openSource(store, "run7", "visible");
        const bytes = bytesOf(5000);
        await storeFrame(source, "1.png", bytes);
        // While the batch of the first is open, and after its flush.
        expect(outcomeCode(await storeFrame(source, "1.png", other))).toBe("conflict");
        await store.flush();
        expect(outcomeCode(await storeFrame(source, "1.png", other))).toBe("conflict");
        await store.flush();
        expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytes]]));
      });
    }

    holds("other bytes under a stored name conflict after a restart", async (opened, reopen) => {
      const bytes = bytesOf(5000);
      await storeFrame(openSource(opened.store, "run7", "visible"), "1.png", bytes);
      await opened.store.flush();
      const { store, frames } = await reopen();
      const again = openSource(store, "run7", "visible");
      expect(outcomeCode(await storeFrame(again, "1.png", bytesOf(5000, 2)))).toBe("conflict");
      expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytes]]));
    });

    holds("of two writers of one name the first to finish stores it", async ({ store, frames }) => {
      const [first, second] = [bytesOf(3000, 3), bytesOf(3000, 4)];
      const one = openSource(store, "run7", "visible");
      const two = openSource(store, "run7", "visible");
      const writers = [first, first, second].map((bytes, index) =>
        (index === 1 ? two : one).begin(describeFrame("1.png", bytes.length)),
      );
      expect(await finish(store, writers[0]!, first)).toBe("stored");
      expect(await finish(store, writers[1]!, first)).toBe("present");
      expect(outcomeCode(await finish(store, writers[2]!, second))).toBe("conflict");
      await store.flush();
      expect(await frames()).toEqual(new Map([["run7/visible/1.png", first]]));
    });

    holds("a discarded frame leaves no file, and its name is free", async ({ store, frames }) => {
      const source = openSource(store, "run7", "visible");
      source.begin(describeFrame("never written", 10)).discard();
      const writer = source.begin(describeFrame("1.png", 10));
      writer.write(bytesOf(5));
      writer.discard();
      await store.flush();
      expect(await frames()).toEqual(new Map());
      expect(store.isStreamEmpty("run7")).toBe(true);
      expect(await storeFrame(source, "1.png", bytesOf(10, 2))).toBe("stored");
      await store.flush();
      expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytesOf(10, 2)]]));
    });

    holds("a discarded frame under a stored name leaves that frame alone", async (opened) => {
      const { store, frames } = opened;
      const source = openSource(store, "run7", "visible");
      await storeFrame(source, "1.png", bytesOf(10));
      const writer = source.begin(describeFrame("1.png", 10));
      writer.write(bytesOf(5, 2));
      writer.discard();
      await store.flush();
      expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytesOf(10)]]));
    });

    holds("an unfinished frame is not visible, also after a restart", async (opened, reopen) => {
      const writer = openSource(opened.store, "run7", "visible").begin(describeFrame("a", 10));
      writer.write(bytesOf(9));
      await opened.store.flush();
      expect(await opened.frames()).toEqual(new Map());
      const { store, frames } = await reopen();
      expect(await frames()).toEqual(new Map());
      expect(store.isStreamEmpty("run7")).toBe(true);
    });

    holds("interleaved frames of several sources are stored separately", async (opened) => {
      const { store, frames } = opened;
      const names = ["visible", "infrared", "run7"];
      const all = names.map((_, index) => bytesOf(5000 + index, index + 1));
      const writers = names.map((source, index) =>
        openSource(store, "run7", source).begin(describeFrame("1.png", all[index]!.length)),
      );
      for (let from = 0; from < 5003; from += 500) {
        writers.forEach((writer, index) => writer.write(all[index]!.slice(from, from + 500)));
      }
      const outcomes = writers.map((writer, index) => writer.finish(crc32(all[index]!)));
      await store.flush();
      expect(await Promise.all(outcomes)).toEqual(["stored", "stored", "stored"]);
      expect(await frames()).toEqual(
        new Map([
          ["run7/visible/1.png", all[0]!],
          ["run7/infrared/1.png", all[1]!],
          ["run7/1.png", all[2]!],
        ]),
      );
    });

    holds("the same name in another stream is another frame", async ({ store, frames }) => {
      for (const [index, stream] of ["run7", "run8"].entries()) {
        const bytes = bytesOf(10, index + 1);
        expect(await storeFrame(openSource(store, stream, "visible"), "a", bytes)).toBe("stored");
      }
      await store.flush();
      expect((await frames()).size).toBe(2);
    });

    holds("a stream is empty until a frame of it is stored", async (opened, reopen) => {
      const { store } = opened;
      expect(store.isStreamEmpty("run7")).toBe(true);
      const source = openSource(store, "run7", "visible");
      expect(store.isStreamEmpty("run7")).toBe(true);
      await storeFrame(source, "a", bytesOf(1));
      await store.flush();
      expect(store.isStreamEmpty("run7")).toBe(false);
      expect(store.isStreamEmpty("run8")).toBe(true);
      expect(store.isStreamEmpty("visible")).toBe(true);
      expect((await reopen()).store.isStreamEmpty("run7")).toBe(false);
    });

    for (const bad of ["", ".", "..", ".hidden", "a/b", "/a", "a\\b", "a\0", "a\n", "\ud800"]) {
      holds(`${JSON.stringify(bad)} is no name of a frame, source or stream`, async (opened) => {
        const { store, frames } = opened;
        const source = openSource(store, "run7", "visible");
        expect(thrownCode(() => source.begin(describeFrame(bad, 1)))).toBe("bad-name");
        expect(thrownCode(() => openSource(store, bad, "visible"))).toBe("bad-name");
        expect(thrownCode(() => openSource(store, bad, bad))).toBe("bad-name");
        const deeper = bad === "a/b" ? "a//b" : `a/${bad}`;
        expect(thrownCode(() => openSource(store, "run7", deeper))).toBe("bad-name");
        // Valid names are still accepted.
        expect(await storeFrame(source, "1.png", bytesOf(1))).toBe("stored");
        await store.flush();
        expect([...(await frames()).keys()]).toEqual(["run7/visible/1.png"]);
      });
    }

    holds("names with special characters are stored unchanged", async ({ store, frames }) => {
      const names = ["2026-11-22T07:12:00.png", "a b", "-rf", "%2e%2e", "*?", "é", "e\u0301", "🔥"];
      const source = openSource(store, "__proto__", "it's");
      for (const [index, name] of names.entries()) {
        expect(await storeFrame(source, name, bytesOf(8, index + 1))).toBe("stored");
      }
      await store.flush();
      const expected = names.map((name, index) => {
        return [`__proto__/it's/${name}`, bytesOf(8, index + 1)] as const;
      });
      expect(await frames()).toEqual(new Map(expected));
    });

    holds("the error of a conflict names only its reason", async ({ store }) => {
      const source = openSource(store, "run7", "visible");
      await storeFrame(source, "a", bytesOf(10));
      const outcome = await storeFrame(source, "a", bytesOf(10, 2));
      expect(outcome).toBeInstanceOf(FramesError);
      expect((outcome as FramesError).message).toBe("other bytes are stored under this name");
    });

    holds("a store records losses with their reasons", async ({ store, losses }) => {
      const visible = openSource(store, "run7", "visible");
      visible.recordLoss(3, 3, new FramesError("vanished"));
      visible.recordLoss(7, 4_000_000_000, new FramesError("dropped"));
      openSource(store, "run7", "infrared").recordLoss(1, 2, new FramesError("unreadable"));
      await store.flush();
      expect(await losses()).toEqual([
        { stream: "run7", source: "visible", session, first: 3, last: 3, reason: "vanished" },
        {
          ...{ stream: "run7", source: "visible", session },
          ...{ first: 7, last: 4_000_000_000, reason: "dropped" },
        },
        { stream: "run7", source: "infrared", session, first: 1, last: 2, reason: "unreadable" },
      ]);
    });

    holds("a repeated loss is recorded once, and each other loss by itself", async (opened) => {
      const { store, losses } = opened;
      const visible = openSource(store, "run7", "visible");
      const tell = (source: SourceStore, first: number, last: number): void =>
        source.recordLoss(first, last, new FramesError("dropped"));
      const other = "f".repeat(32);
      for (let round = 0; round < 2; round++) {
        // Twice in one batch, and again in the next.
        tell(visible, 3, 5);
        tell(openSource(store, "run7", "visible"), 3, 5);
        await store.flush();
      }
      tell(visible, 3, 4);
      tell(visible, 4, 5);
      tell(openSource(store, "run7", "infrared"), 3, 5);
      tell(openSource(store, "run8", "visible"), 3, 5);
      tell(openSource(store, "run7", "visible", { session: other }), 3, 5);
      // The same range with another reason is still the same.
      visible.recordLoss(3, 5, new FramesError("vanished"));
      await store.flush();
      const loss = { stream: "run7", source: "visible", session, reason: "dropped" };
      expect(await losses()).toEqual([
        { ...loss, first: 3, last: 5 },
        { ...loss, first: 3, last: 4 },
        { ...loss, first: 4, last: 5 },
        { ...loss, source: "infrared", first: 3, last: 5 },
        { ...loss, stream: "run8", first: 3, last: 5 },
        { ...loss, session: other, first: 3, last: 5 },
      ]);
    });

    holds("a loss reported before and after a restart is recorded once", async (opened, reopen) => {
      const tell = (store: FrameStore): void =>
        openSource(store, "run7", "visible").recordLoss(3, 5, new FramesError("dropped"));
      tell(opened.store);
      await opened.store.flush();
      const { store, losses } = await reopen();
      tell(store);
      await store.flush();
      expect(await losses()).toHaveLength(1);
    });

    holds("an offered frame is wanted until it is stored", async ({ store }) => {
      const source = openSource(store, "run7", "visible");
      const bytes = bytesOf(500);
      const { captured, sequence } = describeFrame("1.png", 500);
      const offer = { name: "1.png", size: 500, captured, sequence, crc32: undefined };
      const crc = crc32(bytes);
      expect(source.compare([offer])[0]!).toBe("wanted");
      expect(source.compare([{ ...offer, crc32: crc }])[0]!).toBe("wanted");
      await storeFrame(source, "1.png", bytes, { captured });
      await store.flush();
      expect(source.compare([offer])[0]!).toBe("stored");
      expect(source.compare([{ ...offer, captured: captured + 1_000_000n }])[0]!).toBe(
        "needsChecksum",
      );
      expect(source.compare([{ ...offer, captured: 0n, crc32: crc }])[0]!).toBe("stored");
      expect(source.compare([{ ...offer, crc32: crc ^ 1 }])[0]!).toBe("conflict");
      expect(source.compare([{ ...offer, size: 499 }])[0]!).toBe("conflict");
      expect(source.compare([{ ...offer, name: "2.png" }])[0]!).toBe("wanted");
    });

    holds("other bytes replace a frame only with conflict replace", async ({ store, frames }) => {
      const source = openSource(store, "run7", "visible");
      const replacing = openSource(store, "run7", "visible", { conflict: "replace" });
      const [bytes, other] = [bytesOf(500), bytesOf(600, 2)];
      await storeFrame(source, "1.png", bytes);
      expect(outcomeCode(await storeFrame(source, "1.png", other))).toBe("conflict");
      expect(await storeFrame(replacing, "1.png", other)).toBe("stored");
      expect(await storeFrame(replacing, "2.png", bytes)).toBe("stored");
      expect(await storeFrame(replacing, "1.png", other)).toBe("present");
      expect(outcomeCode(await storeFrame(source, "1.png", bytes))).toBe("conflict");
      await store.flush();
      expect(await frames()).toEqual(
        new Map([
          ["run7/visible/1.png", other],
          ["run7/visible/2.png", bytes],
        ]),
      );
    });

    const camera = { key: "cam", keyId: "0123456789abcdef" };
    const strangers: [who: string, sender: Partial<SourceInfo>][] = [
      ["another key", { key: "other", keyId: "fedcba9876543210" }],
      ["a new key of the old name", { key: "cam", keyId: "fedcba9876543210" }],
      ["a key of which only another name is known", { key: "other" }],
      ["no key", {}],
    ];
    for (const [who, stranger] of strangers) {
      holds(`a session of a key is not continued with ${who}`, async (opened, reopen) => {
        let { store } = opened;
        await storeFrame(openSource(store, "run7", "visible", camera), "1.png", bytesOf(10));
        await store.flush();
        for (const stream of ["run7", "run8"]) {
          const open = () =>
            openSource(store, stream, "visible", { ...stranger, replacesOwn: true });
          expect(thrownCode(open)).toBe("stolen-session");
        }
        ({ store } = await reopen());
        expect(thrownCode(() => openSource(store, "run7", "a", stranger))).toBe("stolen-session");
        expect(thrownCode(() => store.checkSession!({ session, ...stranger }))).toBe(
          "stolen-session",
        );
        expect(thrownCode(() => store.checkSession!({ session, ...camera }))).toBeUndefined();
      });
    }

    holds(
      "a session goes on with its key under a new name, also after a restart",
      async (...at) => {
        const [opened, reopen] = at;
        const source = openSource(opened.store, "run7", "visible", camera);
        expect(await storeFrame(source, "1.png", bytesOf(10))).toBe("stored");
        await opened.store.flush();
        const { store } = await reopen();
        const renamed = openSource(store, "run7", "visible", { ...camera, key: "garden" });
        expect(await storeFrame(renamed, "2.png", bytesOf(10))).toBe("stored");
      },
    );

    holds("a session of losses alone belongs to its key", async (opened, reopen) => {
      const source = openSource(opened.store, "run7", "visible", camera);
      source.recordLoss(1, 5, new FramesError("dropped"));
      await opened.store.flush();
      const { store, losses } = await reopen();
      const [, other] = strangers[0]!;
      expect(thrownCode(() => openSource(store, "run7", "visible", other))).toBe("stolen-session");
      expect(await losses()).toHaveLength(1);
    });

    holds("a session that no sender began is not continued", async ({ store }) => {
      for (const sender of [{}, camera]) {
        const open = () => openSource(store, "run7", "a", { ...sender, session: "0".repeat(32) });
        expect(thrownCode(open)).toBe("stolen-session");
      }
    });

    holds("a session without a key is continued without a key only", async ({ store }) => {
      await storeFrame(openSource(store, "run7", "visible"), "1.png", bytesOf(10));
      await store.flush();
      expect(thrownCode(() => openSource(store, "run7", "a", camera))).toBe("stolen-session");
      expect(await storeFrame(openSource(store, "run7", "a"), "1.png", bytesOf(10))).toBe("stored");
    });

    holds(
      "a new key of an old name replaces no frame of the old key",
      async ({ store, frames }) => {
        const first = openSource(store, "run7", "visible", camera);
        expect(await storeFrame(first, "1.png", bytesOf(10))).toBe("stored");
        await store.flush();
        const again = { session: "e".repeat(32), conflict: "replace" as const };
        const young = openSource(store, "run7", "visible", { ...strangers[1]![1], ...again });
        expect(outcomeCode(await storeFrame(young, "1.png", bytesOf(11)))).toBe("conflict");
        expect(await frames()).toEqual(new Map([["run7/visible/1.png", bytesOf(10)]]));
        const own = { session: "d".repeat(32), conflict: "replace" as const };
        const renamed = { ...camera, key: "garden" };
        const old = openSource(store, "run7", "visible", { ...renamed, ...own });
        expect(await storeFrame(old, "1.png", bytesOf(12))).toBe("stored");
      },
    );

    holds("a store keeps all of many frames in many batches", async ({ store, frames }) => {
      const source = openSource(store, "run7", "visible");
      for (let index = 1; index <= 300; index++) {
        expect(await storeFrame(source, `${index}.png`, bytesOf(index, index))).toBe("stored");
        if (index % 7 === 0) await store.flush();
      }
      await store.flush();
      await store.flush();
      const found = await frames();
      expect(found.size).toBe(300);
      for (let index = 1; index <= 300; index++) {
        expect(found.get(`run7/visible/${index}.png`)).toEqual(bytesOf(index, index));
      }
    });
  });
}
