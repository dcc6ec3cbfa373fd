/**
 * Who stands in the doorway: connections that have not said who they are. So many of one address, and so
 * many in all, may stand there; then the one that has stood there longest goes. Whoever is honest is through
 * in a few round trips, so that silence, also from behind one balancer, locks nobody out.
 */

export class PendingConnections<T> {
  readonly #maxConnections: number;
  /** The address of each, in the order in which they came. */
  readonly #hosts = new Map<T, string>();
  readonly #connectionsByHost = new Map<string, Set<T>>();

  /** @param maxConnections connections in all; half of them may stand here of one address */
  constructor(maxConnections: number) {
    this.#maxConnections = maxConnections;
  }

  /**
   * A connection came in.
   *
   * @param openCount connections in all, this one included
   * @returns the one that must go for it, if there are too many
   */
  add(connection: T, host: string, openCount: number): T | undefined {
    const sameHost = this.#connectionsByHost.get(host) ?? new Set<T>();
    this.#connectionsByHost.set(host, sameHost);
    const isHostFull = sameHost.size >= Math.max(1, this.#maxConnections >> 1);
    const candidates = isHostFull
      ? sameHost
      : openCount > this.#maxConnections
        ? this.#hosts.keys()
        : undefined;
    const [oldest] = candidates ?? [];
    if (oldest !== undefined) this.remove(oldest);
    // `leave` forgets an address that has nobody left.
    this.#connectionsByHost.set(host, sameHost.add(connection));
    this.#hosts.set(connection, host);
    return oldest;
  }

  /** It is known now, or gone. */
  remove(connection: T): void {
    const host = this.#hosts.get(connection);
    if (host === undefined) return;
    this.#hosts.delete(connection);
    const sameHost = this.#connectionsByHost.get(host)!;
    sameHost.delete(connection);
    if (sameHost.size === 0) this.#connectionsByHost.delete(host);
  }
}
