// Faults that a chaos run causes in server, senders, link and disks, and their timing.

import { hangMs } from "../helper/time.ts";
import { Random, seedOf } from "../wire/fuzz.ts";
import { timeout } from "./sender.ts";
import type { World } from "./world.ts";

export const kinds = [
  "server killed",
  "sender killed",
  "link reset",
  "link frozen",
  "link slowed",
  "byte flipped",
  "disk filled",
  "spool filled",
  "events lost",
] as const;

export type Kind = (typeof kinds)[number];

/** A planned fault. Its random choices depend only on its seed. */
export interface Fault {
  readonly kind: Kind;
  readonly seed: number;
  /** Number of attempts without effect. */
  tries: number;
}

/** Plans the faults of a run in order: each kind at least `atLeast` times, the rest at random. */
export function planFaults(
  seed: number,
  count: number,
  atLeast: number,
  possible: readonly Kind[],
): Fault[] {
  const random = new Random(seedOf(seed, -2));
  const chosen = possible.flatMap((kind) => Array<Kind>(atLeast).fill(kind));
  while (chosen.length < count) chosen.push(random.pick(possible));
  for (let last = chosen.length - 1; last > 0; last--) {
    const other = random.below(last + 1);
    [chosen[last], chosen[other]] = [chosen[other]!, chosen[last]!];
  }
  return chosen.map((kind, index) => ({ kind, seed: seedOf(seed, index), tries: 0 }));
}

/** Returns a random number below `most`; each number of digits is equally likely. */
function logarithmic(random: Random, most: number): number {
  return Math.floor(most ** (random.below(10_000) / 10_000));
}

/** Milliseconds after which an attempt at a fault is given up if its condition does not occur. */
const occasionWithin = 8000;

/**
 * Waits for the time of a fault: more receipts, more bytes, a new connection with a few bytes, or
 * the end of a delivery. Thus every part of a conversation is hit.
 *
 * @param pace frames delivered on average between two faults
 */
export async function momentOf(random: Random, pace: number, world: World): Promise<void> {
  const { relay, counts } = world;
  const frames = world.receipted + 1 + random.below(2 * pace);
  const bytes = relay.bytes + 1 + random.below(500_000);
  const afterConnecting = logarithmic(random, 20_000);
  const { connections } = relay;
  const ending = counts.endings;
  const kind = random.pick(["frames", "bytes", "connection", "end"] as const);
  let connectedAt: number | undefined;
  const hasCome = (): boolean => {
    if (world.receipted >= frames) return true;
    if (kind === "bytes") return relay.bytes >= bytes;
    if (kind === "end") return counts.endings > ending;
    if (kind !== "connection" || relay.connections === connections) return false;
    connectedAt ??= relay.bytes;
    return relay.bytes >= connectedAt + afterConnecting;
  };
  // No timeout here, because the run detects a stall elsewhere.
  await world.until(hasCome, Infinity);
  await world.pause(random.below(30));
}

/** Executes the fault. Returns its description, or `undefined` if it had no effect. */
export async function commit(
  kind: Kind,
  random: Random,
  world: World,
): Promise<string | undefined> {
  return await acts[kind](random, world);
}

const acts: Record<Kind, (random: Random, world: World) => Promise<string | undefined>> = {
  async "server killed"(random, world) {
    const down = random.below(2000);
    if (!(await world.until(() => world.isServing, occasionWithin))) return undefined;
    await world.killServer();
    await world.pause(down);
    await world.startServer();
    return `down for ${down} ms`;
  },

  async "sender killed"(random, world) {
    // A killed sender is restarted by the delivery loop.
    const delivery = random.pick(world.deliveries);
    const isSending = () => delivery.sender !== undefined;
    if (!(await world.until(isSending, occasionWithin))) return undefined;
    return (await delivery.killSender()) ? `of ${delivery.scenario.stream}` : undefined;
  },

  async "link reset"(_, world) {
    if (!(await world.until(() => world.relay.open > 0, occasionWithin))) return undefined;
    const { open } = world.relay;
    world.relay.cut();
    return `${open} connections`;
  },

  async "link frozen"(random, world) {
    const isLong = random.below(3) === 0;
    const lasts = isLong ? timeout * 1000 + 200 + random.below(2000) : 50 + random.below(1200);
    if (!(await world.until(() => world.relay.open > 0, occasionWithin))) return undefined;
    world.relay.freeze();
    try {
      await world.pause(lasts);
    } finally {
      world.relay.thaw();
    }
    return `for ${lasts} ms`;
  },

  async "link slowed"(random, world) {
    const rate = 1000 + logarithmic(random, 50_000);
    const lasts = 300 + random.below(2500);
    if (!(await world.until(() => world.relay.open > 0, occasionWithin))) return undefined;
    world.slow(rate);
    try {
      await world.pause(lasts);
    } finally {
      world.slow(undefined);
    }
    return `to ${rate} bytes per second for ${lasts} ms`;
  },

  async "byte flipped"(random, world) {
    const direction = random.pick(["toServer", "toServer", "toClient"] as const);
    const skip = logarithmic(random, direction === "toServer" ? 500_000 : 500);
    const bit = random.below(8);
    const flip = world.relay.flip(direction, skip, bit);
    try {
      if (!(await world.until(() => flip.happened, occasionWithin))) return undefined;
    } finally {
      flip.cancel();
    }
    return `${direction}, after ${skip} bytes, bit ${bit}`;
  },

  async "disk filled"(random, world) {
    const { room, counts } = world;
    const left = random.below(2) === 0 ? 0 : random.below(Math.max(world.reserve, 1_000_000));
    const lasts = random.below(2000);
    const before = counts.storeErrors;
    world.isDiskFull = true;
    try {
      await room.fill(left);
      // Counts only if the server ran into the full disk.
      if (!(await world.until(() => counts.storeErrors > before, occasionWithin))) return undefined;
      await world.pause(lasts);
    } finally {
      room.empty();
      world.isDiskFull = false;
    }
    return `${left} bytes left, for ${lasts} ms more`;
  },

  async "spool filled"(random, world) {
    const { spoolRoom, piped } = world;
    const left = random.below(2) === 0 ? 0 : random.below(200_000);
    const lasts = random.below(2000);
    const before = piped.spoolErrors;
    try {
      await spoolRoom.fill(left);
      // Frames go to the spool only without a connection.
      const end = performance.now() + occasionWithin;
      while (piped.spoolErrors === before && performance.now() < end) {
        world.relay.cut();
        await world.pause(200);
      }
      if (piped.spoolErrors === before) return undefined;
      await world.pause(lasts);
    } finally {
      spoolRoom.empty();
    }
    return `${left} bytes left, for ${lasts} ms more`;
  },

  async "events lost"(random, world) {
    const lasts = random.below(1500);
    const { watched } = world;
    const delivery = world.deliveries.find(({ scenario }) => scenario === watched)!;
    // From then on it relies on events.
    const isWatching = () => delivery.sender?.wasWelcome === true;
    if (!(await world.until(isWatching, occasionWithin))) return undefined;
    const sender = delivery.sender!;
    sender.suspend();
    let areFound: () => boolean;
    try {
      areFound = await watched.loseEvents();
      await world.pause(lasts);
    } finally {
      sender.resume();
    }
    // Another sender finds the files when it starts.
    const isOver = (): boolean => areFound() || delivery.sender !== sender;
    if (!(await world.until(isOver, hangMs)))
      throw new Error("files without events were not found");
    return areFound() ? `and not read for ${lasts} ms` : undefined;
  },
};
