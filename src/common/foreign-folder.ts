/**
 * Recognizes folders of other users. In a folder that all users can write, such as `/tmp`, another
 * user may have made the folder that this process is about to use, with links in it.
 */
import { lstatSync, realpathSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { usageError } from "../errors.ts";

/** Mode bit of a folder in which all users can create files. */
const writableByAll = 0o002;

/** Returns whether a user other than this one and root owns a file. Windows does not tell. */
function isOfOther(uid: number): boolean {
  const own = process.geteuid?.();
  return own !== undefined && uid !== own && uid !== 0;
}

/** Returns whether `path` itself is a folder of this user. Windows does not tell whose it is. */
export function isOwnFolder(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  const own = process.geteuid?.();
  return found?.isDirectory() === true && (own === undefined || found.uid === own);
}

/**
 * Checks that no other user can have prepared `path`, or a folder that it leads through. What does
 * not exist yet passes.
 *
 * @param what beginning of the message, such as `Cannot use the spool /tmp/spool`
 * @param hint what to do instead
 * @throws {FramesError} `usage`
 * @throws the error of the system if a part of the path cannot be looked at
 */
export function checkNotForeign(path: string, what: string, hint: string): void {
  const foreign = foreignPart(resolve(path));
  if (foreign === undefined) return;
  const reason = `${foreign} belongs to another user, who may have put links into it`;
  throw usageError(`${what}: ${reason}; ${hint}`);
}

/** Returns the part of a path that another user owns and may have created in its parent. */
function foreignPart(path: string): string | undefined {
  const parent = dirname(path);
  const above = parent === path ? undefined : foreignPart(parent);
  if (above !== undefined) return above;
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return undefined;
  const { mode, uid } = statSync(parent);
  // The owner of the parent can prepare everything in it, and the caller trusts that user.
  const isShared = (mode & writableByAll) !== 0 && uid !== found.uid;
  if (isShared && isOfOther(found.uid)) return path;
  // A link of this user or of root is followed, and what it leads through is checked too.
  return found.isSymbolicLink() ? foreignTarget(path) : undefined;
}

function foreignTarget(link: string): string | undefined {
  try {
    return foreignPart(realpathSync(link));
  } catch {
    // The target does not exist, so nothing is there.
    return undefined;
  }
}
