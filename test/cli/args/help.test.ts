import { describe, expect, test } from "bun:test";
import { completions } from "../../../src/cli/args/completions.ts";
import { commands } from "../../../src/cli/args/commands.ts";
import { environmentName, flags, flagsOf } from "../../../src/cli/args/flags.ts";
import { help, overview } from "../../../src/cli/args/help.ts";
import { errors, FramesError } from "../../../src/errors.ts";
import { version } from "../../../src/version.ts";

const topics = [
  "article",
  "environment",
  "exit-codes",
  "keep",
  "keys",
  "live",
  "names",
  "receiving",
  "resume",
  "running",
  "s3",
  "see",
];
const commandNames = commands.map(({ name }) => name);

describe("frames help", () => {
  test("help without a topic gives the overview", () => {
    expect(help(undefined)).toBe(overview());
    expect(overview().replaceAll(version, "VERSION")).toMatchSnapshot();
  });

  for (const topic of [...commandNames, ...topics]) {
    test(`help on ${topic} explains the topic`, () => expect(help(topic)).toMatchSnapshot());
  }

  test("the overview lists every command, and help on help lists every topic", () => {
    for (const name of commandNames) expect(overview()).toMatch(new RegExp(`^  ${name}\\b`, "m"));
    for (const topic of topics) expect(help("help")).toContain(topic);
  });

  test("help on a command lists every flag of the command, and no other", () => {
    for (const command of commandNames) {
      const shown = [...help(command).matchAll(/^ {2}(?:-[a-zA-Z], )?--([a-z-]+)/gm)];
      expect(shown.map(([, name]) => name!)).toEqual(flagsOf(command).map(({ name }) => name));
    }
  });

  test("help on environment lists the variable of every flag except help", () => {
    // Long lists of commands continue on the next line.
    const text = help("environment").replace(/\n {26}(?=\S)/g, " ");
    for (const flag of flags) {
      const whose = flag.commands.join(", ");
      const line = `^  ${environmentName(flag)} +--${flag.name}, for ${whose}$`;
      const named = new RegExp(line, "m").test(text);
      expect([flag.name, named]).toEqual([flag.name, flag.name !== "help"]);
    }
  });

  test("help on exit-codes lists every exit code with each of its meanings", () => {
    const text = help("exit-codes");
    for (const { exitCode: exit, sentence } of Object.values(errors)) {
      expect(text).toMatch(new RegExp(`^  ${exit} `, "m"));
      expect(text).toContain(sentence);
    }
    const codes = [...text.matchAll(/^ {2}(\d+) /gm)].map(([, code]) => Number(code));
    const expected = new Set([0, ...Object.values(errors).map(({ exitCode: exit }) => exit)]);
    expect(codes).toEqual([...expected].sort((a, b) => a - b));
  });

  test("help fits into 80 columns and ends with a line break", () => {
    for (const text of [overview(), ...[...commandNames, ...topics].map(help)]) {
      expect(text).toEndWith("\n");
      expect(text).not.toMatch(/[ \t]$/m);
      expect(text).not.toMatch(/[^\n\x20-\x7e]/);
      for (const line of text.split("\n")) {
        expect([line, line.length <= 80]).toEqual([line, true]);
      }
    }
  });

  const unknown: [topic: string, hint: string][] = [
    ["sned", "did you mean send?"],
    ["exit-code", "did you mean exit-codes?"],
    ["name", "did you mean names?"],
    ["everything there is", "see frames help"],
    ["constructor", ""],
    ["toString", ""],
    ["__proto__", ""],
    ["hasOwnProperty", ""],
  ];
  for (const [topic, hint] of unknown) {
    test(`help on the unknown topic ${topic} is a usage error`, () => {
      let error: unknown;
      try {
        expect(help(topic)).toBeUndefined();
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect((error as FramesError).code).toBe("usage");
      expect((error as FramesError).message).toStartWith(`No help on ${topic}: ${hint}`);
    });
  }
});

describe("flags in completions", () => {
  test("the completions of every shell have every flag, with its short form", () => {
    for (const flag of flags) {
      expect(completions("bash")).toContain(`--${flag.name}`);
      expect(completions("zsh")).toContain(`--${flag.name}`);
      expect(completions("fish")).toContain(` -l ${flag.name}`);
      if (flag.short === undefined) continue;
      expect(completions("bash")).toContain(` -${flag.short}`);
      expect(completions("zsh")).toContain(`-${flag.short}[`);
      expect(completions("fish")).toContain(` -l ${flag.name} -s ${flag.short}`);
    }
  });
});
