/** Sends frames: finds out what there is to send, and delivers it. */
import { clientKeys } from "./client/keys.ts";
import { Delivery } from "./client/delivery.ts";
import { Shortfall, type SourceReport } from "./client/gaps.ts";
import type { Kept } from "./client/removal.ts";
import { type ErrorName, FramesError, heard } from "./errors.ts";
import type { ConflictPolicy } from "./frame.ts";
import { formatAddress, parseAddress } from "./net/address.ts";
import type { SourceProgress, Undelivered } from "./session/outlet.ts";
import type { Skipped } from "./source/directory.ts";
import { plan } from "./client/plan.ts";
import { pacing, type Plan, type PlanOptions, type Sendable } from "./client/planning.ts";
import { Watch } from "./source/watch.ts";
import { software } from "./version.ts";
import type { Hello } from "./wire/messages.ts";

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
  readonly rate?: number;
  /** Milliseconds that connecting may take. Default 10,000. */
  readonly connectWithin?: number;
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
  | { type: "skipped"; skipped: Skipped }
  | { type: "connected"; address: string; store: string | undefined }
  | { type: "waiting"; reason: FramesError; milliseconds: number }
  | { type: "progress"; sources: readonly SourceProgress[]; report: () => readonly SourceReport[] }
  | { type: "undelivered"; report: Undelivered }
  | { type: "kept"; kept: Kept }
  /** What the frames of a video, a camera or a URL are. */
  | { type: "media"; source: string; description: string }
  /** Something cannot be watched or read for now, and is tried again. */
  | { type: "trouble"; error: FramesError };

/** What became of a delivery. */
export interface SendSummary {
  readonly stream: string;
  /** Frames that the server has now: stored by this delivery, or there before. */
  readonly frames: number;
  /** Bytes sent of frames. */
  readonly bytes: number;
  /** Of `frames`, those the server had already. */
  readonly skipped: number;
  /** Beside `frames`, those that were moved away from the server since it stored them. */
  readonly moved: number;
  /** Frames left out because of their names, as it was asked for. */
  readonly leftAlone: number;
  /** Frames that the server refused. */
  readonly refused: number;
  /** Frames that could not be read. */
  readonly lost: number;
  /** How often the connection had to be made again. */
  readonly retries: number;
  /** Frames removed here after they were delivered. */
  readonly removed: number;
  /** Frames that were to be removed and are still here, since they are no longer what was sent. */
  readonly kept: number;
  readonly seconds: number;
  /** Where the frames lie, in the server's words. */
  readonly store: string;
  readonly address: string;
  readonly sources: readonly SourceReport[];
  /** Frames that were not delivered, and why: the first thousand; `onEvent` is told of all. */
  readonly undelivered: readonly Undelivered[];
  /** Files that `include` and `exclude` left out. */
  readonly leftOut: number;
  /** Frames that were dropped by a policy that was chosen. */
  readonly dropped: number;
  /** How many were not delivered otherwise, by reason. */
  readonly reasons: Readonly<Partial<Record<ErrorName, number>>>;
  /** Whether it was stopped before all was sent. */
  readonly interrupted: boolean;
}

/** The numbers of a summary of nothing. */
export const nothingDone = {
  frames: 0,
  bytes: 0,
  skipped: 0,
  moved: 0,
  leftAlone: 0,
  refused: 0,
  lost: 0,
  retries: 0,
  removed: 0,
  kept: 0,
  seconds: 0,
};

const defaultTimeout = 30_000;
const defaultConnectWithin = 10_000;

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
export async function send(what: Sendable, options: SendOptions = {}): Promise<SendSummary> {
  const started = Date.now();
  const onTrouble = (error: FramesError) => options.onEvent?.({ type: "trouble", error });
  const planned = await plan(what, { onTrouble, ...options }, started);
  return await deliver(planned, options, started);
}

/**
 * Delivers what was planned.
 *
 * @param started session's start, in milliseconds since 1970
 * @throws {FramesError} if the delivery as a whole failed
 */
export async function deliver(
  planned: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  try {
    return await deliverPlan(planned, options, started);
  } finally {
    // Also if nothing was begun: another process may want it.
    planned.spool?.close();
  }
}

