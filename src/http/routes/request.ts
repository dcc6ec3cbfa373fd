/** Request types of the HTTP routes. */
import type { ServerWebSocket } from "bun";
import type { RunSlice } from "../../frame.ts";
import type { HttpContext } from "../context.ts";
import type { Principal } from "../principal.ts";
import type { StreamClients } from "../stream-clients.ts";

/** An authenticated request. */
export interface RouteRequest {
  readonly context: HttpContext;
  readonly request: Request;
  readonly url: URL;
  readonly principal: Principal;
  readonly clients: StreamClients;
  /** Runs costly work when the turn of the client's address comes. */
  readonly run: RunSlice;
  /** Sets how many seconds the client may be idle while it reads the response; 0 means no limit. */
  setIdleTimeout(seconds: number): void;
  /**
   * Upgrades the request to a WebSocket. Returns false if it is not a valid upgrade request.
   *
   * @param subprotocol the one that was chosen of those that the client offers
   */
  upgrade(handler: SocketHandler, subprotocol?: string): boolean;
}

/** A request for a stream. */
export interface StreamRequest extends RouteRequest {
  readonly stream: string;
}

/** A request for a source. */
export interface SourceRequest extends StreamRequest {
  readonly source: string;
}

/** Handles the events of one WebSocket. */
export interface SocketHandler {
  onOpen(socket: ServerWebSocket<unknown>): void;
  onMessage(message: string | Buffer): void;
  /** Called when the send buffer has drained. */
  onDrain(): void;
  /** Called once, whichever side closed the socket. */
  onClose(): void;
}
