/** Receive target that writes frames into an MCAP file, or into one file after another. */
import { existsSync } from "node:fs";
import { FramesError } from "../errors.ts";
import type { FrameDescription, FrameWriter, Outcome, SourceInfo } from "../frame.ts";
import { checkIsFree } from "./new-file.ts";
import { RecordingFile } from "./recording-file.ts";
import { UnjournaledTarget } from "./unjournaled-target.ts";

/** When a file is complete and the next one begins. The first limit that is reached counts. */
export interface SegmentLimits {
  readonly bytes?: number | undefined;
  /** Milliseconds since the file was begun. */
  readonly milliseconds?: number | undefined;
}

export interface RecordingTargetOptions {
  readonly stream: string;
  /** Undefined for a single file. */
  readonly segment: SegmentLimits | undefined;
  /** Called with the path of each complete file. */
  readonly onFile: (path: string) => void;
}

export class RecordingTarget extends UnjournaledTarget {
  readonly isFull = false;
  readonly #path: string;
  readonly #options: RecordingTargetOptions;
  #file: RecordingFile | undefined;
  #segmentTimer: NodeJS.Timeout | undefined;
  /** Whether a frame has begun. Frames arrive one after another (SPEC section 9). */
  #isWriting = false;
  #isDue = false;
  #failure: unknown;

  /** @throws {FramesError} `usage` if the path is taken */
  constructor(path: string, options: RecordingTargetOptions) {
    super();
    this.#path = path;
    this.#options = options;
    if (options.segment === undefined) checkIsFree(path);
  }

  get location(): string {
    return this.#path;
  }

  get failure(): unknown {
    return this.#failure;
  }

  checkSources(): void {}

  protected begin(source: SourceInfo, description: FrameDescription): FrameWriter {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isWriting) {
      throw new FramesError("protocol", "Cannot accept FRAME: another one is unfinished");
    }
    this.#run(() => {
      if (this.#isFullWith(description.size)) this.#complete();
      this.#file ??= this.#createFile();
      this.#file.writer.begin({ ...description, ...source });
    });
    this.#isWriting = true;
    return {
      write: (bytes) => this.#run(() => this.#file!.writer.write(bytes)),
      finish: (checksum) => this.#finish(source, description, checksum),
      discard: () => {
        this.#isWriting = false;
        // After a failure the file is as it is.
        if (this.#failure === undefined) this.#run(() => this.#file!.writer.discard());
      },
    };
  }

  #finish(source: SourceInfo, description: FrameDescription, checksum: number): Outcome {
    this.remember(source, description);
    this.#run(() => this.#file!.writer.finish(checksum));
    this.#isWriting = false;
    if (this.#isDue) this.#run(() => this.#complete());
    return "stored";
  }

  #isFullWith(bytes: number): boolean {
    const limit = this.#options.segment?.bytes ?? Infinity;
    const { writer } = this.#file ?? {};
    return writer !== undefined && writer.frames > 0 && writer.size + bytes > limit;
  }

  #createFile(): RecordingFile {
    const { stream, segment } = this.#options;
    if (segment === undefined) return new RecordingFile(this.#path, stream);
    const { milliseconds } = segment;
    const file = new RecordingFile(segmentPath(this.#path), stream);
    if (milliseconds !== undefined) {
      this.#segmentTimer = setTimeout(
        () => this.#onSegmentEnd(),
        Math.min(milliseconds, maxTimerMs),
      );
    }
    return file;
  }

  #onSegmentEnd(): void {
    this.#isDue = true;
    if (this.#isWriting) return;
    try {
      this.#run(() => this.#complete());
    } catch {
      // The next frame, or else `close`, throws it.
    }
  }

  /** Completes the file that is being written. */
  #complete(): void {
    clearTimeout(this.#segmentTimer);
    this.#isDue = false;
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    file.complete();
    this.#options.onFile(file.path);
  }

  /**
   * Ends the last file.
   *
   * @param isComplete whether everything has been received; otherwise a single file keeps its
   * temporary name
   * @throws {FramesError} `store` if a file could not be written
   */
  close(isComplete: boolean): void {
    clearTimeout(this.#segmentTimer);
    const canComplete = isComplete || this.#options.segment !== undefined;
    if (canComplete && this.#failure === undefined && !this.#isWriting) this.#complete();
    else this.#file?.close();
    this.#file = undefined;
    if (isComplete && this.#failure !== undefined) throw this.#failure;
  }

  /** Remembers an error, because it ends the session instead of the connection. */
  #run(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
  }
}

/** Longest time of a timer. */
const maxTimerMs = 2 ** 31 - 1;

/** Returns the path of a new segment: `out.mcap` becomes `out-20261130T071203.123Z.mcap`. */
function segmentPath(path: string): string {
  for (let time = Date.now(); ; time++) {
    const text = new Date(time).toISOString().replaceAll("-", "").replaceAll(":", "");
    const segment = path.replace(/(?:\.mcap)?$/i, (extension) => `-${text}${extension}`);
    if (!existsSync(segment)) return segment;
  }
}
