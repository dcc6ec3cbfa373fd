/** Compares the frames of a bucket with its journal. */
import { Database } from "bun:sqlite";
import { crc32 } from "../../common/checksum.ts";
import { asFramesError } from "../../errors.ts";
import { BucketSnapshot } from "../bucket/bucket-snapshot.ts";
import type { BucketLocation, ListedObject } from "../bucket/s3.ts";
import { forEachConcurrent } from "../../common/concurrency.ts";
import { type FramePath, framePath } from "../paths.ts";
import type { Finding, Verification, VerifyOptions } from "./verify-directory.ts";

interface FrameIndexRow extends FramePath {
  readonly id: number;
  readonly bytes: number;
  readonly crc32: number;
}

interface ReportedLossRow {
  readonly stream: string;
  readonly source: string;
  readonly first: number;
  readonly last: number;
  readonly reason: string;
  readonly name: string | null;
  readonly state: string | null;
}

/** Objects read concurrently. */
const maxConcurrentReads = 16;

/** Rows per query. */
const rowBatchSize = 1000;

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

class BucketVerifier {
  readonly #snapshot: BucketSnapshot;
  readonly #find;
  readonly #listRows;
  readonly #losses;
  readonly #options: VerifyOptions;
  readonly #counts = { missing: 0, damaged: 0, unknown: 0, unchecked: 0, lost: 0 };
  /** One bit per row id, set if the object exists. */
  readonly #present: Uint8Array;
  readonly #lastId: number;
  readonly #total: number;
  /** Objects without a row at the time of the listing. */
  readonly #unknown: FramePath[] = [];
  #frames = 0;
  #bytes = 0;
  #cameLater = 0;

  constructor(snapshot: BucketSnapshot, database: Database, options: VerifyOptions) {
    this.#snapshot = snapshot;
    this.#options = options;
    const columns = "id, stream, source, name, bytes, crc32";
    this.#find = database.query<FrameIndexRow, [string, string, string]>(
      `SELECT ${columns} FROM frames WHERE stream = ? AND source = ? AND name = ?`,
    );
    this.#listRows = database.query<FrameIndexRow, [number, number]>(
      `SELECT ${columns} FROM frames WHERE id > ? AND id <= ? ORDER BY id LIMIT ${rowBatchSize}`,
    );
    this.#losses = database.query<ReportedLossRow, []>(
      "SELECT stream, source, first, last, reason, name, state FROM losses ORDER BY rowid",
    );
    const { total, last } = database
      .query<{ total: number; last: number | null }, []>(
        "SELECT count(*) AS total, max(id) AS last FROM frames",
      )
      .get()!;
    this.#total = total;
    this.#lastId = last ?? 0;
    this.#present = new Uint8Array((this.#lastId >> 3) + 1);
  }

  async run(): Promise<Verification> {
    for await (const page of this.#snapshot.s3.list("")) {
      const frames = page.filter(({ key }) => !key.startsWith("."));
      await forEachConcurrent(frames, maxConcurrentReads, (object) => this.#check(object));
      this.#options.onProgress?.(this.#progress);
    }
    this.#reportDamagedLines();
    this.#findMissing();
    await this.#findUnknown();
    this.#findLost();
    const history = { cameLater: this.#cameLater, accepted: 0 };
    return { ...this.#counts, ...history, ...this.#progress, rebuilt: undefined };
  }

  get #progress() {
    return { total: this.#total, frames: this.#frames, bytes: this.#bytes };
  }

  #report(
    kind: Finding["kind"],
    { stream, source }: Pick<FramePath, "stream" | "source">,
    what: string,
    why: string,
  ) {
    this.#counts[kind]++;
    this.#options.onFinding?.({ kind, stream, source, what, why });
  }

  /** Reports lines of the journal that no server can have written. They were not used. */
  #reportDamagedLines(): void {
    for (const place of this.#snapshot.damagedLines) {
      this.#report("damaged", { stream: "", source: "" }, place, "no server can have written it");
    }
  }

  async #check({ key, size }: ListedObject): Promise<void> {
    const frame = parseFramePath(key);
    const row = this.#find.get(frame.stream, frame.source, frame.name);
    if (row === null) return void this.#unknown.push(frame);
    // The frame was stored after the verification began.
    if (row.id > this.#lastId) return;
    this.#present[row.id >> 3]! |= 1 << (row.id & 7);
    this.#frames++;
    this.#bytes += row.bytes;
    if (size !== row.bytes) {
      return this.#report("damaged", row, key, `it has ${size} bytes, not ${row.bytes}`);
    }
    const response = await this.#snapshot.s3.get(key, size);
    if (response === undefined) return void this.#unmark(row);
    let crc = 0;
    for await (const chunk of response.body ?? []) crc = crc32(chunk, crc);
    if (crc !== row.crc32)
      this.#report("damaged", row, key, "its bytes changed after they were stored");
  }

  /** Clears the bit of a frame whose object was removed during the verification. */
  #unmark({ id, bytes }: FrameIndexRow): void {
    this.#present[id >> 3]! &= ~(1 << (id & 7));
    this.#frames--;
    this.#bytes -= bytes;
  }

  #findMissing(): void {
    for (let last = 0, rows; (rows = this.#listRows.all(last, this.#lastId)).length > 0;) {
      for (const row of rows) {
        last = row.id;
        if ((this.#present[row.id >> 3]! & (1 << (row.id & 7))) !== 0) continue;
        this.#frames++;
        this.#bytes += row.bytes;
        if (this.#options.ignoreMissing === true) continue;
        const path = framePath(row.stream, row.source, row.name);
        this.#report("missing", row, path, "it is in the journal, but its object is missing");
      }
    }
  }

  /**
   * Reports objects without a row. A node creates an object just before its row, so the journal is
   * read again first.
   */
  async #findUnknown(): Promise<void> {
    if (this.#unknown.length > 0) await this.#snapshot.refresh();
    for (const frame of this.#unknown) {
      const { stream, source, name } = frame;
      if (this.#find.get(stream, source, name) !== null) continue;
      this.#report("unknown", frame, framePath(stream, source, name), "it is not in the journal");
    }
  }

  #findLost(): void {
    for (const { stream, source, first, last, reason, name, state } of this.#losses.iterate()) {
      if (state === "came") {
        this.#cameLater++;
        continue;
      }
      const numbers = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
      const path = name === null ? `${stream}/${source}` : framePath(stream, source, name);
      this.#report("lost", { stream, source }, `${path}, ${numbers}`, reason);
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
