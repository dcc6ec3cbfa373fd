/** Reads and writes key files. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { formatKey, Key, keyLengthBytes, type KeyEntry, parseKeys } from "../auth/key.ts";
import { FramesError, usageError } from "../errors.ts";
import { configurationFolder, readSecret, updateSecret } from "./secret-file.ts";

/** Generates a random key. */
export function generateKey(): Key {
  return new Key(crypto.getRandomValues(new Uint8Array(keyLengthBytes)));
}

/**
 * Returns the default key file of the user.
 *
 * @throws {FramesError} `usage` if there is no home
 */
export function defaultKeyFile(): string {
  return join(configurationFolder(), "keys");
}

/** First line of a new key file. */
const keyFileHeader = `# Keys of frames: NAME KEY [send|receive|both [STREAMS]]. Each key gives access: keep them secret.
`;

/** What to do if a key file cannot be written. */
const otherFileHint = "; name a file in a writable folder with --key-file";

/**
 * Reads the keys of a file; none if it does not exist.
 *
 * @throws {FramesError} `usage` or `missing`
 */
export function readKeys(path: string): KeyEntry[] {
  const secret = readSecret(path);
  return secret === undefined ? [] : parseKeys(secret.text, path);
}

/**
 * Adds a key to a file, which is created if missing.
 *
 * @param isFirst whether to insert the key before the existing keys
 * @throws {FramesError} `usage` if the file has a key of this name, `missing` if it cannot be
 * written
 */
export function addKey(path: string, entry: KeyEntry, isFirst: boolean): void {
  updateSecret(path, (text) => withKey(text, path, entry, isFirst), otherFileHint);
}

/**
 * Returns the text of a key file with one more key.
 *
 * @throws {FramesError} `usage` if it has a key of this name
 */
function withKey(
  text: string = keyFileHeader,
  path: string,
  entry: KeyEntry,
  isFirst: boolean,
): string {
  if (parseKeys(text, path).some(({ name }) => name === entry.name)) {
    const hint = `run frames key remove ${entry.name}, or choose another name`;
    const message = `Cannot add the key ${entry.name}: ${path} has a key of that name; ${hint}`;
    throw usageError(message);
  }
  const line = formatKey(entry);
  const existing = text === "" || text.endsWith("\n") ? text : `${text}\n`;
  return isFirst ? line + existing : existing + line;
}

/**
 * Removes a key from a file. Other lines stay unchanged.
 *
 * @throws {FramesError} `usage` if the file has no key of this name, `missing` if it cannot be
 * written
 */
export function removeKey(path: string, name: string): void {
  updateSecret(path, (text = "") => withoutKey(text, path, name), otherFileHint);
}

/** @throws {FramesError} `usage` if the text has no key of this name */
function withoutKey(text: string, path: string, name: string): string {
  if (!parseKeys(text, path).some((entry) => entry.name === name)) {
    throw usageError(
      `Cannot remove the key ${name}: ${path} has no such key; frames key list shows all`,
    );
  }
  return text
    .split("\n")
    .filter((line) => line.trim().split(/\s+/)[0] !== name)
    .join("\n");
}

/** Events of a server's keys and certificate. */
export type KeysEvent =
  /** The key file changed. With `error`, it could not be read and the old keys stay in use. */
  | { type: "keys"; error: FramesError | undefined }
  /** A requested reload is done. With `error`, the old certificate stays in use. */
  | { type: "reloaded"; error: FramesError | undefined }
  /** The self-signed certificate could not be saved, so each start creates another. */
  | { type: "certificate-not-saved"; error: FramesError };

/** The keys of a server. `reload` reads them again after the key file changed. */
export class KeyRing {
  /** Path of the key file; undefined if the key was passed as text. */
  readonly path: string | undefined;
  #version = "";
  #entries: ReadonlyMap<string, KeyEntry> = new Map();

  /**
   * @param from a key file, or the text of a single key
   * @throws {FramesError} `usage`, `missing`, or `no-key` if the file has no key
   */
  constructor(from: { path: string } | { text: string }) {
    if ("text" in from) {
      const key = Key.parse(from.text, "in FRAMES_KEY");
      this.#entries = new Map([[key.id, { name: "FRAMES_KEY", key, role: "both", streams: "*" }]]);
      return;
    }
    const { path } = from;
    this.path = path;
    this.reload();
    if (this.#entries.size === 0) {
      const hint = `run frames key new NAME --key-file ${path}`;
      throw new FramesError("no-key", `Cannot serve: there is no key in ${path}; ${hint}`);
    }
  }

  /** Returns the key with this id. */
  find(id: string): KeyEntry | undefined {
    return this.#entries.get(id);
  }

  /** Whether the key is still in the file, with the same role and streams. */
  isValid({ key, role, streams }: KeyEntry): boolean {
    const current = this.#entries.get(key.id);
    return (
      current?.key.equals(key) === true && current.role === role && current.streams === streams
    );
  }

  /**
   * Reads the file again if it changed. A deleted file holds no keys.
   *
   * @returns whether the file changed
   * @throws {FramesError} `usage` or `missing`; the old keys then stay in use
   */
  reload(): boolean {
    if (this.path === undefined) return false;
    const { mtimeMs = 0, size = 0, ino = 0 } = statSync(this.path, { throwIfNoEntry: false }) ?? {};
    if (this.#version === `${mtimeMs} ${size} ${ino}`) return false;
    const secret = readSecret(this.path);
    const entries = secret === undefined ? [] : parseKeys(secret.text, this.path);
    this.#version = secret?.version ?? "0 0 0";
    this.#entries = new Map(entries.map((entry) => [entry.key.id, entry]));
    return true;
  }
}

/**
 * Adds a first key to a file without keys.
 *
 * @returns the new key; undefined if the file has keys already
 * @throws {FramesError} `usage` or `missing`
 */
export function createFirstKey(path: string, name: string): Key | undefined {
  if (readKeys(path).length > 0) return undefined;
  let created: Key | undefined;
  const addIfFirst = (text: string | undefined) => {
    // Another process may have made the first key meanwhile.
    if (text !== undefined && parseKeys(text, path).length > 0) return undefined;
    created = generateKey();
    return withKey(text, path, { name, key: created, role: "both", streams: "*" }, false);
  };
  updateSecret(path, addIfFirst, otherFileHint);
  return created;
}
