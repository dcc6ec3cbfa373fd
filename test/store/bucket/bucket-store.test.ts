// Covers: common/concurrency.ts, store/bucket/bucket-contents.ts,
//   store/bucket/bucket-snapshot.ts, store/bucket/compactor.ts, store/bucket/frame-writer.ts,
//   store/bucket/local-index.ts, store/bucket/log-sync.ts,
//   store/bucket/marker.ts, store/bucket/s3.ts, store/bucket/session-log.ts,
//   store/bucket/upload-order.ts, store/bucket/upload-pool.ts, store/journal/journal-reader.ts

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import type { SourceStore } from "../../../src/frame.ts";
import { BucketStore, type BucketStoreOptions } from "../../../src/store/bucket/bucket-store.ts";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import { SessionLog } from "../../../src/store/bucket/session-log.ts";
import { LogSync } from "../../../src/store/bucket/log-sync.ts";
import { encodeEntries, type LogEntry } from "../../../src/store/bucket/log-format.ts";
import { LogCompactor } from "../../../src/store/bucket/compactor.ts";
import { LocalIndex } from "../../../src/store/bucket/local-index.ts";
import { parseBucketLocation } from "../../../src/store/bucket/location.ts";
import { S3 } from "../../../src/store/bucket/s3.ts";
import { type Engine, needs, startEngine } from "../../helper/radosgw.ts";
import { type S3Proxy, startS3Proxy } from "../../helper/s3-proxy.ts";
import { until } from "../../helper/time.ts";
import {
  bytesOf,
  describeFrame,
  type OpenStore,
  outcomeCode,
  type RecordedLoss,
  session,
  storeContract,
  storeFrame,
  thrownCode,
} from "../contract.ts";
import { codeOf, flushCode, now, openVisible, otherSession, put } from "../fixture.ts";

let engine: Engine | undefined;
let bucket: Bun.S3Client;
let proxy: S3Proxy;

if (needs === "") {
  beforeAll(async () => {
    engine = await startEngine();
    bucket = await engine.bucket("frames");
    proxy = startS3Proxy(engine.endpoint);
  });
  afterAll(async () => {
    proxy?.stop();
    await engine?.stop();
  });
}

let prefixes = 0;

function newPrefix(): string {
  return `part ${++prefixes}`;
}

/** Opens a store below a prefix of the bucket, with short delays for batches. */
async function openBucket(
  prefix: string,
  options: Partial<BucketStoreOptions> & { endpoint?: string } = {},
): Promise<BucketStore> {
  const { endpoint = engine!.endpoint, ...more } = options;
  const location = parseBucketLocation(`s3://frames/${prefix}`, engine!.environment);
  const usual = { clock: () => now, batchPolicy: { maxDelayMs: 20, lingerMs: 2 } };
  return BucketStore.open({ ...location, endpoint }, { ...usual, ...more });
}

/** Returns the keys below a prefix. */
async function keysIn(prefix: string, below = ""): Promise<string[]> {
  const { contents = [] } = await bucket.list({ prefix: `${prefix}/${below}`, maxKeys: 1000 });
  return contents.map(({ key }) => key.slice(prefix.length + 1));
}

/** Returns all frames below a prefix by path. */
async function framesIn(prefix: string): Promise<Map<string, Uint8Array>> {
  const paths = (await keysIn(prefix)).filter((path) => !path.startsWith(".frames/"));
  const bytes = await Promise.all(paths.map((path) => bucket.file(`${prefix}/${path}`).bytes()));
  return new Map(paths.map((path, index) => [path, bytes[index]!]));
}

function rows<T>(store: BucketStore, sql: string): T[] {
  const database = new Database(store.journalPath, { readonly: true });
  try {
    return database.query<T, []>(sql).all();
  } finally {
    database.close();
  }
}

function namesIn(store: BucketStore): string[] {
  return rows<{ name: string }>(store, "SELECT name FROM frames ORDER BY name").map(
    ({ name }) => name,
  );
}

