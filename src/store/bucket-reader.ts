/** Reads what a bucket holds, beside the nodes that serve it. */
import { Follower } from "./follower.ts";
import { checkMarker } from "./marker.ts";
import { Mirror } from "./mirror.ts";
import { type BucketPlace, S3 } from "./s3.ts";

export class BucketReader {
  readonly s3: S3;
  /** What the journal says. */
  readonly mirror: Mirror;
  readonly #follower: Follower;

  private constructor(s3: S3, identity: string) {
    this.s3 = s3;
    this.mirror = new Mirror(identity);
    this.#follower = new Follower(s3, this.mirror);
  }

  /**
   * Reads the journal of a store.
   *
   * @throws {FramesError} `missing` if there is none, `store` if it cannot be read
   */
  static async open(place: BucketPlace): Promise<BucketReader> {
    const s3 = new S3(place);
    const reader = new BucketReader(s3, await checkMarker(s3));
    try {
      await reader.readOn();
      return reader;
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  /** Reads what came meanwhile. */
  readOn(): Promise<void> {
    return this.#follower.sync();
  }

  close(): void {
    this.s3.close();
    this.mirror.close();
  }
}
