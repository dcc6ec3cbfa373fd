/** The live view: the wall or one stream close up, and the list of stored streams. */
/// <reference lib="dom" />
import { codecOfType } from "../../video/nal-units.ts";
import type { ApiClient, StateJson } from "./api.ts";
import { CloseUp } from "./close-up.ts";
import { element, toggleFullScreen } from "./dom.ts";
import { parseNanoseconds, toMilliseconds } from "./format.ts";
import { LiveFrames, type LiveHeader } from "./live-frames.ts";
import type { LiveSourceView } from "./live-source-view.ts";
import { keyOf } from "./natural-order.ts";
import type { PictureOptions } from "./picture.ts";
import type { Standstill } from "./picture-age.ts";
import type { ViewRoute } from "./route.ts";
import { StoredList } from "./stored-list.ts";
import type { Viewport } from "./viewport.ts";
import { Wall } from "./wall.ts";

/** Interval between frames of a source with reduced motion, or after one that cannot be shown. */
const slowIntervalMs = 1_000;

/** Number of states after which the stored streams are requested again. They come once a second. */
const storedInterval = 30;

export class LiveView {
  readonly #root: HTMLElement;
  readonly #wall: Wall;
  readonly #closeUp: CloseUp;
  readonly #stored: StoredList;
  readonly #views = new WeakMap<Element, LiveSourceView>();
  /** Views on the screen, by the key of their source. */
  readonly #visible = new Map<string, LiveSourceView>();
  readonly #frames = new LiveFrames((header, frame) => this.#showFrame(header, frame));
  readonly #observer = new IntersectionObserver((entries) => this.#onIntersection(entries), {
    rootMargin: "120px",
  });
  readonly #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  readonly #emptyNotice = element("div", { class: "notice", hidden: true });
  #tickCount = 0;
  /** Number of live sources at the last state. */
  #liveCount = 0;
  /** Sources that are live and in all, at the last state. */
  #counts = "";
  #isPaused = false;
  #isOnline = false;
  #isShown = false;

  constructor(
    root: HTMLElement,
    api: ApiClient,
    options: Pick<PictureOptions, "decoder" | "preferences">,
    showAddress: (stream: string, source: string) => void,
  ) {
    this.#root = root;
    const onChange = (added: readonly LiveSourceView[], removed: readonly LiveSourceView[]): void =>
      this.#onChange(added, removed);
    this.#wall = new Wall(options, onChange, () => this.#stored.focus());
    this.#closeUp = new CloseUp(api, options, showAddress, onChange);
    this.#stored = new StoredList(api, options);
    this.#emptyNotice.append(
      element("p", {
        text: "No frames yet. To send a folder of pictures from this machine:",
      }),
      element("pre", { text: "frames send FOLDER" }),
    );
    root.append(this.#wall.element, this.#closeUp.element, this.#emptyNotice, this.#stored.element);
    document.addEventListener("visibilitychange", () => this.#updateWatchList());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const view of this.#visible.values()) view.draw();
    });
  }

  /** Whether one stream is shown close up. */
  get isCloseUp(): boolean {
    return !this.#closeUp.element.hidden;
  }

  /** Whether this view is shown. While it is hidden, it receives no frames. */
  get isShown(): boolean {
    return this.#isShown;
  }

  /** Shows the wall, or a stream close up; `recorded` hides this view. */
  show(route: ViewRoute | undefined): void {
    this.#isShown = route === undefined || route.isLive === true;
    this.#root.hidden = !this.#isShown;
    this.#closeUp.show(this.#isShown ? route : undefined);
    this.#root.classList.toggle("has-close-up", this.isCloseUp);
    if (this.#isShown && route === undefined) void this.#refreshStored();
    this.#updateWatchList();
  }

  /** Whether the server responds. */
  set isOnline(value: boolean) {
    this.#isOnline = value;
    this.#frames.isOnline = value;
    this.#updateStandstill();
  }

  /** Pauses the images. Figures are still updated. */
  set isPaused(value: boolean) {
    this.#isPaused = value;
    this.#updateWatchList();
    this.#updateStandstill();
  }

  get #standstill(): Standstill | undefined {
    return this.#isPaused ? "paused" : this.#isOnline ? undefined : "no connection";
  }

  #updateStandstill(): void {
    for (const view of [...this.#wall.tiles, ...this.#closeUp.cards]) {
      view.live.standstill = this.#standstill;
      view.draw();
    }
  }

  /** Updates all views. Called once a second. */
  update({ sources, otherSources, time }: StateJson): void {
    const at = parseNanoseconds(time);
    const now = at === undefined ? Date.now() : toMilliseconds(at);
    this.#tickCount++;
    const live = sources.filter(({ ended }) => !ended);
    this.#wall.update(sources, otherSources, now);
    this.#closeUp.update(sources, now, this.#tickCount);
    const counts = `${live.length} of ${sources.length}`;
    const isDue = this.#tickCount % storedInterval === 0 || counts !== this.#counts;
    this.#counts = counts;
    this.#liveCount = live.length;
    if (this.#isShown && !this.isCloseUp && isDue) void this.#refreshStored();
    this.#updateEmptyNotice();
  }

  /** Shows times in the zone that was chosen. Those of live pictures follow with the next ones. */
  onTimeZoneChange(): void {
    void this.#refreshStored();
  }

  /** Selects the next palette of the focused image, or of all images. */
  nextPalette(): void {
    const focused = [...this.#visible.values()].find(({ element }) =>
      element.contains(document.activeElement),
    );
    for (const { live } of focused === undefined ? this.#visible.values() : [focused]) {
      live.picture.nextPalette();
    }
  }

  /** Shows the picture that is focused or close up on the whole screen, or the wall. */
  toggleFullScreen(): void {
    const chosen = this.isCloseUp ? this.#closeUp.chosen?.picture.element : this.#wall.element;
    toggleFullScreen(chosen);
  }

  /** The part that is shown of the pictures that are close up. */
  get viewport(): Viewport {
    return this.#closeUp.viewport;
  }

  /** Opens the live source before or after the one that is shown close up. */
  goToAdjacent(by: -1 | 1): void {
    if (this.isCloseUp) this.#closeUp.goToAdjacent(by);
  }

  #onChange(added: readonly LiveSourceView[], removed: readonly LiveSourceView[]): void {
    for (const view of added) {
      this.#views.set(view.element, view);
      this.#observer.observe(view.element);
      view.live.standstill = this.#standstill;
    }
    for (const view of removed) {
      this.#observer.unobserve(view.element);
      this.#hide(view);
      view.live.close();
    }
    this.#updateWatchList();
  }

  #hide(view: LiveSourceView): void {
    view.isVisible = false;
    // A thousand pictures take too much memory. A paused one would not come back.
    if (!this.#isPaused) view.live.clear();
    const key = keyOf(view.name);
    if (this.#visible.get(key) === view) this.#visible.delete(key);
  }

  #onIntersection(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const view = this.#views.get(target);
      if (view === undefined) continue;
      if (!isIntersecting) this.#hide(view);
      else if (target.isConnected) {
        view.isVisible = true;
        this.#visible.set(keyOf(view.name), view);
        view.draw();
      }
    }
    this.#updateWatchList();
  }

  #updateWatchList(): void {
    const isWatching = this.#isShown && !this.#isPaused && !document.hidden;
    const entries = [...this.#visible.values()].map(
      ({ name, id }) => [name.stream, name.source, id] as const,
    );
    this.#frames.watch(isWatching ? entries : []);
  }

  async #showFrame(header: LiveHeader, frame: Uint8Array<ArrayBuffer>): Promise<void> {
    const view = this.#visible.get(keyOf(header));
    if (view === undefined || this.#isPaused) return;
    const isVideo = codecOfType(header.type) !== undefined;
    view.live.picture.minIntervalMs = this.#reducedMotion.matches ? slowIntervalMs : 0;
    const result = await view.showFrame(header, frame);
    // Limits the rate of frames that cannot be shown, because they waste bandwidth. Video is decoded
    // whole, or its next picture would be damaged.
    const isSlow = result === "error" || (this.#reducedMotion.matches && !isVideo);
    if (isSlow) await new Promise((resolve) => setTimeout(resolve, slowIntervalMs));
  }

  async #refreshStored(): Promise<void> {
    await this.#stored.refresh();
    this.#wall.storedCount = this.#stored.length;
    this.#updateEmptyNotice();
  }

  #updateEmptyNotice(): void {
    const isEmpty = this.#liveCount === 0 && this.#stored.length === 0;
    this.#emptyNotice.hidden = !isEmpty || this.isCloseUp;
  }
}
