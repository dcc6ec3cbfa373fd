// The local copy of a bucket's journal: losses, whose lines reach a server in any order, and the
// temporary folders of killed processes and of other users.

import { expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { LocalIndex } from "../../../src/store/bucket/local-index.ts";
import {
  type DecodedEntry,
  decodeEntries,
  encodeEntries,
  type LogEntry,
} from "../../../src/store/bucket/log-format.ts";
import type { SessionOwner } from "../../../src/store/session-owner.ts";
import { temporaryFolder } from "../../helper/program.ts";

const logSource = { stream: "run7", source: "visible", key: null, keyId: null, format: null };

function header(session: string) {
  return { session: session.repeat(32), first: 1, last: 1, node: "n" };
}

function loss(session: string, at: bigint, name?: string): DecodedEntry {
  const entry: LogEntry = {
    kind: "loss",
    logSource,
    first: 1,
    last: 1,
    reason: "bad-name",
    at,
    name,
  };
  return { header: header(session), entry };
}

function frame(session: string, received: bigint): DecodedEntry {
  const row = {
    name: "a.png",
    seq: 1,
    bytes: 1,
    crc32: 2,
    captured: 0n,
    received,
    meta: null,
    is_key: null,
  };
  return { header: header(session), entry: { kind: "frame", logSource, etag: "e", ...row } };
}

/** Applies entries one by one. Returns the sessions of the losses that are open. */
function openLosses(entries: readonly DecodedEntry[]): string {
  const index = new LocalIndex("identity", temporaryFolder());
  for (const entry of entries) index.apply([entry]);
  index.flush();
  const database = new Database(index.path, { readonly: true });
  const rows = database
    .query<{ session: string }, []>("SELECT session FROM losses WHERE state IS NULL")
    .all();
  database.close();
  index.close();
  return rows
    .map(({ session }) => session[0])
    .sort()
    .join("");
}

/** All orders of three entries. */
function orders<T>([a, b, c]: readonly [T, T, T]): T[][] {
  return [
    [a, b, c],
    [a, c, b],
    [b, a, c],
    [b, c, a],
    [c, a, b],
    [c, b, a],
  ];
}

test("a frame ends the losses of its name before it, and none after it, in every order of lines", () => {
  for (const order of orders([loss("a", 10n, "a.png"), frame("b", 20n), loss("c", 30n, "a.png")])) {
    expect(openLosses(order)).toBe("c");
  }
  for (const order of orders([loss("a", 10n, "a.png"), frame("b", 20n), loss("c", 20n, "a.png")])) {
    expect(openLosses(order)).toBe("");
  }
});

test("a frame ends no loss without a name, or of another name", () => {
  for (const order of orders([loss("a", 10n), frame("b", 20n), loss("c", 10n, "b.png")])) {
    expect(openLosses(order)).toBe("ac");
  }
});

test("a server knows the losses of other sessions, for each reason", () => {
  const index = new LocalIndex("identity", temporaryFolder());
  const isOpen = (session: string, name: string, reason: string) =>
    index.hasOpenLoss({ ...logSource, session: session.repeat(32) }, logSource, name, reason);
  expect(isOpen("b", "a.png", "bad-name")).toBe(false);
  index.apply([loss("a", 10n, "a.png")]);
  expect(isOpen("b", "a.png", "bad-name")).toBe(true);
  // A sender repeats what it has not seen confirmed.
  expect(isOpen("a", "a.png", "bad-name")).toBe(false);
  expect(isOpen("b", "a.png", "too-large")).toBe(false);
  expect(isOpen("b", "b.png", "bad-name")).toBe(false);
  index.apply([frame("b", 20n)]);
  expect(isOpen("b", "a.png", "bad-name")).toBe(false);
  index.close();
});

test("the key of a session is that of its first entry, in every order of lines and with earlier versions", () => {
  const [id, otherId] = ["3".repeat(16), "4".repeat(16)];
  const entryOf = (number: number, key: string | null, keyId: string | null): DecodedEntry => {
    const entry: LogEntry = {
      ...{ kind: "account", first: number, last: number, at: 1n },
      logSource: { ...logSource, key, keyId },
    };
    return { header: { ...header("a"), first: number, last: number }, entry };
  };
  const cases: [entries: [DecodedEntry, DecodedEntry, DecodedEntry], owner: object][] = [
    // A line of a version that let another key take the session.
    [
      [entryOf(1, "cam", id), entryOf(2, "cam", id), entryOf(3, "other", otherId)],
      { key: "cam", keyId: id },
    ],
    [
      [entryOf(1, "cam", null), entryOf(2, "other", null), entryOf(3, "cam", null)],
      { key: "cam", keyId: null },
    ],
    // The id is known once a later version continued the session.
    [
      [entryOf(1, "cam", null), entryOf(2, "cam", id), entryOf(3, "cam", otherId)],
      { key: "cam", keyId: id },
    ],
    [
      [entryOf(1, null, null), entryOf(2, null, null), entryOf(3, null, null)],
      { key: null, keyId: null },
    ],
  ];
  for (const [entries, owner] of cases) {
    for (const order of orders(entries)) {
      const index = new LocalIndex("identity", temporaryFolder());
      for (const entry of order) index.apply([entry]);
      expect(index.sessionOwner("a".repeat(32))).toEqual(owner as SessionOwner);
      index.close();
    }
  }
});

test("log objects keep the names of lost frames, and are read without them", async () => {
  const entries = [loss("a", 1n, "b\\c.png"), loss("a", 2n)].map(({ entry }) => entry!);
  const decoded: unknown[] = [];
  for await (const items of decodeEntries("path", encodeEntries(header("a"), entries))) {
    decoded.push(...items.flatMap(({ entry }) => (entry === undefined ? [] : [entry])));
  }
  expect(decoded).toEqual(entries);
});

test("the folder of a killed process is deleted, and the new one is for this user only", () => {
  const parent = temporaryFolder();
  mkdtempSync(join(parent, "frames-bucket-"));
  const index = new LocalIndex("identity", parent);
  expect(readdirSync(parent)).toHaveLength(1);
  if (process.platform !== "win32") expect(statSync(index.folder).mode & 0o777).toBe(0o700);
  index.close();
  expect(readdirSync(parent)).toEqual([]);
});

test.skipIf(process.platform === "win32")(
  "a link in place of such a folder is not followed",
  () => {
    const [parent, outside] = [temporaryFolder(), temporaryFolder()];
    writeFileSync(join(outside, "lock.json"), "precious");
    symlinkSync(outside, join(parent, "frames-bucket-link"));
    new LocalIndex("identity", parent).close();
    expect(readdirSync(outside)).toEqual(["lock.json"]);
    expect(readFileSync(join(outside, "lock.json"), "utf8")).toBe("precious");
  },
);

test.skipIf(process.getuid?.() !== 0)("a folder of another user is left alone", () => {
  const [parent, outside] = [temporaryFolder(), temporaryFolder()];
  chmodSync(parent, 0o1777);
  const theirs = join(parent, "frames-bucket-theirs");
  mkdirSync(theirs);
  writeFileSync(join(outside, "precious"), "precious");
  symlinkSync(join(outside, "precious"), join(theirs, "lock.json"));
  symlinkSync(join(outside, "new"), join(theirs, "lock.sqlite"));
  chownSync(theirs, 65534, 65534);
  new LocalIndex("identity", parent).close();
  expect(readFileSync(join(outside, "precious"), "utf8")).toBe("precious");
  expect(existsSync(join(outside, "new"))).toBe(false);
  expect(readdirSync(theirs).sort()).toEqual(["lock.json", "lock.sqlite"]);
});
