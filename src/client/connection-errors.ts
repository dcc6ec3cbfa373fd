/** Errors of a client's connection, with the server's address and a hint for the user. */
import { FramesError } from "../errors.ts";

/** First byte of the alert that a TLS server sends in reply to plain text (RFC 8446, 5.1). */
const tlsAlertType = 21;

const keyHint = "there: frames key; here: frames key save";

/** Returns `no-key` if the server's first bytes are a TLS alert: it requires TLS, and so a key. */
export function keyRequiredError(first: Uint8Array, peer: string): FramesError | undefined {
  if (first[0] !== tlsAlertType) return undefined;
  return new FramesError("no-key", `${peer} asks for a key: ${keyHint}`);
}

/**
 * Returns the error for a server that closed the connection before the transfer was complete.
 *
 * @param verb past participle for the message: `delivered` or `received`
 */
export function closedEarlyError(peer: string, isWelcomed: boolean, verb: string): FramesError {
  const message = isWelcomed
    ? `${peer} closed the connection before all was ${verb}`
    : `${peer} closed the connection before it said anything: is it a frames server, or a tunnel to none?`;
  return new FramesError("network", message);
}

/** Returns the error for a connection that failed in the network. */
export function brokenError(peer: string, { message }: FramesError): FramesError {
  return new FramesError("network", `The connection to ${peer} broke: ${message}`);
}

/**
 * Turns a protocol error into an error for the user, and one for the server (ERROR).
 *
 * @param hasKey whether the client proved a key
 * @returns `wireError` is undefined if the server needs no ERROR of its own
 */
export function translateError(
  error: FramesError,
  peer: string,
  hasKey: boolean,
): { readonly error: FramesError; readonly wireError?: FramesError } {
  const { code, message } = error;
  switch (code) {
    case "impostor":
      return {
        error: new FramesError(
          code,
          `${peer} did not prove that it holds the key: somebody else may be in between`,
        ),
        wireError: new FramesError("not-let-in"),
      };
    case "not-let-in":
      if (!hasKey) return { error, wireError: error };
      return { error: new FramesError(code, `${peer} does not take the key: ${keyHint}`) };
    case "foreign":
      return { error: new FramesError(code, `${peer} is no frames server: ${message}`) };
    case "timeout":
      return { error: new FramesError(code, `${peer}: ${message}`), wireError: error };
    default:
      return { error, wireError: error };
  }
}
