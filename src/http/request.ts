/** Who asks for what. */
import type { Principal } from "./auth/access.ts";
import type { LiveSocket } from "./routes/live-socket.ts";
import type { StreamClients } from "./stream-clients.ts";

/** A request of somebody who was let in. */
export interface RouteRequest {
  readonly request: Request;
  readonly url: URL;
  readonly principal: Principal;
  readonly clients: StreamClients;
  /** Whoever reads the answer may do nothing for so many seconds; 0 is for ever. */
  setIdleTimeout(seconds: number): void;
  /** Makes a WebSocket of it, if that is what was asked for. */
  upgrade(socket: LiveSocket): boolean;
}
