/**
 * Interface to systemd: takes over a listening socket (sd_listen_fds(3)) and sends status messages
 * (sd_notify(3)). Bun has no Unix datagram sockets and cannot read the address of a socket that it
 * did not open. Both use the C library, which is loaded only when systemd passes a socket or
 * NOTIFY_SOCKET.
 */
import { ptr } from "bun:ffi";
import { libraryNames, openCLibrary } from "../common/c-library.ts";
import { FramesError, systemSentence, usageError } from "../errors.ts";
import { printable, redact } from "../safe-text.ts";
import type { Address } from "./address.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const symbols = {
  socket: { args: ["int", "int", "int"], returns: "int" },
  setsockopt: { args: ["int", "int", "int", "ptr", "u32"], returns: "int" },
  sendto: { args: ["int", "ptr", "u64", "int", "ptr", "u32"], returns: "i64" },
  getsockname: { args: ["int", "ptr", "ptr"], returns: "int" },
  clock_gettime: { args: ["int", "ptr"], returns: "int" },
} as const;

/** Constants of Linux, the same on every processor with an executable. */
const linux = {
  unixFamily: 1,
  ipv4Family: 2,
  ipv6Family: 10,
  datagram: 2,
  closeOnExec: 0o2000000,
  socketLevel: 1,
  sendTimeout: 20,
  noSignal: 0x4000,
  monotonic: 1,
};

function openLibrary() {
  const library = openCLibrary(symbols);
  if (library !== undefined) return library;
  const names = libraryNames().join(" or ");
  throw usageError(`Cannot notify systemd: found no ${names}`);
}

/** Time limit in milliseconds for sending a message while the receiver's queue is full. */
const sendTimeoutMs = 1000;

/** Sends the state of this process to the service manager that started it. */
export class SystemdNotifier {
  readonly #library = openLibrary();
  readonly #address: Uint8Array;
  readonly #socket: number;
  readonly #onFailure: (error: FramesError) => void;
  #hasFailed = false;

  /**
   * Creates a notifier for `NOTIFY_SOCKET`, if it is set. Starts the watchdog if `WATCHDOG_USEC`
   * asks for it.
   *
   * @param onFailure called once if no message can be sent; the server keeps running
   */
  static fromEnvironment(
    environment: Environment,
    onFailure: (error: FramesError) => void,
  ): SystemdNotifier | undefined {
    const { NOTIFY_SOCKET: path } = environment;
    if (!path || process.platform !== "linux") return undefined;
    try {
      const notifier = new SystemdNotifier(path, onFailure);
      notifier.#startWatchdog(environment);
      return notifier;
    } catch (error) {
      const why = `Cannot notify systemd at ${path}: ${systemSentence(error)}`;
      onFailure(usageError(why, { cause: error }));
      return undefined;
    }
  }

  private constructor(path: string, onFailure: (error: FramesError) => void) {
    // An abstract name begins with a zero byte.
    const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : path);
    if (!/^[/@]/.test(path) || name.length > 107) {
      throw usageError("NOTIFY_SOCKET is not a path or an abstract name");
    }
    this.#onFailure = onFailure;
    this.#address = Buffer.concat([Buffer.from([linux.unixFamily, 0]), name]);
    this.#socket = this.#library.socket(linux.unixFamily, linux.datagram | linux.closeOnExec, 0);
    const limit = BigUint64Array.of(BigInt(sendTimeoutMs / 1000), 0n);
    const { socketLevel, sendTimeout } = linux;
    this.#library.setsockopt(this.#socket, socketLevel, sendTimeout, ptr(limit), limit.byteLength);
  }

  /** Sends the watchdog message at half the interval after which systemd would kill the process. */
  #startWatchdog({ WATCHDOG_USEC, WATCHDOG_PID }: Environment): void {
    const microseconds = Number(WATCHDOG_USEC);
    const isForThisProcess = !WATCHDOG_PID || Number(WATCHDOG_PID) === process.pid;
    if (!(microseconds > 0) || !isForThisProcess) return;
    setInterval(() => this.#send("WATCHDOG=1"), Math.max(1, microseconds / 2000)).unref();
  }

  /** Reports that the server accepts connections. */
  ready(status: string): void {
    this.#send(`READY=1\n${statusLine(status)}`);
  }

  /** Reports that the configuration is being read again. `ready` reports the end. */
  reloading(): void {
    // By this time systemd knows which reload request the message answers.
    const time = new BigInt64Array(2);
    this.#library.clock_gettime(linux.monotonic, ptr(time));
    const microseconds = time[0]! * 1_000_000n + time[1]! / 1000n;
    this.#send(`RELOADING=1\nMONOTONIC_USEC=${microseconds}`);
  }

  /** Reports that the server is about to end. */
  stopping(status: string): void {
    this.#send(`STOPPING=1\n${statusLine(status)}`);
  }

  #send(text: string): void {
    const message = Buffer.from(text);
    const { length } = this.#address;
    const { noSignal } = linux;
    const sent = this.#library.sendto(
      this.#socket,
      ptr(message),
      message.length,
      noSignal,
      ptr(this.#address),
      length,
    );
    if (Number(sent) === message.length || this.#hasFailed) return;
    this.#hasFailed = true;
    this.#onFailure(usageError("Cannot notify systemd: NOTIFY_SOCKET does not accept messages"));
  }
}

/**
 * Formats the assignment of a status. A line break, as in the path of a store, would begin another
 * assignment.
 */
export function statusLine(status: string): string {
  return `STATUS=${printable(redact(status))}`;
}

/** The first descriptor that systemd passes. */
const firstPassedDescriptor = 3;

/**
 * Returns the descriptor of the socket that systemd passed in `LISTEN_FDS`, if any.
 *
 * @throws {FramesError} `usage` if there is more than one socket
 */
export function passedSocket({ LISTEN_PID, LISTEN_FDS }: Environment): number | undefined {
  if (Number(LISTEN_PID) !== process.pid || !(Number(LISTEN_FDS) > 0)) return undefined;
  if (Number(LISTEN_FDS) === 1) return firstPassedDescriptor;
  const hint = "expected one, for --listen; write one ListenStream= in the .socket unit";
  throw usageError(`Cannot serve on ${LISTEN_FDS} sockets of systemd: ${hint}`);
}

/**
 * Returns the address of a listening socket that this process did not open.
 *
 * @throws {FramesError} `usage` if it is not a TCP socket
 */
export function socketAddress(descriptor: number): Address {
  const buffer = Buffer.alloc(128);
  const length = Uint32Array.of(buffer.length);
  const isKnown =
    process.platform === "linux" &&
    openLibrary().getsockname(descriptor, ptr(buffer), ptr(length)) === 0;
  const family = isKnown ? buffer.readUInt16LE(0) : 0;
  const port = buffer.readUInt16BE(2);
  if (family === linux.ipv4Family) {
    const host = [...buffer.subarray(4, 8)].join(".");
    return { host: host === "0.0.0.0" ? "" : host, port };
  }
  if (family === linux.ipv6Family) {
    const groups = Array.from({ length: 8 }, (_, index) => buffer.readUInt16BE(8 + 2 * index));
    const { hostname } = new URL(`http://[${groups.map((group) => group.toString(16)).join(":")}]`);
    const host = hostname.slice(1, -1);
    return { host: host === "::" ? "" : host, port };
  }
  throw usageError(
    `Cannot serve on descriptor ${descriptor}: it is not a TCP socket; in the .socket unit write ListenStream=PORT`,
  );
}
