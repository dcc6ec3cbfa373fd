/** The time that a stream covers, a lane for each source, and the moment that is shown. */
/// <reference lib="dom" />
import { colourOf, element, fitCanvas, mark } from "./dom.ts";
import { clock, milliseconds, moment } from "./format.ts";

/** When a source has frames. */
export interface Lane {
  readonly name: string;
  readonly first: bigint;
  readonly last: bigint;
}

/** Numbers that never came, when that was noted. */
export interface Loss {
  readonly source: string;
  readonly at: bigint;
}

/** Lanes that are drawn; the others share the last one. */
const mostLanes = 8;
const laneHeight = 18;
const axisHeight = 22;

/** Distances of marks on the axis in milliseconds, from which the narrowest that fits is taken. */
const distances = [1, 2, 5, 10, 20, 50, 100, 200, 500].concat(
  [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200].map(
    (seconds) => seconds * 1000,
  ),
  [1, 2, 5, 10, 20, 50, 100, 365].map((days) => days * 86_400_000),
);

export class Timeline {
  readonly element: HTMLElement;
  readonly #canvas = element("canvas", { "aria-hidden": true });
  readonly #seek: (at: bigint) => void;
  #lanes: readonly Lane[] = [];
  #losses: readonly Loss[] = [];
  #selected = "";
  /** All the time there is, and the part of it on the line. */
  #first = 0n;
  #last = 1n;
  #from = 0n;
  #to = 1n;
  #at = 0n;
  #isAsked = false;

