// A TCP relay that makes loopback behave like a longer, slower or failing link.
//
//     bun test/helper/relay.ts LISTEN_PORT HOST:PORT --delay 50 --rate 125000000
//
// Connections are accepted at once. The delay applies to data only.

import { parseArgs } from "node:util";

/** Properties of the link. */
export interface RelayOptions {
  to: { host: string; port: number };
  /** Port to listen on. Default: a free one. */
  port?: number;
  /** One-way delay in milliseconds. */
  delay?: number;
  /** Bytes per second in each direction. */
  rate?: number;
  /** Shortest interval between writes in milliseconds. Saves CPU time on a fast link. */
  grain?: number;
  /** Whether to record the bytes. */
  record?: boolean;
}

/** Direction of bytes: from client to server or back. */
export type Direction = "toServer" | "toClient";

/** A running relay. */
export interface Relay {
  readonly port: number;
  /** Number of connections accepted so far. */
  readonly connections: number;
  /** Number of open connections. */
  readonly open: number;
  /** Bytes forwarded so far in both directions. */
  readonly bytes: number;
  /** Recorded bytes in the order of forwarding. */
  readonly record: { toServer: Uint8Array[]; toClient: Uint8Array[] };
  /** Resets every connection. New ones are still accepted. */
  cut(): void;
  /** Forwards nothing until `thaw`, as with an unplugged cable. */
  freeze(): void;
  thaw(): void;
  /** Changes the rate, including for queued data. */
  limit(rate: number): void;
  /** Flips one bit of the byte that follows the next `skip` bytes in this direction. */
  flip(direction: Direction, skip: number, bit: number): Flip;
  stop(): void;
}

/** A byte to be corrupted. */
export interface Flip {
  readonly happened: boolean;
  /** Cancels the corruption if the byte has not passed. */
  cancel(): void;
}

/** One socket's pipes: it feeds `reads` and is fed by `writes`. */
interface End {
  reads: Pipe;
  writes: Pipe;
  closed(error: Error | undefined): void;
}

type Socket = Bun.Socket<End | undefined>;

interface Piece {
  kind: "data" | "end" | "reset";
  bytes: Uint8Array;
  /** When it arrives at the other side. */
  due: number;
}

/** Current properties of the link. */
interface Link {
  readonly delay: number;
  readonly grain: number;
  rate: number;
}

const nothing = new Uint8Array(0);
/** Rate assumed for an unlimited link: ten gigabits per second. */
const fastest = 1.25e9;
/** Bytes queued before the link in addition to those in transit. */
const slack = 2 ** 20;

/** One direction of all connections: planned corruptions and recorded bytes. */
class Way {
  readonly record: Uint8Array[] = [];
  bytes = 0;
  readonly #record: boolean;
  readonly #flips = new Set<{ skip: number; readonly bit: number; happened: boolean }>();

  constructor(record: boolean) {
    this.#record = record;
  }

