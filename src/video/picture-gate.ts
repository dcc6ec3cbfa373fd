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
  /** Pictures that may still be damaged, since decoding began without a key frame. */
  #unsureLeft = 0;
  #isUnsure = false;

  /** Whether the picture that was admitted last may be damaged. */
  get isUnsure(): boolean {
    return this.#isUnsure;
  }

  /** Whether it waits for a key frame. */
  get isClosed(): boolean {
    return this.#isWaiting;
  }

  /** Whether what was dropped before concerns none of the pictures that follow. */
  get isPassed(): boolean {
    return !this.#isWaiting && !this.#isAtStart && this.#unsureLeft === 0;
  }

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
    this.#isUnsure = false;
    if (isKey === true) {
      if (this.#isWaiting) this.restart();
      this.#unsureLeft = 0;
      return true;
    }
    if (this.#isWaiting) {
      const recoveryCount = readKind()?.recoveryCount;
      this.#isWaiting = recoveryCount === undefined && ++this.#heldBack <= maxHeldBack;
      if (this.#isWaiting) return false;
      this.#unsureLeft = recoveryCount ?? Infinity;
    } else if (this.#isAtStart) {
      this.#isAtStart = readKind()?.isSkippedLeading === true;
      if (this.#isAtStart) return false;
    }
    this.#isUnsure = this.#unsureLeft > 0;
    if (this.#isUnsure) this.#unsureLeft--;
    return true;
  }
}
