/** The recorded view: frames of one time side by side, with timeline, stepping and playback. */
/// <reference lib="dom" />
import {
  type ApiClient,
  ApiError,
  type FrameJson,
  type GapJson,
  type StateJson,
  type StreamJson,
} from "./api.ts";
import { announce, button, element, setAttribute, setText } from "./dom.ts";
import { displayCount, toMilliseconds, displayDateTime, parseNanoseconds } from "./format.ts";
import { captureRange } from "./live-view.ts";
import { FramePanel } from "./frame-panel.ts";
import { formatHash, type ViewRoute } from "./route.ts";
import type { GreyPainter } from "./grey-painter.ts";
import { type Lane, Timeline } from "./timeline.ts";

/** Target of a seek: time, first frame, frame number, or offset in frames (negative: back). */
type SeekTarget =
  | { readonly at: bigint }
  | { readonly first: true }
  | { readonly number: number }
  | { readonly by: number };

/** Limit of sources in one `moment` request. */
const maxRequestedSources = 64;
/** Frames requested ahead during playback. */
const prefetchFrames = 60;
/** Maximum delay between two frames during playback. Longer pauses are shortened. */
const maxPlaybackDelayMs = 1_000;
/** Minimum interval between two URL changes, because browsers limit their rate. */
const addressIntervalMs = 400;
/** Limit of losses on the timeline. */
const maxLosses = 2_000;

