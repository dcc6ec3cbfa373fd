/** Test cases of hostile servers: what each sends, and how `frames send` must react. */
import { describe, expect, test } from "bun:test";

import { printable } from "../../src/safe-text.ts";
import { type ErrorName, errors } from "../../src/errors.ts";
import { type } from "../wire/vectors.ts";
import { json, type Outcome, type Script, sendTo, three, welcome } from "./scripted-server.ts";
import { jsonLines } from "./program.ts";

export interface Case {
  what: string;
  script: Script;
  /** Error with which the delivery ends; absent if the server has everything. */
  error?: ErrorName;
  /** Pattern for the last line of stderr. */
  says?: RegExp;
  /** Frames confirmed by the server. Default: all, or none after an error. */
  confirmed?: number;
  /** Files left by `--move`. Default: all that were not confirmed. */
  left?: string[];
  /** Number of connections of the sender. */
  connections?: number;
  /** Whether the protocol completes but some frames are not delivered: exit status 23. */
  isPartial?: boolean;
  args?: string[];
  files?: Record<string, number>;
  /** Whether the executable is run, whose memory is looked at; other rows run in this process. */
  isProcess?: boolean;
  /** Whether no other row runs meanwhile, because the server takes many turns of this process. */
  isAlone?: boolean;
}

/** Checks what must hold with any server. */
function expectSanity({ code, stdout, stderr, peakMemory, changed }: Outcome): void {
  expect([code, changed]).toEqual([expect.any(Number), []]);
  // Output must contain no control characters besides newlines, and no line of 60 KB.
  for (const line of [...stdout.split("\n"), ...stderr.split("\n")]) {
    expect(line).not.toMatch(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/u);
    // With -v, messages are shown unabridged.
    if (!line.startsWith("<- ")) expect(line.length).toBeLessThan(8000);
  }
  expect(peakMemory).toBeLessThan(250e6);
}

/** Expects that the delivery ended as in `row`, and that exit status, stdout and stderr agree. */
export function expectEnd(outcome: Outcome, row: Case): void {
  const { code, stdout, stderr, connections } = outcome;
  expectSanity(outcome);
  const told = jsonLines(stdout).at(-1)!;
  const lines = stderr.trimEnd().split("\n");
  const errorLines = lines.filter((line) => line.startsWith("frames: "));
  if (row.error === undefined) {
    expect([code, errorLines]).toEqual([row.isPartial === true ? 23 : 0, []]);
    expect(told).toMatchObject({ type: "summary", interrupted: false });
  } else {
    const { confirmed = 0 } = row;
    expect({ code, ...told, stderr }).toMatchObject({
      code: errors[row.error].exitCode,
      ...{ type: "error", error: row.error, confirmed },
    });
    expect(errorLines).toEqual([lines.at(-1)!]);
    expect(lines.at(-1)).toStartWith(`frames: ${printable(String(told["message"]))}`);
  }
  if (row.says !== undefined) expect(lines.at(-1)).toMatch(row.says);
  if (row.connections !== undefined) expect(connections).toBe(row.connections);
}

/** Runs a case with and without `--move`. Only frames that the server confirmed may be removed. */
async function check(row: Case): Promise<void> {
  const { script, args = [], files = three } = row;
  const isHere = row.isProcess !== true;
  const [kept, moved] = await Promise.all([
    sendTo(script, { files, args, isHere }),
    sendTo(script, { files, args: [...args, "--move"], isHere }),
  ]);
  expectEnd(kept, row);
  expectEnd(moved, row);
  const all = Object.keys(files).sort();
  expect(kept.left).toEqual(all);
  const { confirmed = row.error === undefined ? all.length : 0 } = row;
  expect(moved.left).toEqual(row.left ?? all.slice(confirmed));
}

/** Rows of this file that run in this process, and those of them that were begun. */
const here: Case[] = [];
const begun = new Map<Case, Promise<void>>();

/**
 * Rows that are begun ahead of their tests: most of them only wait for the next try, and Bun runs
 * few tests at a time. More would take all time of this process from servers that must answer soon.
 */
const ahead = 8;

/** Whether a row waits for longer than three tries take. */
const isLong = ({ error, connections = 0 }: Case) => error === "given-up" || connections > 3;

function checkHere(row: Case): Promise<void> {
  if (begun.size === 0) here.sort((one, other) => Number(isLong(other)) - Number(isLong(one)));
  for (const next of here.slice(0, here.indexOf(row) + ahead)) {
    if (begun.has(next)) continue;
    const checked = check(next);
    // Its own test says what is wrong with it.
    checked.catch(() => {});
    begun.set(next, checked);
  }
  return begun.get(row)!;
}

export function table(about: string, rows: Case[]): void {
  const isAhead = ({ isProcess, isAlone }: Case) => isProcess !== true && isAlone !== true;
  here.push(...rows.filter(isAhead));
  describe.concurrent("frames send", () => {
    for (const row of rows) {
      const test_ = row.isAlone === true ? test.serial : test;
      test_(`${about} ${row.what}`, () => (isAhead(row) ? checkHere(row) : check(row)));
    }
  });
}

/** A server that sends these bytes and nothing else. */
export const says =
  (...parts: Uint8Array[]): Script =>
  (peer) =>
    peer.say(...parts);

/** A server that accepts the sender, receives all its frames, and then sends these bytes. */
export const answers =
  (...parts: Uint8Array[]): Script =>
  async (peer) => {
    peer.say(welcome());
    await peer.hears(type.END);
    peer.say(...parts);
  };

/** A server that sends this WELCOME and then follows the protocol. */
export const grants =
  (fields: object, frames = 3): Script =>
  (peer) => {
    peer.say(welcome(fields));
    return peer.agree(frames);
  };

/** A server that may already have frames. It answers an OFFER according to the frames in it. */
export const knows =
  (answer: (frames: number) => string, source = 1): Script =>
  (peer) => {
    peer.say(welcome({ features: ["offer"] }));
    const answerAll = async (): Promise<void> => {
      for (let offers = 1; ; offers++) {
        await peer.hears(type.OFFER, offers);
        const { frames } = peer.heard(type.OFFER)[offers - 1] as { frames: unknown[] };
        peer.say(json(type.ANSWER, { answers: answer(frames.length) }, source));
      }
    };
    // The promise rejects when the sender closes.
    answerAll().catch(() => {});
    return peer.agree(0);
  };
