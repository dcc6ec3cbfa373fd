/** The client of an HTTP request, as routes and streams need it. */

/** An authenticated client and what it may read. */
export interface Principal {
  /** Id of the key that the client used, also by a login or token; empty without keys. */
  readonly keyId: string;
  /** Returns whether the client may read the source, or at least one source of the stream. */
  canRead(stream: string, source?: string): boolean;
  /** Whether the client may read server-wide data: store, senders, all problems and metrics. */
  readonly canReadAll: boolean;
  /**
   * Aborted when access ends; responses still being sent to the client end then.
   * The signal lives as long as the login, so remove listeners when the response is over.
   */
  readonly signal: AbortSignal;
}
