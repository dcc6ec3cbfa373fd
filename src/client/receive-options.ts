/** Options and events of a receiving client. */
import type { KeyOptions } from "./client-keys.ts";
import type { TransferEvent } from "./transfer.ts";

/** Options of `receive`. Times are in milliseconds unless another unit is named. */
export interface ReceiveOptions extends KeyOptions {
  /** `HOST[:PORT]`. Default `127.0.0.1:9726`. */
  readonly from?: string;
  /** Only these sources. Default: all. */
  readonly sources?: readonly string[];
  /** Continues with frames that arrive later, until `signal` is aborted. */
  readonly follow?: boolean;
  /** Ends after this number of frames. */
  readonly first?: number;
  /** Only frames captured at this time or later, in nanoseconds since 1970. */
  readonly since?: bigint;
  /** Only frames captured before this time, in nanoseconds since 1970. */
  readonly until?: bigint;
  /**
   * Only the newest frame of each source. With `follow`, continues with the newest frames; the
   * server drops the frames in between and reports their numbers.
   */
  readonly latest?: boolean;
  /** Largest accepted frame, in bytes. Default 256 MiB; 1 TiB when receiving into a directory. */
  readonly maxFrame?: number;
  /** Silence after which the connection to the server counts as lost. Default 30,000. */
  readonly timeout?: number;
  /** Time without progress after which receiving fails with `given-up`. Default: never. */
  readonly giveUpAfter?: number;
  /** Limit for connecting. Default 10,000. */
  readonly connectTimeout?: number;
  /** Abort it to stop receiving; frames that have begun get up to 10 s to finish. */
  readonly signal?: AbortSignal;
  /** Called for each event. */
  readonly onEvent?: (event: ReceiveEvent) => void;
  /** Called for each protocol message sent or received, frames included. */
  readonly onMessage?: (direction: "->" | "<-", line: string) => void;
}

/** Event of a receiving client. */
export type ReceiveEvent =
  | TransferEvent
  | { type: "connected"; address: string; store: string }
  /** An MCAP file or a video is complete. */
  | { type: "file"; path: string }
  /** Frames of encoded video that are not written, because a frame before them is missing. */
  | { type: "undecodable"; frames: number }
  /** Written frames of encoded video that may be damaged: they follow a recovery point. */
  | { type: "maybe-damaged"; frames: number };
