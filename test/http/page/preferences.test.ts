// What the browser remembers, and what it does with a storage that is full, blocked or damaged.

import { expect, test } from "bun:test";
import { Preferences } from "../../../src/http/page/preferences.ts";

/** A browser's storage, with what is stored under every key. */
class Memory {
  text: string | null = null;
  getItem = (): string | null => this.text;
  setItem = (_: string, text: string): void => void (this.text = text);
}

test("preferences are the same after the page is loaded again", () => {
  const memory = new Memory();
  const first = new Preferences(memory);
  first.order = ["b", "a"];
  first.hidden = ["c"];
  first.tileSize = "large";
  first.timeZone = "local";
  first.clearedProblem = 1_795_627_753_774_333_021n;
  first.setPalette("a", "inferno");
  const again = new Preferences(memory);
  expect(again.order).toEqual(["b", "a"]);
  expect(again.hidden).toEqual(["c"]);
  expect([again.tileSize, again.timeZone]).toEqual(["large", "local"]);
  expect(again.clearedProblem).toBe(1_795_627_753_774_333_021n);
  expect(again.palette("a")).toBe("inferno");
  expect(again.palette("b")).toBeUndefined();
});

test("preferences of a thousand sources and more take bounded space, and the newest are kept", () => {
  const memory = new Memory();
  const preferences = new Preferences(memory);
  for (let index = 0; index < 1500; index++) {
    const name = `${"x".repeat(250)}${index}`;
    preferences.hidden = [...preferences.hidden, name];
    preferences.setPalette(name, "iron");
  }
  expect(memory.text!.length).toBeLessThan(400_000);
  expect(preferences.hidden.at(-1)).toEndWith("x1499");
  expect(preferences.palette(`${"x".repeat(250)}1499`)).toBe("iron");
  expect(preferences.palette(`${"x".repeat(250)}0`)).toBeUndefined();
  preferences.order = Array.from({ length: 5000 }, (_, index) => `cam${index}`);
  expect(preferences.order).toHaveLength(1000);
  expect(preferences.order[0]).toBe("cam0");
});

test("preferences that another program wrote, or that are damaged, are the default", () => {
  const texts = [
    "",
    "no JSON",
    "7",
    "null",
    '{"order":{},"hidden":[1,null],"palettes":[["a","pink"],3],"tileSize":"huge"}',
    '{"timeZone":5,"clearedProblem":"-1x"}',
  ];
  for (const text of texts) {
    const memory = new Memory();
    memory.text = text;
    const preferences = new Preferences(memory);
    expect([preferences.order, preferences.hidden]).toEqual([[], []]);
    expect([preferences.tileSize, preferences.timeZone]).toEqual(["fit", "UTC"]);
    expect(preferences.clearedProblem).toBe(0n);
    expect(preferences.palette("a")).toBeUndefined();
  }
});

test("preferences hold until the page is closed where the browser blocks storage", () => {
  const blocked = (): never => {
    throw new DOMException("The operation is insecure");
  };
  const preferences = new Preferences({ getItem: blocked, setItem: blocked });
  preferences.tileSize = "small";
  expect(preferences.tileSize).toBe("small");
});
