/** Finds recorded frames and shows those of one moment: by time, number, steps, gaps and playback. */
/// <reference lib="dom" />
import { type ApiClient, ApiError, type FrameJson } from "./api.ts";
import { announce } from "./dom.ts";
import { displayCount, parseNanoseconds } from "./format.ts";
import type { FramePanel } from "./frame-panel.ts";
import type { GapList } from "./gap-list.ts";
import { Player, type PlayerTarget } from "./player.ts";

/** Target of a seek: time, first frame, frame number, offset in frames, or next gap. */
export type SeekTarget =
  | { readonly at: bigint }
  | { readonly first: true }
  | { readonly number: number }
  | { readonly by: number }
  | { readonly gap: -1 | 1 };

/** Limit of sources in one `moment` request. */
const maxRequestedSources = 64;
/** Frames requested ahead during playback. */
const prefetchFrames = 200;

export interface NavigatorHandlers {
  /** Called when frames of another moment are shown. */
  onMoment(): void;
  /** Called with what the user should know, or undefined if nothing. */
  onNotice(text: string | undefined): void;
  onPlayingChange(): void;
}

export class FrameNavigator implements PlayerTarget {
  readonly player: Player;
  readonly #api: ApiClient;
  readonly #gaps: GapList;
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
    this.#gaps = gaps;
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
          else if (this.#shownAt !== 0n) await this.#showMoment(this.#shownAt, this.frame);
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
    if ("at" in target) {
      await this.#showMoment(target.at, undefined);
    } else {
      const frame = await this.#findFrame(target);
      if (frame === undefined) return;
      await this.showFrame(frame);
      announce(`Frame ${displayCount(frame.number)} of ${frame.source}`);
    }
  }

  async #findFrame(target: Exclude<SeekTarget, { at: bigint }>): Promise<FrameJson | undefined> {
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

  /** Returns the frame after the next gap; at the end of a session the one before it. */
  async #frameAtGap(direction: -1 | 1): Promise<FrameJson | undefined> {
    const { frame } = this;
    const gap = frame === undefined ? undefined : this.#gaps.adjacent(frame, direction);
    if (gap === undefined) {
      const side = direction > 0 ? "after" : "before";
      this.#handlers.onNotice(`${this.#chosenSource} has no gap ${side} this frame`);
      return undefined;
    }
    const ofSession = async (number: number): Promise<FrameJson | undefined> =>
      (await this.#list(`number=${number}`)).find(({ session }) => session === gap.session);
    const found = (await ofSession(gap.last + 1)) ?? (await ofSession(gap.first - 1));
    const range =
      gap.first === gap.last
        ? `Frame ${displayCount(gap.first)} is`
        : `Frames ${displayCount(gap.first)} to ${displayCount(gap.last)} are`;
    const reason = gap.reason === null ? "" : `: ${gap.reason}`;
    this.#handlers.onNotice(`${range} missing${reason}`);
    return found;
  }

  /** Shows a frame of the selected source, and the nearest frames of the others. */
  async showFrame(frame: FrameJson): Promise<void> {
    await this.#showMoment(parseNanoseconds(frame.captured) ?? this.#shownAt, frame);
  }

  async #showMoment(at: bigint, chosenFrame: FrameJson | undefined): Promise<void> {
    const stream = this.#stream!;
    const requested = this.#panels.filter(({ isVisible, source }) =>
      source === this.#chosenSource ? chosenFrame === undefined : isVisible,
    );
    const sources = requested.slice(0, maxRequestedSources).map(({ source }) => source);
    const nearestFrames = sources.length === 0 ? [] : await this.#api.moment(stream, sources, at);
    if (this.#stream !== stream) return;
    const frames = chosenFrame === undefined ? nearestFrames : [chosenFrame, ...nearestFrames];
    // The time is that of the selected source's frame, so the other sources are requested for it
    // again.
    const nearest = frames.find(({ source }) => source === this.#chosenSource);
    const captured = parseNanoseconds(nearest?.captured) ?? at;
    if (nearest !== undefined && captured !== at) return await this.#showMoment(captured, nearest);
    this.#shownAt = captured;
    await Promise.all(
      frames.map(async (frame) => {
        const panel = this.#panels.find(({ source }) => source === frame.source);
        await panel?.show(frame, captured);
      }),
    );
    if (this.#stream === stream) this.#handlers.onMoment();
  }

  #showError(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    this.#handlers.onNotice(error.message);
  }
}
