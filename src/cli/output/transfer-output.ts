/** Output of `frames send` and `frames receive`: progress, messages, the summary and the error. */
import { resolve } from "node:path";
import type { ReceiveSummary } from "../../client/receive.ts";
import type { ReceiveEvent, ReceiveOptions } from "../../client/receive-options.ts";
import type { SendSummary } from "../../client/send.ts";
import type { SendEvent } from "../../client/send-event.ts";
import type { SendOptions } from "../../client/send-options.ts";
import type { SourceReport } from "../../client/undelivered.ts";
import { monotonicNow } from "../../common/clock.ts";
import { type ErrorName, FramesError, systemCode } from "../../errors.ts";
import { type SourceProgress, totalProgress, type Undelivered } from "../../protocol/progress.ts";
import type { Arguments } from "../args/arguments.ts";
import { formatCount } from "../args/units.ts";
import { errorJson, type LogLevel } from "./log-format.ts";
import { ProgressDisplay } from "./progress.ts";
import { sourceReportJson, sourceReportLine } from "./source-report.ts";
import { print, printJson, type Terminal } from "./terminal.ts";
import { receiveLines, type ReceivingInto, sendLines } from "./transfer-summary.ts";

/** Reports of one kind that are listed; the rest is counted. */
const maxListed = 20;

/** What the end of a transfer says about reports that were not listed, by type of event. */
const unlistedTexts: Readonly<Record<string, (count: number) => string>> = {
  skipped: (count) => `and ${count} more links and special files`,
  "time-clamped": (count) => `and ${count} more files with such a time`,
  kept: (count) => `and ${count} more copies`,
};

/** Errors whose message says all: the transfer did not begin, or the same command fails again. */
const finalErrors: Readonly<Record<"send" | "receive", readonly ErrorName[]>> = {
  send: ["busy", "usage"],
  receive: ["missing", "usage"],
};

export class TransferOutput {
  readonly #terminal: Terminal;
  readonly #isJson: boolean;
  /** Whether frames that are settled or not delivered are written as JSON. */
  readonly #hasReceipts: boolean;
  readonly #isQuiet: boolean;
  readonly #isInsecure: boolean;
  readonly #isArticle: boolean;
  /** Options of a transfer that print its events and, with `--verbose`, its messages. */
  readonly callbacks: Pick<SendOptions & ReceiveOptions, "onEvent" | "onMessage">;
  /** Undefined if the transfer sends. */
  readonly #into: ReceivingInto | undefined;
  readonly #progress: ProgressDisplay | undefined;
  /** Reports so far, by type of event. */
  readonly #counts = new Map<string, number>();
  /** Frames not removed, by reason. */
  readonly #notRemovedReasons = new Map<string, number>();
  #stream: string;
  #address = "";
  #sources: readonly SourceProgress[] = [];
  #sourceReports: () => readonly SourceReport[] = () => [];
  /** Message of the last connection error; cleared when a later connection confirms a frame. */
  #lastReason: string | undefined;
  #confirmedAtBreak = 0;

  /** @param into of a transfer that receives; undefined for one that sends */
  constructor(args: Arguments, terminal: Terminal, into?: ReceivingInto) {
    this.#terminal = terminal;
    this.#isJson = args.isOn("json");
    this.#hasReceipts = this.#isJson || args.isOn("receipts");
    this.#isQuiet = args.isOn("quiet");
    this.#isInsecure = args.isOn("insecure");
    this.#isArticle = args.isOn("article");
    this.#into = into;
    this.#stream = into?.stream ?? "";
    const isVerbose = args.isOn("verbose");
    this.callbacks = {
      onEvent: (event) => this.onEvent(event),
      ...(isVerbose
        ? { onMessage: (direction, line) => print(terminal, `${direction} ${line}`) }
        : {}),
    };
    const showsProgress = !this.#isQuiet && !isVerbose;
    this.#progress = showsProgress ? new ProgressDisplay(terminal, monotonicNow) : undefined;
  }

