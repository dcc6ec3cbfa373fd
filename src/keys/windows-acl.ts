/**
 * File permissions on Windows, where mode bits have no meaning. Reads and sets access control lists
 * with the system's icacls.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { usageError } from "../errors.ts";

/**
 * System, administrators and owner, to whom an ACL cannot deny access ([MS-DTYP] 2.5.1.1, SID
 * tokens).
 */
const alwaysAllowed = new Set(["SY", "BA", "OW", "S-1-5-18", "S-1-5-32-544", "S-1-3-4"]);

/**
 * Whether an ACL allows access to accounts other than `user` and `alwaysAllowed`.
 *
 * @param list in the security descriptor definition language ([MS-DTYP] 2.5.1)
 * @param user security identifier
 */
export function aclAllowsOthers(list: string, user: string): boolean {
  // A file without an ACL is open to all accounts.
  const entries = /D:[A-Z]*((?:\([^)]*\))*)/.exec(list)?.[1];
  if (entries === undefined || list.includes("D:NO_ACCESS_CONTROL")) return true;
  return [...entries.matchAll(/\(([^)]*)\)/g)].some(([, entry]) => {
    const [type = "", , , , , trustee = ""] = entry!.split(";");
    // Entries of other types than "access allowed" (A, XA, OA, ZA) grant no access.
    return type.endsWith("A") && trustee !== user && !alwaysAllowed.has(trustee);
  });
}

/** Grants access to this user only, apart from `alwaysAllowed`. */
export function restrictToOwner(path: string): void {
  runSystemTool("icacls", path, "/inheritance:r", "/grant:r", `*${currentUserSid()}:F`);
}

/** Whether other users may read a file. */
export function isReadableByOthers(path: string): boolean {
  const folder = mkdtempSync(join(tmpdir(), "frames-"));
  const savedList = join(folder, "list");
  try {
    runSystemTool("icacls", path, "/save", savedList);
    return aclAllowsOthers(readFileSync(savedList, "utf16le"), currentUserSid());
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns the security identifier of the user that runs this process. */
function currentUserSid(): string {
  const output = runSystemTool("whoami", "/user", "/fo", "csv", "/nh");
  const sid = /S-1-[\d-]+/.exec(output)?.[0];
  if (sid === undefined)
    throw usageError("Cannot read the current user: whoami printed no security identifier");
  return sid;
}

/**
 * Runs a program of Windows and returns its output.
 *
 * @throws {FramesError} `usage`
 */
function runSystemTool(command: string, ...args: string[]): string {
  // The full path, because the current folder may contain a program of this name.
  const path = join(process.env["SystemRoot"] ?? "C:\\Windows", "System32", `${command}.exe`);
  const { status, stdout, error } = spawnSync(path, args, { encoding: "utf8", windowsHide: true });
  if (status === 0) return stdout;
  throw usageError(`Cannot read or set the permissions: ${command} ${args[0]} failed`, {
    cause: error,
  });
}
