/** Files that are an image, or images one after the other: nothing but reading them is needed. */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { asFramesError, FramesError } from "../../errors.ts";
import type { CapturedFrame } from "../live/iterable-source.ts";
import { type SplitFrame, Splitter } from "../image/splitter.ts";

/** Containers that a `Splitter` can take apart, by ffmpeg's names. */
const splittableContainers = /^(?:mjpeg|image2|(?:jpeg|png|bmp|pbm|pgm|ppm|pam|pfm)_pipe)$/;

/** What files of `container`, which is no container but images as they are, have to be read with. */
export function imageFileReader(
  container: string,
):
  | ((path: string, name: string, maxFrameBytes: number) => AsyncIterator<CapturedFrame>)
  | undefined {
  if (splittableContainers.test(container)) return readImages;
  return container.endsWith("_pipe") ? readImage : undefined;
}

/**
 * A file that is one image: one frame, byte for byte and under its own name, captured when it was written.
 *
 * @param name of the file, for people
 */
export async function* readImage(
  path: string,
  name: string,
  maxFrameBytes: number,
): AsyncGenerator<CapturedFrame, undefined> {
  try {
    const { size, mtimeNs } = statSync(path, { bigint: true });
    if (size > maxFrameBytes) {
      const limit = `${maxFrameBytes} are the most`;
      throw new FramesError("too-large", `Cannot read ${name}: it is ${size} bytes long, ${limit}`);
    }
    yield { bytes: await Bun.file(path).bytes(), name: basename(path), captured: mtimeNs };
    return undefined;
  } catch (error) {
    throw asFramesError(error, "unreadable", `Cannot read ${name}`);
  }
}

/**
 * A file of images one after the other. Nothing says when each of them was captured: it was before the
 * file was last written to.
 */
export async function* readImages(
  path: string,
  name: string,
  maxFrameBytes: number,
): AsyncGenerator<CapturedFrame, undefined> {
  try {
    const captured = statSync(path, { bigint: true }).mtimeNs;
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
    // The only one: the file is that image.
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