  onEvent(event: SendEvent | ReceiveEvent): void {
    switch (event.type) {
      case "found":
        this.#stream = event.stream;
        return;
      case "connected":
        return this.#onConnected(event.address);
      case "waiting":
        return this.#onWaiting(event.reason, event.milliseconds);
      case "progress":
        this.#sourceReports = event.report;
        this.#onProgress(event.sources);
        return this.#progress?.update(event.sources);
      case "undelivered":
        return this.#onUndelivered(event.report);
      case "settled":
        return printJson(this.#terminal, { ...event });
      case "skipped": {
        const { skipped } = event;
        this.#printJson({ type: "skipped", ...skipped });
        if (this.#isListed("skipped")) this.#print(`Not sent: ${skipped.path} is ${skipped.why}`);
        return;
      }
      case "kept":
        this.#printJson({ ...event });
        if (!this.#isListed("kept")) return;
        return this.#warn(
          `Kept a copy as ${event.path}: another file may take its name; rename the copy to send it`,
        );
      case "time-clamped":
        this.#printJson({ ...event });
        if (!this.#isListed("time-clamped")) return;
        return this.#warn(
          `The time of ${event.path} is outside 1677 to 2262: it is sent with the nearest time in that range`,
        );
      case "media":
        this.#printJson({ ...event });
        return this.#print(`${event.source}: ${event.description}`);
      case "notice":
        this.#printJson({ ...event });
        return this.#warn(`${event.source}: ${event.message}`);
      case "retry":
        this.#printJson({ type: "retry", ...errorJson(event.error) });
        return this.#warn(event.error.message);
      case "not-removed": {
        const { source, frame, error } = event.notRemoved;
        const { name, sequence } = frame;
        this.#printJson({ type: "not-removed", source, sequence, name, ...errorJson(error) });
        const count = (this.#notRemovedReasons.get(error.message) ?? 0) + 1;
        this.#notRemovedReasons.set(error.message, count);
        // A read-only file system keeps all of them, so one line tells it.
        if (count > 1 && systemCode(error.cause) === "EROFS") return;
        if (!this.#isListed("not-removed")) return;
        return this.#warn(`Not removed: ${source}/${name}: ${error.message}`);
      }
      case "file": {
        const path = resolve(event.path);
        this.#printJson({ type: "file", path });
        return this.#print(`Written to ${path}`);
      }
      case "undecodable":
        this.#printJson({ ...event });
        return this.#warn(
          `${formatCount(event.frames, "frame")} left out: no key frame came before them`,
        );
      case "maybe-damaged":
        this.#printJson({ ...event });
        return this.#warn(
          `${formatCount(event.frames, "frame")} possibly damaged: only a recovery point came before`,
        );
    }
  }

  #print(text: string, level?: LogLevel): void {
    if (this.#isQuiet) return;
    if (this.#progress !== undefined) this.#progress.print(text, level);
    else print(this.#terminal, text, level);
  }

  /** Prints a warning, also with `--quiet`. */
  #warn(text: string): void {
    if (this.#isQuiet) print(this.#terminal, text, "warning");
    else this.#print(text, "warning");
  }

  #printJson(value: Record<string, unknown>): void {
    if (this.#isJson) printJson(this.#terminal, value);
  }

  /** Counts a report, and returns whether to list it. */
  #isListed(type: string): boolean {
    const count = (this.#counts.get(type) ?? 0) + 1;
    this.#counts.set(type, count);
    return count <= maxListed;
  }

  #unlisted(type: string): number {
    return Math.max(0, (this.#counts.get(type) ?? 0) - maxListed);
  }

  /** Frames that the receiving side has; refused and skipped ones are settled, but do not count. */
  get #confirmedFrames(): number {
    const { settled, refused, conflictsSkipped } = totalProgress(this.#sources);
    return settled - refused - conflictsSkipped;
  }

  #onConnected(address: string): void {
    this.#progress?.setWaiting(undefined);
    this.#address = address;
    if (this.#lastReason !== undefined) return;
    const how = this.#isInsecure ? ", without key or encryption (--insecure)" : "";
    this.#print(
      this.#into === undefined
        ? `Sending ${this.#stream} to ${address}${how}`
        : `Receiving ${this.#stream} from ${address}${how}`,
    );
  }

  /** Reports a lost connection. A terminal shows the pause; a reason is printed once. */
  #onWaiting(reason: FramesError, milliseconds: number): void {
    this.#printJson({ type: "waiting", ...errorJson(reason), milliseconds });
    const isNew = reason.message !== this.#lastReason;
    this.#lastReason = reason.message;
    this.#confirmedAtBreak = this.#confirmedFrames;
    this.#progress?.setWaiting(milliseconds);
    const pause = `trying again in ${Math.max(1, Math.round(milliseconds / 1000))} s`;
    if (isNew) this.#warn(`${reason.message}; ${pause}`);
  }

  /** Reports a new connection once it confirms a frame, because it may be refused before. */
  #onProgress(sources: readonly SourceProgress[]): void {
    this.#sources = sources;
    if (this.#lastReason === undefined || this.#confirmedFrames === this.#confirmedAtBreak) return;
    this.#lastReason = undefined;
    this.#print(`Connected to ${this.#address} again`);
  }

  #onUndelivered({ source, first, last, what, error }: Undelivered): void {
    if (this.#hasReceipts) {
      const range = { source, first, last, what };
      printJson(this.#terminal, { type: "undelivered", ...range, ...errorJson(error) });
    }
    // A full queue may drop many frames, so only the report lists them.
    if (error.code === "dropped" || !this.#isListed("undelivered")) return;
    const which = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
    const path = what === "" ? source : `${source}/${what}`;
    // An unreadable folder has no sequence numbers: `first` is 0.
    const where = first === 0 ? what : `${path} (${which})`;
    this.#warn(
      this.#into === undefined
        ? `Not delivered: ${where}: ${error.message}`
        : `Not received: ${where}: ${error.message}`,
    );
  }

  onStopping(): void {
    this.#progress?.onStopping();
    this.#print("Stopping after the frames in flight; Ctrl-C again stops at once");
  }

  /** Prints a report on each source, on request (SIGUSR1). */
  printReport(): void {
    for (const report of this.#sourceReports()) {
      if (this.#isJson) this.#printJson({ type: "report", ...sourceReportJson(report) });
      else this.#warn(sourceReportLine(report));
    }
  }

  /** Ends the output without a summary. */
  discard(): void {
    this.#progress?.discard();
  }

  printSummary(summary: SendSummary | ReceiveSummary): void {
    this.#onProgress(summary.sources.map(({ progress }) => progress));
    this.#progress?.stop();
    for (const [type, text] of Object.entries(unlistedTexts)) {
      const count = this.#unlisted(type);
      if (count > 0) this.#print(text(count));
    }
    const undelivered = this.#unlisted("undelivered");
    if (undelivered > 0) print(this.#terminal, `and ${undelivered} more: --json lists them all`);
    if (this.#isJson) {
      const sources = summary.sources.map(sourceReportJson);
      const omitted = { undelivered: undefined, filteredOut: undefined };
      const directory = this.#into?.directory;
      this.#printJson({ type: "summary", ...summary, ...omitted, directory, sources });
    }
    if (this.#isQuiet) return;
    const lines =
      "removedAtServer" in summary
        ? sendLines(summary, this.#notRemovedReasons)
        : receiveLines(summary, this.#into!);
    for (const line of lines) print(this.#terminal, line);
  }

  /** Ends the output after a failure; returns the error with the number of confirmed frames. */
  toError(error: unknown): unknown {
    this.#progress?.stop();
    const isSending = this.#into === undefined;
    const count = this.#confirmedFrames;
    const outcome = isSending ? "confirmed" : "received";
    const reports = isSending ? this.#sourceReports() : [];
    if (!this.#isQuiet && error instanceof FramesError) {
      // Live frames cannot be sent again, so say which ones were delivered.
      const live = reports.filter(({ progress }) => progress.delays !== undefined);
      for (const report of live) print(this.#terminal, sourceReportLine(report));
    }
    const sources = isSending ? reports.map(sourceReportJson) : undefined;
    this.#printJson({ type: "error", ...errorJson(error), [outcome]: count, sources });
    if (!(error instanceof FramesError) || this.#sources.length === 0) return error;
    if (finalErrors[isSending ? "send" : "receive"].includes(error.code)) return error;
    const { total } = totalProgress(this.#sources);
    const frames = formatCount(total ?? count, "frame");
    const isContinued = isSending ? total !== undefined : this.#into?.directory !== undefined;
    const hint = this.#isArticle ? "sends all of them" : "completes it";
    const again = isContinued ? `; the same command again ${hint}` : "";
    const known = total === undefined ? "" : `${count} of `;
    const message = `${error.message} (${known}${frames} ${outcome}${again})`;
    return new FramesError(error.code, message, { cause: error.cause });
  }
}
