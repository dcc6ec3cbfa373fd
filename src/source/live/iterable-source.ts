/** Frames that a program hands over one by one: the library's way in. */
import { asFramesError, FramesError } from "../../errors.ts";
import type { Frame, FrameSource, Loss } from "../../frame.ts";

/** A frame as a program has it. */
export interface CapturedFrame {
  /** The frame as it is to be stored. It must not change before the server has it. */
  readonly bytes: Uint8Array;
  /** File name; without one the frame is called after its session's start and its number. */
  readonly name?: string;
  /** What the name of a frame without one ends with, such as `jpg`; without it, what its bytes tell. */
  readonly extension?: string;
  /** Capture time in nanoseconds since 1970; without it, when the frame was handed over. */
  readonly captured?: bigint;
  /** Whatever is to be kept beside the frame: at most 4 KiB as JSON. */
  readonly metadata?: Record<string, unknown>;
}

/** How frames without names are called, and without capture times dated. */
export interface CaptureDefaults {
  /** The session's start, in milliseconds since 1970. */
  readonly started: number;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
}

/** A source of frames that a program makes: it is asked for the next one when there is room for it. */
export class IterableSource implements FrameSource {
  readonly name: string;
  readonly #iterator: AsyncIterator<CapturedFrame> | Iterator<CapturedFrame>;
  readonly #defaults: CaptureDefaults;
  #sequence = 0;

  constructor(
    name: string,
    frames: AsyncIterable<CapturedFrame> | Iterable<CapturedFrame>,
    defaults: CaptureDefaults,
  ) {
    this.name = name;
    this.#iterator = toIterator(frames);
    this.#defaults = defaults;
  }

  get capturedCount(): number {
    return this.#sequence;
  }

  async next(): Promise<Frame | Loss | undefined> {
    const { done, value } = await this.#iterator.next();
    return done === true ? undefined : toFrame(value, ++this.#sequence, this.#defaults);
  }

  retry(frame: Frame, error: FramesError): Loss {
    return { first: frame.sequence, last: frame.sequence, what: frame.name, error };
  }

  close(): void {
    closeIterator(this.#iterator);
  }
}

/** The iterator of what a program hands over. */
export function toIterator(
  frames: AsyncIterable<CapturedFrame> | Iterable<CapturedFrame>,
): AsyncIterator<CapturedFrame> | Iterator<CapturedFrame> {
  return Symbol.asyncIterator in frames
    ? frames[Symbol.asyncIterator]()
    : frames[Symbol.iterator]();
}

/** Tells an iterator to end: what it does then is its own affair, its failure included. */
export function closeIterator(
  iterator: AsyncIterator<CapturedFrame> | Iterator<CapturedFrame>,
): void {
  void (async () => iterator.return?.())().catch(() => {});
}

/** What a program handed over as a frame; a loss if it cannot be one. */
export function toFrame(
  value: CapturedFrame,
  sequence: number,
  { started, clock }: CaptureDefaults,
): Frame | Loss {
  try {
    return new MemoryFrame(value, sequence, clock(), (bytes) =>
      defaultFrameName(started, sequence, value.extension ?? detectExtension(bytes)),
    );
  } catch (error) {
    return {
      first: sequence,
      last: sequence,
      what: typeof value?.name === "string" ? value.name : `frame ${sequence}`,
      error: asFramesError(error, "unreadable"),
    };
  }
}

class MemoryFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly #bytes: Uint8Array;

  constructor(
    frame: CapturedFrame,
    sequence: number,
    nowMs: number,
    defaultName: (bytes: Uint8Array) => string,
  ) {
    validateFrame(frame);
    this.sequence = sequence;
    this.#bytes = frame.bytes;
    this.name = frame.name ?? defaultName(frame.bytes);
    this.captured = frame.captured ?? BigInt(Math.round(nowMs * 1e3)) * 1000n;
    this.size = frame.bytes.length;
    this.metadata = frame.metadata === undefined ? "" : JSON.stringify(frame.metadata);
    const bytes = Buffer.byteLength(this.metadata);
    if (bytes > 4096) {
      throw new FramesError("unreadable", `its metadata is ${bytes} bytes, 4096 are the most`);
    }
  }

  read(into: Uint8Array): void {
    into.set(this.#bytes);
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    yield this.#bytes;
    return undefined;
  }
}

/** What a program hands over is checked here: what cannot be said on the wire must not become something else. */
function validateFrame({ bytes, name, extension, captured }: CapturedFrame): void {
  let problem: string | undefined;
  if (!(bytes instanceof Uint8Array)) problem = "bytes is no Uint8Array";
  else if (name !== undefined && (typeof name !== "string" || !isFrameName(name))) {
    problem = `${JSON.stringify(name)} cannot be its name`;
  } else if (extension !== undefined && !/^[a-z0-9][a-z0-9_.]{0,99}$/i.test(extension)) {
    problem = `${JSON.stringify(extension)} cannot be the ending of its name`;
  } else if (captured !== undefined && (typeof captured !== "bigint" || !isInt64(captured))) {
    problem = `captured is ${String(captured)}, not nanoseconds as a bigint of 64 bits`;
  }
  if (problem !== undefined)
    throw new FramesError("unreadable", `Cannot send the frame: ${problem}`);
}

function isFrameName(name: string): boolean {
  const length = Buffer.byteLength(name);
  return name.isWellFormed() && length >= 1 && length <= 255;
}

function isInt64(value: bigint): boolean {
  return BigInt.asIntN(64, value) === value;
}

/** `20261122T071203.123Z-00000042.jpg`: unique over restarts, and in order when sorted. */
function defaultFrameName(started: number, sequence: number, extension: string): string {
  const start = new Date(started).toISOString().replaceAll("-", "").replaceAll(":", "");
  return `${start}-${String(sequence).padStart(8, "0")}.${extension}`;
}

const fileSignatures: [string, string][] = [
  ["ffd8ff", "jpg"],
  ["89504e470d0a1a0a", "png"],
  ["424d", "bmp"],
  ["5034", "pbm"],
  ["5035", "pgm"],
  ["5036", "ppm"],
];

/** Ending of a file name by what the frame begins with. */
function detectExtension(bytes: Uint8Array): string {
  const start = bytes.subarray(0, 8).toHex();
  return fileSignatures.find(([magic]) => start.startsWith(magic))?.[1] ?? "bin";
}
