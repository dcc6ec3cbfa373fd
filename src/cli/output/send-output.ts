/** Output of `frames send`: progress, messages, and the summary. */
import { FramesError, systemCode } from "../../errors.ts";
import { monotonicNow } from "../../common/clock.ts";
import type { SourceReport } from "../../client/undelivered.ts";
import type { SendEvent, SendSummary } from "../../client/send.ts";
import type { SourceProgress, Undelivered } from "../../protocol/progress.ts";
import type { Arguments } from "../args/arguments.ts";
import { ConnectionMessages } from "./connection-messages.ts";
import { ProgressDisplay } from "./progress.ts";
import { droppedLine, sourceReportJson, sourceReportLine } from "./source-report.ts";
import { print, printJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "../args/units.ts";

/** Undelivered frames, skipped files, frames not removed, times: this many of each are listed. */
const maxListed = 20;

export class SendOutput {
  readonly #terminal: Terminal;
  readonly #isJson: boolean;
  /** Whether frames that are settled or not delivered are written as JSON. */
  readonly #hasReceipts: boolean;
  readonly #isQuiet: boolean;
  readonly #isInsecure: boolean;
  readonly #isArticle: boolean;
  readonly #progress: ProgressDisplay | undefined;
  readonly #messages: ConnectionMessages;
  #skipped = 0;
  #undelivered = 0;
  #notRemoved = 0;
  /** Frames not removed, by reason. */
  readonly #notRemovedReasons = new Map<string, number>();
  #clamped = 0;
  #kept = 0;
  #stream = "";
  #address = "";
  #sources: readonly SourceProgress[] = [];
  #sourceReports: (() => readonly SourceReport[]) | undefined;

  constructor(args: Arguments, terminal: Terminal) {
    this.#terminal = terminal;
    this.#isJson = args.isOn("json");
    this.#hasReceipts = this.#isJson || args.isOn("receipts");
    this.#isQuiet = args.isOn("quiet");
    this.#isInsecure = args.isOn("insecure");
    this.#isArticle = args.isOn("article");
    const showsProgress = !this.#isQuiet && !args.isOn("verbose");
    this.#progress = showsProgress ? new ProgressDisplay(terminal, monotonicNow) : undefined;
    this.#messages = new ConnectionMessages(terminal, this.#progress, {
      json: this.#isJson,
      quiet: this.#isQuiet,
    });
  }

  onEvent(event: SendEvent): void {
    switch (event.type) {
      case "found":
        this.#stream = event.stream;
        return;
      case "skipped":
        if (this.#isJson) printJson(this.#terminal, { type: "skipped", ...event.skipped });
        if (++this.#skipped <= maxListed) {
          this.#messages.print(`Not sent: ${event.skipped.path} is ${event.skipped.why}`);
        }
        return;
      case "settled":
        return printJson(this.#terminal, { ...event });
      case "kept":
        if (this.#isJson) printJson(this.#terminal, { type: "kept", path: event.path });
        if (++this.#kept > maxListed) return;
        return this.#messages.warn(
          `Kept a copy as ${event.path}: another file may take its name; rename the copy to send it`,
        );
      case "time-clamped":
        if (this.#isJson) printJson(this.#terminal, { type: "time-clamped", path: event.path });
        if (++this.#clamped > maxListed) return;
        return this.#messages.warn(
          `The time of ${event.path} is outside 1677 to 2262: it is sent with the nearest time in that range`,
        );
      case "connected":
        this.#progress?.setWaiting(undefined);
        this.#address = event.address;
        if (!this.#messages.isDisconnected) {
          const how = this.#isInsecure ? ", without key or encryption (--insecure)" : "";
          this.#messages.print(`Sending ${this.#stream} to ${event.address}${how}`);
        }
        return;
      case "waiting":
        return this.#messages.onWaiting(event.reason, event.milliseconds, this.#confirmedFrames());
      case "progress":
        this.#sources = event.sources;
        this.#sourceReports = event.report;
        this.#messages.onProgress(this.#address, this.#confirmedFrames());
        return this.#progress?.update(event.sources);
      case "undelivered":
        return this.#onUndelivered(event.report);
      case "media": {
        const { source, description } = event;
        if (this.#isJson) printJson(this.#terminal, { type: "media", source, description });
        return this.#messages.print(`${source}: ${description}`);
      }
      case "notice": {
        const { source, message } = event;
        if (this.#isJson) printJson(this.#terminal, { type: "notice", source, message });
        return this.#messages.warn(`${source}: ${message}`);
      }
      case "retry": {
        const { code, message } = event.error;
        if (this.#isJson) printJson(this.#terminal, { type: "retry", error: code, message });
        return this.#messages.warn(message);
      }
      case "not-removed": {
        const { source, frame, error } = event.notRemoved;
        if (this.#isJson) {
          const { code, message } = error;
          const { name, sequence } = frame;
          printJson(this.#terminal, {
            type: "not-removed",
            source,
            sequence,
            name,
            error: code,
            message,
          });
        }
        const count = (this.#notRemovedReasons.get(error.message) ?? 0) + 1;
        this.#notRemovedReasons.set(error.message, count);
        // A read-only file system keeps all of them, so one line tells it.
        if (count > 1 && systemCode(error.cause) === "EROFS") return;
        if (++this.#notRemoved > maxListed) return;
        return this.#messages.warn(`Not removed: ${source}/${frame.name}: ${error.message}`);
      }
    }
  }

  /** Frames that the server has; refused and skipped ones are settled too, but do not count. */
  #confirmedFrames(): number {
    return this.#sources.reduce(
      (sum, { settled, refused, conflictsSkipped }) => sum + settled - refused - conflictsSkipped,
      0,
    );
  }

  #onUndelivered({ source, first, last, what, error }: Undelivered): void {
    if (this.#hasReceipts) {
      const { code, message } = error;
      printJson(this.#terminal, {
        type: "undelivered",
        source,
        first,
        last,
        what,
        error: code,
        message,
      });
    }
    // A full queue may drop many frames, so only the report lists them.
    if (error.code === "dropped") return;
    if (++this.#undelivered > maxListed) return;
    const which = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
    // An unreadable folder has no sequence numbers: `first` is 0.
    const where = first === 0 ? what : `${source}/${what} (${which})`;
    this.#messages.warn(`Not delivered: ${where}: ${error.message}`);
  }

  onStopping(): void {
    this.#progress?.onStopping();
    this.#messages.print("Stopping after the frames in flight; Ctrl-C again stops at once");
  }

  /** Prints a report on each source, on request (SIGUSR1). */
  printReport(): void {
    for (const report of this.#sourceReports?.() ?? []) {
      if (this.#isJson) printJson(this.#terminal, { type: "report", ...sourceReportJson(report) });
      else this.#messages.warn(sourceReportLine(report));
    }
  }

  printSummary(summary: SendSummary): void {
    this.#sources = summary.sources.map(({ progress }) => progress);
    this.#messages.onProgress(this.#address, this.#confirmedFrames());
    this.#progress?.stop();
    const skipped = this.#skipped - maxListed;
    if (skipped > 0) this.#messages.print(`and ${skipped} more links and special files`);
    const clamped = this.#clamped - maxListed;
    if (clamped > 0) this.#messages.print(`and ${clamped} more files with such a time`);
    const kept = this.#kept - maxListed;
    if (kept > 0) this.#messages.print(`and ${kept} more copies`);
    const undelivered = this.#undelivered - maxListed;
    if (undelivered > 0) print(this.#terminal, `and ${undelivered} more: --json lists them all`);
    if (this.#isJson) this.#printJsonSummary(summary);
    if (this.#isQuiet) return;
    for (const line of summaryLines(summary, this.#notRemovedReasons)) print(this.#terminal, line);
  }

  #printJsonSummary(summary: SendSummary): void {
    const { stream, frames, bytes, present, removedAtServer, conflictsSkipped, refused, lost } =
      summary;
    const { removed, notRemoved, retries, seconds, store, address } = summary;
    printJson(this.#terminal, {
      type: "summary",
      stream,
      frames,
      bytes,
      present,
      removedAtServer,
      conflictsSkipped,
      refused,
      lost,
      dropped: summary.dropped,
      removed,
      notRemoved,
      retries,
      seconds,
      store,
      address,
      interrupted: summary.interrupted,
      reasons: summary.reasons,
      sources: summary.sources.map(sourceReportJson),
    });
  }

  /** Ends the output after a failure; returns the error with the number of confirmed frames. */
  toError(error: unknown): unknown {
    this.#progress?.stop();
    const confirmed = this.#confirmedFrames();
    const reports = this.#sourceReports?.() ?? [];
    if (!this.#isQuiet && error instanceof FramesError) {
      // Live frames cannot be sent again, so say which ones were delivered.
      const live = reports.filter(({ progress }) => progress.delays !== undefined);
      for (const report of live) print(this.#terminal, sourceReportLine(report));
    }
    if (this.#isJson) {
      const code = error instanceof FramesError ? error.code : "internal";
      const message = error instanceof Error ? error.message : String(error);
      const sources = reports.map(sourceReportJson);
      printJson(this.#terminal, { type: "error", error: code, message, confirmed, sources });
    }
    if (!(error instanceof FramesError) || this.#sources.length === 0) return error;
    if (error.code === "busy" || error.code === "usage") return error;
    const isKnown = this.#sources.every(({ total }) => total !== undefined);
    const total = this.#sources.reduce((sum, source) => sum + (source.total ?? 0), 0);
    const hint = this.#isArticle ? "sends all of them" : "completes it";
    const confirmedText = isKnown
      ? `${confirmed} of ${formatCount(total, "frame")} confirmed; the same command again ${hint}`
      : `${formatCount(confirmed, "frame")} confirmed`;
    return new FramesError(error.code, `${error.message} (${confirmedText})`, {
      cause: error.cause,
    });
  }
}

/** @param notRemovedReasons frames that `--move` left here, by reason */
function summaryLines(
  summary: SendSummary,
  notRemovedReasons: ReadonlyMap<string, number>,
): string[] {
  const { frames, bytes, present, seconds, stream, sources, reasons } = summary;
  const failures = Object.entries(reasons).map(([reason, count]) => `${count} ${reason}`);
  const failed = failures.length > 0 ? [`Not delivered: ${failures.join(", ")}`] : [];
  if (sources.length === 0) {
    const filteredText =
      summary.filteredOut > 0 ? ` (${formatCount(summary.filteredOut, "file")} left out)` : "";
    return [`No frames found: nothing to send${filteredText}`, ...failed];
  }
  const newFrames = frames - present;
  const removedText =
    summary.removedAtServer > 0 ? `, ${summary.removedAtServer} moved away since` : "";
  const presentText = `${formatCount(present, "frame")} there already`;
  const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : "";
  const time = `in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
  const throughput = `${formatBytes(bytes)} ${time}${rate}`;
  const lines = [
    present === 0
      ? newFrames > 0 || removedText === ""
        ? `${formatCount(frames, "frame")} delivered${removedText}: ${throughput}`
        : `Nothing new: ${formatCount(summary.removedAtServer, "frame")} moved away since, ${time}`
      : newFrames > 0
        ? `${formatCount(newFrames, "frame")} delivered, ${present} there already${removedText}: ${throughput}`
        : `Nothing new: ${presentText}${removedText}, ${time}`,
    ...failed,
  ];
  if (summary.removedAtServer > 0) lines.push("To send again what was moved away: add --again");
  if (summary.conflictsSkipped > 0) {
    const names = summary.conflictsSkipped === 1 ? "its name is" : "their names are";
    lines.push(`${formatCount(summary.conflictsSkipped, "frame")} left out: ${names} taken`);
  }
  const live = sources.filter(({ progress }) => progress.delays !== undefined);
  lines.push(...live.map(sourceReportLine));
  if (summary.dropped > 0) lines.push(droppedLine(summary.dropped));
  if (summary.removed > 0) lines.push(`${formatCount(summary.removed, "frame")} removed here`);
  if (summary.notRemoved > 0) {
    const reasons = [...notRemovedReasons].map(([reason, count]) =>
      count === summary.notRemoved ? reason : `${reason} (${count})`,
    );
    const frames = formatCount(summary.notRemoved, "frame");
    lines.push(`${frames} not removed: ${reasons.slice(0, 3).join(", ")}; --json lists all`);
  }
  if (reasons.conflict !== undefined) {
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
