/** Files with secrets: where they are, and that only their owner can read them. */
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { asFramesError, FramesError, systemCode } from "../errors.ts";
import { isReadableByOthers, restrictToOwner } from "./windows-acl.ts";

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
    throw new FramesError(
      "usage",
      `Cannot find the keys: this user has no home directory; ${hint}`,
      {
        cause,
      },
    );
  }
}

const isWindows = process.platform === "win32";

/** Mode bits that a secret file must not have, because they give access to others. */
function forbiddenModeBits(path: string): number {
  // Only the service may enter systemd's credentials folder. A file in it may belong to root and
  // grant the service access by an ACL. The ACL shows as the group's mode bit.
  const { CREDENTIALS_DIRECTORY: credentials } = process.env;
  const isCredential = credentials && resolve(path).startsWith(resolve(credentials) + sep);
  return isCredential ? 0o007 : 0o077;
}

/**
 * Reads a file that holds a secret; returns undefined if it does not exist.
 *
 * @throws {FramesError} `usage` if other users can read it, as ssh does; `missing` if it cannot be
 * read
 */
export function readSecret(path: string): { text: string; version: string } | undefined {
  try {
    const file = openSync(path, "r");
    try {
      const { mode, mtimeMs, size, ino } = fstatSync(file);
      if (isWindows ? isReadableByOthers(path) : (mode & forbiddenModeBits(path)) !== 0) {
        const command = `icacls "${path}" /inheritance:r /grant:r "%USERNAME%:F"`;
        const hint = isWindows ? command : `chmod 600 ${path}`;
        throw new FramesError("usage", `Cannot use ${path}: other users can read it; run ${hint}`);
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

/** Writes a secret file atomically, by renaming a temporary file. */
export function writeSecret(path: string, text: string): void {
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
