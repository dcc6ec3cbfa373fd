// State of a chaos run: a server, consecutive senders, the relay between them, and a log of all
// events.

import { join } from "node:path";

import { type Server, startServer } from "../helper/program.ts";
import { type Relay, startRelay } from "../helper/relay.ts";
import { hangMs } from "../helper/time.ts";
import { Random, seedOf } from "../wire/fuzz.ts";
import { Room } from "./room.ts";
import { type Ended, Sender } from "./sender.ts";
import { StoreCheck } from "./store.ts";
import { Tree } from "./tree.ts";

/** Timeout of both sides for a silent peer, in seconds. */
export const timeout = 3;

/** Milliseconds without receipt or fault after which the run counts as stalled. */
const stallAfter = hangMs;
/** Lines of the sender's output in a failure report. */
const linesShown = 50;
/** Exit statuses allowed before the first connection, when link or server may be down. */
const failuresToConnect = [2, 10, 11, 12, 30, 35];
const storeError = 8;

/** Options of a chaos run. Times are in milliseconds. */
export interface ChaosOptions {
  readonly seed: number;
  /** Least number of frames, exact number of faults, and least number of faults of each kind. */
  readonly frames: number;
  readonly faults: number;
  readonly atLeast: number;
  /** Number of times that the tree grows, once after each completed sender. */
  readonly rounds: number;
  /** Largest rate of the link in bytes per second. */
  readonly rate: number;
  /** Size of the disk in bytes, and the reserve that about half of the servers keep free. */
  readonly disk: number;
  readonly reserve: number;
  readonly within: number;
  /** Called from time to time with the progress. */
  readonly report?: (line: string) => void;
}

export class World {
  readonly options: ChaosOptions;
  readonly room: Room;
  readonly tree: Tree;
  readonly check: StoreCheck;
  readonly relay: Relay;
  readonly counts = {
    sent: 0,
    connections: 0,
    endings: 0,
    storeErrors: 0,
    missed: 0,
    senders: 0,
    servers: 0,
  };
  /** Number of faults in progress. */
  active = 0;
  isDiskFull = false;
  /**
   * Bytes of the disk that the server keeps free. With almost none it writes until the disk is
   * full.
   */
  reserve = 1;
  /** Rejects with the first violation. Never resolves. */
  readonly failure: Promise<never>;
  readonly #fail: (error: Error) => void;
  readonly #port: number;
  readonly #began = performance.now();
  readonly #history: string[] = [];
  readonly #lines: string[] = [];
  /** Rate of the link in bytes per second, and its value while a fault slows it. */
  #rate: number;
  #slowed: number | undefined;
  #server: Server | undefined;
  #sender: Sender | undefined;
  /** Processes killed on purpose. */
  readonly #killed = new WeakSet<object>();
  /** Time of the last receipt or end of a fault. Progress is required from then on. */
  #progressAt = performance.now();
  #calmSince = performance.now();
  /** Whether the run is ending. */
  #over = false;

  private constructor(options: ChaosOptions, relay: Relay, port: number, room: Room) {
    this.options = options;
    this.relay = relay;
    this.#rate = options.rate;
    this.#port = port;
    this.room = room;
    this.tree = new Tree(room.path, new Random(options.seed));
    this.check = new StoreCheck(this.#store, this.tree);
    const { promise, reject } = Promise.withResolvers<never>();
    // Awaited only during the run; avoids an unhandled rejection later.
    promise.catch(() => {});
    this.failure = promise;
    this.#fail = reject;
  }

  static async make(options: ChaosOptions): Promise<World> {
    const port = freePort();
    const to = { host: "127.0.0.1", port };
    const relay = await startRelay({ to, rate: options.rate });
    return new World(options, relay, port, new Room(options.disk));
  }

  get #store(): string {
    return join(this.room.disk, "store");
  }

  get isServing(): boolean {
    return this.#server !== undefined;
  }

  get isSending(): boolean {
    return this.#sender !== undefined;
  }

