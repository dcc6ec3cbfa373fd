// The pages of the manual: plain words, links that lead somewhere, and tables as in the program.
// Covers: cli/help/markdown.d.ts, common/text-columns.ts

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { parseArguments } from "../../../src/cli/args/arguments.ts";
import { commands } from "../../../src/cli/args/commands.ts";
import { environmentName, flags } from "../../../src/cli/args/flags.ts";
import { findPage, pages } from "../../../src/cli/help/pages.ts";
import { errors } from "../../../src/errors.ts";
import { pageBlocks, pageSteps } from "../../helper/page-blocks.ts";

const root = join(import.meta.dir, "../../..");
const folder = join(root, "src/cli/help");
const files = readdirSync(folder).filter((name) => name.endsWith(".md"));
const texts = files.map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }));

/** Pages for contributors, which the executable does not have. */
const notATopic = ["contributing.md"];

test("every page is a topic of frames help", () => {
  const listed = pages.map(({ file }) => `${file}.md`);
  expect([...listed, ...notATopic].toSorted()).toEqual(files.toSorted());
  const names = pages.map(({ topic }) => topic);
  expect(names.filter((name) => commands.some((command) => command.name === name))).toEqual([]);
  expect(new Set(names).size).toBe(names.length);
  for (const { file, text } of pages) {
    expect(text).toBe(readFileSync(join(folder, `${file}.md`), "utf8"));
  }
});

/** Text without blocks of code, tables and headings; code in a line is one word. */
function prose(text: string): string {
  return text
    .replace(/^```[^]*?^```$/gm, "\n")
    .replace(/^(?:\||#).*$/gm, "\n")
    .replace(/`[^`]+`/g, "Code")
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/\*\*/g, "");
}

function sentences(text: string): string[] {
  return prose(text)
    .split(/\n\s*\n|\n(?=- |\d+\. )/)
    .flatMap((paragraph) => paragraph.split(/(?<=[.!?])\s+(?=[A-Z`[])/))
    .map((sentence) =>
      sentence
        .replace(/^\s*- /, "")
        .replace(/\s+/g, " ")
        .trim(),
    )
    .filter((sentence) => sentence !== "");
}

const maxWords = 25;

describe("a page is in plain words:", () => {
  for (const { name, text } of texts) {
    test(`${name} has 15 to 60 lines`, () => {
      const lines = text.trimEnd().split("\n").length;
      expect(lines).toBeGreaterThanOrEqual(15);
      expect(lines).toBeLessThanOrEqual(60);
    });

    test(`${name} names the actor, and has none of the words that are hard to read`, () => {
      const words =
        /\b(?:whoever|nobody|somebody|anybody|everybody|those who|likewise|anew|all the same)\b/gi;
      expect(prose(text).match(words) ?? []).toEqual([]);
    });
  }

  test(`95 of 100 sentences have at most ${maxWords} words`, () => {
    for (const { name, text } of texts) {
      const all = sentences(text);
      const long = all.filter((sentence) => sentence.split(" ").length > maxWords);
      // A short page may have one.
      const allowed = Math.max(1, all.length * 0.05);
      expect([name, long.length <= allowed ? [] : long]).toEqual([name, []]);
    }
    const all = texts.flatMap(({ text }) => sentences(text));
    expect(all.length).toBeGreaterThan(200);
    const long = all.filter((sentence) => sentence.split(" ").length > maxWords);
    expect(long.length / all.length).toBeLessThanOrEqual(0.05);
  });
});

