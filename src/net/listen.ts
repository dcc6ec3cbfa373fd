/** Listens for clients, and limits their number to what the system allows. */
import { writeSync } from "node:fs";
import { createServer } from "node:tls";
import type { Socket, TCPSocketListener } from "bun";
import { asFramesError, FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Certificate } from "../auth/certificate.ts";
import { maxLeaving, openFileShares } from "../common/open-files.ts";
import { type Address, formatAddress } from "./address.ts";
import {
  Connection,
  type ConnectionHandler,
  type ConnectionSocket,
  socketEvents,
} from "./connection.ts";
import { PendingConnections } from "./pending-connections.ts";
import { exportChannelBinding, serverTls } from "./tls.ts";

/** A listening socket. */
export interface Listener {
  /** The bound address, with the port that the system chose if port 0 was requested. */
  readonly address: Address;
  /**
   * Uses this certificate for new connections.
   *
   * @throws {FramesError} `usage`; the old certificate then stays in use
   */
  setCertificate(certificate: Certificate): void;
  /** Stops accepting. Open connections stay open. */
  stop(): void;
}

/** Address to listen at, or the descriptor of a socket that already listens there. */
export interface ListenAddress extends Address {
  readonly descriptor?: number;
}

/**
 * Creates the handler of a new connection. `isFull` means the connection must be refused.
 * `exporter` is the exported keying material of its TLS channel (RFC 9266).
 */
export type HandlerFactory = (
  peer: string,
  isFull: boolean,
  exporter: Uint8Array | undefined,
) => ConnectionHandler;

/** Settings for TLS 1.3 on every connection. */
export interface ListenerTls {
  readonly certificate: Certificate;
  /** Time limit of a handshake in milliseconds. */
  readonly handshakeTimeoutMs: number;
  /** A peer disconnected, or was disconnected, without a completed handshake. */
  onHandshakeFailed(peer: string, error: FramesError): void;
  /** Returns the reply to an HTTP request without TLS, and the error to report. */
  replyToHttp(): { readonly bytes: Uint8Array; readonly error: FramesError };
}

/** Time for a leaving connection to end its TLS handshake, in milliseconds. */
const maxLeavingMs = 2_000;

/**
 * Listens at `address`. An empty host means every interface, IPv4 and IPv6.
 *
 * @param share share of the possible connections that this listener may use, from 0 to 1
 * @throws {FramesError} `unreachable` if the address cannot be bound
 */
