// Store features that playback and stream copies rely on.

import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { ReceiveTarget, SourceInfo } from "../../../src/frame.ts";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import { StreamCopy } from "../../../src/store/directory/stream-copy.ts";
import {
  DirectoryStore,
  type DirectoryStoreOptions,
} from "../../../src/store/directory/directory-store.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { temporaryFolder } from "../../helper/program.ts";

const origin: SourceInfo = { stream: "s", source: "a", session: "1".repeat(32) };

function opened(place: string, options: Partial<DirectoryStoreOptions> = {}): DirectoryStore {
  return new DirectoryStore(place, {
    portableNames: false,
    reserve: 0,
    clock: Date.now,
    ...options,
  });
}

/** Stores frames with these names and contents, with consecutive numbers. */
async function put(
  store: Pick<ReceiveTarget, "open" | "flush">,
  frames: Record<string, string>,
  fields: Partial<SourceInfo> = {},
): Promise<void> {
  const source = store.open({ ...origin, ...fields });
  let sequence = 0;
  const outcomes = Object.entries(frames).map(([name, text]) => {
    const bytes = Buffer.from(text);
    const size = bytes.length;
    const writer = source.begin({ name, sequence: ++sequence, captured: 1n, size, metadata: "" });
    writer.write(bytes);
    return writer.finish(crc32(bytes));
  });
  await store.flush();
  await Promise.all(outcomes);
}

describe("journal", () => {
  test("the journal never reuses the row id of a replaced frame", async () => {
    const place = temporaryFolder();
    const store = opened(place);
    await put(store, { "1.png": "one", "2.png": "two" });
    const reader = new JournalReader(journalPath(place));
    expect(reader.lastId()).toBe(2);
    // Replace the newest frame repeatedly.
    for (const [text, id] of [
      ["other", 3],
      ["third", 4],
    ] as const) {
      await put(store, { "2.png": text }, { conflict: "replace" });
      expect(reader.lastId()).toBe(id);
      expect(reader.findById(id)!.name).toBe("2.png");
      expect(reader.findById(id - 1)).toBeUndefined();
    }
    await put(store, { "3.png": "x" });
    expect(reader.allAfter(0, 10).map(({ id }) => id)).toEqual([1, 4, 5]);
    reader.close();
    store.close();
  });

  test("the journal keeps its identity, and finds the rows of a stream by id", async () => {
    const place = temporaryFolder();
    const first = opened(place);
    const identity = first.journal.property("identity");
    expect(identity).toMatch(/^[0-9a-f]{32}$/);
    await put(first, { "1.png": "one" });
    await put(first, { "1.png": "x", "2.png": "y" }, { stream: "other" });
    await put(first, { "1.png": "two" }, { source: "b" });
    first.close();
    const again = opened(place);
    expect(again.journal.property("identity")).toBe(identity!);
    const reader = new JournalReader(journalPath(place));
    const all = { stream: "s" };
    expect(reader.between(all, 0, 10, 10).map(({ id }) => id)).toEqual([1, 4]);
    expect(reader.between(all, 1, 10, 10).map(({ source }) => source)).toEqual(["b"]);
    expect(reader.between({ ...all, sources: ["a"] }, 0, 10, 10)).toHaveLength(1);
    expect(reader.between({ ...all, since: 2n }, 0, 10, 10)).toEqual([]);
    expect(reader.sources("s")).toEqual(["a", "b"]);
    expect([...reader.selectedSources(all)]).toEqual(["a", "b"]);
    expect(["a", "b"].map((name) => reader.newestOf(all, name)?.id)).toEqual([1, 4]);
    expect(reader.nextId(1)).toBe(2);
    expect(reader.nextId(4)).toBeUndefined();
    const has = (stream: string, sources?: string[]) => reader.has({ stream, sources });
    expect([has("s"), has("t")]).toEqual([true, false]);
    expect([has("s", ["a", "b"]), has("s", ["a", "c"])]).toEqual([true, false]);
    reader.close();
    again.close();
  });
});

describe("StreamCopy", () => {
  const whole = { stream: "s" };

  test("a copy saves its cursor together with the frames before it", async () => {
    const place = temporaryFolder();
    const copy = new StreamCopy(place, whole, true);
    await put(copy, { "1.png": "one" }, { isCopy: true });
    const keep = copy.onCursor("c1");
    expect(copy.cursor).toBeUndefined();
    keep();
    // A crash now would lose both frame and cursor.
    const before = new JournalReader(journalPath(place));
    expect(before.property("cursor")).toBeUndefined();
    await copy.flush();
    expect(before.property("cursor")).toContain("c1");
    before.close();
    copy.close();
    const again = new StreamCopy(place, whole, true);
    expect(again.cursor).toBe("c1");
    again.close();
  });

  test("a copy continues from a cursor only if the cursor covers all wanted sources and times", async () => {
    const place = temporaryFolder();
    const cursorOf = async (
      wanted: { sources?: string[]; since?: bigint },
      next?: string,
      isComplete = true,
    ): Promise<string | undefined> => {
      const copy = new StreamCopy(place, { ...whole, ...wanted }, isComplete);
      const { cursor } = copy;
      copy.onConnected(undefined, "a store on gpu1", true);
      if (next !== undefined) copy.onCursor(next)();
      await copy.flush();
      copy.close();
      return cursor;
    };
    expect(await cursorOf({ sources: ["a", "b"], since: 5n }, "ab5")).toBeUndefined();
    expect(await cursorOf({ sources: ["b", "a"], since: 7n })).toBe("ab5");
    expect(await cursorOf({ sources: ["a"], since: 5n }, "narrower")).toBe("ab5");
    expect(await cursorOf({ sources: ["a", "b"], since: 5n })).toBe("ab5");
    expect(await cursorOf({ sources: ["a", "b"], since: 4n })).toBeUndefined();
    expect(await cursorOf({ sources: ["a", "b"] })).toBeUndefined();
    expect(await cursorOf({ sources: ["c"], since: 5n })).toBeUndefined();
    expect(await cursorOf({}, "latest", false)).toBeUndefined();
    expect(await cursorOf({}, "all")).toBeUndefined();
    expect(await cursorOf({ sources: ["a"] })).toBe("all");
    expect(await cursorOf({})).toBe("all");
  });

  test("a copy replaces frames that the other store replaced", async () => {
    const place = temporaryFolder();
    const copy = new StreamCopy(place, whole, true);
    await put(copy, { "1.png": "one" }, { isCopy: true });
    await put(copy, { "1.png": "other" }, { isCopy: true, session: "2".repeat(32) });
    expect(await Bun.file(join(place, "a/1.png")).text()).toBe("other");
    copy.close();
  });

  test("a copy that lost its journal adopts its files", async () => {
    const place = temporaryFolder();
    const copy = new StreamCopy(place, whole, true);
    await put(copy, { "1.png": "one" }, { isCopy: true });
    copy.close();
    rmSync(join(place, ".frames"), { recursive: true });
    const again = new StreamCopy(place, whole, true);
    await put(again, { "1.png": "one" }, { isCopy: true });
    expect(await Bun.file(join(place, "a/1.png")).text()).toBe("one");
    expect(() => again.open({ ...origin, stream: "other" })).toThrow(
      "Cannot store frames of other",
    );
    again.close();
  });
});
