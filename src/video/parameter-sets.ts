/** Remembers the parameter sets of a stream of encoded video, without which no picture is decoded. */
import {
  isParameterSet,
  isSlice,
  nalUnits,
  pictureKind,
  sequenceTypes,
  type VideoCodec,
} from "./nal-units.ts";

/** Types that a decoder needs to begin, and the type of the access unit delimiter. */
const neededTypes = { h264: [7, 8], h265: [32, 33, 34] } as const;
const delimiterTypes = { h264: 9, h265: 35 } as const;

/** Limits for all sets together. H.264 allows 256 picture parameter sets, and real ones are short. */
const maxSets = 300;
const maxBytes = 64 << 10;

interface ParameterSet {
  readonly type: number;
  /** With its start code. */
  readonly bytes: Buffer;
}

/** Adds parameter sets to key frames and recovery points that lack them. */
export class ParameterSets {
  readonly #codec: VideoCodec;
  #sets: readonly ParameterSet[] = [];

  /** @param initial sets that the container or the camera describes, in Annex B */
  constructor(codec: VideoCodec, initial: Uint8Array = new Uint8Array(0)) {
    this.#codec = codec;
    this.complete(initial);
  }

  /** Returns an access unit with the sets that it needs; the same bytes if none is missing. */
  complete(unit: Uint8Array): Uint8Array {
    const own: ParameterSet[] = [];
    let afterDelimiter = 0;
    let read = 0;
    for (const { start, end, type } of nalUnits(unit, this.#codec)) {
      if (isSlice(type, this.#codec)) break;
      // An access unit delimiter stays the first NAL unit.
      if (type === delimiterTypes[this.#codec]) afterDelimiter = end;
      // Also repeated sets count, because each is compared with all others.
      if (!isParameterSet(type, this.#codec) || read++ >= maxSets) continue;
      const bytes = Buffer.from(unit.subarray(start, end));
      if (!own.some((set) => set.bytes.equals(bytes))) own.push({ type, bytes });
    }
    const isMissing = neededTypes[this.#codec].some(
      (type) => !own.some((set) => set.type === type),
    );
    const earlier = this.#sets;
    if (own.length > 0) this.#remember(own);
    if (!isMissing || earlier.length === 0) return unit;
    if (pictureKind(unit, this.#codec)?.recoveryCount === undefined) return unit;
    const added = earlier.filter((set) => !own.some(({ bytes }) => bytes.equals(set.bytes)));
    return Buffer.concat([
      unit.subarray(0, afterDelimiter),
      ...added.map(({ bytes }) => bytes),
      unit.subarray(afterDelimiter),
    ]);
  }

  /** A new sequence parameter set replaces earlier sets of the types that come with it. */
  #remember(own: readonly ParameterSet[]): void {
    const hasSequence = own.some(({ type }) => type === sequenceTypes[this.#codec]);
    const isReplaced = (set: ParameterSet): boolean => {
      return own.some(
        (one) => (hasSequence && one.type === set.type) || one.bytes.equals(set.bytes),
      );
    };
    // A decoder needs a sequence parameter set before the picture parameter sets that name it.
    const sets = [...this.#sets.filter((set) => !isReplaced(set)), ...own].sort(
      (a, b) => a.type - b.type,
    );
    const bytes = sets.reduce((sum, set) => sum + set.bytes.length, 0);
    if (sets.length <= maxSets && bytes <= maxBytes) this.#sets = sets;
  }
}
