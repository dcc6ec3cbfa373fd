/** The last minutes of a source in a few square centimetres: its rate, its bandwidth, its gaps. */
/// <reference lib="dom" />
import { colourOf, element, fitCanvas, mark } from "./dom.ts";
import { bytes, counted, digits } from "./format.ts";

/** Rate, bandwidth, and numbers that were missing, in two seconds. */
type Entry = readonly [rate: number, bandwidth: number, gaps: number];

/** Entries of five minutes. */
const most = 150;

export class Plot {
  readonly element = element("canvas", { class: "plot", role: "img" });
  #entries: Entry[] = [];

  /** Takes what the server remembers. */
  begin(entries: readonly Entry[]): void {
    this.#entries = entries.slice(-most);
  }

  /** Goes on by one entry. */
  push(entry: Entry): void {
    this.#entries.push(entry);
    if (this.#entries.length > most) this.#entries.shift();
  }

  draw(): void {
    const fitted = fitCanvas(this.element);
    if (fitted === undefined) return;
    const { pen, width, height } = fitted;
    const highest = Math.max(0.1, ...this.#entries.map(([rate]) => rate));
    const widest = Math.max(1, ...this.#entries.map(([, bandwidth]) => bandwidth));
    const floor = height - 4;
    const x = (index: number): number =>
      width - 1 - ((this.#entries.length - 1 - index) / (most - 1)) * (width - 2);
    const y = (share: number): number => floor - share * (floor - 3) * 0.92;
    this.#rule(pen, width, floor);
    this.#area(pen, x, (entry) => y(entry[1] / widest), floor);
    this.#line(pen, x, (entry) => y(entry[0] / highest));
    pen.fillStyle = colourOf("bad");
    for (const [index, [, , gaps]] of this.#entries.entries()) {
      if (gaps > 0) pen.fillRect(Math.round(x(index)) - 1, 2, 2, floor - 1);
    }
    this.#label(pen, `${digits(highest)} /s`);
    mark(this.element, "aria-label", this.#words());
  }

  /** What the height stands for. */
  #label(pen: CanvasRenderingContext2D, text: string): void {
    pen.font = `10px ${getComputedStyle(this.element).fontFamily}`;
    pen.textBaseline = "top";
    pen.fillStyle = colourOf("paper");
    pen.fillRect(0, 0, pen.measureText(text).width + 4, 12);
    pen.fillStyle = colourOf("dim");
    pen.fillText(text, 0, 1);
  }

  #rule(pen: CanvasRenderingContext2D, width: number, floor: number): void {
    pen.strokeStyle = colourOf("line");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, floor + 0.5);
    pen.lineTo(width, floor + 0.5);
    // A tick for each minute.
    for (let minute = 0; minute <= 5; minute++) {
      const at = Math.min(width - 0.5, Math.round(width - 1 - (minute / 5) * (width - 2)) + 0.5);
      pen.moveTo(at, floor);
      pen.lineTo(at, floor + 4);
    }
    pen.stroke();
  }

  #area(
    pen: CanvasRenderingContext2D,
    x: (index: number) => number,
    y: (entry: Entry) => number,
    floor: number,
  ): void {
    if (this.#entries.length < 2) return;
    pen.fillStyle = colourOf("faint");
    pen.beginPath();
    pen.moveTo(x(0), floor);
    for (const [index, entry] of this.#entries.entries()) pen.lineTo(x(index), y(entry));
    pen.lineTo(x(this.#entries.length - 1), floor);
    pen.fill();
  }

  #line(
    pen: CanvasRenderingContext2D,
    x: (index: number) => number,
    y: (entry: Entry) => number,
  ): void {
    pen.strokeStyle = colourOf("signal");
    pen.lineWidth = 1.25;
    pen.lineJoin = "round";
    pen.beginPath();
    for (const [index, entry] of this.#entries.entries()) pen.lineTo(x(index), y(entry));
    pen.stroke();
  }

  #words(): string {
    const rates = this.#entries.map(([rate]) => rate);
    if (rates.length === 0) return "The last five minutes: nothing yet";
    const lost = this.#entries.reduce((sum, [, , gaps]) => sum + gaps, 0);
    const widest = Math.max(...this.#entries.map(([, bandwidth]) => bandwidth));
    return (
      `The last five minutes: ${digits(Math.min(...rates))} to ${digits(Math.max(...rates))} frames a second, ` +
      `up to ${bytes(widest)} a second, ${counted(lost, "frame")} missing`
    );
  }
}
