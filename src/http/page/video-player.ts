/** Decodes the access units of one video with WebCodecs, in order. */
/// <reference lib="dom" />
import { nalUnits, pictureKind, sequenceTypes, type VideoCodec } from "../../video/nal-units.ts";
import { withoutEmulation } from "../../video/recovery-point.ts";

/** Access units after which one without a picture counts as left out by the decoder. */
const maxReordered = 16;

/** Time in ms that a picture may take after the decoder has got its access unit. */
const outputTimeoutMs = 100;

/** An access unit whose picture has not come. */
interface PendingUnit {
  resolve(frame: VideoFrame | undefined): void;
  reject(error: Error): void;
}

export class VideoPlayer {
  readonly codec: VideoCodec;
  #decoder: VideoDecoder | undefined;
  /** Codec string that the decoder is configured for. */
  #configured = "";
  /** By timestamp, in order. */
  readonly #pending = new Map<number, PendingUnit>();
  #lastTimestamp = 0;
  /** Whether only a key frame can be decoded next. */
  #isWaiting = true;
  /** The access units that wait for the check of the codec before them. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(codec: VideoCodec) {
    this.codec = codec;
  }

  /**
   * Decodes an access unit. They are decoded in the order of calls, from a key frame on.
   *
   * @returns its picture, which the caller must close. Undefined if there is none.
   * @throws {Error} with a message for the user if this browser cannot decode it
   */
  decode(bytes: Uint8Array): Promise<VideoFrame | undefined> {
    const begun = this.#queue.then(() => this.#begin(bytes));
    this.#queue = begun.catch(() => {});
    // The next one does not wait for this picture.
    return begun.then(({ picture }) => picture);
  }

  /** Waits until pictures that the decoder holds back have come. A key frame must follow. */
  async flush(): Promise<void> {
    await this.#queue;
    this.#isWaiting = true;
    await this.#decoder?.flush().catch(() => {});
    this.#resolveAll();
  }

  /** Waits for a picture; flushes if the decoder holds it back. Returns whether it had to. */
  async settle(picture: Promise<unknown>): Promise<boolean> {
    const timer = new Promise<true>((resolve) => setTimeout(() => resolve(true), outputTimeoutMs));
    const isHeldBack = await Promise.race([picture.then(() => false), timer]);
    if (isHeldBack) await this.flush();
    return isHeldBack;
  }

  close(): void {
    this.#resolveAll();
    if (this.#decoder?.state !== "closed") this.#decoder?.close();
    this.#decoder = undefined;
    this.#configured = "";
    this.#isWaiting = true;
  }

  /** Passes an access unit to the decoder. Returns the promise in an object, to not wait for it. */
  async #begin(bytes: Uint8Array): Promise<{ picture: Promise<VideoFrame | undefined> }> {
    const nothing = { picture: Promise.resolve(undefined) };
    const kind = pictureKind(bytes, this.codec);
    if (kind === undefined) return nothing;
    const name = codecName(bytes, this.codec);
    if (name !== undefined && name !== this.#configured) await this.#configure(name);
    const isKey = kind.isKey || (this.#isWaiting && kind.recoveryCount !== undefined);
    const decoder = this.#decoder;
    if (decoder === undefined || (this.#isWaiting && !isKey)) return nothing;
    this.#isWaiting = false;
    const timestamp = ++this.#lastTimestamp;
    const picture = new Promise<VideoFrame | undefined>((resolve, reject) => {
      this.#pending.set(timestamp, { resolve, reject });
    });
    // A rejection may come before the caller waits.
    picture.catch(() => {});
    const type = isKey ? "key" : "delta";
    decoder.decode(new EncodedVideoChunk({ type, timestamp, data: bytes }));
    return { picture };
  }

  async #configure(name: string): Promise<void> {
    this.close();
    const config: VideoDecoderConfig = { codec: name, optimizeForLatency: true };
    const isSupported = typeof VideoDecoder !== "undefined" && (await isConfigSupported(config));
    if (!isSupported) throw new Error(unsupportedMessage(this.codec));
    const decoder = new VideoDecoder({
      output: (frame) => this.#onPicture(frame),
      error: () => this.#onError(decoder),
    });
    decoder.configure(config);
    this.#decoder = decoder;
    this.#configured = name;
  }

  #onPicture(frame: VideoFrame): void {
    const pending = this.#pending.get(frame.timestamp);
    if (pending === undefined) return frame.close();
    this.#pending.delete(frame.timestamp);
    pending.resolve(frame);
    for (const [timestamp, { resolve }] of this.#pending) {
      if (timestamp >= frame.timestamp - maxReordered) break;
      this.#pending.delete(timestamp);
      resolve(undefined);
    }
  }

  /** The decoder is closed by an error. The next key frame makes a new one. */
  #onError(decoder: VideoDecoder): void {
    if (decoder !== this.#decoder) return;
    for (const { reject } of this.#pending.values()) reject(new Error("The video is damaged"));
    this.#pending.clear();
    this.#decoder = undefined;
    this.#configured = "";
    this.#isWaiting = true;
  }

  #resolveAll(): void {
    for (const { resolve } of this.#pending.values()) resolve(undefined);
    this.#pending.clear();
  }
}

async function isConfigSupported(config: VideoDecoderConfig): Promise<boolean> {
  try {
    return (await VideoDecoder.isConfigSupported(config)).supported === true;
  } catch {
    // The codec string is not known at all.
    return false;
  }
}

/** Returns why a page cannot show a video. Browsers have WebCodecs only over https and on localhost. */
function unsupportedMessage(codec: VideoCodec): string {
  const name = codec === "h264" ? "H.264" : "H.265";
  return isSecureContext
    ? `This browser cannot decode ${name}; latest.mjpeg shows it if the server has ffmpeg`
    : `Browsers decode ${name} only over https: or on the server itself`;
}

/**
 * Returns the codec string of a key frame by its sequence parameter set (RFC 6381, ISO/IEC 14496-15
 * annex E). Undefined if it has none.
 */
export function codecName(bytes: Uint8Array, codec: VideoCodec): string | undefined {
  for (const { header, end, type } of nalUnits(bytes, codec)) {
    if (type !== sequenceTypes[codec]) continue;
    const set = withoutEmulation(bytes.subarray(header, Math.min(end, header + 32)));
    return codec === "h264" ? avcName(set) : hevcName(set);
  }
  return undefined;
}

function avcName(set: Uint8Array): string | undefined {
  if (set.length < 4) return undefined;
  return `avc1.${[...set.subarray(1, 4)].map(toHex).join("")}`;
}

/** The profile begins after the header of two bytes and one byte of other fields. */
function hevcName(set: Uint8Array): string | undefined {
  if (set.length < 15) return undefined;
  const [first, ...rest] = [...set.subarray(3, 15)] as [number, ...number[]];
  const space = ["", "A", "B", "C"][first >> 6]!;
  const tier = (first & 0x20) === 0 ? "L" : "H";
  let flags = 0;
  for (let bit = 0; bit < 32; bit++) {
    flags = flags * 2 + ((rest[3 - (bit >> 3)]! >> (bit & 7)) & 1);
  }
  const constraints = rest.slice(4, 10);
  while (constraints.at(-1) === 0) constraints.pop();
  const parts = [`hev1.${space}${first & 0x1f}`, flags.toString(16), `${tier}${rest[10]}`];
  return [...parts, ...constraints.map(toHex)].join(".");
}

function toHex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}
