/** Read side of a store in a bucket. */
import type { LogSync } from "./log-sync.ts";
import type { StoreContents, FrameLocation, JournalListener } from "../store-contents.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";
import { framePath } from "../paths.ts";

export class BucketContents implements StoreContents {
  readonly location: string;
  readonly #s3: S3;
  readonly #localIndex: LocalIndex;
  readonly #logSync: LogSync;

  constructor(s3: S3, localIndex: LocalIndex, logSync: LogSync) {
    this.location = s3.location;
    this.#s3 = s3;
    this.#localIndex = localIndex;
    this.#logSync = logSync;
  }

  get journalPath(): string {
    return this.#localIndex.path;
  }

  setJournalListener(listener: JournalListener | undefined): void {
    this.#localIndex.setListener(listener);
  }

  /**
   * Returns a blob that is read from the bucket on demand. A missing object fails only then. Of an
   * object that is larger than its row says, one byte more is read.
   */
  blob({ stream, source, name, size }: FrameLocation): Blob {
    // An engine refuses a range of an empty object.
    if (size === 0) return new Blob();
    return this.#s3.blob(framePath(stream, source, name)).slice(0, size + 1);
  }

  readonly fetch = ({
    stream,
    source,
    name,
    size,
  }: FrameLocation): Promise<Response | undefined> => {
    return this.#s3.get(framePath(stream, source, name), size);
  };

  /** An S3 engine reports no free space, so the limit is unknown. */
  diskSpace(): undefined {
    return undefined;
  }

  checkReady(): void {
    if (this.#logSync.lastError !== undefined) throw this.#logSync.lastError;
  }
}
