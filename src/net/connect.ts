/** Connects to a server with a deadline, because the system's own takes minutes. */
import type { Socket } from "bun";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { type Address, formatAddress, isLoopback } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";
import { clientTls, exportChannelBinding } from "./tls.ts";

/**
 * Opens a connection.
 *
 * @param timeoutMs deadline in milliseconds, including a TLS handshake
 * @param isSecure whether to require TLS 1.3
 * @param bytesPerSecond limit of the sending rate
 * @throws {FramesError} `unreachable`, `no-connection`, `network` or `plaintext`, with a hint
 */
export async function connect(
  address: Address,
  handler: ConnectionHandler,
  timeoutMs: number,
  isSecure = false,
  bytesPerSecond?: number,
): Promise<Connection> {
  const addressText = formatAddress(address);
  const { promise: timedOut, reject } = Promise.withResolvers<never>();
  let isTimedOut = false;
  let handshaking: Socket<Connection | undefined> | undefined;
  const timer = setTimeout(() => {
    isTimedOut = true;
    handshaking?.terminate();
    const seconds = timeoutMs / 1000;
    reject(
      new FramesError(
        "no-connection",
        `Cannot connect to ${addressText}: no answer within ${seconds} s; is the machine on, and does a firewall let port ${address.port} through?`,
      ),
    );
  }, timeoutMs);
  const ready = Promise.withResolvers<Connection>();
  // The race below may end with another error; this keeps a later rejection from being uncaught.
  ready.promise.catch(() => {});
  const start = (socket: Socket<Connection | undefined>, exporter?: Uint8Array) => {
    const connection = new Connection(
      socket as Socket<unknown>,
      handler,
      exporter,
      () => {},
      bytesPerSecond,
    );
    socket.data = connection;
    connection.onOpen();
    ready.resolve(connection);
  };
  const connecting = Bun.connect<Connection | undefined>({
    hostname: address.host || "127.0.0.1",
    port: address.port,
    allowHalfOpen: true,
    // Without `rejectUnauthorized` in `tls`, Bun would connect without TLS.
    ...(isSecure ? { tls: clientTls } : {}),
    socket: {
      open(socket) {
        // The caller has already got `no-connection`.
        if (isTimedOut) return void socket.terminate();
        if (isSecure) handshaking = socket;
        else start(socket);
      },
      // The handler starts only after the handshake, so no bytes can leave unencrypted.
      handshake(socket, _, handshakeError) {
        if (isTimedOut) return void socket.terminate();
        try {
          start(socket, exportChannelBinding(socket as Socket<unknown>));
        } catch (error) {
          const isOldTls = error instanceof FramesError && error.code === "plaintext";
          const isNotTls = isOldTls || systemCode(handshakeError) === "EPROTO";
          ready.reject(
            isNotTls ? noTlsError(error, addressText) : handshakeClosedError(error, addressText),
          );
          socket.terminate();
        }
      },
      ...socketEvents,
      close(socket, error) {
        if (socket.data !== undefined) return socketEvents.close(socket, error);
        ready.reject(handshakeClosedError(error, addressText));
      },
      // The promise of `Bun.connect` rejects with the same error.
      connectError() {},
    },
  });
  try {
    return await Promise.race([connecting.then(() => ready.promise), timedOut]);
  } catch (error) {
    if (!(error instanceof FramesError)) throw unreachableError(error, address);
    // Keeps a later rejection from being uncaught.
    connecting.catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function noTlsError(cause: unknown, addressText: string): FramesError {
  const hint = "is it frames serve --insecure, or no frames server?";
  const message = `Cannot trust ${addressText} with a key: it does not speak TLS 1.3; ${hint}`;
  return new FramesError("plaintext", message, { cause });
}

function handshakeClosedError(cause: unknown, addressText: string): FramesError {
  const message = `${addressText} closed the connection during the TLS handshake: is it a frames server, or a tunnel to none?`;
  return new FramesError("network", message, { cause });
}

function unreachableError(error: unknown, address: Address): FramesError {
  const reason = systemSentence(error);
  const addressText = formatAddress(address);
  if (systemCode(error) === "ECONNREFUSED") {
    const hint = isLoopback(address.host || "127.0.0.1")
      ? 'start "frames serve" on this machine'
      : `"frames serve" is not started there, listens for its own machine only (frames help keys), or a firewall closes port ${address.port}`;
    return new FramesError(
      "unreachable",
      `Cannot connect to ${addressText}: connection refused; ${hint}`,
      {
        cause: error,
      },
    );
  }
  return new FramesError("unreachable", `Cannot connect to ${addressText}: ${reason}`, {
    cause: error,
  });
}
