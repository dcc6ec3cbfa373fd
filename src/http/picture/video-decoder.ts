/**
 * Decodes encoded video for clients that know pictures only. Each watched source has one ffmpeg, which
 * all its viewers share. It starts with the first viewer and ends after the last.
 */
import { FramesError } from "../../errors.ts";
import { ffmpegVersion, findProgram, isOldVersion, runFfmpeg } from "../../source/media/ffmpeg.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { matroskaHead, matroskaPictureHead, matroskaTickNs } from "../../video/matroska.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import type { SourceStats } from "../live/source-stats.ts";
import { maxLiveFrameBytes } from "./newest-frames.ts";
import { VideoFollower, type VideoStore } from "./video-follower.ts";

/** Sources decoded at a time. */
const maxDecoders = 4;

/** Pixels of a picture: 4096x2304. ffmpeg keeps up to 17 pictures of 1.5 bytes a pixel. */
const maxPixels = 4096 * 2304;

/** Time after the last viewer for which ffmpeg goes on, so that a poll does not start it each time. */
const lingerMs = 10_000;

/** Time in which ffmpeg must return a picture for the ones it was given, in milliseconds. */
const hangTimeoutMs = 10_000;

/** ffmpeg may be silent as long as its source is: 12 days. */
const noTimeoutMs = 2 ** 30;

/** Pictures that ffmpeg has not returned, of which the numbers are known. */
const maxInside = 64;

/** Quality of JPEG, from 2 (best) to 31. */
const jpegQuality = 4;

/** A decoded picture. */
export interface DecodedPicture {
  readonly record: FrameRecord;
  readonly jpeg: Uint8Array;
  /** Counts the pictures of its decoder from 1. */
  readonly serial: number;
}

/** A viewer of a decoder. */
export interface VideoViewer {
  /** The newest picture, if there is one. */
  readonly newest: DecodedPicture | undefined;
  /**
   * Resolves when there is a newer picture, or the viewer is closed.
   *
   * @throws {FramesError} `unreadable` if ffmpeg has failed
   */
  changed(): Promise<void>;
  close(): void;
}

export class VideoDecoders {
  readonly #store: VideoStore;
  readonly #decoders = new Map<SourceStats, VideoDecoder>();
  readonly #unsubscribeTick: () => void;

  constructor(store: VideoStore) {
    this.#store = store;
    this.#unsubscribeTick = store.liveSources.onTick(() => this.#stopIdle());
  }

  /**
   * Adds a viewer of a source.
   *
   * @throws {FramesError} `missing` without ffmpeg, `full` if too many sources are watched
   */
  watch(stats: SourceStats, codec: VideoCodec): VideoViewer {
    let decoder = this.#decoders.get(stats);
    if (decoder === undefined || decoder.codec !== codec || decoder.hasEnded) {
      findProgram("ffmpeg", "show video as JPEG");
      decoder?.stop();
      this.#decoders.delete(stats);
      this.#makeRoom();
      decoder = new VideoDecoder(this.#store, stats, codec);
      this.#decoders.set(stats, decoder);
    }
    return decoder.addViewer();
  }

  #makeRoom(): void {
    if (this.#decoders.size < maxDecoders) return;
    for (const [stats, decoder] of this.#decoders) {
      if (!decoder.isIdle) continue;
      decoder.stop();
      this.#decoders.delete(stats);
      return;
    }
    throw new FramesError(
      "full",
      `Cannot show another video as JPEG: ${maxDecoders} are decoded, which is the limit; read latest.h264 or latest.h265`,
    );
  }

  #stopIdle(): void {
    const idleSince = this.#store.liveSources.now - lingerMs;
    for (const [stats, decoder] of this.#decoders) {
      decoder.checkProgress();
      if (!decoder.hasEnded && !(decoder.isIdle && decoder.lastUsedAt < idleSince)) continue;
      decoder.stop();
      this.#decoders.delete(stats);
    }
  }

  close(): void {
    this.#unsubscribeTick();
    for (const decoder of this.#decoders.values()) decoder.stop();
    this.#decoders.clear();
  }
}

class VideoDecoder {
  readonly codec: VideoCodec;
  readonly #store: VideoStore;
  readonly #stats: SourceStats;
  readonly #stopping = new AbortController();
  /** Called when there is a picture, and at the end. */
  readonly #waiting = new Set<() => void>();
  /** Pictures given to ffmpeg by their time in ticks, in order. */
  readonly #inside = new Map<number, FrameRecord>();
  /** When ffmpeg was given a picture after which it has returned none, in milliseconds. */
  #fedAt: number | undefined;
  #viewers = 0;
  #newest: DecodedPicture | undefined;
  #error: FramesError | undefined;
  lastUsedAt: number;

  constructor(store: VideoStore, stats: SourceStats, codec: VideoCodec) {
    this.#store = store;
    this.#stats = stats;
    this.codec = codec;
    this.lastUsedAt = store.liveSources.now;
    void this.#run();
  }

  get isIdle(): boolean {
    return this.#viewers === 0;
  }

