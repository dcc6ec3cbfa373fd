/** Listens for senders, and keeps their number below what the system can hold. */
import type { Socket } from "bun";
import { readFileSync } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Certificate } from "../auth/certificate.ts";
import { type Address, formatAddress } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";
import { Doorway } from "./doorway.ts";
import { exporterOf, serverTls } from "./tls.ts";

/** A TLS handshake gets this long, in milliseconds. */
const handshakeWithin = 10_000;

/** A listening socket. */
export interface Listener {
  /** Where it listens; the port that the system chose if 0 was asked for. */
  readonly address: Address;
  /** Stops accepting; open connections go on. */
  stop(): void;
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

/**
 * Listens at `address`; an empty host is every interface, IPv4 and IPv6.
 *
 * @param certificate with it, connections are TLS 1.3
 * @throws {FramesError} `unreachable` if the address cannot be had
 */
export function listen(address: Address, accept: Accept, certificate?: Certificate): Listener {
  const most = mostConnections();
  let open = 0;
  const doorway = new Doorway<Socket<Connection | undefined>>(most);
  /** Deadlines of TLS handshakes that are under way. */
  const greeting = new Map<Socket<Connection | undefined>, NodeJS.Timeout>();
  const begin = (socket: Socket<Connection | undefined>, exporter?: Uint8Array) => {
    const port = (socket.remotePort as number | undefined) ?? 0;
    const peer = formatAddress({ host: hostOf(socket), port });
    const handler = accept(peer, open > most, exporter);
    const known = () => doorway.leave(socket);
    socket.data = new Connection(socket as Socket<unknown>, handler, exporter, known);
    socket.data.opened();
  };
  const greeted = (socket: Socket<Connection | undefined>) => {
    clearTimeout(greeting.get(socket));
    greeting.delete(socket);
  };
  try {
    const server = Bun.listen<Connection | undefined>({
      hostname: address.host || "::",
      port: address.port,
      allowHalfOpen: true,
      ...(certificate === undefined ? {} : { tls: serverTls(certificate) }),
      socket: {
        open(socket) {
          open++;
          const tooLong = doorway.enter(socket, hostOf(socket), open);
          if (tooLong !== undefined) sendAway(tooLong);
          if (certificate === undefined) return begin(socket);
          greeting.set(
            socket,
            setTimeout(() => socket.terminate(), handshakeWithin),
          );
        },
        handshake(socket) {
          greeted(socket);
          // Whoever speaks something else has said nothing that could be answered.
          const exporter = attempt(() => exporterOf(socket as Socket<unknown>));
          if (exporter === undefined) socket.terminate();
          else begin(socket, exporter);
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
      address: { host: address.host, port: server.port },
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

function hostOf(socket: Socket<Connection | undefined>): string {
  // A peer that is gone again already has no address any more.
  const host = (socket.remoteAddress as string | undefined) ?? "unknown";
  return host.replace(/^::ffff:/, "");
}

/** Others want in, and this one has not said who it is. */
function sendAway(socket: Socket<Connection | undefined>): void {
  const connection = socket.data;
  if (connection === undefined) return void socket.terminate();
  // This is for the log: whoever is silent does not listen, and whoever is slow connects again.
  connection.fail(new FramesError("full", "Nothing came of this connection, and others wanted in"));
  connection.terminate();
}

function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}

/** Half of the files that the system allows: the other half is for frames being written. */
function mostConnections(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return Math.min(4096, Math.floor(Number(limit ?? 1024) / 2));
  } catch {
    // Where /proc is missing, macOS allows 256 files.
    return 100;
  }
}
