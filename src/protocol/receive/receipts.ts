/** Receipts (SPEC section 6) and ANSWERs that the receiver sends once the store is flushed. */
import { FramesError } from "../../errors.ts";
import { encodeReceipt } from "../../wire/encode.ts";
import { maxOfferedFrames } from "../../wire/messages.ts";

/**
 * A receipt is due after this many ms, bytes or frames, even while more frames arrive (SPEC section
 * 6).
 */
const receiptLimits = { intervalMs: 100, bytes: 16 << 20, frames: 1000 } as const;

export class Receipts {
  /** ANSWER messages that wait for a flush, and the number of offered frames in each. */
  readonly #answers: { bytes: Uint8Array; frames: number }[] = [];
  #offeredFrames = 0;
  /**
   * Frames covered by receipts, the time of the last receipt, and the payload bytes received since.
   */
  #frames = 0;
  #lastReceiptAt: number;
  #bytes = 0;

  /** @param now in ms of a monotonic clock, as in all methods */
  constructor(now: number) {
    this.#lastReceiptAt = now;
  }

  /** Frames covered by receipts. */
  get frames(): number {
    return this.#frames;
  }

  /** Answers that wait for a flush. */
  get answers(): number {
    return this.#answers.length;
  }

  /** Counts received payload bytes. */
  onPayload(bytes: number): void {
    this.#bytes += bytes;
  }

  /**
   * Checks that another frame fits into the window.
   *
   * @throws {FramesError} `limit` if `max` frames are unsettled
   */
  checkWindow(unsettled: number, max: number): void {
    if (unsettled < max) return;
    throw new FramesError(
      "limit",
      `Cannot accept another frame: ${max} are unsettled, which is the limit`,
    );
  }

  /** Whether a receipt is due although more frames may be arriving. */
  isDue(ended: number, now: number): boolean {
    const unreceipted = ended - this.#frames;
    return (
      unreceipted >= receiptLimits.frames ||
      this.#bytes >= receiptLimits.bytes ||
      (unreceipted > 0 && now - this.#lastReceiptAt >= receiptLimits.intervalMs)
    );
  }

  /**
   * Counts frames of an OFFER.
   *
   * @throws {FramesError} `limit` if too many offered frames wait for an answer
   */
  addOffered(frames: number): void {
    this.#offeredFrames += frames;
    if (this.#offeredFrames <= maxOfferedFrames) return;
    throw new FramesError("limit", `Cannot answer more than ${maxOfferedFrames} offered frames`);
  }

  /** Queues the ANSWER to an offer of `frames` frames until the next flush. */
  queueAnswer(bytes: Uint8Array, frames: number): void {
    this.#answers.push({ bytes, frames });
  }

  /**
   * Returns the ANSWERs and the RECEIPT that a completed flush allows.
   *
   * @param frames ended frames that the flush covered
   * @param answers queued answers that the flush covered
   */
  ack(frames: number, answers: number, now: number): Uint8Array[] {
    const messages: Uint8Array[] = [];
    for (const answer of this.#answers.splice(0, answers)) {
      this.#offeredFrames -= answer.frames;
      messages.push(answer.bytes);
    }
    if (frames <= this.#frames) return messages;
    this.#frames = frames;
    this.#lastReceiptAt = now;
    this.#bytes = 0;
    messages.push(encodeReceipt(frames));
    return messages;
  }
}
