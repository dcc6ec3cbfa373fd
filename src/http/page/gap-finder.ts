/** Finds the next gap of a source: lost numbers, or a time without frames. */
import { type ApiClient, type FrameJson, type GapJson, type PauseJson, streamPath } from "./api.ts";
import { displayCount, displayDuration, parseNanoseconds, toMilliseconds } from "./format.ts";
import type { GapList } from "./gap-list.ts";

/** A gap, as it is told to the user. */
export interface FoundGap {
  /** The frame after it; of numbers lost at the end of a session the one before it. */
  readonly frame: FrameJson;
  readonly text: string;
}

export class GapFinder {
  readonly #api: ApiClient;
  readonly #gaps: GapList;

  constructor(api: ApiClient, gaps: GapList) {
    this.#api = api;
    this.#gaps = gaps;
  }

  /**
   * Returns the gap of a source that is next to a frame.
   *
   * @param isCancelled whether the user has gone elsewhere, which ends a long search
   * @throws {ApiError}
   */
  async find(
    frame: FrameJson,
    direction: -1 | 1,
    isCancelled: () => boolean,
  ): Promise<FoundGap | undefined> {
    const [numbers, pause] = await Promise.all([
      this.#findNumbers(frame, direction),
      this.#findPause(frame, direction, isCancelled),
    ]);
    if (numbers === undefined || pause === undefined) return numbers ?? pause;
    if (numbers.frame.cursor === pause.frame.cursor) {
      return { frame: pause.frame, text: `${pause.text}; ${numbers.text}` };
    }
    return nearestGap([numbers, pause], direction);
  }

  async #findNumbers(frame: FrameJson, direction: -1 | 1): Promise<FoundGap | undefined> {
    const gap = this.#gaps.adjacent(frame, direction);
    if (gap === undefined) return undefined;
    const found =
      (await this.#frameOf(frame, gap, gap.last + 1)) ??
      (await this.#frameOf(frame, gap, gap.first - 1));
    if (found === undefined || found.cursor === frame.cursor) return undefined;
    return { frame: found, text: lostText(gap) };
  }

  async #frameOf({ stream, source }: FrameJson, { session }: GapJson, number: number) {
    const { frames } = await this.#api.frames(stream, source, `number=${number}`);
    return frames.find((frame) => frame.session === session);
  }

  async #findPause(
    { stream, source, cursor }: FrameJson,
    direction: -1 | 1,
    isCancelled: () => boolean,
  ): Promise<FoundGap | undefined> {
    const side = direction > 0 ? "after" : "before";
    const path = `${streamPath(stream)}/pause?source=${encodeURIComponent(source)}&${side}=`;
    for (let from: string | null = cursor; from !== null && !isCancelled();) {
      const found: PauseJson = await this.#api.get(`${path}${encodeURIComponent(from)}`);
      if (found.pause !== null) {
        const { frame, since } = found.pause;
        const length = (parseNanoseconds(frame.captured) ?? 0n) - (parseNanoseconds(since) ?? 0n);
        return { frame, text: `${displayDuration(toMilliseconds(length))} without frames` };
      }
      from = found.next;
    }
    return undefined;
  }
}

/** Returns the gap whose frame comes first in a direction. */
export function nearestGap(gaps: readonly FoundGap[], direction: -1 | 1): FoundGap | undefined {
  const captured = ({ frame }: FoundGap): bigint => parseNanoseconds(frame.captured) ?? 0n;
  return gaps.toSorted((one, other) => Number(captured(one) - captured(other)) * direction)[0];
}

function lostText({ first, last, reason }: GapJson): string {
  const range =
    first === last
      ? `frame ${displayCount(first)} is`
      : `frames ${displayCount(first)} to ${displayCount(last)} are`;
  return `${range} missing${reason === null ? "" : `: ${reason}`}`;
}
