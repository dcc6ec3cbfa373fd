// State of a chaos run: a server, the deliveries to it, the relay between them, and a log of all
// events.

import { Database } from "bun:sqlite";
import { readdirSync } from "node:fs";
import { join } from "node:path";

import { type Server, startServer } from "../helper/program.ts";
import { type Relay, startRelay } from "../helper/relay.ts";
import { Random, seedOf } from "../wire/fuzz.ts";
import { Delivery } from "./delivery.ts";
import { PipedFrames } from "./piped.ts";
import { PipedVideo } from "./piped-video.ts";
import { Room } from "./room.ts";
import { timeout } from "./sender.ts";
import { Tree } from "./tree.ts";
import { WatchedTree } from "./watched.ts";

/** Size of the disk of the spools, in bytes. */
const spoolDisk = 4 * 2 ** 20;
/** Lines of the server's output in a failure report. */
const linesShown = 50;

/** Options of a chaos run. Times are in milliseconds. */
export interface ChaosOptions {
  readonly seed: number;
  /**
   * Least number of frames of the tree, and of each camera. Exact number of faults, and least number
   * of each kind.
   */
  readonly frames: number;
  readonly cameraFrames: number;
  readonly faults: number;
  readonly atLeast: number;
  /** Number of times that there are more frames, once after each completed sender. */
  readonly rounds: number;
  /** Largest rate of the link in bytes per second. */
  readonly rate: number;
  /** Size of the server's disk in bytes, and the reserve that about half of the servers keep free. */
  readonly disk: number;
  readonly reserve: number;
  readonly within: number;
  /** Called from time to time with the progress. */
  readonly report?: (line: string) => void;
}

export class World {
  readonly options: ChaosOptions;
  readonly room: Room;
  /** Room with the disk of the spools. */
  readonly spoolRoom = new Room(spoolDisk);
  readonly watched: WatchedTree;
  readonly piped: PipedFrames;
  readonly video: PipedVideo;
  readonly deliveries: readonly Delivery[];
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
  /** Rate of the link in bytes per second, and its value while a fault slows it. */
  #rate: number;
  #slowed: number | undefined;
  #server: Server | undefined;
  /** Servers killed on purpose. */
  readonly #killed = new WeakSet<Server>();
  /** Time of the last end of a fault. */
  calmSince = performance.now();
  /** Whether the run is ending. */
  #over = false;

  private constructor(options: ChaosOptions, relay: Relay, port: number, room: Room) {
    this.options = options;
    this.relay = relay;
    this.#rate = options.rate;
    this.#port = port;
    this.room = room;
    const randomFor = (index: number) => new Random(seedOf(options.seed, index));
    this.watched = new WatchedTree(room.path, randomFor(-4));
    this.piped = new PipedFrames(room.path, this.spoolRoom.disk, randomFor(-5));
    this.video = new PipedVideo(room.path, this.spoolRoom.disk, randomFor(-7));
    const scenarios = [new Tree(room.path, randomFor(-6)), this.watched, this.piped, this.video];
    this.deliveries = scenarios.map((scenario) => new Delivery(scenario, this.#store, this));
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

  /** Number of frames whose receipts were read. */
  get receipted(): number {
    return this.deliveries.reduce((sum, { check }) => sum + check.receipted.size, 0);
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
      ...this.deliveries.flatMap((delivery) => delivery.story()),
      "the last that the server said:",
      ...tail(this.#server?.stdout() ?? ""),
      ...tail(this.#server?.stderr() ?? ""),
    ].join("\n");
  }

  /** Waits. Throws when the run ends meanwhile. */
  async pause(milliseconds: number): Promise<void> {
    const end = performance.now() + milliseconds;
    do {
      this.goOn();
      await Bun.sleep(Math.min(50, Math.max(0, end - performance.now())));
    } while (performance.now() < end);
    this.goOn();
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

  /** Throws when the run is ending. */
  goOn(): void {
    if (this.#over) throw new Error("the run is over");
  }

  /** Begins a fault. The caller must call the returned function when it ends. */
  disturb(): () => void {
    this.active++;
    return () => {
      this.active--;
      this.calmSince = performance.now();
    };
  }

  /** Checks everything that must hold at any time. */
  look(): void {
    for (const delivery of this.deliveries) delivery.look();
    if (performance.now() - this.#began > this.options.within) {
      throw new Error(`the run was not through within ${this.options.within / 1000} s`);
    }
  }

  /** Checks the store after its server has stopped. */
  checkEnd(): void {
    const path = join(this.#store, ".frames/journal.sqlite");
    const journal = new Database(path, { readonly: true, safeIntegers: true });
    const wrong = this.deliveries.flatMap(({ check }) => check.faults(journal));
    journal.close();
    const streams = this.deliveries.map(({ scenario }) => scenario.stream);
    for (const name of readdirSync(this.#store)) {
      if (![...streams, ".frames"].includes(name)) wrong.push(`${name} lies in the store`);
    }
    for (const name of readdirSync(join(this.#store, ".frames/partial"))) {
      wrong.push(`.frames/partial/${name} was left behind`);
    }
    if (wrong.length === 0) return;
    throw new Error(`${wrong.length} differences: ${wrong.slice(0, 20).join("; ")}`);
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
      this.goOn();
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

  /** Stops everything in any state. */
  async close(others: readonly Promise<unknown>[]): Promise<void> {
    this.#over = true;
    this.relay.stop();
    const killSenders = (): void => this.deliveries.forEach(({ sender }) => sender?.kill());
    killSenders();
    // Pending actions may still start processes, so wait for them first.
    await Promise.allSettled(others);
    killSenders();
    if (this.#server !== undefined) await this.killServer();
    await Promise.all([this.room.close(), this.spoolRoom.close()]);
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
