// The order of names on the page.

import { expect, test } from "bun:test";
import { compareNames, compareSources } from "../../../src/http/page/natural-order.ts";

test("names are ordered as people count, and two names are never equal", () => {
  const names = ["cam10", "cam2", "Cam2", "cam-1", "zug", "äpfel", "cam02"];
  const sorted = names.toSorted(compareNames);
  expect(sorted.indexOf("cam2")).toBeLessThan(sorted.indexOf("cam10"));
  expect(sorted.indexOf("äpfel")).toBe(0);
  for (const name of names) {
    for (const other of names) expect(compareNames(name, other) === 0).toBe(name === other);
  }
});

test("sources are ordered by stream first", () => {
  const sources = [
    { stream: "run10", source: "a" },
    { stream: "run9", source: "cam10" },
    { stream: "run9", source: "cam9" },
  ];
  expect(sources.toSorted(compareSources).map(({ source }) => source)).toEqual([
    "cam9",
    "cam10",
    "a",
  ]);
});
