/** Who may look at what over HTTP. */

/** Whoever asks, once it is known that they may ask at all. */
export interface Visitor {
  /** Whether they may look at this source, or at anything of this stream where none is given. */
  maySee(stream: string, source?: string): boolean;
  /** Whether they may see what belongs to no stream: the store, senders, problems, metrics of all. */
  readonly seesAll: boolean;
  /**
   * Aborted when they may look no longer: what is still going out to them ends then. It lasts as long as a
   * login: whoever listens to it stops when the answer is over.
   */
  readonly ended: AbortSignal;
}

/** Lets in or turns away. */
export interface Access {
  /**
   * The visitor, or the answer to somebody who is none or who only wants to log in or out.
   *
   * @param peer its address, without the port
   */
  admit(request: Request, peer: string): Visitor | Response | Promise<Response>;
  /** Called once a second: ends what is over, and what hangs on a key that is gone. */
  look(): void;
}

/** A key of the server, as far as looking goes. */
export interface ViewerKey {
  readonly name: string;
  readonly id: string;
  /** Pattern of the streams it is for; `*` is all. */
  readonly streams: string;
  allows(stream: string): boolean;
}

/** The keys of the server. */
export interface ViewerKeys {
  /**
   * The key of this text, if its holder may look.
   *
   * @throws {FramesError} `usage`, `not-let-in` or `wrong-role`
   */
  find(text: string): ViewerKey;
  /** Whether it is still there, and allows what it did. */
  holds(key: ViewerKey): boolean;
}

/** A request that is meant for this server, and comes from nobody's page but its own. */
export interface Caller {
  readonly request: Request;
  readonly url: URL;
  /** Address, without the port. */
  readonly peer: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** Whoever came with a key. */
export interface Holder extends Visitor {
  readonly key: ViewerKey;
}

/** Everybody may see everything: for a server on loopback that asks for no key. */
export const everybody: Visitor = {
  maySee: () => true,
  seesAll: true,
  ended: new AbortController().signal,
};

/** Whoever has shown no key: they may have the page's own files, and hear whether the server is well. */
export const stranger: Visitor = {
  maySee: () => false,
  seesAll: false,
  ended: new AbortController().signal,
};