describe("links lead somewhere:", () => {
  const documents = [
    ...files.map((name) => join(folder, name)),
    ...["README.md", "SECURITY.md", "CHANGELOG.md"].map((name) => join(root, name)),
  ];
  for (const path of documents) {
    test(relative(root, path), () => {
      const text = readFileSync(path, "utf8").replace(/^```[^]*?^```$|^ {4}.*$|`[^`\n]*`/gm, "");
      const targets = [
        ...[...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!),
        ...[...text.matchAll(/\b(?:src|href)="([^"]+)"/g)].map(([, target]) => target!),
      ];
      const dead = targets.filter((target) => !isAlive(path, target));
      expect(dead).toEqual([]);
    });

    test(`files and help topics that ${relative(root, path)} names exist`, () => {
      const text = readFileSync(path, "utf8");
      const named = [...text.matchAll(/`((?:src|test|\.ci)\/[\w./-]+)`/g)].map(([, name]) => name!);
      expect(named.filter((name) => !existsSync(join(root, name)))).toEqual([]);
      const topics = [...text.matchAll(/`frames help ([a-z][\w-]*)`/g)].map(([, topic]) => topic!);
      const isKnown = (topic: string): boolean =>
        findPage(topic) !== undefined || commands.some(({ name }) => name === topic);
      expect(topics.filter((topic) => !isKnown(topic))).toEqual([]);
    });
  }
});

test("the files that a frame passes exist", () => {
  const sources = readdirSync(join(root, "src"), { recursive: true }).map((path) => `/${path}`);
  const page = texts.find(({ name }) => name === "contributing.md")!;
  const [drawing] = pageBlocks(page.text);
  const text = drawing!.content.join(" ");
  const named = text.match(/(?<=[→⇄] +)[\w/-]+|[\w/-]+(?= +[→⇄])/g) ?? [];
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((name) => !sources.some((path) => path.endsWith(`/${name}.ts`)))).toEqual([]);
});

/** Whether a link leads to a file and heading. Other sites, and pages of the project's own site, are not asked. */
function isAlive(from: string, target: string): boolean {
  if (/^(?:https?|mailto):/.test(target)) return true;
  const [path, fragment] = target.split("#");
  const file = path === "" ? from : join(dirname(from), path!);
  // Pages of the site that a repository is on, such as ../../releases/latest.
  if (relative(root, file).startsWith("..")) return /\/(?:releases|issues)\b/.test(target);
  if (!existsSync(file)) return false;
  if (fragment === undefined) return true;
  const headings = readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm);
  return [...headings].some(([, heading]) => slug(heading!) === fragment);
}

function slug(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

describe("pages and the table of flags agree:", () => {
  test("every flag is named by a page, besides its variable", () => {
    const text = texts
      .filter(({ name }) => name !== "environment.md")
      .map((page) => page.text)
      .join("\n");
    const unnamed = flags
      .map(({ name }) => `--${name}`)
      .filter((name) => !new RegExp(`${name}(?![\\w-])`).test(text));
    expect(unnamed).toEqual([]);
  });

  test("every flag that a page names exists", () => {
    // Blocks that are for reading have flags of other programs; --env-file is Docker's.
    const own = texts
      .filter(({ name }) => !notATopic.includes(name))
      .map(({ name, text }) => ({
        name,
        text: text.replace(/^```(?!console).*\n[^]*?^```$/gm, "").replace(/`adduser [^`]*`/g, ""),
      }));
    const known = new Set(["env-file", ...flags.map(({ name }) => name)]);
    const unknown = own.flatMap(({ name, text }) =>
      [...text.matchAll(/(?<![\w-])--([a-z][\w-]*)(?![\w-]*…)/g)]
        .filter(([, flag]) => !known.has(flag!))
        .map(([flag]) => `${name}: ${flag}`),
    );
    expect(unknown).toEqual([]);
  });

  test("commands in blocks that are for reading have flags of frames", () => {
    for (const { name, text } of texts) {
      const blocks = pageBlocks(text).filter(({ info }) => info === "sh" || info === "ini");
      const lines = blocks.flatMap(({ content }) =>
        content.join("\n").replaceAll("\\\n", " ").split("\n"),
      );
      for (const line of lines) {
        const [, command, rest] =
          /^(?:ExecStart=\S*|docker exec \S+ )?(?<=^|\/|\s)frames (\w+) ?(.*)$/.exec(line) ?? [];
        if (command === undefined) continue;
        expect([name, commands.some((one) => one.name === command)]).toEqual([name, true]);
        parseArguments(command, rest!.split(/\s+/), {});
      }
    }
  });

  test("environment.md names the variables of every command", () => {
    const { text } = texts.find(({ name }) => name === "environment.md")!;
    const rows = new Map(
      [...text.matchAll(/^\| (\w+) +\| ((?:`FRAMES_\w+`(?:, )?)+) *\|$/gm)].map(
        ([, command, list]) => [command!, list!.replaceAll("`", "").split(", ")],
      ),
    );
    const expected = commands
      .map(({ name }): [string, string[]] => [
        name,
        flags
          .filter((flag) => flag.name !== "help" && flag.commands.includes(name))
          .map(environmentName),
      ])
      .filter(([, variables]) => variables.length > 0);
    rows.delete("variable");
    expect([...rows]).toEqual(expected);
  });
});

test("exit-codes.md has every exit code with each of its reasons", () => {
  const { text } = texts.find(({ name }) => name === "exit-codes.md")!;
  const rows = [...text.matchAll(/^\| (\d+) +\| (.*?) *\|$/gm)].map(([, code, reason]) => [
    Number(code),
    reason!,
  ]);
  const reasons = Object.values(errors)
    .map(({ exitCode, sentence }): [number, string] => [exitCode, sentence])
    .toSorted(([a], [b]) => a - b);
  expect(rows).toEqual([[0, "Done"], ...reasons]);
});

test("every page with a console block begins each command with a prompt", () => {
  for (const { name, text } of texts) {
    const blocks = pageBlocks(text).filter(({ info }) => info === "console");
    const steps = pageSteps(text);
    expect([name, steps.length >= blocks.length]).toEqual([name, true]);
  }
  expect(texts.map(({ name }) => basename(name))).not.toEqual([]);
});
