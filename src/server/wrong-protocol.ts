/** What a server answers to those who came to the wrong port, in their own language. */
import { FramesError } from "../errors.ts";

/** What a TLS client begins with, and "no such version" in answer (RFC 8446, 5.1 and 6). */
const tlsHandshake = 22;
const protocolVersionAlert = [21, 3, 3, 0, 2, 2, 70];

/** What a stranger is to be told, and what the log is. */
export interface WrongProtocolReply {
  readonly bytes: Uint8Array;
  readonly error: FramesError;
}

/**
 * Recognizes who speaks HTTP, or TLS to a server without keys.
 *
 * @param chunk the first that came of a connection
 * @param server `address` is its `HOST:PORT`
 */
export function replyToWrongProtocol(
  chunk: Uint8Array,
  server: { readonly address: string; readonly keys: object | undefined },
): WrongProtocolReply | undefined {
  if (looksLikeHttp(chunk)) return httpReply(server.address);
  if (chunk[0] !== tlsHandshake || server.keys !== undefined) return undefined;
  // So that the sender learns at once that no key can be proved here.
  const message = "A sender wanted TLS, which needs a key on this server";
  return {
    bytes: Uint8Array.from(protocolVersionAlert),
    error: new FramesError("foreign", message),
  };
}

function looksLikeHttp(chunk: Uint8Array): boolean {
  const start = new TextDecoder("latin1").decode(chunk.subarray(0, 16));
  return /^(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|PATCH|TRACE|PRI) /.test(start);
}

function httpReply(address: string): WrongProtocolReply {
  const body = `This is a FRAMES/1 port, not a web server. Send frames to it with: frames send DIR --to ${address}\n`;
  const head = [
    "HTTP/1.1 400 Bad Request",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${body.length}`,
    "Connection: close",
  ];
  return {
    bytes: new TextEncoder().encode(`${head.join("\r\n")}\r\n\r\n${body}`),
    error: new FramesError("foreign", "An HTTP request came to the port for frames"),
  };
}
