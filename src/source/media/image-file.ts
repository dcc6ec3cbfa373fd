/** Reads files that contain one image or a sequence of images, without ffmpeg. */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { toCaptureTime } from "../../common/capture-time.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import type { CapturedFrame } from "../live/iterable-source.ts";
import { type SplitFrame, Splitter } from "../image/splitter.ts";

/** Containers that `Splitter` can split, by ffmpeg's names. */
const splittableContainers = /^(?:mjpeg|image2|(?:jpeg|png|bmp|pbm|pgm|ppm|pam|pfm)_pipe)$/;

/** Returns the reader for files of `container`, or `undefined` if only ffmpeg can read them. */
export function imageFileReader(
  container: string,
):
  | ((
      path: string,
      name: string,
      maxFrameBytes: number,
      onTimeClamped?: (path: string) => void,
    ) => AsyncIterator<CapturedFrame>)
  | undefined {
  if (splittableContainers.test(container)) return readImages;
  return container.endsWith("_pipe") ? readImage : undefined;
}

/**
 * Reads a file with one image as one frame: unchanged, with the file's name, captured at its
 * modification time.
 *
 * @param name name of the file, for messages
 * @param onTimeClamped called if the time of the file cannot be a capture time
 */
export async function* readImage(
  path: string,
  name: string,
  maxFrameBytes: number,
  onTimeClamped?: (path: string) => void,
): AsyncGenerator<CapturedFrame, undefined> {
  try {
    const { size, mtimeNs } = statSync(path, { bigint: true });
    if (size > maxFrameBytes) {
      const limit = `the limit is ${maxFrameBytes}`;
      throw new FramesError("too-large", `Cannot read ${name}: it is ${size} bytes long, ${limit}`);
    }
    const captured = toCaptureTime(mtimeNs, () => onTimeClamped?.(path));
    yield { bytes: await Bun.file(path).bytes(), name: basename(path), captured };
    return undefined;
  } catch (error) {
    throw asFramesError(error, "unreadable", `Cannot read ${name}`);
  }
}

/**
 * Reads a file of concatenated images. All get the modification time of the file as capture time,
 * because their own times are unknown.
 */
export async function* readImages(
  path: string,
  name: string,
  maxFrameBytes: number,
  onTimeClamped?: (path: string) => void,
): AsyncGenerator<CapturedFrame, undefined> {
  try {
    const { mtimeNs } = statSync(path, { bigint: true });
    const captured = toCaptureTime(mtimeNs, () => onTimeClamped?.(path));
    const splitter = new Splitter({ maxFrameBytes });
    let first: SplitFrame | undefined;
    let count = 0;
    for await (const chunk of Bun.file(path).stream()) {
      for (const frame of splitter.push(chunk)) {
        if (++count === 1) {
          first = frame;
          continue;
        }
        if (first !== undefined) yield { ...first, captured };
        first = undefined;
        yield { ...frame, captured };
      }
    }
    const last = splitter.end();
    // A single image keeps the name of its file.
    if (first !== undefined && last === undefined) {
      yield { bytes: first.bytes, name: basename(path), captured };
    } else {
      if (first !== undefined) yield { ...first, captured };
      if (last !== undefined) yield { ...last, captured };
    }
    return undefined;
  } catch (error) {
    throw asFramesError(error, "unreadable", `Cannot read ${name}`);
  }
}
