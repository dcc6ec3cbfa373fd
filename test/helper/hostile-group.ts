// Shared by the tests of one kind of hostile peer: a server, an honest sender, and checks of the
// store at the end.

import { afterAll, beforeAll, expect } from "bun:test";
import { join } from "node:path";

import type { ErrorName } from "../../src/errors.ts";
import { type } from "../wire/vectors.ts";
import { expectCode, summaryOf } from "./delivery.ts";
import {
  contents,
  converse,
  end,
  frame,
  type GuardedOptions,
  type GuardedServer,
  guardedServer,
  type HonestSender,
  honestSender,
  Peer,
  source,
  type Target,
} from "./hostile.ts";
import { makeTree, manyFrames, run, sameTree } from "./program.ts";
import { until } from "./time.ts";

/** The two kinds of server: without keys, and with a key that the peer has too. */
export const kinds = [
  ["without keys", false],
  ["with keys", true],
] as const;

/** What titles say of a server with an honest sender beside hostile peers. */
export const honestly = "serves an honest sender with little memory beside";

/** A frame sent by a peer, and its expected result. */
export interface Step {
  source?: string;
  name: string;
  payload?: string;
  expects: "stored" | "present" | ErrorName;
}

/** How a conversation must end, DONE or ERROR, and why frames were refused before. */
export interface Ending {
  expects: ErrorName | "done";
  refused?: ErrorName[];
}

/** Paths in the store that belong to the server or to honest senders. */
const ownPaths = /^(?:\.frames|honest(?:-\d+)?)\//;

/** Number of peers that connect concurrently. */
const atOnce = 32;

/**
 * Connects many peers, each of which sends something at once. They stay connected until disposed.
 */
export async function crowdOf(
  target: Target,
  count: number,
  say: (peer: Peer, index: number) => Buffer,
): Promise<{ peers: Peer[] } & Disposable> {
  const peers: Peer[] = [];
  let next = 0;
  const join = async (): Promise<void> => {
    while (next < count) {
      const index = next++;
      const peer = await Peer.connect(target);
      peers.push(peer);
      peer.write(say(peer, index));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, join));
  return { peers, [Symbol.dispose]: () => peers.forEach((peer) => peer.reset()) };
}

/** A server and an honest sender, both running while the surrounding tests run. */
export class HostileGroup {
  guarded!: GuardedServer;
  honest!: HonestSender;
  #streams = 0;
  #deliveries = 0;
  #tree: string | undefined;
  readonly #wanted: Record<string, string> = {};
  readonly #allowed: Record<string, string> = {};

  constructor(options: GuardedOptions) {
    beforeAll(async () => {
      this.guarded = await guardedServer(options);
      this.honest = await honestSender(this.guarded);
    });
    afterAll(async () => {
      using guarded = this.guarded;
      using honest = this.honest;
      await honest.finish();
      guarded.expectUnharmed();
      await guarded.stop();
      const found = Object.entries(contents(guarded.store));
      const foreign = found.filter(([path, text]) => {
        return !ownPaths.test(path) && this.#allowed[path] !== text;
      });
      expect(Object.fromEntries(foreign)).toEqual(this.#wanted);
    });
  }

  /** Returns a stream name not used before. */
  newStream(): string {
    return `case-${++this.#streams}`;
  }

  /** Returns the folder of a stream. */
  folderOf(stream: string): string {
    return join(this.guarded.store, stream);
  }

  /** Waits until the peer has received the expected outcome and the log has recorded it. */
  async expectOutcome(peer: Peer, { expects, refused = [] }: Ending): Promise<void> {
    await until("the last word", () => peer.outcome !== "closed" || peer.isClosed);
    if (peer.outcome === "done") peer.finish();
    await peer.closed();
    expect([peer.outcome, peer.refusals]).toEqual([expects, refused]);
    const word = expects === "done" ? "delivered" : "failed";
    await until("a line of the log", () => this.guarded.lines(peer, word).length > 0);
    const lines = this.guarded.lines(peer, word);
    expect(lines).toHaveLength(1);
    if (expects !== "done") expect(lines[0]).toMatchObject({ error: expects });
    const reasons = this.guarded.lines(peer, "refused").map(({ error }) => error);
    expect(reasons).toEqual(refused);
  }

  /** Expects exactly these files in the folder of a stream, now and at the end. */
  expectKept(stream: string, keeps: Record<string, string> = {}): void {
    expect(contents(this.folderOf(stream))).toEqual(keeps);
    for (const [path, text] of Object.entries(keeps)) this.#wanted[`${stream}/${path}`] = text;
  }

  /** Expects this file at the end. */
  want(path: string, text: string): void {
    this.#wanted[path] = text;
  }

  /** Allows these files in the folder of a stream at the end. They may also be absent. */
  allow(stream: string, keeps: Record<string, string>): void {
    for (const [path, text] of Object.entries(keeps)) this.#allowed[`${stream}/${path}`] = text;
  }

  /**
   * Expects that another honest sender delivers 1,000 frames at the first attempt, and that the
   * first one makes progress.
   */
  async expectServed(): Promise<void> {
    const { guarded, honest } = this;
    const before = honest.bytes;
    const tree = (this.#tree ??= makeTree(manyFrames(300, 2000)));
    const stream = `honest-${++this.#deliveries}`;
    const words = ["--stream", stream, "--to", `127.0.0.1:${guarded.port}`, ...guarded.keyWords];
    const sent = await run(["send", tree, "--json", "--give-up-after", "100", ...words]);
    expectCode(sent, 0);
    expect(summaryOf(sent)).toMatchObject({ frames: 300, refused: 0, lost: 0, retries: 0 });
    expect(sameTree(tree, this.folderOf(stream))).toEqual([]);
    await until("progress of the first honest sender", () => honest.bytes > before + 10_000);
    guarded.expectUnharmed();
  }

  /** Sends frames in order, and checks the result of each. */
  async deliver(fields: object, steps: Step[], sourceFields: object = {}): Promise<void> {
    const says = steps.flatMap(({ source: from = "a", name, payload = "bytes" }, index) => [
      source(from, 1, sourceFields),
      frame({ name, payload, sequence: index + 1 }),
    ]);
    using peer = await converse(this.guarded, fields, ...says, end(steps.length));
    const count = (outcome: string) => steps.filter((step) => step.expects === outcome).length;
    const [stored, present] = [count("stored"), count("present")];
    const refused = steps.flatMap(({ expects }) =>
      expects === "stored" || expects === "present" ? [] : [expects],
    );
    await this.expectOutcome(peer, { expects: "done", refused });
    expect(peer.bodies(type.DONE)).toEqual([
      { frames: steps.length, stored, present, refused: refused.length, aborted: 0 },
    ]);
    this.guarded.expectUnharmed();
  }
}
