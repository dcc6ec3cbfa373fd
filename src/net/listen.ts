/** Listens for senders, and keeps their number below what the system can hold. */
import type { Socket, TCPSocketListener } from "bun";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Certificate } from "../auth/certificate.ts";
import { mostOpenFiles } from "../open-files.ts";
import { type Address, formatAddress } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";
import { Doorway } from "./doorway.ts";
import { exporterOf, renewCertificate, serverTls } from "./tls.ts";

/** A listening socket. */
export interface Listener {
  /** Where it listens; the port that the system chose if 0 was asked for. */
  readonly address: Address;
  /**
   * Has this certificate from the next connection on.
   *
   * @throws {FramesError} `usage`; the certificate before then still holds
   */
  renew(certificate: Certificate): void;
  /** Stops accepting; open connections go on. */
  stop(): void;
}

/** Where to listen: at an address, or on a socket there that listens already. */
export interface Place extends Address {
  readonly descriptor?: number;
}

/**
 * Makes the handler of a connection that has just come in; `isFull` if it must be turned away. `exporter`
 * is what its TLS channel exports.
 */
export type Accept = (
  peer: string,
  isFull: boolean,
  exporter: Uint8Array | undefined,
) => ConnectionHandler;

/** TLS 1.3 in front of every connection. */
export interface ListenerTls {
  readonly certificate: Certificate;
  /** Milliseconds that a handshake may take. */
  readonly within: number;
  /** A peer is gone with which no handshake came about. */
  failed(peer: string, error: FramesError): void;
}

/**
 * Listens at `address`; an empty host is every interface, IPv4 and IPv6.
 *
 * @param share of the connections that one listener alone may have
 * @throws {FramesError} `unreachable` if the address cannot be had
 */
export function listen(
  address: Place,
  accept: Accept,
  tls?: ListenerTls,
  share: number = 1,
): Listener {
  const most = Math.max(1, Math.floor(mostConnections() * share));
  let open = 0;
  const doorway = new Doorway<Socket<Connection | undefined>>(most);
  /** Deadlines of TLS handshakes that are under way. */
  const greeting = new Map<Socket<Connection | undefined>, NodeJS.Timeout>();
  const begin = (socket: Socket<Connection | undefined>, exporter?: Uint8Array) => {
    const handler = accept(peerOf(socket), open > most, exporter);
    const known = () => doorway.leave(socket);
    socket.data = new Connection(socket as Socket<unknown>, handler, exporter, known);
    socket.data.opened();
  };
  const greeted = (socket: Socket<Connection | undefined>) => {
    clearTimeout(greeting.get(socket));
    greeting.delete(socket);
  };
  /** Ends a TLS handshake that came to nothing; whoever speaks no TLS could not read a reason. */
  const refuse = (socket: Socket<Connection | undefined>, error: FramesError) => {
    greeted(socket);
    tls?.failed(peerOf(socket), error);
    socket.terminate();
  };
  const late = () => {
    return new FramesError("timeout", `No TLS handshake came about within ${tls!.within / 1000} s`);
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
          open++;
          const tooLong = doorway.enter(socket, hostOf(socket), open);
          if (tooLong !== undefined) sendAway(tooLong, refuse);
          if (tls === undefined) return begin(socket);
          const timer = setTimeout(() => refuse(socket, late()), tls.within);
          greeting.set(socket, timer);
        },
        handshake(socket, _, verdict) {
          // It was refused before, which Bun calls a handshake that failed.
          if (!greeting.has(socket)) return;
          greeted(socket);
          let exporter: Uint8Array;
          try {
            exporter = exporterOf(socket as Socket<unknown>);
          } catch (cause) {
            // Whoever only looks whether there is a server closes before it says anything.
            if (systemCode(verdict) !== "EPROTO") return void socket.terminate();
            const message = "A peer spoke no TLS 1.3, which this server needs: has it no key?";
            return refuse(socket, new FramesError("foreign", message, { cause }));
          }
          begin(socket, exporter);
        },
        ...socketEvents,
        close(socket, error) {
          open--;
          doorway.leave(socket);
          greeted(socket);
          socketEvents.close(socket, error);
        },
      },
    });
    return {
      // Of a socket that was there before, Bun does not know the port.
      address: { host, port: descriptor === undefined ? server.port : port },
      renew: (certificate) =>
        renewCertificate(server as unknown as TCPSocketListener<never>, certificate),
      stop: () => {
        server.stop();
        // Nobody else knows of those that are not through with TLS.
        for (const socket of [...greeting.keys()]) socket.terminate();
      },
    };
  } catch (error) {
    const taken = systemCode(error) === "EADDRINUSE";
    const hint = taken ? "; is frames serve running already? --listen takes another" : "";
    throw new FramesError(
      "unreachable",
      `Cannot listen at ${formatAddress(address)}: ${systemSentence(error)}${hint}`,
      { cause: error },
    );
  }
}

function peerOf(socket: Socket<Connection | undefined>): string {
  const port = (socket.remotePort as number | undefined) ?? 0;
  return formatAddress({ host: hostOf(socket), port });
}

function hostOf(socket: Socket<Connection | undefined>): string {
  // A peer that is gone again already has no address any more.
  const host = (socket.remoteAddress as string | undefined) ?? "unknown";
  return host.replace(/^::ffff:/, "");
}

/**
 * Others want in, and this one has not said who it is.
 *
 * @param refuse ends a connection that is not through with TLS
 */
function sendAway(
  socket: Socket<Connection | undefined>,
  refuse: (socket: Socket<Connection | undefined>, error: FramesError) => void,
): void {
  const connection = socket.data;
  // This is for the log: whoever is silent does not listen, and whoever is slow connects again.
  const error = new FramesError("full", "Nothing came of this connection, and others wanted in");
  if (connection === undefined) return refuse(socket, error);
  connection.fail(error);
  connection.terminate();
}

/** Half of the files that the system allows: the other half is for frames being written, and more. */
function mostConnections(): number {
  return Math.min(4096, Math.floor(mostOpenFiles() / 2));
}
