/** One live source on the wall: its picture, name and rate. */
/// <reference lib="dom" />
import type { SourceStateJson } from "./api.ts";
import { button, element, setAttribute, setText } from "./dom.ts";
import { displayCount, displayNumber } from "./format.ts";
import type { LiveHeader } from "./live-frames.ts";
import { LivePicture } from "./live-picture.ts";
import { type LiveSourceView, nextViewId } from "./live-source-view.ts";
import { keyOf, type SourceName } from "./natural-order.ts";
import type { PictureOptions, ShowResult } from "./picture.ts";
import { formatHash } from "./route.ts";

/** What the buttons of a tile do while the wall is arranged. */
export interface TileActions {
  /** Moves the tile by places; negative is towards the start. */
  move(key: string, by: -1 | 1): void;
  hide(key: string): void;
}

export class Tile implements LiveSourceView {
  readonly id = nextViewId();
  readonly element: HTMLElement;
  readonly live: LivePicture;
  readonly name: SourceName;
  readonly key: string;
  isVisible = false;
  readonly #link: HTMLAnchorElement;
  readonly #state = element("span", { class: "state" });
  readonly #rate = element("span", { class: "number rate" });
  readonly #gaps = element("span", { class: "number gaps", hidden: true });
  #latest: SourceStateJson | undefined;
  #shownFrames = 0;

  constructor(
    name: SourceName,
    options: Pick<PictureOptions, "decoder" | "preferences">,
    actions: TileActions,
  ) {
    const { stream, source } = name;
    this.name = name;
    this.key = keyOf(name);
    this.live = new LivePicture({ ...options, source: name });
    const { picture } = this.live;
    this.#link = element(
      "a",
      { href: formatHash({ stream, source, isLive: true }), title: `${stream} / ${source}` },
      element("bdi", { class: "stream-name", text: stream }),
      element("bdi", { text: source }),
    );
    this.element = element(
      "li",
      { class: "tile", "data-stream": stream, "data-source": source },
      picture.element,
      element(
        "div",
        { class: "caption" },
        element("h3", {}, this.#link),
        this.#state,
        this.#gaps,
        this.#rate,
      ),
      element(
        "div",
        { class: "arrange" },
        button("◀", () => actions.move(this.key, -1), { "aria-label": `Move ${source} back` }),
        button("▶", () => actions.move(this.key, 1), { "aria-label": `Move ${source} on` }),
        button("Hide", () => actions.hide(this.key), { "aria-label": `Hide ${source}` }),
      ),
    );
    // The link covers the tile, so that the canvas gets no events.
    this.element.addEventListener("pointermove", ({ pointerType, clientX, clientY }) => {
      if (pointerType !== "touch") picture.pointAt(clientX, clientY);
    });
    this.element.addEventListener("pointerleave", () => {
      picture.viewport.cursor = undefined;
    });
  }

  /** The last state of its source. */
  get latest(): SourceStateJson | undefined {
    return this.#latest;
  }

  update(state: SourceStateJson, now: number): void {
    this.#latest = state;
    this.live.update(state, now);
    if (this.isVisible) this.draw();
  }

  draw(): void {
    const latest = this.#latest;
    if (latest === undefined) return;
    setAttribute(this.element, "data-number", latest.number);
    setAttribute(this.element, "data-gaps", latest.gaps);
    setText(this.#rate, `${displayNumber(latest.rate)} /s`);
    setText(this.#gaps, `${displayCount(latest.gaps)} missing`);
    this.#gaps.hidden = latest.gaps === 0;
    this.#updateState();
  }

  #updateState(): void {
    const { kind, text } = this.live.state;
    setAttribute(this.element, "data-state", kind);
    setText(this.#state, text);
  }

  async showFrame(header: LiveHeader, bytes: Uint8Array<ArrayBuffer>): Promise<ShowResult> {
    const result = await this.live.showFrame(header, bytes);
    if (result === "nothing") return result;
    this.#updateState();
    setAttribute(this.element, "data-shown-number", header.number);
    if (result === "shown") setAttribute(this.element, "data-shown-count", ++this.#shownFrames);
    return result;
  }

  focus(): void {
    this.#link.focus();
  }
}
