/** Zooms and pans a picture, and reads its values, by pointer, wheel, touch and keys. */
/// <reference lib="dom" />
import { pixelRatio, setAttribute } from "./dom.ts";
import type { Picture } from "./picture.ts";
import type { Point } from "./viewport.ts";

/** Factor of one key press or turn of the wheel. */
const zoomStep = 1.25;
/** Share of the box that a key moves the picture by. */
const panShare = 0.1;
/** Movement in CSS pixels from which on a press is no tap. */
const tapSlopPx = 8;

export class PictureInput {
  readonly #picture: Picture;
  readonly #pointers = new Map<number, Point>();
  /** Where the first finger touched; undefined after it has moved. */
  #tapStart: Point | undefined;
  /** Whether arrow keys move the cursor, from Enter on. */
  #isReading = false;

  constructor(picture: Picture) {
    this.#picture = picture;
    const { canvas } = picture;
    setAttribute(canvas, "tabindex", 0);
    setAttribute(
      canvas,
      "aria-description",
      "Enter and arrows read values; plus, minus, 0 and 1 zoom; Shift and arrows move",
    );
    canvas.addEventListener("pointerdown", (event) => this.#onDown(event));
    canvas.addEventListener("pointermove", (event) => this.#onMove(event));
    canvas.addEventListener("pointerup", (event) => this.#onUp(event));
    canvas.addEventListener("pointercancel", ({ pointerId }) => this.#pointers.delete(pointerId));
    canvas.addEventListener("pointerleave", ({ pointerType }) => {
      if (pointerType !== "touch") picture.viewport.cursor = undefined;
    });
    canvas.addEventListener("blur", () => this.#endReading());
    canvas.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      if (picture.viewport.isFit) this.#enlarge(this.#toBox(event));
      else picture.viewport.fit();
    });
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Multiplies the scale, around the middle of the box. */
  zoom(factor: number): void {
    const { size, box, viewport } = this.#picture;
    if (size !== undefined) viewport.zoomAt(factor, this.#middle, size, box);
  }

  /** Shows each pixel of the picture as one of the screen. */
  showSinglePixels(at: Point = this.#middle): void {
    const { size, box, viewport } = this.#picture;
    if (size !== undefined) viewport.setScale(1, at, size, box);
  }

  /** Shows single pixels of a large picture, and a small one at twice its size. */
  #enlarge(at: Point): void {
    const { size, box, viewport } = this.#picture;
    if (size === undefined) return;
    const { scale } = viewport.place(size, box);
    viewport.setScale(Math.max(1, 2 * scale), at, size, box);
  }

  #endReading(): void {
    this.#isReading = false;
    this.#picture.viewport.cursor = undefined;
  }

  get #middle(): Point {
    const { width, height } = this.#picture.box;
    return { x: width / 2, y: height / 2 };
  }

  #toBox({ clientX, clientY }: { clientX: number; clientY: number }): Point {
    const { left, top } = this.#picture.canvas.getBoundingClientRect();
    const ratio = pixelRatio();
    return { x: (clientX - left) * ratio, y: (clientY - top) * ratio };
  }

  #onDown(event: PointerEvent): void {
    const at = this.#toBox(event);
    this.#pointers.set(event.pointerId, at);
    this.#tapStart = this.#pointers.size === 1 ? at : undefined;
    // Keeps the movement when it leaves the canvas.
    this.#picture.canvas.setPointerCapture(event.pointerId);
  }

  #onMove(event: PointerEvent): void {
    const { viewport, size, box } = this.#picture;
    const at = this.#toBox(event);
    const before = this.#pointers.get(event.pointerId);
    const slop = tapSlopPx * pixelRatio();
    if (this.#tapStart !== undefined && distance(this.#tapStart, at) > slop) {
      this.#tapStart = undefined;
    }
    if (before !== undefined && size !== undefined && this.#tapStart === undefined) {
      const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other !== undefined) {
        const factor = distance(at, other) / Math.max(1, distance(before, other));
        viewport.zoomAt(factor, middleOf(before, other), size, box);
        viewport.panBy((at.x - before.x) / 2, (at.y - before.y) / 2, size, box);
      } else if (!viewport.isFit) viewport.panBy(at.x - before.x, at.y - before.y, size, box);
    }
    if (before !== undefined && this.#tapStart === undefined) {
      this.#pointers.set(event.pointerId, at);
    }
    if (event.pointerType !== "touch") this.#picture.pointAt(event.clientX, event.clientY);
  }

  #onUp(event: PointerEvent): void {
    this.#pointers.delete(event.pointerId);
    if (this.#tapStart !== undefined && event.pointerType === "touch") {
      this.#picture.pointAt(event.clientX, event.clientY);
      this.#picture.announceValue();
    }
    this.#tapStart = undefined;
  }

  #onWheel(event: WheelEvent): void {
    const { viewport, size, box } = this.#picture;
    if (size === undefined) return;
    event.preventDefault();
    // A trackpad sends many small turns.
    const turns = Math.max(-1, Math.min(1, event.deltaY / 50));
    viewport.zoomAt(zoomStep ** -turns, this.#toBox(event), size, box);
  }

  #onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#actOn(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Returns whether the key has a meaning here. */
  #actOn({ key, shiftKey }: KeyboardEvent): boolean {
    const picture = this.#picture;
    const { viewport } = picture;
    const direction = arrowDirections[key];
    if (key === "+" || key === "=") this.zoom(zoomStep);
    else if (key === "-") this.zoom(1 / zoomStep);
    else if (key === "0") viewport.fit();
    else if (key === "1") this.showSinglePixels();
    else if (key === "Enter") {
      this.#isReading = true;
      picture.pointAtMiddle();
      picture.announceValue();
    } else if (key === "Escape" && this.#isReading) this.#endReading();
    else if (direction === undefined) return false;
    else if (this.#isReading) {
      const step = shiftKey ? 16 : 1;
      picture.moveCursor(direction.x * step, direction.y * step);
    } else if (shiftKey) this.#pan(direction);
    else return false;
    return true;
  }

  #pan({ x, y }: Point): void {
    const { size, box, viewport } = this.#picture;
    if (size === undefined) return;
    viewport.panBy(-x * box.width * panShare, -y * box.height * panShare, size, box);
  }
}

const arrowDirections: Readonly<Record<string, Point | undefined>> = {
  ArrowLeft: { x: -1, y: 0 },
  ArrowRight: { x: 1, y: 0 },
  ArrowUp: { x: 0, y: -1 },
  ArrowDown: { x: 0, y: 1 },
};

function distance(one: Point, other: Point): number {
  return Math.hypot(one.x - other.x, one.y - other.y);
}

function middleOf(one: Point, other: Point): Point {
  return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 };
}
