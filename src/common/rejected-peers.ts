/**
 * Limits the log lines for rejected peers. Further rejections of the same address are counted and
 * reported as a sum. The server also delays its reply to such an address. A peer with a valid key
 * is still accepted.
 */

/** Rejections of one address that are logged individually within `windowMs`. */
const maxLoggedPerWindow = 30;

const windowMs = 60_000;

/** Limit of tracked addresses. Rejections of further addresses are counted together. */
const maxHosts = 1000;

/** Rejections of an address that were not logged individually. */
export interface RejectedSummary {
  readonly host: string;
  readonly count: number;
}

export class RejectedPeers {
  readonly #hosts = new Map<string, { since: number; count: number }>();

  /**
   * Counts a rejected peer.
   *
   * @param now milliseconds of a monotonic clock
   * @returns whether to log this rejection
   */
  add(host: string, now: number): boolean {
    const tracked = this.#hosts.has(host) || this.#hosts.size < maxHosts ? host : "other addresses";
    const entry = this.#hosts.get(tracked) ?? { since: now, count: 0 };
    this.#hosts.set(tracked, entry);
    return ++entry.count <= maxLoggedPerWindow;
  }

  /** Whether the address was rejected more often than is logged. */
  isOverLimit(host: string): boolean {
    return (this.#hosts.get(host)?.count ?? 0) > maxLoggedPerWindow;
  }

  /**
   * Returns the sums of addresses whose window has passed, and starts them again. Returns all sums
   * at the end.
   */
  takeSummaries(now: number, isEnd = false): RejectedSummary[] {
    const summaries: RejectedSummary[] = [];
    for (const [host, { since, count }] of this.#hosts) {
      if (!isEnd && now - since < windowMs) continue;
      this.#hosts.delete(host);
      if (count > maxLoggedPerWindow) summaries.push({ host, count: count - maxLoggedPerWindow });
    }
    return summaries;
  }
}
