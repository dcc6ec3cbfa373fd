/** One source in the recorded view: its frame, facts about it, and the download link. */
/// <reference lib="dom" />
import { type ApiClient, ApiError, type FrameJson, frameUrl } from "./api.ts";
import { element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayTimeOfDay,
  displayCount,
  displayDelay,
  displayExactTime,
  toMilliseconds,
  parseNanoseconds,
} from "./format.ts";
import { Picture } from "./picture.ts";
import type { GreyPainter } from "./grey-painter.ts";

export class FramePanel {
  readonly element: HTMLElement;
  readonly picture: Picture;
  readonly source: string;
  /** Whether the panel is on screen. */
  isVisible = false;
  readonly #api: ApiClient;
  readonly #radio = element("input", { type: "radio", name: "stepped" });
  readonly #offset = element("span", { class: "number last" });
  readonly #facts = element("dl", { class: "facts" });
  readonly #download = element("a", { class: "download", text: "Download", hidden: true });
  #frame: FrameJson | undefined;
  /** Whether the frame could not be fetched. */
  #isFailed = false;

  /** @param onChoose called when the user selects this source for stepping */
  constructor(
    api: ApiClient,
    stream: string,
    source: string,
    painter: GreyPainter,
    onChoose: () => void,
  ) {
    this.#api = api;
    this.source = source;
    this.picture = new Picture(painter, `${stream}/${source}`, "stored");
    this.picture.label = `${source} of ${stream}`;
    this.#radio.addEventListener("change", onChoose);
    this.element = element(
      "article",
      { class: "card panel", "aria-label": source, "data-stream": stream, "data-source": source },
      element(
        "header",
        {},
        element(
          "h3",
          {},
          element("label", { title: "Step through this source" }, this.#radio, source),
        ),
        this.#offset,
      ),
      this.picture.element,
      this.picture.scale.element,
      element(
        "details",
        { class: "known", open: matchMedia("(min-width: 700px)").matches },
        element("summary", { text: "Details" }),
        this.#facts,
      ),
      element("div", { class: "tools" }, this.#download),
    );
  }

  /** The frame shown. */
  get frame(): FrameJson | undefined {
    return this.#frame;
  }

  set isSelected(value: boolean) {
    this.#radio.checked = value;
    this.element.classList.toggle("chosen", value);
  }

  /**
   * Shows a frame and its offset from `at`, or why it cannot be fetched. Does not fetch the current
   * frame again.
   *
   * @param at requested time in ns since 1970
   */
  async show(frame: FrameJson, at: bigint): Promise<void> {
    const captured = parseNanoseconds(frame.captured) ?? at;
    const isShown = this.#frame !== undefined && !this.#isFailed && isSameFrame(this.#frame, frame);
    if (!isShown) await this.#showPicture(frame);
    // The caption changes only with the picture.
    const offset = toMilliseconds(captured - at);
    const sign = offset > 0 ? "+" : "";
    setText(this.#offset, captured === at ? "at the moment" : `${sign}${displayDelay(offset)}`);
    this.element.classList.toggle("far", Math.abs(offset) > 1000);
    if (isShown) return;
    this.#frame = frame;
    this.picture.label = `${this.source} of ${frame.stream}, frame ${displayCount(frame.number)} of ${displayTimeOfDay(captured)} UTC`;
    this.#updateFacts(frame);
    setAttribute(this.element, "data-number", frame.number);
    setAttribute(this.element, "data-name", frame.name);
    setAttribute(this.element, "data-captured", frame.captured);
  }

  async #showPicture(frame: FrameJson): Promise<void> {
    let image: Uint8Array<ArrayBuffer>;
    try {
      image = await this.#api.bytes(frameUrl(frame));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#isFailed = true;
      this.picture.showError(error.message);
      return;
    }
    this.#isFailed = false;
    await this.picture.show(image, frame.type, frame.raw);
  }

  download(): void {
    if (this.#frame !== undefined) this.#download.click();
  }

  #updateFacts(frame: FrameJson): void {
    const shape =
      frame.raw === null ? "" : `, ${frame.raw.width}x${frame.raw.height} ${frame.raw.format}`;
    const facts: [string, string][] = [
      ["name", frame.name],
      ["number", displayCount(frame.number)],
      ["captured", formatTime(frame.captured)],
      ["received", formatTime(frame.received)],
      ["size", `${displayBytes(frame.size)} (${displayCount(frame.size)} bytes)${shape}`],
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
    this.#download.href = frameUrl(frame);
    this.#download.download = frame.name;
    this.#download.hidden = false;
  }
}

function isSameFrame(one: FrameJson, other: FrameJson): boolean {
  return one.name === other.name && one.crc32 === other.crc32 && one.session === other.session;
}

function formatTime(text: string): string {
  const time = parseNanoseconds(text);
  return time === undefined ? text : displayExactTime(time);
}

function metadataText(metadata: unknown): string {
  if (metadata === null || metadata === undefined) return "";
  return typeof metadata === "string" ? metadata : JSON.stringify(metadata);
}
