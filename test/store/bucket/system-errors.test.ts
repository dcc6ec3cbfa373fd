// Every call of the file system and of SQLite that the local copy of a bucket's journal makes fails
// once with every error.

import { expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { readdirSync, rmSync } from "node:fs";
import type { FramesError } from "../../../src/errors.ts";
import { LocalIndex, toFrameRow } from "../../../src/store/bucket/local-index.ts";
import type { DecodedEntry, LogEntry } from "../../../src/store/bucket/log-format.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { faultOf, forEachFault, SystemFaults } from "../../helper/system-faults.ts";

const session = "a".repeat(32);
const header = { session, first: 1, last: 1, node: "n" };
const owner = { key: "gate", keyId: "b".repeat(16) };
const logSource = { stream: "run7", source: "visible", ...owner, format: null };

function frame(name: string, seq: number, crc32: number): LogEntry & { kind: "frame" } {
  const row = { name, seq, bytes: 1, crc32, captured: 0n, received: 20n, meta: null, is_key: null };
  return { kind: "frame", logSource, etag: "e", ...row };
}

const lost = { kind: "loss", logSource, first: 3, last: 3, reason: "bad-name", at: 10n } as const;
const entries: LogEntry[] = [
  frame("a", 1, 1),
  { ...lost, name: "b" },
  frame("b", 4, 2),
  { ...lost, first: 5, last: 5 },
  { kind: "account", logSource, first: 6, last: 6, at: 10n },
  frame("a", 7, 3),
];

/** What a server does with its local copy, in steps that it can repeat. */
const steps: ((index: LocalIndex) => unknown)[] = [
  ...entries.map((entry) => (index: LocalIndex) => {
    const decoded: DecodedEntry = { header, entry };
    for (const { row } of index.apply([decoded])) index.replace(row);
    index.flush();
  }),
  (index) => {
    index.replace(toFrameRow(session, frame("b", 8, 4)));
    index.flush();
  },
  (index) => index.find("run7", "visible", "a"),
  (index) => index.findOffered("run7", "visible", "a", 0n),
  (index) => index.hasOpenLoss({ ...logSource, session: "b".repeat(32) }, owner, "b", "bad-name"),
  (index) => index.checkSession(session, owner),
  (index) => index.hasStream("run7"),
  (index) => index.read(() => index.find("run7", "visible", "b")),
];

/** Returns why an error of the local copy does not suit a user, or a server that goes on. */
function problemOf(error: unknown): string | undefined {
  const problem = faultOf(error);
  if (problem !== undefined) return problem;
  const { code } = error as FramesError;
  return code === "store" ? undefined : `${code} instead of store`;
}

test("a failing call in the local copy is an error of the store, and what is repeated succeeds", async () => {
  using faults = new SystemFaults();
  const runs = await forEachFault(faults, async (fault) => {
    const folder = temporaryFolder();
    const index = new LocalIndex("identity", folder);
    const problems: string[] = [];
    faults.within(() => {
      for (const step of steps) {
        try {
          step(index);
        } catch (error) {
          problems.push(problemOf(error) ?? "");
          step(index);
        }
      }
    });
    const foundOwner = index.sessionOwner(session);
    const database = new Database(index.path, { readonly: true });
    const frames = database.query("SELECT name, seq, crc32 FROM frames ORDER BY name").values();
    const losses = database.query("SELECT first, state FROM losses ORDER BY first").values();
    database.close();
    faults.within(() => index.close());
    rmSync(folder, { recursive: true });
    expect([fault, foundOwner, frames, losses, ...problems.filter(Boolean)]).toEqual([
      fault,
      owner,
      [
        ["a", 7, 3],
        ["b", 8, 4],
      ],
      [
        [3, "came"],
        [5, null],
      ],
    ]);
  });
  expect(runs).toBeGreaterThan(50);
});

test("a local copy that cannot be made says why, and leaves nothing behind for the next one", async () => {
  using faults = new SystemFaults();
  const runs = await forEachFault(faults, async (fault) => {
    const folder = temporaryFolder();
    const problems: string[] = [];
    try {
      faults.within(() => new LocalIndex("identity", folder)).close();
    } catch (error) {
      problems.push(problemOf(error) ?? "");
    }
    new LocalIndex("identity", folder).close();
    const left = readdirSync(folder);
    rmSync(folder, { recursive: true });
    expect([fault, ...problems.filter(Boolean), ...left]).toEqual([fault]);
  });
  expect(runs).toBeGreaterThan(30);
});
