/** Reads the URL of a camera from a file, so that its password is in no argument of a process. */
import { FramesError, usageError } from "../../errors.ts";
import { readSecret } from "../../keys/secret-file.ts";
import { parseInput } from "../../source/media/input.ts";

/**
 * Returns the URL in the first line of a file that is neither empty nor a comment.
 *
 * @throws {FramesError} `usage` if other users can read the file, or it has no URL of a camera;
 * `missing` if it cannot be read
 */
export function readUrlFile(path: string): string {
  const secret = readSecret(path);
  if (secret === undefined) {
    throw new FramesError("missing", `Cannot read the URL of a camera in ${path}: no such file`);
  }
  const lines = secret.text.split(/\r?\n/).map((line) => line.trim());
  const [url = "", ...others] = lines.filter((line) => line !== "" && !line.startsWith("#"));
  if (others.length === 0 && parseInput(url)?.kind === "url") return url;
  throw usageError(
    `Cannot use ${path}: expected one line with the URL of a camera, such as rtsp://camera/1`,
  );
}
