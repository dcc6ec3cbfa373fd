/** `frames ls`: lists the streams and sources of a store. */
import { parseBucketLocation, isBucketLocation } from "../store/bucket/location.ts";
import { FramesError, usageError } from "../errors.ts";
import { resolve } from "node:path";
import { BucketSnapshot } from "../store/bucket/bucket-snapshot.ts";
import { type SourceSummary, listSources } from "../store/journal/source-list.ts";
import type { Arguments } from "./args/arguments.ts";
import { listGaps } from "./gaps.ts";
import { type TableColumn, TablePrinter } from "./output/table.ts";
import { print, printJson, type Terminal } from "./output/terminal.ts";
import { printable } from "../safe-text.ts";
import { formatBytes, formatTime } from "./args/units.ts";

/** @throws {FramesError} `missing` if there is no store, or no such stream in it */
export async function lsCommand(args: Arguments, terminal: Terminal): Promise<number> {
  const location = args.text("dir") ?? "received";
  if (!isBucketLocation(location)) {
    const directory = resolve(location);
    return listStore(directory, directory, args, terminal);
  }
  const reader = await BucketSnapshot.open(parseBucketLocation(location, process.env));
  try {
    return listStore(location, reader.localIndex.folder, args, terminal);
  } finally {
    reader.close();
  }
}

/** @param directory of the journal of the store at `location` */
function listStore(
  location: string,
  directory: string,
  args: Arguments,
  terminal: Terminal,
): number {
  const [stream, ...rest] = args.positionals;
  if (rest.length > 0)
    throw usageError(`Cannot list more than one stream: write frames ls ${stream}`);
  const showsGaps = args.isOn("gaps");
  if (showsGaps && stream === undefined) {
    throw usageError("Cannot show gaps without a stream: write frames ls STREAM --gaps");
  }
  const summaries = listSources(directory, stream);
  if (stream !== undefined && summaries.length === 0) {
    throw new FramesError(
      "missing",
      `Cannot list ${stream}: ${location} has no such stream; frames ls without a name lists all`,
    );
  }
  const json = args.isOn("json");
  if (showsGaps) {
    listGaps(directory, stream!, json, terminal);
    return 0;
  }
  if (json) {
    for (const summary of summaries) printJson(terminal, { type: "source", ...summary });
    return 0;
  }
  if (summaries.length === 0) {
    print(terminal, `${location} has no frames yet`);
    return 0;
  }
  const table = new TablePrinter(terminal, columns);
  for (const summary of summaries) table.addRow(sourceCells(summary));
  table.flush();
  return 0;
}

const columns: readonly TableColumn[] = [
  { title: "STREAM" },
  { title: "SOURCE" },
  { title: "FRAMES", align: "right" },
  { title: "SIZE", align: "right" },
  { title: "LOST", align: "right" },
  { title: "FIRST CAPTURED" },
  { title: "LAST CAPTURED" },
];

function sourceCells(summary: SourceSummary): string[] {
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
