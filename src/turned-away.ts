/**
 * Who was turned away before it was let in. Each is worth a line in the log, but for those of an address that
 * comes again and again: these are told in sums, and told late that they are not let in. Whoever has the
 * right key is let in all the same.
 */

/** So many of one address in a minute are told one by one. */
const mostTold = 30;

/** Milliseconds that this goes by. */
const minute = 60_000;

/** Addresses that are kept apart; what comes of more is told together. */
const mostHosts = 1000;

/** More of an address than are worth a line each. */
export interface TurnedAwaySum {
  readonly host: string;
  readonly times: number;
}

export class TurnedAway {
  readonly #hosts = new Map<string, { since: number; times: number }>();

  /**
   * A peer was turned away.
   *
   * @param now milliseconds, as everywhere here
   * @returns whether that is worth a line of its own
   */
  add(host: string, now: number): boolean {
    const known = this.#hosts.has(host) || this.#hosts.size < mostHosts ? host : "other addresses";
    const found = this.#hosts.get(known) ?? { since: now, times: 0 };
    this.#hosts.set(known, found);
    return ++found.times <= mostTold;
  }

  /** Whether an address has been turned away more often than is worth a line each. */
  isNotorious(host: string): boolean {
    return (this.#hosts.get(host)?.times ?? 0) > mostTold;
  }

  /** The sums of those addresses whose minute is over, which begin anew; at the end, of all. */
  sums(now: number, isEnd = false): TurnedAwaySum[] {
    const sums: TurnedAwaySum[] = [];
    for (const [host, { since, times }] of this.#hosts) {
      if (!isEnd && now - since < minute) continue;
      this.#hosts.delete(host);
      if (times > mostTold) sums.push({ host, times: times - mostTold });
    }
    return sums;
  }
}