  get hasEnded(): boolean {
    return this.#error !== undefined;
  }

  addViewer(): VideoViewer {
    this.#viewers++;
    let isClosed = false;
    let wake = () => {};
    const decoder = this;
    return {
      get newest() {
        return decoder.#newest;
      },
      changed: async () => {
        if (this.#error !== undefined) throw this.#error;
        if (isClosed) return;
        await new Promise<void>((resolve) => this.#waiting.add((wake = resolve)));
        if (this.#error !== undefined && !isClosed) throw this.#error;
      },
      close: () => {
        if (isClosed) return;
        isClosed = true;
        this.#viewers--;
        this.lastUsedAt = this.#store.liveSources.now;
        this.#waiting.delete(wake);
        wake();
      },
    };
  }

  /** Stops an ffmpeg that returns no picture. */
  checkProgress(): void {
    const { now } = this.#store.liveSources;
    if (this.#fedAt === undefined || now - this.#fedAt < hangTimeoutMs) return;
    this.#end(`ffmpeg returned no picture for ${hangTimeoutMs / 1000} s`);
  }

  stop(): void {
    this.#end("it is no longer watched");
  }

  #end(reason: string): void {
    const { stream, source } = this.#stats;
    const message = `Cannot show ${source} of ${stream} as JPEG: ${reason}; latest.${this.codec} sends the stored bytes`;
    this.#error ??= new FramesError("unreadable", message);
    this.#stopping.abort();
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  async #run(): Promise<void> {
    let reason = "ffmpeg ended";
    try {
      const args = decoderArgs(isOldVersion(await ffmpegVersion()));
      const packets = runFfmpeg(args, {
        maxPacketBytes: maxLiveFrameBytes,
        stallTimeoutMs: noTimeoutMs,
        signal: this.#stopping.signal,
        input: this.#pictures(),
      });
      for (;;) {
        const { done, value } = await packets.next();
        if (done === true) {
          reason = value.message || value.failure || reason;
          break;
        }
        if ("bytes" in value) this.#onPicture(value.time ?? 0n, value.bytes);
      }
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
    this.#end(reason);
  }

  #onPicture(time: bigint, jpeg: Uint8Array): void {
    this.#fedAt = undefined;
    const tick = Number(time / BigInt(matroskaTickNs));
    // Times that do not rise are changed, and then the picture is the last one before.
    const given = [...this.#inside.keys()].filter((fed) => fed <= tick);
    const record = this.#inside.get(Math.max(...given)) ?? this.#newest?.record;
    for (const fed of given) this.#inside.delete(fed);
    if (record === undefined) return;
    this.#newest = { record, jpeg, serial: (this.#newest?.serial ?? 0) + 1 };
    this.#wake();
  }

  /** Yields the pictures of the source as a Matroska stream, as ffmpeg takes them. */
  async *#pictures(): AsyncGenerator<Uint8Array, undefined> {
    const follower = new VideoFollower(this.#store, this.#stats, this.codec);
    const { signal } = this.#stopping;
    let arrived = () => {};
    const unsubscribe = this.#store.liveSources.subscribe(this.#stats, () => arrived());
    signal.addEventListener("abort", () => arrived());
    try {
      yield matroskaHead(this.codec);
      let start: bigint | undefined;
      while (!signal.aborted) {
        const arrival = new Promise<void>((resolve) => (arrived = resolve));
        const picture = await follower.next();
        if (picture === undefined) {
          await arrival;
          continue;
        }
        const { record, bytes } = picture;
        start ??= record.captured;
        // Room for pictures before the first one, which B-frames may be.
        let tick = Math.max(0, Number((record.captured - start) / BigInt(matroskaTickNs)));
        while (this.#inside.has(tick)) tick++;
        this.#inside.set(tick, record);
        if (this.#inside.size > maxInside) this.#inside.delete(this.#inside.keys().next().value!);
        this.#fedAt ??= this.#store.liveSources.now;
        yield matroskaPictureHead(tick, bytes.length, record.isKey === true);
        yield bytes;
      }
    } finally {
      unsubscribe();
    }
    return undefined;
  }
}

function decoderArgs(isOldFfmpeg: boolean): string[] {
  return [
    // Without these, ffmpeg would wait for more pictures before it decodes the first.
    ...["-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0"],
    // Threads would delay pictures, and take more memory.
    ...["-threads", "1", "-max_pixels", `${maxPixels}`, "-f", "matroska", "-i", "pipe:0"],
    ...["-map", "0:v:0", "-threads", "1", "-c:v", "mjpeg", "-q:v", `${jpegQuality}`],
    // The encoder gives up at times that do not rise, as those of a clock that was set back.
    ...["-vf", "setpts=if(isnan(PREV_OUTPTS)\\,PTS\\,max(PTS\\,PREV_OUTPTS+1))"],
    ...["-pix_fmt", "yuvj420p", "-enc_time_base", "-1"],
    ...[isOldFfmpeg ? "-vsync" : "-fps_mode", "passthrough"],
  ];
}
