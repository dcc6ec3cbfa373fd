/** Hands a socket no more bytes a second than it may. */
import type { Writable } from "./outbox.ts";

/** Bytes go in portions of so many milliseconds; what could not be handed on in time is made up for so long. */
const portion = 10;
const mostCredit = 50;

/** A steady rate, however large the messages are. */
export class PacedSocket implements Writable {
  readonly #socket: Writable;
  readonly #rate: number;
  readonly #now: () => number;
  readonly #wake: () => void;
  #credit: number;
  #creditedAt: number;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param rate bytes a second
   * @param now milliseconds of a steady clock
   * @param wake is called when more may be written
   */
  constructor(socket: Writable, rate: number, now: () => number, wake: () => void) {
    this.#socket = socket;
    this.#rate = rate;
    this.#now = now;
    this.#wake = wake;
    this.#credit = this.#bytesIn(portion);
    this.#creditedAt = now();
  }

  /** At least a byte goes, however slowly. */
  #bytesIn(milliseconds: number): number {
    return Math.max(1, (this.#rate * milliseconds) / 1000);
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    const now = this.#now();
    const earned = (this.#rate * (now - this.#creditedAt)) / 1000;
    this.#credit = Math.min(this.#credit + earned, this.#bytesIn(mostCredit));
    this.#creditedAt = now;
    const allowed = Math.min(length, Math.floor(this.#credit));
    const accepted = allowed === 0 ? 0 : this.#socket.write(bytes, offset, allowed);
    if (accepted > 0) this.#credit -= accepted;
    // A socket that took less tells by itself when it can take more.
    if (accepted === allowed && allowed < length) this.#wakeLater();
    return accepted;
  }

  #wakeLater(): void {
    if (this.#timer !== undefined) return;
    const missing = Math.max(1, this.#bytesIn(portion)) - this.#credit;
    const wait = Math.max(1, (missing / this.#rate) * 1000);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#wake();
    }, wait);
  }

  /** The socket is gone. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