/** Returns the numbers of all frames in the order of their rows. */
function numbersIn(store: BucketStore): number[] {
  return rows<{ seq: number }>(store, "SELECT seq FROM frames ORDER BY id").map(({ seq }) => seq);
}

async function opened(prefix: string): Promise<OpenStore> {
  const store = await openBucket(prefix);
  const columns = "stream, source, session, first, last, reason";
  return {
    store,
    frames: () => framesIn(prefix),
    losses: () =>
      rows<RecordedLoss>(store, `SELECT ${columns} FROM losses ORDER BY session, rowid`),
    numbers: () => numbersIn(store),
    place: async (path, bytes) => void (await bucket.write(`${prefix}/${path}`, bytes)),
    async reopen() {
      await store.close();
      return opened(prefix);
    },
    close: () => store.close(),
  };
}

storeContract("bucket store", () => opened(newPrefix()), needs);

/** Defines a test with its own prefix in the bucket. Closes the stores it opens. */
function holds(
  behaviour: string,
  check: (prefix: string, open: typeof openBucket) => Promise<void>,
): void {
  test.skipIf(needs !== "")(`${needs}${behaviour}`, async () => {
    const stores: BucketStore[] = [];
    try {
      await check(newPrefix(), async (...given) => {
        const store = await openBucket(...given);
        stores.push(store);
        return store;
      });
    } finally {
      proxy.reset();
      for (const store of stores) await store.close();
    }
  });
}

/** Stores a frame and returns its outcome as one word. */
function stored(source: SourceStore, name: string, bytes = bytesOf(100)): Promise<string> {
  return codeOf(put(source, name, bytes));
}