async function deliverPlan(
  { stream, sources, skipped, unreadable, leftOut, watch, spool, streamAt, media = [] }: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  const address = parseAddress(options.to ?? "127.0.0.1", "--to");
  for (const one of media) options.onEvent?.({ type: "media", ...one });
  const totals = sources.map(({ total }) => total);
  options.onEvent?.({
    type: "found",
    stream,
    sources: sources.length,
    frames: totals.includes(undefined) ? undefined : totals.reduce<number>((a, b) => a + b!, 0),
  });
  let kept = 0;
  let told = 0;
  // In large folders some are found later.
  const tellSkipped = () => {
    for (; told < skipped.length; told++) {
      options.onEvent?.({ type: "skipped", skipped: skipped[told]! });
    }
  };
  tellSkipped();
  const shortfall = new Shortfall(options);
  const { undelivered, reasons } = shortfall;
  const report = (one: Undelivered) => {
    shortfall.add(one);
    options.onEvent?.({ type: "undelivered", report: one });
  };
  for (const { path, why } of unreadable) {
    const error = new FramesError("unreadable", `Cannot read the folder: ${why}`);
    report({ source: path, first: 0, last: 0, what: path, error });
  }
  const base = { stream, address: formatAddress(address), undelivered, reasons, leftOut };
  if (sources.length === 0 && watch === undefined) {
    return { ...base, ...nothingDone, store: "", sources: [], dropped: 0, interrupted: false };
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
  const { timeout, connectWithin, giveUpAfter, signal, onEvent, onMessage } = options;
  const { checksum = false, move = false } = options;
  const limits = {
    timeout: timeout ?? defaultTimeout,
    connectWithin: connectWithin ?? defaultConnectWithin,
    giveUpAfter,
    checksum,
    move,
    keys: clientKeys("send", address, options),
    rate: options.rate,
    streamAt,
    isPatient: spool !== undefined,
    isOpen: watch !== undefined,
    signal,
  };
  const delivery = new Delivery(address, hello, sources, limits, {
    welcome: ({ store }) => {
      const place = store === undefined ? undefined : heard(store);
      onEvent?.({ type: "connected", address: formatAddress(address), store: place });
      onEvent?.({ type: "progress", sources: delivery.progress, report: reports });
    },
    waiting: (reason, milliseconds) => onEvent?.({ type: "waiting", reason, milliseconds }),
    tick: (sources) => onEvent?.({ type: "progress", sources, report: reports }),
    undelivered: report,
    kept: (one) => {
      kept++;
      onEvent?.({ type: "kept", kept: one });
    },
    ...(onMessage === undefined ? {} : { trace: onMessage }),
  });
  const reports = () => shortfall.reportOn(delivery.progress, started);
  // Before there is a connection too, somebody may ask for a report.
  if (spool !== undefined) {
    onEvent?.({ type: "progress", sources: delivery.progress, report: reports });
  }
  const watching = watch === undefined ? undefined : startWatch(watch, delivery, options);
  const running = delivery.run().finally(() => watching?.close());
  const { done, welcome, retries, removed } = await running;
  tellSkipped();
  const sum = (count: (source: SourceProgress) => number) =>
    delivery.progress.reduce((total, source) => total + count(source), 0);
  const refused = sum((source) => source.refused);
  const moved = sum((source) => source.moved);
  const leftAlone = sum((source) => source.skipped);
  return {
    ...base,
    frames: sum(({ settled }) => settled) - refused - moved - leftAlone,
    bytes: sum(({ bytes }) => bytes),
    skipped: sum(({ present }) => present) + done.present,
    moved,
    leftAlone,
    refused,
    lost: sum(({ lost }) => lost),
    retries,
    removed,
    kept,
    seconds: (Date.now() - started) / 1000,
    store: heard(welcome.store ?? ""),
    sources: reports(),
    dropped: shortfall.dropped,
    interrupted: delivery.isInterrupted,
  };
}

/** Has what arrives in directories delivered, until the delivery is stopped. */
function startWatch(
  { roots, ...watchOptions }: NonNullable<Plan["watch"]>,
  delivery: Delivery,
  options: SendOptions,
): Watch {
  const { onEvent, signal } = options;
  const paced = pacing(options);
  const watching = new Watch(roots, watchOptions, {
    source: (source) => delivery.add(paced(source)),
    skipped: (skipped) => onEvent?.({ type: "skipped", skipped }),
    trouble: (error) => onEvent?.({ type: "trouble", error }),
  });
  watching.start();
  signal?.addEventListener("abort", () => {
    watching.stop();
    delivery.closeSources();
  });
  return watching;
}
