/**
 * Repairs a store after its process was killed. Reads only the files of unfinished replacements.
 */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import { isIntact } from "./file-check.ts";
import { StoreFolder } from "./store-folder.ts";
import type { Journal, Replacement } from "../journal/journal.ts";

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
    // No receiver writes rows of another stream into a copy.
    if (copiedStream !== undefined && replacement.row.stream !== copiedStream) continue;
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
  const { row, partial } = replacement;
  if (existsSync(join(partialFolder, partial))) return false;
  // After a power cut the file may be missing under both names, so check the bytes.
  const folder = StoreFolder.ofSource(root, row, copiedStream);
  try {
    return folder.exists() && isIntact(folder.pathOf(row.name), row);
  } catch (error) {
    // One file that cannot be read must not keep the store closed. Its partial file is gone, so it
    // was renamed.
    if (error instanceof FramesError && error.code === "not-stored") return true;
    throw error;
  }
}
