import { expect, test } from "bun:test";
import type { Comparison } from "./compare.ts";
import { check, type Machine } from "./figures.ts";

const kept: Machine = {
  processors: "2 x any",
  date: "2026-11-30",
  rows: { "200 x 2 MB": { "rsync daemon": { speed: [2, 1, 3], cpu: [0.5, 0.4, 0.6] } } },
};

/** One round in which rsync takes a second, and `frames` these. */
function compareWith(seconds: number, cpu: number, title = "200 x 2 MB"): Comparison {
  const cost = (seconds: number, cpu: number) => [
    { seconds, senderCpu: cpu / 4, receiverCpu: (cpu * 3) / 4 },
  ];
  const others = ["rsync daemon", cost(1, 1)] as const;
  return { title, costs: new Map([["frames", cost(seconds, cpu)], others]) };
}

test("a figure that is at most 5 % worse than the kept one is not told", () => {
  expect(check(kept, [compareWith(0.5, 0.5), compareWith(1 / 1.91, 0.524)])).toEqual([]);
  expect(check(kept, [compareWith(0.1, 0.1)])).toEqual([]);
});

test("a figure that is more than 5 % worse is told with its row and its kept value", () => {
  expect(check(kept, [compareWith(1 / 1.89, 0.5)])).toEqual([
    "200 x 2 MB, against rsync daemon: 1.89 times as fast, kept is 2",
  ]);
  expect(check(kept, [compareWith(0.5, 0.526)])).toEqual([
    "200 x 2 MB, against rsync daemon: 0.526 of its CPU, kept is 0.5",
  ]);
});

test("a row that is not kept is not compared", () => {
  expect(check(kept, [compareWith(9, 9, "another")])).toEqual([]);
});
