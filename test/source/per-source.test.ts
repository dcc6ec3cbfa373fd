// Settings for all sources or for one: which value applies, and which are errors.

import { describe, expect, test } from "bun:test";
import {
  checkSourceNames,
  checkValues,
  parsePolicy,
  parseQuality,
  parseRate,
  type PerSource,
  settingFor,
} from "../../src/source/per-source.ts";
import { refusal } from "../helper/refusal.ts";

describe("the value that holds for a source", () => {
  const cases: [what: string, values: PerSource | undefined, holds: string | undefined][] = [
    ["is none where none is given", undefined, undefined],
    ["is none of an empty list", [], undefined],
    ["is the one that there is", "latest", "latest"],
    ["is its own", "visible=latest", "latest"],
    ["is none of another's", "infrared=latest", undefined],
    ["is none of one whose name begins the same", "visible-2=latest", undefined],
    ["is its own, not that for all, in either order", ["visible=latest:3", "block"], "latest:3"],
    ["is its own, not that for all, in the other order", ["block", "visible=latest:3"], "latest:3"],
    ["is the last of several for all", ["latest", "block"], "block"],
    ["is the last of several of its own", ["visible=latest", "visible=block"], "block"],
    ["is that for all beside another's", ["infrared=latest", "block"], "block"],
  ];
  for (const [what, values, holds] of cases) {
    test(what, () => {
      expect(settingFor(values, "visible")).toBe(holds);
    });
  }

  test("is found for sources with slashes and equals signs in their names", () => {
    expect(settingFor("a/b=latest", "a/b")).toBe("latest");
    expect(settingFor(["a=b=latest"], "a=b")).toBe("latest");
  });
});

describe("a setting", () => {
  test("may name every source that there is", () => {
    const values = ["visible=latest", "a/b=block", "block"];
    expect(() => checkSourceNames(values, ["visible", "a/b"], "--policy")).not.toThrow();
    expect(() => checkSourceNames(undefined, [], "--policy")).not.toThrow();
    expect(() => checkSourceNames("block", [], "--policy")).not.toThrow();
  });

  test("may name no other", () => {
    const { code, message } = refusal(() =>
      checkSourceNames(["visible=latest", "infra=block"], ["visible", "infrared"], "--policy"),
    );
    expect(code).toBe("usage");
    expect(message).toContain("--policy: there is no source infra, only visible, infrared");
  });
});

describe("a policy", () => {
  test("is block, or latest with how many", () => {
    expect(parsePolicy("block")).toBe("block");
    expect(parsePolicy("latest")).toEqual({ latest: 1 });
    expect(parsePolicy("latest:1")).toEqual({ latest: 1 });
    expect(parsePolicy("latest:999999")).toEqual({ latest: 999_999 });
  });

  const bad = ["", "Block", "newest", "latest:", "latest:0", "latest:-1", "latest:1.5", "latest5"];
  for (const text of [...bad, "latest:1000000", "latest: 5", "block:5", "latest:5 "]) {
    test(`is not ${JSON.stringify(text)}`, () => {
      const { code, message } = refusal(() => parsePolicy(text));
      expect(code).toBe("usage");
      expect(message).toContain(`latest:N, current value is ${JSON.stringify(text)}`);
    });
  }
});

describe("a quality", () => {
  test("is a whole number from 2 to 31", () => {
    for (const quality of [2, 9, 10, 31]) expect(parseQuality(`${quality}`)).toBe(quality);
  });

  for (const text of ["", "1", "0", "32", "99", "100", "-2", "2.5", " 2", "best"]) {
    test(`is not ${JSON.stringify(text)}`, () => {
      const { code, message } = refusal(() => parseQuality(text));
      expect(code).toBe("usage");
      expect(message).toContain(`current value is ${JSON.stringify(text)}`);
    });
  }
});

test("values are read whomever they are for", () => {
  const read: string[] = [];
  checkValues(["latest:2", "visible=block", "a=b=latest"], (text) => read.push(text));
  checkValues("latest", (text) => read.push(text));
  checkValues(undefined, (text) => read.push(text));
  expect(read).toEqual(["latest:2", "block", "latest", "latest"]);
  expect(refusal(() => checkValues("visible=latest:0", parsePolicy)).code).toBe("usage");
});

describe("a rate", () => {
  test("is any number of frames a second above none", () => {
    for (const [text, rate] of [
      ["25", 25],
      ["0.2", 0.2],
      ["29.97", 29.97],
      ["100000", 100_000],
    ] as const) {
      expect(parseRate(text)).toBe(rate);
    }
  });

  for (const text of ["", "0", "0.0", "-1", "1e3", "fast", "Infinity", "25fps", ".5", "100001"]) {
    test(`is not ${JSON.stringify(text)}`, () => {
      expect(refusal(() => parseRate(text)).code).toBe("usage");
    });
  }
});
