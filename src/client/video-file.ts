/** Writes the frames of one video source into an MP4 or Matroska file, through ffmpeg. */
import { closeSync, existsSync } from "node:fs";
import { FramesError, usageError } from "../errors.ts";
import { feedFfmpeg, findProgram } from "../source/media/ffmpeg.ts";
import { DecodableFilter } from "../video/decodable.ts";
import { matroskaHead, matroskaPictureHead, matroskaTickNs } from "../video/matroska.ts";
import { pictureKind, type VideoCodec } from "../video/nal-units.ts";
import { codecOf } from "../video/picture-head.ts";
import type { ReceivedFrame } from "./callback-sink.ts";
import { checkIsFree, createPartialFile, nameFile, partialPathOf } from "./new-file.ts";

/** ffmpeg's names of the containers, by extension. */
const containers: Readonly<Record<string, string>> = { mp4: "mp4", mkv: "matroska" };

/** Duration of the last picture. In MP4 it would be hidden without one, if its stream tells none. */
const lastPictureNs = 40_000_000;

/** Milliseconds in which ffmpeg must take a frame. */
const stallTimeoutMs = 60_000;

/** Returns whether a path names a video that `VideoFile` writes. */
export function isVideoPath(path: string): boolean {
  return containerOf(path) !== undefined;
}

function containerOf(path: string): string | undefined {
  return containers[/\.([^./\\]+)$/.exec(path)?.[1]?.toLowerCase() ?? ""];
}

export class VideoFile {
  readonly #path: string;
  #filter: DecodableFilter | undefined;

  /** @throws {FramesError} `usage` if the path is taken, `missing` without ffmpeg */
  constructor(path: string) {
    this.#path = path;
    findProgram("ffmpeg", `write ${path}`);
    checkIsFree(path);
  }

  /** Frames that are not in the file, because no decoder could show them. */
  get skipped(): number {
    return this.#filter?.skipped ?? 0;
  }

  /** Written frames of encoded video that may be damaged. */
  get maybeDamaged(): number {
    return this.#filter?.maybeDamaged ?? 0;
  }

  /**
   * Writes the frames that can be decoded as `PATH.part`. Writes no file if there are none.
   *
   * @returns what `frames` returns at its end
   * @throws {FramesError} `usage` if a frame is no encoded video, `store` if ffmpeg fails; what
   * `frames` throws
   */
  async write<T>(frames: AsyncGenerator<ReceivedFrame, T, void>): Promise<T> {
    const decodable = this.#decodable(frames);
    try {
      const first = await decodable.next();
      return first.done === true ? first.value : await this.#writeFrom(first.value, decodable);
    } finally {
      // Ends the session if the file cannot be written.
      await decodable.return(undefined as T);
    }
  }

  /** Yields the frames that a decoder can take. */
  async *#decodable<T>(
    frames: AsyncGenerator<ReceivedFrame, T, void>,
  ): AsyncGenerator<ReceivedFrame, T, void> {
    try {
      let codec: VideoCodec | undefined;
      for (;;) {
        const { done, value } = await frames.next();
        if (done === true) return value;
        codec ??= this.#codecOf(value);
        if (this.#codecOf(value) !== codec) throw this.#unfit(value, `no ${codec} as the first`);
        this.#filter ??= new DecodableFilter(codec);
        if (this.#filter.accepts(value.sequence, value.bytes)) yield value;
      }
    } finally {
      await frames.return(undefined as T);
    }
  }

  async #writeFrom<T>(
    first: ReceivedFrame,
    frames: AsyncGenerator<ReceivedFrame, T, void>,
  ): Promise<T> {
    const path = this.#path;
    closeSync(createPartialFile(path));
    // The moment of the first frame is time 0.
    const created = new Date(Number(first.captured / 1_000_000n)).toISOString();
    const args = [
      ...["-f", "matroska", "-i", "pipe:0", "-map", "0:v:0", "-c", "copy"],
      ...["-metadata", `creation_time=${created}`],
      ...["-f", containerOf(path)!, "-y", `file:${partialPathOf(path)}`],
    ];
    let last: T | undefined;
    const input = this.#toMatroska(first, frames, (result) => (last = result));
    const { failure, message } = await feedFfmpeg(args, input, stallTimeoutMs);
    if (failure === undefined) return last as T;
    const reason = message === "" ? failure : `${failure}: ${message}`;
    throw new FramesError("store", `Cannot write ${path}: ${reason}`);
  }

  async *#toMatroska<T>(
    first: ReceivedFrame,
    frames: AsyncGenerator<ReceivedFrame, T, void>,
    onEnd: (result: T) => void,
  ): AsyncGenerator<Uint8Array, undefined> {
    const codec = this.#codecOf(first);
    // Other containers would name it as the rate of the pictures.
    const lastNs = containerOf(this.#path) === "mp4" ? lastPictureNs : undefined;
    yield matroskaHead(codec, lastNs);
    for (let frame = first; ;) {
      const { captured, bytes } = frame;
      // A clock that was set back makes no time before the first.
      const ticks = Math.max(0, Number((captured - first.captured) / BigInt(matroskaTickNs)));
      // ffmpeg leaves out what comes before the first picture that is marked.
      const isStart = pictureKind(bytes, codec)?.recoveryCount !== undefined;
      yield matroskaPictureHead(ticks, bytes.length, isStart);
      yield bytes;
      const next = await frames.next();
      if (next.done === true) return void onEnd(next.value);
      frame = next.value;
    }
  }

  #codecOf(frame: ReceivedFrame): VideoCodec {
    const codec = codecOf(undefined, frame.name);
    if (codec === undefined) throw this.#unfit(frame, "no H.264 or H.265");
    return codec;
  }

  #unfit({ name, source }: ReceivedFrame, what: string): FramesError {
    return usageError(
      `Cannot write ${this.#path}: the frame ${JSON.stringify(name)} of ${source} is ${what}; receive the stream into a directory`,
    );
  }

  /**
   * Gives the file its name.
   *
   * @returns whether there is one
   * @throws {FramesError} `store`, `usage` if the path is taken meanwhile
   */
  complete(): boolean {
    if (!existsSync(partialPathOf(this.#path))) return false;
    nameFile(this.#path);
    return true;
  }
}
