/** `send()`: plans what to send, and runs a session that sends it. */
import { checkedClientKeys, clientKeys } from "./client-keys.ts";
import { SendSession } from "./send-session.ts";
import { summarize, type TransferSummary } from "./summary.ts";
import { UndeliveredReport, type SourceReport } from "./undelivered.ts";
import type { NotRemoved } from "./sent-file-remover.ts";
import { FramesError, truncateMessage } from "../errors.ts";
import type { ConflictPolicy } from "../frame.ts";
import { formatAddress, parseAddress } from "../net/address.ts";
import { type SourceProgress, totalProgress, type Undelivered } from "../protocol/progress.ts";
import type { SkippedPath } from "../source/files/directory-source.ts";
import { plan } from "./plan/plan.ts";
import { createPacer, type Plan, type PlanOptions, type Sendable } from "./plan/options.ts";
import type { MultipartPipe } from "../source/live/multipart-pipe.ts";
import { DirectoryWatcher } from "../source/files/directory-watcher.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";

/** Options of `send`. */
export interface SendOptions extends Omit<PlanOptions, "dryRun"> {
  /** `HOST[:PORT]`. Default `127.0.0.1:9726`. */
  readonly to?: string;
  /**
   * What happens to a frame whose name is taken by other bytes in the store. `fail` counts it as
   * not delivered, `skip` leaves it out, `replace` stores it instead. Default `fail`.
   */
  readonly onConflict?: ConflictPolicy;
  /** Compares frames that may be stored already by CRC-32, not by size and time. */
  readonly checksum?: boolean;
  /** Sends frames again that were stored once and then moved away from the store. */
  readonly again?: boolean;
  /** Milliseconds of silence after which the connection counts as lost. Default 30,000. */
  readonly timeout?: number;
  /** Milliseconds without progress after which sending fails with `given-up`. Default: never. */
  readonly giveUpAfter?: number;
  /** A key as text. The server must require it, and prove that it has the same key. */
  readonly key?: string;
  /** Path of a key file; its keys are tried in order, each under the same rule as `key`. */
  readonly keyFile?: string;
  /** Sends without key or encryption, to a server that requires no key. */
  readonly insecure?: boolean;
  /** Bandwidth limit in bytes a second. */
  readonly maxBytesPerSecond?: number;
  /** Limit for connecting, in milliseconds. Default 10,000. */
  readonly connectTimeout?: number;
  /** Counts frames that an explicit `policy` dropped as not delivered. */
  readonly failOnGap?: boolean;
  /** Whether `onEvent` gets an event for each frame that the server has stored or refused. */
  readonly receipts?: boolean;
  /** Abort it to stop sending; frames in flight get up to 10 s to finish. */
  readonly signal?: AbortSignal;
  /** Called for each event. */
  readonly onEvent?: (event: SendEvent) => void;
  /** Called for each protocol message sent or received, frames included. */
  readonly onMessage?: (direction: "->" | "<-", line: string) => void;
}

/** Event of a sending client. */
export type SendEvent =
  | { type: "found"; stream: string; sources: number; frames: number | undefined }
  | { type: "skipped"; skipped: SkippedPath }
  | { type: "connected"; address: string; store: string | undefined }
  | { type: "waiting"; reason: FramesError; milliseconds: number }
  | { type: "progress"; sources: readonly SourceProgress[]; report: () => readonly SourceReport[] }
  | { type: "undelivered"; report: Undelivered }
  /** The server has stored the frame, had it, or refused it; then `undelivered` came before. */
  | { type: "settled"; source: string; sequence: number; name: string }
  | { type: "not-removed"; notRemoved: NotRemoved }
  /** A frame whose name is taken at the server was copied, since a later one may replace it here. */
  | { type: "kept"; path: string }
  /** A file is sent with the nearest possible capture time, because its own is out of range. */
  | { type: "time-clamped"; path: string }
  /** Describes the frames of a video, a camera or a URL. */
  | { type: "media"; source: string; description: string }
  /** Says what is unusual about encoded video, such as a stream without key frames. */
  | { type: "notice"; source: string; message: string }
  /** A directory, camera or URL failed, and is tried again. */
  | { type: "retry"; error: FramesError };

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

const defaultTimeoutMs = 30_000;
const defaultConnectTimeoutMs = 10_000;

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
  const onRetry = (error: FramesError) => options.onEvent?.({ type: "retry", error });
  const onTimeClamped = (path: string) => options.onEvent?.({ type: "time-clamped", path });
  const onNotice = (source: string, message: string) =>
    options.onEvent?.({ type: "notice", source, message });
  const planned = await plan(input, { onRetry, onTimeClamped, onNotice, ...options }, started);
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

