/** Timeline of a stream: one lane per source with the density of its frames, gaps, and the time shown. */
/// <reference lib="dom" />
import { cssColour, element, fitCanvas, setAttribute } from "./dom.ts";
import { toMilliseconds } from "./format.ts";
import { axisTicks } from "./time-axis.ts";
import { TimeRange } from "./time-range.ts";

/** Capture times of a source's first and last frame, in ns since 1970. */
export interface Lane {
  readonly name: string;
  readonly first: bigint;
  readonly last: bigint;
}

/** A gap, and when it was recorded. */
export interface GapMark {
  readonly source: string;
  readonly at: bigint;
}

/** Frames of each part of a time, by source. */
export interface Density {
  readonly from: bigint;
  readonly to: bigint;
  readonly counts: ReadonlyMap<string, readonly number[]>;
}

export interface TimelineHandlers {
  /**
   * Called with the time at the pointer, the source of the lane if one was pressed, and how far in ns
   * a frame may be that looks as if it were there.
   */
  onSeek(at: bigint, source: string | undefined, within: bigint): void;
  /** Requests the density of sources in a time. Undefined if that fails. */
  loadDensity(
    sources: readonly string[],
    from: bigint,
    to: bigint,
    parts: number,
  ): Promise<Density | undefined>;
}

/** Lanes that are shown at a time, on a desk and on a phone. More are reached by scrolling. */
const maxShownLanes = { wide: 8, narrow: 4 } as const;
/** Width of the window in CSS pixels up to which it is narrow. */
const maxNarrowPx = 640;
const laneHeightPx = 20;
const axisHeightPx = 24;
/** Width of a part whose frames are counted. */
const partPx = 4;
const maxParts = 400;
/** Time without a change after which the density is requested. */
const densityDelayMs = 200;

export class Timeline {
  readonly element: HTMLElement;
  readonly range = new TimeRange();
  readonly #handlers: TimelineHandlers;
  readonly #scroller: HTMLElement;
  readonly #space = element("div", { class: "lane-space" });
  readonly #canvas = element("canvas", { "aria-hidden": true });
  readonly #axis = element("canvas", { class: "axis", "aria-hidden": true });
  readonly #slider: HTMLElement;
  #lanes: readonly Lane[] = [];
  #gaps: readonly GapMark[] = [];
  #selected = "";
  #shownAt = 0n;
  #density: Density | undefined;
  #densityTimer = 0;
  #isDrawScheduled = false;

