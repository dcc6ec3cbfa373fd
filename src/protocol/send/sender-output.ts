/** Holds the control messages of a sender for the server, and its events for the caller. */
import { encodeControl } from "../../wire/encode.ts";
import {
  type ControlBodies,
  type ControlType,
  MessageType,
  typeName,
} from "../../wire/messages.ts";
import type { DeclaredFrame, OutgoingSource } from "./outgoing-source.ts";
import type { SenderEvent } from "./sender-event.ts";
import type { ReportedEvents } from "./sender-options.ts";

export class SenderOutput {
  /** Encoded messages to send before the next frame. */
  readonly messages: Uint8Array[] = [];
  readonly reports: ReportedEvents;
  #events: SenderEvent[] = [];
  #isClosed = false;

  constructor(reports: ReportedEvents) {
    this.reports = reports;
  }

  /** @param line describes the message; its JSON by default */
  send<T extends ControlType>(
    type: T,
    source: number,
    body: ControlBodies[T],
    line?: string,
  ): void {
    if (this.#isClosed) return;
    if (this.reports.messages === true) {
      this.trace("->", line ?? `${typeName(type)} ${JSON.stringify(body)}`);
    }
    this.messages.push(encodeControl(type, source, body));
  }

  /** Sends SOURCE for a frame. */
  declareSource(source: OutgoingSource, frame: DeclaredFrame): void {
    if (this.#isClosed) return;
    const stream = source.streamNameOf(frame);
    const name = stream === "" ? source.input.name : `${stream}/${source.input.name}`;
    this.trace("->", `SOURCE ${source.id} ${name}`);
    this.messages.push(source.encodeDeclaration(frame));
  }

  /** Sends ERROR as the last message, even if a source provides more frames. */
  close(error: ControlBodies[typeof MessageType.error]): void {
    this.send(MessageType.error, 0, error);
    this.#isClosed = true;
  }

  /** Reports a message that was sent or received, on demand. */
  trace(direction: "->" | "<-", line: string): void {
    if (this.reports.messages === true) this.emit({ type: "message", direction, line });
  }

  emit(event: SenderEvent): void {
    this.#events.push(event);
  }

  /** Returns the events since the last call. */
  takeEvents(): readonly SenderEvent[] {
    if (this.#events.length === 0) return noEvents;
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

const noEvents: readonly SenderEvent[] = [];
