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

test("tiles that scroll have at least the width that was asked for, if the window has it", () => {
  expect(scrollTiles(300, desk).columns).toBe(4);
  expect(scrollTiles(150, phone).columns).toBe(2);
  expect(scrollTiles(560, phone).columns).toBe(1);
  expect(scrollTiles(150, phone).height).toBe(Math.floor((179 * 3) / 4 + 26));
});
