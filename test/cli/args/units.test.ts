import { describe, expect, test } from "bun:test";
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatTime,
  parseRetention,
  parseTime,
  parseSeconds,
  parseSegment,
  parseSize,
  parseDuration,
} from "../../../src/cli/args/units.ts";
import { refusal } from "../../helper/refusal.ts";

describe("parseSize", () => {
  const good: [string, number][] = [
    ["1", 1],
    ["1000", 1000],
    ["64M", 64 << 20],
    ["64m", 64 << 20],
    ["64MB", 64 << 20],
    ["64MiB", 64 << 20],
    ["1k", 1024],
    ["2G", 2 ** 31],
    ["1T", 2 ** 40],
    ["1.5K", 1536],
    ["0.5K", 512],
    ["1.0005K", 1024],
    ["10b", 10],
    ["0", 0],
    ["007", 7],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
  ];
  for (const [text, bytes] of good) {
    test(`the size ${text} is read as ${bytes} bytes`, () =>
      expect(parseSize(text, "--max-frame")).toBe(bytes));
  }

  const bad = [
    ...["", "0.5", "M", "-1", "+1", "1e3", "0x10", "1,5M", "1.M", ".5M", "64 M", " 64M"],
    ...["64M ", "64P", "64MM", "64iM", "NaN", "Infinity", "9007199254740992", "9000T", "1\n"],
  ];
  for (const text of bad) {
    test(`${JSON.stringify(text)} is not a size`, () => {
      const { code, message } = refusal(() => parseSize(text, "--max-frame"));
      expect(code).toBe("usage");
      expect(message).toBe(
        `Cannot read --max-frame: expected a size such as 64M, current value is ${JSON.stringify(text)}`,
      );
    });
  }
});

describe("parseSeconds", () => {
  const good: [string, number][] = [
    ["1", 1],
    ["30", 30],
    ["0.25", 0.25],
    ["86400", 86_400],
  ];
  for (const [text, seconds] of good) {
    test(`the time ${text} is read as seconds`, () =>
      expect(parseSeconds(text, "--timeout")).toBe(seconds));
  }
  for (const text of [
    "",
    "0",
    "0.0",
    "-1",
    "1s",
    "1e3",
    "86401",
    "Infinity",
    "x",
    " 1",
    "1.",
    ".5",
  ]) {
    test(`${JSON.stringify(text)} is not a time in seconds`, () => {
      const { code, message } = refusal(() => parseSeconds(text, "--timeout"));
      expect(code).toBe("usage");
      expect(message).toContain(`Cannot read --timeout: expected seconds`);
      expect(message).toContain(JSON.stringify(text));
    });
  }
});

describe("parseDuration", () => {
  const good: [string, number][] = [
    ["90s", 90],
    ["15m", 900],
    ["2h", 7200],
    ["1.5h", 5400],
    ["7d", 604_800],
    ["0s", 0],
    ["0.25s", 0.25],
    ["007d", 604_800],
  ];
  for (const [text, seconds] of good) {
    test(`the duration ${text} is read as ${seconds} seconds`, () =>
      expect(parseDuration(text)).toBe(seconds));
  }
  const bad = [
    ...[
      "",
      "2",
      "h",
      "-2h",
      "+2h",
      "2 h",
      " 2h",
      "2h ",
      "2h\n",
      "2H",
      "2hh",
      "1h30m",
      ".5h",
      "2.h",
    ],
    ...["1e3s", "0x1h", "1,5h", "2w", "2y", "2ms", "NaNs", "Infinityd", "now"],
  ];
  for (const text of bad) {
    test(`${JSON.stringify(text)} is not a duration`, () =>
      expect(parseDuration(text)).toBeUndefined());
  }
});

