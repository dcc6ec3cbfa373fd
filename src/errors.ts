/** The table of all errors, and the class of errors that use it. */
import { redact } from "./safe-text.ts";

/**
 * The table of all errors: name, number on the wire (SPEC section 11; 0 if it is never sent), exit
 * status of the command (as rsync's), sentence, and whether a sender reconnects. Code decides by
 * the name and never by the text of a message.
 */
interface ErrorRow {
  readonly wireCode: number;
  readonly exitCode: number;
  readonly sentence: string;
  /**
   * Whether a sender reconnects: without limit, or at most three times without progress. The latter
   * is for errors that a bit flipped in transit may have caused.
   */
  readonly retry?: "always" | "three-times";
}

export const errors = {
  // Errors that end a connection: 1 to 31 on the wire.
  protocol: {
    wireCode: 1,
    exitCode: 2,
    sentence: "The peer sent a message that FRAMES/1 does not allow",
    retry: "three-times",
  },
  version: {
    wireCode: 2,
    exitCode: 2,
    sentence: "The two machines run incompatible versions of frames",
    retry: "three-times",
  },
  "not-let-in": {
    wireCode: 3,
    exitCode: 5,
    sentence: "Refused: the key is not in the server's key file",
  },
  damaged: {
    wireCode: 4,
    exitCode: 12,
    sentence: "Bytes were damaged in transit (wrong checksum)",
    retry: "three-times",
  },
  timeout: {
    wireCode: 5,
    exitCode: 30,
    sentence: "The peer did not answer in time",
    retry: "always",
  },
  superseded: { wireCode: 6, exitCode: 10, sentence: "A newer connection took over this session" },
  busy: { wireCode: 7, exitCode: 23, sentence: "Another sender sends this source" },
  store: { wireCode: 8, exitCode: 11, sentence: "The store cannot be written", retry: "always" },
  limit: { wireCode: 9, exitCode: 2, sentence: "A limit that the server announced was exceeded" },
  stopping: {
    wireCode: 10,
    exitCode: 10,
    sentence: "The server is stopping",
    retry: "always",
  },
  full: {
    wireCode: 11,
    exitCode: 10,
    sentence: "The server has reached its limit of connections",
    retry: "always",
  },
  internal: { wireCode: 12, exitCode: 12, sentence: "A bug in frames; please report it" },
  "key-revoked": {
    wireCode: 13,
    exitCode: 5,
    sentence: "The key was removed from the server's key file",
  },
  "wrong-role": { wireCode: 14, exitCode: 5, sentence: "The key does not allow this role" },
  "wrong-stream": { wireCode: 15, exitCode: 5, sentence: "The key does not allow this stream" },
  "stolen-session": {
    wireCode: 16,
    exitCode: 5,
    sentence: "The session was started with another key",
    retry: "always",
  },
  interrupted: { wireCode: 17, exitCode: 20, sentence: "The command was interrupted" },

  // Errors that refuse one frame: 32 to 47.
  "too-large": {
    wireCode: 32,
    exitCode: 23,
    sentence: "The frame is larger than the server accepts",
  },
  "bad-name": { wireCode: 33, exitCode: 23, sentence: "The name cannot be used" },
  "unportable-name": {
    wireCode: 34,
    exitCode: 23,
    sentence: "Windows or macOS cannot store the name",
  },
  conflict: {
    wireCode: 35,
    exitCode: 23,
    sentence: "Other bytes are stored under this name",
  },
  "not-stored": { wireCode: 36, exitCode: 23, sentence: "The frame could not be written" },
  "moved-away": {
    wireCode: 37,
    exitCode: 23,
    sentence: "The frame was stored before, and moved away since",
  },

  // Errors that explain lost frames: 48 to 63.
  vanished: { wireCode: 48, exitCode: 24, sentence: "The file was deleted before it was read" },
  changed: { wireCode: 49, exitCode: 23, sentence: "The file kept changing while it was read" },
  unreadable: { wireCode: 50, exitCode: 23, sentence: "The file cannot be read" },
  dropped: { wireCode: 51, exitCode: 23, sentence: "The queue was full" },
  stopped: {
    wireCode: 52,
    exitCode: 20,
    sentence: "The sender was stopped before it sent the frame",
  },
  garbled: { wireCode: 53, exitCode: 23, sentence: "The frame was damaged in transit three times" },

  // Errors that are never sent to a peer.
  usage: { wireCode: 0, exitCode: 1, sentence: "A flag, an argument or a setting is wrong" },
  missing: { wireCode: 0, exitCode: 1, sentence: "A file, directory or stream was not found" },
  unreachable: {
    wireCode: 0,
    exitCode: 10,
    sentence: "The server cannot be reached",
    retry: "always",
  },
  network: { wireCode: 0, exitCode: 10, sentence: "The connection broke", retry: "always" },
  "no-connection": {
    wireCode: 0,
    exitCode: 35,
    sentence: "The server did not accept the connection in time",
    retry: "always",
  },
  "no-key": {
    wireCode: 0,
    exitCode: 5,
    sentence: "The server requires a key, and this machine has none",
  },
  impostor: {
    wireCode: 0,
    exitCode: 5,
    sentence: "The server did not prove that it has the key",
  },
  plaintext: {
    wireCode: 0,
    exitCode: 5,
    sentence: "The server does not use TLS 1.3, which a key requires",
  },
  foreign: {
    wireCode: 0,
    exitCode: 2,
    sentence: "The peer does not speak FRAMES/1",
    retry: "three-times",
  },
  "other-store": {
    wireCode: 0,
    exitCode: 11,
    sentence: "The server no longer has frames that it had confirmed",
  },
  locked: { wireCode: 0, exitCode: 11, sentence: "Another process uses this store" },
  "given-up": {
    wireCode: 0,
    exitCode: 30,
    sentence: "No frame was confirmed within --give-up-after",
  },
  "not-delivered": { wireCode: 0, exitCode: 23, sentence: "Some frames were not delivered" },
} as const satisfies Record<string, ErrorRow>;

