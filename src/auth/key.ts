/** Keys as people copy them and keep them in a file (SPEC section 10). Whoever prints one says so. */
import { createHash, timingSafeEqual } from "node:crypto";
import { crc32 } from "node:zlib";
import { FramesError } from "../errors.ts";

/** Bytes of a key: 256 random bits. */
export const keyLengthBytes = 32;

/** What the text of every key begins with, so that people and scanners of secrets know one. */
const keyPrefix = "frames_key_";

/** What the holder of a key may do. */
export type Role = "send" | "receive" | "both";

/** A secret that both ends hold. It shows itself to nobody who does not ask for its text. */
export class Key {
  readonly #bytes: Uint8Array;
  /** Names the key in HELLO: 16 hexadecimal digits, of which nobody learns the key. */
  readonly id: string;

  /** @param bytes 32 random bytes */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== keyLengthBytes) throw new RangeError(`A key of ${bytes.length} bytes`);
    this.#bytes = Uint8Array.from(bytes);
    const hash = createHash("sha256").update("FRAMES/1 key id").update(this.#bytes);
    this.id = hash.digest("hex").slice(0, 16);
  }

  /**
   * Reads the text of a key.
   *
   * @param location says in errors where it stood; the text itself is in none
   * @throws {FramesError} `usage`
   */
  static parse(text: string, location: string): Key {
    const body = text.startsWith(keyPrefix) ? text.slice(keyPrefix.length) : "";
    const bytes = Buffer.from(body, "base64url");
    const isWellFormed = /^[\w-]{48}$/.test(body) && bytes.length === keyLengthBytes + 4;
    if (
      !isWellFormed ||
      crc32(bytes.subarray(0, keyLengthBytes)) !== bytes.readUInt32BE(keyLengthBytes)
    ) {
      const hint = isWellFormed
        ? "a character of it is wrong or missing"
        : `one begins with ${keyPrefix}`;
      throw new FramesError("usage", `Cannot read the key ${location}: ${hint}; copy it once more`);
    }
    return new Key(bytes.subarray(0, keyLengthBytes));
  }

  /** The secret itself. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** The secret as text: `frames_key_`, then its bytes and their CRC-32 in base64url. */
  get text(): string {
    const bytes = Buffer.alloc(keyLengthBytes + 4);
    bytes.set(this.#bytes);
    bytes.writeUInt32BE(crc32(this.#bytes), keyLengthBytes);
    return keyPrefix + bytes.toString("base64url");
  }

  /** Whether it is the same secret, in constant time. */
  equals(other: Key): boolean {
    return timingSafeEqual(this.#bytes, other.#bytes);
  }
}

/** A line of a key file. */
export interface KeyEntry {
  readonly name: string;
  readonly key: Key;
  readonly role: Role;
  /** Pattern of the streams it is for; `*` is all. */
  readonly streams: string;
}

const roles: readonly string[] = ["send", "receive", "both"];

/** What a key may be called: it stands in a file whose parts are divided by spaces. No key may be one's name. */
export function isKeyName(name: string): boolean {
  return /^[\p{L}\p{N}._@-]{1,64}$/u.test(name) && !/^-|frames_key_/.test(name);
}

/** Whether text holds a key, so that it must not be shown. */
export function containsKey(text: string): boolean {
  return /frames_key_[\w-]{48}/.test(text);
}

/** Whether text can stand for a pattern of streams in a key file. */
export function isStreamPattern(pattern: string): boolean {
  return /^[^\s#\p{Cc}]{1,255}$/u.test(pattern);
}

/** Whether `word` is a role. */
export function isRole(text: string): text is Role {
  return roles.includes(text);
}

/**
 * Reads a key file: `NAME KEY [ROLE [STREAMS]]`, one per line; what follows a `#` is a comment.
 *
 * @param path for errors, which name a line and never show it
 * @throws {FramesError} `usage`
 */
export function parseKeys(text: string, path: string): KeyEntry[] {
  const entries: KeyEntry[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const fields = line
      .replace(/(?:^|\s)#.*$/, "")
      .trim()
      .split(/\s+/);
    if (fields[0] === "") continue;
    const [name = "", key = "", role = "both", streams = "*", ...rest] = fields;
    const location = `in line ${index + 1} of ${path}`;
    const problem = !isKeyName(name)
      ? "its name is not one"
      : entries.some((entry) => entry.name === name)
        ? `a key before it is called ${name} too`
        : !isRole(role)
          ? "its role is neither send, receive nor both"
          : rest.length > 0
            ? "something follows the pattern of streams"
            : undefined;
    if (problem !== undefined)
      throw new FramesError("usage", `Cannot use the key ${location}: ${problem}`);
    entries.push({ name, key: Key.parse(key, location), role: role as Role, streams });
  }
  return entries;
}

/** The line of a key file that stands for `entry`. */
export function formatKey({ name, key, role, streams }: KeyEntry): string {
  return `${name} ${key.text} ${role} ${streams}\n`;
}

/** Whether the key may be used for a stream. */
export function allowsStream({ streams }: KeyEntry, stream: string): boolean {
  return streams === "*" || new Bun.Glob(streams).match(stream);
}
