/** One source of the live view: its picture, its figures and its plot. */
/// <reference lib="dom" />
import type { Live, SourceState } from "./api.ts";
import { sourcePath } from "./api.ts";
import { button, element, mark, say } from "./dom.ts";
import {
  bytes,
  clock,
  count,
  delay,
  digits,
  duration,
  milliseconds,
  nanoseconds,
} from "./format.ts";
import type { LiveHeader } from "./live-frames.ts";
import { Picture } from "./picture.ts";
import { Plot } from "./plot.ts";
import { hashOf } from "./route.ts";
import type { Thermal } from "./thermal.ts";

/** Frames of which the median delay is shown. */
const looked = 90;

/** Milliseconds without a frame after which a source counts as still. */
const stillAfter = 3_000;

const figures = ["rate", "bandwidth", "delay", "to screen", "gaps"] as const;
type Figure = (typeof figures)[number];

const meanings: Record<Figure, string> = {
  rate: "Frames a second that arrive",
  bandwidth: "Bytes a second that arrive",
  delay: "From capture to receipt at the server, median",
  "to screen":
    "From capture until the frame is on this screen, median; the clocks of both machines count",
  gaps: "Numbers that are missing in this session",
};

export class Card {
  readonly element: HTMLElement;
  readonly picture: Picture;
  /** Whether it can be seen on the screen. */
  isVisible = false;
  readonly #stream: string;
  readonly #source: string;
  readonly #plot = new Plot();
  readonly #state = element("span", { class: "state" });
  readonly #number = element("span", { class: "number last" });
  readonly #figures = new Map<Figure, HTMLElement>();
  /** Milliseconds from capture to the screen, of the last frames. */
  readonly #delays: number[] = [];
  #shownFrames = 0;
  #shownName = "";
  #last: Live | undefined;
  #heard = 0;
  /** Gaps when the plot went on last. */
  #gaps: number | undefined;

  /** @param copy shows the address that other programs open */
  constructor(stream: string, source: string, thermal: Thermal, copy: () => void) {
    this.#stream = stream;
    this.#source = source;
    this.picture = new Picture(thermal, `${stream}/${source}`, "live");
    this.picture.label = `${source} of ${stream}`;
    const latest = `${sourcePath(stream, source)}/latest`;
    this.element = element(
      "article",
      { class: "card", "aria-label": source, "data-stream": stream, "data-source": source },
      element(
        "header",
        {},
        element("h3", {}, element("a", { href: hashOf({ stream, source }), text: source })),
        this.#state,
        this.#number,
      ),
      this.picture.element,
      this.picture.scale.element,
      this.#list(),
      this.#plot.element,
      element(
        "div",
        { class: "tools" },
        button("Copy address", copy, { "aria-label": `Copy the address of ${source}` }),
        element("a", { href: latest, target: "_blank", rel: "noopener", text: "Last frame" }),
      ),
    );
  }

  #list(): HTMLElement {
    const list = element("dl", { class: "figures" });
    for (const name of figures) {
      const value = element("dd", { text: "–" });
      this.#figures.set(name, value);
      list.append(element("div", { title: meanings[name] }, element("dt", { text: name }), value));
    }
    return list;
  }

  /** What the server remembers of the last minutes. */
  remember(live: Live): void {
    this.#plot.begin(live.history ?? []);
    this.#last ??= live;
  }

  /** Once a second. `turn` counts the seconds: the plot goes on every second one. */
  update(state: SourceState, now: number, turn: number): void {
    this.#last = state;
    this.#heard = now;
    if (turn % 2 === 0) {
      const missing = this.#gaps === undefined ? 0 : Math.max(0, state.gaps - this.#gaps);
      this.#gaps = state.gaps;
      this.#plot.push([state.rate, state.bandwidth, missing]);
    }
    if (this.isVisible) this.draw();
  }

  /** Writes down what is known. */
  draw(): void {
    const last = this.#last;
    if (last === undefined) return;
    const card = this.element;
    mark(card, "data-number", last.number);
    mark(card, "data-rate", last.rate);
    mark(card, "data-gaps", last.gaps);
    this.#set("rate", last.rate === 0 ? "0 /s" : `${digits(last.rate)} /s`);
    this.#set("bandwidth", `${bytes(last.bandwidth)}/s`);
    this.#set("delay", delay(last.delay));
    const shown = median(this.#delays);
    this.#set("to screen", delay(shown));
    if (shown !== null) mark(card, "data-shown-delay", shown.toFixed(1));
    this.#set("gaps", count(last.gaps));
    card.classList.toggle("lossy", last.gaps > 0);
    say(this.#number, `frame ${count(last.number)}`);
    this.#sayState(last);
    this.#plot.draw();
    this.picture.label = `${this.#source} of ${this.#stream}, ${this.#shownName}`;
  }

  #sayState(last: Live): void {
    const received = nanoseconds(last.received);
    const age = received === undefined ? 0 : this.#heard - milliseconds(received);
    const isStill = last.rate === 0 && age > stillAfter;
    this.element.classList.toggle("still", isStill);
    say(this.#state, isStill ? `still for ${duration(age)}` : "live");
  }

  #set(name: Figure, text: string): void {
    say(this.#figures.get(name)!, text);
  }

  /**
   * Shows a frame that has just come.
   *
   * @returns whether it could be shown
   */
  async show(header: LiveHeader, frame: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const isShown = await this.picture.show(frame, header.type, header.raw);
    const captured = nanoseconds(header.captured);
    if (!isShown || captured === undefined) return isShown;
    afterPainting(() => {
      this.#delays.push(Date.now() - milliseconds(captured));
      if (this.#delays.length > looked) this.#delays.shift();
    });
    this.#shownFrames++;
    this.#shownName = `frame ${count(header.number)} of ${clock(captured)} UTC`;
    const { dataset } = this.element;
    dataset["shownNumber"] = `${header.number}`;
    dataset["shownCount"] = `${this.#shownFrames}`;
    if (this.#shownFrames === 1) this.draw();
    return true;
  }
}

/** Acts when what was drawn has gone to the screen: in the task after the next animation frame. */
function afterPainting(act: () => void): void {
  requestAnimationFrame(() => setTimeout(act, 0));
}

function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[sorted.length >> 1]!;
}