  flip(skip: number, bit: number): Flip {
    const flip = { skip, bit, happened: false, cancel: () => void this.#flips.delete(flip) };
    this.#flips.add(flip);
    return flip;
  }

  /**
   * Returns the bytes with corruptions applied to a copy, because the socket may not accept all of
   * them.
   */
  damaged(bytes: Uint8Array): Uint8Array {
    let result = bytes;
    for (const { skip, bit } of this.#flips) {
      if (skip >= bytes.length) continue;
      if (result === bytes) result = bytes.slice();
      result[skip]! ^= 1 << bit;
    }
    return result;
  }

  /** Called with the bytes that were forwarded. */
  passed(bytes: Uint8Array): void {
    this.bytes += bytes.length;
    if (this.#record) this.record.push(bytes);
    for (const flip of this.#flips) {
      flip.happened = flip.skip < bytes.length;
      flip.skip -= bytes.length;
      if (flip.happened) this.#flips.delete(flip);
    }
  }
}

/** One direction of one connection. */
class Pipe {
  from: Socket | undefined;
  to: Socket | undefined;
  done = false;
  readonly #link: Link;
  readonly #way: Way;
  readonly #over: (kind: "end" | "reset") => void;
  #pieces: Piece[] = [];
  #queued = 0;
  #paused = false;
  #frozen = false;
  /** Time at which the link will have transmitted everything queued. */
  #busyUntil = 0;
  #timer: Timer | undefined;

  constructor(link: Link, way: Way, over: (kind: "end" | "reset") => void) {
    this.#link = link;
    this.#way = way;
    this.#over = over;
  }

  get #limit(): number {
    const { delay, grain, rate } = this.#link;
    // A larger grain needs a longer queue, or the link would idle between two writes.
    return (Math.min(rate, fastest) * (delay + 4 * grain)) / 1000 + slack;
  }

  #schedule(kind: Piece["kind"], bytes: Uint8Array): void {
    const { delay, rate } = this.#link;
    // Small pieces on a slow link, so that data trickles instead of arriving by the half megabyte.
    const size = Math.max(1500, Math.min(rate / 200, 65_536));
    for (let start = 0; start === 0 || start < bytes.length; start += size) {
      const part = bytes.subarray(start, start + size);
      const free = Math.max(this.#busyUntil, performance.now());
      this.#busyUntil = free + (part.length / rate) * 1000;
      this.#pieces.push({ kind, bytes: part, due: this.#busyUntil + delay });
    }
  }

  /** Applies a new rate to data that is not on the link yet. */
  reschedule(): void {
    const now = performance.now();
    const onLink = this.#pieces.filter(({ due }) => due - this.#link.delay <= now).length;
    this.#busyUntil = now;
    for (const { kind, bytes } of this.#pieces.splice(onLink)) this.#schedule(kind, bytes);
    this.flush();
  }

  take(kind: Piece["kind"], bytes: Uint8Array): void {
    if (this.done) return;
    this.#schedule(kind, bytes);
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
      const arriving = this.#way.damaged(piece.bytes);
      const written = this.to.write(arriving);
      // Data written to a closed socket (-1) is lost, as on a real link.
      const taken = written < 0 ? piece.bytes.length : written;
      if (written > 0) this.#way.passed(arriving.subarray(0, written));
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
    // If the socket is full, its drain event calls this again.
    const next = this.#pieces[0];
    if (next === undefined || full) return;
    const wait = Math.max(this.#link.grain, Math.ceil(next.due - now));
    this.#timer = setTimeout(() => this.flush(), wait);
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
  const { delay = 0, rate = Infinity, grain = 0 } = options;
  const link: Link = { delay, rate, grain };
  const keep = options.record === true;
  const ways = { toServer: new Way(keep), toClient: new Way(keep) };
  const pairs = new Set<{ reset(): void; pipes: readonly Pipe[] }>();
  let connections = 0;
  let frozen = false;

  async function open(client: Socket): Promise<void> {
    connections++;
    let closed = 0;
    const over = (kind: "end" | "reset"): void => {
      if (kind === "reset" || (up.done && down.done)) reset(kind);
    };
    const up = new Pipe(link, ways.toServer, over);
    const down = new Pipe(link, ways.toClient, over);
    const reset = (kind: "end" | "reset" = "reset"): void => {
      if (!pairs.delete(pair)) return;
      up.drop();
      down.drop();
      for (const socket of [up.from, up.to]) kind === "end" ? socket?.end() : socket?.terminate();
    };
    const pair = { reset, pipes: [up, down] };
    // A reset is delayed too, behind earlier data. A close without an error ends a stream whose
    // other direction had already ended.
    const end = (reads: Pipe, writes: Pipe): End => ({
      reads,
      writes,
      closed(error) {
        reads.take(error === undefined ? "end" : "reset", nothing);
        if (++closed === 2) reset();
      },
    });
    pairs.add(pair);
    for (const pipe of pair.pipes) pipe.freeze(frozen);
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
      if (pairs.has(pair)) up.flush();
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
    for (const { pipes } of pairs) for (const pipe of pipes) pipe.freeze(value);
  };
  const cut = (): void => {
    for (const pair of pairs) pair.reset();
  };
  return {
    port: listener.port,
    get connections() {
      return connections;
    },
    get open() {
      return pairs.size;
    },
    get bytes() {
      return ways.toServer.bytes + ways.toClient.bytes;
    },
    record: { toServer: ways.toServer.record, toClient: ways.toClient.record },
    cut,
    freeze: () => freeze(true),
    thaw: () => freeze(false),
    limit(rate) {
      link.rate = rate;
      for (const { pipes } of pairs) for (const pipe of pipes) pipe.reschedule();
    },
    flip: (direction, skip, bit) => ways[direction].flip(skip, bit),
    stop() {
      cut();
      listener.stop(true);
    },
  };
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { delay: { type: "string" }, rate: { type: "string" }, grain: { type: "string" } },
    allowPositionals: true,
  });
  const [, host, port] = /^(.+):(\d+)$/.exec(positionals[1] ?? "") ?? [];
  if (host === undefined || positionals.length !== 2) {
    console.error(
      "usage: bun test/helper/relay.ts LISTEN_PORT HOST:PORT [--delay MS] [--rate N] [--grain MS]",
    );
    process.exit(1);
  }
  const relay = await startRelay({
    to: { host, port: Number(port) },
    port: Number(positionals[0]),
    delay: Number(values.delay ?? 0),
    rate: Number(values.rate ?? Infinity),
    grain: Number(values.grain ?? 0),
  });
  console.error(`127.0.0.1:${relay.port} -> ${positionals[1]}`);
}
