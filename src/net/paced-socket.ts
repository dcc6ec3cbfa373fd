/** Limits the rate at which bytes are written to a socket. */
import type { Writable } from "./write-queue.ts";

/**
 * Bytes are written in portions of this many milliseconds. Unused credit is kept for at most
 * `maxCreditMs`.
 */
const portionMs = 10;
const maxCreditMs = 50;

/** Writes at a steady rate, whatever the size of the messages. */
export class PacedSocket implements Writable {
  readonly #socket: Writable;
  readonly #bytesPerSecond: number;
  readonly #now: () => number;
  readonly #onWritable: () => void;
  #creditBytes: number;
  #creditedAt: number;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param bytesPerSecond limit of the rate
   * @param now monotonic clock in milliseconds
   * @param onWritable called when more may be written
   */
  constructor(socket: Writable, bytesPerSecond: number, now: () => number, onWritable: () => void) {
    this.#socket = socket;
    this.#bytesPerSecond = bytesPerSecond;
    this.#now = now;
    this.#onWritable = onWritable;
    this.#creditBytes = this.#bytesPerPeriod(portionMs);
    this.#creditedAt = now();
  }

  /** Bytes allowed in this period. At least 1, so that a very low rate still makes progress. */
  #bytesPerPeriod(periodMs: number): number {
    return Math.max(1, (this.#bytesPerSecond * periodMs) / 1000);
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    const now = this.#now();
    const earned = (this.#bytesPerSecond * (now - this.#creditedAt)) / 1000;
    this.#creditBytes = Math.min(this.#creditBytes + earned, this.#bytesPerPeriod(maxCreditMs));
    this.#creditedAt = now;
    const allowed = Math.min(length, Math.floor(this.#creditBytes));
    const accepted = allowed === 0 ? 0 : this.#socket.write(bytes, offset, allowed);
    if (accepted > 0) this.#creditBytes -= accepted;
    // If the socket accepted less than allowed, it reports itself when it is writable.
    if (accepted === allowed && allowed < length) this.#scheduleWritable();
    return accepted;
  }

  #scheduleWritable(): void {
    if (this.#timer !== undefined) return;
    const missingBytes = Math.max(1, this.#bytesPerPeriod(portionMs)) - this.#creditBytes;
    const waitMs = Math.max(1, (missingBytes / this.#bytesPerSecond) * 1000);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#onWritable();
    }, waitMs);
  }

  /** Cancels the timer, because the socket is closed. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
