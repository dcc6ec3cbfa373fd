/** Reads the journal of a bucket while other nodes serve the bucket. */
import { LogSync } from "./log-sync.ts";
import { readStoreMarker } from "./marker.ts";
import { LocalIndex } from "./local-index.ts";
import { type BucketLocation, S3 } from "./s3.ts";

export class BucketSnapshot {
  readonly s3: S3;
  /** Local copy of the bucket's journal. */
  readonly localIndex: LocalIndex;
  readonly #logSync: LogSync;

  private constructor(s3: S3, identity: string) {
    this.s3 = s3;
    this.localIndex = new LocalIndex(identity);
    this.#logSync = new LogSync(s3, this.localIndex);
  }

  /**
   * Reads the journal of the store in a bucket.
   *
   * @throws {FramesError} `missing` if there is no store, `store` if it cannot be read
   */
  static async open(location: BucketLocation): Promise<BucketSnapshot> {
    const s3 = await S3.open(location);
    const snapshot = new BucketSnapshot(s3, await readStoreMarker(s3));
    try {
      await snapshot.refresh();
      return snapshot;
    } catch (error) {
      snapshot.close();
      throw error;
    }
  }

  /**
   * Reads log objects and segments that were added since.
   *
   * @throws {FramesError} `store`
   */
  refresh(): Promise<void> {
    return this.#logSync.sync();
  }

  /** Places of damaged lines in the bucket's journal. */
  get damagedLines(): readonly string[] {
    return this.#logSync.damagedLines;
  }

  close(): void {
    this.s3.close();
    this.localIndex.close();
  }
}
