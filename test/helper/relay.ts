// A TCP relay that makes loopback behave like a longer, slower or breaking link.
//
//   bun test/helper/relay.ts LISTEN_PORT HOST:PORT --delay 50 --rate 125000000
//
// A connection is accepted at once: the delay holds for what is sent on it, not for making it.

import { parseArgs } from "node:util";

/** What the link is like. */
export interface RelayOptions {
  to: { host: string; port: number };
  /** Where to listen; a free port unless given. */
  port?: number;
  /** Milliseconds one way. */
  delay?: number;
  /** Bytes per second each way. */
  rate?: number;
  /** Whether to keep what passes. */
  record?: boolean;
}

/** A running relay. */
export interface Relay {
  readonly port: number;
  /** How many connections were accepted so far. */
  readonly connections: number;
  /** How many bytes were handed on so far, both ways. */
  readonly bytes: number;
  /** What was handed on, if it was to be kept, in the order in which it was. */
  readonly record: { toServer: Uint8Array[]; toClient: Uint8Array[] };
  /** Resets every connection; new ones are still taken. */
  cut(): void;
  /** Hands nothing on until `thaw`, as if the cable were out. */
  freeze(): void;
  thaw(): void;
  stop(): void;
}

/** A socket's place: what it brings goes into `reads`, what `writes` holds goes out through it. */
interface End {
  reads: Pipe;
  writes: Pipe;
  closed(error: Error | undefined): void;
}

type Socket = Bun.Socket<End | undefined>;

interface Piece {
  kind: "data" | "end" | "reset";
  bytes: Uint8Array;
  /** When it reaches the other side. */
  due: number;
}

const nothing = new Uint8Array(0);
/** What a link of no stated rate is taken to carry: ten gigabits. */
const fastest = 1.25e9;
/** What waits before the link, besides what is on it. */
const slack = 2 ** 20;

/** One direction of one connection. */
class Pipe {
  from: Socket | undefined;
  to: Socket | undefined;
  done = false;
  readonly #delay: number;
  readonly #rate: number;
  readonly #limit: number;
  readonly #passed: (bytes: Uint8Array) => void;
  readonly #over: (kind: "end" | "reset") => void;
  #pieces: Piece[] = [];
  #queued = 0;
  #paused = false;
  #frozen = false;
  /** When the link will have taken what it was given so far. */
  #busyUntil = 0;
  #timer: Timer | undefined;

  constructor(
    options: RelayOptions,
    passed: (bytes: Uint8Array) => void,
    over: (kind: "end" | "reset") => void,
  ) {
    this.#delay = options.delay ?? 0;
    this.#rate = options.rate ?? Infinity;
    this.#limit = (Math.min(this.#rate, fastest) * this.#delay) / 1000 + slack;
    this.#passed = passed;
    this.#over = over;
  }

