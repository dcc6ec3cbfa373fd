/** Paths of frames below a store, and a walk over the files that may be frames. */
import { type Dirent, readdirSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../errors.ts";

/** Returns the path of a frame below its store. */
export function framePath(stream: string, source: string, name: string): string {
  return source === stream ? `${stream}/${name}` : `${stream}/${source}/${name}`;
}

/**
 * Returns the path below the folder of the store for a `path` that begins with the stream. A copy
 * of one stream has no folder for the stream, so that part is removed.
 *
 * @param copiedStream the stream that the store is a copy of, if it is one
 * @throws {FramesError} `bad-name` if it is a copy of another stream
 */
export function relativePath(path: string, copiedStream: string | undefined): string {
  if (copiedStream === undefined) return path;
  if (path === copiedStream) return "";
  if (path.startsWith(`${copiedStream}/`)) return path.slice(copiedStream.length + 1);
  throw new FramesError("bad-name", `${path} is not of ${copiedStream}, the copied stream`);
}

/** The parts of a frame's path in a store. */
export interface FramePath {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
}

/**
 * Yields every file in the folders of a store that may be a frame. Skips hidden files and those
 * that end in `.tmp` or `.part`.
 *
 * @param copiedStream the stream that the store is a copy of, if it is one
 * @param onUnreadable called for the folder of a source that cannot be read; by default this throws
 */
export function* listFrameFiles(
  root: string,
  copiedStream: string | undefined,
  onUnreadable: OnUnreadableFolder = (_, error) => {
    throw error;
  },
): Generator<FramePath> {
  if (copiedStream !== undefined) return yield* listFolder(root, copiedStream, "", onUnreadable);
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (entry.isDirectory() && !entry.name.startsWith(".")) {
      yield* listFolder(join(root, entry.name), entry.name, "", onUnreadable);
    }
  }
}

type OnUnreadableFolder = (folder: Omit<FramePath, "name">, error: unknown) => void;

/**
 * @param streamFolder path of the stream's folder
 * @param folder path of a folder below it, or "" for the stream's folder itself
 */
function* listFolder(
  streamFolder: string,
  stream: string,
  folder: string,
  onUnreadable: OnUnreadableFolder,
): Generator<FramePath> {
  const source = folder === "" ? stream : folder;
  let entries: Dirent[];
  try {
    entries = readdirSync(join(streamFolder, folder), { withFileTypes: true });
  } catch (error) {
    return onUnreadable({ stream, source }, error);
  }
  for (const entry of entries) {
    const { name } = entry;
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) continue;
    if (entry.isDirectory())
      yield* listFolder(
        streamFolder,
        stream,
        folder === "" ? name : `${folder}/${name}`,
        onUnreadable,
      );
    // A source named like its stream has its frames directly in the stream's folder. A subfolder of
    // that name holds no frames.
    else if (entry.isFile() && folder !== stream) yield { stream, source, name };
  }
}
