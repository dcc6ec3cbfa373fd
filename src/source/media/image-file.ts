/** Reads files that contain one image or a sequence of images, without ffmpeg. */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { toCaptureTime } from "../../common/capture-time.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import type { Capture } from "../live/iterable-source.ts";
import type { OnSourceEvent } from "../source-event.ts";
import { type LostImage, type SplitFrame, Splitter } from "../image/splitter.ts";

/** Containers that `Splitter` can split, by ffmpeg's names. */
const splittableContainers = /^(?:mjpeg|(?:jpeg|png|bmp|pbm|pgm|ppm|pam|pfm)_pipe)$/;

/** Returns the reader for files of `container`, or `undefined` if only ffmpeg can read them. */
export function imageFileReader(
  container: string,
):
  | ((
      path: string,
      name: string,
      maxFrameBytes: number,
      onEvent?: OnSourceEvent,
    ) => AsyncIterator<Capture>)
  | undefined {
  if (splittableContainers.test(container)) return readImages;
  return container.endsWith("_pipe") ? readImage : undefined;
}

/**
 * Reads a file with one image as one frame: unchanged, with the file's name, captured at its
 * modification time.
 *
 * @param name name of the file, for messages
 * @param onEvent called if the time of the file cannot be a capture time
 */
export async function* readImage(
  path: string,
  name: string,
  maxFrameBytes: number,
  onEvent?: OnSourceEvent,
): AsyncGenerator<Capture, undefined> {
  try {
    const { size, mtimeNs } = statSync(path, { bigint: true });
    if (size > maxFrameBytes) {
      const limit = `the limit is ${maxFrameBytes}`;
      throw new FramesError("too-large", `Cannot read ${name}: it is ${size} bytes long, ${limit}`);
    }
    const captured = toCaptureTime(mtimeNs, () => onEvent?.({ type: "time-clamped", path }));
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
  onEvent?: OnSourceEvent,
): AsyncGenerator<Capture, undefined> {
  let first: Capture | undefined;
  try {
    const { mtimeNs } = statSync(path, { bigint: true });
    const captured = toCaptureTime(mtimeNs, () => onEvent?.({ type: "time-clamped", path }));
    const splitter = new Splitter({ maxFrameBytes });
    let count = 0;
    for await (const item of splitFile(path, splitter)) {
      const capture = "error" in item ? lossInFile(item, name) : { ...item, captured };
      if (++count === 1) {
        first = capture;
        continue;
      }
      if (first !== undefined) yield first;
      first = undefined;
      yield capture;
    }
    // A single image keeps the name of its file.
    if (first !== undefined) first = { ...first, name: basename(path) };
  } catch (error) {
    if (first !== undefined) yield first;
    throw asFramesError(error, "unreadable", `Cannot read ${name}`);
  }
  if (first !== undefined) yield first;
  return undefined;
}

async function* splitFile(
  path: string,
  splitter: Splitter,
): AsyncGenerator<SplitFrame | LostImage, undefined> {
  for await (const chunk of Bun.file(path).stream()) yield* splitter.push(chunk);
  yield* splitter.end();
  return undefined;
}

/** Says in which file an image was lost. */
function lossInFile({ error }: LostImage, name: string): LostImage {
  return { error: new FramesError(error.code, `${name}: ${error.message}`, { cause: error }) };
}