describe("two nodes of one bucket", () => {
  holds("a node knows the frames of another node after a refresh", async (prefix, open) => {
    const [one, two] = [await open(prefix), await open(prefix)];
    expect(await stored(openVisible(one), "1.png")).toBe("stored");
    expect(two.isStreamEmpty("run7")).toBe(true);
    await two.refresh();
    expect(two.isStreamEmpty("run7")).toBe(false);
    const source = openVisible(two, { session: otherSession });
    expect(await stored(source, "1.png")).toBe("present");
    expect(await stored(source, "1.png", bytesOf(100, 2))).toBe("conflict");
  });

  holds("a frame stored since the last refresh is found when it is sent", async (prefix, open) => {
    const [one, two] = [await open(prefix), await open(prefix)];
    expect(await stored(openVisible(one), "1.png")).toBe("stored");
    const source = openVisible(two, { session: otherSession });
    expect(await stored(source, "1.png")).toBe("present");
    expect(await stored(source, "1.png", bytesOf(100, 2))).toBe("conflict");
    expect(await framesIn(prefix)).toEqual(new Map([["run7/visible/1.png", bytesOf(100)]]));
  });

  holds("a reader of one node is notified of frames stored by another", async (prefix, open) => {
    const [one, two] = [await open(prefix), await open(prefix)];
    const reader = new JournalReader(two.journalPath);
    let woken = 0;
    const end = two.commitSignal.subscribe(() => woken++);
    for (let number = 1; number <= 5; number++) {
      expect(await stored(openVisible(one), `${number}.png`)).toBe("stored");
    }
    const kept = () => reader.allAfter(0, 100);
    await until("what the other node took", () => kept().length === 5);
    expect(woken).toBeGreaterThan(0);
    const bytes = await (await two.contents.fetch(kept()[0]!))!.bytes();
    expect([bytes.length, crc32(bytes)]).toEqual([100, kept()[0]!.crc32]);
    expect(crc32(await two.contents.blob(kept()[1]!).bytes())).toBe(crc32(bytes));
    end();
    reader.close();
  });

  holds("other nodes learn which pictures are key frames", async (prefix, open) => {
    const [one, two] = [await open(prefix), await open(prefix)];
    const source = openVisible(one);
    for (const [index, isKey] of [true, false, undefined].entries()) {
      const more = { sequence: index + 1, captured: BigInt(index), isKey };
      expect(await storeFrame(source, `${index}`, bytesOf(9), more)).toBe("stored");
    }
    const reader = new JournalReader(two.journalPath);
    const frames = () => reader.framesAfter("run7", "visible", undefined, 9);
    await until("what the other node took", () => frames().length === 3);
    expect(frames().map(({ isKey }) => isKey)).toEqual([true, false, undefined]);
    reader.close();
  });

  holds(
    "a node takes over a session by writing the next log object, and the other node is refused",
    async (prefix, open) => {
      const [one, two] = [await open(prefix), await open(prefix)];
      const [old, young] = [openVisible(one), openVisible(two)];
      expect(await stored(old, "1.png")).toBe("stored");
      expect(await stored(young, "2.png")).toBe("stored");
      expect(await stored(old, "3.png")).toBe("rejected superseded");
      // The new owner of the session can store a frame that the old one was refused.
      expect(await stored(young, "4.png")).toBe("stored");
      expect(await stored(young, "3.png")).toBe("present");
      await one.refresh();
      expect(namesIn(one)).toEqual(["1.png", "2.png", "3.png", "4.png"]);
      // The first node takes the session over again.
      expect(await stored(openVisible(one), "5.png")).toBe("stored");
      expect(await stored(young, "6.png")).toBe("rejected superseded");
    },
  );

  holds("a session continues only with the key it began with", async (prefix, open) => {
    const [one, two] = [await open(prefix), await open(prefix)];
    const camera = { key: "cam", keyId: "3".repeat(16) };
    const own = openVisible(one, camera);
    // The other node does not know the session yet.
    const thief = openVisible(two, { key: "cam", keyId: "4".repeat(16) });
    expect(await stored(own, "1.png")).toBe("stored");
    expect(await stored(thief, "2.png")).toBe("rejected stolen-session");
    await two.refresh();
    expect(thrownCode(() => openVisible(two, { key: "other", keyId: "5".repeat(16) }))).toBe(
      "stolen-session",
    );
    expect(await stored(own, "3.png")).toBe("stored");
    const same = openVisible(two, camera);
    expect(await stored(same, "4.png")).toBe("stored");
    expect(await stored(own, "5.png")).toBe("rejected superseded");
  });

  holds("a session whose first frame is on its way belongs to its key", async (prefix, open) => {
    const store = await open(prefix);
    const outcome = stored(openVisible(store, { key: "cam", keyId: "3".repeat(16) }), "1.png");
    const take = () => openVisible(store, { key: "other", keyId: "4".repeat(16) });
    expect(thrownCode(take)).toBe("stolen-session");
    expect(await outcome).toBe("stored");
    expect(thrownCode(take)).toBe("stolen-session");
  });

  holds("a node confirms no frame if its session log was compacted", async (prefix, open) => {
    const [one, two] = [await open(prefix), await open(prefix)];
    const old = openVisible(one);
    expect(await stored(old, "1.png")).toBe("stored");
    const young = openVisible(two);
    for (const name of ["2.png", "3.png"]) expect(await stored(young, name)).toBe("stored");
    await two.close();
    expect(await keysIn(prefix, ".frames/journal/")).toEqual([]);
    expect(await stored(old, "4.png")).toBe("rejected store");
    // Opening the source again starts a new log.
    expect(await stored(openVisible(one), "4.png")).toBe("present");
    const third = await open(prefix);
    expect(namesIn(third)).toEqual(["1.png", "2.png", "3.png", "4.png"]);
  });

  holds("of two nodes that write one name at once, one gets a conflict", async (prefix, open) => {
    const stores = [await open(prefix), await open(prefix)];
    for (let round = 0; round < 10; round++) {
      const outcomes = await Promise.all(
        stores.map((store, index) => {
          const source = openVisible(store, { session: index === 0 ? session : otherSession });
          return stored(source, `${round}.png`, bytesOf(5000, index + 1));
        }),
      );
      expect(outcomes.toSorted()).toEqual(["conflict", "stored"]);
      const lies = (await framesIn(prefix)).get(`run7/visible/${round}.png`);
      expect(lies).toEqual(bytesOf(5000, outcomes.indexOf("stored") + 1));
    }
  });

  holds("the journals of two nodes agree after both replaced one name", async (prefix, open) => {
    const stores = [await open(prefix), await open(prefix)];
    const sources = stores.map((store, index) => {
      const more = { conflict: "replace", session: index === 0 ? session : otherSession } as const;
      return openVisible(store, more);
    });
    for (let round = 0; round < 5; round++) {
      const outcomes = await Promise.all(
        sources.map((source, index) =>
          stored(source, "1.png", bytesOf(90 + index, round * 2 + index + 1)),
        ),
      );
      expect(outcomes).toEqual(["stored", "stored"]);
    }
    const [lies] = (await framesIn(prefix)).values();
    const third = await open(prefix);
    for (const store of [...stores, third]) {
      await store.refresh();
      const found = rows<{ bytes: number; crc32: number }>(
        store,
        "SELECT bytes, crc32 FROM frames",
      );
      expect(found).toEqual([{ bytes: lies!.length, crc32: crc32(lies!) }]);
    }
  });
});

