/** What is said when a connection to a server ends otherwise than it should. */
import { FramesError } from "../errors.ts";

/** What a TLS server answers to anything else begins with this byte: an alert (RFC 8446, 5.1). */
const tlsAlert = 21;

const keyHint = "there: frames key; here: frames key save";

/** Whether the first bytes of a server say that it wants TLS, and so a key: that is said then. */
export function asksForKey(first: Uint8Array, where: string): FramesError | undefined {
  if (first[0] !== tlsAlert) return undefined;
  return new FramesError("no-key", `${where} asks for a key: ${keyHint}`);
}

/** The server closed the connection. */
export function closedEarly(where: string, isGreeted: boolean, what: string): FramesError {
  const message = isGreeted
    ? `${where} closed the connection before all was ${what}`
    : `${where} closed the connection before it said anything: is it a frames server, or a tunnel to none?`;
  return new FramesError("network", message);
}

/** The network broke the connection. */
export function broken(where: string, { message }: FramesError): FramesError {
  return new FramesError("network", `The connection to ${where} broke: ${message}`);
}

/**
 * An error of the conversation: as people are told of it, and the server, if there is something to tell it.
 *
 * @param hasKey whether a key was proved
 */
export function conversationError(
  error: FramesError,
  where: string,
  hasKey: boolean,
): { readonly error: FramesError; readonly said?: FramesError } {
  const { code, message } = error;
  switch (code) {
    case "impostor":
      return {
        error: new FramesError(
          code,
          `${where} did not prove that it holds the key: somebody else may be in between`,
        ),
        said: new FramesError("not-let-in"),
      };
    case "not-let-in":
      if (!hasKey) return { error, said: error };
      return { error: new FramesError(code, `${where} does not take the key: ${keyHint}`) };
    case "foreign":
      return { error: new FramesError(code, `${where} is no frames server: ${message}`) };
    case "timeout":
      return { error: new FramesError(code, `${where}: ${message}`), said: error };
    default:
      return { error, said: error };
  }
}
