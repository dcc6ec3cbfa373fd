// How the wall divides its room.

import { expect, test } from "bun:test";
import { fitTiles, scrollTiles } from "../../../src/http/page/tile-layout.ts";

const desk = { width: 1356, height: 780, gap: 8, caption: 26 };
const phone = { width: 366, height: 640, gap: 8, caption: 26 };

test("up to sixteen tiles fit the window of a desk and of a phone without scrolling", () => {
  for (const room of [desk, phone]) {
    for (let count = 1; count <= 16; count++) {
      const { columns, height } = fitTiles(count, room);
      const rows = Math.ceil(count / columns);
      expect(rows * height + (rows - 1) * room.gap).toBeLessThanOrEqual(room.height);
      expect(height).toBeGreaterThan(room.caption + 40);
    }
  }
});

test("tiles that fit are as large as any other number of columns would make them", () => {
  expect(fitTiles(1, desk).columns).toBe(1);
  expect(fitTiles(2, desk).columns).toBe(2);
  expect(fitTiles(2, phone).columns).toBe(1);
  expect(fitTiles(16, desk).columns).toBe(6);
  expect(fitTiles(16, phone).columns).toBe(3);
});

test("tiles that scroll have at least the width of their size, if the window has it", () => {
  expect(scrollTiles("medium", desk).columns).toBe(4);
  expect(scrollTiles("small", phone).columns).toBe(2);
  expect(scrollTiles("large", phone).columns).toBe(1);
  expect(scrollTiles("small", phone).height).toBe(Math.floor((179 * 3) / 4 + 26));
});

test("a window never has more tiles in view than the server sends frames of", () => {
  for (const [width, height] of [
    [1400, 900],
    [2560, 1440],
    [7680, 4320],
    [390, 844],
  ] as const) {
    const grid = scrollTiles("small", { ...desk, width, height });
    // Tiles up to 120 pixels outside the window count as in view.
    const rows = Math.ceil((height + 240) / (grid.height + desk.gap)) + 1;
    expect(rows * grid.columns).toBeLessThanOrEqual(64);
  }
});
