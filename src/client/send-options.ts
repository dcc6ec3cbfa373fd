/** Options of a sending client, in either protocol. */
import type { ConflictPolicy } from "../frame.ts";
import type { PlanOptions } from "./plan/options.ts";
import type { SendEvent } from "./send-event.ts";

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
