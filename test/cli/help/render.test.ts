import { describe, expect, test } from "bun:test";
import { pages } from "../../../src/cli/help/pages.ts";
import { renderPage } from "../../../src/cli/help/render.ts";

const plain = { columns: 80, colours: false };
const coloured = { columns: 80, colours: true };

describe("a page for a terminal", () => {
  test("without colours has no escape codes, and keeps the marks of code", () => {
    const text = renderPage("# Title\n\nRun `frames key` **once**.\n", plain);
    expect(text).toBe("Title\n\nRun `frames key` once.\n");
  });

  test("with colours has bold headings and commands, and coloured code", () => {
    const text = renderPage(
      "# Title\n\nRun `frames key`.\n\n```console\n$ frames ls\nout\n```\n",
      coloured,
    );
    expect(text).toContain("\x1b[1mTitle\x1b[22m\n");
    expect(text).toContain("\x1b[36mframes key\x1b[39m");
    expect(text).toEndWith("\n  \x1b[1m$ frames ls\x1b[22m\n  out\n");
  });

  test("is wrapped to the width, at 100 columns at most", () => {
    const words = "word ".repeat(60);
    const widest = (columns: number): number =>
      Math.max(
        ...renderPage(words, { columns, colours: false })
          .split("\n")
          .map((line) => line.length),
      );
    expect(widest(60)).toBeLessThanOrEqual(60);
    expect(widest(80)).toBeGreaterThan(74);
    expect(widest(80)).toBeLessThanOrEqual(80);
    expect(widest(300)).toBeLessThanOrEqual(100);
    expect(widest(1)).toBeLessThanOrEqual(40);
  });

  test("has code as it is, indented", () => {
    const code = `${"x".repeat(120)}\n\n  <y> & "z"`;
    expect(renderPage(`\`\`\`sh\n${code}\n\`\`\`\n`, plain)).toBe(
      `  ${"x".repeat(120)}\n\n    <y> & "z"\n`,
    );
  });

  test("does not break a line within code", () => {
    const text = renderPage(`${"word ".repeat(13)}\`frames key save\`\n`, plain);
    expect(text.split("\n")[1]).toBe("`frames key save`");
  });

  test("hangs the lines of a list, and leaves a blank line behind it", () => {
    const text = renderPage(`- ${"word ".repeat(20)}\n- two\n\nafter\n`, plain);
    expect(text).toMatch(/^- word .*\n {2}word .*\n- two\n\nafter\n$/);
  });

  test("aligns tables and wraps their last column", () => {
    const table = `| code | reason |\n| --- | --- |\n| 1 | one |\n| 23 | ${"word ".repeat(20)}|\n`;
    const lines = renderPage(table, plain).split("\n");
    expect(lines.slice(0, 2)).toEqual(["code  reason", "1     one"]);
    expect(lines[2]).toStartWith("23    word");
    expect(lines[3]).toStartWith("      word");
    expect(renderPage(table, coloured)).toContain("\x1b[1mcode\x1b[22m  \x1b[1mreason\x1b[22m\n");
  });

  test("names the command for a link to a page, and the address of others", () => {
    expect(renderPage("see [keys](keys.md)", plain)).toBe("see `frames help keys`\n");
    expect(renderPage("[get frames](receive.md)", plain)).toBe(
      "get frames (`frames help receiving`)\n",
    );
    expect(renderPage("[Bun](https://bun.sh)", plain)).toBe("Bun (https://bun.sh)\n");
    expect(renderPage("[SPEC](../../wire/SPEC.md)", plain)).toBe("SPEC\n");
  });

  for (const { topic, text } of pages) {
    test(`is made of ${topic} without losing a word`, () => {
      const words = (some: string): string[] => some.replace(/[^\p{L}\p{N}]+/gu, " ").split(" ");
      const rendered = new Set(words(Bun.stripANSI(renderPage(text, coloured))));
      const source = text
        .replace(/^```.*$|^\|[ -|]+\|$/gm, "")
        .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
      expect(words(source).filter((word) => !rendered.has(word))).toEqual([]);
    });
  }
});
