/** Options and events of a receiving client. */
import type { TransferEvent, TransferOptions } from "./transfer.ts";

/** Options of `receive`. */
export interface ReceiveOptions extends TransferOptions<ReceiveEvent> {
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
