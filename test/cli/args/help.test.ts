import { describe, expect, test } from "bun:test";
import { completions } from "../../../src/cli/args/completions.ts";
import { commands } from "../../../src/cli/args/commands.ts";
import { flags, flagsOf } from "../../../src/cli/args/flags.ts";
import { help, overview } from "../../../src/cli/args/help.ts";
import { pages } from "../../../src/cli/help/pages.ts";
import { FramesError } from "../../../src/errors.ts";
import { renderPage } from "../../../src/cli/help/render.ts";
import { version } from "../../../src/version.ts";

const topics = pages.map(({ topic }) => topic);
const commandNames = commands.map(({ name }) => name);

describe("frames help", () => {
  test("help without a topic gives the overview", () => {
    expect(help(undefined)).toBe(overview());
    expect(overview().replaceAll(version, "VERSION")).toMatchSnapshot();
  });

  // What other pages say is tested where they are.
  for (const topic of [...commandNames, "start", "exit-codes", "environment"]) {
    test(`help on ${topic} explains the topic`, () => expect(help(topic)).toMatchSnapshot());
  }

  test("the overview lists every command, and help on help lists every topic", () => {
    for (const name of commandNames) expect(overview()).toMatch(new RegExp(`^  ${name}\\b`, "m"));
    for (const { topic, summary } of pages) {
      const line = new RegExp(`^  ${topic} +${summary}$`, "m");
      expect(overview()).toMatch(line);
      expect(help("help")).toMatch(line);
    }
  });

  test("help on a command names its pages", () => {
    for (const { name, topics } of commands) {
      const [, section = ""] = help(name).split("\nRead more:\n");
      const named = [...section.matchAll(/^ {2}frames help (\S+)/gm)];
      expect(named.map(([, topic]) => topic!)).toEqual([...topics]);
    }
  });

  const former: [topic: string, page: string][] = [
    ["keep", "retention"],
    ["live", "cameras"],
    ["names", "folders"],
    ["receiving", "receive"],
    ["resume", "troubleshooting"],
    ["running", "service"],
    ["s3", "many-machines"],
    ["see", "view"],
  ];
  for (const [topic, file] of former) {
    test(`help on ${topic}, a topic of earlier versions, shows ${file}.md`, () => {
      const text = pages.find((page) => page.file === file)!.text;
      expect(help(topic)).toBe(renderPage(text, { columns: 80, colours: false }));
    });
  }

  test("help on a command lists every flag of the command, and no other", () => {
    for (const command of commandNames) {
      const shown = [...help(command).matchAll(/^ {2}(?:-[a-zA-Z], )?--([a-z-]+)/gm)];
      expect(shown.map(([, name]) => name!)).toEqual(flagsOf(command).map(({ name }) => name));
    }
  });

  test("help fits into 80 columns and ends with a line break", () => {
    for (const text of [overview(), ...[...commandNames, ...topics].map((name) => help(name))]) {
      expect(text).toEndWith("\n");
      expect(text).not.toMatch(/[ \t]$/m);
      expect(text).not.toMatch(/[^\n\x20-\x7e]/);
      for (const line of text.split("\n")) {
        // A command for Windows cannot be divided.
        const fits = line.length <= 80 || /schtasks|Set-ScheduledTask/.test(line);
        expect([line, fits]).toEqual([line, true]);
      }
    }
  });

  const unknown: [topic: string, hint: string][] = [
    ["sned", "did you mean send?"],
    ["exit-code", "did you mean exit-codes?"],
    ["key-s", "did you mean keys?"],
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
