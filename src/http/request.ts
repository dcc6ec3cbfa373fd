/** Request types of the HTTP routes. */
import type { Principal } from "./auth/access.ts";
import type { LiveSocket } from "./routes/live-socket.ts";
import type { StreamClients } from "./stream-clients.ts";

/** An authenticated request. */
export interface RouteRequest {
  readonly request: Request;
  readonly url: URL;
  readonly principal: Principal;
  readonly clients: StreamClients;
  /** Sets how many seconds the client may be idle while it reads the response; 0 means no limit. */
  setIdleTimeout(seconds: number): void;
  /** Upgrades the request to a WebSocket. Returns false if it is not a valid upgrade request. */
  upgrade(socket: LiveSocket): boolean;
}
