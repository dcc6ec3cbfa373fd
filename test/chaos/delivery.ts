// The delivery of one scenario: consecutive senders, and the check of what they have stored.

import { join } from "node:path";

import { hangMs } from "../helper/time.ts";
import type { Random } from "../wire/fuzz.ts";
import type { Scenario } from "./scenario.ts";
import { type Ended, Sender, timeout } from "./sender.ts";
import { StoreCheck } from "./store.ts";
import type { World } from "./world.ts";

/** Milliseconds without receipt or fault after which a delivery counts as stalled. */
const stallAfter = hangMs;
/** Lines of the sender's output in a failure report. */
const linesShown = 50;
/** Exit statuses allowed before the first connection, when link or server may be down. */
const failuresToConnect = [2, 10, 11, 12, 30, 35];
/** Exit status of a sender that was stopped while it had no connection. */
const interrupted = 20;
/** Numbers of errors that a server reports. */
const superseded = 6;
const storeError = 8;

export class Delivery {
  readonly scenario: Scenario;
  readonly check: StoreCheck;
  /** Whether all its frames are delivered and no more will come. */
  isThrough = false;
  readonly #world: World;
  readonly #lines: string[] = [];
  #sender: Sender | undefined;
  /** Senders killed on purpose. */
  readonly #killed = new WeakSet<Sender>();
  /** Time of the last receipt or end of a fault. Progress is required from then on. */
  #progressAt = performance.now();

  /** @param store folder of the store */
  constructor(scenario: Scenario, store: string, world: World) {
    this.scenario = scenario;
    this.check = new StoreCheck(join(store, scenario.stream), scenario);
    this.#world = world;
  }

  get sender(): Sender | undefined {
    return this.#sender;
  }

  /** Kills the sender. Returns whether it was still running. */
  async killSender(): Promise<boolean> {
    const sender = this.#sender;
    if (sender === undefined) return false;
    this.#killed.add(sender);
    sender.kill();
    return (await sender.ended).code === undefined;
  }

  /** Checks everything that must hold at any time. */
  look(): void {
    this.check.look();
    const calm = Math.max(this.#progressAt, this.#world.calmSince);
    const silent = performance.now() - calm;
    if (this.isThrough || this.#world.active > 0 || silent <= stallAfter) return;
    const { stream } = this.scenario;
    throw new Error(`nothing of ${stream} was receipted for ${Math.round(silent / 1000)} s`);
  }

  /** Runs consecutive senders until one reports a complete delivery. */
  async deliver(random: Random): Promise<void> {
    const world = this.#world;
    const { scenario } = this;
    for (;;) {
      world.goOn();
      const startedAt = performance.now();
      const sender = new Sender(
        [...scenario.args(), "--to", `127.0.0.1:${world.relay.port}`, "--timeout", `${timeout}`],
        scenario.hasInput,
        world.room,
        this.#listener,
      );
      this.#sender = sender;
      world.counts.senders++;
      const [ended] = await Promise.all([sender.ended, scenario.attend(sender)]);
      const { code } = ended;
      this.#sender = undefined;
      this.#note(`ended with ${code ?? "SIGKILL"}`);
      scenario.onEnded(code);
      if (code === undefined) {
        if (!this.#killed.has(sender)) throw new Error("somebody else killed the sender");
        await world.pause(random.below(2000));
        continue;
      }
      if (scenario.isComplete(code)) return;
      if (!this.#isExcused(ended, startedAt)) {
        throw new Error(`the sender of ${scenario.stream} ended with ${code}`);
      }
      await world.pause(300 + random.below(700));
    }
  }

  /** Returns whether a sender may end like this, so that it is restarted. */
  #isExcused({ code, wasWelcome, told }: Ended, startedAt: number): boolean {
    // With input it may end before its spool is empty.
    if (code === interrupted || (this.scenario.hasInput && [0, 23].includes(code!))) return true;
    const { active, calmSince } = this.#world;
    const wasDisturbed = active > 0 || calmSince >= startedAt - 500;
    // A frozen link may deliver the HELLO of an abandoned connection after that of the next one.
    if (told === superseded && wasDisturbed) return true;
    return !wasWelcome && failuresToConnect.includes(code!) && wasDisturbed;
  }

  #note(what: string): void {
    this.#world.note(`the sender of ${this.scenario.stream} ${what}`);
  }

  /** Returns the last lines of the senders for a failure report. */
  story(): string[] {
    return [`the last that the senders of ${this.scenario.stream} said:`, ...this.#lines];
  }

  readonly #listener = {
    connected: () => void this.#world.counts.connections++,
    sent: (key: string) => {
      this.#world.counts.sent++;
      if (!this.scenario.maySend(key)) this.#world.fail(`${key} was sent, which nobody has`);
      if (this.check.receipted.has(key) && !this.scenario.mayRepeat(key)) {
        this.#world.fail(`${key} was sent again after its receipt`);
      }
    },
    receipted: (key: string) => {
      if (!this.scenario.isUnsettled(key)) this.check.receipted.add(key);
      this.#progressAt = performance.now();
    },
    ending: () => void this.#world.counts.endings++,
    told: (error: number) => {
      if (error === storeError) this.#world.counts.storeErrors++;
    },
    missed: () => void this.#world.counts.missed++,
    wrong: (what: string) => this.#world.fail(`the sender of ${this.scenario.stream}: ${what}`),
    undelivered: (line: string) => {
      if (!this.scenario.mayFail(line)) this.#listener.wrong(line);
    },
    line: (text: string) => {
      const short = text.slice(0, 300);
      this.#lines.push(short);
      if (this.#lines.length > linesShown) this.#lines.shift();
      this.scenario.onLine(text);
      if (!/^(?:->|<-) (?!ERROR)/.test(text)) this.#note(`says: ${short}`);
    },
  };
}
