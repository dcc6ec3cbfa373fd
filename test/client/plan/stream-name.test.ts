import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import { StreamNameTemplate } from "../../../src/client/plan/stream-name.ts";

const at = (text: string, time: string) =>
  new StreamNameTemplate(text).at(BigInt(Date.parse(time)) * 1_000_000n);

describe("StreamNameTemplate", () => {
  test.each([
    ["cam3", "2026-11-22T07:12:03Z", "cam3"],
    ["cam3-%Y-%m-%d", "2026-11-22T23:59:59.999Z", "cam3-2026-11-22"],
    ["cam3-%Y-%m-%d", "2026-11-23T00:00:00Z", "cam3-2026-11-23"],
    ["%Y%m%dT%H%M%S", "2026-01-02T03:04:05Z", "20260102T030405"],
    ["day-%j", "2026-03-01T00:00:00Z", "day-060"],
    ["100%%", "2026-03-01T00:00:00Z", "100%"],
    ["%%Y-%Y", "2026-03-01T00:00:00Z", "%Y-2026"],
  ])("the stream template %s at %s gives the name %s", (text, time, name) => {
    expect(at(text, time)).toBe(name);
  });

  test("a stream name changes at midnight exactly, and back for an older frame", () => {
    const name = new StreamNameTemplate("%d");
    const midnight = BigInt(Date.parse("2026-11-23T00:00:00Z")) * 1_000_000n;
    expect([-1n, 0n, -1n, 1n].map((after) => name.at(midnight + after))).toEqual([
      "22",
      "23",
      "22",
      "23",
    ]);
  });

  test("a stream name depends on the time only if its template has a field", () => {
    const changes = ["a", "a%%", "%%Y", "%Y", "a-%d"].map(
      (text) => new StreamNameTemplate(text).isTimeDependent,
    );
    expect(changes).toEqual([false, false, false, true, true]);
  });

  for (const text of ["%q", "a%", "%-d", "100% sure"]) {
    test(`a stream template with an unknown field is refused: ${text}`, () => {
      expect(() => new StreamNameTemplate(text)).toThrow(FramesError);
    });
  }
});
