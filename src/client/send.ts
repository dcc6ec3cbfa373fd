/** Sends frames: finds out what there is to send, and delivers it. */
import { clientKeys } from "./client-keys.ts";
import { SendSession } from "./send-session.ts";
import { UndeliveredReport, type SourceReport } from "./undelivered.ts";
import type { NotRemoved } from "./sent-file-remover.ts";
import { type ErrorName, FramesError, truncateMessage } from "../errors.ts";
import type { ConflictPolicy } from "../frame.ts";
import { formatAddress, parseAddress } from "../net/address.ts";
import type { SourceProgress, Undelivered } from "../protocol/send/outgoing-source.ts";
import type { SkippedPath } from "../source/files/directory-source.ts";
import { plan } from "./plan/plan.ts";
import { createPacer, type Plan, type PlanOptions, type Sendable } from "./plan/options.ts";
import { DirectoryWatcher } from "../source/files/directory-watcher.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";

/** How to send. */
export interface SendOptions extends PlanOptions {
  /** `HOST[:PORT]`. Default `127.0.0.1:9726`. */
  readonly to?: string;
  /**
   * What becomes of frames whose names are taken by other bytes: refused, left out, or stored in
   * their place. Default `fail`.
   */
  readonly onConflict?: ConflictPolicy;
  /** Compare by CRC-32 whatever size and time say. */
  readonly checksum?: boolean;
  /** Send frames again that were moved away from the store. */
  readonly again?: boolean;
  /** Milliseconds after which a silent server counts as gone. Default 30,000. */
  readonly timeout?: number;
  /** Milliseconds without progress after which the delivery is given up. Default: never. */
  readonly giveUpAfter?: number;
  /** A key as text, which the server must ask for and prove too. */
  readonly key?: string;
  /** Likewise the keys in a file, tried in order. */
  readonly keyFile?: string;
  /** Sends without encryption to a server that lets anyone in. */
  readonly insecure?: boolean;
  /** Bytes a second that are sent at most. */
  readonly maxBytesPerSecond?: number;
  /** Milliseconds that connecting may take. Default 10,000. */
  readonly connectTimeout?: number;
  /** Whether frames that were dropped by a policy that was chosen count as not delivered all the same. */
  readonly failOnGap?: boolean;
  /** Aborting it stops sending: what is on its way is finished, for 10 s at most. */
  readonly signal?: AbortSignal;
  /** Is told what happens. */
  readonly onEvent?: (event: SendEvent) => void;
  /** Is shown every message that goes or comes, frames included. */
  readonly onMessage?: (direction: "->" | "<-", line: string) => void;
}

/** What happens at a sender. */
export type SendEvent =
  | { type: "found"; stream: string; sources: number; frames: number | undefined }
  | { type: "skipped"; skipped: SkippedPath }
  | { type: "connected"; address: string; store: string | undefined }
  | { type: "waiting"; reason: FramesError; milliseconds: number }
  | { type: "progress"; sources: readonly SourceProgress[]; report: () => readonly SourceReport[] }
  | { type: "undelivered"; report: Undelivered }
  | { type: "not-removed"; notRemoved: NotRemoved }
  /** What the frames of a video, a camera or a URL are. */
  | { type: "media"; source: string; description: string }
  /** Something cannot be watched or read for now, and is tried again. */
  | { type: "retry"; error: FramesError };

/** What became of a delivery. */
export interface SendSummary {
  readonly stream: string;
  /** Frames that the server has now: stored by this delivery, or there before. */
  readonly frames: number;
  /** Bytes sent of frames. */
  readonly bytes: number;
  /** Of `frames`, those the server had already. */
  readonly present: number;
  /** Beside `frames`, those that were moved away from the server since it stored them. */
  readonly removedAtServer: number;
  /** Frames left out because of their names, as it was asked for. */
  readonly conflictsSkipped: number;
  /** Frames that the server refused. */
  readonly refused: number;
  /** Frames that could not be read. */
  readonly lost: number;
  /** How often the connection had to be made again. */
  readonly retries: number;
  /** Frames removed here after they were delivered. */
  readonly removed: number;
  /** Frames that were to be removed and are still here, since they are no longer what was sent. */
  readonly notRemoved: number;
  readonly seconds: number;
  /** Where the frames lie, in the server's words. */
  readonly store: string;
  readonly address: string;
  readonly sources: readonly SourceReport[];
  /** Frames that were not delivered, and why: the first thousand; `onEvent` is told of all. */
  readonly undelivered: readonly Undelivered[];
  /** Files that `include` and `exclude` left out. */
  readonly filteredOut: number;
  /** Frames that were dropped by a policy that was chosen. */
  readonly dropped: number;
  /** How many were not delivered otherwise, by reason. */
  readonly reasons: Readonly<Partial<Record<ErrorName, number>>>;
  /** Whether it was stopped before all was sent. */
  readonly interrupted: boolean;
}

