/** `frames send`: sends directories, a pipe, videos, cameras and URLs to a server. */
import { toNanoseconds } from "../common/clock.ts";
import { existsSync, lstatSync } from "node:fs";
import { articleWarning, checkArticleOptions, sendArticlePlan } from "../client/article/send.ts";
import { defined } from "../common/defined.ts";
import { errors, FramesError, usageError } from "../errors.ts";
import type { ConflictPolicy } from "../frame.ts";
import { parseAddress } from "../net/address.ts";
import { plan } from "../client/plan/plan.ts";
import type { Plan } from "../client/plan/options.ts";
import { sendPlan } from "../client/send.ts";
import type { SendOptions } from "../client/send-options.ts";
import { isMedia } from "../source/media/media.ts";
import { DirectorySource } from "../source/files/directory-source.ts";
import { checkPathPart, sourceFolderPath } from "../store/name-rules.ts";
import type { Arguments } from "./args/arguments.ts";
import { keyOptions } from "./args/key-options.ts";
import { exitCodeOf } from "./output/exit-code.ts";
import { TransferOutput } from "./output/transfer-output.ts";
import { print, printJson, type Terminal } from "./output/terminal.ts";
import { printable } from "../safe-text.ts";
import { formatBytes, formatCount, parseTime } from "./args/units.ts";
import { runTransfer, type TransferSignals } from "./transfer.ts";

/**
 * Sends until all frames are delivered, or a signal stops it.
 *
 * @returns the exit status
 * @throws {FramesError} with the number of confirmed frames in the message
 */
export async function sendCommand(
  args: Arguments,
  terminal: Terminal,
  signals: TransferSignals,
): Promise<number> {
  const output = new TransferOutput(args, terminal);
  try {
    checkPaths(args);
    const started = Date.now();
    const options = sendOptionsOf(args);
    parseAddress(options.to ?? "127.0.0.1", args.label("to"));
    const isArticle = args.isOn("article");
    if (isArticle) checkArticleOptions(options);
    const dryRun = args.isOn("dry-run");
    const planOptions = { ...options, ...output.callbacks, dryRun, onlyPictures: isArticle };
    const planned = await plan(args.positionals, planOptions, started);
    if (dryRun) return printDryRun(planned, args, terminal, output);
    const summary = await runTransfer(output, signals, async (signal) => {
      if (isArticle && !args.isOn("quiet")) print(terminal, articleWarning);
      const run = isArticle ? sendArticlePlan : sendPlan;
      return await run(planned, { ...options, ...output.callbacks, signal }, started);
    });
    output.printSummary(summary);
    return exitCodeOf(summary);
  } catch (error) {
    throw output.toError(error);
  }
}

function checkPaths(args: Arguments): void {
  const paths = args.positionals;
  if (paths.length === 0 && !args.list("source").some((text) => text.includes("="))) {
    throw usageError("Cannot send: no directory given; write frames send DIR");
  }
  for (const path of paths) {
    // A common mistake is to name the server as in rsync: `frames send DIR HOST:`.
    if (path === "-" || isMedia(path)) continue;
    const server = /^(?:[\w.-]+@)?([\w.-]*:\d+|[\w.-]+(?=:))(?::|$)/.exec(path)?.[1];
    if (server === undefined || existsSync(path)) continue;
    throw new FramesError(
      "missing",
      `Cannot send ${path}: no such directory; to name the server, write --to ${server}`,
    );
  }
}

function sendOptionsOf(args: Arguments): SendOptions {
  const maxBytesPerSecond = args.size("bwlimit");
  if (maxBytesPerSecond === 0)
    throw usageError(
      `Cannot send with ${args.label("bwlimit")} 0: write a rate such as 5M, or leave it out`,
    );
  return {
    ...keyOptions(args),
    ...defined({
      to: args.text("to"),
      stream: args.text("stream"),
      timeout: args.milliseconds("timeout"),
      giveUpAfter: args.milliseconds("give-up-after"),
      onConflict: conflictPolicy(args),
      settleMs: args.integer("settle"),
      since: sinceOf(args),
      spool: args.text("spool"),
      spoolSize: args.size("spool-size"),
      maxBytesPerSecond,
    }),
    checksum: args.isOn("checksum"),
    again: args.isOn("again"),
    move: args.isOn("move"),
    watch: args.isOn("watch"),
    policy: args.list("policy"),
    raw: args.list("raw"),
    multipart: args.isOn("multipart"),
    receipts: args.isOn("receipts"),
    fps: args.list("fps"),
    camera: args.list("camera"),
    quality: args.list("quality"),
    lossless: args.isOn("lossless"),
    convert: args.list("convert"),
    copyVideo: args.isOn("copy-video"),
    realtime: args.isOn("realtime"),
    failOnGap: args.isOn("fail-on-gap"),
    source: args.list("source"),
    include: args.list("include"),
    exclude: args.list("exclude"),
  };
}

/** Reads `--since`, in nanoseconds since 1970. */
function sinceOf(args: Arguments): bigint | undefined {
  const text = args.text("since");
  if (text === undefined) return undefined;
  if (!args.isOn("watch")) {
    throw usageError(
      `Cannot use ${args.label("since")} without --watch: add --watch, or leave it out`,
    );
  }
  const milliseconds = parseTime(text, args.label("since"), Date.now());
  return toNanoseconds(milliseconds);
}

function conflictPolicy(args: Arguments): ConflictPolicy | undefined {
  const text = args.text("on-conflict");
  if (text === undefined || text === "fail" || text === "skip" || text === "replace") return text;
  throw usageError(
    `Cannot read ${args.label("on-conflict")}: expected fail, skip or replace, current value is ${JSON.stringify(text)}`,
  );
}

/** Lists the frames that would be sent, and the names that every server would refuse. */
function printDryRun(
  { stream, sources, skipped, unreadable }: Plan,
  args: Arguments,
  terminal: Terminal,
  output: TransferOutput,
): number {
  const json = args.isOn("json");
  let frames = 0;
  let bytes = 0;
  let undelivered = unreadable.length;
  for (const item of skipped) output.onEvent({ type: "skipped", skipped: item });
  for (const { path, why } of unreadable) print(terminal, `Not delivered: ${path}: ${why}`);
  for (const source of sources) {
    if (!(source instanceof DirectorySource)) continue;
    for (const name of source.names) {
      const rejection = nameError(stream, source.name, name);
      if (rejection !== undefined) {
        undelivered++;
        print(terminal, `Not delivered: ${source.name}/${name}: ${rejection}`);
        continue;
      }
      const size = lstatSync(`${source.path}/${name}`, { throwIfNoEntry: false })?.size ?? 0;
      frames++;
      bytes += size;
      if (json) printJson(terminal, { type: "frame", source: source.name, name, bytes: size });
      else terminal.out(`${printable(source.name)}/${printable(name)}\n`);
    }
  }
  if (json) {
    printJson(terminal, { type: "summary", dryRun: true, stream, frames, bytes, undelivered });
  } else {
    const what = `${formatCount(frames, "frame")} of ${formatCount(sources.length, "source")}`;
    print(terminal, `Would send ${what}, ${formatBytes(bytes)}, as stream ${stream}`);
  }
  return undelivered > 0 ? errors["not-delivered"].exitCode : 0;
}

/** Returns why every server would refuse a name, or undefined. */
function nameError(stream: string, source: string, name: string): string | undefined {
  try {
    sourceFolderPath(stream, source, false);
    checkPathPart(name, false);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