export class RecordedView {
  readonly #root: HTMLElement;
  readonly #api: ApiClient;
  readonly #painter: GreyPainter;
  readonly #timeline = new Timeline((at) => this.#seek({ at }));
  readonly #title = element("h2");
  readonly #note = element("p", { class: "notice", hidden: true, role: "status" });
  readonly #grid = element("div", { class: "grid" });
  readonly #day = element("span", { class: "day" });
  readonly #time = element("span");
  readonly #moment = element("p", { class: "moment" }, this.#day, this.#time);
  readonly #play = button("Play", () => this.togglePlaying(), { "aria-keyshortcuts": "Space" });
  readonly #number = element("input", {
    type: "text",
    inputmode: "numeric",
    pattern: "[0-9]*",
    "aria-label": "Frame number",
    placeholder: "number",
  });
  readonly #observer = new IntersectionObserver((entries) => this.#onIntersection(entries));
  readonly #panelByElement = new WeakMap<Element, FramePanel>();
  #panels: readonly FramePanel[] = [];
  #lanes = new Map<string, Lane>();
  #losses: { source: string; at: bigint }[] = [];
  #stream: string | undefined;
  #chosenSource = "";
  #shownAt = 0n;
  #isBusy = false;
  #pendingTarget: SeekTarget | undefined;
  /** Whether panels have become visible that still show another time. */
  #needsRefresh = false;
  #isPlaying = false;
  #addressTimer = 0;

  constructor(root: HTMLElement, api: ApiClient, painter: GreyPainter) {
    this.#root = root;
    this.#api = api;
    this.#painter = painter;
    const form = element(
      "form",
      { class: "go" },
      this.#number,
      element("button", { type: "submit", text: "Go" }),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const number = Number(this.#number.value.replaceAll(/[\s,.]/g, ""));
      if (Number.isSafeInteger(number) && number > 0) this.#seek({ number });
    });
    const transport = element(
      "div",
      { class: "transport steps", role: "group", "aria-label": "Steps" },
      button("First", () => this.goToEnd(-1)),
      button("Previous", () => this.step(-1)),
      this.#play,
      button("Next", () => this.step(1)),
      button("Last", () => this.goToEnd(1)),
    );
    const zoom = element(
      "div",
      { class: "transport zoom", role: "group", "aria-label": "Zoom" },
      button("−", () => this.zoom(2), { "aria-label": "Zoom out" }),
      button("+", () => this.zoom(0.5), { "aria-label": "Zoom in" }),
      button("All", () => this.#timeline.showAll()),
    );
    root.append(
      element(
        "header",
        { class: "recorded-head" },
        element("a", { href: "#/", text: "Live" }),
        element("span", { class: "about", "aria-hidden": true, text: "/" }),
        this.#title,
      ),
      this.#note,
      this.#grid,
      element(
        "section",
        { class: "dock", "aria-label": "Timeline" },
        this.#timeline.element,
        element("div", { class: "controls" }, transport, this.#moment, form, zoom),
      ),
    );
  }

  /** Shows a route, or hides the view if there is none. */
  async show(route: ViewRoute | undefined): Promise<void> {
    this.#root.hidden = route === undefined;
    if (route === undefined) {
      this.#setPlaying(false);
      this.#stream = undefined;
      return;
    }
    if (route.stream !== this.#stream && !(await this.#load(route.stream))) return;
    const hasSource = route.source !== undefined && this.#lanes.has(route.source);
    this.#choose(hasSource ? route.source! : (this.#panels[0]?.source ?? ""));
    this.#seek({ at: route.at ?? this.#lanes.get(this.#chosenSource)?.last ?? 0n });
  }

  /** Extends the timeline while the stream receives frames. */
  update({ sources }: StateJson): void {
    if (this.#stream === undefined) return;
    let isLonger = false;
    for (const { stream, source, captured } of sources) {
      const lane = stream === this.#stream ? this.#lanes.get(source) : undefined;
      const last = parseNanoseconds(captured);
      if (lane === undefined || last === undefined || last <= lane.last) continue;
      this.#lanes.set(source, { ...lane, last });
      isLonger = true;
    }
    if (isLonger) this.#showLanes();
  }

  /** Moves by a number of frames; negative is back. */
  step(by: number): void {
    this.#setPlaying(false);
    this.#seek({ by });
  }

  /** Moves to the first or the last frame. */
  goToEnd(direction: -1 | 1): void {
    this.#setPlaying(false);
    const lane = this.#lanes.get(this.#chosenSource);
    if (lane === undefined) return;
    // Of frames with the same capture time, a moment shows the last.
    this.#seek(direction < 0 ? { first: true } : { at: lane.last });
  }

  /** Selects the previous or next source for stepping. */
  chooseAdjacent(by: number): void {
    const index = this.#panels.findIndex(({ source }) => source === this.#chosenSource);
    const next = this.#panels.at((index + by) % this.#panels.length);
    if (next !== undefined) this.#choose(next.source);
  }

  zoom(factor: number): void {
    this.#timeline.zoom(factor);
  }

  showAll(): void {
    this.#timeline.showAll();
  }

  focusNumber(): void {
    this.#number.focus();
    this.#number.select();
  }

  download(): void {
    this.#chosenPanel()?.download();
  }

  nextPalette(): void {
    for (const { picture } of this.#panels) picture.nextPalette();
  }

  togglePlaying(): void {
    if (this.#isPlaying) this.#setPlaying(false);
    else void this.#runPlayback();
  }

  async #load(stream: string): Promise<boolean> {
    this.#setPlaying(false);
    this.#stream = stream;
    setText(this.#title, stream);
    this.#clear();
    try {
      const path = `/api/streams/${encodeURIComponent(stream)}`;
      const { sources } = await this.#api.get<StreamJson>(path);
      if (this.#stream !== stream) return false;
      for (const source of sources) {
        const [first, last] = captureRange([source]);
        if (first === undefined || last === undefined) continue;
        this.#lanes.set(source.name, { name: source.name, first, last });
      }
      this.#panels = [...this.#lanes.keys()].map((name) => this.#createPanel(stream, name));
      this.#grid.classList.toggle("single", this.#panels.length === 1);
      this.#grid.append(...this.#panels.map((panel) => panel.element));
      this.#setNotice(this.#panels.length === 0 ? "This stream has no frames" : undefined);
      this.#showLanes();
      void this.#loadLosses(stream);
      return this.#panels.length > 0;
    } catch (error) {
      this.#showError(error);
      this.#stream = undefined;
      return false;
    }
  }

  #clear(): void {
    for (const panel of this.#panels) this.#observer.unobserve(panel.element);
    this.#grid.replaceChildren();
    this.#panels = [];
    this.#lanes = new Map();
    this.#losses = [];
    this.#shownAt = 0n;
  }

  #createPanel(stream: string, source: string): FramePanel {
    const panel = new FramePanel(this.#api, stream, source, this.#painter, () =>
      this.#choose(source),
    );
    this.#panelByElement.set(panel.element, panel);
    this.#observer.observe(panel.element);
    return panel;
  }

  async #loadLosses(stream: string): Promise<void> {
    try {
      for (let after: string | null = ""; after !== null && this.#losses.length < maxLosses;) {
        const from = after === "" ? "" : `&after=${encodeURIComponent(after)}`;
        const path = `/api/streams/${encodeURIComponent(stream)}/gaps?limit=500${from}`;
        const page: { gaps: GapJson[]; next: string | null } = await this.#api.get(path);
        if (this.#stream !== stream) return;
        for (const { source, at } of page.gaps) {
          const time = parseNanoseconds(at);
          if (time !== undefined) this.#losses.push({ source, at: time });
        }
        after = page.next;
      }
      this.#showLanes();
    } catch {
      // The timeline is usable without losses.
    }
  }

  #showLanes(): void {
    this.#timeline.show([...this.#lanes.values()], this.#losses, this.#chosenSource);
  }

  #choose(source: string): void {
    this.#chosenSource = source;
    for (const panel of this.#panels) panel.isSelected = panel.source === source;
    this.#showLanes();
    // Aligns the other sources with the frame of the newly selected one.
    const captured = parseNanoseconds(this.#chosenPanel()?.frame?.captured);
    if (captured === undefined) return;
    this.#shownAt = captured;
    this.#needsRefresh = true;
    if (!this.#isBusy) void this.#runSeeks();
  }

  #chosenPanel(): FramePanel | undefined {
    return this.#panels.find(({ source }) => source === this.#chosenSource);
  }

  #onIntersection(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const panel = this.#panelByElement.get(target);
      if (panel === undefined) continue;
      if (isIntersecting && !panel.isVisible) this.#needsRefresh = true;
      panel.isVisible = isIntersecting;
    }
    if (this.#needsRefresh && !this.#isBusy) void this.#runSeeks();
  }

  /** Runs one seek at a time. A newer target replaces a waiting one, but offsets add up. */
  #seek(target: SeekTarget): void {
    const pending = this.#pendingTarget;
    const isSum = "by" in target && pending !== undefined && "by" in pending;
    this.#pendingTarget = isSum ? { by: target.by + pending.by } : target;
    if (!this.#isBusy) void this.#runSeeks();
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
          else if (this.#shownAt !== 0n)
            await this.#showMoment(this.#shownAt, this.#chosenPanel()?.frame);
        } catch (error) {
          // A failed way does not hold up the one that was asked for meanwhile.
          this.#showError(error);
        }
      }
    } finally {
      this.#isBusy = false;
    }
  }

  async #seekTo(target: SeekTarget): Promise<void> {
    if (this.#stream === undefined) return;
    if ("at" in target) {
      await this.#showMoment(target.at, undefined);
    } else {
      const frame = await this.#findFrame(target);
      if (frame === undefined) return;
      await this.#showFrame(frame);
      announce(`Frame ${displayCount(frame.number)}, ${this.#time.textContent}`);
    }
  }

  #findFrame(target: Exclude<SeekTarget, { at: bigint }>): Promise<FrameJson | undefined> {
    if ("first" in target) return this.#firstFrame();
    return "by" in target ? this.#frameByOffset(target.by) : this.#frameByNumber(target.number);
  }

  async #firstFrame(): Promise<FrameJson | undefined> {
    const { frames } = await this.#api.frames(this.#stream!, this.#chosenSource, "limit=1");
    return frames[0];
  }

  /** Returns the frame of the selected source that is `by` frames away. */
  async #frameByOffset(by: number): Promise<FrameJson | undefined> {
    const cursor = this.#chosenPanel()?.frame?.cursor;
    if (cursor === undefined || by === 0) return undefined;
    const query = `${by > 0 ? "after" : "before"}=${encodeURIComponent(cursor)}&limit=${Math.abs(by)}`;
    const { frames } = await this.#api.frames(this.#stream!, this.#chosenSource, query);
    return frames.at(-1);
  }

  async #frameByNumber(number: number): Promise<FrameJson | undefined> {
    const { frames } = await this.#api.frames(
      this.#stream!,
      this.#chosenSource,
      `number=${number}`,
    );
    const [found] = frames;
    this.#setNotice(
      found === undefined
        ? `${this.#chosenSource} has no frame ${displayCount(number)} here`
        : undefined,
    );
    return found;
  }

  /** Shows a frame of the selected source, and the nearest frames of the others. */
  async #showFrame(frame: FrameJson): Promise<void> {
    await this.#showMoment(parseNanoseconds(frame.captured) ?? this.#shownAt, frame);
  }

  async #showMoment(at: bigint, chosenFrame: FrameJson | undefined): Promise<void> {
    const stream = this.#stream!;
    const requested = this.#panels.filter(({ isVisible, source }) =>
      source === this.#chosenSource ? chosenFrame === undefined : isVisible,
    );
    const sources = requested.slice(0, maxRequestedSources).map(({ source }) => source);
    const nearestFrames = sources.length === 0 ? [] : await this.#api.moment(stream, sources, at);
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
    if (this.#stream !== stream) return;
    this.#updateMoment();
    this.#writeAddress();
  }

  #updateMoment(): void {
    const frame = this.#chosenPanel()?.frame;
    const number = frame === undefined ? "" : `frame ${displayCount(frame.number)}`;
    const text = this.#shownAt === 0n ? "" : displayDateTime(this.#shownAt);
    setText(this.#day, text.slice(0, 11));
    setText(this.#time, text === "" ? "" : `${text.slice(11)} UTC  ${number}`);
    setAttribute(this.#moment, "data-at", `${this.#shownAt}`);
    this.#timeline.move(
      this.#shownAt,
      `${displayDateTime(this.#shownAt)} UTC, ${number} of ${this.#chosenSource}`,
    );
  }

  /** Writes the time to the URL, so that it can be bookmarked and shared. */
  #writeAddress(): void {
    if (this.#addressTimer !== 0) return;
    this.#addressTimer = window.setTimeout(() => {
      this.#addressTimer = 0;
      if (this.#stream === undefined || this.#shownAt === 0n) return;
      const route = { stream: this.#stream, source: this.#chosenSource, at: this.#shownAt };
      history.replaceState(null, "", formatHash(route));
    }, addressIntervalMs);
  }

  #setPlaying(value: boolean): void {
    this.#isPlaying = value;
    setText(this.#play, value ? "Stop" : "Play");
  }

  /** Plays frames of the selected source at the pace of their capture. */
  async #runPlayback(): Promise<void> {
    if (this.#isBusy || this.#stream === undefined) return;
    this.#setPlaying(true);
    this.#isBusy = true;
    try {
      let queue: FrameJson[] = [];
      let last = this.#chosenPanel()?.frame;
      while (
        this.#isPlaying &&
        this.#pendingTarget === undefined &&
        last?.source === this.#chosenSource
      ) {
        const startedAt = performance.now();
        if (queue.length === 0) {
          const query = `after=${encodeURIComponent(last.cursor)}&limit=${prefetchFrames}`;
          queue = (await this.#api.frames(this.#stream, this.#chosenSource, query)).frames;
        }
        const next = queue.shift();
        if (next === undefined) break;
        await this.#showFrame(next);
        const intervalMs = toMilliseconds(BigInt(next.captured) - BigInt(last.captured));
        const waitMs = Math.min(maxPlaybackDelayMs, intervalMs) - (performance.now() - startedAt);
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, waitMs)));
        last = next;
      }
    } catch (error) {
      this.#showError(error);
    } finally {
      this.#setPlaying(false);
      this.#isBusy = false;
      if (this.#pendingTarget !== undefined || this.#needsRefresh) void this.#runSeeks();
    }
  }

  #showError(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    this.#setNotice(error.message);
  }

  #setNotice(text: string | undefined): void {
    setText(this.#note, text ?? "");
    this.#note.hidden = text === undefined;
  }
}
