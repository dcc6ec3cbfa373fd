/** A transfer to or from a server: its events and its result, in both directions and dialects. */
import type { ErrorName, FramesError } from "../errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import {
  deliveredCount,
  type SourceProgress,
  totalProgress,
  type Undelivered,
} from "../protocol/progress.ts";
import type { KeyOptions } from "./client-keys.ts";
import type { ClientConnectionOptions } from "./client-connection.ts";
import { type DropRules, type SourceReport, UndeliveredReport } from "./undelivered.ts";

/** Result of a transfer in either direction. */
export interface TransferSummary {
  readonly stream: string;
  /** Frames that the receiving side has now: stored by this transfer, or before it. */
  readonly frames: number;
  /** Bytes of frames transferred. */
  readonly bytes: number;
  /** Part of `frames`: frames that the receiving side had already. */
  readonly present: number;
  /** Frames that the receiving side refused, or could not store. */
  readonly refused: number;
  /** Frames that were never sent: not readable, too large, or dropped by a queue. */
  readonly lost: number;
  /** Frames dropped by an explicit `policy`; when receiving, by `latest`. */
  readonly dropped: number;
  readonly seconds: number;
  readonly address: string;
  readonly sources: readonly SourceReport[];
  /** Frames not delivered, and why: the first 1,000; `onEvent` gets all of them. */
  readonly undelivered: readonly Undelivered[];
  /** Frames not delivered, by error code. Frames in `dropped` count only with `failOnGap`. */
  readonly reasons: Readonly<Partial<Record<ErrorName, number>>>;
}

/** An event of a transfer in either direction. */
export type TransferEvent =
  /** There is no connection; the next attempt is made after the pause. */
  | { type: "waiting"; reason: FramesError; milliseconds: number }
  /** Comes about once a second while there is a connection. */
  | { type: "progress"; sources: readonly SourceProgress[]; report: () => readonly SourceReport[] }
  /** Frames that were not delivered, and why. */
  | { type: "undelivered"; report: Undelivered };

/** Options that both directions have. */
export interface TransferOptions<Event> extends KeyOptions {
  /** Milliseconds of silence after which the connection counts as lost. Default 30,000. */
  readonly timeout?: number;
  /** Milliseconds without progress after which it fails with `given-up`. Default: never. */
  readonly giveUpAfter?: number;
  /** Limit for connecting, in milliseconds. Default 10,000. */
  readonly connectTimeout?: number;
  /** Abort it to stop; frames in flight get up to 10 s to finish. */
  readonly signal?: AbortSignal;
  /** Called for each event. */
  readonly onEvent?: (event: Event) => void;
  /** Called for each protocol message sent or received, frames included. */
  readonly onMessage?: (direction: "->" | "<-", line: string) => void;
}

const defaultTimeoutMs = 30_000;
const defaultConnectTimeoutMs = 10_000;

export class Transfer<Event extends { readonly type: string } = TransferEvent> {
  readonly stream: string;
  /** Where a connection is made, and its time limits. */
  readonly server: Pick<ClientConnectionOptions, "address" | "timeout" | "connectTimeout">;
  /** `HOST:PORT` of the server. */
  readonly peer: string;
  readonly options: TransferOptions<Event | TransferEvent>;
  readonly #started: number;
  readonly #undelivered: UndeliveredReport;

  /** @param started milliseconds since 1970 */
  constructor(
    stream: string,
    address: Address,
    started: number,
    options: TransferOptions<Event | TransferEvent> & DropRules = {},
  ) {
    this.stream = stream;
    const { timeout = defaultTimeoutMs, connectTimeout = defaultConnectTimeoutMs } = options;
    this.server = { address, timeout, connectTimeout };
    this.peer = formatAddress(address);
    this.options = options;
    this.#started = started;
    this.#undelivered = new UndeliveredReport(options);
  }

  /** Passes an event to the caller, and remembers frames that were not delivered. */
  readonly emit = (event: Event | TransferEvent): void => {
    if (isUndelivered(event)) this.#undelivered.add(event.report);
    this.options.onEvent?.(event);
  };

  /** @param progress returns the sources; called again for each report */
  emitProgress(progress: () => readonly SourceProgress[]): void {
    const report = () => this.#undelivered.sourceReports(progress(), this.#started);
    this.emit({ type: "progress", sources: progress(), report });
  }

  /** Adds up the transfer. */
  summarize(progress: readonly SourceProgress[]): TransferSummary {
    const total = totalProgress(progress);
    const { bytes, present, refused, lost } = total;
    const { dropped, undelivered, reasons } = this.#undelivered;
    return {
      stream: this.stream,
      frames: deliveredCount(total),
      bytes,
      present,
      refused,
      lost,
      dropped,
      seconds: (Date.now() - this.#started) / 1000,
      address: this.peer,
      sources: this.#undelivered.sourceReports(progress, this.#started),
      undelivered,
      reasons,
    };
  }
}

function isUndelivered(event: {
  readonly type: string;
}): event is Extract<TransferEvent, { type: "undelivered" }> {
  return event.type === "undelivered";
}
