/** What the user is told of a delivery, while it goes on and at its end. */
import { FramesError } from "../errors.ts";
import { steadyNow } from "../net/connection.ts";
import type { SourceReport } from "../client/gaps.ts";
import type { SendEvent, SendSummary } from "../send.ts";
import type { SourceProgress, Undelivered } from "../session/outlet.ts";
import type { Arguments } from "./arguments.ts";
import { Messages } from "./messages.ts";
import { Progress } from "./progress.ts";
import { droppedLine, reportJson, reportLine } from "./report.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "./units.ts";

/** Undelivered frames and skipped files that are named one by one; the rest is counted. */
const mostNamed = 20;

export class Reporter {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #quiet: boolean;
  readonly #insecure: boolean;
  readonly #isArticle: boolean;
  readonly #progress: Progress | undefined;
  readonly #messages: Messages;
  #skipped = 0;
  #undelivered = 0;
  #kept = 0;
  #stream = "";
  #address = "";
  #sources: readonly SourceProgress[] = [];
  #report: (() => readonly SourceReport[]) | undefined;

  constructor(given: Arguments, terminal: Terminal) {
    this.#terminal = terminal;
    this.#json = given.isOn("json");
    this.#quiet = given.isOn("quiet");
    this.#insecure = given.isOn("insecure");
    this.#isArticle = given.isOn("article");
    const shown = !this.#quiet && !given.isOn("verbose");
    this.#progress = shown ? new Progress(terminal, steadyNow) : undefined;
    this.#messages = new Messages(terminal, this.#progress, {
      json: this.#json,
      quiet: this.#quiet,
    });
  }

  event(event: SendEvent): void {
    switch (event.type) {
      case "found":
        this.#stream = event.stream;
        return;
      case "skipped":
        if (this.#json) sayJson(this.#terminal, { type: "skipped", ...event.skipped });
        if (++this.#skipped <= mostNamed) {
          this.#messages.say(`Not sent: ${event.skipped.path} is ${event.skipped.why}`);
        }
        return;
      case "connected":
        this.#progress?.waiting(undefined);
        this.#address = event.address;
        if (!this.#messages.isBroken) {
          const how = this.#insecure ? ", without key or encryption (--insecure)" : "";
          this.#messages.say(`Sending ${this.#stream} to ${event.address}${how}`);
        }
        return;
      case "waiting":
        return this.#messages.waiting(event.reason, event.milliseconds, this.#confirmed());
      case "progress":
        this.#sources = event.sources;
        this.#report = event.report;
        this.#messages.goesOn(this.#address, this.#confirmed());
        return this.#progress?.follow(event.sources);
      case "undelivered":
        return this.#undeliveredFrame(event.report);
      case "media": {
        const { source, description } = event;
        if (this.#json) sayJson(this.#terminal, { type: "media", source, description });
        return this.#messages.say(`${source}: ${description}`);
      }
      case "trouble": {
        const { code, message } = event.error;
        if (this.#json) sayJson(this.#terminal, { type: "trouble", error: code, message });
        return this.#messages.warn(message);
      }
      case "kept": {
        const { source, frame, error } = event.kept;
        if (this.#json) {
          const { code, message } = error;
          const { name, sequence } = frame;
          sayJson(this.#terminal, { type: "kept", source, sequence, name, error: code, message });
        }
        if (++this.#kept > mostNamed) return;
        return this.#messages.warn(`Not removed: ${source}/${frame.name}: ${error.message}`);
      }
    }
  }

  /** Frames that the server has confirmed. */
  #confirmed(): number {
    return this.#sources.reduce(
      (sum, { settled, refused, skipped }) => sum + settled - refused - skipped,
      0,
    );
  }

  #undeliveredFrame({ source, first, last, what, error }: Undelivered): void {
    if (this.#json) {
      const { code, message } = error;
      sayJson(this.#terminal, {
        type: "undelivered",
        source,
        first,
        last,
        what,
        error: code,
        message,
      });
    }
    // A queue that is full drops many: the report has them all.
    if (error.code === "dropped") return;
    if (++this.#undelivered > mostNamed) return;
    const which = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
    // A folder that cannot be read has no numbers.
    const where = first === 0 ? what : `${source}/${what} (${which})`;
    this.#messages.warn(`Not delivered: ${where}: ${error.message}`);
  }

  stopping(): void {
    this.#progress?.stopping();
    this.#messages.say("Stopping when what is on its way has arrived: once more to stop at once");
  }

  /** Tells how each source fares, in between. */
  tell(): void {
    for (const report of this.#report?.() ?? []) {
      if (this.#json) sayJson(this.#terminal, { type: "report", ...reportJson(report) });
      else this.#messages.warn(reportLine(report));
    }
  }

  finish(summary: SendSummary): void {
    this.#sources = summary.sources.map(({ progress }) => progress);
    this.#messages.goesOn(this.#address, this.#confirmed());
    this.#progress?.stop();
    const skipped = this.#skipped - mostNamed;
    if (skipped > 0) this.#messages.say(`and ${skipped} more links and special files`);
    const undelivered = this.#undelivered - mostNamed;
    if (undelivered > 0) say(this.#terminal, `and ${undelivered} more: --json names them all`);
    if (this.#json) this.#finishJson(summary);
    if (!this.#quiet) for (const line of summaryLines(summary)) say(this.#terminal, line);
  }

  #finishJson(summary: SendSummary): void {
    const { stream, frames, bytes, skipped, moved, leftAlone, refused, lost } = summary;
    const { removed, kept, retries, seconds, store, address } = summary;
    sayJson(this.#terminal, {
      type: "summary",
      stream,
      frames,
      bytes,
      skipped,
      moved,
      leftAlone,
      refused,
      lost,
      dropped: summary.dropped,
      removed,
      kept,
      retries,
      seconds,
      store,
      address,
      interrupted: summary.interrupted,
      reasons: summary.reasons,
      sources: summary.sources.map(reportJson),
    });
  }

  /** The delivery failed: the error with what is safe all the same, for people. */
  fail(error: unknown): unknown {
    this.#progress?.stop();
    const confirmed = this.#confirmed();
    const reports = this.#report?.() ?? [];
    if (!this.#quiet && error instanceof FramesError) {
      // What was captured does not come again.
      const live = reports.filter(({ progress }) => progress.delays !== undefined);
      for (const report of live) say(this.#terminal, reportLine(report));
    }
    if (this.#json) {
      const code = error instanceof FramesError ? error.code : "internal";
      const message = error instanceof Error ? error.message : String(error);
      const sources = reports.map(reportJson);
      sayJson(this.#terminal, { type: "error", error: code, message, confirmed, sources });
    }
    if (!(error instanceof FramesError) || this.#sources.length === 0) return error;
    if (error.code === "busy" || error.code === "usage") return error;
    const isKnown = this.#sources.every(({ total }) => total !== undefined);
    const total = this.#sources.reduce((sum, source) => sum + (source.total ?? 0), 0);
    const again = this.#isArticle ? "sends all of them" : "completes it";
    const safe = isKnown
      ? `${confirmed} of ${formatCount(total, "frame")} confirmed; the same command again ${again}`
      : `${formatCount(confirmed, "frame")} confirmed`;
    return new FramesError(error.code, `${error.message}: ${safe}`, { cause: error.cause });
  }
}

function summaryLines(summary: SendSummary): string[] {
  const { frames, bytes, skipped, seconds, stream, sources, reasons } = summary;
  const failures = Object.entries(reasons).map(([reason, count]) => `${count} ${reason}`);
  const failed = failures.length > 0 ? [`Not delivered: ${failures.join(", ")}`] : [];
  if (sources.length === 0) {
    const out = summary.leftOut > 0 ? ` (${formatCount(summary.leftOut, "file")} left out)` : "";
    return [`No frames found: nothing to send${out}`, ...failed];
  }
  const fresh = frames - skipped;
  const away = summary.moved > 0 ? `, ${summary.moved} moved away since` : "";
  const there = `${formatCount(skipped, "frame")} there already`;
  const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : "";
  const time = `in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
  const took = `${formatBytes(bytes)} ${time}${rate}`;
  const lines = [
    skipped === 0
      ? fresh > 0 || away === ""
        ? `${formatCount(frames, "frame")} delivered${away}: ${took}`
        : `Nothing new: ${formatCount(summary.moved, "frame")} moved away since, ${time}`
      : fresh > 0
        ? `${formatCount(fresh, "frame")} delivered, ${skipped} there already${away}: ${took}`
        : `Nothing new: ${there}${away}, ${time}`,
    ...failed,
  ];
  if (summary.moved > 0) lines.push("--again sends what was moved away once more");
  if (summary.leftAlone > 0) {
    const names = summary.leftAlone === 1 ? "its name is" : "their names are";
    lines.push(`${formatCount(summary.leftAlone, "frame")} left out: ${names} taken`);
  }
  const live = sources.filter(({ progress }) => progress.delays !== undefined);
  lines.push(...live.map(reportLine));
  if (summary.dropped > 0) lines.push(droppedLine(summary.dropped));
  if (summary.removed > 0) lines.push(`${formatCount(summary.removed, "frame")} removed here`);
  if (summary.kept > 0) {
    const frames = formatCount(summary.kept, "frame");
    lines.push(`${frames} not removed, since they are no longer what was sent (--json names all)`);
  }
  if (reasons.conflict !== undefined) {
    lines.push(
      "Other bytes are stored under these names: --stream NAME keeps both, --on-conflict replace the new ones, --on-conflict skip the stored",
    );
  }
  // The article's server does not say where it stores, and what it has.
  const { store, address } = summary;
  const isSilent = store === "";
  const again = isSilent ? "sends all of them" : "completes it";
  if (summary.interrupted) lines.push(`Interrupted: the same command again ${again}`);
  if (frames > 0) {
    lines.push(isSilent ? `Read by ${address}` : `Stored in ${store}/${stream} on ${address}`);
  }
  return lines;
}
