/** What is said when a connection to a server ends otherwise than it should. */
import { FramesError } from "../errors.ts";

/** What a TLS server answers to anything else begins with this byte: an alert (RFC 8446, 5.1). */
const tlsAlertType = 21;

const keyHint = "there: frames key; here: frames key save";

/** Whether the first bytes of a server say that it wants TLS, and so a key: that is said then. */
export function keyRequiredError(first: Uint8Array, peer: string): FramesError | undefined {
  if (first[0] !== tlsAlertType) return undefined;
  return new FramesError("no-key", `${peer} asks for a key: ${keyHint}`);
}

/** The server closed the connection. */
export function closedEarlyError(peer: string, isWelcomed: boolean, verb: string): FramesError {
  const message = isWelcomed
    ? `${peer} closed the connection before all was ${verb}`
    : `${peer} closed the connection before it said anything: is it a frames server, or a tunnel to none?`;
  return new FramesError("network", message);
}

/** The network broke the connection. */
export function brokenError(peer: string, { message }: FramesError): FramesError {
  return new FramesError("network", `The connection to ${peer} broke: ${message}`);
}

/**
 * An error of the conversation: as people are told of it, and the server, if there is something to tell it.
 *
 * @param hasKey whether a key was proved
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