describe("bucket after a crash", () => {
  holds("an object without a row is adopted or a conflict, by its bytes", async (prefix, open) => {
    await bucket.write(`${prefix}/run7/visible/1.png`, bytesOf(100));
    await bucket.write(`${prefix}/run7/visible/2.png`, bytesOf(100, 2));
    const store = await open(prefix);
    const source = openVisible(store);
    expect(await stored(source, "1.png")).toBe("present");
    expect(await stored(source, "2.png")).toBe("conflict");
    expect(namesIn(store)).toEqual(["1.png"]);
  });

  holds("the session log of a killed node is compacted by another node", async (prefix, open) => {
    const killed = await open(prefix);
    const source = openVisible(killed);
    for (const name of ["1.png", "2.png"]) expect(await stored(source, name)).toBe("stored");
    const other = await open(prefix);
    expect(namesIn(other)).toEqual(["1.png", "2.png"]);
    expect(await stored(openVisible(other), "3.png")).toBe("stored");
    await other.close();
    expect(await keysIn(prefix, ".frames/journal/")).toEqual([]);
    expect(await keysIn(prefix, ".frames/segments/")).toHaveLength(1);
    expect(namesIn(await open(prefix))).toEqual(["1.png", "2.png", "3.png"]);
  });

  holds("numbers of frames that were already stored are no gaps", async (prefix, open) => {
    const store = await open(prefix);
    const [bytes, source] = [bytesOf(100), openVisible(store)];
    expect(await codeOf(put(source, "1.png", bytes, { sequence: 1 }))).toBe("stored");
    const again = openVisible(store, { session: otherSession });
    expect(await codeOf(put(again, "1.png", bytes, { sequence: 7 }))).toBe("present");
    const sql =
      "SELECT first, last FROM accounted WHERE session = 'ffffffffffffffffffffffffffffffff'";
    await until("the account", () => rows<object>(store, sql).length > 0);
    expect(rows<object>(store, sql)).toEqual([{ first: 7, last: 7 }]);
  });

  holds("a damaged log object is an error with its key", async (prefix, open) => {
    const path = `.frames/journal/${session}/0000000001`;
    await bucket.write(`${prefix}/${path}`, new Uint8Array(Bun.gzipSync("{}\n")));
    const error = await open(prefix).catch((failure: unknown) => failure);
    expect(error).toBeInstanceOf(FramesError);
    expect((error as FramesError).message).toContain(path);
  });
});

