/** Checks the access units of one source of encoded video, and says what is unusual about them. */
import { FramesError } from "../../errors.ts";
import {
  isParameterSet,
  isSlice,
  nalUnits,
  type PictureKind,
  pictureKind,
  sequenceTypes,
  type VideoCodec,
  videoTypes,
} from "../../video/nal-units.ts";

/** Called with a sentence about a source, such as "its timestamps jump". */
export type OnNotice = (message: string) => void;

/** Names of the codecs for people. */
export const codecNames = { h264: "H.264", h265: "H.265" } as const;

/** Time without a key frame after which that is reported, in nanoseconds. */
const maxKeyInterval = 60_000_000_000n;

/** The same for a stream that has recovery points. Some cameras have a few between key frames. */
const maxRecoveryInterval = 10_000_000_000n;

/** Longest pause between pictures that counts. A longer one is a jump of the timestamps. */
const maxPause = 10_000_000_000n;

export const keyFrameAdvice = "set a key frame interval of 1 or 2 seconds at the camera";

export class EncodedVideo {
  readonly codec: VideoCodec;
  readonly #onNotice: OnNotice;
  #hasBegun = false;
  #lastTime = 0n;
  /** Nanoseconds since the last key frame. */
  #sinceKey = 0n;
  /** Whether the source was reported to have no key frames, and none came since. */
  #isReported = false;
  /** Whether the source was reported to have recovery points instead. That is said once. */
  #hasRecoveryPoints = false;
  #sequenceSet: Buffer | undefined;

  constructor(codec: VideoCodec, onNotice: OnNotice) {
    this.codec = codec;
    this.#onNotice = onNotice;
  }

  /** Media type of its frames. */
  get type(): string {
    return videoTypes[this.codec];
  }

  /**
   * Returns whether an access unit is a key frame.
   *
   * @param captured its capture time, in nanoseconds since 1970
   * @throws {FramesError} `unreadable` if it holds no picture of this codec
   */
  checkKey(bytes: Uint8Array, captured: bigint): boolean {
    const kind = pictureKind(bytes, this.codec);
    if (kind === undefined) {
      throw new FramesError(
        "unreadable",
        `Cannot send the frame: it holds no picture of ${codecNames[this.codec]} in Annex B; check what the source sends`,
      );
    }
    if (!this.#hasBegun && kind.recoveryCount === undefined) {
      this.#onNotice("its pictures before the first key frame cannot be decoded");
    }
    this.#checkInterval(kind, captured);
    if (kind.isKey) this.#checkSequenceSet(bytes);
    this.#hasBegun = true;
    return kind.isKey;
  }

  #checkInterval({ isKey, recoveryCount }: PictureKind, captured: bigint): void {
    const step = this.#hasBegun ? captured - this.#lastTime : 0n;
    this.#lastTime = captured;
    if (isKey) {
      this.#sinceKey = 0n;
      this.#isReported = this.#hasRecoveryPoints;
    } else if (step > 0n && step < maxPause) this.#sinceKey += step;
    if (this.#isReported) return;
    if (recoveryCount !== undefined && this.#sinceKey >= maxRecoveryInterval) {
      this.#isReported = this.#hasRecoveryPoints = true;
      const effect = "after lost pictures it goes on at one, with pictures that may be damaged";
      const advice = `turn off intra refresh and open GOPs, and ${keyFrameAdvice}`;
      this.#onNotice(`it has recovery points instead of key frames: ${effect}; ${advice}`);
    } else if (this.#sinceKey >= maxKeyInterval) {
      this.#isReported = true;
      const effect = "viewers cannot begin, and lost pictures damage the ones after them";
      this.#onNotice(`no key frame came for 60 s: ${effect}; ${keyFrameAdvice}`);
    }
  }

  #checkSequenceSet(bytes: Uint8Array): void {
    for (const { header, end, type } of nalUnits(bytes, this.codec)) {
      if (isSlice(type, this.codec)) return;
      if (!isParameterSet(type, this.codec) || type !== sequenceTypes[this.codec]) continue;
      const set = Buffer.from(bytes.subarray(header, end));
      const earlier = this.#sequenceSet;
      this.#sequenceSet = set;
      if (earlier !== undefined && !earlier.equals(set)) {
        this.#onNotice("the size or the coding of its pictures changed");
      }
      return;
    }
  }
}
