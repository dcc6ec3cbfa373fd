// Every call of the file system and of SQLite that a spool makes fails once with every error, and for
// a while.

import { describe, expect, test } from "bun:test";
import { cpSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { FrameFeed } from "../../../src/source/live/frame-feed.ts";
import { LiveSource } from "../../../src/source/live/live-source.ts";
import { Spool } from "../../../src/source/live/spool.ts";
import type { QueuePolicy } from "../../../src/source/per-source.ts";
import { temporaryFolder } from "../../helper/program.ts";
import {
  databaseCodes,
  type FaultCode,
  faultOf,
  fileCodes,
  forEachFault,
  isDatabaseCall,
  SystemFaults,
} from "../../helper/system-faults.ts";

const session = { id: "a".repeat(32), started: Date.UTC(2026, 10, 22) };
const naming = { started: session.started, clock: () => 0 };

/** A sender with one camera and a spool, whose server comes and goes. */
class Sender {
  readonly spool: Spool;
  readonly source: LiveSource;
  readonly feed = new FrameFeed();
  readonly told: FramesError[] = [];
  readonly delivered = new Set<number>();
  readonly lost = new Map<number, FramesError>();
  /** The error with which the source ended. */
  failure: unknown;
  #isPulling = false;
  #captured = 0;

  constructor(directory: string, policy: QueuePolicy, maxBytes = 1e9) {
    const onError = (error: FramesError) => void this.told.push(error);
    this.spool = new Spool({ directory, stream: "run7", session, maxBytes, onError });
    try {
      const spool = this.spool.sourceSpool("visible");
      this.source = new LiveSource("visible", this.feed, { policy, settings: naming, spool });
    } catch (error) {
      this.spool.close();
      throw error;
    }
    this.source.startCapture();
  }

  /** Captures frames. With the policy `block` some may wait until a server is there. */
  async capture(count: number): Promise<void> {
    for (let left = count; left > 0; left--) void this.feed.push({ bytes: new Uint8Array(50) });
    this.#captured += count;
    // The source takes each frame in a few turns of the microtask queue.
    for (let turn = 0; turn < 20 * count; turn++) await Promise.resolve();
  }

  /** Takes up to `most` frames as a connection does. Returns frames that were not settled. */
  take(most = Infinity, settles = true): Frame[] {
    const inFlight: Frame[] = [];
    for (let taken = 0; taken < most && !this.#isPulling; taken++) {
      const item = this.source.next();
      if (item instanceof Promise) {
        this.#isPulling = true;
        void item
          .then((late) => {
            this.#isPulling = false;
            this.#accept(late);
          })
          .catch((error: unknown) => void (this.failure = error));
        break;
      }
      if (item === undefined) break;
      if ("error" in item || settles) this.#accept(item);
      else inFlight.push(item);
    }
    return inFlight;
  }

  /** Takes all frames. With the policy `block` the source captures one when the last one was taken. */
  async drain(): Promise<void> {
    for (let turn = 0; turn < 100; turn++) {
      this.take();
      await Promise.resolve();
    }
  }

  #accept(item: Frame | Loss | undefined): void {
    if (item === undefined) return;
    if ("error" in item) this.#lose(item);
    else this.#settle(item);
  }

  #lose({ first, last, error }: Loss): void {
    for (let number = first; number <= last; number++) this.lost.set(number, error);
  }

  #settle(frame: Frame): void {
    try {
      frame.read(new Uint8Array(frame.size));
      this.delivered.add(frame.sequence);
      this.source.onSettled(frame);
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      this.#lose(this.source.retry(frame, error));
    }
  }

  /** Goes through several connections. */
  async run(): Promise<void> {
    await this.capture(3);
    this.source.onConnected();
    this.take(2);
    const inFlight = this.take(1, false);
    const back = this.source.onDisconnected(inFlight);
    await this.capture(2);
    this.source.onConnected();
    for (const frame of back) this.#settle(frame);
    this.take();
    await this.capture(2);
    this.take();
    this.feed.end();
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    this.take();
    this.source.close();
    this.spool.close();
  }
}

/** Leaves two frames in a spool, as a process that was stopped does. */
function leaveTwo(directory: string): void {
  const spool = new Spool({ directory, stream: "run7", session, maxBytes: 1e9 });
  const source = spool.sourceSpool("visible");
  for (const sequence of [1, 2]) {
    source.lastNumber = sequence;
    source.put({
      name: `${sequence}.bin`,
      sequence,
      captured: 1n,
      size: 50,
      metadata: "",
      read: () => {},
      pieces: () => {
        throw new Error("not read in pieces");
      },
    });
  }
  spool.close();
}

