/** Listens for senders, and keeps their number below what the system can hold. */
import type { Socket } from "bun";
import { readFileSync } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { type Address, formatAddress } from "./address.ts";
import { Connection, type ConnectionHandler, socketEvents } from "./connection.ts";

/** A listening socket. */
export interface Listener {
  /** Where it listens; the port that the system chose if 0 was asked for. */
  readonly address: Address;
  /** Stops accepting; open connections go on. */
  stop(): void;
}

/** Makes the handler of a connection that has just come in; `isFull` if it must be turned away. */
export type Accept = (peer: string, isFull: boolean) => ConnectionHandler;

/**
 * Listens at `address`; an empty host is every interface, IPv4 and IPv6.
 *
 * @throws {FramesError} `unreachable` if the address cannot be had
 */
export function listen(address: Address, accept: Accept): Listener {
  const most = mostConnections();
  let open = 0;
  try {
    const server = Bun.listen<Connection>({
      hostname: address.host || "::",
      port: address.port,
      allowHalfOpen: true,
      socket: {
        open(socket) {
          open++;
          // A peer that is gone again already has no address any more.
          const host = (socket.remoteAddress as string | undefined) ?? "unknown";
          const port = (socket.remotePort as number | undefined) ?? 0;
          const peer = formatAddress({ host: host.replace(/^::ffff:/, ""), port });
          socket.data = new Connection(socket as Socket<unknown>, accept(peer, open > most));
          socket.data.opened();
        },
        ...socketEvents,
        close(socket, error) {
          open--;
          socketEvents.close(socket, error);
        },
      },
    });
    return {
      address: { host: address.host, port: server.port },
      stop: () => server.stop(),
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
