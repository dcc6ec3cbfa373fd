/** The recorded view: frames of one time side by side, with timeline, stepping and playback. */
/// <reference lib="dom" />
import {
  type ApiClient,
  ApiError,
  captureRange,
  type StateJson,
  type StreamJson,
  streamPath,
} from "./api.ts";
import { parseDestination } from "./destination.ts";
import { element, setText, toggleFullScreen } from "./dom.ts";
import { displayCount, displayDateTime, parseNanoseconds, zoneName } from "./format.ts";
import { FrameNavigator, type NavigatorHandlers } from "./frame-navigator.ts";
import { FramePanel } from "./frame-panel.ts";
import { GapList } from "./gap-list.ts";
import { compareNames } from "./natural-order.ts";
import type { PictureOptions } from "./picture.ts";
import { formatHash, type ViewRoute } from "./route.ts";
import { StreamSelect } from "./stream-select.ts";
import { type Density, type GapMark, type Lane, Timeline } from "./timeline.ts";
import { Transport, type TransportHandlers } from "./transport.ts";
import { createViewTools } from "./view-tools.ts";
import { Viewport } from "./viewport.ts";

/** Minimum interval between two URL changes, because browsers limit their rate. */
const addressIntervalMs = 400;

export class RecordedView implements NavigatorHandlers, TransportHandlers {
  readonly #root: HTMLElement;
  readonly #api: ApiClient;
  readonly #options: Pick<PictureOptions, "decoder" | "preferences">;
  readonly #gaps: GapList;
  readonly #navigator: FrameNavigator;
  readonly #transport = new Transport(this);
  readonly #timeline: Timeline;
  readonly #streams: StreamSelect;
  readonly #title = element("bdi");
  readonly #note = element("p", { class: "notice", hidden: true, role: "status" });
  readonly #grid = element("div", { class: "grid" });
  readonly #observer = new IntersectionObserver((entries) => this.#onIntersection(entries));
  readonly #panelByElement = new WeakMap<Element, FramePanel>();
  #panels: readonly FramePanel[] = [];
  #lanes = new Map<string, Lane>();
  /** Shared by the pictures of a stream. */
  #viewport = new Viewport();
  #stream: string | undefined;
  #addressTimer = 0;

