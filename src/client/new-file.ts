/** Files that are written as `PATH.part` and get their name when they are complete. */
import { constants, linkSync, lstatSync, openSync, renameSync, rmSync, unlinkSync } from "node:fs";
import { FramesError, systemCode, systemSentence, usageError } from "../errors.ts";

/** Creates a file that must not exist. */
const createFlags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;

/** Codes of file systems that have no hard links. */
const noLinkCodes = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);

/** Returns the name of a file until it is complete. */
export function partialPathOf(path: string): string {
  return `${path}.part`;
}

/**
 * Creates the partial file, in place of one that an earlier run left.
 *
 * @returns its descriptor, for reading and writing
 * @throws {FramesError} `usage` if the path is taken, `store`
 */
export function createPartialFile(path: string): number {
  checkIsFree(path);
  const partialPath = partialPathOf(path);
  return runFileAction(path, () => {
    rmSync(partialPath, { force: true });
    return openSync(partialPath, createFlags, 0o666);
  });
}

/**
 * Gives a complete file its name.
 *
 * @throws {FramesError} `store`, `usage` if the path is taken meanwhile
 */
export function nameFile(path: string): void {
  const partialPath = partialPathOf(path);
  runFileAction(path, () => {
    try {
      // Unlike a rename, a link replaces no file.
      linkSync(partialPath, path);
      unlinkSync(partialPath);
    } catch (error) {
      if (!noLinkCodes.has(systemCode(error) ?? "")) throw error;
      checkIsFree(path);
      renameSync(partialPath, path);
    }
  });
}

/**
 * Checks that no file has this path.
 *
 * @throws {FramesError} `usage`
 */
export function checkIsFree(path: string): void {
  let entry: unknown;
  try {
    entry = lstatSync(path, { throwIfNoEntry: false });
  } catch {
    // Creating the file reports the error.
  }
  if (entry !== undefined) throw takenError(path);
}

function takenError(path: string): FramesError {
  return usageError(`Cannot write ${path}: it exists; choose another name, or remove it`);
}

/**
 * Runs an action on the partial file of `path`, and converts its errors.
 *
 * @throws {FramesError} `store`, `usage` if the path is taken
 */
export function runFileAction<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof FramesError) throw error;
    if (systemCode(error) === "EEXIST") throw takenError(path);
    throw new FramesError(
      "store",
      `Cannot write ${partialPathOf(path)}: ${systemSentence(error)}; run the command again when that is solved`,
      { cause: error },
    );
  }
}
