/** `frames ls`: what a store on this machine holds. */
import { bucketPlace, isBucket } from "../store/bucket-place.ts";
import { FramesError } from "../errors.ts";
import { resolve } from "node:path";
import { BucketReader } from "../store/bucket-reader.ts";
import { type SourceSummary, summarize } from "../store/summary.ts";
import type { Arguments } from "./arguments.ts";
import { listGaps } from "./gaps.ts";
import { printable, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatTime } from "./units.ts";

/** @throws {FramesError} `missing` if there is no store, or no such stream in it */
export async function ls(given: Arguments, terminal: Terminal): Promise<number> {
  const place = given.text("dir") ?? "received";
  if (!isBucket(place)) {
    const directory = resolve(place);
    return list(directory, directory, given, terminal);
  }
  const reader = await BucketReader.open(bucketPlace(place, process.env));
  try {
    return list(place, reader.mirror.folder, given, terminal);
  } finally {
    reader.close();
  }
}

/** @param directory has the journal of the store at `place` */
function list(place: string, directory: string, given: Arguments, terminal: Terminal): number {
  const [stream, ...rest] = given.positionals;
  if (rest.length > 0) throw new FramesError("usage", "Cannot list more than one stream at a time");
  const showsGaps = given.isOn("gaps");
  if (showsGaps && stream === undefined) {
    throw new FramesError("usage", "Cannot show gaps: name the stream (frames ls STREAM --gaps)");
  }
  const found = summarize(directory, stream);
  if (stream !== undefined && found.length === 0) {
    throw new FramesError("missing", `Cannot list ${stream}: ${place} holds no such stream`);
  }
  const json = given.isOn("json");
  if (showsGaps) {
    listGaps(directory, stream!, json, terminal);
    return 0;
  }
  if (json) {
    for (const summary of found) sayJson(terminal, { type: "source", ...summary });
    return 0;
  }
  if (found.length === 0) {
    terminal.err(`${printable(place)} holds no frames yet\n`);
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
