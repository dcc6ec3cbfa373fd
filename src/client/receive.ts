/** Receives frames back from a server: into a directory, or for a program to take them. */
import type { KeyOptions } from "./client-keys.ts";
import { clientKeys } from "./client-keys.ts";
import { type ErrorName, FramesError, truncateMessage } from "../errors.ts";
import { UndeliveredReport, type SourceReport } from "./undelivered.ts";
import { formatAddress, parseAddress } from "../net/address.ts";
import { CallbackSink, type ReceivedFrame } from "./callback-sink.ts";
import { ReceiveSession } from "./receive-session.ts";
import type { SourceProgress, Undelivered } from "../protocol/send/outgoing-source.ts";
import { StreamCopy } from "../store/directory/stream-copy.ts";
import { checkPathPart } from "../store/name-rules.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";

/** What to receive, and how. Times are in milliseconds unless another unit is named. */
export interface ReceiveOptions extends KeyOptions {
  /** `HOST[:PORT]`. Default `127.0.0.1:9726`. */
  readonly from?: string;
  /** Only these sources. Default: all. */
  readonly sources?: readonly string[];
  /** Goes on with what arrives, until `signal` is aborted. */
  readonly follow?: boolean;
  /** Ends after so many frames. */
  readonly first?: number;
  /** Only what was captured at this time or later, in nanoseconds since 1970. */
  readonly since?: bigint;
  /**
   * Only the newest frame of each source; with `follow` the newest again and again, and those that came
   * before it meanwhile are dropped and told.
   */
  readonly latest?: boolean;
  /** Largest frame that is taken, in bytes, where frames are held in memory. Default 256 MiB. */
  readonly maxFrame?: number;
  /** After which a silent server counts as gone. Default 30,000. */
  readonly timeout?: number;
  /** Without progress, after which it is given up. Default: never. */
  readonly giveUpAfter?: number;
  /** That connecting may take. Default 10,000. */
  readonly connectTimeout?: number;
  /** Aborting it ends it: a frame that has begun is finished, within 10 s. */
  readonly signal?: AbortSignal;
  /** Is told what happens. */
  readonly onEvent?: (event: ReceiveEvent) => void;
  /** Is shown every message that goes or comes, frames included. */
  readonly onMessage?: (direction: "->" | "<-", line: string) => void;
}

/** What happens at a receiver. */
export type ReceiveEvent =
  | { type: "connected"; address: string; store: string }
  | { type: "waiting"; reason: FramesError; milliseconds: number }
  | { type: "progress"; sources: readonly SourceProgress[]; report: () => readonly SourceReport[] }
  /** Frames that do not come, or could not be kept, and why. */
  | { type: "undelivered"; report: Undelivered };

/** What was received. */
export interface ReceiveSummary {
  readonly stream: string;
  /** Frames that are here now: received, or here before. */
  readonly frames: number;
  /** Bytes of frames received. */
  readonly bytes: number;
  /** Of `frames`, those that were here already. */
  readonly present: number;
  /** Frames that could not be kept here. */
  readonly refused: number;
  /** Frames that are no longer in the store, or cannot be read there; those dropped not included. */
  readonly lost: number;
  /** Frames that were passed over with `latest`. */
  readonly dropped: number;
  readonly retries: number;
  readonly seconds: number;
  /** Where they come from, in the server's words. */
  readonly store: string;
  readonly address: string;
  readonly sources: readonly SourceReport[];
  /** The first thousand; `onEvent` is told of all. */
  readonly undelivered: readonly Undelivered[];
  /** How many there are, by reason; without `dropped`. */
  readonly reasons: Readonly<Partial<Record<ErrorName, number>>>;
  /** Whether it was ended before everything was received that was there. */
  readonly interrupted: boolean;
}

const defaults = { timeoutMs: 30_000, connectTimeoutMs: 10_000, maxFrameBytes: 256 << 20 } as const;

