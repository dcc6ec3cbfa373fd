/** When an end must speak, and when its peer counts as gone (SPEC section 7). */
import { FramesError } from "../errors.ts";

/** Milliseconds without sending after which an end sends PING; a short timeout needs it sooner. */
const pingAfter = 10_000;

/** Milliseconds that preface, HELLO and WELCOME may take. */
const handshakeWithin = 10_000;

/** Watches one connection. All times are milliseconds of one steady clock. */
export class Liveness {
  readonly #timeout: number;
  readonly #pingAfter: number;
  /** The message that was not complete at the last look, and since when. */
  #incomplete = 0;
  #incompleteSince = 0;
  #heard: number;
  #sent: number;
  /** End of the handshake's time, until it is over. */
  #handshakeUntil: number;

  constructor(now: number, timeout: number) {
    this.#timeout = timeout;
    this.#pingAfter = Math.min(pingAfter, timeout / 3);
    this.#heard = now;
    this.#sent = now;
    this.#handshakeUntil = this.#handshakeEnd(now);
  }

  /** The connection has only now come about. */
  restart(now: number): void {
    this.#heard = now;
    this.#sent = now;
    this.#handshakeUntil = this.#handshakeEnd(now);
  }

  #handshakeEnd(now: number): number {
    return now + Math.min(handshakeWithin, this.#timeout);
  }

  /** Something came from the peer. */
  heard(now: number): void {
    this.#heard = now;
  }

  /** Something was sent. */
  sent(now: number): void {
    this.#sent = now;
  }

  /** WELCOME was sent or received. */
  greeted(): void {
    this.#handshakeUntil = Infinity;
  }

  /**
   * Whether a PING is due.
   *
   * @param incomplete stands for the message that is not complete, 0 if there is none
   * @throws {FramesError} `timeout` if `awaited` did not come in time, or the rest of a message
   */
  tick(now: number, awaited: string, incomplete: number): boolean {
    if (now >= this.#handshakeUntil) {
      const within = seconds(Math.min(handshakeWithin, this.#timeout));
      throw new FramesError("timeout", `No ${awaited} came within ${within}`);
    }
    if (now - this.#heard >= this.#timeout) {
      const silent = seconds(this.#timeout);
      throw new FramesError("timeout", `The peer was silent for ${silent}: waited for ${awaited}`);
    }
    // A peer whose length was damaged on the way is not silent, and yet will never send the rest.
    if (incomplete === 0 || incomplete !== this.#incomplete) {
      this.#incomplete = incomplete;
      this.#incompleteSince = now;
    } else if (now - this.#incompleteSince >= this.#timeout) {
      const within = seconds(this.#timeout);
      throw new FramesError("timeout", `The rest of a message did not come within ${within}`);
    }
    return this.#handshakeUntil === Infinity && now - this.#sent >= this.#pingAfter;
  }
}

function seconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 100) / 10} s`;
}

/** Milliseconds since 1970 as PING and PONG say them (SPEC section 4). */
export function nanoseconds(milliseconds: number): string {
  return `${Math.round(milliseconds * 1e3)}000`;
}