const policies: [what: string, policy: QueuePolicy][] = [
  ["block", "block"],
  ["latest:5", { latest: 5 }],
];

describe("a spool with one failing call", () => {
  for (const [what, policy] of policies) {
    test(`every captured frame is delivered or told as lost, with the policy ${what}`, async () => {
      using faults = new SystemFaults();
      const runs = await forEachFault(faults, async (fault) => {
        const directory = temporaryFolder();
        leaveTwo(directory);
        const problems: string[] = [];
        await faults.within(async () => {
          let sender: Sender;
          try {
            sender = new Sender(directory, policy);
          } catch (error) {
            // The command ends before it captured anything.
            const problem = faultOf(error);
            if (problem !== undefined) problems.push(problem);
            return;
          }
          await sender.run();
          const { delivered, lost, told, failure } = sender;
          const faulty = [...told, ...lost.values()].map(faultOf);
          if (failure !== undefined) problems.push(`ended with ${String(failure)}`);
          problems.push(...faulty.filter((problem) => problem !== undefined));
          for (let number = 1; number <= 9; number++) {
            if (!delivered.has(number) && !lost.has(number)) problems.push(`${number} is missing`);
          }
          if (lost.size > 1) problems.push(`lost ${[...lost.keys()].join()}`);
          if (told.length > 1) problems.push(`told ${told.length} times`);
        });
        // The next process can use the spool, and continues behind the numbers that were used.
        const next = new Sender(directory, policy);
        next.source.onConnected();
        next.take();
        next.source.close();
        next.spool.close();
        rmSync(directory, { recursive: true });
        expect([fault, ...problems]).toEqual([fault]);
      });
      expect(runs).toBeGreaterThan(100);
    });
  }
});

