/** Responds with a body that is produced while the client reads it. */
import { type BodySource, createBody } from "../stream-body.ts";
import type { StreamClient, StreamClientKind } from "../stream-clients.ts";
import type { RouteRequest } from "./request.ts";

/** Time after which a client that reads nothing of a stored part is disconnected. */
export const idleTimeoutSeconds = 120;

export interface StreamOptions {
  readonly kind: StreamClientKind;
  readonly headers: Readonly<Record<string, string>>;
  /** Seconds that the client may be idle. Default: no limit. */
  readonly idleTimeout?: number;
}

/**
 * Adds a streaming client, and responds with its body. A HEAD request gets only the headers.
 *
 * @throws {FramesError} `full` if there are too many streaming clients, `stopping`
 */
export function streamResponse(
  { request, clients, principal, setIdleTimeout }: RouteRequest,
  { kind, headers, idleTimeout = 0 }: StreamOptions,
  createSource: (client: StreamClient) => BodySource,
): Response {
  if (request.method === "HEAD") return new Response(null, { headers });
  const client = clients.add(kind, principal);
  setIdleTimeout(idleTimeout);
  return new Response(createBody(client, createSource(client)), { headers });
}
