// Repeatedly kills, cuts, freezes, slows, corrupts and fills up everything involved while four
// senders deliver to one server: of a growing tree, of a folder with `--watch --move`, and of pipes of
// images and of H.264 with `--spool`. At every step each frame with a receipt, and each whose file was removed at the
// sender, must exist under its final name with the right content, and nothing else. At the end every
// frame is stored, is still at the sender, or counts as lost.
//
//   bun test/chaos/main.ts [--seed N] [--frames N] [--faults N]
//
// The long form takes about a quarter of an hour. Fills the disks of server and spool as well, if
// this process may mount small ones.

import { parseArgs } from "node:util";

import { commit, type Fault, type Kind, kinds, momentOf, planFaults } from "./faults.ts";
import type { Delivery } from "./delivery.ts";
import { Tree } from "./tree.ts";
import { type ChaosOptions, World } from "./world.ts";
import { hangMs } from "../helper/time.ts";
import { Random, seedOf } from "../wire/fuzz.ts";

/** Milliseconds between two checks of the store. */
const lookEvery = 300;
const reportEvery = 15_000;
/** Attempts without effect after which a fault is considered impossible. */
const mostTries = 8;
/** Most faults at the same time. */
const mostAtOnce = 3;

/** Result of a run. */
export interface ChaosSummary {
  readonly faults: ReadonlyMap<Kind, number>;
  /** Summary for people. */
  readonly lines: readonly string[];
}

/** Options of the long form, and of the short one for the test suite. */
export const longForm: Omit<ChaosOptions, "seed"> = {
  frames: 20_000,
  cameraFrames: 5000,
  faults: 320,
  atLeast: 30,
  rounds: 8,
  rate: 1_500_000,
  disk: 512 * 2 ** 20,
  reserve: 16 * 2 ** 20,
  within: 3_600_000,
};
export const shortForm: Omit<ChaosOptions, "seed"> = {
  frames: 1200,
  cameraFrames: 300,
  faults: 16,
  atLeast: 1,
  rounds: 3,
  rate: 1_500_000,
  disk: 96 * 2 ** 20,
  reserve: 8 * 2 ** 20,
  within: 4 * hangMs,
};

/**
 * Runs a chaos test.
 *
 * @throws with the whole log if a frame was lost, incomplete or duplicated, or if there was no
 * progress
 */
export async function chaos(options: ChaosOptions): Promise<ChaosSummary> {
  const world = await World.make(options);
  const run = new Run(world, options);
  return await run.run();
}

class Run {
  readonly #world: World;
  readonly #options: ChaosOptions;
  readonly #faults: Fault[];
  readonly #done = new Map<Kind, number>();
  readonly #active = new Set<Kind>();
  #faultsLeft: number;
  /** Number of receipts of each delivery when a byte was flipped last. */
  #receiptedAtFlip: readonly number[] = [];

  constructor(world: World, options: ChaosOptions) {
    this.#world = world;
    this.#options = options;
    const { seed, faults, atLeast } = options;
    const possible = kinds.filter((kind) => reasonToSkip(kind, world) === undefined);
    this.#faults = planFaults(seed, faults, atLeast, possible);
    this.#faultsLeft = this.#faults.length;
  }

