/** Plots the last five minutes of a source: rate, bandwidth and gaps. */
/// <reference lib="dom" />
import { cssColour, element, fitCanvas, setAttribute } from "./dom.ts";
import { displayBytes, displayPlural, displayNumber } from "./format.ts";

/** Rate, bandwidth and new gaps of two seconds. */
type HistoryEntry = readonly [rate: number, bandwidth: number, gaps: number];

/** Entries in five minutes. */
const maxEntries = 150;

export class Plot {
  readonly element = element("canvas", {
    class: "plot",
    role: "img",
    title: "The last five minutes: line for rate, area for bandwidth, red for lost frame numbers",
  });
  #entries: HistoryEntry[] = [];

  /** Replaces all entries by the server's history. */
  setHistory(entries: readonly HistoryEntry[]): void {
    this.#entries = entries.slice(-maxEntries);
  }

  /** Appends an entry and removes the oldest one at the limit. */
  push(entry: HistoryEntry): void {
    this.#entries.push(entry);
    if (this.#entries.length > maxEntries) this.#entries.shift();
  }

  draw(): void {
    const canvas = fitCanvas(this.element);
    if (canvas === undefined) return;
    const { context, width, height } = canvas;
    const maxRate = Math.max(0.1, ...this.#entries.map(([rate]) => rate));
    const maxBandwidth = Math.max(1, ...this.#entries.map(([, bandwidth]) => bandwidth));
    const baseline = height - 4;
    const x = (index: number): number =>
      width - 1 - ((this.#entries.length - 1 - index) / (maxEntries - 1)) * (width - 2);
    const y = (share: number): number => baseline - share * (baseline - 3) * 0.92;
    this.#drawAxis(context, width, baseline);
    this.#drawBandwidth(context, x, (entry) => y(entry[1] / maxBandwidth), baseline);
    this.#drawRate(context, x, (entry) => y(entry[0] / maxRate));
    context.fillStyle = cssColour("bad");
    for (const [index, [, , gaps]] of this.#entries.entries()) {
      if (gaps > 0) context.fillRect(Math.round(x(index)) - 1, 2, 2, baseline - 1);
    }
    this.#drawLabel(context, `${displayNumber(maxRate)} /s`);
    setAttribute(this.element, "aria-label", this.#describe());
  }

  /** Labels the top of the rate axis. */
  #drawLabel(context: CanvasRenderingContext2D, text: string): void {
    context.font = `10px ${getComputedStyle(this.element).fontFamily}`;
    context.textBaseline = "top";
    context.fillStyle = cssColour("paper");
    context.fillRect(0, 0, context.measureText(text).width + 4, 12);
    context.fillStyle = cssColour("dim");
    context.fillText(text, 0, 1);
  }

  #drawAxis(context: CanvasRenderingContext2D, width: number, baseline: number): void {
    context.strokeStyle = cssColour("line");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, baseline + 0.5);
    context.lineTo(width, baseline + 0.5);
    // One tick per minute.
    for (let minute = 0; minute <= 5; minute++) {
      const at = Math.min(width - 0.5, Math.round(width - 1 - (minute / 5) * (width - 2)) + 0.5);
      context.moveTo(at, baseline);
      context.lineTo(at, baseline + 4);
    }
    context.stroke();
  }

  #drawBandwidth(
    context: CanvasRenderingContext2D,
    x: (index: number) => number,
    y: (entry: HistoryEntry) => number,
    baseline: number,
  ): void {
    if (this.#entries.length < 2) return;
    context.fillStyle = cssColour("faint");
    context.beginPath();
    context.moveTo(x(0), baseline);
    for (const [index, entry] of this.#entries.entries()) context.lineTo(x(index), y(entry));
    context.lineTo(x(this.#entries.length - 1), baseline);
    context.fill();
  }

  #drawRate(
    context: CanvasRenderingContext2D,
    x: (index: number) => number,
    y: (entry: HistoryEntry) => number,
  ): void {
    context.strokeStyle = cssColour("signal");
    context.lineWidth = 1.25;
    context.lineJoin = "round";
    context.beginPath();
    for (const [index, entry] of this.#entries.entries()) context.lineTo(x(index), y(entry));
    context.stroke();
  }

  #describe(): string {
    const rates = this.#entries.map(([rate]) => rate);
    if (rates.length === 0) return "The last five minutes: no frames yet";
    const lost = this.#entries.reduce((sum, [, , gaps]) => sum + gaps, 0);
    const maxBandwidth = Math.max(...this.#entries.map(([, bandwidth]) => bandwidth));
    return (
      `The last five minutes: ${displayNumber(Math.min(...rates))} to ${displayNumber(Math.max(...rates))} frames a second, ` +
      `up to ${displayBytes(maxBandwidth)} a second, ${displayPlural(lost, "frame")} missing`
    );
  }
}
