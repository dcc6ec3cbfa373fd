/** Finds recorded frames and shows those of one moment: by time, number, steps, gaps and playback. */
/// <reference lib="dom" />
import { type ApiClient, ApiError, type FrameJson } from "./api.ts";
import { announce } from "./dom.ts";
import { displayCount, displayDateTime, parseNanoseconds } from "./format.ts";
import type { FramePanel } from "./frame-panel.ts";
import { type FoundGap, GapFinder, nearestGap } from "./gap-finder.ts";
import type { GapList } from "./gap-list.ts";
import { Player, type PlayerTarget } from "./player.ts";

/** A time to show, in ns since 1970. The time of the nearest frame takes its place. */
export interface TimeTarget {
  readonly at: bigint;
  /** Farthest that this frame may be, in ns; a time without frames is shown as it is. Default: any. */
  readonly within?: bigint;
  /** Whether the user named the time, and is told if there is no frame. */
  readonly isNamed?: boolean;
}

/** Target of a seek: time, first frame, frame number, offset in frames, or next gap. */
export type SeekTarget =
  | TimeTarget
  | { readonly first: true }
  | { readonly number: number }
  | { readonly by: number }
  | { readonly gap: -1 | 1 };

/** Limit of sources in one `moment` request. */
const maxRequestedSources = 64;
/** Frames requested ahead during playback. */
const prefetchFrames = 200;
/** Distance from a time that the user named from which on its frame is another one, in ns. */
const otherTimeNs = 1_000_000_000n;
/** Limit of other sources that are searched for a gap. */
const maxSearchedSources = 8;

export interface NavigatorHandlers {
  /** Called when frames of another moment are shown. */
  onMoment(): void;
  /** Called when another source is selected. */
  onChoose(): void;
  /** Called with what the user should know, or undefined if nothing. */
  onNotice(text: string | undefined): void;
  onPlayingChange(): void;
}

export class FrameNavigator implements PlayerTarget {
  readonly player: Player;
  readonly #api: ApiClient;
  readonly #gapFinder: GapFinder;
  readonly #handlers: NavigatorHandlers;
  #stream: string | undefined;
  #panels: readonly FramePanel[] = [];
  #chosenSource = "";
  #shownAt = 0n;
  #isBusy = false;
  #pendingTarget: SeekTarget | undefined;
  /** Whether panels have become visible that still show another time. */
  #needsRefresh = false;
  /** Whether playback begins when the seeks that run are done. */
  #mustPlay = false;

  constructor(api: ApiClient, gaps: GapList, handlers: NavigatorHandlers) {
    this.#api = api;
    this.#gapFinder = new GapFinder(api, gaps);
    this.#handlers = handlers;
    this.player = new Player(this);
  }

  /** Shows another stream in these panels; none of them if undefined. */
  open(stream: string | undefined, panels: readonly FramePanel[]): void {
    this.stop();
    this.#stream = stream;
    this.#panels = panels;
    this.#shownAt = 0n;
    this.#pendingTarget = undefined;
  }

  /** Time shown, in ns since 1970; 0 while there is none. */
  get shownAt(): bigint {
    return this.#shownAt;
  }

  /** The source whose frames are stepped through. */
  get chosenSource(): string {
    return this.#chosenSource;
  }

  get chosenPanel(): FramePanel | undefined {
    return this.#panels.find(({ source }) => source === this.#chosenSource);
  }

  /** The frame shown of the chosen source. */
  get frame(): FrameJson | undefined {
    return this.chosenPanel?.frame;
  }

  get isInterrupted(): boolean {
    return this.#pendingTarget !== undefined;
  }

  onPlayingChange(): void {
    this.#handlers.onPlayingChange();
  }