async function runPlan(
  {
    stream,
    sources,
    skipped,
    unreadable,
    filteredOut,
    watch,
    spool,
    pipe,
    streamNameAt,
    session: plannedSession,
    media = [],
  }: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  const address = parseAddress(options.to ?? "127.0.0.1", "--to");
  for (const item of media) options.onEvent?.({ type: "media", ...item });
  const totals = sources.map(({ total }) => total);
  options.onEvent?.({
    type: "found",
    stream,
    sources: sources.length,
    frames: totals.includes(undefined) ? undefined : totals.reduce<number>((a, b) => a + b!, 0),
  });
  let notRemovedCount = 0;
  let emittedCount = 0;
  // In large folders the walk continues while frames are sent, and finds more.
  const emitSkipped = () => {
    for (; emittedCount < skipped.length; emittedCount++) {
      options.onEvent?.({ type: "skipped", skipped: skipped[emittedCount]! });
    }
  };
  emitSkipped();
  const undeliveredReport = new UndeliveredReport(options);
  const addUndelivered = (item: Undelivered) => {
    undeliveredReport.add(item);
    options.onEvent?.({ type: "undelivered", report: item });
  };
  for (const { path, why } of unreadable) {
    const error = new FramesError("unreadable", why);
    addUndelivered({ source: path, first: 0, last: 0, what: path, error });
  }
  const start = { stream, address: formatAddress(address), started };
  if (sources.length === 0 && watch === undefined && pipe === undefined) {
    const summary = { ...summarize(start, [], undeliveredReport), ...emptyCounts };
    return { ...summary, store: "", filteredOut, interrupted: false };
  }
  // With a spool the session may start offline, where no name can be looked up.
  const keys =
    spool === undefined
      ? await checkedClientKeys("send", address, options)
      : clientKeys("send", address, options);
  const hello: Hello = {
    role: "send",
    session: spool?.session.id ?? plannedSession ?? crypto.randomUUID().replaceAll("-", ""),
    stream,
    started: `${spool?.session.started ?? started}000000`,
    software,
    ...(options.onConflict === undefined ? {} : { conflict: options.onConflict }),
    ...(options.again === true ? { again: true } : {}),
    ...(options.move === true ? { durable: true } : {}),
    // With `move`, only a source may say so, and for some of its frames. A server that does not
    // know this from SOURCE then replaces nothing of which there is no other copy.
    ...(watch === undefined || options.move === true ? {} : { revises: true }),
  };
  const { timeout, connectTimeout, giveUpAfter, signal, onEvent, onMessage } = options;
  const { checksum = false, move = false } = options;
  const sessionOptions = {
    timeout: timeout ?? defaultTimeoutMs,
    connectTimeout: connectTimeout ?? defaultConnectTimeoutMs,
    giveUpAfter,
    checksum,
    move,
    keys,
    maxBytesPerSecond: options.maxBytesPerSecond,
    streamNameAt,
    canStartOffline: spool !== undefined,
    isNewSession: spool?.isSessionEnded === true,
    canAddSources: watch !== undefined || pipe !== undefined,
    signal,
  };
  const session = new SendSession(address, hello, sources, sessionOptions, {
    onWelcome: ({ store }) => {
      const location = store === undefined ? undefined : truncateMessage(store);
      onEvent?.({ type: "connected", address: formatAddress(address), store: location });
      onEvent?.({ type: "progress", sources: session.progress, report: sourceReports });
    },
    onNewSession: () => spool?.endSession(),
    onWaiting: (reason, milliseconds) => onEvent?.({ type: "waiting", reason, milliseconds }),
    onTick: (sources) => onEvent?.({ type: "progress", sources, report: sourceReports }),
    onUndelivered: addUndelivered,
    ...(options.receipts === true
      ? {
          onSettled: (source, { sequence, name }) =>
            onEvent?.({ type: "settled", source, sequence, name }),
        }
      : {}),
    onKept: (path) => onEvent?.({ type: "kept", path }),
    onNotRemoved: (notRemoved) => {
      notRemovedCount++;
      onEvent?.({ type: "not-removed", notRemoved });
    },
    ...(onMessage === undefined ? {} : { trace: onMessage }),
  });
  const sourceReports = () => undeliveredReport.sourceReports(session.progress, started);
  // With a spool, a report may be requested before the first connection.
  if (spool !== undefined) {
    onEvent?.({ type: "progress", sources: session.progress, report: sourceReports });
  }
  const watcher = watch === undefined ? undefined : startWatch(watch, session, options);
  const reading = pipe === undefined ? undefined : readPipe(pipe, session, addUndelivered, options);
  // Its error is thrown below, after the frames before it were delivered.
  reading?.catch(() => {});
  const sending = session.run().finally(() => {
    watcher?.close();
    pipe?.stop();
  });
  const { done, welcome, retries, removed } = await sending;
  await reading;
  emitSkipped();
  const summary = summarize(start, session.progress, undeliveredReport);
  const { removedAtServer, conflictsSkipped } = totalProgress(session.progress);
  return {
    ...summary,
    present: summary.present + done.present,
    removedAtServer,
    conflictsSkipped,
    retries,
    removed,
    notRemoved: notRemovedCount,
    store: truncateMessage(welcome.store ?? ""),
    filteredOut,
    interrupted: session.isInterrupted,
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
  onUndelivered: (item: Undelivered) => void,
  options: SendOptions,
): Promise<void> {
  const pace = createPacer(options);
  options.signal?.addEventListener("abort", () => pipe.stop());
  try {
    await pipe.run({
      onSource: (source) => session.addSource(pace(source)),
      onRefused: (part) => onUndelivered({ ...part, first: 0, last: 0 }),
    });
    // The program was killed. If it is started again, it needs the spool.
    if (options.spool !== undefined && !pipe.hasEnded) session.stopRetrying();
  } finally {
    session.closeSources();
  }
}

/** Adds files that appear in the directories to the session, until the signal is aborted. */
function startWatch(
  { roots, ...watchOptions }: NonNullable<Plan["watch"]>,
  session: SendSession,
  options: SendOptions,
): DirectoryWatcher {
  const { onEvent, signal } = options;
  const pace = createPacer(options);
  const watcher = new DirectoryWatcher(roots, watchOptions, {
    onSource: (source) => session.addSource(pace(source)),
    onSkipped: (skipped) => onEvent?.({ type: "skipped", skipped }),
    onTimeClamped: (path) => onEvent?.({ type: "time-clamped", path }),
    onRetry: (error) => onEvent?.({ type: "retry", error }),
  });
  watcher.start();
  signal?.addEventListener("abort", () => {
    watcher.stop();
    session.closeSources();
  });
  return watcher;
}
