/** Holds the frames of a bucket against its journal. */
import { Database } from "bun:sqlite";
import { crc32 } from "node:zlib";
import { asFramesError } from "../errors.ts";
import { BucketReader } from "./bucket-reader.ts";
import type { BucketPlace, ListedObject } from "./s3.ts";
import { forEachOf } from "./sync.ts";
import { pathOfFrame } from "./tree.ts";
import type { Finding, Verification, VerifyOptions } from "./verify.ts";

/** Where a frame lies. */
interface Place {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
}

interface Row extends Place {
  readonly id: number;
  readonly bytes: number;
  readonly crc32: number;
}

interface LossRow {
  readonly stream: string;
  readonly source: string;
  readonly first: number;
  readonly last: number;
  readonly reason: string;
}

/** Frames that are read at the same time. */
const readAtOnce = 16;

/** Rows that are fetched at a time. */
const pageSize = 1000;

/**
 * Verifies the store in a bucket, beside the nodes that serve it: reads every frame.
 *
 * @throws {FramesError} `missing` if there is no store, `store` if it cannot be read
 */
export async function verifyBucket(
  place: BucketPlace,
  options: Omit<VerifyOptions, "repair"> = {},
): Promise<Verification> {
  const reader = await BucketReader.open(place);
  const database = new Database(reader.mirror.path, { readonly: true });
  try {
    return await new BucketVerifier(reader, database, options).run();
  } catch (error) {
    throw asFramesError(error, "store", `Cannot verify ${reader.s3.place}`);
  } finally {
    database.close();
    reader.close();
  }
}

class BucketVerifier {
  readonly #reader: BucketReader;
  readonly #find;
  readonly #page;
  readonly #losses;
  readonly #options: VerifyOptions;
  readonly #counts = { missing: 0, damaged: 0, unknown: 0, lost: 0 };
  /** A bit for each row whose object is there. */
  readonly #there: Uint8Array;
  readonly #last: number;
  readonly #total: number;
  /** Objects without a row. */
  readonly #unknown: Place[] = [];
  #frames = 0;
  #bytes = 0;

  constructor(reader: BucketReader, database: Database, options: VerifyOptions) {
    this.#reader = reader;
    this.#options = options;
    const columns = "id, stream, source, name, bytes, crc32";
    this.#find = database.query<Row, [string, string, string]>(
      `SELECT ${columns} FROM frames WHERE stream = ? AND source = ? AND name = ?`,
    );
    this.#page = database.query<Row, [number, number]>(
      `SELECT ${columns} FROM frames WHERE id > ? AND id <= ? ORDER BY id LIMIT ${pageSize}`,
    );
    this.#losses = database.query<LossRow, []>(
      "SELECT stream, source, first, last, reason FROM losses ORDER BY rowid",
    );
    const { total, last } = database
      .query<{ total: number; last: number | null }, []>(
        "SELECT count(*) AS total, max(id) AS last FROM frames",
      )
      .get()!;
    this.#total = total;
    this.#last = last ?? 0;
    this.#there = new Uint8Array((this.#last >> 3) + 1);
  }

  async run(): Promise<Verification> {
    for await (const page of this.#reader.s3.list("")) {
      const frames = page.filter(({ key }) => !key.startsWith("."));
      await forEachOf(frames, readAtOnce, (object) => this.#check(object));
      this.#options.onProgress?.(this.#state);
    }
    this.#findMissing();
    await this.#findUnknown();
    this.#findLost();
    return { ...this.#counts, ...this.#state, rebuilt: undefined };
  }

  get #state() {
    return { total: this.#total, frames: this.#frames, bytes: this.#bytes };
  }

  #found(
    kind: Finding["kind"],
    { stream, source }: Pick<Place, "stream" | "source">,
    what: string,
    why: string,
  ) {
    this.#counts[kind]++;
    this.#options.onFinding?.({ kind, stream, source, what, why });
  }

  async #check({ key, size }: ListedObject): Promise<void> {
    const place = placeOf(key);
    const row = this.#find.get(place.stream, place.source, place.name);
    if (row === null) return void this.#unknown.push(place);
    // It came while this was running.
    if (row.id > this.#last) return;
    this.#there[row.id >> 3]! |= 1 << (row.id & 7);
    this.#frames++;
    this.#bytes += row.bytes;
    if (size !== row.bytes) {
      return this.#found("damaged", row, key, `it has ${size} bytes, not ${row.bytes}`);
    }
    const response = await this.#reader.s3.get(key, size);
    if (response === undefined) return void this.#clear(row);
    let crc = 0;
    for await (const chunk of response.body ?? []) crc = crc32(chunk, crc);
    if (crc !== row.crc32) this.#found("damaged", row, key, "its bytes are not those that came");
  }

  /** It was removed while this was running. */
  #clear({ id, bytes }: Row): void {
    this.#there[id >> 3]! &= ~(1 << (id & 7));
    this.#frames--;
    this.#bytes -= bytes;
  }

  #findMissing(): void {
    for (let last = 0, rows; (rows = this.#page.all(last, this.#last)).length > 0;) {
      for (const row of rows) {
        last = row.id;
        if ((this.#there[row.id >> 3]! & (1 << (row.id & 7))) !== 0) continue;
        this.#frames++;
        this.#bytes += row.bytes;
        if (this.#options.ignoreMissing === true) continue;
        const path = pathOfFrame(row.stream, row.source, row.name);
        this.#found("missing", row, path, "it is in the journal, but not there");
      }
    }
  }

  /** A node writes a frame just before its row. */
  async #findUnknown(): Promise<void> {
    if (this.#unknown.length > 0) await this.#reader.readOn();
    for (const place of this.#unknown) {
      const { stream, source, name } = place;
      if (this.#find.get(stream, source, name) !== null) continue;
      this.#found("unknown", place, pathOfFrame(stream, source, name), "it is not in the journal");
    }
  }

  #findLost(): void {
    for (const { stream, source, first, last, reason } of this.#losses.iterate()) {
      const numbers = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
      this.#found("lost", { stream, source }, `${stream}/${source}, ${numbers}`, reason);
    }
  }
}

/** `STREAM/NAME` or `STREAM/SOURCE/NAME`. */
function placeOf(key: string): Place {
  const parts = key.split("/");
  const stream = parts[0]!;
  const source = parts.length > 2 ? parts.slice(1, -1).join("/") : stream;
  return { stream, source, name: parts.at(-1)! };
}
