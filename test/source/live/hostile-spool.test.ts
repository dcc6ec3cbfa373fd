// Spools that another program or user has changed: rows that no process of frames writes, links in
// place of its files, and folders of other users.
//
// Covers: source/live/spool-rows.ts, source/live/spooled-frame.ts

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../../src/errors.ts";
import { Spool } from "../../../src/source/live/spool.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { refusal } from "../../helper/refusal.ts";
import { MemoryFrame } from "../../protocol/memory.ts";

const session = { id: "a".repeat(32), started: Date.UTC(2026, 10, 22) };
const windows = process.platform === "win32";

function open(path: string, problems: string[] = []): Spool {
  return new Spool({
    ...{ directory: path, stream: "run7", session, maxBytes: 1e9 },
    onError: ({ message }) => problems.push(message),
  });
}

/** Makes a spool with the frames 1 to 3 of `gate`. */
function spoolOf3(): string {
  const path = join(temporaryFolder(), "spool");
  const spool = open(path);
  const source = spool.sourceSpool("gate");
  for (const sequence of [1, 2, 3]) {
    source.put(new MemoryFrame(sequence, 10, { captured: 5n, metadata: "" }));
  }
  source.lastNumber = 3;
  spool.close();
  return path;
}

function alter(path: string, sql: string): void {
  const database = new Database(join(path, "spool.sqlite"));
  database.run(sql);
  database.close();
}

interface Reading {
  readonly sent: number[];
  readonly lost: string[];
  readonly problems: string[];
}

/** Reads everything that a spool has, as a sender does. */
function readAll(path: string): Reading {
  const problems: string[] = [];
  const spool = open(path, problems);
  const source = spool.sourceSpool("gate");
  const sent: number[] = [];
  for (let next = source.next(); next !== undefined; next = source.next()) {
    try {
      next.read(new Uint8Array(next.size));
      sent.push(next.sequence);
    } catch (error) {
      expect(error).toBeInstanceOf(FramesError);
      problems.push((error as FramesError).message);
    }
  }
  const lost = source.losses().map(({ first, last, error }) => `${first}-${last} ${error.code}`);
  spool.close();
  return { sent, lost, problems };
}

for (const [what, change] of [
  ["a size that is text", "UPDATE frames SET size = '../..' WHERE seq = 2"],
  ["a negative size", "UPDATE frames SET size = -1 WHERE seq = 2"],
  ["a time that is a blob", "UPDATE frames SET captured = x'00' WHERE seq = 2"],
  ["metadata that is no object", "UPDATE frames SET meta = '[1]' WHERE seq = 2"],
  [
    "a key frame that is a text",
    "INSERT INTO pictures SELECT source, seq, 'yes' FROM frames WHERE seq = 2",
  ],
  ["a name of 300 bytes", `UPDATE frames SET name = '${"x".repeat(300)}' WHERE seq = 2`],
]) {
  test(`a spooled frame with ${what} is told as lost, and the others are sent`, () => {
    const path = spoolOf3();
    alter(path, change!);
    const message = `The spool ${path} had a damaged row, the first was frame 2 of "gate": it was left out`;
    expect(readAll(path)).toEqual({ sent: [1, 3], lost: ["2-2 unreadable"], problems: [message] });
    expect(readAll(path).problems).toEqual([]);
  });
}

test("a spooled frame whose number is a path leads to no file, and the others are sent", () => {
  const path = spoolOf3();
  writeFileSync(join(path, "../secret"), "0123456789");
  alter(path, "UPDATE frames SET seq = '../../secret' WHERE seq = 2");
  const { sent, problems } = readAll(path);
  expect(sent).toEqual([1, 3]);
  expect(problems).toEqual([expect.stringContaining('frame ../../secret of "gate"')]);
  expect(readFileSync(join(path, "../secret"), "utf8")).toBe("0123456789");
});

for (const source of ["..", ".", "", "a\u0000b".repeat(400)]) {
  test(`a spooled frame whose source is ${JSON.stringify(source.slice(0, 9))} leads to no file`, () => {
    const path = spoolOf3();
    writeFileSync(join(path, "../7"), "0123456789");
    writeFileSync(join(path, "7"), "0123456789");
    const database = new Database(join(path, "spool.sqlite"));
    database.query("INSERT INTO frames VALUES (?, 7, 'x', 5, 10, '')").run(source);
    database.close();
    const spool = open(path);
    for (const name of spool.spooledSources()) {
      const next = spool.sourceSpool(name).next();
      if (name !== "gate") expect(() => next!.read(new Uint8Array(10))).toThrow("cannot be read");
      spool.sourceSpool(name).delete(7);
    }
    spool.close();
    for (const file of ["../7", "7"])
      expect(readFileSync(join(path, file), "utf8")).toBe("0123456789");
  });
}

