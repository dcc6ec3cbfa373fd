// The part of a picture that is shown.

import { expect, test } from "bun:test";
import { Viewport } from "../../../src/http/page/viewport.ts";

const picture = { width: 640, height: 480 };
const box = { width: 320, height: 320 };

/** Returns the pixel of the picture at a point of the box. */
function pixelAt(viewport: Viewport, x: number, y: number): { x: number; y: number } {
  const { left, top, scale } = viewport.place(picture, box);
  return { x: (x - left) / scale, y: (y - top) / scale };
}

test("a picture that fits is whole and in the middle, also one of a single pixel", () => {
  const viewport = new Viewport();
  expect(viewport.place(picture, box)).toEqual({ scale: 0.5, left: 0, top: 40 });
  expect(viewport.place({ width: 1, height: 1 }, box)).toEqual({ scale: 320, left: 0, top: 0 });
  const { scale } = viewport.place({ width: 20_000, height: 20_000 }, box);
  expect(scale).toBeCloseTo(0.016, 10);
});

test("zooming keeps the pixel under the pointer, and pans no further than the border", () => {
  const viewport = new Viewport();
  viewport.zoomAt(4, { x: 200, y: 160 }, picture, box);
  expect(viewport.isFit).toBe(false);
  expect(viewport.place(picture, box).scale).toBe(2);
  const { x, y } = pixelAt(viewport, 200, 160);
  expect(Math.abs(x - 400)).toBeLessThan(0.5);
  expect(Math.abs(y - 240)).toBeLessThan(0.5);
  viewport.panBy(100_000, 100_000, picture, box);
  expect(pixelAt(viewport, 0, 0)).toEqual({ x: 0, y: 0 });
  viewport.panBy(-100_000, -100_000, picture, box);
  expect(pixelAt(viewport, 320, 320)).toEqual({ x: 640, y: 480 });
  viewport.fit();
  expect(viewport.place(picture, box)).toEqual({ scale: 0.5, left: 0, top: 40 });
});

test("zooming ends at 64 pixels of the screen per pixel, and at the whole picture", () => {
  const viewport = new Viewport();
  const middle = { x: 160, y: 160 };
  for (let turn = 0; turn < 100; turn++) viewport.zoomAt(1.25, middle, picture, box);
  expect(viewport.place(picture, box).scale).toBe(64);
  for (let turn = 0; turn < 100; turn++) viewport.zoomAt(0.8, middle, picture, box);
  expect(viewport.isFit).toBe(true);
  // A small picture fits enlarged, and can still be shown with its own pixels.
  const small = { width: 10, height: 10 };
  viewport.setScale(1, middle, small, box);
  expect(viewport.place(small, box)).toEqual({ scale: 1, left: 155, top: 155 });
});

test("pictures of several sizes show the same part through one viewport", () => {
  const viewport = new Viewport();
  viewport.zoomAt(8, { x: 80, y: 100 }, picture, box);
  const half = { width: 320, height: 240 };
  const [one, other] = [viewport.place(picture, box), viewport.place(half, box)];
  expect(other.scale).toBeCloseTo(2 * one.scale, 10);
  expect(other.left).toBe(one.left);
  expect(other.top).toBe(one.top);
});

test("a viewport tells its pictures of each change, until they unsubscribe", () => {
  const viewport = new Viewport();
  let changes = 0;
  const listener = (): void => void changes++;
  viewport.subscribe(listener);
  viewport.cursor = { x: 0.5, y: 0.5 };
  viewport.cursor = { x: 0.5, y: 0.5 };
  expect(changes).toBe(1);
  viewport.zoomAt(2, { x: 0, y: 0 }, picture, box);
  viewport.unsubscribe(listener);
  viewport.fit();
  expect(changes).toBe(2);
});
