/** Frames that a program passes to the library as an iterable. */
import { toNanoseconds } from "../../common/clock.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../../frame.ts";
import { codecOf, isKeyHead } from "../../video/picture-head.ts";
import type { EncodedVideo } from "./encoded-video.ts";

/** A frame captured by a program. */
export interface CapturedFrame {
  /** Content to store. Must not change until the server has it. */
  readonly bytes: Uint8Array;
  /** File name. Default: composed of the session's start and the frame's number. */
  readonly name?: string;
  /**
   * File name extension for a frame without a name, such as `jpg`. Default: detected from the first
   * bytes.
   */
  readonly extension?: string;
  /** Capture time in nanoseconds since 1970. Default: when the program passes the frame. */
  readonly captured?: bigint;
  /** Any data to store with the frame, at most 4 KiB as JSON. */
  readonly metadata?: Record<string, unknown>;
  /** Its shape if it is raw. Default: the shape of its source, if that has one. */
  readonly raw?: RawShape;
}

/** A frame that a camera or a file had and that cannot be read. It is reported as lost. */
export interface LostCapture {
  readonly error: FramesError;
  readonly name?: string;
}

/** What a source of images yields, in the order of capture. */
export type Capture = CapturedFrame | LostCapture;

/** Defaults for frames without a name or a capture time. */
export interface CaptureDefaults {
  /** Start of the session, in milliseconds since 1970. */
  readonly started: number;
  /** Returns the wall clock time, in milliseconds since 1970. */
  readonly clock: () => number;
}

/** What the frames of one source have in common. */
export interface CaptureSettings extends CaptureDefaults {
  /** Checks its frames if they are encoded video. */
  readonly video?: EncodedVideo;
}

/** Takes frames from an iterable, each when there is room to send it. */
export class IterableSource implements FrameSource {
  readonly name: string;
  readonly type: string | undefined;
  readonly #iterator: AsyncIterator<Capture> | Iterator<Capture>;
  readonly #settings: CaptureSettings;
  #sequence = 0;

  constructor(
    name: string,
    frames: AsyncIterable<Capture> | Iterable<Capture>,
    settings: CaptureSettings,
  ) {
    this.name = name;
    this.type = settings.video?.type;
    this.#iterator = toIterator(frames);
    this.#settings = settings;
  }

  get capturedCount(): number {
    return this.#sequence;
  }

  async next(): Promise<Frame | Loss | undefined> {
    const { done, value } = await this.#iterator.next();
    return done === true ? undefined : toFrame(value, ++this.#sequence, this.#settings);
  }

  retry(frame: Frame, error: FramesError): Loss {
    return { first: frame.sequence, last: frame.sequence, what: frame.name, error };
  }

  close(): void {
    closeIterator(this.#iterator);
  }
}

/** Returns the iterator of a synchronous or asynchronous iterable. */
export function toIterator(
  frames: AsyncIterable<Capture> | Iterable<Capture>,
): AsyncIterator<Capture> | Iterator<Capture> {
  return Symbol.asyncIterator in frames
    ? frames[Symbol.asyncIterator]()
    : frames[Symbol.iterator]();
}

/** Asks an iterator to end. Does not wait for it, and ignores its errors. */
export function closeIterator(iterator: AsyncIterator<Capture> | Iterator<Capture>): void {
  void (async () => iterator.return?.())().catch(() => {});
}

/** Converts a captured frame to a `Frame`. Returns a loss if the frame is lost or invalid. */
export function toFrame(
  value: Capture,
  sequence: number,
  { started, clock, video }: CaptureSettings,
): Frame | Loss {
  try {
    if ("error" in value) throw value.error;
    const frame = new MemoryFrame(value, sequence, clock(), (bytes) => {
      const extension = value.extension ?? video?.codec ?? detectExtension(bytes);
      return defaultFrameName(started, sequence, extension);
    });
    if (video !== undefined) frame.isKey = video.checkKey(value.bytes, frame.captured);
    else frame.isKey = isKeyNamed(frame.name, value.bytes);
    return frame;
  } catch (error) {
    return {
      first: sequence,
      last: sequence,
      what: typeof value?.name === "string" ? value.name : `frame ${sequence}`,
      error: asFramesError(error, "unreadable"),
    };
  }
}

/** Tells key frames of a program that names its frames as encoded video. */
function isKeyNamed(name: string, bytes: Uint8Array): boolean | undefined {
  const codec = codecOf(undefined, name);
  return codec === undefined ? undefined : (isKeyHead(bytes, codec) ?? false);
}

class MemoryFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly raw: RawShape | undefined;
  isKey: boolean | undefined;
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
    this.captured = frame.captured ?? toNanoseconds(nowMs);
    this.size = frame.bytes.length;
    this.raw = frame.raw;
    this.metadata = frame.metadata === undefined ? "" : JSON.stringify(frame.metadata);
    const bytes = Buffer.byteLength(this.metadata);
    if (bytes > 4096) {
      throw new FramesError("unreadable", `its metadata has ${bytes} bytes, the limit is 4096`);
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

/**
 * Checks what the program passed, so that values the protocol cannot express are not silently
 * altered.
 */
function validateFrame({ bytes, name, extension, captured }: CapturedFrame): void {
  let problem: string | undefined;
  if (!(bytes instanceof Uint8Array)) problem = "bytes is not a Uint8Array";
  else if (name !== undefined && (typeof name !== "string" || !isFrameName(name))) {
    problem = `the name ${JSON.stringify(name)} is not valid`;
  } else if (extension !== undefined && !/^[a-z0-9][a-z0-9_.]{0,99}$/i.test(extension)) {
    problem = `the extension ${JSON.stringify(extension)} is not valid`;
  } else if (captured !== undefined && (typeof captured !== "bigint" || !isInt64(captured))) {
    problem = `captured is ${String(captured)}, expected nanoseconds as a bigint of 64 bits`;
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

/**
 * Returns a name such as `20261122T071203.123Z-00000042.jpg`: unique across restarts and sortable.
 */
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

/** Returns the file name extension for the first bytes of a frame, or `bin`. */
function detectExtension(bytes: Uint8Array): string {
  const start = bytes.subarray(0, 8).toHex();
  return fileSignatures.find(([magic]) => start.startsWith(magic))?.[1] ?? "bin";
}
