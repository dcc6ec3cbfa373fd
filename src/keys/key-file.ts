/** Keys and the server's certificate as files: the only place that reads or writes either. */
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { createPrivateKey, generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { homedir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { restrictToOwner, isReadableByOthers } from "./windows-acl.ts";
import { type Certificate, makeCertificate } from "../auth/certificate.ts";
import { formatKey, Key, keyLengthBytes, type KeyEntry, parseKeys } from "../auth/key.ts";
import { asFramesError, FramesError, systemCode } from "../errors.ts";

/** A new key. */
export function generateKey(): Key {
  return new Key(randomBytes(keyLengthBytes));
}

/**
 * The folder for what `frames` keeps of one user, by the XDG base directories and by Windows' rule, or
 * of one service: systemd names the folder of its state, and then it has no other home.
 *
 * @throws {FramesError} `usage` if there is no home
 */
function configurationFolder(): string {
  const { APPDATA, STATE_DIRECTORY, XDG_CONFIG_HOME } = process.env;
  if (process.platform === "win32" && APPDATA) return join(APPDATA, "frames");
  if (XDG_CONFIG_HOME) return join(XDG_CONFIG_HOME, "frames");
  const [state] = STATE_DIRECTORY?.split(":") ?? [];
  return join(state || homeFolder(), ".config", "frames");
}

function homeFolder(): string {
  const { HOME } = process.env;
  if (HOME) return HOME;
  try {
    return homedir();
  } catch (cause) {
    const hint = "set HOME, or name the file of the keys with --key-file";
    throw new FramesError("usage", `Cannot find the keys: this user has no home; ${hint}`, {
      cause,
    });
  }
}

/**
 * The key file that is used where none is named.
 *
 * @throws {FramesError} `usage` if there is no home for it
 */
export function defaultKeyFile(): string {
  return join(configurationFolder(), "keys");
}

/** What a key file begins with when it is made. */
const keyFileHeader = `# Keys of frames: NAME KEY [send|receive|both [STREAMS]]. Whoever has a key is let in.
`;

const isWindows = process.platform === "win32";

/** What may not be set of the mode of a secret: others' bits. */
function forbiddenModeBits(path: string): number {
  // Systemd lets nobody but the service into this folder; a file in it may be root's, with read
  // permission for the service as an access list, which shows as the group's bit.
  const { CREDENTIALS_DIRECTORY: credentials } = process.env;
  const isCredential = credentials && resolve(path).startsWith(resolve(credentials) + sep);
  return isCredential ? 0o007 : 0o077;
}

/**
 * Reads a file that holds a secret; nothing if it is not there.
 *
 * @throws {FramesError} `usage` if others can read it too, as ssh does
 */
function readSecret(path: string): { text: string; version: string } | undefined {
  try {
    const file = openSync(path, "r");
    try {
      const { mode, mtimeMs, size, ino } = fstatSync(file);
      if (isWindows ? isReadableByOthers(path) : (mode & forbiddenModeBits(path)) !== 0) {
        const command = `icacls "${path}" /inheritance:r /grant:r "%USERNAME%:F"`;
        const hint = isWindows ? command : `chmod 600 ${path}`;
        throw new FramesError("usage", `Cannot use ${path}: other users can read it; ${hint}`);
      }
      return { text: readFileSync(file, "utf8"), version: `${mtimeMs} ${size} ${ino}` };
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw asFramesError(error, "missing", `Cannot read ${path}`);
  }
}

/** Writes a file that holds a secret, whole or not at all. */
function writeSecret(path: string, text: string): void {
  const partial = `${path}.${process.pid}.part`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    rmSync(partial, { force: true });
    const file = openSync(partial, "wx", 0o600);
    try {
      if (isWindows) restrictToOwner(partial);
      writeSync(file, text);
    } finally {
      closeSync(file);
    }
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw asFramesError(error, "missing", `Cannot write ${path}`);
  }
}

/**
 * The keys in a file; none if it is not there.
 *
 * @throws {FramesError} `usage` or `missing`
 */
export function readKeys(path: string): KeyEntry[] {
  const secret = readSecret(path);
  return secret === undefined ? [] : parseKeys(secret.text, path);
}

/**
 * Adds a key to a file, which is made if it is not there.
 *
 * @param isFirst whether it comes before those that are there
 * @throws {FramesError} `usage` if there is one of this name
 */
export function addKey(path: string, entry: KeyEntry, isFirst: boolean): void {
  const text = readSecret(path)?.text ?? keyFileHeader;
  if (parseKeys(text, path).some(({ name }) => name === entry.name)) {
    const hint = `frames key remove ${entry.name}, or choose another name`;
    throw new FramesError("usage", `A key called ${entry.name} is in ${path} already: ${hint}`);
  }
  const line = formatKey(entry);
  const existing = text === "" || text.endsWith("\n") ? text : `${text}\n`;
  writeSecret(path, isFirst ? line + existing : existing + line);
}

/**
 * Takes a key out of a file; what else stands there stays as it is.
 *
 * @throws {FramesError} `usage` if there is none of this name
 */
export function removeKey(path: string, name: string): void {
  const text = readSecret(path)?.text ?? "";
  if (!parseKeys(text, path).some((entry) => entry.name === name)) {
    throw new FramesError("usage", `No key called ${name} is in ${path}: see frames key list`);
  }
  const lines = text.split("\n").filter((line) => line.trim().split(/\s+/)[0] !== name);
  writeSecret(path, lines.join("\n"));
}

/** What there is to tell of a server's keys and certificate. */
export type KeysEvent =
  /** The key file was read again, or could not be: then the keys before it still hold. */
  | { type: "keys"; error: FramesError | undefined }
  /** Keys and certificate were to be read again; with `error` the certificate before still holds. */
  | { type: "reloaded"; error: FramesError | undefined }
  /** The server's own certificate could not be kept: there is another one after each start. */
  | { type: "certificate-not-saved"; error: FramesError };

/** The keys of a server, read again when their file changes. */
export class KeyRing {
  /** Their file; nothing of a key that was given as text. */
  readonly path: string | undefined;
  #version = "";
  #entries: ReadonlyMap<string, KeyEntry> = new Map();

  /**
   * @param from a file, or the text of the one key
   * @throws {FramesError} `usage`, `missing`, or `no-key` if there is none in it
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
      throw new FramesError("no-key", `There is no key in ${path}: frames key new NAME makes one`);
    }
  }

  /** The key of this id. */
  find(id: string): KeyEntry | undefined {
    return this.#entries.get(id);
  }

  /** Whether the key is still in the file, and allows what it did. */
  isValid({ key, role, streams }: KeyEntry): boolean {
    const current = this.#entries.get(key.id);
    return (
      current?.key.equals(key) === true && current.role === role && current.streams === streams
    );
  }

  /**
   * Reads the file again if it has changed; whether it has. A file that is gone holds no key.
   *
   * @throws {FramesError} as the constructor; the keys are then as before
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
 * Makes the first key of a file that has none.
 *
 * @returns the key if it was made now
 */
export function createFirstKey(path: string, name: string): Key | undefined {
  if (readKeys(path).length > 0) return undefined;
  const key = generateKey();
  try {
    addKey(path, { name, key, role: "both", streams: "*" }, false);
  } catch (error) {
    const { code, message } = asFramesError(error, "missing");
    const hint = "set HOME to a folder where it can be kept, or name a key file with --key-file";
    throw new FramesError(code, `${message}; ${hint}`, { cause: error });
  }
  return key;
}

/**
 * The server's own certificate, which is made when it is first asked for.
 *
 * @param onNotSaved is told if there is no place for it: then it lasts as long as the server
 * @throws {FramesError} `usage` or `missing` if there is one that cannot be read
 */
export function loadOrCreateCertificate(
  now: Date,
  onNotSaved: (error: FramesError) => void,
): Certificate {
  let path: string | undefined;
  try {
    path = join(configurationFolder(), "server.pem");
  } catch (error) {
    onNotSaved(asFramesError(error, "missing"));
  }
  const text = path === undefined ? undefined : readSecret(path)?.text;
  if (text !== undefined) return { key: text, certificate: text };
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const certificate = makeCertificate(pair, randomBytes(16), now);
  try {
    if (path !== undefined) writeSecret(path, certificate.key + certificate.certificate);
  } catch (error) {
    // Nobody has to trust it: the proof of the key does that.
    onNotSaved(asFramesError(error, "missing"));
  }
  return certificate;
}

/**
 * A certificate that the user has.
 *
 * @throws {FramesError} `usage` or `missing`
 */
export function readCertificate(certificatePath: string, keyPath: string): Certificate {
  const read = (path: string) => {
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      throw asFramesError(error, "missing", `Cannot read ${path}`);
    }
  };
  const pair = { certificate: read(certificatePath), key: read(keyPath) };
  if (isMatchingPair(pair)) return pair;
  throw new FramesError(
    "usage",
    `Cannot use ${certificatePath} and ${keyPath}: they are no PEM files of a certificate and its key`,
  );
}

function isMatchingPair({ certificate, key }: Certificate): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}
