/** Listens for senders, and keeps their number below what the system can hold. */
import type { Socket, TCPSocketListener } from "bun";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Certificate } from "../auth/certificate.ts";
import { maxOpenFiles } from "../common/open-files.ts";
import { type Address, formatAddress } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";
import { PendingConnections } from "./pending-connections.ts";
import { exportChannelBinding, renewCertificate, serverTls } from "./tls.ts";

/** A listening socket. */
export interface Listener {
  /** Where it listens; the port that the system chose if 0 was asked for. */
  readonly address: Address;
  /**
   * Has this certificate from the next connection on.
   *
   * @throws {FramesError} `usage`; the certificate before then still holds
   */
  setCertificate(certificate: Certificate): void;
  /** Stops accepting; open connections go on. */
  stop(): void;
}

/** Where to listen: at an address, or on a socket there that listens already. */
export interface ListenAddress extends Address {
  readonly descriptor?: number;
}

/**
 * Makes the handler of a connection that has just come in; `isFull` if it must be turned away. `exporter`
 * is what its TLS channel exports.
 */
export type HandlerFactory = (
  peer: string,
  isFull: boolean,
  exporter: Uint8Array | undefined,
) => ConnectionHandler;

/** TLS 1.3 in front of every connection. */
export interface ListenerTls {
  readonly certificate: Certificate;
  /** Milliseconds that a handshake may take. */
  readonly handshakeTimeoutMs: number;
  /** A peer is gone with which no handshake came about. */
  onHandshakeFailed(peer: string, error: FramesError): void;
}

/**
 * Listens at `address`; an empty host is every interface, IPv4 and IPv6.
 *
 * @param share of the connections that one listener alone may have
 * @throws {FramesError} `unreachable` if the address cannot be had
 */
export function listen(
  address: ListenAddress,
  accept: HandlerFactory,
  tls?: ListenerTls,
  share: number = 1,
): Listener {
  const maxOpen = Math.max(1, Math.floor(maxConnections() * share));
  let openCount = 0;
  const pending = new PendingConnections<Socket<Connection | undefined>>(maxOpen);
  /** Deadlines of TLS handshakes that are under way. */
  const handshakeTimers = new Map<Socket<Connection | undefined>, NodeJS.Timeout>();
  const start = (socket: Socket<Connection | undefined>, exporter?: Uint8Array) => {
    const handler = accept(peerAddress(socket), openCount > maxOpen, exporter);
    const markIdentified = () => pending.remove(socket);
    socket.data = new Connection(socket as Socket<unknown>, handler, exporter, markIdentified);
    socket.data.onOpen();
  };
  const clearHandshakeTimer = (socket: Socket<Connection | undefined>) => {
    clearTimeout(handshakeTimers.get(socket));
    handshakeTimers.delete(socket);
  };
  /** Ends a TLS handshake that came to nothing; whoever speaks no TLS could not read a reason. */
  const reject = (socket: Socket<Connection | undefined>, error: FramesError) => {
    clearHandshakeTimer(socket);
    tls?.onHandshakeFailed(peerAddress(socket), error);
    socket.terminate();
  };
  const timeoutError = () => {
    return new FramesError(
      "timeout",
      `No TLS handshake came about within ${tls!.handshakeTimeoutMs / 1000} s`,
    );
  };
  try {
    const { host, port, descriptor } = address;
    const server = Bun.listen<Connection | undefined>({
      // Bun's types know nothing of `fd`, by which node:net listens.
      ...(descriptor === undefined
        ? { hostname: host || "::", port }
        : ({ fd: descriptor } as unknown as { hostname: string; port: number })),
      allowHalfOpen: true,
      ...(tls === undefined ? {} : { tls: serverTls(tls.certificate) }),
      socket: {
        open(socket) {
          openCount++;
          const evicted = pending.add(socket, remoteHost(socket), openCount);
          if (evicted !== undefined) evict(evicted, reject);
          if (tls === undefined) return start(socket);
          const timer = setTimeout(() => reject(socket, timeoutError()), tls.handshakeTimeoutMs);
          handshakeTimers.set(socket, timer);
        },
        handshake(socket, _, handshakeError) {
          // It was refused before, which Bun calls a handshake that failed.
          if (!handshakeTimers.has(socket)) return;
          clearHandshakeTimer(socket);
          let exporter: Uint8Array;
          try {
            exporter = exportChannelBinding(socket as Socket<unknown>);
          } catch (cause) {
            // Whoever only looks whether there is a server closes before it says anything.
            if (systemCode(handshakeError) !== "EPROTO") return void socket.terminate();
            const message = "A peer spoke no TLS 1.3, which this server needs: has it no key?";
            return reject(socket, new FramesError("foreign", message, { cause }));
          }
          start(socket, exporter);
        },
        ...socketEvents,
        close(socket, error) {
          openCount--;
          pending.remove(socket);
          clearHandshakeTimer(socket);
          socketEvents.close(socket, error);
        },
      },
    });
    return {
      // Of a socket that was there before, Bun does not know the port.
      address: { host, port: descriptor === undefined ? server.port : port },
      setCertificate: (certificate) =>
        renewCertificate(server as unknown as TCPSocketListener<never>, certificate),
      stop: () => {
        server.stop();
        // Nobody else knows of those that are not through with TLS.
        for (const socket of [...handshakeTimers.keys()]) socket.terminate();
      },
    };
  } catch (error) {
    const isInUse = systemCode(error) === "EADDRINUSE";
    const hint = isInUse ? "; is frames serve running already? --listen takes another" : "";
    throw new FramesError(
      "unreachable",
      `Cannot listen at ${formatAddress(address)}: ${systemSentence(error)}${hint}`,
      { cause: error },
    );
  }
}

function peerAddress(socket: Socket<Connection | undefined>): string {
  const port = (socket.remotePort as number | undefined) ?? 0;
  return formatAddress({ host: remoteHost(socket), port });
}

function remoteHost(socket: Socket<Connection | undefined>): string {
  // A peer that is gone again already has no address any more.
  const host = (socket.remoteAddress as string | undefined) ?? "unknown";
  return host.replace(/^::ffff:/, "");
}

/**
 * Others want in, and this one has not said who it is.
 *
 * @param reject ends a connection that is not through with TLS
 */
function evict(
  socket: Socket<Connection | undefined>,
  reject: (socket: Socket<Connection | undefined>, error: FramesError) => void,
): void {
  const connection = socket.data;
  // This is for the log: whoever is silent does not listen, and whoever is slow connects again.
  const error = new FramesError("full", "Nothing came of this connection, and others wanted in");
  if (connection === undefined) return reject(socket, error);
  connection.fail(error);
  connection.terminate();
}

/** Half of the files that the system allows: the other half is for frames being written, and more. */
function maxConnections(): number {
  return Math.min(4096, Math.floor(maxOpenFiles() / 2));
}