  note(text: string): void {
    const seconds = ((performance.now() - this.#began) / 1000).toFixed(3);
    this.#history.push(`${seconds.padStart(8)} s  ${text}`);
  }

  fail(error: unknown): void {
    this.#fail(error instanceof Error ? error : new Error(String(error)));
  }

  /** Returns the log for a failure report. */
  story(): string {
    return [
      `seed ${this.options.seed}; what happened:`,
      ...this.#history,
      "the last that the sender said:",
      ...this.#lines,
      "the last that the server said:",
      ...tail(this.#server?.stdout() ?? ""),
      ...tail(this.#server?.stderr() ?? ""),
    ].join("\n");
  }

  /** Waits. Throws when the run ends meanwhile. */
  async pause(milliseconds: number): Promise<void> {
    const end = performance.now() + milliseconds;
    do {
      this.#goOn();
      await Bun.sleep(Math.min(50, Math.max(0, end - performance.now())));
    } while (performance.now() < end);
    this.#goOn();
  }

  /** Waits for a condition. Returns whether it became true in time. */
  async until(condition: () => boolean, milliseconds: number): Promise<boolean> {
    const end = performance.now() + milliseconds;
    while (!condition()) {
      if (performance.now() >= end) return false;
      await this.pause(3);
    }
    return true;
  }

  #goOn(): void {
    if (this.#over) throw new Error("the run is over");
  }

  /** Begins a fault. The caller must call the returned function when it ends. */
  disturb(): () => void {
    this.active++;
    return () => {
      this.active--;
      this.#calmSince = this.#progressAt = performance.now();
    };
  }

  /** Checks everything that must hold at any time. */
  look(): void {
    this.check.look();
    const silent = performance.now() - this.#progressAt;
    if (this.active === 0 && silent > stallAfter) {
      throw new Error(`nothing was receipted for ${Math.round(silent / 1000)} s`);
    }
    if (performance.now() - this.#began > this.options.within) {
      throw new Error(`the run was not through within ${this.options.within / 1000} s`);
    }
  }

  setRate(rate: number): void {
    this.#rate = rate;
    this.relay.limit(this.#slowed ?? rate);
  }

  /** @param rate `undefined` restores the previous rate */
  slow(rate: number | undefined): void {
    this.#slowed = rate;
    this.relay.limit(rate ?? this.#rate);
  }

  async startServer(): Promise<void> {
    for (;;) {
      this.#goOn();
      const wasFull = this.isDiskFull;
      const random = new Random(seedOf(this.options.seed, -10 - this.counts.servers));
      this.reserve = random.pick([1, this.options.reserve]);
      const args = ["--listen", `127.0.0.1:${this.#port}`, "--timeout", `${timeout}`];
      if (this.room.canFill) args.push("--reserve", `${this.reserve}`);
      try {
        const server = await startServer({ dir: this.#store, args });
        this.counts.servers++;
        this.note(`the server listens, and keeps ${this.reserve} bytes free`);
        this.#server = server;
        void server.process.exited.then((code) => {
          if (!this.#killed.has(server)) this.fail(`the server ended by itself with ${code}`);
        });
        return;
      } catch (error) {
        // The server cannot start if it cannot open its store.
        if (!wasFull && !this.isDiskFull) throw error;
        this.note("the server does not start on a full disk");
        await this.pause(200);
      }
    }
  }

  async killServer(): Promise<void> {
    const server = this.#server!;
    this.#killed.add(server);
    this.#server = undefined;
    server.process.kill("SIGKILL");
    await server.process.exited;
  }

  /** Stops the server as an operator would. */
  async stopServer(): Promise<void> {
    const server = this.#server!;
    this.#killed.add(server);
    const code = await server.stop();
    if (code !== 0) throw new Error(`the stopped server ended with ${code}`);
  }

  /** Kills the sender. Returns whether it was still running. */
  async killSender(): Promise<boolean> {
    const sender = this.#sender;
    if (sender === undefined) return false;
    this.#killed.add(sender);
    sender.kill();
    return (await sender.ended).code === undefined;
  }

  /** Sends the tree with consecutive processes until one reports a complete delivery. */
  async deliver(random: Random): Promise<void> {
    for (;;) {
      this.#goOn();
      const startedAt = performance.now();
      const { folder } = this.tree;
      const sender = new Sender(folder, this.relay.port, timeout, this.room, this.#listener);
      this.#sender = sender;
      this.counts.senders++;
      const ended = await sender.ended;
      const { code } = ended;
      this.#sender = undefined;
      this.note(`the sender ended with ${code ?? "SIGKILL"}`);
      if (code === 0) return;
      if (code === undefined) {
        if (!this.#killed.has(sender)) throw new Error("somebody else killed the sender");
        await this.pause(random.below(2000));
        continue;
      }
      if (!this.#isExcused(ended, startedAt)) throw new Error(`the sender ended with ${code}`);
      await this.pause(300 + random.below(700));
    }
  }

  /** Returns whether a sender may end like this, so that it is restarted. */
  #isExcused({ code, wasWelcome }: Ended, startedAt: number): boolean {
    const wasDisturbed = this.active > 0 || this.#calmSince >= startedAt - 500;
    return !wasWelcome && failuresToConnect.includes(code!) && wasDisturbed;
  }

  readonly #listener = {
    connected: () => void this.counts.connections++,
    sent: (key: string) => {
      this.counts.sent++;
      if (!this.tree.frames.has(key)) this.fail(`${key} was sent, which nobody has`);
      if (this.check.receipted.has(key)) this.fail(`${key} was sent again after its receipt`);
    },
    receipted: (key: string) => {
      this.check.receipted.add(key);
      this.#progressAt = performance.now();
    },
    ending: () => void this.counts.endings++,
    told: (error: number) => {
      if (error === storeError) this.counts.storeErrors++;
    },
    missed: () => void this.counts.missed++,
    wrong: (what: string) => this.fail(`the sender says: ${what}`),
    line: (text: string) => {
      const short = text.slice(0, 300);
      this.#lines.push(short);
      if (this.#lines.length > linesShown) this.#lines.shift();
      if (!/^(?:->|<-) (?!ERROR)/.test(text)) this.note(`the sender says: ${short}`);
    },
  };

  /** Stops everything in any state. */
  async close(others: readonly Promise<unknown>[]): Promise<void> {
    this.#over = true;
    this.relay.stop();
    this.#sender?.kill();
    // Pending actions may still start processes, so wait for them first.
    await Promise.allSettled(others);
    this.#sender?.kill();
    if (this.#server !== undefined) await this.killServer();
    await this.room.close();
  }
}

/**
 * Returns a port below the ephemeral range. With an ephemeral port, the relay's attempts to reach a
 * stopped server could be assigned that port and connect to themselves.
 */
function freePort(): number {
  for (let tries = 0; ; tries++) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch (error) {
      if (tries === 100) throw error;
    }
  }
}

function tail(text: string): string[] {
  return text.trimEnd().split("\n").slice(-linesShown);
}
