/** Where frames lie below a store, and which files there are frames. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Path of a frame below its store. */
export function pathOfFrame(stream: string, source: string, name: string): string {
  return source === stream ? `${stream}/${name}` : `${stream}/${source}/${name}`;
}

/**
 * Path below the folder that a store lies in, of what is at `path` below the store: a copy of one stream has
 * no folder for it.
 *
 * @param copied the stream that the store is a copy of, if it is one
 */
export function placeOf(path: string, copied: string | undefined): string {
  if (copied === undefined) return path;
  return path === copied ? "" : path.slice(copied.length + 1);
}

/** A file where a frame would lie. */
export interface FrameFile {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
}

/**
 * All files in the folders of a store that could be frames.
 *
 * @param copied the stream that the store is a copy of, if it is one
 */
export function* framesBelow(place: string, copied: string | undefined): Generator<FrameFile> {
  if (copied !== undefined) return yield* framesOf(place, copied, "");
  for (const entry of readdirSync(place, { withFileTypes: true })) {
    if (entry.isDirectory() && !entry.name.startsWith(".")) {
      yield* framesOf(join(place, entry.name), entry.name, "");
    }
  }
}

/** @param top the folder of the stream */
function* framesOf(top: string, stream: string, folder: string): Generator<FrameFile> {
  const source = folder === "" ? stream : folder;
  for (const entry of readdirSync(join(top, folder), { withFileTypes: true })) {
    const { name } = entry;
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) continue;
    if (entry.isDirectory())
      yield* framesOf(top, stream, folder === "" ? name : `${folder}/${name}`);
    // A folder named like its stream is no source: those frames lie directly in the stream's.
    else if (entry.isFile() && folder !== stream) yield { stream, source, name };
  }
}
