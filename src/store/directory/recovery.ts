/** Puts in order what a server left behind that was killed, without looking at the frames. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isIntact } from "./file-check.ts";
import type { Journal, Replacement } from "../journal/journal.ts";
import { framePath, relativePath } from "../paths.ts";

/** What was found half done. */
export interface Recovery {
  /** Frames that were not whole; they were never confirmed. */
  readonly unfinished: number;
  /** Frames that had taken the places of others, and have their rows now. */
  readonly replaced: number;
}

/**
 * @param root the store
 * @param partialFolder its folder of unfinished frames
 * @param copiedStream the stream that it is a copy of, if it is one
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

/** Whether the frame has taken its place. A file that kept its own name has not. */
function isReplaced(
  root: string,
  partialFolder: string,
  replacement: Replacement,
  copiedStream: string | undefined,
): boolean {
  const { stream, source, name } = replacement.row;
  if (existsSync(join(partialFolder, replacement.partial))) return false;
  // After a power cut the file may have neither name.
  const path = relativePath(framePath(stream, source, name), copiedStream);
  return isIntact(join(root, path), replacement.row);
}
