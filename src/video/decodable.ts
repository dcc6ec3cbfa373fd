/** Chooses the frames of a source that a decoder can take one after the other. */
import { pictureKind, type VideoCodec } from "./nal-units.ts";
import { PictureGate } from "./picture-gate.ts";

/**
 * Leaves out frames that cannot be decoded: those before the first key frame or recovery point, those
 * after a hole up to the next one, and leading pictures that need what was left out.
 */
export class DecodableFilter {
  readonly #codec: VideoCodec;
  readonly #gate = new PictureGate();
  /** Sequence number of the last frame that was passed. Resumed sessions count on. */
  #last: number | undefined;
  /** Frames left out. */
  skipped = 0;
  /** Accepted frames that may be damaged, because a decoder began at a recovery point. */
  maybeDamaged = 0;

  constructor(codec: VideoCodec) {
    this.#codec = codec;
  }

  /** Returns whether the decoder can take the frame. Frames are passed in order of arrival. */
  accepts(sequence: number, bytes: Uint8Array): boolean {
    if (this.#last === undefined || sequence !== this.#last + 1) this.#gate.close();
    this.#last = sequence;
    const kind = pictureKind(bytes, this.#codec);
    const isAccepted = kind !== undefined && this.#gate.admits(kind.isKey, () => kind);
    if (!isAccepted) this.skipped++;
    else if (this.#gate.isUnsure) this.maybeDamaged++;
    return isAccepted;
  }

  /** Requires a key frame next, because frames were left out on purpose. */
  restart(): void {
    this.#last = undefined;
  }
}
