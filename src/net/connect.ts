/** Connects to a server with a deadline, because the system's own takes minutes. */
import type { Socket } from "bun";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { type Address, defaultPort, formatAddress, isIPAddress, isLoopback } from "./address.ts";
import {
  Connection,
  type ConnectionHandler,
  type ConnectionSocket,
  socketEvents,
} from "./connection.ts";
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
  let handshaking: ConnectionSocket | undefined;
  const timer = setTimeout(() => {
    isTimedOut = true;
    handshaking?.terminate();
    const seconds = Math.round(timeoutMs / 100) / 10;
    reject(
      new FramesError(
        "no-connection",
        `Cannot connect to ${addressText}: no answer within ${seconds} s; check that the machine is on, and that its firewall opens port ${address.port}`,
      ),
    );
  }, timeoutMs);
  const ready = Promise.withResolvers<Connection>();
  // The race below may end with another error; this keeps a later rejection from being uncaught.
  ready.promise.catch(() => {});
  const start = (socket: ConnectionSocket, exporter?: Uint8Array) => {
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
  /** Whether one of the addresses of the name has a connection. The others are closed. */
  let isOpen = false;
  const options = {
    port: address.port,
    allowHalfOpen: true,
    // Without `rejectUnauthorized` in `tls`, Bun would connect without TLS.
    ...(isSecure ? { tls: clientTls } : {}),
    socket: {
      open(socket: ConnectionSocket) {
        // The caller has already got `no-connection`, or another connection.
        if (isTimedOut || isOpen) return void socket.terminate();
        isOpen = true;
        if (isSecure) handshaking = socket;
        else start(socket);
      },
      // The handler starts only after the handshake, so no bytes can leave unencrypted.
      handshake(socket: ConnectionSocket, _: boolean, handshakeError: Error | null) {
        if (isTimedOut || socket !== handshaking) return void socket.terminate();
        try {
          start(socket, exportChannelBinding(socket as Socket<unknown>));
        } catch (error) {
          const isOldTls = error instanceof FramesError && error.code === "plaintext";
          const isNotTls = isOldTls || systemCode(handshakeError) === "EPROTO";
          ready.reject(
            isNotTls
              ? noTlsError(error, addressText)
              : handshakeClosedError(handshakeError ?? error, addressText),
          );
          socket.terminate();
        }
      },
      ...socketEvents,
      close(socket: ConnectionSocket, error?: Error) {
        if (socket.data !== undefined) return socketEvents.close(socket, error);
        if (socket === handshaking) ready.reject(handshakeClosedError(error, addressText));
      },
      // The promise of `Bun.connect` rejects with the same error.
      connectError() {},
    },
  };
  // All addresses of a name are tried at once, because some may not answer at all.
  const connecting = resolveHost(address).then((hosts) => {
    const attempts = hosts.map((hostname) =>
      Bun.connect<Connection | undefined>({ ...options, hostname }),
    );
    return Promise.any(attempts).catch((error: AggregateError) => Promise.reject(error.errors[0]));
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

/** Addresses of a name that are tried. */
const maxHosts = 8;

/**
 * Returns the IP addresses of a host. Looks a name up each time, because `Bun.connect` keeps the
 * address of a name for a while, and a server may get another one.
 *
 * @throws {FramesError} `unreachable`
 */
export async function resolveHost(address: Address): Promise<string[]> {
  const host = address.host || "127.0.0.1";
  if (isIPAddress(host)) return [host];
  try {
    const found = await Bun.dns.lookup(host, { backend: "getaddrinfo" });
    return [...new Set(found.map((entry) => entry.address))].slice(0, maxHosts);
  } catch (error) {
    // Bun's codes are those of the system with a prefix.
    const code = systemCode(error)?.replace(/^DNS_/, "");
    throw unreachableError(Object.assign(new Error(`${error}`), { code }), address);
  }
}

function noTlsError(cause: unknown, addressText: string): FramesError {
  const hint = "if it is frames serve --insecure, add --insecure here too";
  const message = `Cannot use a key with ${addressText}: it does not use TLS 1.3; ${hint}`;
  return new FramesError("plaintext", message, { cause });
}

function handshakeClosedError(cause: unknown, addressText: string): FramesError {
  const message = `${addressText} closed the connection during the TLS handshake: no frames server listens there, or a tunnel leads nowhere; check the address`;
  return new FramesError("network", message, { cause });
}

/** What to do about a host that cannot be reached, by the system's code. */
const unreachableHints: Readonly<Record<string, string>> = {
  ENOTFOUND: "check the host name, or write its IP address",
  EHOSTUNREACH: "check the address, and the network of both machines",
  ENETUNREACH: "check the network of this machine",
};

function unreachableError(error: unknown, address: Address): FramesError {
  const reason = systemSentence(error);
  const addressText = formatAddress(address);
  if (systemCode(error) === "ECONNREFUSED") {
    const hint = isLoopback(address.host || "127.0.0.1")
      ? `run frames serve${address.port === defaultPort ? "" : ` --listen ${addressText}`} on this machine`
      : `there run frames serve --listen :${address.port}, and open port ${address.port} in its firewall`;
    const message = `Cannot connect to ${addressText}: connection refused; ${hint}`;
    return new FramesError("unreachable", message, { cause: error });
  }
  const hint = unreachableHints[systemCode(error) ?? ""];
  const message = `Cannot connect to ${addressText}: ${reason}${hint === undefined ? "" : `; ${hint}`}`;
  return new FramesError("unreachable", message, { cause: error });
}
