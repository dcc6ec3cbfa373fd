/** `frames send`. */
import { existsSync, lstatSync } from "node:fs";
import { errors, FramesError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import { steadyNow } from "../net/connection.ts";
import {
  deliver,
  plan,
  type Plan,
  type SendEvent,
  type SendOptions,
  type SendSummary,
} from "../send.ts";
import type { Undelivered } from "../session/sender.ts";
import { DirectorySource } from "../source/directory.ts";
import type { Arguments } from "./flags.ts";
import { Progress } from "./progress.ts";
import { printable, say, sayError, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "./units.ts";

/** Undelivered frames and skipped files that are named one by one; the rest is counted. */
const mostNamed = 20;

/** Sends until everything is delivered, or `stop` is aborted. */
export async function sendCommand(
  given: Arguments,
  terminal: Terminal,
  stop: AbortSignal,
): Promise<number> {
  checkPaths(given);
  const started = Date.now();
  const options = optionsOf(given);
  parseAddress(options.to ?? "127.0.0.1", given.origin("to"));
  const planned = plan(given.positionals, options, started);
  if (given.isOn("dry-run")) return dryRun(planned, given, terminal);
  const reporter = new Reporter(given, terminal);
  stop.addEventListener("abort", () => reporter.stopping());
  try {
    const summary = await deliver(
      planned,
      {
        ...options,
        signal: stop,
        onEvent: (event) => reporter.event(event),
        ...(given.isOn("verbose")
          ? { onMessage: (direction, line) => say(terminal, `${direction} ${line}`) }
          : {}),
      },
      started,
    );
    reporter.finish(summary);
    return exitOf(summary);
  } catch (error) {
    reporter.fail(error);
    throw error;
  }
}

function checkPaths(given: Arguments): void {
  const paths = given.positionals;
  if (paths.length === 0 && !given.list("source").some((text) => text.includes("="))) {
    throw new FramesError("usage", "Cannot send: say which directory, as in frames send DIR");
  }
  // A common slip: the server given as if it were a directory.
  const last = paths.at(-1);
  if (paths.length < 2 || last === undefined || existsSync(last)) return;
  if (/^[^/\\]+:\d+$/.test(last)) {
    throw new FramesError(
      "missing",
      `Cannot send ${last}: no such directory; to name the server, write --to ${last}`,
    );
  }
}

function optionsOf(given: Arguments): SendOptions {
  const to = given.text("to");
  const stream = given.text("stream");
  const timeout = given.milliseconds("timeout");
  return {
    source: given.list("source"),
    include: given.list("include"),
    exclude: given.list("exclude"),
    ...(to === undefined ? {} : { to }),
    ...(stream === undefined ? {} : { stream }),
    ...(timeout === undefined ? {} : { timeout }),
  };
}

function exitOf(summary: SendSummary): number {
  if (summary.interrupted) return errors.interrupted.exit;
  const reasons = Object.keys(summary.reasons);
  if (reasons.length === 0) return 0;
  const vanished = reasons.every((reason) => reason === "vanished");
  return errors[vanished ? "vanished" : "not-delivered"].exit;
}

function dryRun({ stream, sources, skipped }: Plan, given: Arguments, terminal: Terminal): number {
  const json = given.isOn("json");
  let frames = 0;
  let bytes = 0;
  for (const source of sources) {
    if (!(source instanceof DirectorySource)) continue;
    for (const name of source.names) {
      const size = lstatSync(`${source.path}/${name}`, { throwIfNoEntry: false })?.size ?? 0;
      frames++;
      bytes += size;
      if (json) sayJson(terminal, { type: "frame", source: source.name, name, bytes: size });
      else terminal.out(`${printable(source.name)}/${printable(name)}\n`);
    }
  }
  for (const { path, why } of skipped) say(terminal, `Not sent: ${path} is ${why}`);
  if (json) {
    sayJson(terminal, { type: "summary", dryRun: true, stream, frames, bytes });
  } else {
    const what = `${formatCount(frames, "frame")} of ${formatCount(sources.length, "source")}`;
    say(terminal, `Would send ${what}, ${formatBytes(bytes)}, as stream ${stream}`);
  }
  return 0;
}

/** What the user is told of a delivery. */
class Reporter {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #quiet: boolean;
  readonly #progress: Progress | undefined;
  #skipped = 0;
  #undelivered = 0;
  #stream = "";

  constructor(given: Arguments, terminal: Terminal) {
    this.#terminal = terminal;
    this.#json = given.isOn("json");
    this.#quiet = given.isOn("quiet");
    const shown = !this.#quiet && !given.isOn("verbose");
    this.#progress = shown ? new Progress(terminal, steadyNow) : undefined;
  }

  event(event: SendEvent): void {
    switch (event.type) {
      case "found":
        this.#stream = event.stream;
        return;
      case "skipped":
        if (this.#json) sayJson(this.#terminal, { type: "skipped", ...event.skipped });
        if (++this.#skipped <= mostNamed) {
          this.#say(`Not sent: ${event.skipped.path} is ${event.skipped.why}`);
        }
        return;
      case "connected":
        return this.#say(`Sending ${this.#stream} to ${event.address}`);
      case "progress":
        return this.#progress?.follow(event.sources);
      case "undelivered":
        return this.#undeliveredFrame(event.report);
    }
  }

  #say(text: string): void {
    if (this.#quiet) return;
    if (this.#progress !== undefined) this.#progress.say(text);
    else say(this.#terminal, text);
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
    if (++this.#undelivered > mostNamed) return;
    const text = `Not delivered: ${what}: ${error.message}`;
    if (this.#quiet) say(this.#terminal, text);
    else this.#say(text);
  }

  stopping(): void {
    this.#say("Stopping when what is on its way has arrived: once more to stop at once");
  }

  finish(summary: SendSummary): void {
    this.#progress?.stop();
    const more = [
      [this.#skipped, "link or special file", "links and special files"],
      [this.#undelivered, "undelivered frame", "undelivered frames"],
    ] as const;
    for (const [count, one, many] of more) {
      const rest = count - mostNamed;
      if (rest > 0) say(this.#terminal, `and ${rest} more ${rest === 1 ? one : many}`);
    }
    if (this.#json) this.#finishJson(summary);
    if (!this.#quiet) for (const line of summaryLines(summary)) say(this.#terminal, line);
  }

  #finishJson(summary: SendSummary): void {
    const { stream, frames, bytes, skipped, refused, lost, seconds, store, address } = summary;
    sayJson(this.#terminal, {
      type: "summary",
      stream,
      frames,
      bytes,
      skipped,
      refused,
      lost,
      dropped: 0,
      retries: 0,
      seconds,
      store,
      address,
      interrupted: summary.interrupted,
      reasons: summary.reasons,
      sources: summary.sources.map((source) => ({
        name: source.name,
        frames: source.sent - source.refused,
        bytes: source.bytes,
        refused: source.refused,
        lost: source.lost,
      })),
    });
  }

  /** The delivery failed: what is safe all the same. */
  fail(error: unknown): void {
    this.#progress?.stop();
    const sources = this.#progress?.sources ?? [];
    const settled = sources.reduce((sum, source) => sum + source.settled - source.refused, 0);
    if (this.#json) {
      const code = error instanceof FramesError ? error.code : "internal";
      const message = error instanceof Error ? error.message : String(error);
      sayJson(this.#terminal, { type: "error", error: code, message, confirmed: settled });
    }
    if (settled > 0) {
      sayError(this.#terminal, `${formatCount(settled, "frame")} confirmed before this:`);
    }
  }
}

function summaryLines(summary: SendSummary): string[] {
  const { frames, bytes, skipped, refused, lost, seconds, stream, sources } = summary;
  if (sources.length === 0) return ["No frames found: nothing to send"];
  const rate = seconds > 0 ? `, ${formatBytes(bytes / seconds)}/s` : "";
  const there = skipped > 0 ? `, ${skipped} of them there already` : "";
  const lines = [
    `${formatCount(frames, "frame")} delivered${there}: ${formatBytes(bytes)} in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s${rate}`,
  ];
  if (refused > 0) lines.push(`${formatCount(refused, "frame")} refused by the server`);
  if (lost > 0) lines.push(`${formatCount(lost, "frame")} could not be sent`);
  if (summary.interrupted) lines.push("Interrupted: the same command again completes it");
  lines.push(`At ${summary.address} they lie in ${summary.store}/${stream}`);
  return lines;
}