  constructor(
    root: HTMLElement,
    api: ApiClient,
    options: Pick<PictureOptions, "decoder" | "preferences">,
  ) {
    this.#root = root;
    this.#api = api;
    this.#options = options;
    this.#gaps = new GapList(api);
    this.#navigator = new FrameNavigator(api, this.#gaps, this);
    this.#streams = new StreamSelect(api, (stream) => {
      location.hash = formatHash({ stream, at: this.#navigator.shownAt });
    });
    this.#timeline = new Timeline({
      onSeek: (at, source, within) => {
        const { chosenSource } = this.#navigator;
        if (source !== undefined && source !== chosenSource) this.#navigator.choose(source);
        this.#navigator.seek({ at, within });
      },
      loadDensity: (sources, from, to, parts) => this.#loadDensity(sources, from, to, parts),
    });
    root.append(
      element(
        "header",
        { class: "recorded-head" },
        element("a", { href: "#/", text: "Live" }),
        element("span", { class: "about", "aria-hidden": true, text: "/" }),
        element("h2", {}, this.#title),
        this.#streams.element,
        createViewTools(() => this.#navigator.chosenPanel),
      ),
      this.#note,
      this.#grid,
      element(
        "section",
        { class: "dock", "aria-label": "Timeline" },
        this.#timeline.element,
        this.#transport.element,
      ),
    );
    this.onPlayingChange();
  }

  /** Shows a route, or hides the view if there is none. */
  async show(route: ViewRoute | undefined): Promise<void> {
    this.#root.hidden = route === undefined;
    if (route === undefined) {
      this.#clear();
      this.#stream = undefined;
      return;
    }
    if (route.stream !== this.#stream && !(await this.#load(route.stream))) return;
    const hasSource = route.source !== undefined && this.#lanes.has(route.source);
    this.#navigator.choose(hasSource ? route.source! : (this.#panels[0]?.source ?? ""));
    const last = this.#lanes.get(this.#navigator.chosenSource)?.last ?? 0n;
    this.#navigator.seek({ at: route.at ?? last, isNamed: true });
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

  /** Shows times in the zone that was chosen. */
  onTimeZoneChange(): void {
    if (this.#stream === undefined || this.#navigator.shownAt === 0n) return;
    this.onMoment();
    for (const panel of this.#panels) panel.updateTimes();
  }

  /** Moves by a number of frames; negative is back. */
  step(by: number): void {
    this.#navigator.stop();
    this.#navigator.seek({ by });
  }

  /** Moves to the first or the last frame. */
  goToEnd(direction: -1 | 1): void {
    this.#navigator.stop();
    const lane = this.#lanes.get(this.#navigator.chosenSource);
    if (lane === undefined) return;
    // Of frames with the same capture time, a moment shows the last.
    this.#navigator.seek(direction < 0 ? { first: true } : { at: lane.last });
  }

  goToGap(direction: -1 | 1): void {
    this.#navigator.stop();
    this.#navigator.seek({ gap: direction });
  }

  /** Goes to a frame number or a time that the user typed. */
  goTo(text: string): void {
    const now = BigInt(Date.now()) * 1_000_000n;
    const destination = parseDestination(text, this.#navigator.shownAt, now);
    const example = "Type a frame number such as 12, or a time such as yesterday 14:03";
    if (destination === undefined) return this.onNotice(example);
    this.#transport.leaveDestination();
    this.#navigator.stop();
    this.#navigator.seek({ ...destination, isNamed: true });
  }

  /** Selects the previous or next source for stepping. */
  chooseAdjacent(by: number): void {
    const { chosenSource } = this.#navigator;
    const index = this.#panels.findIndex(({ source }) => source === chosenSource);
    const next = this.#panels.at((index + by) % this.#panels.length);
    if (next !== undefined) this.#navigator.choose(next.source);
  }

  zoom(factor: number): void {
    this.#timeline.zoom(factor);
  }

  showAll(): void {
    this.#timeline.showAll();
  }

  focusDestination(): void {
    this.#transport.focusDestination();
  }

  download(): void {
    this.#navigator.chosenPanel?.download();
  }

  nextPalette(): void {
    for (const { picture } of this.#panels) picture.nextPalette();
  }

  /** Shows the picture of the selected source on the whole screen, or ends that. */
  toggleFullScreen(): void {
    toggleFullScreen(this.#navigator.chosenPanel?.picture.element);
  }

  get viewport(): Viewport {
    return this.#viewport;
  }

  togglePlaying(): void {
    const { player } = this.#navigator;
    if (player.isPlaying) this.#navigator.stop();
    else this.#navigator.play(player.direction);
  }

  /** Plays in a direction. Twice in the same direction doubles the speed. */
  play(direction: -1 | 1): void {
    this.#navigator.play(direction);
  }

  /** Stops, and plays at the speed of the capture from then on. */
  stop(): void {
    this.#navigator.stop();
    this.setSpeed(1);
  }

  setSpeed(speed: number): void {
    this.#navigator.player.speed = speed;
  }

  async #load(stream: string): Promise<boolean> {
    this.#clear();
    this.#stream = stream;
    setText(this.#title, stream);
    void this.#streams.show(stream);
    try {
      const { sources, otherSources = 0 } = await this.#api.get<StreamJson>(streamPath(stream));
      if (this.#stream !== stream) return false;
      for (const source of sources.toSorted((one, other) => compareNames(one.name, other.name))) {
        const [first, last] = captureRange([source]);
        if (first === undefined || last === undefined) continue;
        this.#lanes.set(source.name, { name: source.name, first, last });
      }
      this.#panels = [...this.#lanes.keys()].map((name) => this.#createPanel(stream, name));
      this.#grid.classList.toggle("single", this.#panels.length === 1);
      this.#grid.append(...this.#panels.map((panel) => panel.element));
      this.#navigator.open(stream, this.#panels);
      if (this.#panels.length === 0) this.#showNote("This stream has no frames");
      else if (otherSources > 0)
        this.#showNote(`${displayCount(otherSources)} more sources are not listed`);
      this.#showLanes();
      void this.#loadGaps(stream);
      return this.#panels.length > 0;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#showNote(error.message);
      this.#stream = undefined;
      return false;
    }
  }

  #clear(): void {
    this.#navigator.open(undefined, []);
    this.#gaps.clear();
    for (const panel of this.#panels) {
      this.#observer.unobserve(panel.element);
      panel.close();
    }
    this.#viewport = new Viewport();
    this.#grid.replaceChildren();
    this.#panels = [];
    this.#lanes = new Map();
    this.#showNote(undefined);
    this.onNotice(undefined);
    this.#transport.clearDestination();
  }

  #createPanel(stream: string, source: string): FramePanel {
    const options = { ...this.#options, viewport: this.#viewport };
    const panel = new FramePanel(this.#api, { stream, source }, options, () =>
      this.#navigator.choose(source),
    );
    this.#panelByElement.set(panel.element, panel);
    this.#observer.observe(panel.element);
    return panel;
  }

  async #loadGaps(stream: string): Promise<void> {
    try {
      await this.#gaps.load(stream);
      if (this.#stream === stream) this.#showLanes();
    } catch {
      // The timeline is usable without gaps.
    }
  }

  async #loadDensity(
    sources: readonly string[],
    from: bigint,
    to: bigint,
    parts: number,
  ): Promise<Density | undefined> {
    if (this.#stream === undefined) return undefined;
    try {
      const found = await this.#api.density(this.#stream, sources, { from, to, parts });
      const counts = new Map(found.map(({ name, counts }) => [name, counts]));
      return { from, to, counts };
    } catch {
      // The lanes are usable without it.
      return undefined;
    }
  }

  #showLanes(): void {
    const marks: GapMark[] = this.#gaps.all.flatMap(({ source, at }) => {
      const time = parseNanoseconds(at);
      return time === undefined ? [] : [{ source, at: time }];
    });
    this.#timeline.show([...this.#lanes.values()], marks, this.#navigator.chosenSource);
  }

  #onIntersection(entries: readonly IntersectionObserverEntry[]): void {
    let isMoreVisible = false;
    for (const { target, isIntersecting } of entries) {
      const panel = this.#panelByElement.get(target);
      if (panel === undefined) continue;
      isMoreVisible ||= isIntersecting && !panel.isVisible;
      panel.isVisible = isIntersecting;
      // The frame of the selected source is where the view is.
      if (!isIntersecting && panel.source !== this.#navigator.chosenSource) panel.clear();
    }
    if (isMoreVisible) this.#navigator.refresh();
  }

  onPlayingChange(): void {
    const { isPlaying, speed, direction } = this.#navigator.player;
    this.#transport.showPlaying(isPlaying, speed, direction);
  }

  onChoose(): void {
    this.#showLanes();
  }

  onMoment(): void {
    const { shownAt, frame, chosenSource } = this.#navigator;
    const number = frame === undefined ? "" : `frame ${displayCount(frame.number)}`;
    const time = displayDateTime(shownAt);
    const zone = zoneName(shownAt);
    this.#transport.showMoment(shownAt, time.slice(0, 11), `${time.slice(11)} ${zone}  ${number}`);
    this.#timeline.move(shownAt, `${time} ${zone}, ${number} of ${chosenSource}`);
    this.#writeAddress();
  }

  onNotice(text: string | undefined): void {
    this.#transport.showMessage(text);
  }

  /** Shows what the user should know of the stream; nothing if undefined. */
  #showNote(text: string | undefined): void {
    setText(this.#note, text ?? "");
    this.#note.hidden = text === undefined;
  }

  /** Writes the time to the URL, so that it can be bookmarked and shared. */
  #writeAddress(): void {
    if (this.#addressTimer !== 0) return;
    this.#addressTimer = window.setTimeout(() => {
      this.#addressTimer = 0;
      const { chosenSource: source, shownAt: at } = this.#navigator;
      if (this.#stream === undefined || at === 0n) return;
      history.replaceState(null, "", formatHash({ stream: this.#stream, source, at }));
    }, addressIntervalMs);
  }
}
