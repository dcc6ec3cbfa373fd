/**
 * The one table of what can go wrong: name, number on the wire (SPEC section 11; 0 never travels),
 * exit status of the command (rsync's), a sentence for people, and what a sender does that had a
 * connection before. Nothing ever decides by the text of a message.
 */
interface ErrorRow {
  readonly wire: number;
  readonly exit: number;
  readonly sentence: string;
  /**
   * Whether a sender connects again: for as long as it takes, or, where it may have been a flipped
   * byte, three times without progress between.
   */
  readonly retry?: "patiently" | "thrice";
}

export const errors = {
  // End a connection: 1 to 31 on the wire.
  protocol: { wire: 1, exit: 2, sentence: "The peer broke the rules of FRAMES/1", retry: "thrice" },
  version: {
    wire: 2,
    exit: 2,
    sentence: "The two ends have no version of the protocol in common",
    retry: "thrice",
  },
  "not-let-in": { wire: 3, exit: 5, sentence: "The server does not let this sender in" },
  damaged: { wire: 4, exit: 12, sentence: "Bytes were damaged on their way", retry: "thrice" },
  timeout: { wire: 5, exit: 30, sentence: "Something did not come in time", retry: "patiently" },
  superseded: { wire: 6, exit: 10, sentence: "Another connection took over this session" },
  busy: { wire: 7, exit: 23, sentence: "Another session is sending this source" },
  store: { wire: 8, exit: 11, sentence: "The store cannot be written", retry: "patiently" },
  limit: { wire: 9, exit: 2, sentence: "A limit that the server announced was passed" },
  stopping: { wire: 10, exit: 10, sentence: "The server is being stopped", retry: "patiently" },
  full: {
    wire: 11,
    exit: 10,
    sentence: "The server has as many connections as it can hold",
    retry: "patiently",
  },
  internal: { wire: 12, exit: 12, sentence: "A fault in the software itself" },
  "key-revoked": { wire: 13, exit: 5, sentence: "The key was taken out of the server's key file" },
  "wrong-role": { wire: 14, exit: 5, sentence: "The key is not for this direction" },
  "wrong-stream": { wire: 15, exit: 5, sentence: "The key is not for this stream" },
  "stolen-session": { wire: 16, exit: 5, sentence: "The session belongs to another key" },

  // Refuse one frame: 32 to 47.
  "too-large": { wire: 32, exit: 23, sentence: "The frame is larger than the server takes" },
  "bad-name": { wire: 33, exit: 23, sentence: "The name cannot be used" },
  "unportable-name": { wire: 34, exit: 23, sentence: "Windows or macOS cannot keep the name" },
  conflict: { wire: 35, exit: 23, sentence: "The name is taken by a frame with other bytes" },
  "not-stored": { wire: 36, exit: 23, sentence: "The frame could not be written" },

  // Explain frames that will never come: 48 to 63.
  vanished: { wire: 48, exit: 24, sentence: "The file was removed before it was read" },
  changed: { wire: 49, exit: 23, sentence: "The file kept changing while it was read" },
  unreadable: { wire: 50, exit: 23, sentence: "The file cannot be read" },
  dropped: { wire: 51, exit: 23, sentence: "The queue was full" },
  stopped: { wire: 52, exit: 20, sentence: "The sender was stopped first" },
  garbled: { wire: 53, exit: 23, sentence: "The frame was damaged on its way three times" },

  // Never travel.
  usage: { wire: 0, exit: 1, sentence: "The command was not understood" },
  missing: { wire: 0, exit: 1, sentence: "There is no such file or directory" },
  unreachable: { wire: 0, exit: 10, sentence: "The server cannot be reached", retry: "patiently" },
  network: { wire: 0, exit: 10, sentence: "The connection broke", retry: "patiently" },
  "no-connection": {
    wire: 0,
    exit: 35,
    sentence: "No connection came about in time",
    retry: "patiently",
  },
  "no-key": { wire: 0, exit: 5, sentence: "A key is needed, and there is none" },
  impostor: { wire: 0, exit: 5, sentence: "The server did not prove that it holds the key" },
  plaintext: { wire: 0, exit: 5, sentence: "The server does not speak TLS, which a key needs" },
  foreign: { wire: 0, exit: 2, sentence: "The peer does not speak FRAMES/1", retry: "thrice" },
  "other-store": { wire: 0, exit: 11, sentence: "The server lost what it had confirmed" },
  locked: { wire: 0, exit: 11, sentence: "Another process serves this store" },
  "given-up": { wire: 0, exit: 30, sentence: "Nothing was confirmed for too long" },
  interrupted: { wire: 0, exit: 20, sentence: "The delivery was interrupted" },
  "not-delivered": { wire: 0, exit: 23, sentence: "Some frames were not delivered" },
} as const satisfies Record<string, ErrorRow>;

