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
  /** Milliseconds between handing on at least, for a fast link that is not to take a core. */
  grain?: number;
  /** Whether to keep what passes. */
  record?: boolean;
}

/** The way of bytes through the relay; what it takes from clients goes to the server. */
export type Direction = "toServer" | "toClient";

/** A running relay. */
export interface Relay {
  readonly port: number;
  /** How many connections were accepted so far. */
  readonly connections: number;
  /** How many of them are open. */
  readonly open: number;
  /** How many bytes were handed on so far, both ways. */
  readonly bytes: number;
  /** What was handed on, if it was to be kept, in the order in which it was. */
  readonly record: { toServer: Uint8Array[]; toClient: Uint8Array[] };
  /** Resets every connection; new ones are still taken. */
  cut(): void;
  /** Hands nothing on until `thaw`, as if the cable were out. */
  freeze(): void;
  thaw(): void;
  /** Changes the rate, also for what waits already. */
  limit(rate: number): void;
  /** Flips one bit of the byte that is handed on in this direction after `skip` others. */
  flip(direction: Direction, skip: number, bit: number): Flip;
  stop(): void;
}

/** A byte that will be, or was, damaged on its way. */
export interface Flip {
  readonly happened: boolean;
  /** Lets the byte pass unchanged, if it is still to come. */
  cancel(): void;
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

/** What the link is like now. */
interface Link {
  readonly delay: number;
  readonly grain: number;
  rate: number;
}

const nothing = new Uint8Array(0);
/** What a link of no stated rate is taken to carry: ten gigabits. */
const fastest = 1.25e9;
/** What waits before the link, besides what is on it. */
const slack = 2 ** 20;

/** One direction of all connections: what is to be damaged there, and what came of it. */
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

  /** The bytes as they arrive. The given ones stay as they are: not all of them may be taken. */
  damaged(bytes: Uint8Array): Uint8Array {
    let result = bytes;
    for (const { skip, bit } of this.#flips) {
      if (skip >= bytes.length) continue;
      if (result === bytes) result = bytes.slice();
      result[skip]! ^= 1 << bit;
    }
    return result;
  }

  /** These were handed on. */
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
  /** When the link will have taken what it was given so far. */
  #busyUntil = 0;
  #timer: Timer | undefined;

  constructor(link: Link, way: Way, over: (kind: "end" | "reset") => void) {
    this.#link = link;
    this.#way = way;
    this.#over = over;
  }

  get #limit(): number {
    const { delay, grain, rate } = this.#link;
    // More waits before a coarse link, which would run dry between two times of handing on.
    return (Math.min(rate, fastest) * (delay + 4 * grain)) / 1000 + slack;
  }

  #schedule(kind: Piece["kind"], bytes: Uint8Array): void {
    const { delay, rate } = this.#link;
    // A slow link hands on little by little, not half a megabyte at a time.
    const size = Math.max(1500, Math.min(rate / 200, 65_536));
    for (let start = 0; start === 0 || start < bytes.length; start += size) {
      const part = bytes.subarray(start, start + size);
      const free = Math.max(this.#busyUntil, performance.now());
      this.#busyUntil = free + (part.length / rate) * 1000;
      this.#pieces.push({ kind, bytes: part, due: this.#busyUntil + delay });
    }
  }

  /** The rate has changed: what is not on the link yet goes at the new one. */
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
      // What is written to a closed socket (-1) is lost, as on a real link.
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
    // A full socket calls again when it has drained.
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