  constructor(handlers: TimelineHandlers) {
    this.#handlers = handlers;
    this.#scroller = element("div", { class: "lanes" }, this.#canvas, this.#space);
    this.#slider = element(
      "div",
      {
        class: "slider",
        role: "slider",
        tabindex: 0,
        "aria-label": "Moment",
        "aria-valuemin": 0,
        "aria-valuenow": 0,
      },
      this.#scroller,
      this.#axis,
    );
    this.element = element("div", { class: "timeline" }, this.#slider);
    this.#addListeners();
    new ResizeObserver(() => this.#onViewChange()).observe(this.#slider);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  #addListeners(): void {
    const slider = this.#slider;
    slider.addEventListener("pointerdown", (event) => {
      // A finger may be about to scroll the lanes.
      if (event.pointerType === "touch" || event.button !== 0) return;
      slider.setPointerCapture(event.pointerId);
      this.#seekToPointer(event, true);
    });
    slider.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.#seekToPointer(event, false);
    });
    slider.addEventListener("pointerup", (event) => {
      if (event.pointerType === "touch") this.#seekToPointer(event, true);
    });
    slider.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    this.#scroller.addEventListener("scroll", () => this.#onViewChange());
  }

  /** Sets lanes and gaps. Keeps the zoom unless the whole range was visible. */
  show(lanes: readonly Lane[], gaps: readonly GapMark[], selected: string): void {
    this.#lanes = lanes;
    this.#gaps = gaps;
    const isNewlySelected = selected !== this.#selected;
    this.#selected = selected;
    const first = lanes.reduce(
      (min, lane) => (lane.first < min ? lane.first : min),
      lanes[0]?.first ?? 0n,
    );
    const last = lanes.reduce((max, lane) => (lane.last > max ? lane.last : max), first + 1n);
    this.range.setWhole(first, last);
    const most = maxShownLanes[window.innerWidth > maxNarrowPx ? "wide" : "narrow"];
    const shownLanes = Math.min(most, Math.max(1, lanes.length));
    for (const { style } of [this.#scroller, this.#canvas]) {
      style.height = `${shownLanes * laneHeightPx}px`;
    }
    this.#space.style.height = `${Math.max(1, lanes.length) * laneHeightPx}px`;
    this.#axis.style.height = `${axisHeightPx}px`;
    setAttribute(this.#slider, "aria-valuemax", Math.ceil(toMilliseconds(last - first)));
    if (isNewlySelected) this.#scrollToSelected();
    this.#onViewChange();
  }

  /** Sets the time shown and its description for screen readers. Scrolls to it if necessary. */
  move(at: bigint, text: string): void {
    this.#shownAt = at;
    const sinceFirst = Math.round(toMilliseconds(at - this.range.first));
    setAttribute(this.#slider, "aria-valuenow", sinceFirst);
    setAttribute(this.#slider, "aria-valuetext", text);
    if (this.range.centreIfOutside(at)) this.#onViewChange();
    this.#draw();
  }

  /** Multiplies the visible duration by `factor`, around the time shown. */
  zoom(factor: number): void {
    this.range.zoom(factor, this.#shownAt);
    this.#onViewChange();
  }

  /** Shows the whole range. */
  showAll(): void {
    this.range.showAll();
    this.#onViewChange();
  }

  #onViewChange(): void {
    this.#draw();
    clearTimeout(this.#densityTimer);
    this.#densityTimer = window.setTimeout(() => void this.#loadDensity(), densityDelayMs);
  }

  #scrollToSelected(): void {
    const top = this.#lanes.findIndex(({ name }) => name === this.#selected) * laneHeightPx;
    const { scrollTop, clientHeight } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    else if (top + laneHeightPx > scrollTop + clientHeight) {
      this.#scroller.scrollTop = top + laneHeightPx - clientHeight;
    }
  }

  /** Lanes that are in view. */
  get #shownLanes(): readonly Lane[] {
    const start = Math.floor(this.#scroller.scrollTop / laneHeightPx);
    return this.#lanes.slice(start, start + maxShownLanes.wide + 1);
  }

  async #loadDensity(): Promise<void> {
    const { from, to } = this.range;
    const { length } = this.#layout(this.#canvas.clientWidth);
    const names = this.#shownLanes.map(({ name }) => name);
    if (names.length === 0 || length < 10) return;
    const parts = Math.max(1, Math.min(maxParts, Math.round(length / partPx)));
    const density = await this.#handlers.loadDensity(names, from, to, parts);
    if (density === undefined) return;
    this.#density = density;
    this.#draw();
  }

  #onWheel(event: WheelEvent): void {
    const { scrollHeight, clientHeight } = this.#scroller;
    const isSideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    // The wheel scrolls more lanes than are shown; with Ctrl it zooms them.
    if (scrollHeight > clientHeight && !event.ctrlKey && !isSideways) return;
    event.preventDefault();
    if (isSideways) {
      this.range.shift(event.deltaX + (event.shiftKey ? event.deltaY : 0) > 0 ? 0.1 : -0.1);
    } else this.range.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.#timeAt(event.clientX));
    this.#onViewChange();
  }

  #seekToPointer({ clientX, clientY }: PointerEvent, isPress: boolean): void {
    const { top, bottom } = this.#scroller.getBoundingClientRect();
    const row = Math.floor((clientY - top + this.#scroller.scrollTop) / laneHeightPx);
    const lane = isPress && clientY < bottom ? this.#lanes[row] : undefined;
    const within = this.#timeAt(clientX + 2 * partPx) - this.#timeAt(clientX - 2 * partPx);
    this.#handlers.onSeek(this.#timeAt(clientX), lane?.name, within);
  }

  #timeAt(clientX: number): bigint {
    const { left, width } = this.#canvas.getBoundingClientRect();
    const { start, length } = this.#layout(width);
    return this.range.timeAt((clientX - left - start) / length);
  }

  /** Horizontal position of the lanes in CSS pixels, behind the names. */
  #layout(width: number): { start: number; length: number } {
    const start = width > maxNarrowPx ? 140 : 84;
    return { start, length: Math.max(1, width - start - 8) };
  }

  /** Schedules one repaint for the next animation frame. */
  #draw(): void {
    if (this.#isDrawScheduled) return;
    this.#isDrawScheduled = true;
    requestAnimationFrame(() => {
      this.#isDrawScheduled = false;
      this.#paintLanes();
      this.#paintAxis();
    });
  }

  #paintLanes(): void {
    const canvas = fitCanvas(this.#canvas);
    if (canvas === undefined) return;
    const { context, width, height } = canvas;
    const layout = this.#layout(width);
    context.font = `12px ${getComputedStyle(this.#slider).fontFamily}`;
    context.textBaseline = "middle";
    const { scrollTop } = this.#scroller;
    for (const [index, lane] of this.#lanes.entries()) {
      const top = index * laneHeightPx - scrollTop;
      if (top > -laneHeightPx && top < height) this.#paintLane(context, lane, top, layout);
    }
    this.#paintMoment(context, layout, height, false);
  }

  #paintLane(
    context: CanvasRenderingContext2D,
    lane: Lane,
    top: number,
    { start, length }: { start: number; length: number },
  ): void {
    const isSelected = lane.name === this.#selected;
    context.fillStyle = cssColour(isSelected ? "ink" : "dim");
    context.textAlign = "left";
    const middle = top + laneHeightPx / 2;
    context.fillText(shorten(context, lane.name, start - 10), 0, middle + 0.5);
    const x = (at: bigint): number => start + this.range.shareOf(at) * length;
    const clamp = (at: number): number => Math.max(start, Math.min(start + length, at));
    const bottom = top + laneHeightPx - 3;
    const [from, to] = [clamp(x(lane.first)), clamp(x(lane.last))];
    context.fillStyle = cssColour("line");
    context.fillRect(from, bottom - 1, Math.max(2, to - from), 1);
    context.fillStyle = cssColour(isSelected ? "lane-chosen" : "lane");
    this.#paintDensity(context, lane, x, { start, end: start + length, bottom });
    context.fillStyle = cssColour("bad");
    for (const gap of this.#gaps) {
      const at = x(gap.at);
      if (gap.source === lane.name && at >= start && at <= start + length) {
        context.fillRect(Math.round(at) - 1, top + 2, 2, laneHeightPx - 5);
      }
    }
  }

  /** Paints a bar for each part with frames. Without a density, one for the whole lane. */
  #paintDensity(
    context: CanvasRenderingContext2D,
    { name, first, last }: Lane,
    x: (at: bigint) => number,
    { start, end, bottom }: { start: number; end: number; bottom: number },
  ): void {
    const height = laneHeightPx - 6;
    const bar = (from: number, to: number, share: number): void => {
      const [left, right] = [Math.max(start, from), Math.min(end, to)];
      const size = Math.max(2, share * height);
      if (right > left) context.fillRect(left, bottom - size, right - left, size);
    };
    const counts = this.#density?.counts.get(name);
    if (this.#density === undefined || counts === undefined) {
      return bar(x(first), Math.max(x(last), x(first) + 2), 1);
    }
    const { from, to } = this.#density;
    const usual = usualCount(counts);
    const [left, width] = [x(from), (x(to) - x(from)) / counts.length];
    for (const [part, count] of counts.entries()) {
      if (count > 0)
        bar(left + part * width, left + (part + 1) * width, Math.min(1, count / usual));
    }
  }

  #paintAxis(): void {
    const canvas = fitCanvas(this.#axis);
    if (canvas === undefined) return;
    const { context, width, height } = canvas;
    const layout = this.#layout(width);
    const { start, length } = layout;
    context.font = `11px ${getComputedStyle(this.#slider).fontFamily}`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.strokeStyle = cssColour("line");
    context.fillStyle = cssColour("dim");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(start, 2.5);
    context.lineTo(start + length, 2.5);
    for (const { at, text } of axisTicks(this.range, length)) {
      const x = Math.round(start + this.range.shareOf(at) * length) + 0.5;
      context.moveTo(x, 2);
      context.lineTo(x, 7);
      const halfWidth = context.measureText(text).width / 2;
      if (x - halfWidth >= 0 && x + halfWidth <= width) context.fillText(text, x, 15);
    }
    context.stroke();
    this.#paintMoment(context, layout, height, true);
  }

  #paintMoment(
    context: CanvasRenderingContext2D,
    { start, length }: { start: number; length: number },
    height: number,
    isAxis: boolean,
  ): void {
    const share = this.range.shareOf(this.#shownAt);
    if (share < 0 || share > 1) return;
    const x = start + share * length;
    context.fillStyle = cssColour("signal");
    context.fillRect(x - 0.75, 0, 1.5, isAxis ? 3 : height);
    if (!isAxis) return;
    context.beginPath();
    context.moveTo(x - 5, 9);
    context.lineTo(x + 5, 9);
    context.lineTo(x, 2);
    context.fill();
  }
}

/** Returns the count that three of four parts with frames reach, so that a burst hides no others. */
function usualCount(counts: readonly number[]): number {
  const sorted = counts.filter((count) => count > 0).toSorted((one, other) => one - other);
  return sorted[sorted.length >> 2] ?? 1;
}

function shorten(context: CanvasRenderingContext2D, text: string, width: number): string {
  // Names may have hundreds of letters, of which only the first can fit.
  const letters = [...text.slice(0, 200)];
  if (text.length <= 200 && context.measureText(text).width <= width) return text;
  while (letters.length > 1 && context.measureText(`${letters.join("")}…`).width > width) {
    letters.length = Math.max(1, Math.min(letters.length - 1, Math.floor(letters.length * 0.9)));
  }
  return `${letters.join("")}…`;
}
