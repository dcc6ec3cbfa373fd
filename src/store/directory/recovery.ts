/**
 * Repairs a store after its process was killed. Reads only the files of unfinished replacements.
 */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import { isIntact } from "./file-check.ts";
import type { Journal, Replacement } from "../journal/journal.ts";
import { framePath, relativePath } from "../paths.ts";

/** Repairs that were made. */
export interface Recovery {
  /** Deleted partial frames. No receipt had counted them. */
  readonly unfinished: number;
  /** Replacements whose rename was done, and whose row was updated now. */
  readonly replaced: number;
}

/**
 * Ends unfinished replacements and deletes partial frames.
 *
 * @param root path of the store
 * @param partialFolder path of the folder of unfinished frames
 * @param copiedStream the stream that the store is a copy of, if it is one
 * @throws {FramesError} `store` if the journal cannot be written
 */
export function recover(
  root: string,
  partialFolder: string,
  journal: Journal,
  copiedStream: string | undefined,
): Recovery {
  let replaced = 0;
  for (const replacement of journal.unfinishedReplacements()) {
    const isDone = isReplaced(root, partialFolder, replacement, copiedStream);
    journal.endReplacement(replacement, isDone);
    if (isDone) replaced++;
  }
  journal.flush();
  const unfinished = readdirSync(partialFolder);
  for (const name of unfinished) rmSync(join(partialFolder, name), { recursive: true });
  return { unfinished: unfinished.length, replaced };
}

/**
 * Returns whether the rename of a replacement was done. It was not if the partial file still
 * exists.
 */
function isReplaced(
  root: string,
  partialFolder: string,
  replacement: Replacement,
  copiedStream: string | undefined,
): boolean {
  const { stream, source, name } = replacement.row;
  if (existsSync(join(partialFolder, replacement.partial))) return false;
  // After a power cut the file may be missing under both names, so check the bytes.
  const path = join(root, relativePath(framePath(stream, source, name), copiedStream));
  try {
    return isIntact(path, replacement.row);
  } catch (error) {
    // One file that cannot be read must not keep the store closed. Its partial file is gone, so it
    // was renamed.
    if (error instanceof FramesError && error.code === "not-stored") return true;
    throw error;
  }
}
