/** Sends to the article's server, in its dialect: for those who move over one end at a time. */
import { ArticleDispatch } from "./article-dispatch.ts";
import { FramesError } from "../errors.ts";
import { Shortfall } from "./gaps.ts";
import { formatAddress, parseAddress } from "../net/address.ts";
import { plan } from "./plan.ts";
import type { Plan, Sendable } from "./planning.ts";
import { nothingDone, type SendOptions, type SendSummary } from "../send.ts";
import { Outlet, type SourceProgress, type Undelivered } from "../session/outlet.ts";

/** What the dialect cannot promise, as people are told. */
export const articleCaveat =
  "The article's dialect: ok means read, not stored; no checksum, no key, and nothing resumes";

/** What these options ask for cannot be had of the dialect. */
const unsayable = [
  ["move", "--move"],
  ["checksum", "--checksum"],
  ["again", "--again"],
  ["onConflict", "--on-conflict"],
  ["watch", "--watch"],
  ["spool", "--spool"],
  ["rate", "--bwlimit"],
  ["keyFile", "--key-file"],
  ["key", "a key"],
] as const satisfies readonly (readonly [keyof SendOptions, string])[];

/**
 * Sends as `send` does, to the server of the article that `frames` grew from: each source over a
 * connection of its own, each picture confirmed when that server has read it.
 *
 * @throws {FramesError} if the delivery as a whole failed; nothing is tried again
 */
export async function sendArticle(what: Sendable, options: SendOptions = {}): Promise<SendSummary> {
  const started = Date.now();
  return await deliverArticle(await plan(what, options, started), options, started);
}

/**
 * Delivers what was planned.
 *
 * @param started in milliseconds since 1970
 * @throws {FramesError} if the delivery as a whole failed
 */
export async function deliverArticle(
  { stream, streamAt, sources, skipped, unreadable, leftOut }: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  checkSayable(options, stream, sources);
  if (streamAt !== undefined) {
    throw new FramesError("usage", `Cannot change the stream ${stream} in the article's dialect`);
  }
  const address = parseAddress(options.to!, "--to");
  const { onEvent, onMessage, signal } = options;
  const totals = sources.map(({ total }) => total);
  const frames = totals.includes(undefined)
    ? undefined
    : totals.reduce<number>((sum, total) => sum + total!, 0);
  onEvent?.({ type: "found", stream, sources: sources.length, frames });
  let told = 0;
  const tellSkipped = () => {
    for (; told < skipped.length; told++) onEvent?.({ type: "skipped", skipped: skipped[told]! });
  };
  tellSkipped();
  const shortfall = new Shortfall(options);
  const report = (one: Undelivered) => {
    shortfall.add(one);
    onEvent?.({ type: "undelivered", report: one });
  };
  for (const { path, why } of unreadable) {
    const error = new FramesError("unreadable", `Cannot read the folder: ${why}`);
    report({ source: path, first: 0, last: 0, what: path, error });
  }
  const progress = sources.map((source, index) => new Outlet(index + 1, source).progress);
  const reports = () => shortfall.reportOn(progress, started);
  const tell = () => onEvent?.({ type: "progress", sources: progress, report: reports });
  let interrupted = signal?.aborted === true;
  let dispatch: ArticleDispatch | undefined;
  const stop = () => {
    interrupted = true;
    dispatch?.interrupt();
  };
  signal?.addEventListener("abort", stop);
  for (const source of sources) source.begin?.();
  try {
    for (const [index, source] of sources.entries()) {
      if (interrupted) break;
      const own = progress[index]!;
      const limits = {
        stream,
        timeout: options.timeout ?? 30_000,
        connectWithin: options.connectWithin ?? 10_000,
      };
      dispatch = new ArticleDispatch(address, source, limits, {
        welcome: () => {
          source.connected?.();
          if (index === 0) {
            onEvent?.({ type: "connected", address: formatAddress(address), store: undefined });
          }
          tell();
        },
        part: (sent, size) => {
          own.part = sent;
          own.partOf = size;
        },
        delivered: (frame) => {
          const { size } = frame;
          source.settled?.(frame);
          own.sent++;
          own.settled++;
          own.bytes += size;
          own.settledBytes += size;
          own.part = own.partOf = 0;
        },
        undelivered: ({ first, last, what, error }) => {
          own.lost += last - first + 1;
          report({ source: source.name, first, last, what, error });
        },
        tick: tell,
        ...(onMessage === undefined ? {} : { trace: (...line) => onMessage(...line) }),
      });
      await dispatch.run();
      // What captures live is complete when it was stopped.
      interrupted = dispatch.isInterrupted || (interrupted && index < sources.length - 1);
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    tell();
    for (const source of sources) source.close();
  }
  tellSkipped();
  const sum = (count: (source: SourceProgress) => number) =>
    progress.reduce((total, source) => total + count(source), 0);
  return {
    ...nothingDone,
    stream,
    address: formatAddress(address),
    frames: sum(({ settled }) => settled),
    bytes: sum(({ bytes }) => bytes),
    lost: sum(({ lost }) => lost),
    seconds: (Date.now() - started) / 1000,
    store: "",
    sources: reports(),
    dropped: shortfall.dropped,
    undelivered: shortfall.undelivered,
    reasons: shortfall.reasons,
    leftOut,
    interrupted,
  };
}

/** @throws {FramesError} `usage` */
function checkSayable(
  options: SendOptions,
  stream: string,
  sources: readonly { readonly name: string }[],
): void {
  const asked = unsayable.find(([name]) => options[name] !== undefined && options[name] !== false);
  if (asked !== undefined) {
    throw new FramesError("usage", `Cannot send with ${asked[1]} in the article's dialect`);
  }
  if (options.to === undefined) {
    const message = "Cannot send: say where the article's server listens, with --to HOST:PORT";
    throw new FramesError("usage", message);
  }
  const wrong = [stream, ...sources.map(({ name }) => name)].find((name) => name.includes("|"));
  if (wrong === undefined) return;
  const hint = "choose with --stream and --source";
  throw new FramesError(
    "usage",
    `Cannot say ${wrong} in the article's dialect: it holds |; ${hint}`,
  );
}