describe("failing connection to the S3 server", () => {
  holds("a frame whose response was lost is stored once", async (prefix, open) => {
    const store = await open(prefix, { endpoint: proxy.endpoint });
    proxy.loseAnswer((request) => request.method === "PUT" && request.url.includes("1.png"), 1);
    expect(await stored(openVisible(store), "1.png")).toBe("stored");
    expect(proxy.lost).toBe(1);
  });

  /** Puts frames 1 to 5 of 100 bytes each. Returns their outcomes, with the codes of errors. */
  const putFive = (store: BucketStore, first = 1): Promise<string[]> => {
    const source = openVisible(store);
    const sequences = [1, 2, 3, 4, 5].filter((sequence) => sequence >= first);
    return Promise.all(
      sequences.map((sequence) => {
        return codeOf(put(source, `${sequence}.png`, bytesOf(100, sequence), { sequence }));
      }),
    );
  };
  const isUploadOf2 = (request: Request) =>
    request.method === "PUT" && request.url.includes("2.png");

  holds(
    "a frame whose upload takes long is recorded before those behind it",
    async (prefix, open) => {
      const store = await open(prefix, { endpoint: proxy.endpoint });
      proxy.answer(isUploadOf2, 1, async () => {
        await until("the other uploads", async () => (await framesIn(prefix)).size === 5);
        return new Response("<Error><Code>SlowDown</Code></Error>", { status: 503 });
      });
      // Frames of another source do not wait for it.
      const others = openVisible(store, { source: "thermal" });
      const outcomes = putFive(store);
      expect(await stored(others, "1.png")).toBe("stored");
      await until("the frame before it", () => numbersIn(store).length === 2);
      expect(await outcomes).toEqual(Array(5).fill("stored"));
      const order = rows<{ seq: number }>(
        store,
        "SELECT seq FROM frames WHERE source = 'visible' ORDER BY id",
      );
      expect(order.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5]);
    },
  );

  holds(
    "frames behind one that cannot be stored are not recorded before it is sent again",
    async (prefix, open) => {
      const timeouts = { requestMs: 500, retryMs: 300 };
      const store = await open(prefix, { endpoint: proxy.endpoint, timeouts });
      const refuse = () =>
        new Response("<Error><Code>QuotaExceeded</Code></Error>", { status: 403 });
      proxy.answer(isUploadOf2, 1, refuse);
      expect(await putFive(store)).toEqual(["stored", ...Array(4).fill("rejected store")]);
      expect(await putFive(store)).toEqual(["present", "stored", "present", "present", "present"]);
      expect(numbersIn(store)).toEqual([1, 2, 3, 4, 5]);
    },
  );

  holds(
    "frames behind an entry that cannot be written are not recorded before it",
    async (prefix, open) => {
      const timeouts = { requestMs: 500, retryMs: 300 };
      const batchPolicy = { maxDelayMs: 20, lingerMs: 2, maxEntries: 1 };
      const store = await open(prefix, { endpoint: proxy.endpoint, timeouts, batchPolicy });
      const isLog = (request: Request) =>
        request.method === "PUT" && request.url.includes("journal");
      const refuse = () =>
        new Response("<Error><Code>QuotaExceeded</Code></Error>", { status: 403 });
      proxy.answer(isLog, 1, refuse);
      expect(await putFive(store)).toEqual(Array(5).fill("rejected store"));
      expect(await putFive(store)).toEqual(Array(5).fill("present"));
      expect(numbersIn(store)).toEqual([1, 2, 3, 4, 5]);
    },
  );

  holds("a node recognizes its log object if the response was lost", async (prefix, open) => {
    const store = await open(prefix, { endpoint: proxy.endpoint });
    proxy.loseAnswer((request) => request.method === "PUT" && request.url.includes("journal"), 1);
    const source = openVisible(store);
    expect(await stored(source, "1.png")).toBe("stored");
    expect(proxy.lost).toBe(1);
    expect(await stored(source, "2.png")).toBe("stored");
    expect(await keysIn(prefix, ".frames/journal/")).toHaveLength(2);
  });

  holds("a request is repeated when the S3 server answers SlowDown", async (prefix, open) => {
    const store = await open(prefix, { endpoint: proxy.endpoint });
    proxy.answer(
      (request) => request.method === "PUT",
      3,
      () => {
        return new Response("<Error><Code>SlowDown</Code></Error>", { status: 503 });
      },
    );
    expect(await stored(openVisible(store), "1.png")).toBe("stored");
  });

  holds("a sender gets the S3 server's reason if no frame can be stored", async (prefix, open) => {
    const timeouts = { requestMs: 500, retryMs: 300 };
    const store = await open(prefix, { endpoint: proxy.endpoint, timeouts });
    proxy.answer(
      (request) => request.method === "PUT",
      Infinity,
      () => {
        return new Response("<Error><Code>QuotaExceeded</Code></Error>", { status: 403 });
      },
    );
    const failure = await Promise.resolve(put(openVisible(store), "1.png", bytesOf(10))).catch(
      (error: unknown) => error,
    );
    expect((failure as FramesError).code).toBe("store");
    expect((failure as FramesError).message).toContain(
      "the bucket is full; delete objects, or raise its quota",
    );
    openVisible(store).recordLoss(1, 1, new FramesError("dropped"));
    expect(await flushCode(store)).toBe("store");
    proxy.reset();
    expect(await stored(openVisible(store), "1.png")).toBe("stored");
  });

  holds(
    "without TLS, bytes changed on the way are detected and sent again",
    async (prefix, open) => {
      const store = await open(prefix, {
        endpoint: proxy.endpoint.replace("127.0.0.1", proxy.otherHost),
      });
      proxy.change((request) => request.method === "PUT" && request.url.includes("1.png"), 1);
      expect(await stored(openVisible(store), "1.png")).toBe("stored");
      expect(proxy.changed).toBe(1);
      expect(await framesIn(prefix)).toEqual(new Map([["run7/visible/1.png", bytesOf(100)]]));
    },
  );
});

