/** What a schedule is told, and what it needs of its conversation. */
import type { Frame, FrameSource } from "../../frame.ts";
import type { ControlBodies, ControlType } from "../../wire/messages.ts";
import type { Undelivered } from "../progress.ts";
import type { OutgoingSource } from "./outgoing-source.ts";

/** How the frames of a delivery are treated. */
export interface SendPolicy {
  /** Whether frames whose names are taken are left out, which is no failure. */
  readonly skipConflicts: boolean;
  /** Whether frames that may be there are always compared by CRC-32. */
  readonly checksum: boolean;
}

/** What a schedule needs of its conversation. */
export interface SchedulerHooks {
  /** Encoded messages that go before the next frame. */
  readonly controls: Uint8Array[];
  send<T extends ControlType>(type: T, source: number, body: ControlBodies[T], line?: string): void;
  /** Says SOURCE, for a stream. */
  declareSource(source: OutgoingSource, stream: string): void;
  /** All of the frame was sent. */
  onFrameSent(source: string, frame: Frame): void;
  /** The server has the frame. */
  onDelivered?(source: FrameSource, frame: Frame, crc: number): void;
  onUndelivered(report: Undelivered): void;
  /** Whether nothing is to be begun for now. */
  isPaused(): boolean;
  /** Whether more sources may come. */
  canAddSources(): boolean;
  /** A source failed. */
  onError(error: unknown): void;
  /** Something can be sent that could not before. */
  onWritable(): void;
}