describe("parseTime", () => {
  const now = Date.UTC(2026, 10, 22, 7, 12, 3, 456);
  const good: [string, number][] = [
    ["now", now],
    ["90s", now - 90_000],
    ["2h", now - 7_200_000],
    ["1.5d", now - 129_600_000],
    ["0s", now],
    ["2026-11-21", Date.UTC(2026, 10, 21)],
    // UTC, in any time zone of this machine.
    ["2026-11-21T06:05", Date.UTC(2026, 10, 21, 6, 5)],
    ["2026-11-21 06:05", Date.UTC(2026, 10, 21, 6, 5)],
    ["2026-11-21T06:05:04", Date.UTC(2026, 10, 21, 6, 5, 4)],
    ["2026-11-21T06:05:04.25", Date.UTC(2026, 10, 21, 6, 5, 4, 250)],
    ["2026-11-21T06:05:04Z", Date.UTC(2026, 10, 21, 6, 5, 4)],
    ["2026-11-21T06:05:04+02:00", Date.UTC(2026, 10, 21, 4, 5, 4)],
    ["2026-11-21 06:05-0530", Date.UTC(2026, 10, 21, 11, 35)],
    // A future time is valid.
    ["2999-01-01", Date.UTC(2999, 0, 1)],
    ["1969-12-31T23:59:59Z", -1000],
  ];
  for (const [text, time] of good) {
    test(`the time ${text} is read as a point in time`, () =>
      expect(parseTime(text, "--since", now)).toBe(time));
  }

  const bad = [
    ...["", "Now", "yesterday", "2", "2w", "-2h", "2026", "2026-11", "2026-13-01", "2026-11-32"],
    ...["2026-11-21T", "2026-11-21T25:00", "2026-11-21T06", "06:05", "20261121", "1795331523"],
    ...["2026-11-21T06:05:04 GMT", "11/21/2026", "21 Nov 2026", "2026-11-21\n", " 2026-11-21"],
  ];
  for (const text of bad) {
    test(`${JSON.stringify(text)} is not a point in time`, () => {
      const { code, message } = refusal(() => parseTime(text, "--since", now));
      expect(code).toBe("usage");
      expect(message).toStartWith("Cannot read --since: expected now, a time such as");
      expect(message).toEndWith(`current value is ${JSON.stringify(text)}`);
    });
  }
});

describe("parseSegment", () => {
  const good: [string, { milliseconds: number } | { bytes: number }][] = [
    ["10m", { milliseconds: 600_000 }],
    ["1h", { milliseconds: 3_600_000 }],
    ["1.5s", { milliseconds: 1500 }],
    ["500M", { bytes: 500 << 20 }],
    ["1G", { bytes: 2 ** 30 }],
    ["30k", { bytes: 30 << 10 }],
    ["30MB", { bytes: 30 << 20 }],
  ];
  for (const [text, segment] of good) {
    test(`the segment limit ${text} is valid`, () =>
      expect(parseSegment(text, "--segment")).toEqual(segment));
  }

  for (const text of ["", "10", "0m", "0M", "-1h", "1 h", "1w", "M"]) {
    test(`the segment limit ${JSON.stringify(text)} is not valid`, () => {
      const error = refusal(() => parseSegment(text, "--segment"));
      expect(error.code).toBe("usage");
      expect(error.message).toStartWith("Cannot read --segment: expected a time such as 10m");
    });
  }
});

