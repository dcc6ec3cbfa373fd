// A TCP relay that splits and joins the bytes that pass through it at random.

/** How one direction is split. */
export interface Cut {
  /** Most bytes to forward at a time; the number is random from 1. */
  readonly most: number;
  /** Chunks of up to this many bytes are not split. Default: 0. */
  readonly whole?: number;
  /**
   * Longest pause between two parts, in milliseconds. Default 0: the next turn of the event loop.
   */
  readonly pause?: number;
  /** Milliseconds to delay each chunk, so that consecutive chunks are joined. */
  readonly hold?: number;
}

/** A running cutter. */
export interface Cutter {
  readonly port: number;
  /** Stops it, and returns how often it split or joined chunks. */
  cuts(): Promise<number>;
  [Symbol.dispose](): void;
}

type Socket = Bun.Socket<Way | undefined>;

/** Returns a generator of numbers in [0, 1), deterministic for a seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One direction of one connection. */
class Way {
  to: Socket | undefined;
  readonly #cut: Cut;
  readonly #random: () => number;
  readonly #counted: () => void;
  #waiting: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  #isWhole = false;
  #hasEnded = false;
  #isBusy = false;

  constructor(cut: Cut, random: () => number, counted: () => void) {
    this.#cut = cut;
    this.#random = random;
    this.#counted = counted;
  }

  take(bytes: Uint8Array): void {
    if (this.#waiting.length > 0) this.#counted();
    this.#isWhole = this.#waiting.length === 0 && bytes.length <= (this.#cut.whole ?? 0);
    this.#waiting = Buffer.concat([this.#waiting, bytes]);
    this.#later(this.#cut.hold ?? 0);
  }

  end(): void {
    this.#hasEnded = true;
    this.#later(0);
  }

  #later(milliseconds: number): void {
    if (this.#isBusy) return;
    this.#isBusy = true;
    const act = () => {
      this.#isBusy = false;
      this.#handOn();
    };
    if (milliseconds < 1) setImmediate(act);
    else setTimeout(act, milliseconds);
  }

  #handOn(): void {
    const { to } = this;
    // `connected` calls this again.
    if (to === undefined) return;
    if (this.#waiting.length === 0) {
      if (this.#hasEnded) to.shutdown();
      return;
    }
    const most = this.#isWhole ? Infinity : Math.ceil(this.#random() * this.#cut.most);
    const part = this.#waiting.subarray(0, Math.min(most, this.#waiting.length));
    const written = Math.max(0, to.write(part));
    this.#waiting = this.#waiting.subarray(written);
    if (this.#waiting.length > 0) this.#counted();
    this.#later(written < part.length ? 1 : (this.#cut.pause ?? 0) * this.#random());
  }

  connected(to: Socket): void {
    this.to = to;
    this.#later(0);
  }
}

/** Settings of a cutter. */
interface Orders {
  readonly to: number;
  readonly toServer: Cut;
  readonly toClient: Cut;
  readonly seed: number;
}

/**
 * Starts a cutter on loopback for a server on this machine. It runs in a process of its own,
 * because work of the test would delay it and so join chunks unintentionally.
 */
export async function startCutter(orders: Orders): Promise<Cutter> {
  const child = Bun.spawn([process.execPath, import.meta.path, JSON.stringify(orders)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = linesOf(child.stdout);
  const port = Number(await lines.next());
  return {
    port,
    async cuts() {
      await child.stdin.end();
      return Number(await lines.next());
    },
    [Symbol.dispose]: () => child.kill("SIGKILL"),
  };
}

function linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): { next(): Promise<string> } {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let text = "";
  return {
    async next() {
      for (;;) {
        const end = text.indexOf("\n");
        if (end >= 0) {
          const line = text.slice(0, end);
          text = text.slice(end + 1);
          return line;
        }
        const { value } = await reader.read();
        if (value === undefined) throw new Error("the cutter ended");
        text += decoder.decode(value, { stream: true });
      }
    },
  };
}

function listen(orders: Orders): { readonly port: number; cuts(): number } {
  let cuts = 0;
  const random = randomFrom(orders.seed);
  const counted = (): void => void cuts++;
  const handlers: Bun.SocketHandler<Way | undefined> = {
    data: (socket, bytes) => socket.data?.take(bytes),
    end: (socket) => socket.data?.end(),
    close: (socket) => socket.data?.end(),
  };
  const listener = Bun.listen<Way | undefined>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      ...handlers,
      open(client) {
        const up = new Way(orders.toServer, random, counted);
        const down = new Way(orders.toClient, random, counted);
        client.data = up;
        down.connected(client);
        void Bun.connect<Way | undefined>({
          hostname: "127.0.0.1",
          port: orders.to,
          allowHalfOpen: true,
          data: down,
          socket: handlers,
        }).then(
          (server) => up.connected(server),
          () => client.terminate(),
        );
      },
    },
  });
  return { port: listener.port, cuts: () => cuts };
}

if (import.meta.main) {
  const cutter = listen(JSON.parse(Bun.argv[2]!) as Orders);
  console.log(cutter.port);
  // Runs until the parent closes standard input or exits.
  for await (const _ of Bun.stdin.stream());
  console.log(cutter.cuts());
  process.exit(0);
}