  choose(source: string): void {
    this.#chosenSource = source;
    for (const panel of this.#panels) panel.isSelected = panel.source === source;
    this.#handlers.onNotice(undefined);
    this.#handlers.onChoose();
    // Aligns the other sources with the frame of the newly selected one.
    const captured = parseNanoseconds(this.frame?.captured);
    if (captured === undefined) return;
    this.#shownAt = captured;
    this.refresh();
  }

  /** Shows the moment in panels that have become visible. */
  refresh(): void {
    this.#needsRefresh = true;
    if (!this.#isBusy) void this.#runSeeks();
  }

  /** Runs one seek at a time. A newer target replaces a waiting one, but offsets add up. */
  seek(target: SeekTarget): void {
    this.#handlers.onNotice(undefined);
    const pending = this.#pendingTarget;
    const isSum = "by" in target && pending !== undefined && "by" in pending;
    this.#pendingTarget = isSum ? { by: target.by + pending.by } : target;
    if (!this.#isBusy) void this.#runSeeks();
  }

  /** Plays in a direction, or stops. Twice in the same direction doubles the speed. */
  play(direction: -1 | 1): void {
    const { player } = this;
    const isPlaying = player.isPlaying || this.#mustPlay;
    if (isPlaying && player.direction === direction) {
      player.speed = Math.min(16, player.speed * 2);
      return;
    }
    this.#handlers.onNotice(undefined);
    player.direction = direction;
    this.#mustPlay = true;
    if (!this.#isBusy) void this.#runPlayback();
  }

  stop(): void {
    this.#mustPlay = false;
    this.player.stop();
  }

  async #runSeeks(): Promise<void> {
    this.#isBusy = true;
    try {
      while (this.#pendingTarget !== undefined || this.#needsRefresh) {
        const target = this.#pendingTarget;
        this.#pendingTarget = undefined;
        this.#needsRefresh = false;
        try {
          if (target !== undefined) await this.#seekTo(target);
          else if (this.#shownAt !== 0n) await this.#refreshMoment();
        } catch (error) {
          // A seek that failed does not hold up the one that was asked for meanwhile.
          this.#showError(error);
        }
      }
    } finally {
      this.#isBusy = false;
    }
    if (this.#mustPlay) void this.#runPlayback();
  }

  async #runPlayback(): Promise<void> {
    this.#mustPlay = false;
    if (this.#stream === undefined) return;
    this.#isBusy = true;
    try {
      await this.player.run();
    } catch (error) {
      this.#showError(error);
    } finally {
      this.#isBusy = false;
    }
    if (this.#pendingTarget !== undefined || this.#needsRefresh) void this.#runSeeks();
    else if (this.#mustPlay) void this.#runPlayback();
  }

  async #seekTo(target: SeekTarget): Promise<void> {
    if (this.#stream === undefined) return;
    if ("at" in target) await this.#seekToTime(target);
    else {
      const frame = await this.#findFrame(target);
      if (frame === undefined) return;
      await this.showFrame(frame);
      announce(`Frame ${displayCount(frame.number)} of ${frame.source}`);
    }
  }

  async #seekToTime({ at, within, isNamed = false }: TimeTarget): Promise<void> {
    await this.#showMoment(at, undefined, within);
    const captured = parseNanoseconds(this.frame?.captured);
    if (!isNamed || captured === undefined || this.isInterrupted) return;
    if (distanceOf(captured, at) < otherTimeNs) return;
    const which = captured > at ? "next" : "last";
    this.#handlers.onNotice(
      `No frame at ${timeText(at, captured)}; the ${which} is at ${timeText(captured, at)}`,
    );
  }

  async #findFrame(target: Exclude<SeekTarget, TimeTarget>): Promise<FrameJson | undefined> {
    if ("first" in target) return (await this.#list("limit=1"))[0];
    if ("number" in target) return await this.#frameByNumber(target.number);
    if ("gap" in target) return await this.#frameAtGap(target.gap);
    const { frame } = this;
    if (frame === undefined || target.by === 0) return undefined;
    const direction = target.by > 0 ? 1 : -1;
    return (await this.framesBeyond(frame, direction, Math.abs(target.by))).at(-1);
  }

  async framesBeyond(
    { cursor }: FrameJson,
    direction: -1 | 1,
    limit = prefetchFrames,
  ): Promise<FrameJson[]> {
    const side = direction > 0 ? "after" : "before";
    const frames = await this.#list(`${side}=${encodeURIComponent(cursor)}&limit=${limit}`);
    return direction > 0 ? frames : frames.reverse();
  }

  async #list(query: string): Promise<FrameJson[]> {
    return (await this.#api.frames(this.#stream!, this.#chosenSource, query)).frames;
  }

  async #frameByNumber(number: number): Promise<FrameJson | undefined> {
    const [found] = await this.#list(`number=${number}`);
    const missing = `${this.#chosenSource} has no frame ${displayCount(number)} here`;
    this.#handlers.onNotice(found === undefined ? missing : undefined);
    return found;
  }

  /** Returns the frame at the next gap: of the selected source, or else of any other that is shown. */
  async #frameAtGap(direction: -1 | 1): Promise<FrameJson | undefined> {
    const source = this.#chosenSource;
    const isCancelled = (): boolean => this.isInterrupted;
    const find = async (frame: FrameJson | undefined): Promise<FoundGap | undefined> =>
      frame === undefined ? undefined : this.#gapFinder.find(frame, direction, isCancelled);
    const own = await find(this.frame);
    if (own !== undefined) {
      this.#handlers.onNotice(`${source}: ${own.text}`);
      return own.frame;
    }
    const others = this.#panels.filter((panel) => panel.isVisible && panel.source !== source);
    const found = await Promise.all(
      others.slice(0, maxSearchedSources).map(({ frame }) => find(frame)),
    );
    if (this.isInterrupted) return undefined;
    const none = `${source} has no gap ${direction > 0 ? "after" : "before"} this frame`;
    const gap = nearestGap(
      found.filter((one) => one !== undefined),
      direction,
    );
    if (gap !== undefined) this.choose(gap.frame.source);
    this.#handlers.onNotice(gap === undefined ? none : `${none}; ${gap.frame.source}: ${gap.text}`);
    return gap?.frame;
  }

  /** Shows a frame of the selected source, and the nearest frames of the others. */
  async showFrame(frame: FrameJson): Promise<void> {
    await this.#showMoment(parseNanoseconds(frame.captured) ?? this.#shownAt, frame);
  }

  /** Shows the moment in the panels that do not show it yet. */
  async #refreshMoment(): Promise<void> {
    const { frame } = this;
    await this.#showMoment(this.#shownAt, frame, frame === undefined ? undefined : 0n);
  }

  /** @param within farthest that a frame of the selected source may be whose time is shown */
  async #showMoment(
    at: bigint,
    chosenFrame: FrameJson | undefined,
    within?: bigint,
  ): Promise<void> {
    const stream = this.#stream!;
    const requested = this.#panels.filter(({ isVisible, source }) =>
      source === this.#chosenSource ? chosenFrame === undefined : isVisible,
    );
    const sources = requested.slice(0, maxRequestedSources).map(({ source }) => source);
    const nearestFrames = sources.length === 0 ? [] : await this.#api.moment(stream, sources, at);
    if (this.#stream !== stream) return;
    const frames = chosenFrame === undefined ? nearestFrames : [chosenFrame, ...nearestFrames];
    // The time becomes that of the selected source's frame, so the other sources are requested for it
    // again.
    const nearest = frames.find(({ source }) => source === this.#chosenSource);
    const captured = parseNanoseconds(nearest?.captured) ?? at;
    const isNear = within === undefined || distanceOf(captured, at) <= within;
    if (nearest !== undefined && captured !== at && isNear) {
      return await this.#showMoment(captured, nearest);
    }
    this.#shownAt = at;
    await Promise.all(
      frames.map(async (frame) => {
        const panel = this.#panels.find(({ source }) => source === frame.source);
        await panel?.show(frame, at);
      }),
    );
    if (this.#stream === stream) this.#handlers.onMoment();
  }

  #showError(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    this.#handlers.onNotice(error.message);
  }
}

function distanceOf(one: bigint, other: bigint): bigint {
  return one > other ? one - other : other - one;
}

/** Formats a time to the second, with its day if that is not the day of another time. */
function timeText(time: bigint, other: bigint): string {
  const text = displayDateTime(time).slice(0, 19);
  return text.slice(0, 10) === displayDateTime(other).slice(0, 10) ? text.slice(11) : text;
}