/** Name of an error in the table. */
export type ErrorName = keyof typeof errors;

const nameByWireCode = new Map<number, ErrorName>();
for (const [name, row] of Object.entries(errors)) {
  if (row.wireCode !== 0) nameByWireCode.set(row.wireCode, name as ErrorName);
}

/** Where an error number is used: in ERROR, in REFUSED, or in LOST and ABORT. */
export type ErrorUse = "end" | "refusal" | "loss";

const wireCodeRanges = { end: [1, 31], refusal: [32, 47], loss: [32, 63] } as const;

/**
 * Returns the name of an error number that a peer sent. A number that is unknown or outside the
 * range of its use maps to a general error (SPEC section 11).
 */
export function errorByNumber(errorCode: number, use: ErrorUse): ErrorName {
  const [first, last] = wireCodeRanges[use];
  const name = errorCode >= first && errorCode <= last ? nameByWireCode.get(errorCode) : undefined;
  if (name !== undefined) return name;
  if (use === "end") return "protocol";
  return use === "refusal" || errorCode < 48 ? "not-stored" : "dropped";
}

/**
 * Characters sent or kept of a message (SPEC section 11). A message may come from a file system or
 * a peer.
 */
const maxReasonLength = 1000;

/**
 * Cuts a peer's text to the first 1,000 characters, because it is logged and shown (SPEC section
 * 11).
 */
export function truncateMessage(text: string): string {
  return text.slice(0, maxReasonLength);
}

/**
 * An error that `frames` raises on purpose. `code` is its name in the table. Secrets are removed from
 * its message, because messages are printed, logged and sent to peers.
 */
export class FramesError extends Error {
  readonly code: ErrorName;

  constructor(code: ErrorName, message: string = errors[code].sentence, options?: ErrorOptions) {
    super(redact(message), options);
    this.name = "FramesError";
    this.code = code;
  }

  /** Exit status of a command that ends with this error. */
  get exitCode(): number {
    return errors[this.code].exitCode;
  }

  /** Whether a sender reconnects after this error, and how often. `undefined` means never. */
  get retry(): ErrorRow["retry"] {
    const row: ErrorRow = errors[this.code];
    return row.retry;
  }

  /** Number of this error on the wire; 0 if it is never sent. */
  get wireCode(): number {
    return errors[this.code].wireCode;
  }

  /**
   * Fields of an error message to a peer. An error that is never sent is reported as `internal`.
   */
  get wireFields(): { error: number; message: string } {
    const error = this.wireCode === 0 ? errors.internal.wireCode : this.wireCode;
    return { error, message: this.message.slice(0, maxReasonLength) };
  }
}

/** Returns the error of a flag, an argument or a setting that is wrong. */
export function usageError(message: string, options?: ErrorOptions): FramesError {
  return new FramesError("usage", message, options);
}

/**
 * Returns the error itself if it is a FramesError. Otherwise wraps it with the code and the
 * system's message.
 *
 * @param what prefix of the message, such as the path that the error is about
 */
export function asFramesError(error: unknown, code: ErrorName, what?: string): FramesError {
  if (error instanceof FramesError) return error;
  const systemText = systemSentence(error);
  return new FramesError(code, what === undefined ? systemText : `${what}: ${systemText}`, {
    cause: error,
  });
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
  ENOMEM: "no memory left",
  ESTALE: "the file server no longer knows the file",
  SQLITE_FULL: "no space left on the disk",
  SQLITE_IOERR: "input/output error",
  SQLITE_READONLY: "it cannot be written",
  SQLITE_CANTOPEN: "it cannot be opened",
  SQLITE_NOMEM: "no memory left",
};

/** Returns the system's message for an error, with known codes such as `ENOENT` in words. */
export function systemSentence(error: unknown): string {
  const code = systemCode(error);
  // SQLite adds a detail to some codes, such as SQLITE_IOERR_WRITE.
  const general = code === undefined ? undefined : (/^SQLITE_[A-Z]+/.exec(code)?.[0] ?? code);
  const sentence = general === undefined ? undefined : systemSentences[general];
  return sentence ?? (error instanceof Error ? error.message : String(error));
}

/** Returns whether an error is one of the system or of SQLite, and not a fault of the software. */
export function isSystemError(error: unknown): boolean {
  return /^(?:E[A-Z0-9]+|SQLITE_[A-Z_]+)$/.test(systemCode(error) ?? "ERR_");
}

/** Codes for a process or machine that has no more of something. They pass without repair. */
const exhaustedCodes = new Set(["EMFILE", "ENFILE", "ENOMEM", "EAGAIN"]);

/** Returns whether an error says that the process or machine has no more open files or memory. */
export function isExhausted(error: unknown): boolean {
  return exhaustedCodes.has(systemCode(error) ?? "");
}

/** Returns the system's code of an error, such as `ENOENT`, or `undefined`. */
export function systemCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
