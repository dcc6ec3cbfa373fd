import { expect, test } from "bun:test";
import { defined } from "../../src/common/defined.ts";

test("options without a value are left out, and others are kept", () => {
  const options = defined({ to: undefined, first: 0, name: "", isOn: false, none: null });
  expect(Object.entries(options)).toEqual([
    ["first", 0],
    ["name", ""],
    ["isOn", false],
    ["none", null],
  ]);
});