/** Name of a row of the table. */
export type ErrorName = keyof typeof errors;

const byNumber = new Map<number, ErrorName>();
for (const [name, row] of Object.entries(errors)) {
  if (row.wire !== 0) byNumber.set(row.wire, name as ErrorName);
}

/** What a number is said with: an end, a frame that is refused, or frames that will never come. */
export type ErrorUse = "end" | "refusal" | "loss";

const ranges = { end: [1, 31], refusal: [32, 47], loss: [32, 63] } as const;

/** The name of an error number that a peer sent; one of a later version, or out of place, goes by its use. */
export function errorByNumber(wire: number, use: ErrorUse): ErrorName {
  const [first, last] = ranges[use];
  const name = wire >= first && wire <= last ? byNumber.get(wire) : undefined;
  if (name !== undefined) return name;
  if (use === "end") return "protocol";
  return use === "refusal" || wire < 48 ? "not-stored" : "dropped";
}

/** Characters of a reason that are said or heard: it may come from a file system or from another peer. */
const longestReason = 1000;

/** What a peer said for people: nobody reads tens of thousands of characters. */
export function heard(text: string): string {
  return text.slice(0, longestReason);
}

/** Every error that `frames` raises on purpose. `code` names its row in the table. */
export class FramesError extends Error {
  readonly code: ErrorName;

  constructor(code: ErrorName, message: string = errors[code].sentence, options?: ErrorOptions) {
    super(message, options);
    this.name = "FramesError";
    this.code = code;
  }

  /** Exit status of a command that ends with this error. */
  get exit(): number {
    return errors[this.code].exit;
  }

  /** Whether and how patiently a sender connects again after it. */
  get retry(): ErrorRow["retry"] {
    const row: ErrorRow = errors[this.code];
    return row.retry;
  }

  /** Number that stands for this error on the wire; 0 if it never travels. */
  get wire(): number {
    return errors[this.code].wire;
  }

  /** How a peer is told: what never travels is a fault of our own to it. */
  get reason(): { error: number; message: string } {
    const error = this.wire === 0 ? errors.internal.wire : this.wire;
    return { error, message: this.message.slice(0, longestReason) };
  }
}

/** `error` as a FramesError: itself, or with `code` and what the system said about `what`. */
export function asFramesError(error: unknown, code: ErrorName, what?: string): FramesError {
  if (error instanceof FramesError) return error;
  const said = systemSentence(error);
  return new FramesError(code, what === undefined ? said : `${what}: ${said}`, { cause: error });
}

const systemSentences: Record<string, string> = {
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  ENOENT: "no such file or directory",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  ENOSPC: "no space left on the disk",
  EDQUOT: "disk quota exceeded",
  EROFS: "the file system is read-only",
  EMFILE: "too many open files",
  ENFILE: "too many open files",
  EIO: "input/output error",
  EEXIST: "already exists",
  ENAMETOOLONG: "the name is too long",
  EADDRINUSE: "the address is in use",
  EADDRNOTAVAIL: "this machine does not have that address",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "the peer reset the connection",
  EPIPE: "the peer closed the connection",
  ENOTFOUND: "no such host",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the network",
  ETIMEDOUT: "no answer",
  ELOOP: "too many symbolic links",
};

/** What the system said, without codes that mean nothing to most people. */
export function systemSentence(error: unknown): string {
  const code = systemCode(error);
  if (code !== undefined && systemSentences[code] !== undefined) return systemSentences[code];
  return error instanceof Error ? error.message : String(error);
}

/** The system's code of an error (`ENOENT`), if it has one. */
export function systemCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
