/** Hands a socket no more bytes a second than it may. */
import type { Writable } from "./write-queue.ts";

/** Bytes go in portions of so many milliseconds; what could not be handed on in time is made up for so long. */
const portionMs = 10;
const maxCreditMs = 50;

/** A steady rate, however large the messages are. */
export class PacedSocket implements Writable {
  readonly #socket: Writable;
  readonly #bytesPerSecond: number;
  readonly #now: () => number;
  readonly #onWritable: () => void;
  #creditBytes: number;
  #creditedAt: number;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param bytesPerSecond bytes a second
   * @param now milliseconds of a steady clock
   * @param onWritable is called when more may be written
   */
  constructor(socket: Writable, bytesPerSecond: number, now: () => number, onWritable: () => void) {
    this.#socket = socket;
    this.#bytesPerSecond = bytesPerSecond;
    this.#now = now;
    this.#onWritable = onWritable;
    this.#creditBytes = this.#bytesPerPeriod(portionMs);
    this.#creditedAt = now();
  }

  /** At least a byte goes, however slowly. */
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
    // A socket that took less tells by itself when it can take more.
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

  /** The socket is gone. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
