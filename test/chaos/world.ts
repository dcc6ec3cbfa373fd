// What a chaos run is made of: a server, senders one after the other, the relay between them, and a
// record of what happened to them.

import { join } from "node:path";

import { type Server, startServer } from "../helper/program.ts";
import { type Relay, startRelay } from "../helper/relay.ts";
import { hangMs } from "../helper/time.ts";
import { Random, seedOf } from "../wire/fuzz.ts";
import { Room } from "./room.ts";
import { type Ended, Sender } from "./sender.ts";
import { StoreCheck } from "./store.ts";
import { Tree } from "./tree.ts";

/** Seconds after which both ends give a silent peer up. */
export const timeout = 3;

/** Without a receipt for so many milliseconds, and without a fault, nothing will come any more. */
const stallAfter = hangMs;
/** Lines of the sender that a failure shows. */
const linesShown = 50;
/** What a sender may end with that has not had a connection yet: the link or the server was gone. */
const failuresToConnect = [2, 10, 11, 12, 30, 35];
const storeError = 8;

/** What a run needs to know. Times are in milliseconds. */
export interface ChaosOptions {
  readonly seed: number;
  /** At least so many frames, and exactly so many faults, each kind at least so often. */
  readonly frames: number;
  readonly faults: number;
  readonly atLeast: number;
  /** The tree grows so often: each time a sender comes to its end. */
  readonly rounds: number;
  /** Bytes per second of the link, at most. */
  readonly rate: number;
  /** Bytes of the disk, and what every other server or so keeps free of it. */
  readonly disk: number;
  readonly reserve: number;
  readonly within: number;
  /** Is told now and then how far it is. */
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
  /** Faults that go on at this moment. */
  active = 0;
  isDiskFull = false;
  /** Bytes of the disk that the server keeps free; with next to none it writes until nothing goes on. */
  reserve = 1;
  /** Rejects with what is found wrong first; never resolves. */
  readonly failure: Promise<never>;
  readonly #fail: (error: Error) => void;
  readonly #port: number;
  readonly #began = performance.now();
  readonly #history: string[] = [];
  readonly #lines: string[] = [];
  /** Bytes per second of the link, and how many they are while a fault slows it. */
  #rate: number;
  #slowed: number | undefined;
  #server: Server | undefined;
  #sender: Sender | undefined;
  /** Those of which it is known that they were killed. */
  readonly #killed = new WeakSet<object>();
  /** When something was receipted or a fault was over: from then on there must be progress. */
  #progressAt = performance.now();
  #calmSince = performance.now();
  /** When a sender was killed last. */
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
    // It is waited for only while the run is under way.
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

  /** All that a failure leaves to look at. */
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

  /** Waits; when the run is over meanwhile, whoever waits is too. */
  async pause(milliseconds: number): Promise<void> {
    const end = performance.now() + milliseconds;
    do {
      this.#goOn();
      await Bun.sleep(Math.min(50, Math.max(0, end - performance.now())));
    } while (performance.now() < end);
    this.#goOn();
  }

  /** Waits until something is so; gives whether it came about in time. */
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

  /** A fault begins; what it gives back is to be called at its end. */
  disturb(): () => void {
    this.active++;
    return () => {
      this.active--;
      this.#calmSince = this.#progressAt = performance.now();
    };
  }

  /** Looks at everything that must be so at any time. */
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

  /** @param rate undefined when the link is to be as before */
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
        // A store that cannot be opened cannot be served.
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

  /** Stops the server as its operator would. */
  async stopServer(): Promise<void> {
    const server = this.#server!;
    this.#killed.add(server);
    const code = await server.stop();
    if (code !== 0) throw new Error(`the stopped server ended with ${code}`);
  }

  /** Gives whether there was one that did not come to its end first. */
  async killSender(): Promise<boolean> {
    const sender = this.#sender;
    if (sender === undefined) return false;
    this.#killed.add(sender);
    sender.kill();
    return (await sender.ended).code === undefined;
  }

  /** Sends the tree with one process after the other, until one says that everything is delivered. */
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

  /** Whether a sender may have ended like this, so that whoever started it tries again. */
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

  /** Ends everything, whatever state it is in. */
  async close(others: readonly Promise<unknown>[]): Promise<void> {
    this.#over = true;
    this.relay.stop();
    this.#sender?.kill();
    // Whoever is about to start something must be heard of first.
    await Promise.allSettled(others);
    this.#sender?.kill();
    if (this.#server !== undefined) await this.killServer();
    await this.room.close();
  }
}

/**
 * A port below those that the system gives to connections: while the server is down, the relay's
 * tries to reach it would end up with its port sooner or later, and reach themselves.
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
