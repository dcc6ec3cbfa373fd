// Covers: cli/args/arguments.ts, cli/args/key-options.ts

import { describe, expect, test } from "bun:test";
import { commands } from "../../../src/cli/args/commands.ts";
import { type Arguments, nearest, parseArguments } from "../../../src/cli/args/arguments.ts";
import { environmentName, flags, flagsOf } from "../../../src/cli/args/flags.ts";
import { FramesError } from "../../../src/errors.ts";

type Environment = Record<string, string | undefined>;

function parse(command: string, words: string[], environment: Environment = {}): Arguments {
  return parseArguments(command, words, environment);
}

/** Returns the error message about invalid arguments. */
function complaint(command: string, words: string[], environment: Environment = {}): string {
  try {
    parse(command, words, environment);
  } catch (error) {
    if (!(error instanceof FramesError)) throw error;
    expect(error.code).toBe("usage");
    return error.message;
  }
  throw new Error("it was understood");
}

describe("parseArguments", () => {
  test("flags and arguments may come in any order", () => {
    const given = parse("send", ["a", "--to", "gpu1", "b", "-n", "--stream=run7", "c"]);
    expect(given.positionals).toEqual(["a", "b", "c"]);
    expect(given.text("to")).toBe("gpu1");
    expect(given.text("stream")).toBe("run7");
    expect(given.isOn("dry-run")).toBe(true);
    expect(given.isOn("quiet")).toBe(false);
    expect(given.text("timeout")).toBeUndefined();
    expect(given.milliseconds("timeout")).toBeUndefined();
    expect(given.list("include")).toEqual([]);
  });

  test("short flags may be combined in one word", () => {
    const given = parse("send", ["-qv", "-n", "a"]);
    expect(["quiet", "verbose", "dry-run"].map((name) => given.isOn(name))).toEqual([
      true,
      true,
      true,
    ]);
    expect(given.positionals).toEqual(["a"]);
  });

  test("all words after -- are arguments, and so is a single dash", () => {
    const given = parse("send", ["-q", "-", "--", "--to", "-n"]);
    expect(given.positionals).toEqual(["-", "--to", "-n"]);
    expect(given.isOn("dry-run")).toBe(false);
  });

  test("a repeated list flag keeps its order, and of other flags the last one counts", () => {
    const given = parse("send", ["--include=*.png", "--to=a", "--include", "*.jpg", "--to=b"]);
    expect(given.list("include")).toEqual(["*.png", "*.jpg"]);
    expect(given.text("to")).toBe("b");
  });

  test("the value of a flag may hold = and spaces, and begins with a dash only after =", () => {
    const given = parse("send", ["--source", "a=b=c d", "--exclude=-x", "--stream=--to"]);
    expect(given.list("source")).toEqual(["a=b=c d"]);
    expect(given.list("exclude")).toEqual(["-x"]);
    expect(given.text("stream")).toBe("--to");
  });

  test("sizes are read as bytes and times as milliseconds", () => {
    const given = parse("serve", ["--max-frame", "2G", "--timeout", "1.5"]);
    expect(given.size("max-frame")).toBe(2 ** 31);
    expect(given.milliseconds("timeout")).toBe(1500);
    const wrong = parse("serve", ["--max-frame", "lots", "--timeout", "soon"]);
    expect(() => wrong.size("max-frame")).toThrow("Cannot read --max-frame");
    expect(() => wrong.milliseconds("timeout")).toThrow("Cannot read --timeout");
  });

  const wrong: [what: string, words: string[], said: string][] = [
    ["an unknown flag", ["--frobnicate"], "Unknown flag --frobnicate: see frames help"],
    ["a mistyped flag", ["--tmeout", "5"], "Unknown flag --tmeout: did you mean --timeout?"],
    ["a mistyped flag with a value", ["--steam=x"], "Unknown flag --steam: did you mean --stream?"],
    ["one dash too few", ["-stream", "x"], "Unknown flag -s"],
    ["another command's flag", ["--listen", ":9726"], "Unknown flag --listen"],
    ["a negated switch", ["--no-quiet"], "Unknown flag --no-quiet"],
    ["an unknown short flag among others", ["-qxv"], "Unknown flag -x"],
    [
      "a switch with a value",
      ["--quiet=yes"],
      "Cannot read --quiet: it takes no value; write --quiet alone",
    ],
    ["a short switch with a value", ["-n=1"], "Unknown flag -="],
    [
      "a flag without its value",
      ["a", "--to"],
      "Cannot read --to: it takes a value; write --to HOST[:PORT]",
    ],
    ["an empty value", ["--to="], "Cannot read --to: it takes a value; write --to HOST[:PORT]"],
    [
      "an empty word as value",
      ["--stream", ""],
      "Cannot read --stream: it takes a value; write --stream NAME",
    ],
    ["the flag --constructor", ["--constructor"], "Unknown flag --constructor"],
    ["the flag --__proto__", ["--__proto__=x"], "Unknown flag --__proto__"],
  ];
  for (const [what, words, said] of wrong) {
    test(`a command line with ${what} is a usage error`, () => {
      expect(complaint("send", words)).toStartWith(said);
    });
  }

  test("a flag is never taken as the value of another flag", () => {
    expect(complaint("send", ["a", "--stream", "--quiet"])).toStartWith("Cannot read --stream");
    expect(complaint("send", ["a", "--to", "-n"])).toStartWith("Cannot read --to");
  });
});

