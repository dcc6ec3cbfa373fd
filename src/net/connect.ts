/** Connects to a server, within a deadline of our own: the system's takes minutes. */
import type { Socket } from "bun";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { type Address, formatAddress, isLoopback } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";

/**
 * Opens a connection.
 *
 * @param within milliseconds
 * @throws {FramesError} `unreachable` or `no-connection`, saying what to do about it
 */
export async function connect(
  address: Address,
  handler: ConnectionHandler,
  within: number,
): Promise<Connection> {
  const shown = formatAddress(address);
  const { promise: late, reject } = Promise.withResolvers<never>();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    const seconds = within / 1000;
    reject(
      new FramesError(
        "no-connection",
        `Cannot connect to ${shown}: no answer within ${seconds} s; is the machine on, and does a firewall let port ${address.port} through?`,
      ),
    );
  }, within);
  const connecting = Bun.connect<Connection>({
    hostname: address.host || "127.0.0.1",
    port: address.port,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        // Nobody waits for it any more, and nobody has to hear of it.
        if (isLate) return void socket.terminate();
        socket.data = new Connection(socket as Socket<unknown>, handler);
        socket.data.opened();
      },
      ...socketEvents,
      // The promise rejects as well, with what is said there.
      connectError() {},
    },
  });
  try {
    return (await Promise.race([connecting, late])).data;
  } catch (error) {
    if (!(error instanceof FramesError)) throw unreachable(error, address);
    // What comes of it later is of no interest.
    connecting.catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function unreachable(error: unknown, address: Address): FramesError {
  const said = systemSentence(error);
  const shown = formatAddress(address);
  if (systemCode(error) === "ECONNREFUSED") {
    const hint = isLoopback(address.host || "127.0.0.1")
      ? 'start "frames serve" on this machine'
      : `"frames serve" is not started there, listens for its own machine only (frames help serve), or a firewall closes port ${address.port}`;
    return new FramesError(
      "unreachable",
      `Cannot connect to ${shown}: connection refused; ${hint}`,
      {
        cause: error,
      },
    );
  }
  return new FramesError("unreachable", `Cannot connect to ${shown}: ${said}`, { cause: error });
}
