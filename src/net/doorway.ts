/**
 * Who stands in the doorway: connections that have not said who they are. So many of one address, and so
 * many in all, may stand there; then the one that has stood there longest goes. Whoever is honest is through
 * in a few round trips, so that silence, also from behind one balancer, locks nobody out.
 */

export class Doorway<T> {
  readonly #most: number;
  /** The address of each, in the order in which they came. */
  readonly #waiting = new Map<T, string>();
  readonly #byHost = new Map<string, Set<T>>();

  /** @param most connections in all; half of them may stand here of one address */
  constructor(most: number) {
    this.#most = most;
  }

  /**
   * A connection came in.
   *
   * @param open connections in all, this one included
   * @returns the one that must go for it, if there are too many
   */
  enter(connection: T, host: string, open: number): T | undefined {
    const own = this.#byHost.get(host) ?? new Set<T>();
    this.#byHost.set(host, own);
    const isCrowded = own.size >= Math.max(1, this.#most >> 1);
    const queue = isCrowded ? own : open > this.#most ? this.#waiting.keys() : undefined;
    const [oldest] = queue ?? [];
    if (oldest !== undefined) this.leave(oldest);
    // `leave` forgets an address that has nobody left.
    this.#byHost.set(host, own.add(connection));
    this.#waiting.set(connection, host);
    return oldest;
  }

  /** It is known now, or gone. */
  leave(connection: T): void {
    const host = this.#waiting.get(connection);
    if (host === undefined) return;
    this.#waiting.delete(connection);
    const own = this.#byHost.get(host)!;
    own.delete(connection);
    if (own.size === 0) this.#byHost.delete(host);
  }
}
