/** The lines that `frames send` and `frames receive` print at their end. */
import type { ReceiveSummary } from "../../client/receive.ts";
import type { SendSummary } from "../../client/send.ts";
import { formatBytes, formatCount } from "../args/units.ts";
import { droppedLine, sourceReportLine } from "./source-report.ts";

/** What a command receives, and into what. */
export interface ReceivingInto {
  readonly stream: string;
  /** Absolute path of the copy; undefined if frames go into a file or to standard output. */
  readonly directory: string | undefined;
  /** Whether frames go into an MCAP file or a video, which an interrupted run does not continue. */
  readonly isFile: boolean;
}

/** @param notRemovedReasons frames that `--move` left here, by reason */
export function sendLines(
  summary: SendSummary,
  notRemovedReasons: ReadonlyMap<string, number>,
): string[] {
  const { frames, present, removedAtServer, conflictsSkipped, stream, sources } = summary;
  const failures = failuresOf(summary);
  const failed = failures === "" ? [] : [`Not delivered: ${failures}`];
  if (sources.length === 0) {
    const filteredText =
      summary.filteredOut > 0 ? ` (${formatCount(summary.filteredOut, "file")} left out)` : "";
    return [`No frames found: nothing to send${filteredText}`, ...failed];
  }
  const newFrames = frames - present;
  const removedText = removedAtServer > 0 ? `, ${removedAtServer} moved away since` : "";
  const presentText = present > 0 ? `, ${present} there already` : "";
  const lines = [
    newFrames > 0 || present + removedAtServer === 0
      ? `${formatCount(newFrames, "frame")} delivered${presentText}${removedText}: ${throughput(summary)}`
      : present > 0
        ? `Nothing new: ${formatCount(present, "frame")} there already${removedText}, ${duration(summary)}`
        : `Nothing new: ${formatCount(removedAtServer, "frame")} moved away since, ${duration(summary)}`,
    ...failed,
  ];
  if (removedAtServer > 0) lines.push("To send again what was moved away: add --again");
  if (conflictsSkipped > 0) {
    const names = conflictsSkipped === 1 ? "its name is" : "their names are";
    lines.push(`${formatCount(conflictsSkipped, "frame")} left out: ${names} taken`);
  }
  const live = sources.filter(({ progress }) => progress.delays !== undefined);
  lines.push(...live.map(sourceReportLine));
  if (summary.dropped > 0) lines.push(droppedLine(summary.dropped));
  if (summary.removed > 0) lines.push(`${formatCount(summary.removed, "frame")} removed here`);
  if (summary.notRemoved > 0) {
    const reasons = [...notRemovedReasons].map(([reason, count]) =>
      count === summary.notRemoved ? reason : `${reason} (${count})`,
    );
    const left = formatCount(summary.notRemoved, "frame");
    lines.push(`${left} not removed: ${reasons.slice(0, 3).join(", ")}; --json lists all`);
  }
  if (summary.reasons.conflict !== undefined) {
    lines.push(
      "Other bytes are stored under these names. To keep both: add --stream NAME",
      "To store the new ones: add --on-conflict replace; to keep the old: --on-conflict skip",
    );
  }
  // The article's server reports neither its store's location nor which frames it has.
  const { store, address } = summary;
  const isArticle = store === "";
  const hint = isArticle ? "sends all of them" : "completes it";
  if (summary.interrupted) lines.push(`Interrupted: the same command again ${hint}`);
  if (frames > 0) {
    lines.push(isArticle ? `Read by ${address}` : `Stored in ${store}/${stream} on ${address}`);
  }
  return lines;
}

export function receiveLines(
  summary: ReceiveSummary,
  { directory, isFile }: ReceivingInto,
): string[] {
  const { frames, present, dropped, stream, store, address } = summary;
  const newFrames = frames - present;
  const presentText = present > 0 ? `, ${present} here already` : "";
  const lines = [
    newFrames > 0
      ? `${formatCount(newFrames, "frame")} received${presentText}: ${throughput(summary)}`
      : `Nothing new${presentText}, ${duration(summary)}`,
  ];
  const failures = failuresOf(summary);
  if (failures !== "") lines.push(`Not received: ${failures}`);
  if (dropped > 0) lines.push(`${formatCount(dropped, "frame")} dropped because of --latest`);
  if (summary.reasons.conflict !== undefined) {
    lines.push("Other files here have these names: to get both, receive into another directory");
  }
  if (summary.interrupted) {
    lines.push(
      isFile
        ? "Interrupted: the file is incomplete; the same command begins it again"
        : "Interrupted: the same command again completes it",
    );
  }
  if (directory !== undefined && frames > 0) {
    lines.push(`Kept in ${directory}, a copy of ${store}/${stream} on ${address}`);
  }
  return lines;
}

/** Counts of frames that were not delivered, by reason. */
function failuresOf({ reasons }: Pick<SendSummary, "reasons">): string {
  return Object.entries(reasons)
    .map(([reason, count]) => `${count} ${reason}`)
    .join(", ");
}

function duration({ seconds }: Pick<SendSummary, "seconds">): string {
  return `in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
}

function throughput(summary: Pick<SendSummary, "bytes" | "seconds">): string {
  const { bytes, seconds } = summary;
  const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : "";
  return `${formatBytes(bytes)} ${duration(summary)}${rate}`;
}
