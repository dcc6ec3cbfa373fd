/** The recorded view: the frames of one moment side by side, and the ways from one moment to another. */
/// <reference lib="dom" />
import { type Api, ApiError, type Frame, type Gap, type State, type Stream } from "./api.ts";
import { announce, button, element, mark, say } from "./dom.ts";
import { count, milliseconds, moment, nanoseconds } from "./format.ts";
import { spanOf } from "./live.ts";
import { Panel } from "./panel.ts";
import { hashOf, type Place } from "./route.ts";
import type { Thermal } from "./thermal.ts";
import { type Lane, Timeline } from "./timeline.ts";

/** Where to go: to a moment, to the first frame, to one with a number, or so many frames on (negative: back). */
type Way =
  | { readonly at: bigint }
  | { readonly first: true }
  | { readonly number: number }
  | { readonly by: number };

/** Sources whose frames are asked for at once. */
const mostAsked = 64;
/** Frames that are asked for ahead while playing. */
const ahead = 60;
/** Milliseconds that playing waits for the next frame at most: longer pauses are left out. */
const longestPause = 1_000;
/** Milliseconds between two changes of the address: browsers allow few. */
const addressPace = 400;
/** Losses that the line shows. */
const mostLosses = 2_000;

export class RecordedView {
  readonly #root: HTMLElement;
  readonly #api: Api;
  readonly #thermal: Thermal;
  readonly #timeline = new Timeline((at) => this.#go({ at }));
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
  readonly #observer = new IntersectionObserver((entries) => this.#onSeen(entries));
  readonly #byElement = new WeakMap<Element, Panel>();
  #panels: readonly Panel[] = [];
  #lanes = new Map<string, Lane>();
  #losses: { source: string; at: bigint }[] = [];
  #stream: string | undefined;
  #chosen = "";
  #at = 0n;
  #isBusy = false;
  #wanted: Way | undefined;
  /** Panels came into sight that show another moment. */
  #isPartial = false;
  #isPlaying = false;
  #addressTimer = 0;

