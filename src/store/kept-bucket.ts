/** What a bucket gives back. */
import { Catalog } from "./catalog.ts";
import type { Follower } from "./follower.ts";
import type { JournalFollower } from "./journal.ts";
import type { KeptFrames, StoredUnder } from "./kept.ts";
import type { Mirror } from "./mirror.ts";
import type { S3 } from "./s3.ts";
import { pathOfFrame } from "./tree.ts";

export class KeptBucket implements KeptFrames {
  readonly place: string;
  readonly #s3: S3;
  readonly #mirror: Mirror;
  readonly #follower: Follower;

  constructor(s3: S3, mirror: Mirror, follower: Follower) {
    this.place = s3.place;
    this.#s3 = s3;
    this.#mirror = mirror;
    this.#follower = follower;
  }

  openCatalog(): Catalog {
    return new Catalog(this.#mirror.path);
  }

  follow(follower: JournalFollower | undefined): void {
    this.#mirror.follow(follower);
  }

  /** Read from the bucket when it is asked for its bytes. */
  bytesOf({ stream, source, name }: StoredUnder): Blob {
    return this.#s3.blob(pathOfFrame(stream, source, name));
  }

  readonly fetch = ({ stream, source, name, size }: StoredUnder): Promise<Response | undefined> => {
    return this.#s3.get(pathOfFrame(stream, source, name), size);
  };

  /** What the engine has is known to whoever runs it. */
  space(): undefined {
    return undefined;
  }

  checkReady(): void {
    if (this.#follower.trouble !== undefined) throw this.#follower.trouble;
  }
}
