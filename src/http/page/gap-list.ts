/** The gaps of a stream: numbers of frames that are not stored. */
import { type ApiClient, type FrameJson, type GapJson, streamPath } from "./api.ts";
import { parseNanoseconds } from "./format.ts";

/** Limit of gaps that are requested. */
const maxGaps = 2_000;

export class GapList {
  readonly #api: ApiClient;
  #gaps: readonly GapJson[] = [];
  #stream: string | undefined;

  constructor(api: ApiClient) {
    this.#api = api;
  }

  get all(): readonly GapJson[] {
    return this.#gaps;
  }

  clear(): void {
    this.#stream = undefined;
    this.#gaps = [];
  }

  /**
   * Requests the gaps of a stream.
   *
   * @throws {ApiError}
   */
  async load(stream: string): Promise<void> {
    this.clear();
    this.#stream = stream;
    const found: GapJson[] = [];
    for (let after: string | null = ""; after !== null && found.length < maxGaps;) {
      const from = after === "" ? "" : `&after=${encodeURIComponent(after)}`;
      const path = `${streamPath(stream)}/gaps?limit=500${from}`;
      const page: { gaps: GapJson[]; next: string | null } = await this.#api.get(path);
      found.push(...page.gaps);
      after = page.next;
    }
    if (this.#stream === stream) this.#gaps = found;
  }

  /** Returns the gap of a source that is next to a frame. */
  adjacent(frame: FrameJson, direction: -1 | 1): GapJson | undefined {
    const ofSource = this.#gaps.filter(({ source }) => source === frame.source);
    const isBeyond = ({ session, first, last, at }: GapJson): boolean => {
      if (session === frame.session) {
        return direction > 0 ? first > frame.number : last + 1 < frame.number;
      }
      const distance = (parseNanoseconds(at) ?? 0n) - BigInt(frame.captured);
      return direction > 0 ? distance > 0n : distance < 0n;
    };
    const isNearer = (one: GapJson, other: GapJson): boolean => {
      const [isOwn, isOtherOwn] = [one, other].map(({ session }) => session === frame.session);
      if (isOwn !== isOtherOwn) return isOwn === true;
      const distance = isOwn
        ? BigInt(one.first - other.first)
        : (parseNanoseconds(one.at) ?? 0n) - (parseNanoseconds(other.at) ?? 0n);
      return direction > 0 ? distance < 0n : distance > 0n;
    };
    return ofSource
      .filter(isBeyond)
      .reduce<GapJson | undefined>(
        (best, gap) => (best === undefined || isNearer(gap, best) ? gap : best),
        undefined,
      );
  }
}