/** What the server may have under way. */
const defaultWindow = { bytes: 64 << 20, frames: 8192 } as const;
/** Likewise where somebody takes one frame after the other. */
const smallWindow = { bytes: 16 << 20, frames: 1024 } as const;

/** Where frames go instead of to whoever iterates. */
export interface ReceiveDestination {
  /** The stream is copied there: a second time only what is new since comes. */
  readonly directory?: string;
  /** Is given each frame, the next one when it has taken the one before. */
  readonly onFrame?: (frame: ReceivedFrame) => Promise<void> | void;
}

/**
 * Receives a stream, frame by frame: the server waits while a frame is being looked at.
 *
 * @throws {FramesError} if it failed as a whole
 *
 * @example
 * ```ts
 * import { receive, send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * const pictures = [{ name: "1.pgm", bytes: new TextEncoder().encode("P5 1 1 255\n!") }];
 * await send(pictures, { to: server.address, stream: "run7", source: "visible" });
 * for await (const { source, sequence, bytes } of receive("run7", { from: server.address })) {
 *   if (source !== "visible" || sequence !== 1 || bytes.length !== 12) throw new Error("another frame");
 * }
 * await receive("run7", { from: server.address, directory: "copy" });
 * await server.stop();
 * ```
 */
export function receive(
  stream: string,
  options: ReceiveOptions &
    ({ readonly directory: string } | Required<Pick<ReceiveDestination, "onFrame">>),
): Promise<ReceiveSummary>;
export function receive(
  stream: string,
  options?: ReceiveOptions,
): AsyncGenerator<ReceivedFrame, ReceiveSummary, void>;
export function receive(
  stream: string,
  options: ReceiveOptions & ReceiveDestination = {},
): Promise<ReceiveSummary> | AsyncGenerator<ReceivedFrame, ReceiveSummary, void> {
  const { directory, onFrame } = options;
  if (directory !== undefined) return receiveToDirectory(stream, directory, options);
  if (onFrame !== undefined) return receiveToCallback(stream, onFrame, false, options);
  return iterate(stream, options);
}

async function* iterate(
  stream: string,
  options: ReceiveOptions,
): AsyncGenerator<ReceivedFrame, ReceiveSummary, void> {
  const stopped = new AbortController();
  const signals =
    options.signal === undefined ? [stopped.signal] : [stopped.signal, options.signal];
  let pending: { frame: ReceivedFrame; onTaken: () => void } | undefined;
  let wake = () => {};
  const onFrame = (frame: ReceivedFrame) => {
    return new Promise<void>((onTaken) => {
      // Whoever iterates no more takes nothing.
      if (stopped.signal.aborted) return onTaken();
      pending = { frame, onTaken };
      wake();
    });
  };
  let isEnded = false;
  const signal = AbortSignal.any(signals);
  const receiving = receiveToCallback(stream, onFrame, false, { ...options, signal }).finally(
    () => {
      isEnded = true;
      wake();
    },
  );
  receiving.catch(() => {});
  try {
    for (;;) {
      while (pending === undefined && !isEnded) {
        await new Promise<void>((resolve) => (wake = resolve));
      }
      const next = pending as { frame: ReceivedFrame; onTaken: () => void } | undefined;
      if (next === undefined) return await receiving;
      pending = undefined;
      yield next.frame;
      next.onTaken();
    }
  } finally {
    stopped.abort();
    (pending as { onTaken: () => void } | undefined)?.onTaken();
    await receiving.catch(() => {});
  }
}

/**
 * Gives each frame to `take`.
 *
 * @param isSingleSource whether frames of a second source are an error
 */
export async function receiveToCallback(
  stream: string,
  onFrame: (frame: ReceivedFrame) => Promise<void> | void,
  isSingleSource: boolean,
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  return await runReceive(stream, new CallbackSink(onFrame, isSingleSource), smallWindow, options);
}

async function receiveToDirectory(
  stream: string,
  directory: string,
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  checkStream(stream);
  const { sources, since, latest = false } = options;
  // What is not wanted further on is not there when somebody wants everything.
  const copy = new StreamCopy(directory, { stream, sources, since }, !latest);
  try {
    return await runReceive(stream, copy, defaultWindow, { maxFrame: 2 ** 40, ...options });
  } finally {
    copy.close();
  }
}

