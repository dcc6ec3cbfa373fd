import { expect, test } from "bun:test";

import { BufferBudget } from "../../src/server/buffer-budget.ts";

test("over the limit, the peers that have held data longest are disconnected", () => {
  const budget = new BufferBudget<string>(100_000);
  budget.update("first", 40_000);
  budget.update("second", 20_000);
  budget.update("third", 40_000);
  expect(budget.update("first", 41_000)).toEqual(["first"]);
  expect(budget.update("fourth", 40_000)).toEqual([]);
  expect(budget.update("fifth", 60_000)).toEqual(["second", "third"]);
});

test("peers whose data waits for the server's own work outlast a crowd", () => {
  const budget = new BufferBudget<string>(100_000);
  expect(budget.update("queued", 10_000, true)).toEqual([]);
  for (let index = 0; index < 100; index++) {
    const evicted = budget.update(`crowd ${index}`, 45_000);
    expect(evicted).toEqual(index < 2 ? [] : [`crowd ${index - 2}`]);
  }
  budget.update("queued", 10_000, false);
  expect(budget.update("another", 10_000)).toEqual(["queued"]);
});

test("if the data of all peers waits for work, the oldest is disconnected", () => {
  const budget = new BufferBudget<string>(100_000);
  for (const name of ["first", "second"]) budget.update(name, 50_000, true);
  expect(budget.update("third", 50_000, true)).toEqual(["first"]);
});

test("a peer that holds little is not counted, and begins again later", () => {
  const budget = new BufferBudget<string>(100_000);
  for (const name of ["first", "second"]) budget.update(name, 50_000);
  budget.update("first", 4096);
  expect(budget.update("first", 50_000)).toEqual([]);
  budget.remove("none");
  expect(budget.update("third", 4097)).toEqual(["second"]);
});

test("a peer that alone exceeds the limit is disconnected", () => {
  const budget = new BufferBudget<string>(100_000);
  expect(budget.update("greedy", 100_001)).toEqual(["greedy"]);
  expect(budget.update("next", 100_000)).toEqual([]);
});
