/** Draws a frame on a canvas, grey images with a palette, and shows the value under the pointer. */
/// <reference lib="dom" />
import { type GreyImage, type GreyRange, greyKind, stretch } from "../picture/grey.ts";
import { applyPalette, isPaletteName, type PaletteName, paletteNames } from "../picture/palette.ts";
import type { RawShapeJson } from "./api.ts";
import { announce, element, setAttribute, setText } from "./dom.ts";
import { displayCount } from "./format.ts";
import { PaletteScale } from "./palette-scale.ts";
import type { RangeMode, GreyPainter } from "./grey-painter.ts";

/** Image types that browsers decode. Other types could contain code. */
const displayableType = /^image\/(?:jpeg|png|webp|gif|bmp|avif)$/;

/** The grey image shown, and how its values map to colours. */
interface ShownGrey {
  readonly grey: GreyImage;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

export class Picture {
  /** Canvas and overlays. */
  readonly element: HTMLElement;
  /** Colour scale; hidden unless the image is grey. */
  readonly scale: PaletteScale;
  readonly #painter: GreyPainter;
  readonly #canvas = element("canvas", {
    width: 4,
    height: 3,
    role: "img",
    tabindex: 0,
    "aria-description": "Enter and arrows read values",
  });
  readonly #context: CanvasRenderingContext2D;
  readonly #crosshair = element("div", { class: "cross", hidden: true });
  readonly #value = element("div", { class: "value", hidden: true });
  readonly #note = element("p", { class: "note", hidden: true });
  readonly #storageKey: string;
  readonly #mode: "live" | "stored";
  #shownGrey: ShownGrey | undefined;
  #bitmap: ImageBitmap | undefined;
  #chosenPalette: PaletteName | undefined;
  #isRangeFixed = false;
  /** The pixel whose value is shown. */
  #pixel: { x: number; y: number } | undefined;

  /**
   * @param storageName key under which `localStorage` remembers the palette
   * @param mode `live` smooths the range from frame to frame
   */
  constructor(painter: GreyPainter, storageName: string, mode: "live" | "stored") {
    this.#painter = painter;
    this.#storageKey = `palette ${storageName}`;
    this.#mode = mode;
    this.#context = this.#canvas.getContext("2d", { alpha: false })!;
    this.#chosenPalette = loadPalette(this.#storageKey);
    this.element = element(
      "div",
      { class: "picture" },
      this.#canvas,
      this.#crosshair,
      this.#value,
      this.#note,
    );
    this.scale = new PaletteScale(
      (name) => this.#setPalette(name),
      (isFixed) => (this.#isRangeFixed = isFixed),
    );
    this.#addListeners();
  }

  /** Description for screen readers. */
  set label(text: string) {
    setAttribute(this.#canvas, "aria-label", text);
  }

  /**
   * Shows a frame, or an error message if that fails. May transfer `bytes`, so do not use them
   * again.
   *
   * @returns whether the frame is shown
   */
  async show(
    bytes: Uint8Array<ArrayBuffer>,
    type: string,
    raw: RawShapeJson | null,
  ): Promise<boolean> {
    try {
      if (greyKind(bytes, raw) === undefined) await this.#showColours(bytes, type, raw);
      else await this.#showGrey(bytes, raw);
    } catch (error) {
      this.showError(error instanceof Error ? error.message : `${error}`);
      return false;
    }
    this.#note.hidden = true;
    this.#readValue();
    return true;
  }

  /** Shows an error message instead of an image, and nothing of the image before it. */
  showError(text: string): void {
    setText(this.#note, text);
    this.#note.hidden = false;
    this.element.classList.add("empty");
    this.#shownGrey = undefined;
    this.scale.hide();
    this.#readValue();
  }

  /** Selects the next palette, if the image is grey. */
  nextPalette(): void {
    if (this.#shownGrey === undefined) return;
    const index = paletteNames.indexOf(this.#shownGrey.palette);
    this.#setPalette(paletteNames[(index + 1) % paletteNames.length]!);
  }

  async #showColours(
    bytes: Uint8Array<ArrayBuffer>,
    type: string,
    raw: RawShapeJson | null,
  ): Promise<void> {
    const kind = raw === null ? type : `raw ${raw.format}`;
    const message = `This page cannot show ${kind}; the stored frame can be downloaded`;
    if (raw !== null || !displayableType.test(type)) throw new Error(message);
    let bitmap: ImageBitmap;
    try {
      bitmap = await createImageBitmap(new Blob([bytes], { type }));
    } catch {
      throw new Error("The frame is damaged, or is not a picture");
    }
    this.#resize(bitmap.width, bitmap.height);
    this.#context.drawImage(bitmap, 0, 0);
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.#shownGrey = undefined;
    this.scale.hide();
  }

  async #showGrey(bytes: Uint8Array<ArrayBuffer>, raw: RawShapeJson | null): Promise<void> {
    const rangeMode: RangeMode = this.#mode === "live" ? "follow" : "fresh";
    const { pixels, range, palette, ...grey } = await this.#painter.paint({
      bytes,
      raw,
      palette: this.#chosenPalette,
      previousRange: this.#shownGrey?.range,
      rangeMode: this.#isRangeFixed ? "keep" : rangeMode,
    });
    this.#resize(grey.width, grey.height);
    this.#context.putImageData(new ImageData(pixels, grey.width, grey.height), 0, 0);
    this.#bitmap?.close();
    this.#bitmap = undefined;
    this.#shownGrey = { grey, range, palette };
    this.scale.show(palette, range);
  }

  #setPalette(palette: PaletteName): void {
    this.#chosenPalette = palette;
    savePalette(this.#storageKey, palette);
    if (this.#shownGrey === undefined) return;
    const { grey, range } = this.#shownGrey;
    const pixels = applyPalette(stretch(grey, range), palette);
    this.#context.putImageData(new ImageData(pixels, grey.width, grey.height), 0, 0);
    this.#shownGrey = { grey, range, palette };
    this.scale.show(palette, range);
  }

  #resize(width: number, height: number): void {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
      this.element.style.setProperty("--ratio", `${width / height}`);
    }
    this.element.classList.remove("empty");
    // Shows single pixels without smoothing when the image is enlarged.
    const isEnlarged = this.#canvas.clientWidth * window.devicePixelRatio > width * 1.5;
    this.#canvas.classList.toggle("enlarged", isEnlarged);
  }

  #addListeners(): void {
    const canvas = this.#canvas;
    canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      this.#pixel = {
        x: Math.floor((offsetX / canvas.clientWidth) * canvas.width),
        y: Math.floor((offsetY / canvas.clientHeight) * canvas.height),
      };
      this.#readValue();
    });
    canvas.addEventListener("pointerleave", () => this.#clearPixel());
    canvas.addEventListener("blur", () => this.#clearPixel());
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event: KeyboardEvent): void {
    const step = event.shiftKey ? 16 : 1;
    const direction = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    }[event.key];
    if (event.key === "Escape" && this.#pixel !== undefined) {
      this.#clearPixel();
    } else if (event.key === "Enter") {
      this.#pixel = { x: this.#canvas.width >> 1, y: this.#canvas.height >> 1 };
    } else if (direction !== undefined && this.#pixel !== undefined) {
      this.#pixel = {
        x: this.#pixel.x + direction[0]! * step,
        y: this.#pixel.y + direction[1]! * step,
      };
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.#readValue();
    // Announces the value only on a key press, not whenever a new frame changes it.
    if (this.#pixel !== undefined) announce(this.#value.textContent);
  }

  #clearPixel(): void {
    this.#pixel = undefined;
    this.#readValue();
  }

  /** Shows the value of the selected pixel. */
  #readValue(): void {
    const isPixelShown = this.#pixel !== undefined && this.#note.hidden;
    this.#crosshair.hidden = !isPixelShown;
    this.#value.hidden = !isPixelShown;
    if (!isPixelShown) return;
    const { width, height } = this.#canvas;
    const x = Math.max(0, Math.min(width - 1, this.#pixel!.x));
    const y = Math.max(0, Math.min(height - 1, this.#pixel!.y));
    this.#pixel = { x, y };
    this.#crosshair.style.left = `${((x + 0.5) / width) * 100}%`;
    this.#crosshair.style.top = `${((y + 0.5) / height) * 100}%`;
    setText(this.#value, `${x}, ${y}: ${this.#valueAt(x, y)}`);
  }

  #valueAt(x: number, y: number): string {
    if (this.#shownGrey !== undefined) {
      const { width, samples } = this.#shownGrey.grey;
      return displayCount(samples[y * width + x] ?? 0);
    }
    if (this.#bitmap === undefined) return "";
    // Reads from a 1x1 canvas, because reading the visible canvas would make drawing on it slow.
    onePixel ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
    onePixel.drawImage(this.#bitmap, x, y, 1, 1, 0, 0, 1, 1);
    const [red, green, blue] = onePixel.getImageData(0, 0, 1, 1).data;
    return `${red} ${green} ${blue}`;
  }
}

let onePixel: OffscreenCanvasRenderingContext2D | undefined;

function loadPalette(key: string): PaletteName | undefined {
  try {
    const stored = localStorage.getItem(key);
    return stored !== null && isPaletteName(stored) ? stored : undefined;
  } catch {
    // Some browsers throw here if they block storage.
    return undefined;
  }
}

function savePalette(key: string, palette: PaletteName): void {
  try {
    localStorage.setItem(key, palette);
  } catch {
    // As above. The palette is kept until the page is closed.
  }
}