  /** @param seek is told the moment that somebody points at */
  constructor(seek: (at: bigint) => void) {
    this.#seek = seek;
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
      this.#point(event);
    });
    this.element.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.#point(event);
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

  /** What the stream holds. All of it is on the line, unless less was chosen before. */
  show(lanes: readonly Lane[], losses: readonly Loss[], selected: string): void {
    const wasWhole = this.#from === this.#first && this.#to === this.#last;
    this.#lanes = lanes;
    this.#losses = losses;
    this.#selected = selected;
    this.#first = lanes.reduce(
      (least, { first }) => (first < least ? first : least),
      lanes[0]?.first ?? 0n,
    );
    this.#last = lanes.reduce((most, { last }) => (last > most ? last : most), this.#first + 1n);
    if (wasWhole) this.whole();
    const rows = Math.min(mostLanes, Math.max(1, lanes.length));
    this.element.style.height = `${rows * laneHeight + axisHeight + 6}px`;
    mark(this.element, "aria-valuemax", Math.ceil(milliseconds(this.#last - this.#first)));
    this.#draw();
  }

  /** The moment that is shown, and in words. */
  move(at: bigint, words: string): void {
    this.#at = at;
    mark(this.element, "aria-valuenow", Math.round(milliseconds(at - this.#first)));
    mark(this.element, "aria-valuetext", words);
    if (at < this.#from || at > this.#to) this.#centre(this.#to - this.#from);
    this.#draw();
  }

  /** Shows `factor` times as much time, around the moment. */
  zoom(factor: number): void {
    const length = BigInt(Math.round(Number(this.#to - this.#from) * factor));
    if (length >= this.#last - this.#first) this.whole();
    else this.#centre(length < 10_000_000n ? 10_000_000n : length);
    this.#draw();
  }

  /** Shows all the time there is. */
  whole(): void {
    this.#from = this.#first;
    this.#to = this.#last;
    this.#draw();
  }

  /** Puts the moment in the middle of so much time, as far as there is some. */
  #centre(length: bigint): void {
    let from = this.#at - length / 2n;
    if (from + length > this.#last) from = this.#last - length;
    if (from < this.#first) from = this.#first;
    this.#from = from;
    this.#to = from + length;
  }

  #point({ clientX }: PointerEvent): void {
    const { left, width } = this.#canvas.getBoundingClientRect();
    const { start, length } = this.#place(width);
    const share = Math.max(0, Math.min(1, (clientX - left - start) / length));
    this.#seek(this.#from + BigInt(Math.round(Number(this.#to - this.#from) * share)));
  }

  /** Where the lanes lie: beside their names, where there is room for names. */
  #place(width: number): { start: number; length: number } {
    const start = width > 640 ? 120 : 8;
    return { start, length: Math.max(1, width - start - 8) };
  }

  /** Once for each picture on the screen, however often something changed. */
  #draw(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    requestAnimationFrame(() => {
      this.#isAsked = false;
      this.#paint();
    });
  }

  #paint(): void {
    const fitted = fitCanvas(this.#canvas);
    if (fitted === undefined) return;
    const { pen, width } = fitted;
    const { start, length } = this.#place(width);
    const span = Number(this.#to - this.#from);
    const x = (time: bigint): number => start + (Number(time - this.#from) / span) * length;
    const bottom = Math.min(mostLanes, Math.max(1, this.#lanes.length)) * laneHeight;
    pen.font = `11px ${getComputedStyle(this.element).fontFamily}`;
    pen.textBaseline = "middle";
    for (const [index, lane] of this.#lanes.entries()) {
      this.#paintLane(pen, lane, Math.min(index, mostLanes - 1) * laneHeight, x, { start, length });
    }
    this.#paintAxis(pen, bottom, x, { start, length });
    this.#paintMoment(pen, bottom, x(this.#at));
  }

  #paintLane(
    pen: CanvasRenderingContext2D,
    { name, first, last }: Lane,
    top: number,
    x: (time: bigint) => number,
    { start, length }: { start: number; length: number },
  ): void {
    const middle = top + laneHeight / 2;
    const isSelected = name === this.#selected;
    if (start > 100) {
      pen.fillStyle = colourOf(isSelected ? "ink" : "dim");
      pen.textAlign = "left";
      pen.fillText(shorten(pen, name, start - 12), 0, middle + 0.5);
    }
    const clamp = (at: number): number => Math.max(start, Math.min(start + length, at));
    const [from, to] = [clamp(x(first)), clamp(x(last))];
    pen.fillStyle = colourOf(isSelected ? "lane-chosen" : "lane");
    pen.fillRect(from, top + 4, Math.max(2, to - from), laneHeight - 8);
    pen.fillStyle = colourOf("bad");
    for (const loss of this.#losses) {
      const at = x(loss.at);
      if (loss.source === name && at >= start && at <= start + length) {
        pen.fillRect(Math.round(at), top + 2, 1.5, laneHeight - 4);
      }
    }
  }

  #paintAxis(
    pen: CanvasRenderingContext2D,
    top: number,
    x: (time: bigint) => number,
    { start, length }: { start: number; length: number },
  ): void {
    const span = milliseconds(this.#to - this.#from);
    const step = distances.find((distance) => (distance / span) * length > 76) ?? span;
    const from = milliseconds(this.#from);
    pen.strokeStyle = colourOf("line");
    pen.fillStyle = colourOf("dim");
    pen.textAlign = "center";
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(start, top + 2.5);
    pen.lineTo(start + length, top + 2.5);
    for (let mark = Math.ceil(from / step) * step; mark <= from + span; mark += step) {
      const time = BigInt(Math.round(mark)) * 1_000_000n;
      const at = Math.round(x(time)) + 0.5;
      pen.moveTo(at, top + 2);
      pen.lineTo(at, top + 7);
      const text = markText(time, step);
      const half = pen.measureText(text).width / 2;
      if (at - half >= 0 && at + half <= start + length + 8) pen.fillText(text, at, top + 15);
    }
    pen.stroke();
  }

  #paintMoment(pen: CanvasRenderingContext2D, bottom: number, at: number): void {
    pen.fillStyle = colourOf("signal");
    pen.fillRect(at - 0.75, 0, 1.5, bottom + 4);
    pen.beginPath();
    pen.moveTo(at - 5, 0);
    pen.lineTo(at + 5, 0);
    pen.lineTo(at, 6);
    pen.fill();
  }
}

function markText(time: bigint, step: number): string {
  if (step >= 86_400_000) return moment(time).slice(0, 10);
  if (step >= 60_000) return clock(time).slice(0, 5);
  return step >= 1000 ? clock(time).slice(0, 8) : clock(time).slice(3);
}

function shorten(pen: CanvasRenderingContext2D, text: string, width: number): string {
  if (pen.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}
