/** Prepares copied access units of one run of ffmpeg as frames. */
import { ParameterSets } from "../../video/parameter-sets.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import type { OnNotice } from "../live/encoded-video.ts";
import { VideoStart } from "../live/video-start.ts";
import type { Packet } from "./packets.ts";

/** Messages of ffmpeg about packets that did not arrive, or arrived damaged. */
const lossPattern =
  /missed -?\d+ packets|max delay reached|corrupt|Packet mismatch|Error applying bitstream filters/i;

/** Step of the timestamps that counts as a jump, in nanoseconds. Reordered pictures differ by less. */
const maxStep = 10_000_000_000n;

/** Pictures in a row without a later time that are told. Reordered pictures are 16 at most. */
const maxRepeated = 30;

export interface CopiedVideoOptions {
  readonly codec: VideoCodec;
  /** Parameter sets that the container or the camera describes, in Annex B. */
  readonly parameterSets: Uint8Array;
  /** Whether it is a live stream, of which pictures before the first key frame are left out. */
  readonly isLive: boolean;
  readonly onNotice: OnNotice;
}

export class CopiedVideo {
  readonly #parameterSets: ParameterSets;
  readonly #start: VideoStart | undefined;
  readonly #isLive: boolean;
  readonly #onNotice: OnNotice;
  #lastTime: bigint | undefined;
  /** Latest time since the last jump, and number of pictures since then. */
  #latestTime: bigint | undefined;
  #repeated = 0;
  /** Whether the next jump is usual: a sender report of RTCP changes the times of a live stream. */
  #expectsJump: boolean;

  constructor({ codec, parameterSets, isLive, onNotice }: CopiedVideoOptions) {
    this.#parameterSets = new ParameterSets(codec, parameterSets);
    this.#start = isLive ? new VideoStart(codec, onNotice) : undefined;
    this.#isLive = isLive;
    this.#onNotice = onNotice;
    this.#expectsJump = isLive;
  }

  /** Returns the access unit with its parameter sets, or `undefined` if it is left out. */
  complete({ bytes, time }: Packet): Uint8Array | undefined {
    const unit = this.#parameterSets.complete(bytes);
    if (time !== undefined) this.#checkTime(time);
    return this.#start?.skips(unit) === true ? undefined : unit;
  }

  #checkTime(time: bigint): void {
    const step = time - (this.#lastTime ?? time);
    this.#lastTime = time;
    if (step <= maxStep && step >= -maxStep) return this.#checkAdvance(time);
    this.#latestTime = undefined;
    if (!this.#expectsJump) this.#onNotice("its timestamps jump");
    this.#expectsJump = false;
  }

  #checkAdvance(time: bigint): void {
    if (this.#latestTime === undefined || time > this.#latestTime) {
      this.#latestTime = time;
      this.#repeated = 0;
    } else if (++this.#repeated === maxRepeated) {
      this.#onNotice("its timestamps do not advance");
    }
  }

  /** Takes a message of ffmpeg. */
  onLog(sentence: string): void {
    if (!lossPattern.test(sentence)) return;
    const damage = "pictures are damaged until the next key frame";
    this.#onNotice(
      this.#isLive
        ? `data was lost on its way: ${damage}; use RTSP over TCP, or check the link`
        : `parts of it cannot be read: ${damage}`,
    );
  }
}
