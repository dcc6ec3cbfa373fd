/** Who may look at what over HTTP. */

/** Whoever asks, once it is known that they may ask at all. */
export interface Principal {
  /** Whether they may look at this source, or at anything of this stream where none is given. */
  canRead(stream: string, source?: string): boolean;
  /** Whether they may see what belongs to no stream: the store, senders, problems, metrics of all. */
  readonly canReadAll: boolean;
  /**
   * Aborted when they may look no longer: what is still going out to them ends then. It lasts as long as a
   * login: whoever listens to it stops when the answer is over.
   */
  readonly signal: AbortSignal;
}

/** Lets in or turns away. */
export interface AccessControl {
  /**
   * The visitor, or the answer to somebody who is none or who only wants to log in or out.
   *
   * @param peer its address, without the port
   */
  authenticate(request: Request, peer: string): Principal | Response | Promise<Response>;
  /** Called once a second: ends what is over, and what hangs on a key that is gone. */
  sweepExpired(): void;
}

/** A key of the server, as far as looking goes. */
export interface HttpKey {
  readonly name: string;
  readonly id: string;
  /** Pattern of the streams it is for; `*` is all. */
  readonly streams: string;
  allows(stream: string): boolean;
}

/** The keys of the server. */
export interface HttpKeys {
  /**
   * The key of this text, if its holder may look.
   *
   * @throws {FramesError} `usage`, `not-let-in` or `wrong-role`
   */
  find(text: string): HttpKey;
  /** Whether it is still there, and allows what it did. */
  isValid(key: HttpKey): boolean;
}

/** A request that is meant for this server, and comes from nobody's page but its own. */
export interface AuthRequest {
  readonly request: Request;
  readonly url: URL;
  /** Address, without the port. */
  readonly peer: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** Whoever came with a key. */
export interface KeyPrincipal extends Principal {
  readonly key: HttpKey;
}

/** Everybody may see everything: for a server on loopback that asks for no key. */
export const fullAccess: Principal = {
  canRead: () => true,
  canReadAll: true,
  signal: new AbortController().signal,
};

/** Whoever has shown no key: they may have the page's own files, and hear whether the server is well. */
export const unauthenticated: Principal = {
  canRead: () => false,
  canReadAll: false,
  signal: new AbortController().signal,
};
