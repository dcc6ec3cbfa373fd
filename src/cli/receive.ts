/** `frames receive`. */
import { FramesError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import { receive, receiveTo, type ReceiveOptions } from "../receive.ts";
import type { Arguments } from "./arguments.ts";
import { keyOptions } from "./key.ts";
import { FramePipe } from "./pipe.ts";
import { ReceiveReporter } from "./receive-reporter.ts";
import { exitOf, type OnReport, type Stop } from "./send.ts";
import { say, type Terminal } from "./terminal.ts";
import { parseMoment } from "./units.ts";

/**
 * Receives until there is nothing more, or it is told to stop.
 *
 * @param stopOnSignal from its call on, signals stop it gently; before, they end the process
 */
export async function receiveCommand(
  given: Arguments,
  terminal: Terminal,
  stopOnSignal: () => Stop,
  onReport: OnReport,
): Promise<number> {
  const { stream, directory } = whereTo(given);
  const isPiped = directory === "-";
  const json = given.isOn("json");
  if (isPiped && json) {
    throw new FramesError("usage", "Cannot write both frames and --json to standard output");
  }
  if (!isPiped && given.isOn("multipart")) {
    throw new FramesError("usage", "Cannot use --multipart without -, which writes to a pipe");
  }
  const options = optionsOf(given);
  const reporter = new ReceiveReporter(given, terminal, stream, isPiped ? undefined : directory);
  try {
    const { gently, atOnce } = stopOnSignal();
    onReport(() => reporter.tell());
    gently.addEventListener("abort", () => reporter.stopping());
    const killed = Promise.withResolvers<never>();
    atOnce.addEventListener("abort", () => killed.reject(new FramesError("interrupted")));
    const pipe = new FramePipe(given.isOn("multipart"));
    const all: ReceiveOptions = {
      ...options,
      signal: AbortSignal.any([gently, pipe.closed]),
      onEvent: (event) => reporter.event(event),
      ...(given.isOn("verbose")
        ? { onMessage: (direction, line) => say(terminal, `${direction} ${line}`) }
        : {}),
    };
    const receiving = isPiped
      ? receiveTo(stream, (frame) => pipe.write(frame), !given.isOn("multipart"), all)
      : receive(stream, { ...all, directory });
    const summary = await Promise.race([receiving, killed.promise]).catch((error: unknown) => {
      // Nobody reads any more: that is how a pipe ends.
      if (!pipe.closed.aborted) throw error;
      return undefined;
    });
    if (summary === undefined || pipe.closed.aborted) {
      reporter.discard();
      return 0;
    }
    reporter.finish(summary);
    return exitOf(summary);
  } catch (error) {
    throw reporter.fail(error);
  }
}

function whereTo(given: Arguments): { stream: string; directory: string } {
  const [stream, directory, ...rest] = given.positionals;
  if (stream === undefined) {
    throw new FramesError(
      "usage",
      "Cannot receive: say which stream, as in frames receive STREAM [DIR]",
    );
  }
  if (rest.length > 0) {
    throw new FramesError(
      "usage",
      `Cannot receive into a second place, ${rest[0]}: one is the limit`,
    );
  }
  return { stream, directory: directory ?? `./${stream}` };
}

function optionsOf(given: Arguments): ReceiveOptions {
  const from = given.text("from");
  parseAddress(from ?? "127.0.0.1", given.origin("from"));
  const sources = given.list("source");
  const named = sources.find((source) => source.includes("="));
  if (named !== undefined) {
    throw new FramesError("usage", `Cannot read --source ${named}: expected the name of a source`);
  }
  const first = given.whole("first");
  if (first === 0) throw new FramesError("usage", "Cannot receive the first 0 frames");
  const since = given.text("since");
  const timeout = given.milliseconds("timeout");
  const giveUpAfter = given.milliseconds("give-up-after");
  const moment = () => parseMoment(since!, given.origin("since"), Date.now());
  return {
    ...keyOptions(given),
    follow: given.isOn("follow"),
    latest: given.isOn("latest"),
    ...(from === undefined ? {} : { from }),
    ...(sources.length === 0 ? {} : { sources }),
    ...(first === undefined ? {} : { first }),
    ...(since === undefined ? {} : { since: BigInt(Math.round(moment() * 1e6)) }),
    ...(timeout === undefined ? {} : { timeout }),
    ...(giveUpAfter === undefined ? {} : { giveUpAfter }),
  };
}
