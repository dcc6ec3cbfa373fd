/** One live source large: its picture, figures and plot. */
/// <reference lib="dom" />
import type { LiveJson, SourceStateJson } from "./api.ts";
import { sourcePath } from "./api.ts";
import { button, element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayCount,
  displayDelay,
  displayNumber,
  parseNanoseconds,
  toMilliseconds,
} from "./format.ts";
import type { LiveHeader } from "./live-frames.ts";
import { LivePicture } from "./live-picture.ts";
import { type LiveSourceView, nextViewId } from "./live-source-view.ts";
import type { SourceName } from "./natural-order.ts";
import type { Picture, PictureOptions, ShowResult } from "./picture.ts";
import { PictureInput } from "./picture-input.ts";
import { Plot } from "./plot.ts";
import { formatHash } from "./route.ts";

/** Number of recent frames for the median delay to the screen. */
const maxDelaySamples = 90;

const figureNames = ["rate", "bandwidth", "delay", "to screen", "gaps"] as const;
type Figure = (typeof figureNames)[number];

const figureTitles: Record<Figure, string> = {
  rate: "Frames received per second",
  bandwidth: "Bytes received per second",
  delay: "Median time from capture to receipt at the server",
  "to screen": "Median time from capture to this screen; needs clocks in step on both machines",
  gaps: "Frame numbers lost in this session; the plot marks when. Times without frames do not count",
};

export class SourceCard implements LiveSourceView {
  readonly id = nextViewId();
  readonly element: HTMLElement;
  readonly live: LivePicture;
  readonly input: PictureInput;
  readonly name: SourceName;
  isVisible = false;
  readonly #plot = new Plot();
  readonly #state = element("span", { class: "state" });
  readonly #number = element("span", { class: "number last" });
  readonly #figures = new Map<Figure, HTMLElement>();
  /** Delays from capture to the screen in ms, of the most recent frames. */
  readonly #delays: number[] = [];
  #shownFrames = 0;
  #latest: LiveJson | undefined;
  /** Gaps at the last plot entry. */
  #gaps: number | undefined;

  /** @param onCopy called to show the address for other programs */
  constructor(
    name: SourceName,
    options: Pick<PictureOptions, "decoder" | "preferences" | "viewport">,
    onCopy: () => void,
  ) {
    const { stream, source } = name;
    this.name = name;
    this.live = new LivePicture({ ...options, source: name });
    this.input = new PictureInput(this.picture);
    const latest = `${sourcePath(stream, source)}/latest`;
    this.element = element(
      "article",
      { class: "card", "aria-label": source, "data-stream": stream, "data-source": source },
      element(
        "header",
        {},
        element(
          "h3",
          {},
          element(
            "a",
            { href: formatHash({ stream, source, isLive: true }) },
            element("bdi", { text: source }),
          ),
        ),
        this.#state,
        this.#number,
      ),
      this.picture.element,
      this.picture.scale.element,
      this.#createFigures(),
      this.#plot.element,
      element(
        "div",
        { class: "tools" },
        button("Copy address", onCopy, { "aria-label": `Copy address of ${source}` }),
        element("a", { href: latest, target: "_blank", rel: "noopener", text: "Last frame" }),
      ),
    );
    this.#updateState();
  }

  get picture(): Picture {
    return this.live.picture;
  }

  #createFigures(): HTMLElement {
    const list = element("dl", { class: "figures" });
    for (const name of figureNames) {
      const value = element("dd", { text: "–" });
      this.#figures.set(name, value);
      list.append(
        element("div", { title: figureTitles[name] }, element("dt", { text: name }), value),
      );
    }
    return list;
  }

  /** Sets the history that the server remembers. */
  setHistory(live: LiveJson): void {
    this.#plot.setHistory(live.history ?? []);
    this.#latest ??= live;
  }

  /** Updates the figures. Called once a second; every second `tick` adds a plot entry. */
  update(state: SourceStateJson, now: number, tick: number): void {
    this.#latest = state;
    this.live.update(state, now);
    if (tick % 2 === 0) {
      const missing = this.#gaps === undefined ? 0 : Math.max(0, state.gaps - this.#gaps);
      this.#gaps = state.gaps;
      this.#plot.push([state.rate, state.bandwidth, missing]);
    }
    if (this.isVisible) this.draw();
  }

  /** Updates figures, state and plot from the latest values. */
  draw(): void {
    const latest = this.#latest;
    if (latest === undefined) return;
    const card = this.element;
    setAttribute(card, "data-number", latest.number);
    setAttribute(card, "data-rate", latest.rate);
    setAttribute(card, "data-gaps", latest.gaps);
    this.#setFigure("rate", latest.rate === 0 ? "0 /s" : `${displayNumber(latest.rate)} /s`);
    this.#setFigure("bandwidth", `${displayBytes(latest.bandwidth)}/s`);
    this.#setFigure("delay", displayDelay(latest.delay));
    const screenDelayMs = median(this.#delays);
    this.#setFigure("to screen", displayDelay(screenDelayMs));
    if (screenDelayMs !== null) setAttribute(card, "data-shown-delay", screenDelayMs.toFixed(1));
    this.#setFigure("gaps", displayCount(latest.gaps));
    card.classList.toggle("lossy", latest.gaps > 0);
    this.#updateState();
    this.#plot.draw();
  }

  /** Says how current the picture is. The other figures are those of the source. */
  #updateState(): void {
    const { kind, text } = this.live.state;
    setAttribute(this.element, "data-state", kind);
    setText(this.#state, text);
  }

  #setFigure(name: Figure, text: string): void {
    setText(this.#figures.get(name)!, text);
  }

  async showFrame(header: LiveHeader, bytes: Uint8Array<ArrayBuffer>): Promise<ShowResult> {
    const result = await this.live.showFrame(header, bytes);
    if (result === "nothing") return result;
    const captured = parseNanoseconds(header.captured);
    // The caption changes with the picture, and also with the reason why there is none.
    setText(this.#number, `frame ${displayCount(header.number)}`);
    this.#updateState();
    setAttribute(this.element, "data-shown-number", header.number);
    if (result === "error" || captured === undefined) return result;
    afterNextPaint(() => {
      this.#delays.push(Date.now() - toMilliseconds(captured));
      if (this.#delays.length > maxDelaySamples) this.#delays.shift();
    });
    setAttribute(this.element, "data-shown-count", ++this.#shownFrames);
    if (this.#shownFrames === 1) this.draw();
    return result;
  }
}

/** Calls `callback` after the next paint: in the task after the animation frame. */
function afterNextPaint(callback: () => void): void {
  requestAnimationFrame(() => setTimeout(callback, 0));
}

function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[sorted.length >> 1]!;
}
