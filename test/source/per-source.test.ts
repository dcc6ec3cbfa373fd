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

describe("settingFor", () => {
  const cases: [what: string, values: PerSource | undefined, holds: string | undefined][] = [
    ["is undefined without any value", undefined, undefined],
    ["is undefined for an empty list", [], undefined],
    ["is the only value given", "latest", "latest"],
    ["is the value that names it", "visible=latest", "latest"],
    ["is undefined if the only value names another source", "infrared=latest", undefined],
    [
      "is undefined if the value names a source whose name begins the same",
      "visible-2=latest",
      undefined,
    ],
    [
      "is its own before the value for all sources, with its own given first",
      ["visible=latest:3", "block"],
      "latest:3",
    ],
    [
      "is its own before the value for all sources, with its own given last",
      ["block", "visible=latest:3"],
      "latest:3",
    ],
    ["is the last of several values for all sources", ["latest", "block"], "block"],
    ["is the last of several values that name it", ["visible=latest", "visible=block"], "block"],
    [
      "is the value for all sources if the other value names another source",
      ["infrared=latest", "block"],
      "block",
    ],
  ];
  for (const [what, values, holds] of cases) {
    test(`the setting of a source ${what}`, () => {
      expect(settingFor(values, "visible")).toBe(holds);
    });
  }

  test("a setting is found for sources with slashes and equals signs in their names", () => {
    expect(settingFor("a/b=latest", "a/b")).toBe("latest");
    expect(settingFor(["a=b=latest"], "a=b")).toBe("latest");
  });
});

describe("checkSourceNames", () => {
  test("a setting can name every known source", () => {
    const values = ["visible=latest", "a/b=block", "block"];
    expect(() => checkSourceNames(values, ["visible", "a/b"], "--policy")).not.toThrow();
    expect(() => checkSourceNames(undefined, [], "--policy")).not.toThrow();
    expect(() => checkSourceNames("block", [], "--policy")).not.toThrow();
  });

  test("a setting that names an unknown source is a usage error that lists the known sources", () => {
    const { code, message } = refusal(() =>
      checkSourceNames(["visible=latest", "infra=block"], ["visible", "infrared"], "--policy"),
    );
    expect(code).toBe("usage");
    expect(message).toContain("--policy: no source is named infra; choose from visible, infrared");
  });
});

describe("parsePolicy", () => {
  test("a policy is block, or latest with an optional number of frames", () => {
    expect(parsePolicy("block")).toBe("block");
    expect(parsePolicy("latest")).toEqual({ latest: 1 });
    expect(parsePolicy("latest:1")).toEqual({ latest: 1 });
    expect(parsePolicy("latest:999999")).toEqual({ latest: 999_999 });
  });

  const bad = ["", "Block", "newest", "latest:", "latest:0", "latest:-1", "latest:1.5", "latest5"];
  for (const text of [...bad, "latest:1000000", "latest: 5", "block:5", "latest:5 "]) {
    test(`the policy ${JSON.stringify(text)} is a usage error`, () => {
      const { code, message } = refusal(() => parsePolicy(text));
      expect(code).toBe("usage");
      expect(message).toContain(`latest:N, current value is ${JSON.stringify(text)}`);
    });
  }
});

describe("parseQuality", () => {
  test("a quality is a whole number from 2 to 31", () => {
    for (const quality of [2, 9, 10, 31]) expect(parseQuality(`${quality}`)).toBe(quality);
  });

  for (const text of ["", "1", "0", "32", "99", "100", "-2", "2.5", " 2", "best"]) {
    test(`the quality ${JSON.stringify(text)} is a usage error`, () => {
      const { code, message } = refusal(() => parseQuality(text));
      expect(code).toBe("usage");
      expect(message).toContain(`current value is ${JSON.stringify(text)}`);
    });
  }
});

test("the values of settings are checked, also those that name a source", () => {
  const read: string[] = [];
  checkValues(["latest:2", "visible=block", "a=b=latest"], (text) => read.push(text));
  checkValues("latest", (text) => read.push(text));
  checkValues(undefined, (text) => read.push(text));
  expect(read).toEqual(["latest:2", "block", "latest", "latest"]);
  expect(refusal(() => checkValues("visible=latest:0", parsePolicy)).code).toBe("usage");
});

describe("parseRate", () => {
  test("a rate is a number of frames a second above zero, with or without decimals", () => {
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
    test(`the rate ${JSON.stringify(text)} is a usage error`, () => {
      expect(refusal(() => parseRate(text)).code).toBe("usage");
    });
  }
});
