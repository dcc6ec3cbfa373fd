/** Files with secrets: where they are, that only their owner can read them, and changes of them. */
import {
  closeSync,
  existsSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { restrictToOwner, isReadableByOthers } from "./windows-acl.ts";
import { checkNotForeign } from "../common/foreign-folder.ts";
import { FileLock } from "../common/file-lock.ts";
import { replaceFile } from "../common/replace-file.ts";
import { asFramesError, FramesError, systemCode, usageError } from "../errors.ts";

/**
 * Returns the configuration folder of the user, by the XDG base directories or Windows' APPDATA. A
 * systemd service without a home uses its state directory.
 *
 * @throws {FramesError} `usage` if there is no home
 */
export function configurationFolder(): string {
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
    const hint = "set HOME, or name the key file with --key-file";
    throw usageError(`Cannot find the keys: this user has no home directory; ${hint}`, {
      cause,
    });
  }
}

const isWindows = process.platform === "win32";

/** How long another process may take to change a file, in milliseconds. */
const lockTimeoutMs = 10_000;

/** Options of `readSecret`. */
interface SecretOptions {
  /**
   * Whether a group may read a file of root, who gives a service its private key in this way. The
   * service itself cannot do so, because it may not change the file.
   */
  readonly allowsGroupOfRoot?: boolean;
}

/** Mode bits that a secret file must not have, because they give access to others. */
function forbiddenModeBits(path: string, { uid }: Stats, options: SecretOptions): number {
  // Only the service may enter systemd's credentials folder. A file in it may belong to root and
  // grant the service access by an ACL. The ACL shows as the group's mode bit.
  const { CREDENTIALS_DIRECTORY: credentials } = process.env;
  const isCredential = credentials && resolve(path).startsWith(resolve(credentials) + sep);
  const isOfRoot = uid === 0 && process.getuid?.() !== 0;
  return isCredential || (isOfRoot && options.allowsGroupOfRoot === true) ? 0o007 : 0o077;
}

/**
 * Reads a file that holds a secret; returns undefined if it does not exist.
 *
 * @throws {FramesError} `usage` if other users can read it, as ssh does, or may have made it in a
 * folder that all can write; `missing` if it cannot be read
 */
export function readSecret(
  path: string,
  options: SecretOptions = {},
): { text: string; version: string } | undefined {
  try {
    checkNotForeign(path, `Cannot use ${path}`, "choose a file of your own");
    const file = openSync(path, "r");
    try {
      const stats = fstatSync(file);
      const { mode, mtimeMs, size, ino } = stats;
      const forbidden = forbiddenModeBits(path, stats, options);
      if (isWindows ? isReadableByOthers(path) : (mode & forbidden) !== 0) {
        const command = `icacls "${path}" /inheritance:r /grant:r "%USERNAME%:F"`;
        const hint = isWindows ? command : `chmod 600 ${path}`;
        throw usageError(`Cannot use ${path}: other users can read it; run ${hint}`);
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

/**
 * Changes a secret file while no other process changes it. Readers see the old text or the new one.
 *
 * @param change returns the new text for the old one, which is undefined if the file is missing.
 * Returns undefined to leave the file as it is
 * @param hint what to do if the file cannot be written
 * @throws {FramesError} `missing` if it cannot be written, `locked` if another process does not end
 * its change, or as `readSecret` and `change`
 */
export function updateSecret(
  path: string,
  change: (text: string | undefined) => string | undefined,
  hint = "",
): void {
  let lock: FileLock | undefined;
  try {
    // A link stays, and its target is changed under the lock of that file.
    const target = existsSync(path) ? realpathSync(path) : path;
    checkNotForeign(`${target}.lock`, `Cannot change ${path}`, "choose a file of your own");
    mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
    lock = new FileLock(`${target}.lock`, lockTimeoutMs);
    const text = change(readSecret(target)?.text);
    if (text !== undefined) writeSecret(target, text);
  } catch (error) {
    if (error instanceof FramesError) throw error;
    if (systemCode(error) === "SQLITE_BUSY") throw lockedError(path);
    const { code, message } = asFramesError(error, "missing", `Cannot write ${path}`);
    throw new FramesError(code, `${message}${hint}`, { cause: error });
  } finally {
    lock?.release();
  }
}

function lockedError(path: string): FramesError {
  const seconds = lockTimeoutMs / 1000;
  const message = `Cannot change ${path}: another process has changed it for ${seconds} seconds; stop it, and try again`;
  return new FramesError("locked", message);
}

function writeSecret(path: string, text: string): void {
  replaceFile(path, 0o600, (file, partial) => {
    if (isWindows) restrictToOwner(partial);
    else keepOwner(file, path);
    writeFileSync(file, text);
    // A key that was shown, or one that was removed, stays so after a power cut.
    fsyncSync(file);
  });
}

/** Gives a file that root writes to the owner of the file that it replaces. */
function keepOwner(file: number, path: string): void {
  const replaced = statSync(path, { throwIfNoEntry: false });
  if (replaced === undefined || process.getuid?.() !== 0) return;
  fchownSync(file, replaced.uid, replaced.gid);
}
