/** Who may look at what over HTTP. */

/** Whoever asks, once it is known that they may ask at all. */
export interface Visitor {
  /** Whether they may look at this source, or at anything of this stream where none is given. */
  maySee(stream: string, source?: string): boolean;
  /** Whether they may see what belongs to no stream: the store, senders, problems, metrics of all. */
  readonly seesAll: boolean;
  /** Aborted when they may look no longer: what is still going out to them ends then. */
  readonly ended: AbortSignal;
}

/** Lets in or turns away. */
export interface Access {
  /** The visitor, or the answer to somebody who is none. */
  admit(request: Request, peer: string): Visitor | Response;
}

/** Everybody may see everything: for a server on loopback that asks for no key. */
export const everybody: Visitor = {
  maySee: () => true,
  seesAll: true,
  ended: new AbortController().signal,
};
