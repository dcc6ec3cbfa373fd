/** Writes received frames to standard output, at the speed of its reader. */
import { write, writev } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { ReceivedFrame } from "../../client/callback-sink.ts";
import { formatPartHeader } from "../../source/live/part-header.ts";
import { DecodableFilter } from "../../video/decodable.ts";
import { codecOf } from "../../video/picture-head.ts";

const stdoutFd = 1;

export class StdoutFrames {
  readonly #isMultipart: boolean;
  readonly #closing = new AbortController();
  /** Set for encoded video. A player can begin with a key frame only. */
  #filter: DecodableFilter | undefined;

  /** @param isMultipart writes a header before each frame: source, number, time and length */
  constructor(isMultipart: boolean) {
    this.#isMultipart = isMultipart;
  }

  /** Aborted when the reader has closed the pipe. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  /** Frames of encoded video that were not written, because no player could show them. */
  get skipped(): number {
    return this.#filter?.skipped ?? 0;
  }

  /** Written frames of encoded video that may be damaged. */
  get maybeDamaged(): number {
    return this.#filter?.maybeDamaged ?? 0;
  }

  #isDecodable({ name, sequence, bytes }: ReceivedFrame): boolean {
    const codec = codecOf(undefined, name);
    if (codec === undefined || this.#isMultipart) return true;
    this.#filter ??= new DecodableFilter(codec);
    return this.#filter.accepts(sequence, bytes);
  }

  /**
   * Writes a frame; resolves when the system has accepted all of it, or the pipe is closed.
   *
   * @throws {FramesError} `store` if it cannot be written
   */
  async write(frame: ReceivedFrame): Promise<void> {
    if (!this.#isDecodable(frame)) return;
    const parts = this.#isMultipart
      ? [Buffer.from(formatPartHeader(frame)), frame.bytes, Buffer.from("\r\n")]
      : [frame.bytes];
    let remaining = parts.filter(({ length }) => length > 0);
    while (remaining.length > 0 && !this.closed.aborted) {
      try {
        remaining = skipBytes(remaining, await writeSome(remaining));
      } catch (error) {
        const code = systemCode(error);
        // Another process has made the pipe non-blocking, and it is full: retry.
        if (code === "EAGAIN") await Bun.sleep(1);
        else if (code === "EPIPE") this.#closing.abort();
        else throw new FramesError("store", `Cannot write the output: ${systemSentence(error)}`);
      }
    }
  }
}

/** Writes in Bun's thread pool, so that a full pipe does not block the event loop. */
function writeSome(parts: readonly Uint8Array[]): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const done = (error: Error | null, written: number) => {
    if (error === null) resolve(written);
    else reject(error);
  };
  if (parts.length === 1) write(stdoutFd, parts[0]!, done);
  else writev(stdoutFd, parts, done);
  return promise;
}

/** Returns `parts` without the first `written` bytes. */
function skipBytes(parts: readonly Uint8Array[], written: number): Uint8Array[] {
  let bytesToSkip = written;
  return parts.flatMap((part) => {
    const cut = part.subarray(Math.min(bytesToSkip, part.length));
    bytesToSkip -= part.length - cut.length;
    return cut.length > 0 ? [cut] : [];
  });
}
