/** The strip under a grey picture: which value has which colour, and the choice of colours. */
/// <reference lib="dom" />
import type { GreyRange } from "../grey.ts";
import { isPalette, palette, type PaletteName, paletteNames } from "../palette.ts";
import { element, mark, say } from "./dom.ts";
import { count } from "./format.ts";

export class Scale {
  readonly element: HTMLElement;
  readonly #low = element("span", { class: "number" });
  readonly #high = element("span", { class: "number" });
  readonly #strip = element("canvas", { width: 256, height: 1, "aria-hidden": true });
  readonly #choice = element("select", { "aria-label": "Palette" });
  readonly #keep = element("input", { type: "checkbox" });
  #drawn: PaletteName | undefined;

  /**
   * @param choose is told which palette was chosen
   * @param keep is told whether the range is to stay as it is
   */
  constructor(choose: (name: PaletteName) => void, keep: (keeps: boolean) => void) {
    this.#choice.append(...paletteNames.map((name) => element("option", { text: name })));
    this.#choice.addEventListener("change", () => {
      if (isPalette(this.#choice.value)) choose(this.#choice.value);
    });
    this.#keep.addEventListener("change", () => keep(this.#keep.checked));
    this.element = element(
      "div",
      { class: "scale", hidden: true },
      this.#low,
      this.#strip,
      this.#high,
      this.#choice,
      element("label", { title: "Keep these values for these colours" }, this.#keep, "hold"),
    );
  }

  show(name: PaletteName, { low, high }: GreyRange): void {
    this.element.hidden = false;
    say(this.#low, count(Math.round(low)));
    say(this.#high, count(Math.round(high)));
    mark(this.element, "data-palette", name);
    if (this.#drawn === name) return;
    this.#drawn = name;
    this.#choice.value = name;
    const pixels = new ImageData(new Uint8ClampedArray(palette(name)), 256, 1);
    this.#strip.getContext("2d")?.putImageData(pixels, 0, 0);
  }

  hide(): void {
    this.element.hidden = true;
  }
}
