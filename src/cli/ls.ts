/** `frames ls`: what a store on this machine holds. */
import { FramesError } from "../errors.ts";
import { resolve } from "node:path";
import { type SourceSummary, summarize } from "../store/summary.ts";
import type { Arguments } from "./arguments.ts";
import { printable, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatTime } from "./units.ts";

/** @throws {FramesError} `missing` if there is no store, or no such stream in it */
export function ls(given: Arguments, terminal: Terminal): number {
  const directory = resolve(given.text("dir") ?? "received");
  const [stream, ...rest] = given.positionals;
  if (rest.length > 0) throw new FramesError("usage", "Cannot list more than one stream at a time");
  const found = summarize(directory, stream);
  if (stream !== undefined && found.length === 0) {
    throw new FramesError("missing", `Cannot list ${stream}: ${directory} holds no such stream`);
  }
  if (given.isOn("json")) {
    for (const summary of found) sayJson(terminal, { type: "source", ...summary });
    return 0;
  }
  if (found.length === 0) {
    terminal.err(`${printable(directory)} holds no frames yet\n`);
    return 0;
  }
  terminal.out(table([header, ...found.map(cells)]));
  return 0;
}

const header = ["STREAM", "SOURCE", "FRAMES", "SIZE", "LOST", "FIRST CAPTURED", "LAST CAPTURED"];
const rightAligned = new Set([2, 3, 4]);

function cells(summary: SourceSummary): string[] {
  const { stream, source, frames, bytes, lost, firstCaptured, lastCaptured } = summary;
  return [
    printable(stream),
    printable(source),
    String(frames),
    formatBytes(bytes),
    String(lost),
    firstCaptured === null ? "" : formatTime(firstCaptured),
    lastCaptured === null ? "" : formatTime(lastCaptured),
  ];
}

function table(rows: string[][]): string {
  const widths = header.map((_, column) =>
    Math.max(...rows.map((row) => Bun.stringWidth(row[column]!))),
  );
  const line = (row: string[]) =>
    row
      .map((cell, column) => {
        const space = " ".repeat(widths[column]! - Bun.stringWidth(cell));
        return rightAligned.has(column) ? space + cell : cell + space;
      })
      .join("  ")
      .trimEnd();
  return rows.map((row) => `${line(row)}\n`).join("");
}
