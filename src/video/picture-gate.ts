/** Tells which pictures of encoded video have to be dropped after another one was. */
import type { PictureKind } from "./nal-units.ts";

/**
 * Pictures that are held back at most while no decoder could begin with one. A stream without key
 * frames goes on after that many, although its pictures may be damaged.
 */
const maxHeldBack = 2000;

export class PictureGate {
  #isWaiting = false;
  /** Whether no other picture has followed the key frame with which decoding begins again. */
  #isAtStart = false;
  #heldBack = 0;

  /** Waits for a key frame, because a picture was dropped on which the following ones depend. */
  close(): void {
    this.#isWaiting = true;
    this.#heldBack = 0;
  }

  /** Called when the pictures before a key frame were dropped, and the key frame was not. */
  restart(): void {
    this.#isWaiting = false;
    this.#isAtStart = true;
  }

  /**
   * Returns whether a picture can be decoded. Pictures are passed in the order of decoding. A stream
   * without key frames goes on at a recovery point, where the first pictures may be damaged.
   *
   * @param readKind reads the kind from the bytes; called only after a picture was dropped
   */
  admits(isKey: boolean | undefined, readKind: () => PictureKind | undefined): boolean {
    if (!this.#isWaiting && !this.#isAtStart) return true;
    if (isKey === true) {
      this.restart();
      return true;
    }
    if (this.#isWaiting) {
      const isRecoveryPoint = readKind()?.isRecoveryPoint === true;
      this.#isWaiting = !isRecoveryPoint && ++this.#heldBack <= maxHeldBack;
      return !this.#isWaiting;
    }
    this.#isAtStart = readKind()?.isSkippedLeading === true;
    return !this.#isAtStart;
  }
}
