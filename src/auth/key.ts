/** Keys, their text form, and the lines of a key file (SPEC section 10). */
import { crc32 } from "../common/checksum.ts";
import { usageError } from "../errors.ts";
import { keyPrefix } from "./key-text.ts";

/** Length of a key in bytes: 256 random bits. */
export const keyLengthBytes = 32;

/** Directions in which a key may be used. */
export type Role = "send" | "receive" | "both";

/**
 * A secret shared by client and server. Printing the object does not reveal it; only `text` and
 * `bytes` do.
 */
export class Key {
  readonly #bytes: Uint8Array;
  /** Id of the key in HELLO: 16 hexadecimal digits, from which the key cannot be derived. */
  readonly id: string;

  /** @param bytes 32 random bytes */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== keyLengthBytes) throw new RangeError(`A key of ${bytes.length} bytes`);
    this.#bytes = Uint8Array.from(bytes);
    const hash = new Bun.CryptoHasher("sha256").update("FRAMES/1 key id").update(this.#bytes);
    this.id = hash.digest("hex").slice(0, 16);
  }

  /**
   * Parses the text of a key.
   *
   * @param location where the text was found, for errors; errors never include the text
   * @throws {FramesError} `usage` if the text is not a key, or its CRC-32 does not match
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
        ? "a character is wrong or missing"
        : `a key begins with ${keyPrefix}`;
      throw usageError(
        `Cannot read the key ${location}: ${hint}; copy the whole line that frames key prints`,
      );
    }
    return new Key(bytes.subarray(0, keyLengthBytes));
  }

  /** The secret as bytes. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** The secret as text: `frames_key_`, then the bytes and their CRC-32 in base64url. */
  get text(): string {
    const bytes = Buffer.alloc(keyLengthBytes + 4);
    bytes.set(this.#bytes);
    bytes.writeUInt32BE(crc32(this.#bytes), keyLengthBytes);
    return keyPrefix + bytes.toString("base64url");
  }

  /** Returns whether both are the same secret, in constant time. */
  equals(other: Key): boolean {
    return crypto.timingSafeEqual(this.#bytes, other.#bytes);
  }
}

/** One line of a key file. */
export interface KeyEntry {
  readonly name: string;
  readonly key: Key;
  readonly role: Role;
  /** Glob pattern of the streams that the key may be used for; `*` allows all. */
  readonly streams: string;
}

const roles: readonly string[] = ["send", "receive", "both"];

/**
 * Returns whether text is valid as the name of a key. Names have no spaces, because spaces separate
 * the fields of a line. A text with the prefix of a key is not a name, because names are shown.
 */
export function isKeyName(name: string): boolean {
  return /^[\p{L}\p{N}._@-]{1,64}$/u.test(name) && !/^-|frames_key_/.test(name);
}

/** Returns whether text is valid as a pattern of streams in a key file. */
export function isStreamPattern(pattern: string): boolean {
  return /^[^\s#\p{Cc}]{1,255}$/u.test(pattern);
}

/** Returns whether text is a role. */
export function isRole(text: string): text is Role {
  return roles.includes(text);
}

/**
 * Parses a key file: `NAME KEY [ROLE [STREAMS]]` on each line, with comments after `#`.
 *
 * @param path path of the file, for errors; errors include the line number but not the line
 * @throws {FramesError} `usage` if a line is invalid
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
      ? "its name is not valid"
      : entries.some((entry) => entry.name === name)
        ? `another line has the name ${name}`
        : !isRole(role)
          ? "its role is not send, receive or both"
          : rest.length > 0
            ? "text follows the stream pattern"
            : undefined;
    if (problem !== undefined)
      throw usageError(
        `Cannot use the key ${location}: ${problem}; write NAME KEY [send|receive|both [STREAMS]]`,
      );
    entries.push({ name, key: Key.parse(key, location), role: role as Role, streams });
  }
  return entries;
}

/** Returns the line of a key file for an entry. */
export function formatKey({ name, key, role, streams }: KeyEntry): string {
  return `${name} ${key.text} ${role} ${streams}\n`;
}

/** Returns whether the key may be used for a stream. */
export function allowsStream({ streams }: KeyEntry, stream: string): boolean {
  return streams === "*" || new Bun.Glob(streams).match(stream);
}