test("a spooled frame with a shape that no camera has is told as lost, and the others are sent", () => {
  const path = spoolOf3();
  alter(path, "INSERT INTO shapes VALUES ('gate', 2, '9x9:../..')");
  expect(readAll(path)).toMatchObject({ sent: [1, 3], lost: ["2-2 unreadable"] });
});

for (const reason of ["'constructor'", "'no such error'", "7"]) {
  test(`a spooled loss with the reason ${reason} is left out, and the frames are sent`, () => {
    const path = spoolOf3();
    alter(path, `INSERT INTO losses VALUES ('gate', 7, 8, 'x', ${reason})`);
    expect(readAll(path)).toMatchObject({ sent: [1, 2, 3], lost: [] });
  });
}

for (const [table, change] of [
  ["session", "UPDATE session SET id = '../x'"],
  ["session", "UPDATE session SET started = 'soon'"],
  ["counters", "UPDATE counters SET last = 'many'"],
] as const) {
  test(`a spool whose ${table} is damaged is not used: ${change}`, () => {
    const path = spoolOf3();
    alter(path, change);
    const { code, message } = refusal(() => open(path));
    expect(code).toBe("missing");
    expect(message).toContain(`its table ${table} is damaged`);
  });
}

describe.skipIf(windows)("links in a spool", () => {
  for (const [what, name] of [
    ["the database", "spool.sqlite"],
    ["the folder of a source", "gate"],
  ] as const) {
    test(`a link in place of ${what} is refused, and its target stays`, () => {
      const path = spoolOf3();
      const target = join(path, "../target");
      renameSync(join(path, name), target);
      symlinkSync(target, join(path, name));
      const before = statSync(target).mtimeMs;
      const { code, message } = refusal(() => open(path).sourceSpool("gate"));
      expect(code).toBe("usage");
      expect(message).toContain(`${join(path, name)} is a link`);
      expect(statSync(target).mtimeMs).toBe(before);
    });
  }

  test("links in place of SQLite's own files are not followed", () => {
    for (const suffix of ["-wal", "-shm", "-journal"]) {
      const path = spoolOf3();
      const target = join(path, "../target");
      writeFileSync(target, "precious");
      rmSync(join(path, `spool.sqlite${suffix}`), { force: true });
      symlinkSync(target, join(path, `spool.sqlite${suffix}`));
      try {
        open(path).close();
      } catch (error) {
        expect(error).toBeInstanceOf(FramesError);
      }
      expect(readFileSync(target, "utf8")).toBe("precious");
    }
  });

  test("a link in place of a new frame's file is not followed", () => {
    const path = spoolOf3();
    const target = join(path, "../target");
    writeFileSync(target, "precious");
    for (const name of ["4", "4.part"]) symlinkSync(target, join(path, "gate", name));
    const spool = open(path);
    spool.sourceSpool("gate").put(new MemoryFrame(4, 10, { captured: 5n, metadata: "" }));
    spool.close();
    expect(readFileSync(target, "utf8")).toBe("precious");
    expect(readAll(path).sent).toEqual([1, 2, 3, 4]);
  });

  test("a link in place of a spooled frame is not read, and the others are sent", () => {
    const path = spoolOf3();
    const target = join(path, "../target");
    writeFileSync(target, "0123456789");
    rmSync(join(path, "gate/2"));
    symlinkSync(target, join(path, "gate/2"));
    const { sent, problems } = readAll(path);
    expect(sent).toEqual([1, 3]);
    expect(problems).toEqual([expect.stringContaining("the spool cannot be read")]);
  });

  test("a file of another size is not read into memory", () => {
    const path = spoolOf3();
    writeFileSync(join(path, "gate/2"), new Uint8Array(11));
    const { sent, problems } = readAll(path);
    expect(sent).toEqual([1, 3]);
    expect(problems).toEqual(["another program changed the spool"]);
  });
});

test.skipIf(windows)("a new spool is for its user only", () => {
  const path = spoolOf3();
  for (const folder of [path, join(path, "gate")])
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(statSync(join(path, "gate/1")).mode & 0o777).toBe(0o600);
});

test.skipIf(process.getuid?.() !== 0)(
  "a spool that another user made in a shared folder is refused, and nothing is made through its links",
  () => {
    const shared = join(temporaryFolder(), "shared");
    const path = join(shared, "spool");
    const target = join(temporaryFolder(), "target");
    mkdirSync(path, { recursive: true });
    chmodSync(shared, 0o1777);
    symlinkSync(target, join(path, "spool.sqlite"));
    chownSync(path, 65534, 65534);
    const { code, message } = refusal(() => open(path));
    expect(code).toBe("usage");
    expect(message).toEndWith("name another folder with --spool");
    expect(existsSync(target)).toBe(false);
  },
);