export function listen(
  address: ListenAddress,
  accept: HandlerFactory,
  tls?: ListenerTls,
  share: number = 1,
): Listener {
  const shares = openFileShares();
  const maxOpen = Math.max(1, Math.floor(shares.connections * share));
  let openCount = 0;
  /** Connections that are told that the server is full, oldest first. They take no place of others. */
  const leaving = new Set<ConnectionSocket>();
  const isOverLimit = () => openCount - leaving.size > maxOpen;
  const pending = new PendingConnections<ConnectionSocket>(maxOpen);
  /** Deadlines of unfinished TLS handshakes. */
  const handshakeTimers = new Map<ConnectionSocket, NodeJS.Timeout>();
  const start = (socket: ConnectionSocket, exporter?: Uint8Array) => {
    const isFull = leaving.has(socket) || isOverLimit();
    const handler = accept(peerAddress(socket), isFull, exporter);
    const markIdentified = () => pending.remove(socket);
    socket.data = new Connection(socket as Socket<unknown>, handler, exporter, markIdentified);
    socket.data.onOpen();
    if (isFull) leave(socket);
  };
  const startHandshakeTimer = (socket: ConnectionSocket, ms: number, error: () => FramesError) => {
    clearHandshakeTimer(socket);
    const timer = setTimeout(() => reject(socket, error()), ms);
    handshakeTimers.set(socket, timer);
  };
  /**
   * Gives the place of a connection to another. Only the oldest of too many such connections is cut
   * off, because one that is cut off in its TLS handshake cannot be told that it may try again.
   */
  const leave = (socket: ConnectionSocket) => {
    pending.remove(socket);
    leaving.add(socket);
    if (handshakeTimers.has(socket)) startHandshakeTimer(socket, maxLeavingMs, evictionError);
    cutOldest();
  };
  const cutOldest = () => {
    const [oldest] = leaving;
    if (oldest === undefined) return;
    if (leaving.size <= maxLeaving && openCount <= maxOpen + shares.leaving) return;
    leaving.delete(oldest);
    if (handshakeTimers.has(oldest)) reject(oldest, evictionError());
    // The system goes on to deliver what the peer was told. A reset would make the peer lose it.
    else oldest.close();
  };
  const clearHandshakeTimer = (socket: ConnectionSocket) => {
    clearTimeout(handshakeTimers.get(socket));
    handshakeTimers.delete(socket);
  };
  /**
   * Ends a failed TLS handshake without a message, because a peer without TLS could not read it.
   */
  const reject = (socket: ConnectionSocket, error: FramesError) => {
    clearHandshakeTimer(socket);
    tls?.onHandshakeFailed(peerAddress(socket), error);
    socket.terminate();
  };
  const timeoutError = () => {
    return new FramesError(
      "timeout",
      `The TLS handshake was not complete within ${tls!.handshakeTimeoutMs / 1000} s`,
    );
  };
  try {
    const { host, port, descriptor } = address;
    const server = Bun.listen<Connection | undefined>({
      // Bun's types omit `fd`, although node:net uses it to listen.
      ...(descriptor === undefined
        ? { hostname: host || "::", port }
        : ({ fd: descriptor } as unknown as { hostname: string; port: number })),
      allowHalfOpen: true,
      ...(tls === undefined ? {} : { tls: serverTls(tls.certificate) }),
      socket: {
        open(socket) {
          openCount++;
          const evicted = pending.add(socket, remoteHost(socket), openCount - leaving.size);
          if (evicted !== undefined) {
            leave(evicted);
            // One that is still in its TLS handshake is told afterwards.
            evicted.data?.fail(evictionError());
          }
          cutOldest();
          if (tls === undefined) return start(socket);
          startHandshakeTimer(socket, tls.handshakeTimeoutMs, timeoutError);
        },
        handshake(socket, _, handshakeError) {
          // The socket was already rejected, which Bun reports as a failed handshake.
          if (!handshakeTimers.has(socket)) return;
          clearHandshakeTimer(socket);
          let exporter: Uint8Array;
          try {
            exporter = exportChannelBinding(socket as Socket<unknown>);
          } catch (cause) {
            // A port scan or health check connects and closes without sending anything, so it is
            // not reported.
            if (systemCode(handshakeError) !== "EPROTO") return void socket.terminate();
            if (String(handshakeError).includes(httpRequestReason)) {
              const { bytes, error } = tls!.replyToHttp();
              writeWithoutTls(socket, bytes);
              return reject(socket, error);
            }
            const message =
              "The client did not use TLS 1.3: it has no key, or it is not a frames client";
            return reject(socket, new FramesError("foreign", message, { cause }));
          }
          start(socket, exporter);
        },
        ...socketEvents,
        close(socket, error) {
          openCount--;
          pending.remove(socket);
          leaving.delete(socket);
          clearHandshakeTimer(socket);
          socketEvents.close(socket, error);
        },
      },
    });
    return {
      // Bun does not know the port of a socket that it did not open.
      address: { host, port: descriptor === undefined ? server.port : port },
      setCertificate: (certificate) =>
        renewCertificate(server as unknown as TCPSocketListener<never>, certificate),
      stop: () => {
        server.stop();
        // Sockets in the TLS handshake have no Connection yet, so no other code closes them.
        for (const socket of [...handshakeTimers.keys()]) socket.terminate();
      },
    };
  } catch (error) {
    const code = systemCode(error) ?? "";
    const hint = Object.hasOwn(listenHints, code) ? `; ${listenHints[code]}` : "";
    throw new FramesError(
      "unreachable",
      `Cannot listen at ${formatAddress(address)}: ${systemSentence(error)}${hint}`,
      { cause: error },
    );
  }
}

/**
 * Replaces the certificate of a listener for new connections, without closing the listener. Bun's
 * `reload` of a listener leaves its TLS unchanged. `node:tls` is built on the same listener and can
 * change it.
 *
 * @throws {FramesError} `usage`; the old certificate then stays in use
 */
function renewCertificate(listener: TCPSocketListener<never>, certificate: Certificate): void {
  const { key, cert } = serverTls(certificate) as { key: string; cert: string };
  const server = Object.assign(createServer(), { _handle: listener });
  try {
    server.setSecureContext({ key, cert, minVersion: "TLSv1.3" });
  } catch (error) {
    throw asFramesError(error, "usage", "Cannot use the certificate");
  }
}

/** What to do about an address that cannot be bound, by the system's code. */
const listenHints: Readonly<Record<string, string>> = {
  EADDRINUSE: "stop the process that uses it, or choose another port with --listen",
  EADDRNOTAVAIL: "choose an address of this machine, or --listen :PORT for all of them",
  EACCES: "choose a port from 1024 up with --listen",
};

/** BoringSSL's reason for a handshake that began with an HTTP request. */
const httpRequestReason = "HTTP_REQUEST";

/** Writes to the connection below the TLS of a socket, so that a peer without TLS can read it. */
function writeWithoutTls(socket: ConnectionSocket, bytes: Uint8Array): void {
  try {
    // Bun's types omit `fd`. A new connection takes a short text at once.
    writeSync((socket as unknown as { fd: number }).fd, bytes);
  } catch {
    // On Windows the descriptor is no file. The peer then sees only the end of the connection.
  }
}

function peerAddress(socket: ConnectionSocket): string {
  const port = (socket.remotePort as number | undefined) ?? 0;
  return formatAddress({ host: remoteHost(socket), port });
}

function remoteHost(socket: ConnectionSocket): string {
  // A peer that has already disconnected has no address.
  const host = (socket.remoteAddress as string | undefined) ?? "unknown";
  return host.replace(/^::ffff:/, "");
}

/**
 * The error of a connection that makes room for a new one. A silent client ignores it, and a slow
 * client connects again.
 */
function evictionError(): FramesError {
  return new FramesError(
    "full",
    "The client sent nothing, and its connection was needed for another client",
  );
}
