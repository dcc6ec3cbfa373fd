import { expect, test } from "bun:test";
import { parseObject } from "../../src/common/json-object.ts";

test("an object in JSON is parsed, as deep as it is", () => {
  expect(parseObject('{"a": {"b": [1, null]}}')).toEqual({ a: { b: [1, null] } });
  expect(parseObject("{}")).toEqual({});
});

for (const text of ["", "{", "null", "1", '"a"', "[]", '[{"a": 1}]', "{}{}"]) {
  test(`no object is found in ${JSON.stringify(text)}`, () => {
    expect(parseObject(text)).toBeUndefined();
  });
}
