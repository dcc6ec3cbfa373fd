/** Chooses the frames of a source that a decoder can take one after the other. */
import { pictureKind, type VideoCodec } from "./nal-units.ts";

/**
 * Leaves out frames that cannot be decoded: those before the first key frame, those after a hole up
 * to the next key frame, and leading pictures that need what was left out.
 */
export class DecodableFilter {
  readonly #codec: VideoCodec;
  /** Sequence number of the last frame that was passed. Resumed sessions count on. */
  #last: number | undefined;
  #isWaiting = true;
  /** Whether no picture has followed the key frame with which decoding began. */
  #isAtStart = false;
  /** Frames left out. */
  skipped = 0;

  constructor(codec: VideoCodec) {
    this.#codec = codec;
  }

  /** Whether only a key frame can be taken. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /** Returns whether the decoder can take the frame. Frames are passed in order of arrival. */
  accepts(sequence: number, bytes: Uint8Array): boolean {
    if (this.#last === undefined || sequence !== this.#last + 1) this.#isWaiting = true;
    this.#last = sequence;
    const isAccepted = this.#isDecodable(bytes);
    if (!isAccepted) this.skipped++;
    return isAccepted;
  }

  #isDecodable(bytes: Uint8Array): boolean {
    const kind = pictureKind(bytes, this.#codec);
    if (kind === undefined) return false;
    if (kind.isKey) {
      this.#isAtStart ||= this.#isWaiting;
      this.#isWaiting = false;
      return true;
    }
    if (this.#isWaiting || (this.#isAtStart && kind.isSkippedLeading)) return false;
    this.#isAtStart = false;
    return true;
  }

  /** Requires a key frame next, because frames were left out on purpose. */
  restart(): void {
    this.#last = undefined;
    this.#isWaiting = true;
  }
}
