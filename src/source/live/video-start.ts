/** Leaves out the first pictures of a live stream that was joined between two key frames. */
import { pictureKind, type VideoCodec } from "../../video/nal-units.ts";
import { keyFrameAdvice, type OnNotice } from "./encoded-video.ts";

/** Pictures left out at most. A stream without any key frame is delivered after that many. */
const maxSkipped = 300;

/** Pictures after which it is told that a key frame is awaited. */
const toldAfter = 100;

export class VideoStart {
  readonly #codec: VideoCodec;
  readonly #onNotice: OnNotice;
  #hasBegun = false;
  #skipped = 0;

  constructor(codec: VideoCodec, onNotice: OnNotice) {
    this.#codec = codec;
    this.#onNotice = onNotice;
  }

  /** Returns whether an access unit is left out, since no decoder can begin with it. */
  skips(unit: Uint8Array): boolean {
    if (this.#hasBegun) return false;
    // The first bytes may also be the rest of a picture.
    const isBeginning = pictureKind(unit, this.#codec)?.recoveryCount !== undefined;
    this.#hasBegun = isBeginning || this.#skipped === maxSkipped;
    if (!this.#hasBegun) {
      if (++this.#skipped === toldAfter) {
        this.#onNotice(`no key frame came in its first ${toldAfter} pictures: ${keyFrameAdvice}`);
      }
      return true;
    }
    if (!isBeginning) {
      this.#onNotice(`${maxSkipped} pictures are left out: no key frame came`);
    } else if (this.#skipped > 0) {
      const count = this.#skipped === 1 ? "1 picture is" : `${this.#skipped} pictures are`;
      this.#onNotice(`${count} left out: they came before a key frame and cannot be decoded`);
    }
    return false;
  }
}