describe("frames too large to be buffered", () => {
  const large = bytesOf((8 << 20) + 12_345);

  /** Passes the frame in pieces, as a connection does. */
  async function storeLarge(
    source: SourceStore,
    bytes: Uint8Array,
    name = "1.raw",
  ): Promise<string> {
    return outcomeCode(await storeFrame(source, name, bytes, {}, 500_000));
  }

  holds("a large frame is uploaded as it arrives, and then present", async (prefix, open) => {
    const store = await open(prefix);
    const source = openVisible(store);
    expect(await storeLarge(source, large)).toBe("stored");
    expect(await storeLarge(source, large)).toBe("present");
    expect(await storeLarge(source, bytesOf(large.length, 2))).toBe("conflict");
    expect(await framesIn(prefix)).toEqual(new Map([["run7/visible/1.raw", large]]));
    expect(store.whenReady()).toBeUndefined();
  });

  holds("an unfinished large frame is not visible", async (prefix, open) => {
    const store = await open(prefix);
    const writer = openVisible(store).begin(describeFrame("1.raw", large.length));
    // All bytes, but not `finish`.
    for (let from = 0; from < large.length; from += 500_000) {
      writer.write(large.subarray(from, from + 500_000));
    }
    // A frame that was sent later is visible, and the first one is not.
    const later = bytesOf(10);
    expect(outcomeCode(await storeFrame(openVisible(store), "2.raw", later))).toBe("stored");
    const whole = new Map([["run7/visible/2.raw", later]]);
    expect(await framesIn(prefix)).toEqual(whole);
    writer.discard();
    await store.close();
    expect(await framesIn(prefix)).toEqual(whole);
  });

  holds("a large object without a row is read, and adopted or a conflict", async (prefix, open) => {
    await bucket.write(`${prefix}/run7/visible/1.raw`, large);
    await bucket.write(`${prefix}/run7/visible/2.raw`, large);
    const source = openVisible(await open(prefix));
    expect(await storeLarge(source, large)).toBe("present");
    expect(await storeLarge(source, bytesOf(large.length, 2), "2.raw")).toBe("conflict");
  });

  holds("a large frame replaces other bytes with conflict replace", async (prefix, open) => {
    const store = await open(prefix);
    const source = openVisible(store, { conflict: "replace" });
    const other = bytesOf(large.length, 2);
    expect(await storeLarge(source, large)).toBe("stored");
    expect(await storeLarge(source, other)).toBe("stored");
    expect(await framesIn(prefix)).toEqual(new Map([["run7/visible/1.raw", other]]));
  });
});

