// Unusual, slow, silent or endlessly sending servers: `frames send` delivers if possible, and
// otherwise ends, with limited memory, and never takes an incomplete delivery for complete.

import { describe, expect, test } from "bun:test";

import { type ErrorName, errors } from "../../src/errors.ts";
import { answers, expectEnd, grants, knows, says, table } from "../helper/hostile-case.ts";
import { jsonLines } from "../helper/program.ts";
import {
  binary,
  done,
  error as errorOf,
  escapes,
  json,
  limits,
  long,
  names,
  type Peer,
  preface,
  receipt,
  refused,
  type Script,
  sendTo,
  welcome,
  window,
} from "../helper/scripted-server.ts";
import { type } from "../wire/vectors.ts";

const highest = Number.MAX_SAFE_INTEGER;
const most = {
  window: { bytes: highest, frames: highest },
  limits: { frame: highest, sources: highest, unfinished: highest },
};

/** Builds the preface and a WELCOME with an additional JSON field. */
function greeting(field: string): Buffer {
  const body = JSON.stringify({ window, limits, durable: true, x: 0 });
  return Buffer.concat([preface, binary(type.WELCOME, body.replace('"x":0', `"x":${field}`))]);
}
const nested = (depth: number) => greeting("[".repeat(depth) + "]".repeat(depth));
const padded = (size: number) => greeting(`"${"x".repeat(size + 20 - greeting('""').length)}"`);

/** A server that starts with these bytes and then follows the protocol. */
const greets =
  (bytes: Buffer): Script =>
  (peer) => {
    peer.say(bytes);
    return peer.agree();
  };

