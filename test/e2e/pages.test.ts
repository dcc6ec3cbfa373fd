// Every command of every page of the manual, run as a reader would run it.
//
//   UPDATE_PAGES=1 bun test test/e2e/pages.test.ts     writes what commands print into the pages

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { isShown, type PageCommand, pageSteps } from "../helper/page-blocks.ts";
import type { PageRun } from "../helper/page-session.ts";
import { adopt, executable, temporaryFolder } from "../helper/program.ts";
import { needs as needsEngine } from "../helper/radosgw.ts";
import { hangMs } from "../helper/time.ts";

const folder = join(import.meta.dir, "../../src/cli/help");
const pages = readdirSync(folder)
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ page: name.replace(".md", ""), path: join(folder, name) }));
const isUpdate = process.env["UPDATE_PAGES"] === "1";

const nameSpaces = [
  ...["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"],
  ...(process.getuid?.() === 0 ? [] : ["--map-root-user"]),
  "--",
];

/** Programs that the commands of all pages need, or those of one. */
const programs: Record<string, readonly string[]> = {
  "": ["unshare", "ip", "mount", "bash"],
  article: ["/usr/bin/python3"],
  bandwidth: ["ffmpeg"],
  cameras: ["ffmpeg"],
  edge: ["ffmpeg"],
  "many-machines": ["socat"],
  mcap: ["curl"],
  view: ["curl"],
  pipes: ["g++"],
  programs: ["ffmpeg"],
  receive: ["sqlite3"],
  video: ["ffmpeg"],
};

function needsOf(page: string): string {
  if (process.platform !== "linux") return "skipped: needs Linux: ";
  const needed = [...programs[""]!, ...(programs[page] ?? [])];
  const missing = needed.find((name) => Bun.which(name) === null);
  if (missing !== undefined) return `skipped: needs ${basename(missing)}: `;
  if (Bun.spawnSync([...nameSpaces, "true"]).exitCode !== 0) return "skipped: needs unshare: ";
  if (page === "many-machines" && needsEngine !== "") return needsEngine;
  if (page === "programs" && !hasOpenCV()) return "skipped: needs python3-opencv: ";
  return "";
}

function hasOpenCV(): boolean {
  try {
    return Bun.spawnSync(["/usr/bin/python3", "-c", "import cv2, numpy"]).exitCode === 0;
  } catch {
    return false;
  }
}

/** The README's section with several machines, as a page. `readme.test.ts` runs the others. */
function acrossMachines(): (typeof pages)[number] {
  const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
  const path = join(temporaryFolder(), "README.md");
  writeFileSync(path, /^## Across machines[^]*?(?=^## )/m.exec(readme)![0]);
  return { page: "README, across machines", path };
}

/** Runs a page in name spaces of its own. */
async function runPage(path: string): Promise<PageRun[]> {
  const sessionFolder = temporaryFolder();
  const session = join(import.meta.dir, "../helper/page-session.ts");
  const patience = isUpdate ? 5000 : hangMs;
  const child = Bun.spawn(
    [...nameSpaces, process.execPath, session, path, executable, sessionFolder, `${patience}`],
    { stdin: "ignore", stdout: "inherit", stderr: "inherit" },
  );
  adopt(child);
  expect(await child.exited).toBe(0);
  return JSON.parse(readFileSync(join(sessionFolder, "runs.json"), "utf8")) as PageRun[];
}

function transcript(text: string, output: readonly string[], after?: readonly string[]): string {
  return [`$ ${text}`, ...output, ...(after === undefined ? [] : ["^C", ...after])].join("\n");
}

function shownBy({ text, expected, afterStop }: PageCommand): string {
  return transcript(text, expected, afterStop);
}

/** What a command printed. Lines that are as the page shows them are given as it does. */
function printed({ command, output, afterStop, isAsShown }: PageRun): string {
  if (isAsShown) return shownBy(command);
  const closest = (line: string): string =>
    [...command.expected, ...(command.afterStop ?? [])].find(
      (shown) => shown !== "…" && isShown([line], [shown]),
    ) ?? line;
  return transcript(command.text, output.map(closest), afterStop?.map(closest));
}

/** Puts the output of commands that did not print what the page shows into the page. */
function update(path: string, runs: readonly PageRun[]): void {
  const lines = readFileSync(path, "utf8").split("\n");
  for (const { command, output, afterStop, isAsShown } of runs.toReversed()) {
    const [first, end] = command.lines;
    const shown = afterStop === undefined ? output : [...output, "^C", ...afterStop];
    // Longer lines do not fit into a terminal of 80 columns.
    const cut = shown.map((line) => (line.length <= 78 ? line : `${line.slice(0, 75)}…`));
    if (!isAsShown) lines.splice(first, end - first, ...cut);
  }
  writeFileSync(path, lines.join("\n"));
}

describe("every command prints what the page shows:", () => {
  for (const { page, path } of [...pages, acrossMachines()]) {
    const needs = needsOf(page);
    const commands = pageSteps(readFileSync(path, "utf8")).filter(({ type }) => type === "command");
    if (commands.length === 0) continue;
    test.skipIf(needs !== "").concurrent(`${needs}${page}`, async () => {
      const runs = await runPage(path);
      if (isUpdate) update(path, runs);
      expect(runs.map(printed)).toEqual(runs.map(({ command }) => shownBy(command)));
      expect(runs.length).toBe(commands.length);
    });
  }
});
