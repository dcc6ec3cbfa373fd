/** Timeline of a stream: one lane per source, losses, and the time shown. */
/// <reference lib="dom" />
import { cssColour, element, fitCanvas, setAttribute } from "./dom.ts";
import { displayTimeOfDay, toMilliseconds, displayDateTime } from "./format.ts";

/** Capture times of a source's first and last frame, in ns since 1970. */
export interface Lane {
  readonly name: string;
  readonly first: bigint;
  readonly last: bigint;
}

/** A loss, and when it was recorded. */
export interface LossMark {
  readonly source: string;
  readonly at: bigint;
}

/** Limit of lanes. Further sources share the last one. */
const maxLanes = 8;
const laneHeightPx = 18;
const axisHeightPx = 22;

/** Candidate tick intervals. The smallest one whose labels fit is used. */
const tickStepsMs = [1, 2, 5, 10, 20, 50, 100, 200, 500].concat(
  [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200].map(
    (seconds) => seconds * 1000,
  ),
  [1, 2, 5, 10, 20, 50, 100, 365].map((days) => days * 86_400_000),
);

export class Timeline {
  readonly element: HTMLElement;
  readonly #canvas = element("canvas", { "aria-hidden": true });
  readonly #onSeek: (at: bigint) => void;
  #lanes: readonly Lane[] = [];
  #losses: readonly LossMark[] = [];
  #selected = "";
  /** Range of the stream, and the visible part of it. In ns since 1970. */
  #first = 0n;
  #last = 1n;
  #visibleFrom = 0n;
  #visibleTo = 1n;
  #shownAt = 0n;
  #isDrawScheduled = false;

