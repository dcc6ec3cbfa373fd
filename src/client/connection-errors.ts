/** Errors of a client's connection, with the server's address and a hint for the user. */
import { FramesError } from "../errors.ts";
import { handshakeTimeoutMs } from "../protocol/keepalive.ts";

/** First byte of the alert that a TLS server sends in reply to plain text (RFC 8446, 5.1). */
const tlsAlertType = 21;

const keyHint = "on the server run frames key, then paste its output here into frames key save";

const timeoutHint = "check the address and the network";

/** Returns `no-key` if the server's first bytes are a TLS alert: it requires TLS, and so a key. */
export function keyRequiredError(first: Uint8Array, peer: string): FramesError | undefined {
  if (first[0] !== tlsAlertType) return undefined;
  return new FramesError("no-key", `${peer} requires a key: ${keyHint}`);
}

/**
 * Returns the error for a server that closed the connection before the transfer was complete.
 *
 * @param verb past participle for the message: `delivered` or `received`
 */
export function closedEarlyError(peer: string, isWelcomed: boolean, verb: string): FramesError {
  const message = isWelcomed
    ? `${peer} closed the connection before all frames were ${verb}`
    : `${peer} closed the connection at once: no frames server listens there, or a tunnel leads nowhere; check the address`;
  return new FramesError("network", message);
}

/** Returns the error for a connection that failed in the network. */
export function brokenError(peer: string, { message, cause }: FramesError): FramesError {
  return new FramesError("network", `The connection to ${peer} broke: ${message}`, { cause });
}

/**
 * Turns a protocol error into an error for the user, and one for the server (ERROR).
 *
 * @param client whether it proved a key and got WELCOME, and its timeout in milliseconds
 * @returns `wireError` is undefined if the server needs no ERROR of its own
 */
export function translateError(
  error: FramesError,
  peer: string,
  client: { readonly hasKey: boolean; readonly isWelcomed: boolean; readonly timeoutMs: number },
): { readonly error: FramesError; readonly wireError?: FramesError } {
  const { code, message } = error;
  switch (code) {
    case "impostor":
      return {
        error: new FramesError(
          code,
          `${peer} did not prove that it has the key: another machine may intercept the connection; check the address`,
        ),
        wireError: new FramesError("not-let-in"),
      };
    case "not-let-in":
      if (!client.hasKey) return { error, wireError: error };
      return {
        error: new FramesError(
          code,
          `${peer} refused the key: it is not in the server's key file; ${keyHint}`,
        ),
      };
    case "foreign":
      return {
        error: new FramesError(
          code,
          `${peer} is not a frames server: ${message}; check the address`,
        ),
      };
    case "timeout": {
      const isLimitFixed = !client.isWelcomed && client.timeoutMs >= handshakeTimeoutMs;
      // After WELCOME the server's timeout may be the shorter one.
      const more = isLimitFixed ? "" : ", or give more time with --timeout at both ends";
      return {
        error: new FramesError(code, `${peer}: ${message}; ${timeoutHint}${more}`),
        wireError: error,
      };
    }
    default:
      return { error, wireError: error };
  }
}
