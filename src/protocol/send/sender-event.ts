/** Events of a sender. Those about frames reach the caller of the library unchanged. */
import type { Frame, FrameSource } from "../../frame.ts";
import type { Welcome } from "../../wire/messages.ts";
import type { Undelivered } from "../progress.ts";

/** An event about frames that ended. */
export type FrameEvent =
  | { type: "undelivered"; report: Undelivered }
  /** The server has stored the frame, had it, or refused it; then `undelivered` came before. */
  | { type: "settled"; source: string; sequence: number; name: string };

/** A frame whose bytes the server has compared or received. */
export interface ComparedFrame {
  readonly source: FrameSource;
  readonly frame: Frame;
  /** CRC-32 of its payload. */
  readonly crc: number;
}

/** An event of one connection of a sender. */
export type SenderEvent =
  | FrameEvent
  | { type: "welcome"; welcome: Welcome }
  /** The server has stored these bytes. */
  | (ComparedFrame & { type: "stored" })
  /** The server has other bytes under the name of the frame. */
  | (ComparedFrame & { type: "conflict" })
  /** A message was sent or received, as one line of text. */
  | { type: "message"; direction: "->" | "<-"; line: string };
