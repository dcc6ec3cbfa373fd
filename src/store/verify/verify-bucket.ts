/** Compares the frames of a bucket with its journal. */
import { Database } from "bun:sqlite";
import { checksumOf } from "../../common/checksum.ts";
import { asFramesError } from "../../errors.ts";
import { BucketSnapshot } from "../bucket/bucket-snapshot.ts";
import type { BucketLocation, ListedObject } from "../bucket/s3.ts";
import { forEachConcurrent } from "../../common/concurrency.ts";
import type { FramePath } from "../paths.ts";
import {
  maxConcurrentReads,
  otherBytesReason,
  sizeReason,
  StoreVerifier,
  type Verification,
  type VerifyOptions,
} from "./store-verifier.ts";

/**
 * Verifies the store in a bucket by reading every frame. Nodes may serve the bucket at the same
 * time.
 *
 * @throws {FramesError} `missing` if there is no store, `store` if it cannot be read
 */
export async function verifyBucket(
  location: BucketLocation,
  options: Omit<VerifyOptions, "repair" | "accept"> = {},
): Promise<Verification> {
  const snapshot = await BucketSnapshot.open(location);
  const database = new Database(snapshot.localIndex.path, { readonly: true });
  try {
    return await new BucketVerifier(snapshot, database, options).run();
  } catch (error) {
    throw asFramesError(error, "store", `Cannot verify ${snapshot.s3.location}`);
  } finally {
    database.close();
    snapshot.close();
  }
}

class BucketVerifier extends StoreVerifier {
  readonly #snapshot: BucketSnapshot;
  /** One bit per row id, set if the object exists. */
  readonly #present: Uint8Array;
  /** Objects without a row at the time of the listing. */
  readonly #unknown: FramePath[] = [];

  constructor(snapshot: BucketSnapshot, journal: Database, options: VerifyOptions) {
    super(journal, options);
    this.#snapshot = snapshot;
    this.#present = new Uint8Array((this.lastId >> 3) + 1);
  }

  async run(): Promise<Verification> {
    for await (const page of this.#snapshot.s3.list("")) {
      const frames = page.filter(({ key }) => !key.startsWith("."));
      await forEachConcurrent(frames, maxConcurrentReads, (object) => this.#check(object));
      this.options.onProgress?.(this.progress);
    }
    this.#reportDamagedLines();
    this.#findMissing();
    // The rows of the newest objects may be in the bucket by now.
    if (this.#unknown.length > 0) await this.#snapshot.refresh();
    this.reportUnknown(this.#unknown);
    this.findLost();
    return { ...this.counts, ...this.progress, rebuilt: undefined };
  }

  /** Reports lines of the journal that no server can have written. They were not used. */
  #reportDamagedLines(): void {
    for (const place of this.#snapshot.damagedLines) {
      this.report("damaged", { stream: "", source: "" }, place, "no server can have written it");
    }
  }

  async #check({ key, size }: ListedObject): Promise<void> {
    const frame = parseFramePath(key);
    const row = this.findRow(frame);
    if (row === undefined) return void this.#unknown.push(frame);
    // The frame was stored after the verification began.
    if (row.id > this.lastId) return;
    this.#mark(row, true);
    if (size !== row.bytes) return this.report("damaged", frame, key, sizeReason(size, row));
    const response = await this.#snapshot.s3.get(key, size);
    // The object was removed during the verification.
    if (response === undefined) return this.#mark(row, false);
    const crc = await checksumOf(response.body ?? []);
    if (crc !== row.crc32) this.report("damaged", frame, key, otherBytesReason);
  }

  #mark(row: { readonly id: number; readonly bytes: number }, isPresent: boolean): void {
    const bit = 1 << (row.id & 7);
    if (isPresent) this.#present[row.id >> 3]! |= bit;
    else this.#present[row.id >> 3]! &= ~bit;
    this.countFrame(row, isPresent ? 1 : -1);
  }

  #findMissing(): void {
    for (const row of this.rows(this.lastId)) {
      if ((this.#present[row.id >> 3]! & (1 << (row.id & 7))) !== 0) continue;
      this.countFrame(row);
      this.reportMissing(row, "it is in the journal, but its object is missing");
    }
  }
}

/** Parses `STREAM/NAME` or `STREAM/SOURCE/NAME`. */
function parseFramePath(key: string): FramePath {
  const parts = key.split("/");
  const stream = parts[0]!;
  const source = parts.length > 2 ? parts.slice(1, -1).join("/") : stream;
  return { stream, source, name: parts.at(-1)! };
}
