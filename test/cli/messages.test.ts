// All sentences for people, as a snapshot: a change of one is seen in review. Read the new sentence
// by the rules of the project: what happened, why, and what to type next.
//
// Update the snapshot with: bun test -u ./test/cli/messages.test.ts

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { overview } from "../../src/cli/args/help.ts";
import { errors } from "../../src/errors.ts";
import { version } from "../../src/version.ts";
import { sourceTexts } from "../helper/source-texts.ts";

const source = join(import.meta.dir, "../../src");

/** Help texts have a snapshot of their own, and the scripts for shells are no sentences. */
const excluded = ["cli/args/help.ts", "cli/args/completions.ts"];

const textsByFile = new Map(
  readdirSync(source, { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".ts") && !excluded.includes(path))
    .toSorted()
    .map((path) => [path, sourceTexts(readFileSync(join(source, path), "utf8"))] as const)
    .filter(([, texts]) => texts.length > 0),
);

/** The texts of the files below `src` that `isWanted` accepts, sorted, each once. */
function textsOf(isWanted: (path: string) => boolean): string[] {
  const wanted = [...textsByFile].filter(([path]) => isWanted(path));
  return [...new Set(wanted.flatMap(([, texts]) => texts))].toSorted();
}

const isOfPage = (path: string): boolean => path.startsWith("http/page/");
const isOfCommand = (path: string): boolean => path.startsWith("cli/") || path === "main.ts";

describe("the sentences for people", () => {
  test("the table of errors is as reviewed", () => {
    const rows = Object.entries(errors).map(
      ([name, { exitCode, sentence }]) =>
        `${name.padEnd(16)} ${`${exitCode}`.padEnd(3)} ${sentence}`,
    );
    expect(rows.join("\n")).toMatchSnapshot();
  });

  test("the overview of the help is as reviewed", () => {
    expect(overview().replaceAll(version, "VERSION")).toMatchSnapshot();
  });

  test("what commands print is as reviewed", () => {
    expect(textsOf(isOfCommand).join("\n")).toMatchSnapshot();
  });

  test("the messages of all other parts are as reviewed", () => {
    const texts = textsOf((path) => !isOfCommand(path) && !isOfPage(path) && path !== "errors.ts");
    expect(texts.join("\n")).toMatchSnapshot();
  });

  test("the texts of the page are as reviewed", () => {
    const html = readFileSync(join(source, "http/page/index.html"), "utf8");
    const shown = [...html.matchAll(/>([^<>]*[a-z][^<>]*)<|(?:aria-label|title)="([^"]+)"/g)];
    const ofHtml = shown.map(([, text, label]) => (text ?? label)!.replace(/\s+/g, " ").trim());
    expect([...new Set([...ofHtml, ...textsOf(isOfPage)])].toSorted().join("\n")).toMatchSnapshot();
  });

  test("every sentence names the actor, in terms of the field", () => {
    const banned =
      /\b(?:whoever|nobody|somebody|anybody|everybody|those who|lets? in|let in|looks? on|stands? still|likewise|anew|all the same|so long|turned away)\b/i;
    const found = [...textsByFile].flatMap(([path, texts]) =>
      texts.filter((text) => banned.test(text)).map((text) => `${path}: ${text}`),
    );
    expect(found).toEqual([]);
  });

  test("an error message begins with Cannot, or names what happened, and has no full stop", () => {
    const found = [...textsByFile].flatMap(([path, texts]) =>
      texts.filter((text) => /^Cannot .*\.$/.test(text)).map((text) => `${path}: ${text}`),
    );
    expect(found).toEqual([]);
  });

  test("an error message fits into two lines of a terminal", () => {
    const found = [...textsByFile].flatMap(([path, texts]) =>
      texts
        .filter((text) => text.startsWith("Cannot ") && text.length > 170)
        .map((text) => `${path}: ${text}`),
    );
    expect(found).toEqual([]);
  });
});
