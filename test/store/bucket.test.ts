import { afterAll, beforeAll } from "bun:test";
import { Database } from "bun:sqlite";
import { BucketStore, type BucketStoreOptions } from "../../src/store/bucket.ts";
import { type Engine, needs, startEngine } from "../helper/radosgw.ts";
import { type OpenStore, type RecordedLoss, storeContract } from "./contract.ts";
import { now } from "./fixture.ts";

let engine: Engine | undefined;
let bucket: Bun.S3Client;

if (needs === "") {
  beforeAll(async () => {
    engine = await startEngine();
    bucket = await engine.bucket("frames");
  }, 120_000);
  afterAll(() => engine?.stop());
}

let prefixes = 0;

/** Opens a store in a part of the bucket; nobody waits long for others to add to a link. */
async function openBucket(prefix: string, options: Partial<BucketStoreOptions> = {}) {
  const { endpoint, accessKeyId, secretAccessKey } = engine!;
  const place = {
    bucket: "frames",
    prefix,
    endpoint,
    region: "us-east-1",
    accessKeyId,
    secretAccessKey,
  };
  const pace = { every: 20, quiet: 2 };
  return BucketStore.open(place, { clock: () => now, pace, ...options });
}

function newPrefix(): string {
  return `part ${++prefixes}`;
}

/** All frames below a prefix by their paths. */
async function framesIn(prefix: string): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  const { contents = [] } = await bucket.list({ prefix: `${prefix}/`, maxKeys: 1000 });
  await Promise.all(
    contents.map(async ({ key }) => {
      const path = key.slice(prefix.length + 1);
      if (!path.startsWith(".frames/")) found.set(path, await bucket.file(key).bytes());
    }),
  );
  return new Map([...found].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

async function opened(prefix: string): Promise<OpenStore> {
  const store = await openBucket(prefix);
  return {
    store,
    frames: () => framesIn(prefix),
    losses() {
      const database = new Database(store.journalPath, { readonly: true });
      try {
        return database
          .query<RecordedLoss, []>(
            "SELECT stream, source, session, first, last, reason FROM losses",
          )
          .all();
      } finally {
        database.close();
      }
    },
    async reopen() {
      await store.close();
      return opened(prefix);
    },
    close: () => store.close(),
  };
}

storeContract("A bucket", () => opened(newPrefix()), needs);
