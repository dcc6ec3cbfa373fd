/** `send()`: plans what to send, and runs a session that sends it. */
import { checkedClientKeys, clientKeys } from "./client-keys.ts";
import type { SendEvent } from "./send-event.ts";
import type { SendOptions } from "./send-options.ts";
import { SendSession } from "./send-session.ts";
import { Transfer, type TransferSummary } from "./transfer.ts";
import { FramesError, truncateMessage } from "../errors.ts";
import type { FrameSource } from "../frame.ts";
import { parseAddress } from "../net/address.ts";
import { totalProgress } from "../protocol/progress.ts";
import { plan } from "./plan/plan.ts";
import { createPacer, type Plan, type Sendable } from "./plan/options.ts";
import type { MultipartPipe } from "../source/live/multipart-pipe.ts";
import { DirectoryWatcher } from "../source/files/directory-watcher.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";

/** Result of `send`. `frames` are those that the server has now. */
export interface SendSummary extends TransferSummary {
  /** Frames that the server stored once and that were moved away since; not in `frames`. */
  readonly removedAtServer: number;
  /** Frames left out because their names are taken, with `onConflict: "skip"`. */
  readonly conflictsSkipped: number;
  /** Connections after the first. */
  readonly retries: number;
  /** Frames removed here by `move`. */
  readonly removed: number;
  /** Frames that `move` left in place, because they changed or could not be removed. */
  readonly notRemoved: number;
  /** Location of the store, as the server names it. */
  readonly store: string;
  /** Files that `include` and `exclude` left out. */
  readonly filteredOut: number;
  /** Whether the caller stopped it before all frames were sent. */
  readonly interrupted: boolean;
}

/** Counts of a summary in which no frame was sent. */
export const emptyCounts = {
  frames: 0,
  bytes: 0,
  present: 0,
  removedAtServer: 0,
  conflictsSkipped: 0,
  refused: 0,
  lost: 0,
  retries: 0,
  removed: 0,
  notRemoved: 0,
  seconds: 0,
};

/**
 * Sends directories, or frames that a program produces. Resolves when the server has confirmed
 * them. Frames that could not be delivered do not reject; they are in the summary.
 *
 * @throws {FramesError} if the session failed
 *
 * @example
 * ```ts
 * import { send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * async function* camera() {
 *   for (let shot = 1; shot <= 3; shot++) yield { bytes: new TextEncoder().encode(`P5 1 1 255\n${shot}`) };
 * }
 * const summary = await send(camera(), { to: server.address, stream: "night", source: "infrared" });
 * if (summary.frames !== 3) throw new Error("a frame is missing");
 * await server.stop();
 * ```
 */
export async function send(input: Sendable, options: SendOptions = {}): Promise<SendSummary> {
  const started = Date.now();
  const planned = await plan(input, options, started);
  return await sendPlan(planned, options, started);
}

/**
 * Sends what `plan` found, and closes its spool.
 *
 * @param started start of the session, in milliseconds since 1970
 * @throws {FramesError} if the session failed
 */
export async function sendPlan(
  planned: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  try {
    return await runPlan(planned, options, started);
  } finally {
    // Release the spool even if no session began, because another process may need it.
    planned.spool?.close();
  }
}

