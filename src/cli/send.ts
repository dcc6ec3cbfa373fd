/** `frames send`. */
import { existsSync, lstatSync } from "node:fs";
import { articleCaveat, deliverArticle } from "../client/article.ts";
import { errors, FramesError } from "../errors.ts";
import type { ConflictPolicy } from "../frame.ts";
import { parseAddress } from "../net/address.ts";
import { plan } from "../client/plan.ts";
import type { Plan } from "../client/planning.ts";
import { deliver, type SendOptions, type SendSummary } from "../send.ts";
import { isMedia } from "../source/media.ts";
import { DirectorySource } from "../source/directory.ts";
import { checkPart, sourceFolder } from "../store/name.ts";
import type { Arguments } from "./arguments.ts";
import { keyOptions } from "./key.ts";
import { Reporter } from "./reporter.ts";
import { printable, say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount, parseMoment } from "./units.ts";

/** How a delivery is stopped: gently first, then at once. */
export interface Stop {
  readonly gently: AbortSignal;
  readonly atOnce: AbortSignal;
}

/** Calls `tell` whenever a report is asked for (SIGUSR1). */
export type OnReport = (tell: () => void) => void;

/**
 * Sends until everything is delivered or it is told to stop.
 *
 * @param stopOnSignal from its call on, signals stop the delivery; before, they end the process
 */
export async function sendCommand(
  given: Arguments,
  terminal: Terminal,
  stopOnSignal: () => Stop,
  onReport: OnReport,
): Promise<number> {
  const reporter = new Reporter(given, terminal);
  try {
    checkPaths(given);
    const started = Date.now();
    const options = optionsOf(given);
    parseAddress(options.to ?? "127.0.0.1", given.origin("to"));
    const onTrouble = (error: FramesError) => reporter.event({ type: "trouble", error });
    const planned = await plan(given.positionals, { ...options, onTrouble }, started);
    if (given.isOn("dry-run")) return dryRun(planned, given, terminal, reporter);
    const { gently, atOnce } = stopOnSignal();
    onReport(() => reporter.tell());
    gently.addEventListener("abort", () => reporter.stopping());
    const killed = Promise.withResolvers<never>();
    atOnce.addEventListener("abort", () => killed.reject(new FramesError("interrupted")));
    const isArticle = given.isOn("article");
    if (isArticle && !given.isOn("quiet")) say(terminal, articleCaveat);
    const delivery = (isArticle ? deliverArticle : deliver)(
      planned,
      {
        ...options,
        signal: gently,
        onEvent: (event) => reporter.event(event),
        ...(given.isOn("verbose")
          ? { onMessage: (direction, line) => say(terminal, `${direction} ${line}`) }
          : {}),
      },
      started,
    );
    const summary = await Promise.race([delivery, killed.promise]);
    reporter.finish(summary);
    return exitOf(summary);
  } catch (error) {
    throw reporter.fail(error);
  }
}

function checkPaths(given: Arguments): void {
  const paths = given.positionals;
  if (paths.length === 0 && !given.list("source").some((text) => text.includes("="))) {
    throw new FramesError("usage", "Cannot send: say which directory, as in frames send DIR");
  }
  for (const path of paths) {
    // A common slip: the server given as if it were a directory, as in rsync.
    if (path === "-" || isMedia(path)) continue;
    const server = /^(?:[\w.-]+@)?([\w.-]*:\d+|[\w.-]+(?=:))(?::|$)/.exec(path)?.[1];
    if (server === undefined || existsSync(path)) continue;
    throw new FramesError(
      "missing",
      `Cannot send ${path}: no such directory; to name the server, write --to ${server}`,
    );
  }
}