  async run(): Promise<ChaosSummary> {
    const world = this.#world;
    const began = performance.now();
    const parts: Promise<unknown>[] = [];
    try {
      await world.startServer();
      parts.push(...world.deliveries.map((delivery) => this.#deliver(delivery)));
      parts.push(this.#disturbances(), this.#watch());
      await Promise.race([Promise.all(parts), world.failure]);
      await world.stopServer();
      world.checkEnd();
      return this.#summary((performance.now() - began) / 1000);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${world.story()}`, { cause: error });
    } finally {
      await world.close(parts);
    }
  }

  /** Delivers more and more frames until there are enough and all faults are done. */
  async #deliver(delivery: Delivery): Promise<void> {
    const world = this.#world;
    const { scenario } = delivery;
    const { rounds, faults, seed } = this.#options;
    const frames = this.#framesOf(delivery);
    const random = new Random(seedOf(seed, -20 - world.deliveries.indexOf(delivery)));
    while (scenario.made < frames || this.#faultsLeft > 0) {
      const isLate = scenario.made >= frames;
      // Faults need frames in transit.
      const more = (frames / faults) * Math.min(this.#faultsLeft, 10);
      scenario.add(Math.ceil(isLate ? more : frames / rounds));
      world.note(`more frames of ${scenario.stream} to send`);
      await delivery.deliver(random);
      delivery.check.everythingDelivered();
    }
    delivery.isThrough = true;
  }

  #framesOf({ scenario }: Delivery): number {
    return scenario instanceof Tree ? this.#options.frames : this.#options.cameraFrames;
  }

  /** Frames to be delivered by all deliveries. */
  get #frames(): number {
    return this.#world.deliveries.reduce((sum, delivery) => sum + this.#framesOf(delivery), 0);
  }

  async #disturbances(): Promise<void> {
    const world = this.#world;
    const underWay = new Set<Promise<void>>();
    let isAlongside = false;
    for (let fault = this.#faults.shift(); fault !== undefined;) {
      const { kind, seed, tries } = fault;
      const random = new Random(seedOf(seed, tries));
      if (isAlongside) await world.pause(random.below(1500));
      else await momentOf(random, this.#pace, world);
      await world.until(() => this.#mayBegin(kind), Infinity);
      const doing = this.#disturb(fault, random);
      underWay.add(doing);
      void doing.finally(() => underWay.delete(doing)).catch(() => {});
      isAlongside = random.below(3) === 0;
      if (!isAlongside) await Promise.all(underWay);
      // Faults without effect return to this list.
      if (this.#faults.length === 0) await Promise.all(underWay);
      fault = this.#faults.shift();
    }
    world.note("all faults are through");
    world.setRate(Infinity);
  }

  /** Frames delivered on average between two faults. */
  get #pace(): number {
    const left = this.#frames - this.#world.receipted;
    return Math.max(10, Math.floor((left / this.#faultsLeft) * 0.8));
  }

  /**
   * Halves the rate if the frames would end before the faults. Lower rates would make large frames
   * too slow.
   */
  #steer(): void {
    const { faults, rate } = this.#options;
    const delivered = this.#world.receipted / this.#frames;
    this.#world.setRate(delivered > 1 - this.#faultsLeft / faults ? rate / 2 : rate);
  }

  #mayBegin(kind: Kind): boolean {
    if (this.#active.size >= mostAtOnce || this.#active.has(kind)) return false;
    const hasProgressed = ({ check }: Delivery, index: number): boolean =>
      check.receipted.size > (this.#receiptedAtFlip[index] ?? -1);
    // Flipping bytes repeatedly without progress would make a sender give up, which is correct
    // behaviour.
    return kind !== "byte flipped" || this.#world.deliveries.every(hasProgressed);
  }

  async #disturb(fault: Fault, random: Random): Promise<void> {
    const world = this.#world;
    const { kind } = fault;
    this.#active.add(kind);
    const over = world.disturb();
    world.note(`${kind} …`);
    try {
      const what = await commit(kind, random, world);
      world.note(`${kind}: ${what ?? "came to nothing"}`);
      if (what === undefined) {
        if (++fault.tries === mostTries) throw new Error(`${kind}: came to nothing for ever`);
        this.#faults.push(fault);
        return;
      }
      if (kind === "byte flipped") {
        this.#receiptedAtFlip = world.deliveries.map(({ check }) => check.receipted.size);
      }
      this.#done.set(kind, (this.#done.get(kind) ?? 0) + 1);
      this.#faultsLeft--;
      this.#steer();
      world.look();
    } catch (error) {
      // The promise may not be awaited.
      world.fail(error);
      throw error;
    } finally {
      this.#active.delete(kind);
      over();
    }
  }

  async #watch(): Promise<void> {
    const world = this.#world;
    let reportAt = performance.now() + reportEvery;
    while (!world.deliveries.every(({ isThrough }) => isThrough)) {
      const before = performance.now();
      world.look();
      // Longer pauses after slow checks, because the relay runs in this process too.
      await world.pause(Math.max(lookEvery, 4 * (performance.now() - before)));
      if (performance.now() < reportAt) continue;
      reportAt += reportEvery;
      const made = world.deliveries.reduce((sum, { scenario }) => sum + scenario.made, 0);
      this.#options.report?.(
        `${world.receipted} of ${made} frames receipted, ${this.#faultsLeft} faults to come`,
      );
    }
  }

  #summary(seconds: number): ChaosSummary {
    const world = this.#world;
    const { counts, options, relay } = world;
    const faults = kinds.map((kind) => {
      return `  ${kind.padEnd(16)}${reasonToSkip(kind, world) ?? this.#done.get(kind) ?? 0}`;
    });
    const total = [...this.#done.values()].reduce((sum, count) => sum + count, 0);
    const streams = world.deliveries.map(({ scenario, check }) => {
      const size = (scenario.bytes / 1e6).toFixed(1);
      const { stream, made } = scenario;
      return `  ${stream.padEnd(16)}${made} frames of ${size} MB, ${check.receipted.size} of them receipted`;
    });
    const missed =
      counts.missed > 0 ? [`lines of the senders not read in time: ${counts.missed}`] : [];
    const lines = [
      `seed ${options.seed}: nothing lost in silence, nothing torn, nothing twice`,
      `${total} faults in ${seconds.toFixed(1)} s:`,
      ...faults,
      "frames:",
      ...streams,
      `frames sent ${counts.sent} times in all; ${world.video.lost} pictures of video reported as lost`,
      `${relay.connections} connections, ${counts.connections} of them welcome; ${counts.senders} senders, ${counts.servers} servers`,
      ...missed,
    ];
    return { faults: this.#done, lines };
  }
}

/** Returns why a kind of fault cannot be caused here. */
function reasonToSkip(kind: Kind, { room, spoolRoom }: World): string | undefined {
  if (kind === "disk filled" && !room.canFill) return "skipped: needs mount";
  if (kind === "spool filled" && !spoolRoom.canFill) return "skipped: needs mount";
  return kind === "events lost" && process.platform !== "linux"
    ? "skipped: needs Linux"
    : undefined;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      frames: { type: "string" },
      faults: { type: "string" },
    },
  });
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  const faults = Number(values.faults ?? longForm.faults);
  const options: ChaosOptions = {
    ...longForm,
    seed,
    frames: Number(values.frames ?? longForm.frames),
    faults,
    atLeast: Math.min(longForm.atLeast, Math.floor(faults / kinds.length)),
    report: console.log,
  };
  console.log(`chaos: seed ${seed}`);
  try {
    for (const line of (await chaos(options)).lines) console.log(line);
  } catch (error) {
    console.error(`chaos: ${error instanceof Error ? error.message : error}`);
    // A sender that was killed may leave a write to its pipe pending.
    process.exit(1);
  }
}
