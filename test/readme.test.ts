// The README is short, plain and complete. test/cli/help/pages.test.ts follows its links.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { scripts } from "../package.json" with { type: "json" };

const root = join(import.meta.dir, "..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const images = join(root, "src/cli/help/images");

/** The prose, without blocks of code, tags and addresses, as sentences. */
function sentencesOf(markdown: string): string[] {
  const prose = markdown
    .replace(/^```[^]*?^```$/gm, "\n")
    .replace(/<[^>]*>/g, " ")
    .replace(/!\[[^\]]*\]\([^)]*\)/g, " ")
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/^\|[-| ]*\|$/gm, "\n");
  return prose
    .split(/\n\s*\n|^#+ |^- |^\d+\. |\n(?=[#|-])|\|/m)
    .flatMap((paragraph) => paragraph.split(/(?<=[.!?][*_)]*)\s+(?=\W*[A-Z])/))
    .map((sentence) => sentence.replace(/\s+/g, " ").trim())
    .filter((sentence) => /\w/.test(sentence));
}

function wordsIn(sentence: string): number {
  return sentence.split(" ").filter((word) => /\w/.test(word)).length;
}

describe("the README", () => {
  test("has at most 150 lines", () => {
    expect(readme.trimEnd().split("\n").length).toBeLessThanOrEqual(150);
  });

  test("has at most 25 words in 95 of 100 sentences", () => {
    const sentences = sentencesOf(readme);
    expect(sentences.length).toBeGreaterThan(60);
    const long = sentences.filter((sentence) => wordsIn(sentence) > 25);
    expect(long.slice(Math.floor(sentences.length / 20))).toEqual([]);
  });

  test("uses plain words", () => {
    const vague = /\b(?:whoever|nobody|somebody|anybody|those who|likewise|anew|all the same)\b/gi;
    expect(readme.match(vague)).toBe(null);
  });

  test("has the words that people search for, and the title of the article", () => {
    const words = ["RTSP", "dataset", "time lapse", "thermal", "edge", "offline", "numpy", "S3"];
    const title = "How to use socket to transmit Video data frames efficiently by python";
    for (const word of [...words, title]) expect(readme).toContain(word);
  });

  test("names every page of the manual", () => {
    const pages = readdirSync(join(root, "src/cli/help")).filter((name) => name.endsWith(".md"));
    expect(pages.filter((name) => !readme.includes(`src/cli/help/${name}`))).toEqual([]);
  });

  test("names scripts that there are", () => {
    const named = [...readme.matchAll(/\bbun@[\d.]+ run (\w+)/g)].map(([, name]) => name!);
    expect(named).toEqual(expect.arrayContaining(["demo", "test"]));
    expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
  });

  test("has pictures of at most 300 KB, and uses all", () => {
    const names = readdirSync(images);
    const sizes = names.map((name) => statSync(join(images, name)).size);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(300_000);
    expect(names.filter((name) => !readme.includes(`images/${name}`))).toEqual([]);
  });
});
