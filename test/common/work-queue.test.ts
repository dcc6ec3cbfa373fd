// Costly work of many peers: how much of it runs in one turn of the event loop, and whose.

import { describe, expect, test } from "bun:test";
import { WorkQueue } from "../../src/common/work-queue.ts";

/** A queue on a fake clock, and a record of the slices that ran. */
function fixture() {
  let now = 0;
  const queue = new WorkQueue<string>(() => now);
  const ran: string[] = [];
  /** Adds a slice that takes `ms`. */
  const add = (owner: string, ms = 1) =>
    queue.run(owner, () => {
      now += ms;
      ran.push(owner);
    });
  return { queue, ran, add, pass: (ms: number) => void (now += ms) };
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("WorkQueue", () => {
  test("owners take turns, whatever number of slices one of them adds", async () => {
    const { ran, add } = fixture();
    const all = [..."aaaaaa"].map((owner) => add(owner));
    all.push(add("b"), add("b"), add("c"));
    await Promise.all(all);
    expect(ran.join("")).toBe("abcabaaaa");
  });

  test("slices of 5 ms run in one turn of the event loop, and the rest in later turns", async () => {
    const { ran, add } = fixture();
    const all = Array.from({ length: 10 }, () => add("a", 2));
    expect(ran).toHaveLength(0);
    for (const count of [3, 6, 9, 10]) {
      await nextTurn();
      expect(ran).toHaveLength(count);
    }
    await Promise.all(all);
  });

  test("a slice that takes long is the only one of its turn", async () => {
    const { ran, add } = fixture();
    const all = [add("a", 100), add("b", 100)];
    await nextTurn();
    expect(ran).toEqual(["a"]);
    await Promise.all(all);
  });

  test("a caller gets the result of its slice, or its error", async () => {
    const { queue } = fixture();
    expect(await queue.run("a", () => 7)).toBe(7);
    const failing = queue.run("a", () => {
      throw new Error("no");
    });
    expect(failing).rejects.toThrow("no");
    expect(await queue.run("a", () => 8)).toBe(8);
  });

  test("a slice may add another of the same owner", async () => {
    const { queue, ran, add } = fixture();
    await queue.run("a", () => add("a"));
    expect(ran).toEqual(["a"]);
  });

  test("the turn of data that is read is over after 50 ms, and the next one starts anew", async () => {
    const { queue, pass } = fixture();
    expect(queue.isTurnOver).toBe(false);
    pass(49);
    expect(queue.isTurnOver).toBe(false);
    pass(1);
    expect(queue.isTurnOver).toBe(true);
    await nextTurn();
    expect(queue.isTurnOver).toBe(false);
  });

  test("the turn of a slice is over after 5 ms", async () => {
    const { queue, pass } = fixture();
    const isOver = await queue.run("a", () => {
      const before = queue.isTurnOver;
      pass(5);
      return [before, queue.isTurnOver];
    });
    expect(isOver).toEqual([false, true]);
  });
});