  take(kind: Piece["kind"], bytes: Uint8Array): void {
    if (this.done) return;
    // A slow link hands on little by little, not half a megabyte at a time.
    const size = Math.max(1500, Math.min(this.#rate / 200, 65_536));
    for (let start = 0; start === 0 || start < bytes.length; start += size) {
      const part = bytes.subarray(start, start + size);
      const free = Math.max(this.#busyUntil, performance.now());
      this.#busyUntil = free + (part.length / this.#rate) * 1000;
      this.#pieces.push({ kind, bytes: part, due: this.#busyUntil + this.#delay });
    }
    this.#queued += bytes.length;
    this.flush();
    if (this.#queued > this.#limit && !this.#paused) {
      this.#paused = true;
      this.from?.pause();
    }
  }

  flush(): void {
    if (this.to === undefined || this.#frozen) return;
    const now = performance.now();
    let handed = 0;
    let full = false;
    for (const piece of this.#pieces) {
      if (piece.due > now || full) break;
      if (piece.kind !== "data") return this.#end(piece.kind);
      const written = this.to.write(piece.bytes);
      // What is written to a closed socket (-1) is lost, as on a real link.
      const taken = written < 0 ? piece.bytes.length : written;
      if (written > 0) this.#passed(piece.bytes.subarray(0, written));
      this.#queued -= taken;
      piece.bytes = piece.bytes.subarray(taken);
      full = piece.bytes.length > 0;
      if (!full) handed++;
    }
    this.#pieces.splice(0, handed);
    if (this.#paused && this.#queued <= this.#limit) {
      this.#paused = false;
      this.from?.resume();
    }
    clearTimeout(this.#timer);
    // A full socket calls again when it has drained.
    const next = this.#pieces[0];
    if (next === undefined || full) return;
    this.#timer = setTimeout(() => this.flush(), Math.max(0, Math.ceil(next.due - now)));
  }

  freeze(frozen: boolean): void {
    this.#frozen = frozen;
    this.flush();
  }

  drop(): void {
    clearTimeout(this.#timer);
    this.#pieces = [];
    this.done = true;
  }

  #end(kind: "end" | "reset"): void {
    this.drop();
    if (kind === "end") this.to?.shutdown();
    this.#over(kind);
  }
}

const handlers: Bun.SocketHandler<End | undefined> = {
  data: (socket, bytes) => socket.data?.reads.take("data", bytes),
  drain: (socket) => socket.data?.writes.flush(),
  end: (socket) => socket.data?.reads.take("end", nothing),
  close: (socket, error) => socket.data?.closed(error),
};

/** Starts a relay on loopback. */
export async function startRelay(options: RelayOptions): Promise<Relay> {
  /** How to reset each connection, and how to freeze it. */
  const links = new Set<{ reset(): void; freeze(frozen: boolean): void }>();
  const record = { toServer: [] as Uint8Array[], toClient: [] as Uint8Array[] };
  let connections = 0;
  let bytes = 0;
  let frozen = false;

  const pipe = (kept: Uint8Array[], over: (kind: "end" | "reset") => void): Pipe =>
    new Pipe(
      options,
      (part) => {
        bytes += part.length;
        if (options.record) kept.push(part);
      },
      over,
    );

  async function open(client: Socket): Promise<void> {
    connections++;
    let closed = 0;
    const over = (kind: "end" | "reset"): void => {
      if (kind === "reset" || (up.done && down.done)) reset(kind);
    };
    const up = pipe(record.toServer, over);
    const down = pipe(record.toClient, over);
    const reset = (kind: "end" | "reset" = "reset"): void => {
      if (!links.delete(link)) return;
      up.drop();
      down.drop();
      for (const socket of [up.from, up.to]) kind === "end" ? socket?.end() : socket?.terminate();
    };
    const link = {
      reset,
      freeze(value: boolean) {
        up.freeze(value);
        down.freeze(value);
      },
    };
    // A reset takes its time over the link too, behind what was sent before it. Without an error
    // it is the end of a stream whose other direction had ended already.
    const end = (reads: Pipe, writes: Pipe): End => ({
      reads,
      writes,
      closed(error) {
        reads.take(error === undefined ? "end" : "reset", nothing);
        if (++closed === 2) reset();
      },
    });
    links.add(link);
    link.freeze(frozen);
    up.from = down.to = client;
    client.data = end(up, down);
    try {
      const server = await Bun.connect<End | undefined>({
        hostname: options.to.host,
        port: options.to.port,
        allowHalfOpen: true,
        data: end(down, up),
        socket: handlers,
      });
      up.to = down.from = server;
      if (links.has(link)) up.flush();
      else server.terminate();
    } catch {
      reset();
    }
  }

  const listener = Bun.listen<End | undefined>({
    hostname: "127.0.0.1",
    port: options.port ?? 0,
    allowHalfOpen: true,
    socket: { ...handlers, open: (client) => void open(client) },
  });

  const freeze = (value: boolean): void => {
    frozen = value;
    for (const link of links) link.freeze(value);
  };
  const cut = (): void => {
    for (const link of links) link.reset();
  };
  return {
    port: listener.port,
    get connections() {
      return connections;
    },
    get bytes() {
      return bytes;
    },
    record,
    cut,
    freeze: () => freeze(true),
    thaw: () => freeze(false),
    stop() {
      cut();
      listener.stop(true);
    },
  };
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { delay: { type: "string" }, rate: { type: "string" } },
    allowPositionals: true,
  });
  const [, host, port] = /^(.+):(\d+)$/.exec(positionals[1] ?? "") ?? [];
  if (host === undefined || positionals.length !== 2) {
    console.error("usage: bun test/helper/relay.ts LISTEN_PORT HOST:PORT [--delay MS] [--rate N]");
    process.exit(1);
  }
  const relay = await startRelay({
    to: { host, port: Number(port) },
    port: Number(positionals[0]),
    delay: Number(values.delay ?? 0),
    rate: Number(values.rate ?? Infinity),
  });
  console.error(`127.0.0.1:${relay.port} -> ${positionals[1]}`);
}