describe("parseRetention", () => {
  const good: [string, { milliseconds: number } | { bytes: number }][] = [
    ["7d", { milliseconds: 604_800_000 }],
    ["12h", { milliseconds: 43_200_000 }],
    ["1.5h", { milliseconds: 5_400_000 }],
    ["90s", { milliseconds: 90_000 }],
    ["500G", { bytes: 500 * 1024 ** 3 }],
    ["500g", { bytes: 500 * 1024 ** 3 }],
    ["500GB", { bytes: 500 * 1024 ** 3 }],
    ["500GiB", { bytes: 500 * 1024 ** 3 }],
    ["7M", { bytes: 7 << 20 }],
    ["7MB", { bytes: 7 << 20 }],
    ["1.5k", { bytes: 1536 }],
    ["2T", { bytes: 2 * 1024 ** 4 }],
    ["10b", { bytes: 10 }],
  ];
  for (const [text, keep] of good) {
    test(`the retention limit ${text} is valid`, () =>
      expect(parseRetention(text, "--keep")).toEqual(keep));
  }

  const bad: [text: string, hint: string][] = [
    ...["7", "500", "0", "1.5"].map((text) => [text, "500G, with the unit; "] as [string, string]),
    // Ambiguous: minutes or mebibytes. A mistake would delete frames irrevocably.
    ["90m", "; for minutes write hours, for bytes write 90M; "],
    ...["", "d", "0d", "0G", "0.0h", "-7d", "7 d", "7D", "7w", "soon", "G", "7dG", "d7"].map(
      (text) => [text, ""] as [string, string],
    ),
  ];
  for (const [text, hint] of bad) {
    test(`${JSON.stringify(text)} is not a retention limit`, () => {
      const { code, message } = refusal(() => parseRetention(text, "--keep"));
      expect(code).toBe("usage");
      expect(message).toStartWith("Cannot read --keep: expected a ");
      expect(message).toContain(hint);
      expect(message).toEndWith(`current value is ${JSON.stringify(text)}`);
    });
  }
});

describe("formatting", () => {
  const sizes: [number, string][] = [
    [0, "0 bytes"],
    [1, "1 byte"],
    [2, "2 bytes"],
    [999, "999 bytes"],
    [999.7, "1.00 kB"],
    [1000, "1.00 kB"],
    [1234, "1.23 kB"],
    [9994, "9.99 kB"],
    [9995, "10.0 kB"],
    [99_949, "99.9 kB"],
    [99_950, "100 kB"],
    [442_000_000, "442 MB"],
    [999_499_999, "999 MB"],
    [999_500_000, "1.00 GB"],
    [1.5e12, "1.50 TB"],
    [2.5e15, "2500 TB"],
  ];
  for (const [bytes, text] of sizes) {
    test(`${bytes} bytes are written as ${text}`, () => expect(formatBytes(bytes)).toBe(text));
  }

  test("a size is written with at most seven characters, up to a thousand terabytes", () => {
    for (let bytes = 1000; bytes < 9e14; bytes *= 1.37) {
      expect(formatBytes(bytes).length).toBeLessThanOrEqual(7);
      expect(formatBytes(bytes)).not.toStartWith("1000");
    }
  });

  test("a count of one is written in the singular, and any other in the plural", () => {
    expect([0, 1, 2].map((count) => formatCount(count, "frame"))).toEqual([
      "0 frames",
      "1 frame",
      "2 frames",
    ]);
  });

  const durations: [number, string][] = [
    [0, "0:00"],
    [7.4, "0:07"],
    [59.5, "1:00"],
    [61, "1:01"],
    [3599.4, "59:59"],
    [3600, "1:00:00"],
    [3723, "1:02:03"],
    [360_000, "100:00:00"],
    [-5, "0:00"],
  ];
  for (const [seconds, text] of durations) {
    test(`${seconds} seconds are written as ${text}`, () =>
      expect(formatDuration(seconds)).toBe(text));
  }

  const times: [bigint, string][] = [
    [0n, "1970-01-01T00:00:00Z"],
    [1_795_331_523_999_999_999n, "2026-11-22T07:12:03Z"],
    [-86_400_000_000_000n, "1969-12-31T00:00:00Z"],
    [2n ** 63n - 1n, "2262-04-11T23:47:16Z"],
    [-(2n ** 63n), "1677-09-21T00:12:43Z"],
    [10n ** 30n, String(10n ** 30n)],
  ];
  for (const [nanoseconds, text] of times) {
    test(`${nanoseconds} ns since 1970 are written as ${text}`, () =>
      expect(formatTime(nanoseconds)).toBe(text));
  }
});
