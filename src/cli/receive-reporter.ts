/** What the user is told while frames are received, and at the end. */
import { resolve } from "node:path";
import { FramesError } from "../errors.ts";
import type { SourceReport } from "../client/gaps.ts";
import { steadyNow } from "../net/connection.ts";
import type { ReceiveEvent, ReceiveSummary } from "../receive.ts";
import type { SourceProgress, Undelivered } from "../session/outlet.ts";
import type { Arguments } from "./arguments.ts";
import { Messages } from "./messages.ts";
import { Progress } from "./progress.ts";
import { reportJson, reportLine } from "./report.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "./units.ts";

/** Frames that did not come and are named one by one; the rest is counted. */
const mostNamed = 20;

export class ReceiveReporter {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #quiet: boolean;
  readonly #insecure: boolean;
  readonly #stream: string;
  /** Nothing if frames go to a pipe. */
  readonly #directory: string | undefined;
  readonly #progress: Progress | undefined;
  readonly #messages: Messages;
  #undelivered = 0;
  #address = "";
  #sources: readonly SourceProgress[] = [];
  #report: (() => readonly SourceReport[]) | undefined;

  constructor(given: Arguments, terminal: Terminal, stream: string, directory: string | undefined) {
    this.#terminal = terminal;
    this.#json = given.isOn("json");
    this.#quiet = given.isOn("quiet");
    this.#insecure = given.isOn("insecure");
    this.#stream = stream;
    this.#directory = directory === undefined ? undefined : resolve(directory);
    const shown = !this.#quiet && !given.isOn("verbose");
    this.#progress = shown ? new Progress(terminal, steadyNow) : undefined;
    this.#messages = new Messages(terminal, this.#progress, {
      json: this.#json,
      quiet: this.#quiet,
    });
  }

  event(event: ReceiveEvent): void {
    switch (event.type) {
      case "connected": {
        this.#progress?.waiting(undefined);
        this.#address = event.address;
        if (this.#messages.isBroken) return;
        const how = this.#insecure ? ", without key or encryption (--insecure)" : "";
        return this.#messages.say(`Receiving ${this.#stream} from ${event.address}${how}`);
      }
      case "waiting":
        return this.#messages.waiting(event.reason, event.milliseconds, this.#received());
      case "progress":
        this.#sources = event.sources;
        this.#report = event.report;
        this.#messages.goesOn(this.#address, this.#received());
        return this.#progress?.follow(event.sources);
      case "undelivered":
        return this.#missing(event.report);
    }
  }

  #received(): number {
    return this.#sources.reduce((sum, { settled, refused }) => sum + settled - refused, 0);
  }

  #missing({ source, first, last, what, error }: Undelivered): void {
    const { code, message } = error;
    if (this.#json) {
      const range = { source, first, last, what };
      sayJson(this.#terminal, { type: "undelivered", ...range, error: code, message });
    }
    // To be fresh many are dropped: the report has them all.
    if (code === "dropped" || ++this.#undelivered > mostNamed) return;
    const which = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
    const where = what === "" ? source : `${source}/${what}`;
    this.#messages.warn(`Not received: ${where} (${which}): ${message}`);
  }

  stopping(): void {
    this.#progress?.stopping();
    this.#messages.say("Stopping when the frame on its way has come: once more to stop at once");
  }

  /** Tells how each source fares, in between. */
  tell(): void {
    for (const report of this.#report?.() ?? []) {
      if (this.#json) sayJson(this.#terminal, { type: "report", ...reportJson(report) });
      else this.#messages.warn(reportLine(report));
    }
  }

  /** Says nothing more. */
  discard(): void {
    this.#progress?.discard();
  }

  finish(summary: ReceiveSummary): void {
    this.#sources = summary.sources.map(({ progress }) => progress);
    this.#messages.goesOn(this.#address, this.#received());
    this.#progress?.stop();
    const more = this.#undelivered - mostNamed;
    if (more > 0) say(this.#terminal, `and ${more} more: --json names them all`);
    if (this.#json) this.#finishJson(summary);
    if (!this.#quiet) for (const line of this.#lines(summary)) say(this.#terminal, line);
  }

  #finishJson(summary: ReceiveSummary): void {
    const { undelivered: _, sources, ...rest } = summary;
    const directory = this.#directory;
    sayJson(this.#terminal, {
      type: "summary",
      ...rest,
      directory,
      sources: sources.map(reportJson),
    });
  }

  #lines(summary: ReceiveSummary): string[] {
    const { frames, bytes, skipped, seconds, reasons, dropped, stream, store, address } = summary;
    const fresh = frames - skipped;
    const time = `in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
    const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : "";
    const there = skipped > 0 ? `, ${skipped} here already` : "";
    const lines =
      fresh > 0
        ? [`${formatCount(fresh, "frame")} received${there}: ${formatBytes(bytes)} ${time}${rate}`]
        : [`Nothing new${there}, ${time}`];
    const failures = Object.entries(reasons).map(([reason, count]) => `${count} ${reason}`);
    if (failures.length > 0) lines.push(`Not received: ${failures.join(", ")}`);
    if (dropped > 0) lines.push(`${formatCount(dropped, "frame")} dropped, as --latest says`);
    if (reasons.conflict !== undefined) {
      lines.push("Other files have these names here: another directory has room for both");
    }
    if (summary.interrupted) lines.push("Interrupted: the same command again completes it");
    if (this.#directory !== undefined && frames > 0) {
      lines.push(`Kept in ${this.#directory}, a copy of ${store}/${stream} on ${address}`);
    }
    return lines;
  }

  /** It failed: the error with what is safe all the same, for people. */
  fail(error: unknown): unknown {
    this.#progress?.stop();
    const received = this.#received();
    if (this.#json) {
      const code = error instanceof FramesError ? error.code : "internal";
      const message = error instanceof Error ? error.message : String(error);
      sayJson(this.#terminal, { type: "error", error: code, message, received });
    }
    if (!(error instanceof FramesError) || this.#sources.length === 0) return error;
    if (error.code === "usage" || error.code === "missing") return error;
    const again = this.#directory === undefined ? "" : "; the same command again completes it";
    const message = `${error.message}: ${formatCount(received, "frame")} received${again}`;
    return new FramesError(error.code, message, { cause: error.cause });
  }
}
