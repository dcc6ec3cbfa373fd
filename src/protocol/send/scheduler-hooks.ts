/** Options and callbacks of the scheduler. */
import type { Frame, FrameSource } from "../../frame.ts";
import type { ControlBodies, ControlType } from "../../wire/messages.ts";
import type { Undelivered } from "../progress.ts";
import type { DeclaredFrame, OutgoingSource } from "./outgoing-source.ts";

/** How to handle frames that the server may have already. */
export interface SendPolicy {
  /** Whether a name conflict counts as skipped instead of failed. */
  readonly skipConflicts: boolean;
  /** Whether to compare offered frames by CRC-32 always, instead of by capture time. */
  readonly checksum: boolean;
}

/** Callbacks of a scheduler into its sender. */
export interface SchedulerHooks {
  /** Encoded messages to send before the next frame. */
  readonly controls: Uint8Array[];
  send<T extends ControlType>(type: T, source: number, body: ControlBodies[T], line?: string): void;
  /** Sends SOURCE for a frame. */
  declareSource(source: OutgoingSource, frame: DeclaredFrame): void;
  /** Called when a frame was sent completely. */
  onFrameSent(source: string, frame: Frame): void;
  /** Called when the server has settled the frame as stored. `crc` is the CRC-32 of its payload. */
  onDelivered?(source: FrameSource, frame: Frame, crc: number): void;
  /** Called when the server has other bytes under the frame's name. `crc` is as above. */
  onConflict?(source: FrameSource, frame: Frame, crc: number): void;
  onUndelivered(report: Undelivered): void;
  /** Whether no further frame may begin for now. */
  isPaused(): boolean;
  /** Whether the caller may add sources later. END is not sent before this is `false`. */
  canAddSources(): boolean;
  /** Called when a source failed. */
  onError(error: unknown): void;
  /** Called when more can be sent. */
  onWritable(): void;
}
