// Format of lines on standard error, for each kind of reader.

import { describe, expect, test } from "bun:test";
import {
  formatLogLine,
  type LogLevel,
  type LogLine,
  chooseLogStyle,
} from "../../../src/cli/output/log-format.ts";

const now = new Date("2026-11-22T07:12:03.123Z");
const time = "2026-11-22T07:12:03.123Z";

const line: LogLine = {
  level: "warning",
  type: "failed",
  text: "192.0.2.1:5 ended run7",
  hasTime: true,
  fields: { peer: "192.0.2.1:5", captured: 1763795523123456789n },
};

describe("formatLogLine", () => {
  test("a log line as text begins with its time, if it has one", () => {
    expect(formatLogLine("text", line, now)).toBe(`${time} 192.0.2.1:5 ended run7\n`);
    const greeting = { ...line, hasTime: false };
    expect(formatLogLine("text", greeting, now)).toBe("192.0.2.1:5 ended run7\n");
  });

  test("a log line for the journal has the syslog priority and no time", () => {
    const priorities: [LogLevel, number][] = [
      ["error", 3],
      ["warning", 4],
      ["info", 6],
      ["debug", 7],
    ];
    for (const [level, priority] of priorities) {
      const said = formatLogLine("journal", { ...line, level }, now);
      expect(said).toBe(`<${priority}>192.0.2.1:5 ended run7\n`);
    }
  });

  test("a log line as JSON has time, level, type and message first, and exact bigints", () => {
    expect(formatLogLine("json", line, now)).toBe(
      `{"time":"${time}","level":"warning","type":"failed","message":"192.0.2.1:5 ended run7",` +
        '"peer":"192.0.2.1:5","captured":"1763795523123456789"}\n',
    );
    const message = "what the error says";
    expect(JSON.parse(formatLogLine("json", { ...line, fields: { message } }, now))).toEqual({
      time,
      level: "warning",
      type: "failed",
      message,
    });
  });

  test("a log line stays one line without control characters, whatever a peer put into it", () => {
    const text = "a\nb\r\x1b[2J\x9b31m\u202egnp\u2028<0>c";
    for (const style of ["text", "journal", "json"] as const) {
      const said = formatLogLine(style, { ...line, text, fields: { name: text } }, now);
      expect(said.slice(0, -1)).not.toMatch(/[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/u);
      expect(said).toEndWith("\n");
    }
    const { name } = JSON.parse(formatLogLine("json", { ...line, fields: { name: text } }, now));
    expect(name).toBe(text);
  });
});

describe("chooseLogStyle", () => {
  const cases: [string, string[], Record<string, string>, string][] = [
    ["is text by default", ["serve"], {}, "text"],
    ["is JSON with --log json", ["serve", "a", "--log", "json"], {}, "json"],
    ["is JSON with --log=json", ["serve", "--log=json"], {}, "json"],
    ["is JSON with FRAMES_LOG=json", ["serve"], { FRAMES_LOG: "json" }, "json"],
    [
      "follows the flag before the environment",
      ["serve", "--log", "text"],
      { FRAMES_LOG: "json" },
      "text",
    ],
    ["is text for an unknown value", ["serve", "--log", "xml"], { FRAMES_LOG: "json" }, "text"],
    ["is text for other commands", ["send", "a"], { FRAMES_LOG: "json" }, "text"],
    ["is text without a command", [], { FRAMES_LOG: "json" }, "text"],
    [
      "is text if JOURNAL_STREAM is not standard error",
      ["send"],
      { JOURNAL_STREAM: "1:1" },
      "text",
    ],
  ];
  for (const [what, words, environment, style] of cases) {
    test(`the log style ${what}`, () =>
      expect<string>(chooseLogStyle(words, environment)).toBe(style));
  }
});
