/** `frames send`. */
import { existsSync, lstatSync } from "node:fs";
import { articleCaveat, deliverArticle } from "../article.ts";
import { errors, FramesError } from "../errors.ts";
import type { ConflictPolicy } from "../frame.ts";
import { parseAddress } from "../net/address.ts";
import { steadyNow } from "../net/connection.ts";
import { plan, type Plan } from "../plan.ts";
import { deliver, type SendEvent, type SendOptions, type SendSummary } from "../send.ts";
import type { SourceProgress, Undelivered } from "../session/outlet.ts";
import { DirectorySource } from "../source/directory.ts";
import { checkPart, sourceFolder } from "../store/name.ts";
import type { Arguments } from "./flags.ts";
import { keyOptions } from "./key.ts";
import { Progress } from "./progress.ts";
import { printable, say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "./units.ts";

/** Undelivered frames and skipped files that are named one by one; the rest is counted. */
const mostNamed = 20;

/** How a delivery is stopped: gently first, then at once. */
export interface Stop {
  readonly gently: AbortSignal;
  readonly atOnce: AbortSignal;
}

/**
 * Sends until everything is delivered or it is told to stop.
 *
 * @param stopOnSignal from its call on, signals stop the delivery; before, they end the process
 */
export async function sendCommand(
  given: Arguments,
  terminal: Terminal,
  stopOnSignal: () => Stop,
): Promise<number> {
  const reporter = new Reporter(given, terminal);
  try {
    checkPaths(given);
    const started = Date.now();
    const options = optionsOf(given);
    parseAddress(options.to ?? "127.0.0.1", given.origin("to"));
    const planned = plan(given.positionals, options, started);
    if (given.isOn("dry-run")) return dryRun(planned, given, terminal, reporter);
    const { gently, atOnce } = stopOnSignal();
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
  return {
    ...keyOptions(given),
    checksum: given.isOn("checksum"),
    again: given.isOn("again"),
    move: given.isOn("move"),
    ...(giveUpAfter === undefined ? {} : { giveUpAfter }),
    ...(onConflict === undefined ? {} : { onConflict }),
    source: given.list("source"),
    include: given.list("include"),
    exclude: given.list("exclude"),
    ...(to === undefined ? {} : { to }),
    ...(stream === undefined ? {} : { stream }),
    ...(timeout === undefined ? {} : { timeout }),
  };
}

function conflictPolicy(given: Arguments): ConflictPolicy | undefined {
  const text = given.text("on-conflict");
  if (text === undefined || text === "fail" || text === "skip" || text === "replace") return text;
  throw new FramesError(
    "usage",
    `Cannot read ${given.origin("on-conflict")}: expected fail, skip or replace, current value is ${JSON.stringify(text)}`,
  );
}

function exitOf(summary: SendSummary): number {
  if (summary.interrupted) return errors.interrupted.exit;
  const reasons = Object.keys(summary.reasons);
  if (summary.kept > 0) return errors["not-delivered"].exit;
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

/** What the user is told of a delivery. */
class Reporter {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #quiet: boolean;
  readonly #insecure: boolean;
  readonly #isArticle: boolean;
  readonly #progress: Progress | undefined;
  #skipped = 0;
  #undelivered = 0;
  #kept = 0;
  #stream = "";
  #address = "";
  /** Why there was no connection, until something was confirmed on the next, and what was before. */
  #reason: string | undefined;
  #settled = 0;
  #sources: readonly SourceProgress[] = [];

  constructor(given: Arguments, terminal: Terminal) {
    this.#terminal = terminal;
    this.#json = given.isOn("json");
    this.#quiet = given.isOn("quiet");
    this.#insecure = given.isOn("insecure");
    this.#isArticle = given.isOn("article");
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
        this.#progress?.waiting(undefined);
        this.#address = event.address;
        if (this.#reason === undefined) {
          const how = this.#insecure ? ", without key or encryption (--insecure)" : "";
          this.#say(`Sending ${this.#stream} to ${event.address}${how}`);
        }
        return;
      case "waiting":
        return this.#waiting(event.reason, event.milliseconds);
      case "progress":
        this.#sources = event.sources;
        this.#goesOn();
        return this.#progress?.follow(event.sources);
      case "undelivered":
        return this.#undeliveredFrame(event.report);
      case "kept": {
        const { source, frame, error } = event.kept;
        if (this.#json) {
          const { code, message } = error;
          const { name, sequence } = frame;
          sayJson(this.#terminal, { type: "kept", source, sequence, name, error: code, message });
        }
        if (++this.#kept > mostNamed) return;
        return this.#warn(`Not removed: ${source}/${frame.name}: ${error.message}`);
      }
    }
  }

  /** There is no connection: on a terminal this is seen anyway, elsewhere each new reason is said. */
  #waiting(reason: FramesError, milliseconds: number): void {
    const pause = `trying again in ${Math.max(1, Math.round(milliseconds / 1000))} s`;
    if (this.#json) {
      const { code, message } = reason;
      sayJson(this.#terminal, { type: "waiting", error: code, message, milliseconds });
    }
    const isNew = reason.message !== this.#reason;
    this.#reason = reason.message;
    this.#settled = this.#confirmed();
    this.#progress?.waiting(milliseconds);
    if (isNew) this.#warn(`${reason.message}; ${pause}`);
  }

  /** A connection that is refused again at once is not worth a word; one that brings something is. */
  #goesOn(): void {
    if (this.#reason === undefined || this.#confirmed() === this.#settled) return;
    this.#reason = undefined;
    this.#say(`Connected to ${this.#address} again`);
  }

  /** Frames that the server has confirmed. */
  #confirmed(): number {
    return this.#sources.reduce(
      (sum, { settled, refused, skipped }) => sum + settled - refused - skipped,
      0,
    );
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
    const which = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
    // A folder that cannot be read has no numbers.
    const where = first === 0 ? what : `${source}/${what} (${which})`;
    this.#warn(`Not delivered: ${where}: ${error.message}`);
  }

  /** Says what even those should see who asked for quiet. */
  #warn(text: string): void {
    if (this.#quiet) say(this.#terminal, text);
    else this.#say(text);
  }

  stopping(): void {
    this.#progress?.stopping();
    this.#say("Stopping when what is on its way has arrived: once more to stop at once");
  }

  finish(summary: SendSummary): void {
    this.#sources = summary.sources;
    this.#goesOn();
    this.#progress?.stop();
    const skipped = this.#skipped - mostNamed;
    if (skipped > 0) this.#say(`and ${skipped} more links and special files`);
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
      dropped: 0,
      removed,
      kept,
      retries,
      seconds,
      store,
      address,
      interrupted: summary.interrupted,
      reasons: summary.reasons,
      sources: summary.sources.map((source) => ({
        name: source.name,
        frames: source.settled - source.refused - source.moved - source.skipped,
        bytes: source.bytes,
        refused: source.refused,
        lost: source.lost,
      })),
    });
  }

  /** The delivery failed: the error with what is safe all the same, for people. */
  fail(error: unknown): unknown {
    this.#progress?.stop();
    const confirmed = this.#confirmed();
    if (this.#json) {
      const code = error instanceof FramesError ? error.code : "internal";
      const message = error instanceof Error ? error.message : String(error);
      sayJson(this.#terminal, { type: "error", error: code, message, confirmed });
    }
    if (!(error instanceof FramesError) || this.#sources.length === 0) return error;
    if (error.code === "busy" || error.code === "usage") return error;
    const total = this.#sources.reduce((sum, source) => sum + (source.total ?? 0), 0);
    const again = this.#isArticle
      ? "the same command again sends all of them"
      : "the same command again completes it";
    const safe = `${confirmed} of ${formatCount(total, "frame")} confirmed; ${again}`;
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
  const again = store === "" ? "sends all of them" : "completes it";
  if (summary.interrupted) lines.push(`Interrupted: the same command again ${again}`);
  if (frames > 0)
    lines.push(store === "" ? `Read by ${address}` : `Stored in ${store}/${stream} on ${address}`);
  return lines;
}
