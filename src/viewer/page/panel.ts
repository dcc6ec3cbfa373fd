/** One source of a recorded moment: its frame, what is known of it, and its download. */
/// <reference lib="dom" />
import { type Api, type Frame, frameAddress } from "./api.ts";
import { element, mark, say } from "./dom.ts";
import { bytes, clock, count, delay, exactTime, milliseconds, nanoseconds } from "./format.ts";
import { Picture } from "./picture.ts";
import type { Thermal } from "./thermal.ts";

export class Panel {
  readonly element: HTMLElement;
  readonly picture: Picture;
  readonly source: string;
  /** Whether it can be seen on the screen. */
  isVisible = false;
  readonly #api: Api;
  readonly #choice = element("input", { type: "radio", name: "stepped" });
  readonly #offset = element("span", { class: "number last" });
  readonly #facts = element("dl", { class: "facts" });
  readonly #download = element("a", { class: "download", text: "Download", hidden: true });
  #frame: Frame | undefined;

  /** @param choose is called when this is to be the source that is stepped through */
  constructor(api: Api, stream: string, source: string, thermal: Thermal, choose: () => void) {
    this.#api = api;
    this.source = source;
    this.picture = new Picture(thermal, `${stream}/${source}`, "stored");
    this.picture.label = `${source} of ${stream}`;
    this.#choice.addEventListener("change", choose);
    this.element = element(
      "article",
      { class: "card panel", "aria-label": source, "data-stream": stream, "data-source": source },
      element(
        "header",
        {},
        element(
          "h3",
          {},
          element("label", { title: "Step through this source" }, this.#choice, source),
        ),
        this.#offset,
      ),
      this.picture.element,
      this.picture.scale.element,
      element(
        "details",
        { class: "known", open: matchMedia("(min-width: 700px)").matches },
        element("summary", { text: "Facts" }),
        this.#facts,
      ),
      element("div", { class: "tools" }, this.#download),
    );
  }

  /** The frame that is shown. */
  get frame(): Frame | undefined {
    return this.#frame;
  }

  set isChosen(value: boolean) {
    this.#choice.checked = value;
    this.element.classList.toggle("chosen", value);
  }

  /** Shows a frame beside the moment that is meant. What is there already is not fetched again. */
  async show(frame: Frame, at: bigint): Promise<void> {
    const captured = nanoseconds(frame.captured) ?? at;
    const offset = milliseconds(captured - at);
    const sign = offset > 0 ? "+" : "";
    say(this.#offset, captured === at ? "at the moment" : `${sign}${delay(offset)}`);
    this.element.classList.toggle("far", Math.abs(offset) > 1000);
    if (this.#frame !== undefined && isSame(this.#frame, frame)) return;
    const image = await this.#api.bytes(frameAddress(frame));
    await this.picture.show(image, frame.type, frame.raw);
    this.#frame = frame;
    this.picture.label = `${this.source} of ${frame.stream}, frame ${count(frame.number)} of ${clock(captured)} UTC`;
    this.#sayFacts(frame);
    mark(this.element, "data-number", frame.number);
    mark(this.element, "data-name", frame.name);
    mark(this.element, "data-captured", frame.captured);
  }

  download(): void {
    if (this.#frame !== undefined) this.#download.click();
  }

  #sayFacts(frame: Frame): void {
    const shape =
      frame.raw === null ? "" : `, ${frame.raw.width}x${frame.raw.height} ${frame.raw.format}`;
    const facts: [string, string][] = [
      ["name", frame.name],
      ["number", count(frame.number)],
      ["captured", timeOf(frame.captured)],
      ["received", timeOf(frame.received)],
      ["size", `${bytes(frame.size)} (${count(frame.size)} bytes)${shape}`],
      ["CRC-32", frame.crc32],
      ["session", frame.session],
    ];
    if (frame.key !== null) facts.push(["key", frame.key]);
    const metadata = metadataText(frame.metadata);
    if (metadata !== "") facts.push(["metadata", metadata]);
    this.#facts.replaceChildren(
      ...facts.map(([name, value]) =>
        element("div", {}, element("dt", { text: name }), element("dd", { text: value })),
      ),
    );
    this.#download.href = frameAddress(frame);
    this.#download.download = frame.name;
    this.#download.hidden = false;
  }
}

function isSame(one: Frame, other: Frame): boolean {
  return one.name === other.name && one.crc32 === other.crc32 && one.session === other.session;
}

function timeOf(text: string): string {
  const time = nanoseconds(text);
  return time === undefined ? text : exactTime(time);
}

function metadataText(metadata: unknown): string {
  if (metadata === null || metadata === undefined) return "";
  return typeof metadata === "string" ? metadata : JSON.stringify(metadata);
}