/** The numbers of a summary of nothing. */
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
 * Sends directories, or any frames that a program makes, and resolves when the server has said that
 * it has them. Frames that could not be delivered are in the summary; they are no error here.
 *
 * @throws {FramesError} if the delivery as a whole failed
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
  const planned = await plan(input, { onRetry, ...options }, started);
  return await sendPlan(planned, options, started);
}

/**
 * Delivers what was planned.
 *
 * @param started session's start, in milliseconds since 1970
 * @throws {FramesError} if the delivery as a whole failed
 */
export async function sendPlan(
  planned: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  try {
    return await runPlan(planned, options, started);
  } finally {
    // Also if nothing was begun: another process may want it.
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
    streamNameAt,
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
  // In large folders some are found later.
  const emitSkipped = () => {
    for (; emittedCount < skipped.length; emittedCount++) {
      options.onEvent?.({ type: "skipped", skipped: skipped[emittedCount]! });
    }
  };
  emitSkipped();
  const undeliveredReport = new UndeliveredReport(options);
  const { undelivered, reasons } = undeliveredReport;
  const addUndelivered = (item: Undelivered) => {
    undeliveredReport.add(item);
    options.onEvent?.({ type: "undelivered", report: item });
  };
  for (const { path, why } of unreadable) {
    const error = new FramesError("unreadable", `Cannot read the folder: ${why}`);
    addUndelivered({ source: path, first: 0, last: 0, what: path, error });
  }
  const base = { stream, address: formatAddress(address), undelivered, reasons, filteredOut };
  if (sources.length === 0 && watch === undefined) {
    return { ...base, ...emptyCounts, store: "", sources: [], dropped: 0, interrupted: false };
  }
  const hello: Hello = {
    role: "send",
    session: spool?.session.id ?? crypto.randomUUID().replaceAll("-", ""),
    stream,
    started: `${spool?.session.started ?? started}000000`,
    software,
    ...(options.onConflict === undefined ? {} : { conflict: options.onConflict }),
    ...(options.again === true ? { again: true } : {}),
    ...(options.move === true ? { durable: true } : {}),
    ...(watch === undefined ? {} : { revises: true }),
  };
  const { timeout, connectTimeout, giveUpAfter, signal, onEvent, onMessage } = options;
  const { checksum = false, move = false } = options;
  const sessionOptions = {
    timeout: timeout ?? defaultTimeoutMs,
    connectTimeout: connectTimeout ?? defaultConnectTimeoutMs,
    giveUpAfter,
    checksum,
    move,
    keys: clientKeys("send", address, options),
    maxBytesPerSecond: options.maxBytesPerSecond,
    streamNameAt,
    canStartOffline: spool !== undefined,
    canAddSources: watch !== undefined,
    signal,
  };
  const session = new SendSession(address, hello, sources, sessionOptions, {
    onWelcome: ({ store }) => {
      const location = store === undefined ? undefined : truncateMessage(store);
      onEvent?.({ type: "connected", address: formatAddress(address), store: location });
      onEvent?.({ type: "progress", sources: session.progress, report: sourceReports });
    },
    onWaiting: (reason, milliseconds) => onEvent?.({ type: "waiting", reason, milliseconds }),
    onTick: (sources) => onEvent?.({ type: "progress", sources, report: sourceReports }),
    onUndelivered: addUndelivered,
    onNotRemoved: (notRemoved) => {
      notRemovedCount++;
      onEvent?.({ type: "not-removed", notRemoved });
    },
    ...(onMessage === undefined ? {} : { trace: onMessage }),
  });
  const sourceReports = () => undeliveredReport.sourceReports(session.progress, started);
  // Before there is a connection too, somebody may ask for a report.
  if (spool !== undefined) {
    onEvent?.({ type: "progress", sources: session.progress, report: sourceReports });
  }
  const watcher = watch === undefined ? undefined : startWatch(watch, session, options);
  const sending = session.run().finally(() => watcher?.close());
  const { done, welcome, retries, removed } = await sending;
  emitSkipped();
  const sum = (count: (source: SourceProgress) => number) =>
    session.progress.reduce((total, source) => total + count(source), 0);
  const refused = sum((source) => source.refused);
  const removedAtServer = sum((source) => source.removedAtServer);
  const conflictsSkipped = sum((source) => source.conflictsSkipped);
  return {
    ...base,
    frames: sum(({ settled }) => settled) - refused - removedAtServer - conflictsSkipped,
    bytes: sum(({ bytes }) => bytes),
    present: sum(({ present }) => present) + done.present,
    removedAtServer,
    conflictsSkipped,
    refused,
    lost: sum(({ lost }) => lost),
    retries,
    removed,
    notRemoved: notRemovedCount,
    seconds: (Date.now() - started) / 1000,
    store: truncateMessage(welcome.store ?? ""),
    sources: sourceReports(),
    dropped: undeliveredReport.dropped,
    interrupted: session.isInterrupted,
  };
}

/** Has what arrives in directories delivered, until the delivery is stopped. */
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
    onRetry: (error) => onEvent?.({ type: "retry", error }),
  });
  watcher.start();
  signal?.addEventListener("abort", () => {
    watcher.stop();
    session.closeSources();
  });
  return watcher;
}
