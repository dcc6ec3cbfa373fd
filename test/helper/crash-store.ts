// A process that stores frames in a directory and prints its progress, so that a test can inspect
// or kill it while it runs.
//
//     bun crash-store.ts DIR PLAN
//
// PLAN is JSON.

import { writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { FramesError } from "../../src/errors.ts";
import type { ConflictPolicy, Outcome, SourceStore } from "../../src/frame.ts";
import { DirectoryStore } from "../../src/store/directory/directory-store.ts";
import { bytesOf } from "../store/contract.ts";

/** A frame whose bytes are `bytesOf(size, seed)`. */
export interface PlannedFrame {
  readonly name: string;
  readonly size: number;
  readonly seed: number;
  /** Default: `visible`. */
  readonly source?: string;
}

/** A step of the plan. Steps run in order, and each prints one line. */
export type Step =
  | { readonly store: readonly PlannedFrame[] }
  | { readonly compare: readonly PlannedFrame[] }
  | { readonly flush: "once" | "twice" }
  | { readonly durable: boolean };

/** Plan of the process. */
export interface Plan {
  readonly durable?: boolean;
  readonly conflict?: ConflictPolicy;
  readonly again?: boolean;
  readonly steps: readonly Step[];
}

/** Session of the process, and capture time of all its frames. */
export const childSession = "c".repeat(32);
export const childCaptured = 1_795_000_000_000_000_000n;

/** Stream of all frames. */
export const childStream = "run7";

/** Signal with which the process ends itself after its plan. */
export const endSignal = "SIGTERM";

if (import.meta.main) {
  const [place, plan] = process.argv.slice(2);
  await follow(place!, JSON.parse(plan!) as Plan);
  // Exits without cleanup, as if killed.
  process.kill(process.pid, endSignal);
}

async function follow(place: string, plan: Plan): Promise<void> {
  const { conflict, again } = plan;
  const store = new DirectoryStore(place, {
    portableNames: false,
    clock: Date.now,
    reserve: 0,
    ...(plan.durable === undefined ? {} : { durable: plan.durable }),
  });
  say({ opened: store.recovery });
  let sources = new Map<string, SourceStore>();
  let durable = false;
  let sequence = 0;
  const sourceOf = ({ source = "visible" }: PlannedFrame): SourceStore => {
    const origin = {
      ...{ stream: childStream, source, session: childSession, durable },
      ...(conflict === undefined ? {} : { conflict }),
      ...(again === undefined ? {} : { resendRemoved: again }),
    };
    const found = sources.get(source) ?? store.open(origin);
    sources.set(source, found);
    return found;
  };
  let pending: (Outcome | Promise<Outcome>)[] = [];
  for (const step of plan.steps) {
    if ("durable" in step) {
      durable = step.durable;
      sources = new Map();
      say({ durable });
    } else if ("store" in step) {
      for (const frame of step.store) {
        const bytes = bytesOf(frame.size, frame.seed);
        const description = { name: frame.name, size: frame.size, metadata: "" };
        const more = { sequence: ++sequence, captured: childCaptured };
        const writer = sourceOf(frame).begin({ ...description, ...more });
        // Written in two pieces, so that a test can observe a half-written frame.
        writer.write(bytes.slice(0, frame.size >> 1));
        writer.write(bytes.slice(frame.size >> 1));
        pending.push(writer.finish(crc32(bytes)));
      }
      say({ begun: step.store.length });
    } else if ("compare" in step) {
      const standings = step.compare.map((frame) => {
        const offered = { name: frame.name, size: frame.size, captured: childCaptured };
        return sourceOf(frame).compare([
          {
            ...offered,
            ...{ sequence: ++sequence, crc32: crc32(bytesOf(frame.size, frame.seed)) },
          },
        ])[0]!;
      });
      say({ standings });
    } else {
      await store.flush();
      const outcomes = await Promise.all(pending);
      // Results that arrive after a first flush are covered by the next one, as in the server.
      if (step.flush === "twice") await store.flush();
      pending = [];
      say({ flushed: outcomes.map((out) => (out instanceof FramesError ? out.code : out)) });
    }
  }
}

/** Prints one line before the next step begins. */
function say(what: object): void {
  writeSync(1, `${JSON.stringify(what)}\n`);
}