function checkStream(stream: string): void {
  try {
    checkPathPart(stream, false);
  } catch (error) {
    throw new FramesError("usage", `Cannot receive: ${(error as Error).message}`);
  }
}

async function runReceive(
  stream: string,
  target: CallbackSink | StreamCopy,
  window: Required<Hello>["window"],
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  checkStream(stream);
  const started = Date.now();
  const address = parseAddress(options.from ?? "127.0.0.1", "--from");
  const { follow = false, latest = false, sources, since, first, onEvent, onMessage } = options;
  const { maxFrame = defaults.maxFrameBytes } = options;
  if (first !== undefined && !(Number.isSafeInteger(first) && first >= 1)) {
    throw new FramesError("usage", `Cannot receive the first ${first} frames: one is the least`);
  }
  const hello: Hello = {
    role: "receive",
    session: crypto.randomUUID().replaceAll("-", ""),
    stream,
    started: `${started}000000`,
    software,
    limits: { frame: maxFrame },
    window: { ...window },
    follow,
    latest,
    ...(sources === undefined ? {} : { sources: [...sources] }),
    ...(since === undefined ? {} : { since: String(since) }),
  };
  // What was dropped to be fresh was chosen so.
  const undeliveredReport = new UndeliveredReport(latest ? { policy: ["latest"] } : {});
  const sourceReports = () => undeliveredReport.sourceReports(session.progress, started);
  const emitProgress = () => {
    onEvent?.({ type: "progress", sources: session.progress, report: sourceReports });
  };
  let store = "";
  const session = new ReceiveSession(
    address,
    hello,
    target,
    {
      timeout: options.timeout ?? defaults.timeoutMs,
      connectTimeout: options.connectTimeout ?? defaults.connectTimeoutMs,
      giveUpAfter: options.giveUpAfter,
      keys: clientKeys("receive", address, options),
      grants: { window, limits: { frame: maxFrame, sources: 65_535, unfinished: 16 } },
      first,
      signal: options.signal,
    },
    {
      onWelcome: (welcome) => {
        if (welcome.fresh === true && !follow && target.cursor === undefined) {
          const hint = "frames ls there shows which there are";
          const where = formatAddress(address);
          const what = [stream, ...(sources === undefined ? [] : [sources.join(" and ")])].join(
            "/",
          );
          throw new FramesError(
            "missing",
            `Cannot receive ${what}: ${where} has no frames of it; ${hint}`,
          );
        }
        store = truncateMessage(welcome.store ?? "");
        onEvent?.({ type: "connected", address: formatAddress(address), store });
        emitProgress();
      },
      onWaiting: (reason, milliseconds) => onEvent?.({ type: "waiting", reason, milliseconds }),
      onTick: emitProgress,
      onUndelivered: (report) => {
        undeliveredReport.add(report);
        onEvent?.({ type: "undelivered", report });
      },
      ...(onMessage === undefined ? {} : { trace: onMessage }),
    },
  );
  const { isComplete, retries } = await session.run();
  const sum = (count: (source: SourceProgress) => number) =>
    session.progress.reduce((total, source) => total + count(source), 0);
  const refused = sum((source) => source.refused);
  const dropped = sum((source) => source.dropped);
  return {
    stream,
    frames: sum(({ settled }) => settled) - refused,
    bytes: sum(({ bytes }) => bytes),
    present: sum(({ present }) => present),
    refused,
    lost: sum(({ lost }) => lost) - dropped,
    dropped,
    retries,
    seconds: (Date.now() - started) / 1000,
    store,
    address: formatAddress(address),
    sources: sourceReports(),
    undelivered: undeliveredReport.undelivered,
    reasons: undeliveredReport.reasons,
    // Whoever follows is ended by nothing else.
    interrupted: !isComplete && !follow,
  };
}
