/** Reads small text files of settings and tokens. */
import { realpathSync } from "node:fs";
import { devNull } from "node:os";
import { readRegularFile } from "../../../common/read-file.ts";
import { systemCode, systemSentence, usageError } from "../../../errors.ts";

/**
 * Returns the text of a file, without a byte order mark; undefined if it does not exist. Follows
 * links, because Kubernetes mounts tokens as links that it changes.
 *
 * @throws {FramesError} `usage` if it cannot be read, or has more than `maxBytes`
 */
export function readTextFile(path: string, maxBytes: number): string | undefined {
  // A usual way to say that there is no such file.
  if (path === devNull) return undefined;
  let bytes: Buffer | undefined;
  try {
    bytes = readRegularFile(realpathSync(path), maxBytes);
  } catch (cause) {
    if (/^(?:ENOENT|ENOTDIR)$/.test(systemCode(cause) ?? "")) return undefined;
    throw usageError(`Cannot read ${path}: ${systemSentence(cause)}`, { cause });
  }
  if (bytes !== undefined) return new TextDecoder().decode(bytes);
  throw usageError(`Cannot read ${path}: it is no file of at most ${maxBytes} bytes`);
}

/** Largest token that is read, in bytes. */
const maxTokenBytes = 16 << 10;

/**
 * Returns the token in a file, without the end of its line.
 *
 * @param variable names the file, for messages
 * @throws {FramesError} `usage` if it is missing, unreadable, or has more than one line
 */
export function readTokenFile(path: string, variable: string): string {
  const text = readTextFile(path, maxTokenBytes);
  if (text === undefined)
    throw usageError(`Cannot read ${path}: it does not exist; ${variable} names it`);
  return checkToken(text.trim(), variable);
}

/**
 * Returns a token that may stand in a request.
 *
 * @throws {FramesError} `usage`, with a message that does not contain it
 */
export function checkToken(token: string, variable: string): string {
  if (/^[\x20-\x7e]+$/.test(token)) return token;
  throw usageError(`Cannot use the token of ${variable}: expected one line of ASCII characters`);
}
