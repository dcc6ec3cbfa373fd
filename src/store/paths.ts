/** Where frames lie below a store, and which files there are frames. */
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Path of a frame below its store. */
export function framePath(stream: string, source: string, name: string): string {
  return source === stream ? `${stream}/${name}` : `${stream}/${source}/${name}`;
}

/**
 * Path below the folder that a store lies in, of what is at `path` below the store: a copy of one stream has
 * no folder for it.
 *
 * @param copiedStream the stream that the store is a copy of, if it is one
 */
export function relativePath(path: string, copiedStream: string | undefined): string {
  if (copiedStream === undefined) return path;
  return path === copiedStream ? "" : path.slice(copiedStream.length + 1);
}

/** The parts of a frame's path in a store. */
export interface FramePath {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
}

/**
 * All files in the folders of a store that could be frames.
 *
 * @param copiedStream the stream that the store is a copy of, if it is one
 */
export function* listFrameFiles(
  root: string,
  copiedStream: string | undefined,
): Generator<FramePath> {
  if (copiedStream !== undefined) return yield* listFolder(root, copiedStream, "");
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (entry.isDirectory() && !entry.name.startsWith(".")) {
      yield* listFolder(join(root, entry.name), entry.name, "");
    }
  }
}

/** @param streamFolder the folder of the stream */
function* listFolder(streamFolder: string, stream: string, folder: string): Generator<FramePath> {
  const source = folder === "" ? stream : folder;
  for (const entry of readdirSync(join(streamFolder, folder), { withFileTypes: true })) {
    const { name } = entry;
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) continue;
    if (entry.isDirectory())
      yield* listFolder(streamFolder, stream, folder === "" ? name : `${folder}/${name}`);
    // A folder named like its stream is no source: those frames lie directly in the stream's.
    else if (entry.isFile() && folder !== stream) yield { stream, source, name };
  }
}
