/** One source in the recorded view: its frame, facts about it, and the download link. */
/// <reference lib="dom" />
import { type ApiClient, type FrameJson, frameUrl } from "./api.ts";
import { element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayTimeOfDay,
  displayCount,
  displayDelay,
  displayExactTime,
  toMilliseconds,
  zoneName,
  parseNanoseconds,
} from "./format.ts";
import type { SourceName } from "./natural-order.ts";
import type { Picture, PictureOptions } from "./picture.ts";
import { PictureInput } from "./picture-input.ts";
import { StoredPicture } from "./stored-picture.ts";

/** Shortest distance from the moment that is shown. */
const minOffsetMs = 0.05;

export class FramePanel {
  readonly element: HTMLElement;
  readonly input: PictureInput;
  readonly source: string;
  /** Whether the panel is on screen. */
  isVisible = false;
  readonly #stored: StoredPicture;
  readonly #radio = element("input", { type: "radio", name: "stepped" });
  readonly #caption = element("span", { class: "number last" });
  readonly #facts = element("dl", { class: "facts" });
  readonly #download = element("a", { class: "download", text: "Download", hidden: true });
  #frame: FrameJson | undefined;
  /** Whether the frame could not be fetched. */
  #isFailed = false;

  /** @param onChoose called when the user selects this source for stepping */
  constructor(
    api: ApiClient,
    { stream, source }: SourceName,
    options: Pick<PictureOptions, "decoder" | "preferences" | "viewport">,
    onChoose: () => void,
  ) {
    this.source = source;
    this.#stored = new StoredPicture(api, { ...options, source: { stream, source } });
    this.input = new PictureInput(this.picture);
    this.picture.label = `${source} of ${stream}`;
    this.#radio.addEventListener("change", onChoose);
    this.picture.canvas.addEventListener("click", () => {
      if (!this.#radio.checked) onChoose();
    });
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
        this.#caption,
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

  get picture(): Picture {
    return this.#stored.picture;
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
    if (!isShown) this.#isFailed = !(await this.#stored.show(frame));
    // The caption changes only with the picture.
    const offset = toMilliseconds(captured - at);
    const sign = offset > 0 ? "+" : "";
    const distance = Math.abs(offset) < minOffsetMs ? "" : `, ${sign}${displayDelay(offset)}`;
    setText(this.#caption, `frame ${displayCount(frame.number)}${distance}`);
    this.element.classList.toggle("far", Math.abs(offset) > 1000);
    if (isShown) return;
    this.#frame = frame;
    this.picture.label = `${this.source} of ${frame.stream}, frame ${displayCount(frame.number)} of ${displayTimeOfDay(captured)} ${zoneName(captured)}`;
    this.#updateFacts(frame);
    setAttribute(this.element, "data-number", frame.number);
    setAttribute(this.element, "data-name", frame.name);
    setAttribute(this.element, "data-captured", frame.captured);
  }

  /** Shows nothing, and frees the memory of the picture. */
  clear(): void {
    this.#frame = undefined;
    this.#stored.clear();
  }

  /** Frees the memory. The panel must not be used again. */
  close(): void {
    this.#stored.close();
  }

  download(): void {
    if (this.#frame !== undefined) this.#download.click();
  }

  /** Shows times in the zone that was chosen. */
  updateTimes(): void {
    if (this.#frame !== undefined) this.#updateFacts(this.#frame);
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