function optionsOf(given: Arguments): SendOptions {
  const to = given.text("to");
  const stream = given.text("stream");
  const timeout = given.milliseconds("timeout");
  const giveUpAfter = given.milliseconds("give-up-after");
  const onConflict = conflictPolicy(given);
  const settle = given.whole("settle");
  const since = sinceOf(given);
  const spool = given.text("spool");
  const spoolSize = given.size("spool-size");
  const rate = given.size("bwlimit");
  if (rate === 0)
    throw new FramesError("usage", `Cannot send with ${given.origin("bwlimit")} of 0`);
  return {
    ...keyOptions(given),
    checksum: given.isOn("checksum"),
    again: given.isOn("again"),
    move: given.isOn("move"),
    ...(giveUpAfter === undefined ? {} : { giveUpAfter }),
    ...(onConflict === undefined ? {} : { onConflict }),
    watch: given.isOn("watch"),
    policy: given.list("policy"),
    raw: given.list("raw"),
    fps: given.list("fps"),
    camera: given.list("camera"),
    quality: given.list("quality"),
    lossless: given.isOn("lossless"),
    realtime: given.isOn("realtime"),
    ...(spool === undefined ? {} : { spool }),
    ...(spoolSize === undefined ? {} : { spoolSize }),
    failOnGap: given.isOn("fail-on-gap"),
    ...(rate === undefined ? {} : { rate }),
    ...(settle === undefined ? {} : { settle }),
    ...(since === undefined ? {} : { since }),
    source: given.list("source"),
    include: given.list("include"),
    exclude: given.list("exclude"),
    ...(to === undefined ? {} : { to }),
    ...(stream === undefined ? {} : { stream }),
    ...(timeout === undefined ? {} : { timeout }),
  };
}

/** `now`, a time as ISO 8601 writes it, or how long ago. */
function sinceOf(given: Arguments): bigint | undefined {
  const text = given.text("since");
  if (text === undefined) return undefined;
  if (!given.isOn("watch")) {
    throw new FramesError("usage", `Cannot use ${given.origin("since")} without --watch`);
  }
  const milliseconds = parseMoment(text, given.origin("since"), Date.now());
  return BigInt(Math.round(milliseconds * 1e6));
}

function conflictPolicy(given: Arguments): ConflictPolicy | undefined {
  const text = given.text("on-conflict");
  if (text === undefined || text === "fail" || text === "skip" || text === "replace") return text;
  throw new FramesError(
    "usage",
    `Cannot read ${given.origin("on-conflict")}: expected fail, skip or replace, current value is ${JSON.stringify(text)}`,
  );
}

/** Exit status of what came to an end. */
export function exitOf(
  summary: Pick<SendSummary, "interrupted" | "reasons"> & { readonly kept?: number },
): number {
  if (summary.interrupted) return errors.interrupted.exit;
  const reasons = Object.keys(summary.reasons);
  if ((summary.kept ?? 0) > 0) return errors["not-delivered"].exit;
  if (reasons.length === 0) return 0;
  const vanished = reasons.every((reason) => reason === "vanished");
  return errors[vanished ? "vanished" : "not-delivered"].exit;
}

/** Says what would be sent, and what is known not to arrive. */
function dryRun(
  { stream, sources, skipped, unreadable }: Plan,
  given: Arguments,
  terminal: Terminal,
  reporter: Reporter,
): number {
  const json = given.isOn("json");
  let frames = 0;
  let bytes = 0;
  let undelivered = unreadable.length;
  for (const item of skipped) reporter.event({ type: "skipped", skipped: item });
  for (const { path, why } of unreadable) say(terminal, `Not delivered: ${path}: ${why}`);
  for (const source of sources) {
    if (!(source instanceof DirectorySource)) continue;
    for (const name of source.names) {
      const refusal = refusalOf(stream, source.name, name);
      if (refusal !== undefined) {
        undelivered++;
        say(terminal, `Not delivered: ${source.name}/${name}: ${refusal}`);
        continue;
      }
      const size = lstatSync(`${source.path}/${name}`, { throwIfNoEntry: false })?.size ?? 0;
      frames++;
      bytes += size;
      if (json) sayJson(terminal, { type: "frame", source: source.name, name, bytes: size });
      else terminal.out(`${printable(source.name)}/${printable(name)}\n`);
    }
  }
  if (json) {
    sayJson(terminal, { type: "summary", dryRun: true, stream, frames, bytes, undelivered });
  } else {
    const what = `${formatCount(frames, "frame")} of ${formatCount(sources.length, "source")}`;
    say(terminal, `Would send ${what}, ${formatBytes(bytes)}, as stream ${stream}`);
  }
  return undelivered > 0 ? errors["not-delivered"].exit : 0;
}

/** Why every server would refuse a name. */
function refusalOf(stream: string, source: string, name: string): string | undefined {
  try {
    sourceFolder(stream, source, false);
    checkPart(name, false);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