describe("journal of a bucket", () => {
  holds("closing a node compacts its logs without changing the journal", async (prefix, open) => {
    const first = await open(prefix);
    const sources = [
      openVisible(first),
      openVisible(first, { session: otherSession, key: "cam-3" }),
    ];
    for (let number = 1; number <= 20; number++) {
      const bytes = bytesOf(number, number);
      const more = { metadata: number % 2 === 0 ? `{"exposure":${number}}` : "" };
      const outcome = put(sources[number % 2]!, `${number}.png`, bytes, more);
      expect(await codeOf(outcome)).toBe("stored");
    }
    sources[0]!.recordLoss(100, 200, new FramesError("dropped"));
    await first.flush();
    const told = (store: BucketStore) => [
      rows<object>(
        store,
        "SELECT name, session, seq, bytes, crc32, captured, received, key, meta FROM frames ORDER BY name",
      ),
      rows<object>(store, "SELECT * FROM losses"),
    ];
    const before = told(first);
    expect((await keysIn(prefix, ".frames/journal/")).length).toBeGreaterThan(5);
    await first.close();
    expect(await keysIn(prefix, ".frames/journal/")).toEqual([]);
    expect(await keysIn(prefix, ".frames/segments/")).toHaveLength(1);
    expect(told(await open(prefix))).toEqual(before);
  });
});

/** Opens the parts that write and compact session logs, without a whole store. */
async function openChains(prefix: string) {
  const s3 = await S3.open(parseBucketLocation(`s3://frames/${prefix}`, engine!.environment));
  const mirror = new LocalIndex("any");
  const follower = new LogSync(s3, mirror);
  const chains = new Map<string, SessionLog>();
  const node = crypto.randomUUID().replaceAll("-", "");
  const batchPolicy = { maxDelayMs: 1000, lingerMs: 0, maxEntries: 1, maxBytes: Infinity };
  await follower.sync();
  return {
    s3,
    mirror,
    node,
    merger: new LogCompactor({ s3, localIndex: mirror, logSync: follower, logs: chains, node }),
    chain(id: string): SessionLog {
      const known = chains.get(id);
      if (known?.hasFailed === false) return known;
      const chain = new SessionLog(
        id,
        { key: null, keyId: null },
        {
          s3,
          localIndex: mirror,
          logSync: follower,
          node,
          batchPolicy,
        },
      );
      chains.set(id, chain);
      return chain;
    },
    [Symbol.dispose]: () => mirror.close(),
  };
}

function loss(number: number): LogEntry {
  const origin = { stream: "run7", source: "visible", key: null, keyId: null, format: null };
  return {
    kind: "loss",
    logSource: origin,
    first: number,
    last: number,
    reason: "dropped",
    at: 1n,
  };
}

