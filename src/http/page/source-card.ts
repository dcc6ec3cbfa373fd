/** One source in the live view: its image, figures and plot. */
/// <reference lib="dom" />
import type { LiveJson, SourceStateJson } from "./api.ts";
import { sourcePath } from "./api.ts";
import { button, element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayTimeOfDay,
  displayCount,
  displayDelay,
  displayNumber,
  displayDuration,
  toMilliseconds,
  parseNanoseconds,
} from "./format.ts";
import type { LiveHeader } from "./live-frames.ts";
import { Picture } from "./picture.ts";
import { Plot } from "./plot.ts";
import { formatHash } from "./route.ts";
import type { GreyPainter } from "./grey-painter.ts";

/** Number of recent frames for the median delay to the screen. */
const maxDelaySamples = 90;

/** Time without a frame after which a source is shown as still, or its picture as behind. */
const stillTimeoutMs = 3_000;

/** Why pictures stand still although their source may go on. */
export type Standstill = "paused" | "no connection";

const figureNames = ["rate", "bandwidth", "delay", "to screen", "gaps"] as const;
type Figure = (typeof figureNames)[number];

const figureTitles: Record<Figure, string> = {
  rate: "Frames received per second",
  bandwidth: "Bytes received per second",
  delay: "Median time from capture to receipt at the server",
  "to screen": "Median time from capture to this screen; needs clocks in step on both machines",
  gaps: "Frame numbers missing in this session",
};

export class SourceCard {
  readonly element: HTMLElement;
  readonly picture: Picture;
  /** Whether the card is on screen. */
  isVisible = false;
  readonly #stream: string;
  readonly #source: string;
  readonly #plot = new Plot();
  readonly #state = element("span", { class: "state" });
  readonly #number = element("span", { class: "number last" });
  readonly #figures = new Map<Figure, HTMLElement>();
  /** Delays from capture to the screen in ms, of the most recent frames. */
  readonly #delays: number[] = [];
  #shownFrames = 0;
  /** When the server received the frame shown, in ns since 1970. */
  #shownReceived: bigint | undefined;
  #standstill: Standstill | undefined;
  #latest: LiveJson | undefined;
  #updatedAt = 0;
  /** Gaps at the last plot entry. */
  #gaps: number | undefined;

  /** @param onCopy called to show the address for other programs */
  constructor(stream: string, source: string, painter: GreyPainter, onCopy: () => void) {
    this.#stream = stream;
    this.#source = source;
    this.picture = new Picture(painter, `${stream}/${source}`, "live");
    this.picture.label = `${source} of ${stream}`;
    const latest = `${sourcePath(stream, source)}/latest`;
    this.element = element(
      "article",
      { class: "card", "aria-label": source, "data-stream": stream, "data-source": source },
      element(
        "header",
        {},
        element("h3", {}, element("a", { href: formatHash({ stream, source }), text: source })),
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
        button("Copy address", onCopy, { "aria-label": `Copy the address of ${source}` }),
        element("a", { href: latest, target: "_blank", rel: "noopener", text: "Last frame" }),
      ),
    );
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
    this.#updatedAt = now;
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

  /** Why the picture stands still; undefined if new frames are shown as they come. */
  set standstill(value: Standstill | undefined) {
    this.#standstill = value;
    this.#updateState();
  }

  /** Says how current the picture is. The other figures are those of the source. */
  #updateState(): void {
    const received = parseNanoseconds(this.#latest?.received);
    const age = received === undefined ? 0 : this.#updatedAt - toMilliseconds(received);
    const shown = this.#shownReceived;
    const lag =
      received === undefined || shown === undefined ? 0 : toMilliseconds(received - shown);
    const isStill = this.#latest?.rate === 0 && age > stillTimeoutMs;
    let problem: string | undefined = this.#standstill;
    if (problem === undefined && shown === undefined) problem = "no picture yet";
    if (problem === undefined && lag > stillTimeoutMs) problem = `${displayDuration(lag)} behind`;
    this.element.classList.toggle("held", problem !== undefined);
    this.element.classList.toggle("still", problem === undefined && isStill);
    setText(this.#state, problem ?? (isStill ? `no frame for ${displayDuration(age)}` : "live"));
  }

  #setFigure(name: Figure, text: string): void {
    setText(this.#figures.get(name)!, text);
  }

  /**
   * Shows a live frame.
   *
   * @returns whether the frame could be shown
   */
  async showFrame(header: LiveHeader, frame: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const hasPicture = await this.picture.show(frame, header.type, header.raw);
    const captured = parseNanoseconds(header.captured);
    // The caption changes with the picture, and also with the reason why there is none.
    const number = `frame ${displayCount(header.number)}`;
    const time = captured === undefined ? "" : ` of ${displayTimeOfDay(captured)} UTC`;
    setText(this.#number, number);
    this.picture.label = `${this.#source} of ${this.#stream}, ${number}${time}`;
    this.#shownReceived = parseNanoseconds(header.received);
    this.#updateState();
    this.element.dataset["shownNumber"] = `${header.number}`;
    if (!hasPicture || captured === undefined) return hasPicture;
    afterNextPaint(() => {
      this.#delays.push(Date.now() - toMilliseconds(captured));
      if (this.#delays.length > maxDelaySamples) this.#delays.shift();
    });
    this.#shownFrames++;
    this.element.dataset["shownCount"] = `${this.#shownFrames}`;
    if (this.#shownFrames === 1) this.draw();
    return true;
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
