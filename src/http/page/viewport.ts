/** The part of a picture that is shown. Pictures of several sizes can share one. */

/** Width and height, or a position, in pixels. */
export interface PixelSize {
  readonly width: number;
  readonly height: number;
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Where a picture lies in its box, in device pixels. */
export interface PicturePlacement {
  readonly left: number;
  readonly top: number;
  /** Device pixels per pixel of the picture. */
  readonly scale: number;
}

/** Most device pixels per pixel of the picture, unless it fits with more. */
const maxScale = 64;

export class Viewport {
  /** Size of the picture relative to that at which it fits its box. */
  #zoom = 1;
  /** Point of the picture in the middle of the box, as shares of width and height. */
  #centre: Point = { x: 0.5, y: 0.5 };
  /** Point whose value is shown, as shares of width and height. */
  #cursor: Point | undefined;
  readonly #listeners = new Set<() => void>();

  /** Calls `listener` after each change. */
  subscribe(listener: () => void): void {
    this.#listeners.add(listener);
  }

  unsubscribe(listener: () => void): void {
    this.#listeners.delete(listener);
  }

  /** Whether the picture is shown whole, as large as it fits. */
  get isFit(): boolean {
    return this.#zoom === 1;
  }

  get cursor(): Point | undefined {
    return this.#cursor;
  }

  set cursor(point: Point | undefined) {
    if (point?.x === this.#cursor?.x && point?.y === this.#cursor?.y) return;
    this.#cursor = point;
    this.#notify();
  }

  /** Shows the whole picture. */
  fit(): void {
    this.#zoom = 1;
    this.#centre = { x: 0.5, y: 0.5 };
    this.#notify();
  }

  /** Returns where a picture lies in a box. It leaves no part of the box empty that it could fill. */
  place(picture: PixelSize, box: PixelSize): PicturePlacement {
    const scale = fitScale(picture, box) * this.#zoom;
    return {
      scale,
      left: Math.round(offset(box.width, picture.width * scale, this.#centre.x)),
      top: Math.round(offset(box.height, picture.height * scale, this.#centre.y)),
    };
  }

  /** Changes the scale by a factor. The point of the box at `at` keeps showing the same. */
  zoomAt(factor: number, at: Point, picture: PixelSize, box: PixelSize): void {
    this.setScale(this.place(picture, box).scale * factor, at, picture, box);
  }

  /**
   * Sets the device pixels per pixel of the picture. The point of the box at `at` keeps showing the
   * same.
   */
  setScale(wanted: number, at: Point, picture: PixelSize, box: PixelSize): void {
    const fit = fitScale(picture, box);
    const before = this.place(picture, box);
    const scale = Math.max(Math.min(1, fit), Math.min(Math.max(maxScale, fit), wanted));
    const share = (from: number, to: number, length: number, half: number): number =>
      (to - from) / (length * before.scale) + (half - to) / (length * scale);
    this.#zoom = Math.abs(scale / fit - 1) < 1e-6 ? 1 : scale / fit;
    this.#moveTo({
      x: share(before.left, at.x, picture.width, box.width / 2),
      y: share(before.top, at.y, picture.height, box.height / 2),
    });
  }

  /** Moves the picture by device pixels. */
  panBy(x: number, y: number, picture: PixelSize, box: PixelSize): void {
    const { left, top, scale } = this.place(picture, box);
    this.#moveTo({
      x: (box.width / 2 - left - x) / (picture.width * scale),
      y: (box.height / 2 - top - y) / (picture.height * scale),
    });
  }

  #moveTo({ x, y }: Point): void {
    this.#centre = { x: Math.max(0, Math.min(1, x)), y: Math.max(0, Math.min(1, y)) };
    this.#notify();
  }

  #notify(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Returns the scale at which the whole picture fits. */
function fitScale(picture: PixelSize, box: PixelSize): number {
  return Math.min(box.width / picture.width, box.height / picture.height);
}

function offset(box: number, length: number, centre: number): number {
  if (length <= box) return (box - length) / 2;
  return Math.max(box - length, Math.min(0, box / 2 - centre * length));
}