table("frames send succeeds with a server that", [
  {
    what: "sends WELCOME a byte at a time",
    // WELCOME must arrive within 10 s.
    isAlone: true,
    async script(peer) {
      await peer.drip(welcome());
      await peer.agree();
    },
  },
  {
    what: "sends everything a byte at a time",
    isAlone: true,
    async script(peer) {
      await peer.drip(welcome());
      await peer.hears(type.END);
      await peer.drip(Buffer.concat([receipt(3), done(3)]));
    },
  },
  { what: "grants a window of one byte", script: grants({ window: { bytes: 1, frames: 9 } }) },
  {
    what: "allows one unfinished frame",
    script: grants({ limits: { ...limits, unfinished: 1 } }),
  },
  {
    what: "grants a window of one frame",
    async script(peer) {
      peer.say(welcome({ window: { bytes: 1, frames: 1 } }));
      for (let frames = 1; frames <= 3; frames++) {
        await peer.hears(type.FRAME, frames);
        peer.say(receipt(frames));
      }
      await peer.hears(type.END);
      peer.say(done(3));
    },
  },
  { what: "grants the highest numbers", script: grants(most), isProcess: true },
  { what: "does not name its store", script: grants({ store: undefined }) },
  {
    what: "names its store with terminal escapes",
    script: grants({ store: escapes, software: escapes }),
    args: ["-v"],
    says: /Stored in \\x1b\[2J/,
  },
  { what: "names its store with 60 KB of text", script: grants({ store: long }), isProcess: true },
  { what: "names its store a path out of it", script: grants({ store: "../../../etc/passwd" }) },
  {
    what: "sends fields named like those of a prototype",
    script: grants({ ["__proto__"]: { window: 0 }, constructor: 1, toString: null }),
  },
  {
    what: "has unknown features",
    script: grants({ features: ["", escapes, "replace"] }),
    args: ["-v"],
  },
  { what: "sends a WELCOME of 65,536 bytes", script: greets(padded(65_536)) },
  { what: "sends a WELCOME of 30,000 brackets", script: greets(nested(15_000)) },
  {
    what: "sends a WELCOME of 30,000 brackets, shown with -v",
    script: greets(nested(15_000)),
    args: ["-v"],
    isProcess: true,
  },
  {
    what: "sends a PONG without a PING",
    script: answers(json(type.PONG, { time: "0", clock: "1" }), receipt(3), done(3)),
  },
  {
    what: "repeats a RECEIPT and sends one of 0 frames",
    script: answers(receipt(0), receipt(1), receipt(1), receipt(3), receipt(3), done(3)),
  },
  { what: "sends DONE without RECEIPT", script: answers(done(3)) },
  {
    what: "has all frames already",
    script: knows((frames) => "s".repeat(frames)),
    says: /Nothing new|Stored in/,
  },
  {
    what: "had all frames and moved them away",
    script: knows((frames) => "m".repeat(frames)),
    left: names,
  },
]);

const short = ["--timeout", "1"];
// Not shorter, because the servers of this process share one or two cores and must not be late.
const impatient = ["--give-up-after", "4"];
const large = Object.fromEntries(names.map((name) => [name, 8_000_000]));
table("frames send times out with a server that", [
  { what: "reads everything and sends nothing", script: () => {}, error: "timeout", args: short },
  { what: "sends one byte", script: says(Buffer.from("F")), error: "timeout", args: short },
  {
    what: "sends a byte now and then",
    script: (peer) => peer.drip(padded(4000), 100),
    ...{ error: "timeout", args: short, says: /WELCOME/ },
  },
  { what: "sends WELCOME and nothing more", script: answers(), error: "given-up", args: impatient },
  {
    what: "begins a message and sends a byte of it now and then",
    async script(peer) {
      peer.say(welcome());
      await peer.drip(refused(1, 36, long), 100);
    },
    ...{ error: "given-up", args: impatient },
  },
  {
    what: "reads nothing",
    script(peer) {
      peer.ignore();
      peer.say(welcome());
    },
    ...{ error: "given-up", args: impatient, files: large, isProcess: true },
  },
  {
    what: "reads nothing and sends PINGs",
    async script(peer) {
      peer.ignore();
      peer.say(welcome());
      while (!peer.isClosed) {
        peer.say(json(type.PING, { time: "0" }));
        await Bun.sleep(50);
      }
    },
    ...{ error: "given-up", args: impatient, files: large, isProcess: true },
  },
]);

describe.concurrent("Cut answers", () => {
  const hello = welcome({ features: undefined, store: undefined });
  const rest = Buffer.concat([receipt(3), done(3)]);
  const whole = hello.length + rest.length;

  for (const how of ["end", "reset"] as const) {
    const where = how === "end" ? "every byte, by FIN" : "every third byte, by RST";
    test(`frames send succeeds only if it gets all of an answer that is cut at ${where}`, async () => {
      const cut = async (at: number): Promise<void> => {
        const script = async (peer: Peer): Promise<void> => {
          // A retry is refused as busy, so the result does not depend on the time that it takes.
          if (peer.turn > 0) return peer.say(preface, errorOf(errors.busy.wireCode));
          peer.say(hello.subarray(0, at));
          if (at >= hello.length) {
            await peer.hears(type.END);
            peer.say(rest.subarray(0, at - hello.length));
          }
          peer[how]();
        };
        const row = { what: "", script };
        // The executable is cut behind each message, and once within each.
        const ends = [hello.length, hello.length + receipt(3).length, whole];
        const isHere = !ends.some((end) => at === end || at === end - 5);
        const outcome = await sendTo(script, { isHere });
        const { code, stdout } = outcome;
        if (how === "end" ? at === whole : code === 0) {
          expect(at).toBe(whole);
          return expectEnd(outcome, row);
        }
        // A reset may discard earlier data.
        const { error, confirmed } = jsonLines(stdout).at(-1) as {
          error: ErrorName;
          confirmed: number;
        };
        const most = at < hello.length + receipt(3).length ? 0 : 3;
        expect(confirmed).toBeLessThanOrEqual(most);
        expectEnd(outcome, { ...row, error, confirmed });
        if (how === "end") {
          expect([at, error, confirmed]).toEqual([
            at,
            at < hello.length ? "network" : "busy",
            most,
          ]);
        } else {
          expect(["network", "unreachable", "busy"]).toContain(error);
        }
      };
      const every = Array.from({ length: whole + 1 }, (_, at) => at);
      const cuts = every.filter((at) => how === "end" || (whole - at) % 3 === 0);
      const worker = async (): Promise<void> => {
        for (let at; (at = cuts.pop()) !== undefined;) await cut(at);
      };
      await Promise.all(Array.from({ length: 60 }, worker));
    });
  }
});
