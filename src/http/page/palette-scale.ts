/** Colour scale below a grey image, with palette selection and a switch to fix the range. */
/// <reference lib="dom" />
import type { GreyRange } from "../picture/grey.ts";
import {
  isPaletteName,
  paletteColours,
  type PaletteName,
  paletteNames,
} from "../picture/palette.ts";
import { element, setAttribute, setText } from "./dom.ts";
import { displayCount } from "./format.ts";

export class PaletteScale {
  readonly element: HTMLElement;
  readonly #low = element("span", { class: "number" });
  readonly #high = element("span", { class: "number" });
  readonly #strip = element("canvas", { width: 256, height: 1, "aria-hidden": true });
  readonly #paletteSelect = element("select", { "aria-label": "Palette" });
  readonly #fixRange = element("input", { type: "checkbox" });
  #drawnPalette: PaletteName | undefined;

  /**
   * @param onPalette called with the selected palette
   * @param onFixRange called when the user fixes or releases the range
   */
  constructor(onPalette: (name: PaletteName) => void, onFixRange: (isFixed: boolean) => void) {
    this.#paletteSelect.append(...paletteNames.map((name) => element("option", { text: name })));
    this.#paletteSelect.addEventListener("change", () => {
      if (isPaletteName(this.#paletteSelect.value)) onPalette(this.#paletteSelect.value);
    });
    this.#fixRange.addEventListener("change", () => onFixRange(this.#fixRange.checked));
    this.element = element(
      "div",
      { class: "scale", hidden: true },
      this.#low,
      this.#strip,
      this.#high,
      this.#paletteSelect,
      element(
        "label",
        { title: "Keep this range of values for the colours" },
        this.#fixRange,
        "hold",
      ),
    );
  }

  show(name: PaletteName, { low, high }: GreyRange): void {
    this.element.hidden = false;
    setText(this.#low, displayCount(Math.round(low)));
    setText(this.#high, displayCount(Math.round(high)));
    setAttribute(this.element, "data-palette", name);
    if (this.#drawnPalette === name) return;
    this.#drawnPalette = name;
    this.#paletteSelect.value = name;
    const pixels = new ImageData(new Uint8ClampedArray(paletteColours(name)), 256, 1);
    this.#strip.getContext("2d")?.putImageData(pixels, 0, 0);
  }

  hide(): void {
    this.element.hidden = true;
  }
}
