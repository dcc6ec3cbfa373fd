/** What the WebSocket routes share: the end of a client, and the messages that a client sends. */
import type { ServerWebSocket } from "bun";
import { parseObject } from "../common/json-object.ts";
import type { StreamClient } from "./stream-clients.ts";

/** WebSocket close codes (RFC 6455, section 7.4.1). */
const goingAway = 1001;
export const policyViolation = 1008;

/**
 * Makes a WebSocket the transport of a client. Ends the client at once if it has no more access.
 *
 * @param onEnd called once when the client ends
 */
export function attachSocket(
  client: StreamClient,
  socket: ServerWebSocket<unknown>,
  onEnd: () => void,
): void {
  client.bufferedBytes = () => socket.getBufferedAmount();
  client.onEnd = (reason) => {
    onEnd();
    if (reason === "left") return;
    socket.close(reason === "stopping" ? goingAway : policyViolation, reason);
  };
  if (client.isEnded) client.onEnd("stopping");
}

/** Returns the JSON object in a message, or undefined if the message has none. */
export function parseMessage(message: string | Buffer) {
  return typeof message === "string" ? parseObject(message) : undefined;
}