  constructor(root: HTMLElement, api: Api, thermal: Thermal) {
    this.#root = root;
    this.#api = api;
    this.#thermal = thermal;
    const form = element(
      "form",
      { class: "go" },
      this.#number,
      element("button", { type: "submit", text: "Go" }),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const number = Number(this.#number.value.replaceAll(/[\s,.]/g, ""));
      if (Number.isSafeInteger(number) && number > 0) this.#go({ number });
    });
    const transport = element(
      "div",
      { class: "transport steps", role: "group", "aria-label": "Steps" },
      button("First", () => this.end(-1)),
      button("Previous", () => this.step(-1)),
      this.#play,
      button("Next", () => this.step(1)),
      button("Last", () => this.end(1)),
    );
    const zoom = element(
      "div",
      { class: "transport zoom", role: "group", "aria-label": "Time on the line" },
      button("−", () => this.zoom(2), { "aria-label": "More time" }),
      button("+", () => this.zoom(0.5), { "aria-label": "Less time" }),
      button("All", () => this.#timeline.whole()),
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

  /** Shows a place, or nothing. */
  async show(place: Place | undefined): Promise<void> {
    this.#root.hidden = place === undefined;
    if (place === undefined) {
      this.#setPlaying(false);
      this.#stream = undefined;
      return;
    }
    if (place.stream !== this.#stream && !(await this.#load(place.stream))) return;
    const isKnown = place.source !== undefined && this.#lanes.has(place.source);
    this.#choose(isKnown ? place.source! : (this.#panels[0]?.source ?? ""));
    this.#go({ at: place.at ?? this.#lanes.get(this.#chosen)?.last ?? 0n });
  }

  /** The stream goes on while it is looked at. */
  update({ sources }: State): void {
    if (this.#stream === undefined) return;
    let isLonger = false;
    for (const { stream, source, captured } of sources) {
      const lane = stream === this.#stream ? this.#lanes.get(source) : undefined;
      const last = nanoseconds(captured);
      if (lane === undefined || last === undefined || last <= lane.last) continue;
      this.#lanes.set(source, { ...lane, last });
      isLonger = true;
    }
    if (isLonger) this.#showLanes();
  }

  /** Goes so many frames on, or back. */
  step(by: number): void {
    this.#setPlaying(false);
    this.#go({ by });
  }

  /** Goes to the first frame, or to the last. */
  end(way: -1 | 1): void {
    this.#setPlaying(false);
    const lane = this.#lanes.get(this.#chosen);
    if (lane === undefined) return;
    // Of frames with the same capture time, a moment shows the last.
    this.#go(way < 0 ? { first: true } : { at: lane.last });
  }

  /** Steps by the source before, or by the next. */
  chooseNext(by: number): void {
    const place = this.#panels.findIndex(({ source }) => source === this.#chosen);
    const next = this.#panels.at((place + by) % this.#panels.length);
    if (next !== undefined) this.#choose(next.source);
  }

  zoom(factor: number): void {
    this.#timeline.zoom(factor);
  }

  showAll(): void {
    this.#timeline.whole();
  }

  askNumber(): void {
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
    else void this.#playOn();
  }

  async #load(stream: string): Promise<boolean> {
    this.#setPlaying(false);
    this.#stream = stream;
    say(this.#title, stream);
    this.#clear();
    try {
      const path = `/api/streams/${encodeURIComponent(stream)}`;
      const { sources } = await this.#api.get<Stream>(path);
      if (this.#stream !== stream) return false;
      for (const source of sources) {
        const [first, last] = spanOf([source]);
        if (first === undefined || last === undefined) continue;
        this.#lanes.set(source.name, { name: source.name, first, last });
      }
      this.#panels = [...this.#lanes.keys()].map((name) => this.#makePanel(stream, name));
      this.#grid.classList.toggle("single", this.#panels.length === 1);
      this.#grid.append(...this.#panels.map((panel) => panel.element));
      this.#say(this.#panels.length === 0 ? "This stream has no frames" : undefined);
      this.#showLanes();
      void this.#loadLosses(stream);
      return this.#panels.length > 0;
    } catch (error) {
      this.#fail(error);
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
    this.#at = 0n;
  }

  #makePanel(stream: string, source: string): Panel {
    const panel = new Panel(this.#api, stream, source, this.#thermal, () => this.#choose(source));
    this.#byElement.set(panel.element, panel);
    this.#observer.observe(panel.element);
    return panel;
  }

  async #loadLosses(stream: string): Promise<void> {
    try {
      for (let after: string | null = ""; after !== null && this.#losses.length < mostLosses;) {
        const from = after === "" ? "" : `&after=${encodeURIComponent(after)}`;
        const path = `/api/streams/${encodeURIComponent(stream)}/gaps?limit=500${from}`;
        const page: { gaps: Gap[]; next: string | null } = await this.#api.get(path);
        if (this.#stream !== stream) return;
        for (const { source, at } of page.gaps) {
          const time = nanoseconds(at);
          if (time !== undefined) this.#losses.push({ source, at: time });
        }
        after = page.next;
      }
      this.#showLanes();
    } catch {
      // The line is worth something without them.
    }
  }

  #showLanes(): void {
    this.#timeline.show([...this.#lanes.values()], this.#losses, this.#chosen);
  }

  #choose(source: string): void {
    this.#chosen = source;
    for (const panel of this.#panels) panel.isChosen = panel.source === source;
    this.#showLanes();
    // The moment is now that of its frame.
    const captured = nanoseconds(this.#chosenPanel()?.frame?.captured);
    if (captured === undefined) return;
    this.#at = captured;
    this.#isPartial = true;
    if (!this.#isBusy) void this.#goOn();
  }

  #chosenPanel(): Panel | undefined {
    return this.#panels.find(({ source }) => source === this.#chosen);
  }

  #onSeen(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const panel = this.#byElement.get(target);
      if (panel === undefined) continue;
      if (isIntersecting && !panel.isVisible) this.#isPartial = true;
      panel.isVisible = isIntersecting;
    }
    if (this.#isPartial && !this.#isBusy) void this.#goOn();
  }

  /** Goes one way after the other; of those that come meanwhile the last, but steps add up. */
  #go(way: Way): void {
    const waiting = this.#wanted;
    const isSum = "by" in way && waiting !== undefined && "by" in waiting;
    this.#wanted = isSum ? { by: way.by + waiting.by } : way;
    if (!this.#isBusy) void this.#goOn();
  }

  async #goOn(): Promise<void> {
    this.#isBusy = true;
    try {
      while (this.#wanted !== undefined || this.#isPartial) {
        const way = this.#wanted;
        this.#wanted = undefined;
        this.#isPartial = false;
        try {
          if (way !== undefined) await this.#goOne(way);
          else if (this.#at !== 0n) await this.#showMoment(this.#at, this.#chosenPanel()?.frame);
        } catch (error) {
          // A failed way does not hold up the one that was asked for meanwhile.
          this.#fail(error);
        }
      }
    } finally {
      this.#isBusy = false;
    }
  }

  async #goOne(way: Way): Promise<void> {
    if (this.#stream === undefined) return;
    if ("at" in way) {
      await this.#showMoment(way.at, undefined);
    } else {
      const frame = await this.#found(way);
      if (frame === undefined) return;
      await this.#showFrame(frame);
      announce(`Frame ${count(frame.number)}, ${this.#time.textContent}`);
    }
  }

  #found(way: Exclude<Way, { at: bigint }>): Promise<Frame | undefined> {
    if ("first" in way) return this.#firstFrame();
    return "by" in way ? this.#stepped(way.by) : this.#numbered(way.number);
  }

  async #firstFrame(): Promise<Frame | undefined> {
    const { frames } = await this.#api.frames(this.#stream!, this.#chosen, "limit=1");
    return frames[0];
  }

  /** The frame of the chosen source that is so many on. */
  async #stepped(by: number): Promise<Frame | undefined> {
    const cursor = this.#chosenPanel()?.frame?.cursor;
    if (cursor === undefined || by === 0) return undefined;
    const query = `${by > 0 ? "after" : "before"}=${encodeURIComponent(cursor)}&limit=${Math.abs(by)}`;
    const { frames } = await this.#api.frames(this.#stream!, this.#chosen, query);
    return frames.at(-1);
  }

  async #numbered(number: number): Promise<Frame | undefined> {
    const { frames } = await this.#api.frames(this.#stream!, this.#chosen, `number=${number}`);
    const [found] = frames;
    this.#say(
      found === undefined ? `${this.#chosen} has no frame ${count(number)} here` : undefined,
    );
    return found;
  }

  /** Shows a frame of the chosen source, and what is nearest to it of the others. */
  async #showFrame(frame: Frame): Promise<void> {
    await this.#showMoment(nanoseconds(frame.captured) ?? this.#at, frame);
  }

