/** Decides when to send PING, and when a silent peer counts as gone (SPEC section 7). */
import { FramesError } from "../errors.ts";

/**
 * Idle time after which an end sends PING, in ms. A timeout under 30 s shortens it to a third of
 * the timeout.
 */
const pingIntervalMs = 10_000;

/** Most time allowed for preface, HELLO and WELCOME, in ms. A shorter timeout applies to them too. */
export const handshakeTimeoutMs = 10_000;

/** Timeouts of one connection. All times are in ms of one monotonic clock. */
export class Keepalive {
  readonly #timeoutMs: number;
  readonly #pingIntervalMs: number;
  /**
   * The incomplete message seen by the last `tick`, and the time since which it has been
   * incomplete.
   */
  #incompleteMessage = 0;
  #incompleteSince = 0;
  #lastReceivedAt: number;
  #lastSentAt: number;
  /** Deadline of the handshake; `Infinity` once it is done. */
  #handshakeDeadline: number;

  constructor(now: number, timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.#pingIntervalMs = Math.min(pingIntervalMs, timeoutMs / 3);
    this.#lastReceivedAt = now;
    this.#lastSentAt = now;
    this.#handshakeDeadline = this.#handshakeDeadlineFrom(now);
  }

  /** Restarts all deadlines. A client calls it when its connection is established. */
  restart(now: number): void {
    this.#lastReceivedAt = now;
    this.#lastSentAt = now;
    this.#handshakeDeadline = this.#handshakeDeadlineFrom(now);
  }

  #handshakeDeadlineFrom(now: number): number {
    return now + Math.min(handshakeTimeoutMs, this.#timeoutMs);
  }

  onReceived(now: number): void {
    this.#lastReceivedAt = now;
  }

  onSent(now: number): void {
    this.#lastSentAt = now;
  }

  /** Ends the handshake's deadline: WELCOME was sent or received. */
  onHandshakeDone(): void {
    this.#handshakeDeadline = Infinity;
  }

  /**
   * Checks all deadlines. Returns whether a PING is due.
   *
   * @param awaited what the caller waits for, as worded in errors
   * @param incompleteMessage identifies the message being received; 0 if there is none
   * @throws {FramesError} `timeout` if `awaited`, or the rest of a message, did not arrive in time
   */
  tick(now: number, awaited: string, incompleteMessage: number): boolean {
    if (now >= this.#handshakeDeadline) {
      const limit = formatSeconds(Math.min(handshakeTimeoutMs, this.#timeoutMs));
      throw new FramesError("timeout", `No ${awaited} arrived within ${limit}`);
    }
    if (now - this.#lastReceivedAt >= this.#timeoutMs) {
      const limit = formatSeconds(this.#timeoutMs);
      throw new FramesError("timeout", `The peer was silent for ${limit}: expected ${awaited}`);
    }
    // A length damaged in transit leaves the decoder waiting for bytes that never come, although
    // the peer is not silent.
    if (incompleteMessage === 0 || incompleteMessage !== this.#incompleteMessage) {
      this.#incompleteMessage = incompleteMessage;
      this.#incompleteSince = now;
    } else if (now - this.#incompleteSince >= this.#timeoutMs) {
      const limit = formatSeconds(this.#timeoutMs);
      throw new FramesError("timeout", `The rest of a message did not arrive within ${limit}`);
    }
    return this.#handshakeDeadline === Infinity && now - this.#lastSentAt >= this.#pingIntervalMs;
  }
}

function formatSeconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 100) / 10} s`;
}

/** Converts ms since 1970 to the ns of PING and PONG, as decimal text (SPEC section 4). */
export function toWireTime(milliseconds: number): string {
  return `${Math.round(milliseconds * 1e3)}000`;
}
