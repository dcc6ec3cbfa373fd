/** Options of a sending client, in either protocol. */
import type { ConflictPolicy } from "../frame.ts";
import type { PlanOptions } from "./plan/options.ts";
import type { SendEvent } from "./send-event.ts";
import type { TransferOptions } from "./transfer.ts";

/** Options of `send`. */
export interface SendOptions
  extends Omit<PlanOptions, "dryRun" | "onEvent">, TransferOptions<SendEvent> {
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
  /** Bandwidth limit in bytes a second. */
  readonly maxBytesPerSecond?: number;
  /** Counts frames that an explicit `policy` dropped as not delivered. */
  readonly failOnGap?: boolean;
  /** Whether `onEvent` gets an event for each frame that the server has stored or refused. */
  readonly receipts?: boolean;
}
