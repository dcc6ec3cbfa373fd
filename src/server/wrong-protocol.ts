/** Answers clients that speak HTTP or TLS on a port that expects FRAMES/1. */
import { FramesError } from "../errors.ts";

/** Content type of a TLS handshake record, and a protocol_version alert (RFC 8446, 5.1 and 6). */
const tlsHandshake = 22;
const protocolVersionAlert = [21, 3, 3, 0, 2, 2, 70];

/** The reply to the client, and the error to report. */
export interface WrongProtocolReply {
  readonly bytes: Uint8Array;
  readonly error: FramesError;
}

/**
 * Recognizes HTTP, and TLS on a server without keys.
 *
 * @param chunk first bytes of a connection
 * @param server its `address` is `HOST:PORT`
 * @returns undefined if the chunk is neither
 */
export function replyToWrongProtocol(
  chunk: Uint8Array,
  server: { readonly address: string; readonly keys: object | undefined },
): WrongProtocolReply | undefined {
  if (looksLikeHttp(chunk)) return replyToHttp(server.address);
  if (chunk[0] !== tlsHandshake || server.keys !== undefined) return undefined;
  // The alert tells the sender at once that this server does not use keys.
  const message =
    "The client has a key, but this server uses none; serve with --key-file, or send with --insecure";
  return {
    bytes: Uint8Array.from(protocolVersionAlert),
    error: new FramesError("foreign", message),
  };
}

function looksLikeHttp(chunk: Uint8Array): boolean {
  const start = new TextDecoder("latin1").decode(chunk.subarray(0, 16));
  return /^(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|PATCH|TRACE|PRI) /.test(start);
}

/** Returns the reply to an HTTP request. `address` is the port's `HOST:PORT`. */
function replyToHttp(address: string): WrongProtocolReply {
  return httpReply(
    `This port is for FRAMES/1, not for HTTP. To send frames to it: frames send DIR --to ${address}\n`,
    "The client sent an HTTP request; the page is at the address of --http",
  );
}

/** Returns the reply to an HTTP request without TLS on a port that requires TLS. */
export function replyToHttpWithoutTls(address: string): WrongProtocolReply {
  return httpReply(
    `This port is for FRAMES/1 over TLS, not for HTTP. To send frames to it: frames send DIR --to ${address} (needs a key, see frames help keys)\n`,
    "The client sent an HTTP request without TLS; the page is at the address of --http",
  );
}

function httpReply(body: string, message: string): WrongProtocolReply {
  const head = [
    "HTTP/1.1 400 Bad Request",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${body.length}`,
    "Connection: close",
  ];
  return {
    bytes: new TextEncoder().encode(`${head.join("\r\n")}\r\n\r\n${body}`),
    error: new FramesError("foreign", message),
  };
}