describe("environment variables", () => {
  test("environment variables set the flags that are not given", () => {
    const environment = {
      ...{ FRAMES_TO: "gpu1", FRAMES_DRY_RUN: "1", FRAMES_INCLUDE: "*.png", FRAMES_TIMEOUT: "2" },
      ...{ FRAMES_LISTEN: ":1", TO: "other" },
    };
    const given = parse("send", ["--timeout", "5"], environment);
    expect(given.text("to")).toBe("gpu1");
    expect(given.isOn("dry-run")).toBe(true);
    expect(given.list("include")).toEqual(["*.png"]);
    expect(given.milliseconds("timeout")).toBe(5000);
    expect(given.text("listen")).toBeUndefined();
  });

  test("an environment variable does not add to a list flag that is given", () => {
    const given = parse("send", ["--include", "*.jpg"], { FRAMES_INCLUDE: "*.png" });
    expect(given.list("include")).toEqual(["*.jpg"]);
  });

  test("an empty environment variable is ignored", () => {
    const given = parse("send", [], { FRAMES_TO: "", FRAMES_QUIET: "", FRAMES_STREAM: undefined });
    expect(given.text("to")).toBeUndefined();
    expect(given.isOn("quiet")).toBe(false);
  });

  for (const [value, on] of [
    ...["1", "true", "yes", "on", "TRUE"].map((text) => [text, true] as const),
    ...["0", "false", "no", "off", "No"].map((text) => [text, false] as const),
  ]) {
    test(`an environment variable with the value ${value} turns a switch ${on ? "on" : "off"}`, () => {
      expect(parse("send", [], { FRAMES_QUIET: value }).isOn("quiet")).toBe(on);
    });
  }

  test("an environment variable with any other value for a switch is a usage error", () => {
    expect(complaint("send", [], { FRAMES_DRY_RUN: "maybe" })).toBe(
      'Cannot read FRAMES_DRY_RUN: expected 1 or 0, current value is "maybe"',
    );
  });

  test("the error for an invalid environment variable names the variable", () => {
    const environment = { FRAMES_MAX_FRAME: "lots", FRAMES_TIMEOUT: "soon" };
    const given = parse("serve", [], environment);
    expect(() => given.size("max-frame")).toThrow("Cannot read FRAMES_MAX_FRAME");
    expect(() => given.milliseconds("timeout")).toThrow("Cannot read FRAMES_TIMEOUT");
  });

  test("every flag has an environment variable of its own", () => {
    const names = flags.map(environmentName);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^FRAMES_[A-Z][A-Z_]*$/);
  });
});

describe("table of flags", () => {
  const names = commands.map(({ name }) => name);

  test("the table of flags has each flag once, and only existing commands", () => {
    expect(new Set(flags.map(({ name }) => name)).size).toBe(flags.length);
    expect(new Set(names).size).toBe(names.length);
    for (const { name, commands: users } of flags) {
      expect([name, users.length > 0]).toEqual([name, true]);
      expect(names).toEqual(expect.arrayContaining([...users]));
    }
  });

  test("a flag that is a switch for a command has no value there", () => {
    for (const { name, switchFor = [] } of flags) {
      for (const command of switchFor) {
        const flag = flagsOf(command).find((one) => one.name === name);
        expect([name, flag?.value]).toEqual([name, undefined]);
      }
    }
  });

  test("short flags are single letters that differ within a command", () => {
    for (const command of names) {
      const shorts = flagsOf(command).flatMap(({ short }) => (short === undefined ? [] : [short]));
      expect([command, new Set(shorts).size]).toEqual([command, shorts.length]);
      for (const short of shorts) expect(short).toMatch(/^[A-Za-z]$/);
    }
  });

  test("every command has the flag -h", () => {
    for (const command of names) expect(parse(command, ["-h"]).isOn("help")).toBe(true);
  });

  test("no flag takes a secret as its value, because a list of processes would show it", () => {
    for (const { name, value = "" } of flags) {
      if (/key|secret|password|token/.test(name)) expect(value).toMatch(/FILE|DIR/);
    }
  });

  test("the examples of every command are valid command lines", () => {
    for (const { name, examples } of commands) {
      for (const example of examples) {
        const inner = /<\((.*)\)$/.exec(example)?.[1] ?? example;
        const words = inner.split(" ").map((word) => word.replaceAll("'", ""));
        expect(words.slice(0, 2)).toEqual(["frames", name]);
        expect(() => parse(name, words.slice(2))).not.toThrow();
      }
    }
  });
});

describe("nearest", () => {
  const words = ["serve", "send", "ls", "help", "version", "completions"];
  const near: [string, string | undefined][] = [
    ["send", "send"],
    ["sned", "send"],
    ["sen", "send"],
    ["server", "serve"],
    ["verison", "version"],
    ["completion", "completions"],
    ["hlep", "help"],
    ["frobnicate", undefined],
    ["receive everything", undefined],
  ];
  for (const [given, word] of near) {
    test(`the nearest word to ${given} is ${word ?? "none"}`, () =>
      expect(nearest(given, words)).toBe(word!));
  }

  test("an empty list has no nearest word", () => expect(nearest("send", [])).toBeUndefined());
});
