/** Output of `frames receive`: progress, messages, and the summary. */
import { resolve } from "node:path";
import { FramesError } from "../../errors.ts";
import type { SourceReport } from "../../client/undelivered.ts";
import { monotonicNow } from "../../common/clock.ts";
import type { ReceiveEvent, ReceiveSummary } from "../../client/receive.ts";
import type { SourceProgress, Undelivered } from "../../protocol/progress.ts";
import type { Arguments } from "../args/arguments.ts";
import { ConnectionMessages } from "./connection-messages.ts";
import { ProgressDisplay } from "./progress.ts";
import { sourceReportJson, sourceReportLine } from "./source-report.ts";
import { print, printJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "../args/units.ts";

/** Undelivered frames listed; the rest is counted. */
const maxListed = 20;

export class ReceiveOutput {
  readonly #terminal: Terminal;
  readonly #isJson: boolean;
  readonly #isQuiet: boolean;
  readonly #isInsecure: boolean;
  readonly #stream: string;
  /** Undefined if frames are written to standard output. */
  readonly #directory: string | undefined;
  /** Whether frames go into an MCAP file or a video, which an interrupted run does not continue. */
  readonly #isFile: boolean;
  readonly #progress: ProgressDisplay | undefined;
  readonly #messages: ConnectionMessages;
  #undelivered = 0;
  #address = "";
  #sources: readonly SourceProgress[] = [];
  #sourceReports: (() => readonly SourceReport[]) | undefined;

  constructor(
    args: Arguments,
    terminal: Terminal,
    stream: string,
    directory: string | undefined,
    isFile: boolean,
  ) {
    this.#terminal = terminal;
    this.#isJson = args.isOn("json");
    this.#isQuiet = args.isOn("quiet");
    this.#isInsecure = args.isOn("insecure");
    this.#stream = stream;
    this.#directory = directory === undefined ? undefined : resolve(directory);
    this.#isFile = isFile;
    const showsProgress = !this.#isQuiet && !args.isOn("verbose");
    this.#progress = showsProgress ? new ProgressDisplay(terminal, monotonicNow) : undefined;
    this.#messages = new ConnectionMessages(terminal, this.#progress, {
      json: this.#isJson,
      quiet: this.#isQuiet,
    });
  }

  onEvent(event: ReceiveEvent): void {
    switch (event.type) {
      case "connected": {
        this.#progress?.setWaiting(undefined);
        this.#address = event.address;
        if (this.#messages.isDisconnected) return;
        const how = this.#isInsecure ? ", without key or encryption (--insecure)" : "";
        return this.#messages.print(`Receiving ${this.#stream} from ${event.address}${how}`);
      }
      case "waiting":
        return this.#messages.onWaiting(event.reason, event.milliseconds, this.#receivedFrames());
      case "file": {
        const path = resolve(event.path);
        if (this.#isJson) printJson(this.#terminal, { type: "file", path });
        return this.#messages.print(`Written to ${path}`);
      }
      case "undecodable": {
        const count = formatCount(event.frames, "frame");
        if (this.#isJson) printJson(this.#terminal, event);
        return this.#messages.warn(`${count} left out: no key frame came before them`);
      }
      case "maybe-damaged": {
        const count = formatCount(event.frames, "frame");
        if (this.#isJson) printJson(this.#terminal, event);
        return this.#messages.warn(`${count} possibly damaged: only a recovery point came before`);
      }
      case "progress":
        this.#sources = event.sources;
        this.#sourceReports = event.report;
        this.#messages.onProgress(this.#address, this.#receivedFrames());
        return this.#progress?.update(event.sources);
      case "undelivered":
        return this.#onUndelivered(event.report);
    }
  }

  #receivedFrames(): number {
    return this.#sources.reduce((sum, { settled, refused }) => sum + settled - refused, 0);
  }

  #onUndelivered({ source, first, last, what, error }: Undelivered): void {
    const { code, message } = error;
    if (this.#isJson) {
      const range = { source, first, last, what };
      printJson(this.#terminal, { type: "undelivered", ...range, error: code, message });
    }
    // `--latest` may drop many frames, so only the report lists them.
    if (code === "dropped" || ++this.#undelivered > maxListed) return;
    const which = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
    const where = what === "" ? source : `${source}/${what}`;
    this.#messages.warn(`Not received: ${where} (${which}): ${message}`);
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

  /** Ends the output without a summary. */
  discard(): void {
    this.#progress?.discard();
  }

  printSummary(summary: ReceiveSummary): void {
    this.#sources = summary.sources.map(({ progress }) => progress);
    this.#messages.onProgress(this.#address, this.#receivedFrames());
    this.#progress?.stop();
    const unlisted = this.#undelivered - maxListed;
    if (unlisted > 0) print(this.#terminal, `and ${unlisted} more: --json lists them all`);
    if (this.#isJson) this.#printJsonSummary(summary);
    if (!this.#isQuiet) for (const line of this.#summaryLines(summary)) print(this.#terminal, line);
  }

  #printJsonSummary(summary: ReceiveSummary): void {
    const { undelivered: _, sources, ...rest } = summary;
    const directory = this.#directory;
    printJson(this.#terminal, {
      type: "summary",
      ...rest,
      directory,
      sources: sources.map(sourceReportJson),
    });
  }

  #summaryLines(summary: ReceiveSummary): string[] {
    const { frames, bytes, present, seconds, reasons, dropped, stream, store, address } = summary;
    const newFrames = frames - present;
    const time = `in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
    const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : "";
    const presentText = present > 0 ? `, ${present} here already` : "";
    const lines =
      newFrames > 0
        ? [
            `${formatCount(newFrames, "frame")} received${presentText}: ${formatBytes(bytes)} ${time}${rate}`,
          ]
        : [`Nothing new${presentText}, ${time}`];
    const failures = Object.entries(reasons).map(([reason, count]) => `${count} ${reason}`);
    if (failures.length > 0) lines.push(`Not received: ${failures.join(", ")}`);
    if (dropped > 0) lines.push(`${formatCount(dropped, "frame")} dropped because of --latest`);
    if (reasons.conflict !== undefined) {
      lines.push("Other files here have these names: to get both, receive into another directory");
    }
    if (summary.interrupted && this.#isFile) {
      lines.push("Interrupted: the file is incomplete; the same command begins it again");
    } else if (summary.interrupted) lines.push("Interrupted: the same command again completes it");
    if (this.#directory !== undefined && frames > 0) {
      lines.push(`Kept in ${this.#directory}, a copy of ${store}/${stream} on ${address}`);
    }
    return lines;
  }

  /** Ends the output after a failure; returns the error with the number of received frames. */
  toError(error: unknown): unknown {
    this.#progress?.stop();
    const received = this.#receivedFrames();
    if (this.#isJson) {
      const code = error instanceof FramesError ? error.code : "internal";
      const message = error instanceof Error ? error.message : String(error);
      printJson(this.#terminal, { type: "error", error: code, message, received });
    }
    if (!(error instanceof FramesError) || this.#sources.length === 0) return error;
    if (error.code === "usage" || error.code === "missing") return error;
    const hint = this.#directory === undefined ? "" : "; the same command again completes it";
    const message = `${error.message} (${formatCount(received, "frame")} received${hint})`;
    return new FramesError(error.code, message, { cause: error.cause });
  }
}
