/** What a receiver owes: receipts (SPEC section 6), and answers to offers that hold once the store is flushed. */
import { FramesError } from "../../errors.ts";
import { encodeReceipt } from "../../wire/encode.ts";
import { maxOfferedFrames } from "../../wire/messages.ts";

/** When a receipt is due although frames keep coming. */
const receiptLimits = { intervalMs: 100, bytes: 16 << 20, frames: 1000 } as const;

export class Receipts {
  /** Answers, and the frames that they are for. */
  readonly #answers: { bytes: Uint8Array; frames: number }[] = [];
  #offeredFrames = 0;
  /** Frames that have a receipt, when the last one left, and bytes that came since. */
  #frames = 0;
  #lastReceiptAt: number;
  #bytes = 0;

  /** @param now milliseconds, as everywhere here */
  constructor(now: number) {
    this.#lastReceiptAt = now;
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
  onPayload(bytes: number): void {
    this.#bytes += bytes;
  }

  /** @throws {FramesError} `limit` if so many frames are unsettled as may be */
  checkWindow(unsettled: number, max: number): void {
    if (unsettled < max) return;
    throw new FramesError("limit", `Cannot take another frame: ${max} are unsettled`);
  }

  /** Whether a receipt for frames that ended must leave although more may be coming in. */
  isDue(ended: number, now: number): boolean {
    const unreceipted = ended - this.#frames;
    return (
      unreceipted >= receiptLimits.frames ||
      this.#bytes >= receiptLimits.bytes ||
      (unreceipted > 0 && now - this.#lastReceiptAt >= receiptLimits.intervalMs)
    );
  }

  /**
   * Frames were offered.
   *
   * @throws {FramesError} `limit`
   */
  addOffered(frames: number): void {
    this.#offeredFrames += frames;
    if (this.#offeredFrames <= maxOfferedFrames) return;
    throw new FramesError("limit", `Cannot answer more than ${maxOfferedFrames} offered frames`);
  }

  /** The answer to an offer of so many frames. */
  queueAnswer(bytes: Uint8Array, frames: number): void {
    this.#answers.push({ bytes, frames });
  }

  /** The store was flushed: the messages that say what holds now. */
  ack(frames: number, answers: number, now: number): Uint8Array[] {
    const messages: Uint8Array[] = [];
    for (const queueAnswer of this.#answers.splice(0, answers)) {
      this.#offeredFrames -= queueAnswer.frames;
      messages.push(queueAnswer.bytes);
    }
    if (frames <= this.#frames) return messages;
    this.#frames = frames;
    this.#lastReceiptAt = now;
    this.#bytes = 0;
    messages.push(encodeReceipt(frames));
    return messages;
  }
}
