/** Options of a sender. */
import type { Key } from "../../auth/key.ts";
import type { Hello } from "../../wire/messages.ts";
import type { OutgoingSource } from "./outgoing-source.ts";

/** Events that a sender reports only on demand, because there may be one for each frame. */
export interface ReportedEvents {
  readonly settled?: boolean;
  /** `stored` and `conflict`. */
  readonly stored?: boolean;
  readonly messages?: boolean;
}

export interface SenderOptions {
  /** Sources to send, with the frames that earlier connections left unsettled. */
  readonly sources: readonly OutgoingSource[];
  readonly hello: Hello;
  /** Whether to compare offered frames by CRC-32 always, instead of by capture time. */
  readonly checksum: boolean;
  /** A server silent for this long counts as gone. */
  readonly timeoutMs: number;
  /** Milliseconds since 1970 of a clock that never jumps, as in all methods. */
  readonly now: number;
  /** Key to prove to the server, which must prove that it has the same key. */
  readonly key?: Key | undefined;
  readonly reports?: ReportedEvents;
  /** Called when more can be sent; call `transmit`. */
  readonly onWritable: () => void;
  /** Whether no frame may begin for now. When that changes, the caller must call `transmit`. */
  readonly isPaused?: () => boolean;
  /** Whether the caller may add sources later. END is not sent before this is `false`. */
  readonly canAddSources?: () => boolean;
}
