/** Sends to the article's server in its protocol, for sites that migrate one end at a time. */
import { ArticleSendConnection } from "./connection.ts";
import { usageError } from "../../errors.ts";
import { Transfer } from "../transfer.ts";
import { parseAddress } from "../../net/address.ts";
import { plan } from "../plan/plan.ts";
import type { Plan, Sendable } from "../plan/options.ts";
import { emitFound, emptyCounts, type SendSummary } from "../send.ts";
import type { SendEvent } from "../send-event.ts";
import type { SendOptions } from "../send-options.ts";
import { OutgoingSource } from "../../protocol/send/outgoing-source.ts";

/** Warning to print before sending: what this protocol cannot guarantee. */
export const articleWarning =
  "The article's dialect: an ok means read, not stored; no checksum, no key, no resuming";

/** Options that this protocol cannot support, with their names in messages. */
const unsupportedOptions = [
  ["move", "--move"],
  ["checksum", "--checksum"],
  ["again", "--again"],
  ["onConflict", "--on-conflict"],
  ["watch", "--watch"],
  ["multipart", "--multipart"],
  ["receipts", "--receipts"],
  ["spool", "--spool"],
  ["copyVideo", "--copy-video"],
  ["maxBytesPerSecond", "--bwlimit"],
  ["giveUpAfter", "--give-up-after"],
  ["keyFile", "--key-file"],
  ["key", "a key"],
] as const satisfies readonly (readonly [keyof SendOptions, string])[];

/**
 * Sends like `send`, to the server of the article that `frames` is based on. Each source has its
 * own connection. A picture counts as delivered when the server has read it.
 *
 * @throws {FramesError} if a connection failed; it is not retried
 */
export async function sendArticle(
  input: Sendable,
  options: SendOptions = {},
): Promise<SendSummary> {
  const started = Date.now();
  checkArticleOptions(options);
  return await sendArticlePlan(
    await plan(input, { ...options, onlyPictures: true }, started),
    options,
    started,
  );
}

/**
 * Sends what `plan` found, one source after the other, and closes the sources.
 *
 * @param started start of the session, in milliseconds since 1970
 * @throws {FramesError} if a connection failed
 */
export async function sendArticlePlan(
  planned: Plan,
  options: SendOptions,
  started: number,
): Promise<SendSummary> {
  const { stream, streamNameAt, sources, filteredOut } = planned;
  checkNames([stream, ...sources.map(({ name }) => name)]);
  if (streamNameAt !== undefined) {
    throw usageError(
      `Cannot send to the stream ${stream} in the article's dialect: leave the % fields out of --stream`,
    );
  }
  const address = parseAddress(options.to!, "--to");
  const { onMessage, signal } = options;
  const transfer = new Transfer<SendEvent>(stream, address, started, options);
  const { emit, peer } = transfer;
  emitFound({ ...planned, media: [] }, emit);
  const progress = sources.map((source, index) => new OutgoingSource(index + 1, source).progress);
  const emitProgress = () => transfer.emitProgress(() => progress);
  let interrupted = signal?.aborted === true;
  let connection: ArticleSendConnection | undefined;
  const stop = () => {
    interrupted = true;
    connection?.interrupt();
  };
  signal?.addEventListener("abort", stop);
  for (const source of sources) source.startCapture?.();
  try {
    for (const [index, source] of sources.entries()) {
      if (interrupted) break;
      connection = new ArticleSendConnection({
        ...transfer.server,
        stream,
        source,
        progress: progress[index]!,
        onTick: emitProgress,
        onWelcome: () => {
          source.onConnected?.();
          if (index === 0) emit({ type: "connected", address: peer, store: undefined });
          emitProgress();
        },
        onUndelivered: (report) => emit({ type: "undelivered", report }),
        onMessage,
      });
      await connection.run();
      // A live source that was stopped is complete, so only sources not yet sent count.
      interrupted = connection.isInterrupted || (interrupted && index < sources.length - 1);
    }
  } finally {
    signal?.removeEventListener("abort", stop);
    emitProgress();
    for (const source of sources) source.close();
  }
  return { ...emptyCounts, ...transfer.summarize(progress), store: "", filteredOut, interrupted };
}

/**
 * Checks the options before anything is opened.
 *
 * @throws {FramesError} `usage` for options that this protocol does not support
 */
export function checkArticleOptions(options: SendOptions): void {
  const unsupported = unsupportedOptions.find(
    ([name]) => options[name] !== undefined && options[name] !== false,
  );
  if (unsupported !== undefined) {
    throw usageError(
      `Cannot use ${unsupported[1]} with --article: the article's dialect does not support it; leave it out`,
    );
  }
  if (options.to === undefined) {
    const message = "Cannot send with --article: no server given; add --to HOST:PORT";
    throw usageError(message);
  }
}

/** @throws {FramesError} `usage` for names that this protocol does not support */
function checkNames(names: readonly string[]): void {
  const badName = names.find((name) => name.includes("|"));
  if (badName === undefined) return;
  const hint = "choose another with --stream or --source";
  throw usageError(`Cannot send ${badName} in the article's dialect: the name contains |; ${hint}`);
}
