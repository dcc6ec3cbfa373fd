/**
 * Who was turned away before it was let in. Each is worth a line in the log, but for those of an address that
 * comes again and again: these are told in sums, and told late that they are not let in. Whoever has the
 * right key is let in all the same.
 */

/** So many of one address in a minute are told one by one. */
const maxLoggedPerWindow = 30;

/** Milliseconds that this goes by. */
const windowMs = 60_000;

/** Addresses that are kept apart; what comes of more is told together. */
const maxHosts = 1000;

/** More of an address than are worth a line each. */
export interface RejectedSummary {
  readonly host: string;
  readonly count: number;
}

export class RejectedPeers {
  readonly #hosts = new Map<string, { since: number; count: number }>();

  /**
   * A peer was turned away.
   *
   * @param now milliseconds, as everywhere here
   * @returns whether that is worth a line of its own
   */
  add(host: string, now: number): boolean {
    const tracked = this.#hosts.has(host) || this.#hosts.size < maxHosts ? host : "other addresses";
    const entry = this.#hosts.get(tracked) ?? { since: now, count: 0 };
    this.#hosts.set(tracked, entry);
    return ++entry.count <= maxLoggedPerWindow;
  }

  /** Whether an address has been turned away more often than is worth a line each. */
  isOverLimit(host: string): boolean {
    return (this.#hosts.get(host)?.count ?? 0) > maxLoggedPerWindow;
  }

  /** The sums of those addresses whose minute is over, which begin anew; at the end, of all. */
  takeSummaries(now: number, isEnd = false): RejectedSummary[] {
    const summaries: RejectedSummary[] = [];
    for (const [host, { since, count: times }] of this.#hosts) {
      if (!isEnd && now - since < windowMs) continue;
      this.#hosts.delete(host);
      if (times > maxLoggedPerWindow) summaries.push({ host, count: times - maxLoggedPerWindow });
    }
    return summaries;
  }
}
