/** The WebSocket of one page. */
import type { ServerWebSocket } from "bun";

export interface LiveSocket {
  opened(socket: ServerWebSocket<unknown>): void;
  heard(message: string | Buffer): void;
  drained(): void;
  closed(): void;
}
