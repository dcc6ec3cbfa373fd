/** Leaves out the first pictures of a live stream that was joined between two key frames. */
import { pictureKind, type VideoCodec } from "../../video/nal-units.ts";
import type { OnNotice } from "./notices.ts";

/** Pictures left out at most. A stream without any key frame is delivered after that many. */
const maxSkipped = 300;

export class VideoStart {
  readonly #codec: VideoCodec;
  readonly #onNotice: OnNotice;
  #hasBegun = false;
  #skipped = 0;

  constructor(codec: VideoCodec, onNotice: OnNotice) {
    this.#codec = codec;
    this.#onNotice = onNotice;
  }

  /** Returns whether a picture is left out, since no decoder can begin with it. */
  skips(unit: Uint8Array): boolean {
    if (this.#hasBegun) return false;
    const kind = pictureKind(unit, this.#codec);
    // Bytes that are no picture are reported as lost.
    if (kind === undefined) return false;
    this.#hasBegun = kind.isRecoveryPoint || this.#skipped === maxSkipped;
    if (!this.#hasBegun) {
      this.#skipped++;
      return true;
    }
    if (this.#skipped > 0) {
      const count = this.#skipped === 1 ? "1 picture is" : `${this.#skipped} pictures are`;
      this.#onNotice(`${count} left out: they came before a key frame and cannot be decoded`);
    }
    return false;
  }
}