async function runPlan(planned: Plan, options: SendOptions, started: number): Promise<SendSummary> {
  const { stream, sources, filteredOut, watch, spool, pipe } = planned;
  const address = parseAddress(options.to ?? "127.0.0.1", "--to");
  const transfer = new Transfer<SendEvent>(stream, address, started, options);
  emitFound(planned, transfer.emit);
  if (sources.length === 0 && watch === undefined && pipe === undefined) {
    const summary = { ...transfer.summarize([]), ...emptyCounts };
    return { ...summary, store: "", filteredOut, interrupted: false };
  }
  // With a spool the session may start offline, where no name can be looked up.
  const keys =
    spool === undefined
      ? await checkedClientKeys("send", address, options)
      : clientKeys("send", address, options);
  const session = new SendSession({
    plan: planned,
    transfer,
    options,
    hello: createHello(planned, options, started),
    keys,
  });
  const { emit } = transfer;
  const watcher = watch === undefined ? undefined : startWatch(watch, session, emit, options);
  const reading = pipe === undefined ? undefined : readPipe(pipe, session, emit, options);
  // Its error is thrown below, after the frames before it were delivered.
  reading?.catch(() => {});
  const { done, welcome, ...removals } = await session.run().finally(() => {
    watcher?.close();
    pipe?.stop();
  });
  await reading;
  const summary = transfer.summarize(session.progress);
  const { removedAtServer, conflictsSkipped } = totalProgress(session.progress);
  return {
    ...summary,
    ...removals,
    present: summary.present + done.present,
    removedAtServer,
    conflictsSkipped,
    store: truncateMessage(welcome.store ?? ""),
    filteredOut,
    interrupted: session.isInterrupted,
  };
}

/** Reports what a plan has found. */
export function emitFound(
  { stream, sources, skipped, unreadable, media = [] }: Plan,
  onEvent: (event: SendEvent) => void,
): void {
  for (const item of media) onEvent({ type: "media", ...item });
  const totals = sources.map(({ total }) => total);
  const frames = totals.includes(undefined)
    ? undefined
    : totals.reduce<number>((sum, total) => sum + total!, 0);
  onEvent({ type: "found", stream, sources: sources.length, frames });
  for (const item of skipped) onEvent({ type: "skipped", skipped: item });
  for (const { path, why } of unreadable) {
    const error = new FramesError("unreadable", why);
    onEvent({
      type: "undelivered",
      report: { source: path, first: 0, last: 0, what: path, error },
    });
  }
}

function createHello(planned: Plan, options: SendOptions, started: number): Hello {
  const { stream, session, spool, watch } = planned;
  const { onConflict, again, move } = options;
  return {
    role: "send",
    session: spool?.session.id ?? session ?? crypto.randomUUID().replaceAll("-", ""),
    stream,
    started: `${spool?.session.started ?? started}000000`,
    software,
    ...(onConflict === undefined ? {} : { conflict: onConflict }),
    ...(again === true ? { again } : {}),
    ...(move === true ? { durable: true } : {}),
    // With `move`, only a source may say so, and for some of its frames. A server that does not
    // know this from SOURCE then replaces nothing of which there is no other copy.
    ...(watch === undefined || move === true ? {} : { revises: true }),
  };
}

/**
 * Adds the sources of a pipe to the session, until it ends or the signal is aborted.
 *
 * @throws {FramesError} `damaged` if the pipe is not in the format
 */
async function readPipe(
  pipe: MultipartPipe,
  session: SendSession,
  onEvent: (event: SendEvent) => void,
  options: SendOptions,
): Promise<void> {
  const pace = createPacer(options);
  options.signal?.addEventListener("abort", () => pipe.stop());
  try {
    await pipe.run({
      onSource: (source) => session.addSource(pace(source)),
      onRefused: (part) => {
        onEvent({ type: "undelivered", report: { ...part, first: 0, last: 0 } });
      },
    });
    // The program was killed. If it is started again, it needs the spool.
    if (options.spool !== undefined && !pipe.hasEnded) session.stopRetrying();
  } finally {
    session.closeSources();
  }
}

/** Adds files that appear in the directories to the session, until the signal is aborted. */
function startWatch(
  watch: NonNullable<Plan["watch"]>,
  session: SendSession,
  onEvent: (event: SendEvent) => void,
  options: SendOptions,
): DirectoryWatcher {
  const pace = createPacer(options);
  const onSource = (source: FrameSource) => session.addSource(pace(source));
  const watcher = new DirectoryWatcher({ ...watch, onSource, onEvent });
  watcher.start();
  options.signal?.addEventListener("abort", () => {
    watcher.stop();
    session.closeSources();
  });
  return watcher;
}
