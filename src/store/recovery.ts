/** Puts in order what a server left behind that was killed, without looking at the frames. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isIntact } from "./content.ts";
import type { Journal, Replacement } from "./journal.ts";
import { pathOfFrame, placeOf } from "./tree.ts";

/** What was found half done. */
export interface Recovery {
  /** Frames that were not whole; they were never confirmed. */
  readonly unfinished: number;
  /** Frames that had taken the places of others, and have their rows now. */
  readonly replaced: number;
}

/**
 * @param place the store
 * @param partial its folder of unfinished frames
 * @param copied the stream that it is a copy of, if it is one
 */
export function recover(
  place: string,
  partial: string,
  journal: Journal,
  copied: string | undefined,
): Recovery {
  let replaced = 0;
  for (const replacement of journal.replacements()) {
    const isDone = isReplaced(place, partial, replacement, copied);
    journal.endReplacement(replacement, isDone);
    if (isDone) replaced++;
  }
  journal.flush();
  const unfinished = readdirSync(partial);
  for (const name of unfinished) rmSync(join(partial, name), { recursive: true });
  return { unfinished: unfinished.length, replaced };
}

/** Whether the frame has taken its place. A file that kept its own name has not. */
function isReplaced(
  place: string,
  partial: string,
  replacement: Replacement,
  copied: string | undefined,
): boolean {
  const { stream, source, name } = replacement.row;
  if (existsSync(join(partial, replacement.partial))) return false;
  // After a power cut the file may have neither name.
  const path = placeOf(pathOfFrame(stream, source, name), copied);
  return isIntact(join(place, path), replacement.row);
}
