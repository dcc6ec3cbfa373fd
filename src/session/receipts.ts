/** What a receiver owes: receipts (SPEC section 6), and answers to offers that hold once the store is flushed. */
import { FramesError } from "../errors.ts";
import { encodeReceipt } from "../wire/encode.ts";
import { mostOffered } from "../wire/messages.ts";

/** When a receipt is due although frames keep coming. */
const receiptEvery = { milliseconds: 100, bytes: 16 << 20, frames: 1000 } as const;

export class Receipts {
  /** Answers, and the frames that they are for. */
  readonly #answers: { bytes: Uint8Array; frames: number }[] = [];
  #offered = 0;
  /** Frames that have a receipt, when the last one left, and bytes that came since. */
  #frames = 0;
  #at: number;
  #bytes = 0;

  /** @param now milliseconds, as everywhere here */
  constructor(now: number) {
    this.#at = now;
  }

  /** Frames that have a receipt. */
  get frames(): number {
    return this.#frames;
  }

  /** Answers that wait for a flush. */
  get answers(): number {
    return this.#answers.length;
  }

  /** Bytes of payload came. */
  came(bytes: number): void {
    this.#bytes += bytes;
  }

  /** @throws {FramesError} `limit` if so many frames are unsettled as may be */
  checkRoom(unsettled: number, most: number): void {
    if (unsettled < most) return;
    throw new FramesError("limit", `Cannot take another frame: ${most} are unsettled`);
  }

  /** Whether a receipt for frames that ended must leave although more may be coming in. */
  isDue(ended: number, now: number): boolean {
    const unreceipted = ended - this.#frames;
    return (
      unreceipted >= receiptEvery.frames ||
      this.#bytes >= receiptEvery.bytes ||
      (unreceipted > 0 && now - this.#at >= receiptEvery.milliseconds)
    );
  }

  /**
   * Frames were offered.
   *
   * @throws {FramesError} `limit`
   */
  offered(frames: number): void {
    this.#offered += frames;
    if (this.#offered <= mostOffered) return;
    throw new FramesError("limit", `Cannot answer more than ${mostOffered} offered frames`);
  }

  /** The answer to an offer of so many frames. */
  answer(bytes: Uint8Array, frames: number): void {
    this.#answers.push({ bytes, frames });
  }

  /** The store was flushed: the messages that say what holds now. */
  settle(frames: number, answers: number, now: number): Uint8Array[] {
    const said: Uint8Array[] = [];
    for (const answer of this.#answers.splice(0, answers)) {
      this.#offered -= answer.frames;
      said.push(answer.bytes);
    }
    if (frames <= this.#frames) return said;
    this.#frames = frames;
    this.#at = now;
    this.#bytes = 0;
    said.push(encodeReceipt(frames));
    return said;
  }
}
