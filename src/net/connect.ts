/** Connects to a server, within a deadline of our own: the system's takes minutes. */
import type { Socket } from "bun";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { type Address, formatAddress, isLoopback } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";
import { clientTls, exporterOf } from "./tls.ts";

/**
 * Opens a connection.
 *
 * @param within milliseconds; a TLS handshake is part of it
 * @param secure whether it must be TLS 1.3
 * @param rate bytes a second that are sent at most
 * @throws {FramesError} `unreachable`, `no-connection` or `plaintext`, saying what to do about it
 */
export async function connect(
  address: Address,
  handler: ConnectionHandler,
  within: number,
  secure = false,
  rate?: number,
): Promise<Connection> {
  const shown = formatAddress(address);
  const { promise: late, reject } = Promise.withResolvers<never>();
  let isLate = false;
  let greeting: Socket<Connection | undefined> | undefined;
  const timer = setTimeout(() => {
    isLate = true;
    greeting?.terminate();
    const seconds = within / 1000;
    reject(
      new FramesError(
        "no-connection",
        `Cannot connect to ${shown}: no answer within ${seconds} s; is the machine on, and does a firewall let port ${address.port} through?`,
      ),
    );
  }, within);
  const ready = Promise.withResolvers<Connection>();
  // Whoever fails first is told; what comes of this later is of no interest.
  ready.promise.catch(() => {});
  const begin = (socket: Socket<Connection | undefined>, exporter?: Uint8Array) => {
    const connection = new Connection(socket as Socket<unknown>, handler, exporter, () => {}, rate);
    socket.data = connection;
    connection.opened();
    ready.resolve(connection);
  };
  const connecting = Bun.connect<Connection | undefined>({
    hostname: address.host || "127.0.0.1",
    port: address.port,
    allowHalfOpen: true,
    // Without `rejectUnauthorized` in it, Bun would connect in the clear.
    ...(secure ? { tls: clientTls } : {}),
    socket: {
      open(socket) {
        // Nobody waits for it any more, and nobody has to hear of it.
        if (isLate) return void socket.terminate();
        if (secure) greeting = socket;
        else begin(socket);
      },
      // Nothing was said before this, so that nothing can have gone out in the clear.
      handshake(socket, _, verdict) {
        if (isLate) return void socket.terminate();
        try {
          begin(socket, exporterOf(socket as Socket<unknown>));
        } catch (error) {
          const isOld = error instanceof FramesError && error.code === "plaintext";
          const isOther = isOld || systemCode(verdict) === "EPROTO";
          ready.reject(isOther ? noTls(error, shown) : brokenOff(error, shown));
          socket.terminate();
        }
      },
      ...socketEvents,
      close(socket, error) {
        if (socket.data !== undefined) return socketEvents.close(socket, error);
        ready.reject(brokenOff(error, shown));
      },
      // The promise rejects as well, with what is said there.
      connectError() {},
    },
  });
  try {
    return await Promise.race([connecting.then(() => ready.promise), late]);
  } catch (error) {
    if (!(error instanceof FramesError)) throw unreachable(error, address);
    // What comes of it later is of no interest.
    connecting.catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function noTls(cause: unknown, shown: string): FramesError {
  const hint = "is it frames serve --insecure, or no frames server?";
  const message = `Cannot trust ${shown} with a key: it does not speak TLS 1.3; ${hint}`;
  return new FramesError("plaintext", message, { cause });
}

function brokenOff(cause: unknown, shown: string): FramesError {
  const message = `${shown} closed the connection during the TLS handshake: is it a frames server, or a tunnel to none?`;
  return new FramesError("network", message, { cause });
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
