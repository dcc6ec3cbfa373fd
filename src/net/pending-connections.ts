/**
 * Tracks connections that have not completed HELLO. Limits them per address and in total; when a
 * limit is reached the oldest one is evicted, so idle connections cannot block new clients.
 */

export class PendingConnections<T> {
  readonly #maxConnections: number;
  /** The address of each connection, oldest connection first. */
  readonly #hosts = new Map<T, string>();
  readonly #connectionsByHost = new Map<string, Set<T>>();

  /** @param maxConnections limit of open connections; one address may have half as many pending */
  constructor(maxConnections: number) {
    this.#maxConnections = maxConnections;
  }

  /**
   * Adds a connection that was just accepted.
   *
   * @param openCount number of open connections, including this one
   * @returns the connection to disconnect in its place, if a limit is reached
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
    // `remove` deletes the set of an address that becomes empty, so it is set again.
    this.#connectionsByHost.set(host, sameHost.add(connection));
    this.#hosts.set(connection, host);
    return oldest;
  }

  /** Removes a connection that was identified or closed. */
  remove(connection: T): void {
    const host = this.#hosts.get(connection);
    if (host === undefined) return;
    this.#hosts.delete(connection);
    const sameHost = this.#connectionsByHost.get(host)!;
    sameHost.delete(connection);
    if (sameHost.size === 0) this.#connectionsByHost.delete(host);
  }
}
