/** Writes received frames to standard output, as fast as it is read. */
import { write, writev } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { ReceivedFrame } from "../../client/callback-sink.ts";

/** Standard output. */
const stdoutFd = 1;

/** What a part begins with. */
const partBoundary = "--frame";

export class StdoutFrames {
  readonly #isMultipart: boolean;
  readonly #closing = new AbortController();

  /** @param isMultipart whether facts come before each frame */
  constructor(isMultipart: boolean) {
    this.#isMultipart = isMultipart;
  }

  /** Aborted when nobody reads any more. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Resolves when the frame is written.
   *
   * @throws {FramesError} `store` if it cannot be written
   */
  async write(frame: ReceivedFrame): Promise<void> {
    const parts = this.#isMultipart
      ? [partHeader(frame), frame.bytes, Buffer.from("\r\n")]
      : [frame.bytes];
    let remaining = parts.filter(({ length }) => length > 0);
    while (remaining.length > 0 && !this.closed.aborted) {
      try {
        remaining = skipBytes(remaining, await writeSome(remaining));
      } catch (error) {
        const code = systemCode(error);
        // A pipe that another process made non-blocking is full: its reader needs a moment.
        if (code === "EAGAIN") await Bun.sleep(1);
        else if (code === "EPIPE") this.#closing.abort();
        else throw new FramesError("store", `Cannot write the output: ${systemSentence(error)}`);
      }
    }
  }
}

/** Facts, a line each. */
function partHeader(frame: ReceivedFrame): Buffer {
  const { source, sequence, captured, name, session, bytes, raw, metadata } = frame;
  const nanoseconds = String(captured < 0n ? -captured : captured).padStart(10, "0");
  const seconds = `${nanoseconds.slice(0, -9)}.${nanoseconds.slice(-9)}`;
  const lines = [
    partBoundary,
    `Content-Length: ${bytes.length}`,
    `X-Source: ${source}`,
    `X-Sequence: ${sequence}`,
    `X-Captured: ${captured}`,
    `X-Timestamp: ${captured < 0n ? "-" : ""}${seconds}`,
    `X-Name: ${name}`,
    `X-Session: ${session}`,
  ];
  if (raw !== undefined) lines.push(`X-Raw: ${raw.width}x${raw.height}:${raw.format}`);
  // JSON as text may have lines.
  if (metadata !== "") lines.push(`X-Metadata: ${JSON.stringify(JSON.parse(metadata))}`);
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n`);
}

/** Writes in another thread: a pipe that nobody reads holds up nothing else. */
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

/** What is left of `parts` behind so many bytes. */
function skipBytes(parts: readonly Uint8Array[], written: number): Uint8Array[] {
  let bytesToSkip = written;
  return parts.flatMap((part) => {
    const cut = part.subarray(Math.min(bytesToSkip, part.length));
    bytesToSkip -= part.length - cut.length;
    return cut.length > 0 ? [cut] : [];
  });
}
