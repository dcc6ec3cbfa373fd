/**
 * Who may read a file on Windows, where modes say nothing: its access list, as Windows' own icacls shows and
 * sets it.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FramesError } from "../errors.ts";

/** The system, administrators and the owner, whom no list keeps out ([MS-DTYP] 2.5.1.1, SID tokens). */
const alwaysAllowed = new Set(["SY", "BA", "OW", "S-1-5-18", "S-1-5-32-544", "S-1-3-4"]);

/**
 * Whether an access list lets anybody in but `user` and those whom none keeps out.
 *
 * @param list in the security descriptor definition language ([MS-DTYP] 2.5.1)
 * @param user security identifier
 */
export function aclAllowsOthers(list: string, user: string): boolean {
  // A file without a list is open to all.
  const entries = /D:[A-Z]*((?:\([^)]*\))*)/.exec(list)?.[1];
  if (entries === undefined || list.includes("D:NO_ACCESS_CONTROL")) return true;
  return [...entries.matchAll(/\(([^)]*)\)/g)].some(([, entry]) => {
    const [type = "", , , , , trustee = ""] = entry!.split(";");
    // Other types than "access allowed" (A, XA, OA, ZA) let nobody in.
    return type.endsWith("A") && trustee !== user && !alwaysAllowed.has(trustee);
  });
}

/** Lets only this user, and those whom no list keeps out, read and write a file. */
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

/** The security identifier of the user that this process belongs to. */
function currentUserSid(): string {
  const output = runSystemTool("whoami", "/user", "/fo", "csv", "/nh");
  const sid = /S-1-[\d-]+/.exec(output)?.[0];
  if (sid === undefined) throw new FramesError("usage", "Cannot find out who this user is");
  return sid;
}

/** @throws {FramesError} `usage` */
function runSystemTool(command: string, ...args: string[]): string {
  // Not whatever is called so in the folder that this was started in.
  const path = join(process.env["SystemRoot"] ?? "C:\\Windows", "System32", `${command}.exe`);
  const { status, stdout, error } = spawnSync(path, args, { encoding: "utf8", windowsHide: true });
  if (status === 0) return stdout;
  throw new FramesError("usage", `Cannot look after ${args[0]}: ${command} failed`, {
    cause: error,
  });
}
