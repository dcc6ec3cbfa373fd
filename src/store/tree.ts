/** Where frames lie below a store, and which files there are frames. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Path of a frame below its store. */
export function pathOfFrame(stream: string, source: string, name: string): string {
  return source === stream ? `${stream}/${name}` : `${stream}/${source}/${name}`;
}

/** A file where a frame would lie. */
export interface FrameFile {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
}

/** All files in the folders of a store that could be frames. */
export function* framesBelow(place: string): Generator<FrameFile> {
  for (const entry of readdirSync(place, { withFileTypes: true })) {
    if (entry.isDirectory() && !entry.name.startsWith(".")) {
      yield* framesOf(place, entry.name, "");
    }
  }
}

function* framesOf(place: string, stream: string, folder: string): Generator<FrameFile> {
  const source = folder === "" ? stream : folder;
  for (const entry of readdirSync(join(place, stream, folder), { withFileTypes: true })) {
    const { name } = entry;
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) continue;
    if (entry.isDirectory())
      yield* framesOf(place, stream, folder === "" ? name : `${folder}/${name}`);
    // A folder named like its stream is no source: those frames lie directly in the stream's.
    else if (entry.isFile() && folder !== stream) yield { stream, source, name };
  }
}
