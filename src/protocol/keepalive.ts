/** When an end must speak, and when its peer counts as gone (SPEC section 7). */
import { FramesError } from "../errors.ts";

/** Milliseconds without sending after which an end sends PING; a short timeout needs it sooner. */
const pingIntervalMs = 10_000;

/** Milliseconds that preface, HELLO and WELCOME may take. */
const handshakeTimeoutMs = 10_000;

/** Watches one connection. All times are milliseconds of one steady clock. */
export class Keepalive {
  readonly #timeoutMs: number;
  readonly #pingIntervalMs: number;
  /** The message that was not complete at the last look, and since when. */
  #incompleteMessage = 0;
  #incompleteSince = 0;
  #lastReceivedAt: number;
  #lastSentAt: number;
  /** End of the handshake's time, until it is over. */
  #handshakeDeadline: number;

  constructor(now: number, timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.#pingIntervalMs = Math.min(pingIntervalMs, timeoutMs / 3);
    this.#lastReceivedAt = now;
    this.#lastSentAt = now;
    this.#handshakeDeadline = this.#handshakeDeadlineFrom(now);
  }

  /** The connection has only now come about. */
  restart(now: number): void {
    this.#lastReceivedAt = now;
    this.#lastSentAt = now;
    this.#handshakeDeadline = this.#handshakeDeadlineFrom(now);
  }

  #handshakeDeadlineFrom(now: number): number {
    return now + Math.min(handshakeTimeoutMs, this.#timeoutMs);
  }

  /** Something came from the peer. */
  onReceived(now: number): void {
    this.#lastReceivedAt = now;
  }

  /** Something was sent. */
  onSent(now: number): void {
    this.#lastSentAt = now;
  }

  /** WELCOME was sent or received. */
  onHandshakeDone(): void {
    this.#handshakeDeadline = Infinity;
  }

  /**
   * Whether a PING is due.
   *
   * @param incompleteMessage stands for the message that is not complete, 0 if there is none
   * @throws {FramesError} `timeout` if `awaited` did not come in time, or the rest of a message
   */
  tick(now: number, awaited: string, incompleteMessage: number): boolean {
    if (now >= this.#handshakeDeadline) {
      const limit = formatSeconds(Math.min(handshakeTimeoutMs, this.#timeoutMs));
      throw new FramesError("timeout", `No ${awaited} came within ${limit}`);
    }
    if (now - this.#lastReceivedAt >= this.#timeoutMs) {
      const limit = formatSeconds(this.#timeoutMs);
      throw new FramesError("timeout", `The peer was silent for ${limit}: waited for ${awaited}`);
    }
    // A peer whose length was damaged on the way is not silent, and yet will never send the rest.
    if (incompleteMessage === 0 || incompleteMessage !== this.#incompleteMessage) {
      this.#incompleteMessage = incompleteMessage;
      this.#incompleteSince = now;
    } else if (now - this.#incompleteSince >= this.#timeoutMs) {
      const limit = formatSeconds(this.#timeoutMs);
      throw new FramesError("timeout", `The rest of a message did not come within ${limit}`);
    }
    return this.#handshakeDeadline === Infinity && now - this.#lastSentAt >= this.#pingIntervalMs;
  }
}

function formatSeconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 100) / 10} s`;
}

/** Milliseconds since 1970 as PING and PONG say them (SPEC section 4). */
export function toWireTime(milliseconds: number): string {
  return `${Math.round(milliseconds * 1e3)}000`;
}