/** Returns the lost numbers that a new node finds in the journal. */
async function lossesIn(prefix: string): Promise<number[]> {
  using chains = await openChains(prefix);
  const database = new Database(chains.mirror.path, { readonly: true });
  const query = database.query<{ first: number }, []>("SELECT first FROM losses ORDER BY first");
  const found = query.all().map(({ first }) => first);
  database.close();
  return found;
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

describe("session logs", () => {
  holds("a long session log is compacted except for its last object", async (prefix) => {
    using one = await openChains(prefix);
    for (const number of numbers(205)) await one.chain(session).add(loss(number));
    await one.merger.compactOwn(60_000);
    expect(await keysIn(prefix, ".frames/journal/")).toEqual([
      `.frames/journal/${session}/0000000205`,
    ]);
    await one.chain(session).add(loss(206));
    expect(await lossesIn(prefix)).toEqual(numbers(206));
  });

  holds("an idle session log is compacted, and continues later", async (prefix) => {
    using one = await openChains(prefix);
    using two = await openChains(prefix);
    for (const number of [1, 2]) await one.chain(session).add(loss(number));
    await one.merger.compactOwn(0);
    expect(await keysIn(prefix, ".frames/journal/")).toEqual([]);
    // The other node has not synchronized yet.
    await two.chain(session).add(loss(3));
    await one.chain(session).add(loss(4));
    const links = [3, 4].map((number) => `.frames/journal/${session}/000000000${number}`);
    const journal = () => keysIn(prefix, ".frames/journal/");
    await until("the end of what is merged", async () => (await journal()).length <= 2);
    expect(await keysIn(prefix, ".frames/journal/")).toEqual(links);
    expect(await lossesIn(prefix)).toEqual(numbers(4));
  });

  holds("a session log without an owner is compacted by another node", async (prefix) => {
    using one = await openChains(prefix);
    for (const number of numbers(5)) await one.chain(session).add(loss(number));
    using two = await openChains(prefix);
    await two.merger.compactOrphans(1e9);
    expect(await keysIn(prefix, ".frames/journal/")).toHaveLength(5);
    await two.merger.compactOrphans(0);
    expect(await keysIn(prefix, ".frames/journal/")).toEqual([]);
    expect(await lossesIn(prefix)).toEqual(numbers(5));
    // If the log has an owner after all, its next entry fails, and the entry after that starts a
    // new log.
    const late = one.chain(session).add(loss(6));
    expect(
      await late.then(
        () => "written",
        (error: FramesError) => error.code,
      ),
    ).toBe("store");
    await one.chain(session).add(loss(7));
    expect(await lossesIn(prefix)).toEqual(numbers(7));
  });

  holds("a session log continues after an empty log object of another node", async (prefix) => {
    using one = await openChains(prefix);
    await one.chain(session).add(loss(1));
    const header = { session, first: 2, last: 2, node: "f".repeat(32) };
    await one.s3.put(`.frames/journal/${session}/0000000002`, encodeEntries(header, []));
    await one.chain(session).add(loss(2));
    expect(await keysIn(prefix, ".frames/journal/")).toHaveLength(3);
    expect(await lossesIn(prefix)).toEqual(numbers(2));
  });

  holds("many segments are compacted into one, also by two nodes at once", async (prefix) => {
    using one = await openChains(prefix);
    for (const number of numbers(16)) {
      await one.chain(number.toString(16).padStart(32, "0")).add(loss(number));
      await one.merger.compactOwn(0);
    }
    expect(await keysIn(prefix, ".frames/segments/")).toHaveLength(16);
    // Two nodes that compact concurrently produce one segment.
    using two = await openChains(prefix);
    await Promise.all([one.merger.compact(), two.merger.compact()]);
    expect(await keysIn(prefix, ".frames/segments/")).toHaveLength(1);
    expect(await lossesIn(prefix)).toEqual(numbers(16));
  });
});

describe("names in a bucket", () => {
  holds("a name that makes the key too long is refused", async (prefix, open) => {
    const store = await open(prefix);
    const source = store.open({
      stream: "run7",
      source: Array(4).fill("x".repeat(255)).join("/"),
      session,
    });
    expect(thrownCode(() => source.begin(describeFrame("1.png", 1)))).toBe("bad-name");
    expect(
      source.compare([{ name: "1.png", size: 1, sequence: 1, captured: 0n, crc32: undefined }]),
    ).toEqual(["wanted"]);
  });
});

holds(
  "a durable frame whose object was moved away is told as moved away, not as a conflict",
  async (prefix, open) => {
    const store = await open(prefix);
    expect(await stored(openVisible(store, { durable: true }), "a")).toBe("stored");
    await bucket.delete(`${prefix}/run7/visible/a`);
    const other = { durable: true, session: otherSession };
    const knowing = openVisible(store, { ...other, knowsMovedAway: true });
    expect(await stored(knowing, "a")).toBe("moved-away");
    expect(await stored(openVisible(store, other), "a")).toBe("conflict");
    expect(await stored(knowing, "a", bytesOf(100, 2))).toBe("conflict");
    expect(await framesIn(prefix)).toEqual(new Map());
  },
);