  /** @param onSeek called with the time at the pointer */
  constructor(onSeek: (at: bigint) => void) {
    this.#onSeek = onSeek;
    this.element = element(
      "div",
      {
        class: "timeline",
        role: "slider",
        tabindex: 0,
        "aria-label": "Moment",
        "aria-valuemin": 0,
      },
      this.#canvas,
    );
    this.element.addEventListener("pointerdown", (event) => {
      this.element.setPointerCapture(event.pointerId);
      this.#seekToPointer(event);
    });
    this.element.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.#seekToPointer(event);
    });
    this.element.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(event.deltaY > 0 ? 1.25 : 0.8);
      },
      { passive: false },
    );
    new ResizeObserver(() => this.#draw()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Sets lanes and losses. Keeps the zoom unless the whole range was visible. */
  show(lanes: readonly Lane[], losses: readonly LossMark[], selected: string): void {
    const wasShowingAll = this.#visibleFrom === this.#first && this.#visibleTo === this.#last;
    this.#lanes = lanes;
    this.#losses = losses;
    this.#selected = selected;
    this.#first = lanes.reduce(
      (min, { first }) => (first < min ? first : min),
      lanes[0]?.first ?? 0n,
    );
    this.#last = lanes.reduce((max, { last }) => (last > max ? last : max), this.#first + 1n);
    if (wasShowingAll) this.showAll();
    const rows = Math.min(maxLanes, Math.max(1, lanes.length));
    this.element.style.height = `${rows * laneHeightPx + axisHeightPx + 6}px`;
    setAttribute(
      this.element,
      "aria-valuemax",
      Math.ceil(toMilliseconds(this.#last - this.#first)),
    );
    this.#draw();
  }

  /** Sets the time shown and its description for screen readers. Scrolls to it if necessary. */
  move(at: bigint, text: string): void {
    this.#shownAt = at;
    setAttribute(this.element, "aria-valuenow", Math.round(toMilliseconds(at - this.#first)));
    setAttribute(this.element, "aria-valuetext", text);
    if (at < this.#visibleFrom || at > this.#visibleTo)
      this.#centre(this.#visibleTo - this.#visibleFrom);
    this.#draw();
  }

  /** Multiplies the visible duration by `factor`, centred on the time shown. */
  zoom(factor: number): void {
    const length = BigInt(Math.round(Number(this.#visibleTo - this.#visibleFrom) * factor));
    if (length >= this.#last - this.#first) this.showAll();
    else this.#centre(length < 10_000_000n ? 10_000_000n : length);
    this.#draw();
  }

  /** Shows the whole range. */
  showAll(): void {
    this.#visibleFrom = this.#first;
    this.#visibleTo = this.#last;
    this.#draw();
  }

  /** Centres the time shown in a visible range of `length` ns, within the whole range. */
  #centre(length: bigint): void {
    let from = this.#shownAt - length / 2n;
    if (from + length > this.#last) from = this.#last - length;
    if (from < this.#first) from = this.#first;
    this.#visibleFrom = from;
    this.#visibleTo = from + length;
  }

  #seekToPointer({ clientX }: PointerEvent): void {
    const { left, width } = this.#canvas.getBoundingClientRect();
    const { start, length } = this.#layout(width);
    const share = Math.max(0, Math.min(1, (clientX - left - start) / length));
    this.#onSeek(
      this.#visibleFrom + BigInt(Math.round(Number(this.#visibleTo - this.#visibleFrom) * share)),
    );
  }

  /** Horizontal position of the lanes in CSS pixels. Wide timelines reserve space for names. */
  #layout(width: number): { start: number; length: number } {
    const start = width > 640 ? 120 : 8;
    return { start, length: Math.max(1, width - start - 8) };
  }

  /** Schedules one repaint for the next animation frame. */
  #draw(): void {
    if (this.#isDrawScheduled) return;
    this.#isDrawScheduled = true;
    requestAnimationFrame(() => {
      this.#isDrawScheduled = false;
      this.#paint();
    });
  }

  #paint(): void {
    const canvas = fitCanvas(this.#canvas);
    if (canvas === undefined) return;
    const { context, width } = canvas;
    const { start, length } = this.#layout(width);
    const span = Number(this.#visibleTo - this.#visibleFrom);
    const x = (time: bigint): number => start + (Number(time - this.#visibleFrom) / span) * length;
    const bottom = Math.min(maxLanes, Math.max(1, this.#lanes.length)) * laneHeightPx;
    context.font = `11px ${getComputedStyle(this.element).fontFamily}`;
    context.textBaseline = "middle";
    for (const [index, lane] of this.#lanes.entries()) {
      this.#paintLane(context, lane, Math.min(index, maxLanes - 1) * laneHeightPx, x, {
        start,
        length,
      });
    }
    this.#paintAxis(context, bottom, x, { start, length });
    this.#paintMoment(context, bottom, x(this.#shownAt));
  }

  #paintLane(
    context: CanvasRenderingContext2D,
    { name, first, last }: Lane,
    top: number,
    x: (time: bigint) => number,
    { start, length }: { start: number; length: number },
  ): void {
    const middle = top + laneHeightPx / 2;
    const isSelected = name === this.#selected;
    if (start > 100) {
      context.fillStyle = cssColour(isSelected ? "ink" : "dim");
      context.textAlign = "left";
      context.fillText(shorten(context, name, start - 12), 0, middle + 0.5);
    }
    const clamp = (at: number): number => Math.max(start, Math.min(start + length, at));
    const [from, to] = [clamp(x(first)), clamp(x(last))];
    context.fillStyle = cssColour(isSelected ? "lane-chosen" : "lane");
    context.fillRect(from, top + 4, Math.max(2, to - from), laneHeightPx - 8);
    context.fillStyle = cssColour("bad");
    for (const loss of this.#losses) {
      const at = x(loss.at);
      if (loss.source === name && at >= start && at <= start + length) {
        context.fillRect(Math.round(at), top + 2, 1.5, laneHeightPx - 4);
      }
    }
  }

  #paintAxis(
    context: CanvasRenderingContext2D,
    top: number,
    x: (time: bigint) => number,
    { start, length }: { start: number; length: number },
  ): void {
    const span = toMilliseconds(this.#visibleTo - this.#visibleFrom);
    const step = tickStepsMs.find((stepMs) => (stepMs / span) * length > 76) ?? span;
    const from = toMilliseconds(this.#visibleFrom);
    context.strokeStyle = cssColour("line");
    context.fillStyle = cssColour("dim");
    context.textAlign = "center";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(start, top + 2.5);
    context.lineTo(start + length, top + 2.5);
    for (let tick = Math.ceil(from / step) * step; tick <= from + span; tick += step) {
      const time = BigInt(Math.round(tick)) * 1_000_000n;
      const at = Math.round(x(time)) + 0.5;
      context.moveTo(at, top + 2);
      context.lineTo(at, top + 7);
      const text = tickLabel(time, step);
      const halfWidth = context.measureText(text).width / 2;
      if (at - halfWidth >= 0 && at + halfWidth <= start + length + 8)
        context.fillText(text, at, top + 15);
    }
    context.stroke();
  }

  #paintMoment(context: CanvasRenderingContext2D, bottom: number, at: number): void {
    context.fillStyle = cssColour("signal");
    context.fillRect(at - 0.75, 0, 1.5, bottom + 4);
    context.beginPath();
    context.moveTo(at - 5, 0);
    context.lineTo(at + 5, 0);
    context.lineTo(at, 6);
    context.fill();
  }
}

function tickLabel(time: bigint, step: number): string {
  if (step >= 86_400_000) return displayDateTime(time).slice(0, 10);
  if (step >= 60_000) return displayTimeOfDay(time).slice(0, 5);
  return step >= 1000 ? displayTimeOfDay(time).slice(0, 8) : displayTimeOfDay(time).slice(3);
}

function shorten(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}
