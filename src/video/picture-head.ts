/** Tells key frames of encoded video by the first bytes of their access units. */
import { codecOfType, pictureKind, type VideoCodec } from "./nal-units.ts";

/**
 * Bytes that precede the first slice of a picture at most: parameter sets and supplemental
 * information. A picture with more is taken for no key frame.
 */
export const maxHeadBytes = 16 << 10;

/**
 * Returns the codec of a frame; `undefined` if it is no picture of encoded video.
 *
 * @param type media type of its source. Without one, as earlier servers send it, the name decides.
 */
export function codecOf(type: string | undefined, name: string): VideoCodec | undefined {
  if (type !== undefined) return codecOfType(type);
  if (name.endsWith(".h264")) return "h264";
  return name.endsWith(".h265") ? "h265" : undefined;
}

/** Returns whether an access unit is a key frame; `undefined` while more bytes have to tell. */
export function isKeyHead(head: Uint8Array, codec: VideoCodec): boolean | undefined {
  const isKey = pictureKind(head.subarray(0, maxHeadBytes), codec)?.isKey;
  return isKey ?? (head.length < maxHeadBytes ? undefined : false);
}

/** Keeps the first bytes of an access unit until they tell whether it is a key frame. */
export class PictureHead {
  readonly #codec: VideoCodec;
  #bytes = new Uint8Array(0);

  constructor(codec: VideoCodec) {
    this.#codec = codec;
  }

  /** Copy of the bytes that did not tell. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Returns whether the picture is a key frame; `undefined` if the bytes were kept instead. */
  push(bytes: Uint8Array): boolean | undefined {
    const isFirst = this.#bytes.length === 0;
    const head = isFirst ? bytes : Buffer.concat([this.#bytes, bytes.subarray(0, maxHeadBytes)]);
    const isKey = isKeyHead(head, this.#codec);
    if (isKey === undefined) this.#bytes = new Uint8Array(head);
    return isKey;
  }
}