describe("a spool whose disk fails for a while", () => {
  const isWrite = (call: string, sql: string) =>
    isDatabaseCall(call)
      ? /^\s*(?:INSERT|DELETE|CREATE|UPDATE)/.test(sql)
      : /^(?:write|mkdir)/.test(call);

  for (const [what, policy] of policies) {
    for (const code of [...fileCodes, ...databaseCodes]) {
      test(`nothing is lost while a server is there, and one line tells ${code}, with the policy ${what}`, async () => {
        using faults = new SystemFaults();
        const directory = temporaryFolder();
        leaveTwo(directory);
        const sender = new Sender(directory, policy);
        sender.source.onConnected();
        faults.decide = (call, args) => {
          const isOfDatabase = isDatabaseCall(call);
          const isAffected = isWrite(call, String(args[0]));
          const asCode: FaultCode =
            isOfDatabase && !code.startsWith("SQLITE") ? "SQLITE_FULL" : code;
          return isAffected ? asCode : undefined;
        };
        await faults.within(async () => {
          await sender.capture(3);
          await sender.drain();
        });
        faults.decide = undefined;
        await sender.capture(2);
        await sender.drain();
        sender.source.close();
        sender.spool.close();
        expect([...sender.delivered].sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
        expect(sender.lost.size).toBe(0);
        expect(sender.told.map(faultOf)).toEqual([undefined]);
        // Frames that were settled while no row could be deleted do not come again.
        const next = new Sender(directory, policy);
        next.source.onConnected();
        next.take();
        expect([...next.delivered]).toEqual([]);
        next.source.close();
        next.spool.close();
        expect(readdirSync(join(directory, "visible"))).toEqual([]);
      });
    }
  }

  test("settled frames free their space although SQLite can delete no row on the full disk", () => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    leaveTwo(directory);
    const sender = new Sender(directory, "block");
    sender.source.onConnected();
    faults.decide = (call, args) => (isWrite(call, String(args[0])) ? "SQLITE_FULL" : undefined);
    faults.within(() => sender.take());
    expect([...sender.delivered]).toEqual([1, 2]);
    const left = readdirSync(join(directory, "visible")).map(
      (name) => Bun.file(join(directory, "visible", name)).size,
    );
    expect(left.reduce((sum, size) => sum + size, 0)).toBe(0);
    sender.source.close();
    sender.spool.close();
  });

  test("no number is used twice when SQLite could not record the last one before the sender was killed", async () => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    leaveTwo(directory);
    const sender = new Sender(directory, "block");
    sender.source.onConnected();
    sender.take();
    faults.decide = (call, args) =>
      call === "statement.run" && isWrite(call, String(args[0])) ? "SQLITE_FULL" : undefined;
    await faults.within(async () => {
      await sender.capture(3);
      await sender.drain();
    });
    expect([...sender.delivered]).toEqual([1, 2, 3, 4, 5]);
    // The disk keeps only what was written so far, as after a kill.
    const copy = temporaryFolder();
    cpSync(directory, copy, { recursive: true });
    sender.source.close();
    sender.spool.close();
    const next = new Sender(copy, "block");
    next.source.onConnected();
    await next.capture(1);
    await next.drain();
    expect([...next.delivered]).toEqual([6]);
    next.source.close();
    next.spool.close();
    // An emptied spool starts a new session, whose numbers start again.
    const last = new Sender(copy, "block");
    expect(last.source.capturedCount).toBe(0);
    last.source.close();
    last.spool.close();
  });

  const noWrites = [
    ["no row can be written", isWrite],
    ["no row can be added", (_: string, sql: string) => /^\s*INSERT/.test(sql)],
  ] as const;
  /**
   * Returns the spool of a sender that was killed after frames had been dropped on a full disk. It had
   * room for four frames, and dropped the oldest ones for newer ones.
   */
  const leaveFullSpool = async (isFull: (call: string, args: readonly unknown[]) => boolean) => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    const sender = new Sender(directory, { latest: 1 }, 200);
    await sender.capture(5);
    faults.decide = (call, args) => (isFull(call, args) ? "SQLITE_FULL" : undefined);
    await faults.within(() => sender.capture(3));
    const copy = temporaryFolder();
    cpSync(directory, copy, { recursive: true });
    sender.source.close();
    sender.spool.close();
    return copy;
  };

  /** Returns the numbers that the next process delivers, and those that it tells as lost. */
  const drain = (directory: string) => {
    const next = new Sender(directory, { latest: 1 });
    next.source.onConnected();
    next.take();
    const numbers = [[...next.delivered], [...next.lost.keys()]];
    next.source.close();
    next.spool.close();
    return numbers;
  };

  for (const [what, isAffected] of noWrites) {
    test(`a loss on a full disk is told by the next process, although ${what} before the sender was killed`, async () => {
      const directory = await leaveFullSpool((call, [sql]) => {
        return call === "statement.run" && isAffected(call, String(sql));
      });
      // The last one is in the queue.
      expect(drain(directory)).toEqual([
        [3, 4, 5],
        [1, 2, 6, 7],
      ]);
      // What was noted while no row could be written is recorded.
      const left = readdirSync(join(directory, "visible"));
      expect(left.filter((name) => !name.endsWith(".last"))).toEqual([]);
    });

    test(`frames stay in the spool if neither a row nor a name can record their loss, and ${what}`, async () => {
      const directory = await leaveFullSpool((call, args) => {
        const isLost = args.some((arg) => String(arg).endsWith(".lost"));
        return isAffected(call, String(args[0])) || isLost;
      });
      expect(drain(directory)).toEqual([[2, 3, 4, 5], [1]]);
    });
  }

  test("a sender starts although its new spool cannot be created on the full disk, and spools once it can", async () => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    faults.decide = (call, args) => (isWrite(call, String(args[0])) ? "SQLITE_FULL" : undefined);
    const sender = faults.within(() => new Sender(directory, { latest: 2 }));
    await faults.within(() => sender.capture(3));
    expect(sender.told.map(faultOf)).toEqual([undefined]);
    faults.decide = undefined;
    await sender.capture(1);
    expect(readdirSync(join(directory, "visible")).sort()).toEqual(["2", "3", "4"]);
    sender.source.onConnected();
    sender.take();
    expect([[...sender.delivered], [...sender.lost.keys()]]).toEqual([[2, 3, 4], [1]]);
    sender.source.close();
    sender.spool.close();
  });

  test("a source does not end well while frames in its spool cannot be read", async () => {
    using faults = new SystemFaults();
    const directory = temporaryFolder();
    leaveTwo(directory);
    const sender = new Sender(directory, "block");
    sender.source.onConnected();
    sender.feed.end();
    await Promise.resolve();
    faults.decide = (call, args) =>
      call === "statement.get" && String(args[0]).includes("FROM frames")
        ? "SQLITE_CORRUPT"
        : undefined;
    let failure: unknown;
    await faults.within(async () => {
      try {
        for (;;) if ((await sender.source.next()) === undefined) break;
      } catch (error) {
        failure = error;
      }
    });
    expect(faultOf(failure)).toBeUndefined();
    expect((failure as FramesError).code).toBe("unreadable");
    sender.source.close();
    sender.spool.close();
  });
});
