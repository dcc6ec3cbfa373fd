/** A frame on a canvas: in its own colours, or grey in those of a palette, with the value under the pointer. */
/// <reference lib="dom" />
import { type Grey, type GreyRange, greyKind, stretch } from "../grey.ts";
import { colour, isPalette, type PaletteName, paletteNames } from "../palette.ts";
import type { Raw } from "./api.ts";
import { announce, element, mark, say } from "./dom.ts";
import { count } from "./format.ts";
import { Scale } from "./scale.ts";
import type { RangeManner, Thermal } from "./thermal.ts";

/** Kinds of pictures that browsers show; all else could be a program. */
const shown = /^image\/(?:jpeg|png|webp|gif|bmp|avif)$/;

/** A grey picture that is shown, with the values that its colours stand for. */
interface Shown {
  readonly grey: Grey;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

export class Picture {
  /** The canvas with what lies over it. */
  readonly element: HTMLElement;
  /** The colours and the values they stand for; hidden while there are none. */
  readonly scale: Scale;
  readonly #thermal: Thermal;
  readonly #canvas = element("canvas", {
    width: 4,
    height: 3,
    role: "img",
    tabindex: 0,
    "aria-description": "Enter and arrows read values",
  });
  readonly #pen: CanvasRenderingContext2D;
  readonly #cross = element("div", { class: "cross", hidden: true });
  readonly #value = element("div", { class: "value", hidden: true });
  readonly #note = element("p", { class: "note", hidden: true });
  readonly #memory: string;
  readonly #manner: "live" | "stored";
  #shown: Shown | undefined;
  #bitmap: ImageBitmap | undefined;
  #palette: PaletteName | undefined;
  #keepsRange = false;
  /** The pixel whose value is shown. */
  #pixel: { x: number; y: number } | undefined;

  /**
   * @param memory under which the browser keeps the chosen palette
   * @param manner `live` lets the range follow calmly from frame to frame
   */
  constructor(thermal: Thermal, memory: string, manner: "live" | "stored") {
    this.#thermal = thermal;
    this.#memory = `palette ${memory}`;
    this.#manner = manner;
    this.#pen = this.#canvas.getContext("2d", { alpha: false })!;
    this.#palette = remembered(this.#memory);
    this.element = element(
      "div",
      { class: "picture" },
      this.#canvas,
      this.#cross,
      this.#value,
      this.#note,
    );
    this.scale = new Scale(
      (name) => this.#choose(name),
      (keeps) => (this.#keepsRange = keeps),
    );
    this.#listen();
  }

  /** What the picture is, for who does not see it. */
  set label(text: string) {
    mark(this.#canvas, "aria-label", text);
  }

  /**
   * Shows a frame, whose bytes it takes. What cannot be shown is said in its place.
   *
   * @returns whether there is a picture now
   */
  async show(bytes: Uint8Array<ArrayBuffer>, type: string, raw: Raw | null): Promise<boolean> {
    try {
      if (greyKind(bytes, raw) === undefined) await this.#showColours(bytes, type, raw);
      else await this.#showGrey(bytes, raw);
    } catch (error) {
      this.#say(error instanceof Error ? error.message : `${error}`);
      return false;
    }
    this.#note.hidden = true;
    this.#readValue();
    return true;
  }

  /** Says why there is no picture. */
  #say(text: string): void {
    say(this.#note, text);
    this.#note.hidden = false;
    this.element.classList.add("empty");
  }

  /** Goes on to the next palette, if this is a picture that has one. */
  nextPalette(): void {
    if (this.#shown === undefined) return;
    const place = paletteNames.indexOf(this.#shown.palette);
    this.#choose(paletteNames[(place + 1) % paletteNames.length]!);
  }

  async #showColours(bytes: Uint8Array<ArrayBuffer>, type: string, raw: Raw | null): Promise<void> {
    const kind = raw === null ? type : `raw ${raw.format}`;
    const cannot = `This page does not show ${kind}; the frame itself is there`;
    if (raw !== null || !shown.test(type)) throw new Error(cannot);
    let bitmap: ImageBitmap;
    try {
      bitmap = await createImageBitmap(new Blob([bytes], { type }));
    } catch {
      throw new Error("The frame is damaged, or no picture");
    }
    this.#fit(bitmap.width, bitmap.height);
    this.#pen.drawImage(bitmap, 0, 0);
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.#shown = undefined;
    this.scale.hide();
  }

  async #showGrey(bytes: Uint8Array<ArrayBuffer>, raw: Raw | null): Promise<void> {
    const calm: RangeManner = this.#manner === "live" ? "follow" : "fresh";
    const { pixels, range, palette, ...grey } = await this.#thermal.paint({
      bytes,
      raw,
      palette: this.#palette,
      before: this.#shown?.range,
      manner: this.#keepsRange ? "keep" : calm,
    });
    this.#fit(grey.width, grey.height);
    this.#pen.putImageData(new ImageData(pixels, grey.width, grey.height), 0, 0);
    this.#bitmap?.close();
    this.#bitmap = undefined;
    this.#shown = { grey, range, palette };
    this.scale.show(palette, range);
  }

  #choose(palette: PaletteName): void {
    this.#palette = palette;
    remember(this.#memory, palette);
    if (this.#shown === undefined) return;
    const { grey, range } = this.#shown;
    const pixels = colour(stretch(grey, range), palette);
    this.#pen.putImageData(new ImageData(pixels, grey.width, grey.height), 0, 0);
    this.#shown = { grey, range, palette };
    this.scale.show(palette, range);
  }

  #fit(width: number, height: number): void {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
      this.element.style.setProperty("--ratio", `${width / height}`);
    }
    this.element.classList.remove("empty");
    // Few pixels are shown as what they are.
    const isEnlarged = this.#canvas.clientWidth * window.devicePixelRatio > width * 1.5;
    this.#canvas.classList.toggle("enlarged", isEnlarged);
  }

  #listen(): void {
    const canvas = this.#canvas;
    canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      this.#pixel = {
        x: Math.floor((offsetX / canvas.clientWidth) * canvas.width),
        y: Math.floor((offsetY / canvas.clientHeight) * canvas.height),
      };
      this.#readValue();
    });
    canvas.addEventListener("pointerleave", () => this.#forget());
    canvas.addEventListener("blur", () => this.#forget());
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event: KeyboardEvent): void {
    const step = event.shiftKey ? 16 : 1;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
      event.key
    ];
    if (event.key === "Escape" && this.#pixel !== undefined) {
      this.#forget();
    } else if (event.key === "Enter") {
      this.#pixel = { x: this.#canvas.width >> 1, y: this.#canvas.height >> 1 };
    } else if (way !== undefined && this.#pixel !== undefined) {
      this.#pixel = {
        x: this.#pixel.x + way[0]! * step,
        y: this.#pixel.y + way[1]! * step,
      };
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.#readValue();
    // Not with each frame that changes it, only when somebody asked.
    if (this.#pixel !== undefined) announce(this.#value.textContent);
  }

  #forget(): void {
    this.#pixel = undefined;
    this.#readValue();
  }

  /** Shows the value of the pixel that is pointed at. */
  #readValue(): void {
    const isPointed = this.#pixel !== undefined && this.#note.hidden;
    this.#cross.hidden = !isPointed;
    this.#value.hidden = !isPointed;
    if (!isPointed) return;
    const { width, height } = this.#canvas;
    const x = Math.max(0, Math.min(width - 1, this.#pixel!.x));
    const y = Math.max(0, Math.min(height - 1, this.#pixel!.y));
    this.#pixel = { x, y };
    this.#cross.style.left = `${((x + 0.5) / width) * 100}%`;
    this.#cross.style.top = `${((y + 0.5) / height) * 100}%`;
    say(this.#value, `${x}, ${y}: ${this.#valueAt(x, y)}`);
  }

  #valueAt(x: number, y: number): string {
    if (this.#shown !== undefined) {
      const { width, samples } = this.#shown.grey;
      return count(samples[y * width + x] ?? 0);
    }
    if (this.#bitmap === undefined) return "";
    // A pixel of its own: reading the canvas itself would make drawing on it slow.
    onePixel ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
    onePixel.drawImage(this.#bitmap, x, y, 1, 1, 0, 0, 1, 1);
    const [red, green, blue] = onePixel.getImageData(0, 0, 1, 1).data;
    return `${red} ${green} ${blue}`;
  }
}

let onePixel: OffscreenCanvasRenderingContext2D | undefined;

function remembered(key: string): PaletteName | undefined {
  try {
    const word = localStorage.getItem(key);
    return word !== null && isPalette(word) ? word : undefined;
  } catch {
    // Some browsers keep nothing, and say so like this.
    return undefined;
  }
}

function remember(key: string, palette: PaletteName): void {
  try {
    localStorage.setItem(key, palette);
  } catch {
    // As above: it holds until the page is left.
  }
}