  async #showMoment(at: bigint, main: Frame | undefined): Promise<void> {
    const stream = this.#stream!;
    const asked = this.#panels.filter(({ isVisible, source }) =>
      source === this.#chosen ? main === undefined : isVisible,
    );
    const sources = asked.slice(0, mostAsked).map(({ source }) => source);
    const others = sources.length === 0 ? [] : await this.#api.moment(stream, sources, at);
    const frames = main === undefined ? others : [main, ...others];
    // The moment is that of a frame of the chosen source, and the others are nearest to that.
    const nearest = frames.find(({ source }) => source === this.#chosen);
    const settled = nanoseconds(nearest?.captured) ?? at;
    if (nearest !== undefined && settled !== at) return await this.#showMoment(settled, nearest);
    this.#at = settled;
    await Promise.all(
      frames.map(async (frame) => {
        const panel = this.#panels.find(({ source }) => source === frame.source);
        await panel?.show(frame, settled);
      }),
    );
    if (this.#stream !== stream) return;
    this.#sayMoment();
    this.#writeAddress();
  }

  #sayMoment(): void {
    const frame = this.#chosenPanel()?.frame;
    const number = frame === undefined ? "" : `frame ${count(frame.number)}`;
    const words = this.#at === 0n ? "" : moment(this.#at);
    say(this.#day, words.slice(0, 11));
    say(this.#time, words === "" ? "" : `${words.slice(11)} UTC  ${number}`);
    mark(this.#moment, "data-at", `${this.#at}`);
    this.#timeline.move(this.#at, `${moment(this.#at)} UTC, ${number} of ${this.#chosen}`);
  }

  /** Names the moment in the address, so that it can be kept and passed on. */
  #writeAddress(): void {
    if (this.#addressTimer !== 0) return;
    this.#addressTimer = window.setTimeout(() => {
      this.#addressTimer = 0;
      if (this.#stream === undefined || this.#at === 0n) return;
      const place = { stream: this.#stream, source: this.#chosen, at: this.#at };
      history.replaceState(null, "", hashOf(place));
    }, addressPace);
  }

  #setPlaying(value: boolean): void {
    this.#isPlaying = value;
    say(this.#play, value ? "Stop" : "Play");
  }

  /** Shows frame after frame of the chosen source, at the pace at which they were captured. */
  async #playOn(): Promise<void> {
    if (this.#isBusy || this.#stream === undefined) return;
    this.#setPlaying(true);
    this.#isBusy = true;
    try {
      let waiting: Frame[] = [];
      let last = this.#chosenPanel()?.frame;
      while (this.#isPlaying && this.#wanted === undefined && last?.source === this.#chosen) {
        const started = performance.now();
        if (waiting.length === 0) {
          const query = `after=${encodeURIComponent(last.cursor)}&limit=${ahead}`;
          waiting = (await this.#api.frames(this.#stream, this.#chosen, query)).frames;
        }
        const next = waiting.shift();
        if (next === undefined) break;
        await this.#showFrame(next);
        const distance = milliseconds(BigInt(next.captured) - BigInt(last.captured));
        const rest = Math.min(longestPause, distance) - (performance.now() - started);
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
        last = next;
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#setPlaying(false);
      this.#isBusy = false;
      if (this.#wanted !== undefined || this.#isPartial) void this.#goOn();
    }
  }

  #fail(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    this.#say(error.message);
  }

  #say(text: string | undefined): void {
    say(this.#note, text ?? "");
    this.#note.hidden = text === undefined;
  }
}
