/** `frames ls STREAM --gaps`: lists the missing sequence numbers of a stream, and why. */
import { type ErrorName, errors } from "../errors.ts";
import { type SequenceGap, readGaps } from "../store/journal/gaps.ts";
import { type TableColumn, TablePrinter } from "./output/table.ts";
import { print, printJson, type Terminal } from "./output/terminal.ts";
import { printable } from "../safe-text.ts";
import { formatTime } from "./args/units.ts";

/** Rows printed at a time, because a stream may have any number of gaps. */
const batchSize = 1000;

/** Characters shown of a session id; enough to distinguish sessions. */
const sessionIdLength = 8;

const neverArrived = "never arrived; the sender gave no reason";

const columns: readonly TableColumn[] = [
  { title: "SOURCE" },
  { title: "SESSION" },
  { title: "NUMBERS" },
  { title: "FRAMES", align: "right" },
  { title: "TIME" },
  { title: "REASON" },
];

/**
 * Lists the gaps of a stream.
 *
 * @param directory of the journal that has the stream
 * @param json prints one object per gap instead of a table
 */
export function listGaps(
  directory: string,
  stream: string,
  json: boolean,
  terminal: Terminal,
): void {
  const table = new TablePrinter(terminal, columns, { batchSize });
  let count = 0;
  for (const gap of readGaps(directory, stream)) {
    count++;
    if (json) {
      printJson(terminal, gapJson(stream, gap));
      continue;
    }
    table.addRow(gapCells(gap));
  }
  if (json) return;
  if (count === 0) {
    print(terminal, `${stream} has no gaps: no number is missing before the last`);
  } else {
    table.flush();
  }
}

function gapJson(stream: string, gap: SequenceGap): Record<string, unknown> {
  const { source, session, first, last, reason, at } = gap;
  const frames = last - first + 1;
  const cause = { reason: reason ?? "never-came", message: explain(gap) };
  return { type: "gap", stream, source, session, first, last, frames, ...cause, at };
}

function gapCells(gap: SequenceGap): string[] {
  const { source, session, first, last, at } = gap;
  return [
    printable(source),
    printable(session.slice(0, sessionIdLength)),
    first === last ? `${first}` : `${first}-${last}`,
    String(last - first + 1),
    formatTime(at),
    printable(explain(gap)),
  ];
}

function explain({ reason }: SequenceGap): string {
  if (reason === undefined) return neverArrived;
  return Object.hasOwn(errors, reason)
    ? `${reason}: ${errors[reason as ErrorName].sentence}`
    : reason;
}
