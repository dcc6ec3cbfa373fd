// Stores that another user made: rows whose names are paths, values that no server writes, and
// links that lead out. Nothing beside the store may be changed, removed or read, the bad row is
// damage at its place, and the good rows go on.
//
// Covers: common/read-file.ts, common/row-values.ts, store/directory/directory-contents.ts,
//   store/directory/frame-files.ts, store/journal/source-list.ts, store/journal/source-totals.ts

import { describe, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { RunSlice } from "../../src/frame.ts";
import type { PlaybackItem } from "../../src/protocol/playback/playback.ts";
import { JournalPlayback } from "../../src/server/playback/journal-playback.ts";
import { JournalTail } from "../../src/server/playback/journal-tail.ts";
import type { DirectoryStore } from "../../src/store/directory/directory-store.ts";
import { FrameFiles } from "../../src/store/directory/frame-files.ts";
import { StreamCopy } from "../../src/store/directory/stream-copy.ts";
import { CommitSignal } from "../../src/store/journal/commit-signal.ts";
import { GapIndex } from "../../src/store/journal/gap-index.ts";
import { readGaps } from "../../src/store/journal/gaps.ts";
import { type FrameRecord, JournalReader } from "../../src/store/journal/journal-reader.ts";
import { journalPath } from "../../src/store/journal/schema.ts";
import { listSources } from "../../src/store/journal/source-list.ts";
import { SourceTotals } from "../../src/store/journal/source-totals.ts";
import type { Finding } from "../../src/store/verify/store-verifier.ts";
import { verify } from "../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../helper/program.ts";
import { refusal } from "../helper/refusal.ts";
import { session, storeFrame } from "./contract.ts";
import { alter, names, now, openStore, openVisible, putAll, rows, withStore } from "./fixture.ts";

const secret = new TextEncoder().encode("precious!!");
const picture = new TextEncoder().encode("a picture!");
const windows = process.platform === "win32";
const quoted = (text: string) => `'${text.replaceAll("\0", "' || char(0) || '")}'`;

/** Runs slices of work without a pause between them. */
const runAtOnce: RunSlice = async (slice) => slice();

interface Scene {
  readonly directory: string;
  /** Folder beside the store, with the file `letter.txt`. */
  readonly outside: string;
}

/** Creates a store with the frame `1`, and a folder beside it. */
async function scene(): Promise<Scene> {
  const parent = temporaryFolder();
  const [directory, outside] = [join(parent, "store"), join(parent, "outside")];
  mkdirSync(outside);
  writeFileSync(join(outside, "letter.txt"), secret);
  await withStore(directory, (store) =>
    putAll(store, openVisible(store), [["1", picture, { sequence: 1 }]]),
  );
  return { directory, outside };
}

interface Row {
  readonly stream?: string;
  readonly source?: string;
  readonly name?: string;
  readonly seq?: string;
  readonly bytes?: string;
  readonly crc?: string;
  readonly captured?: string;
}

/** SQL for the columns of a row, which are that of the secret file unless `row` has others. */
function valuesOf({ stream = "run7", source = "visible", name = "2", ...numbers }: Row): string {
  const { seq = "7", bytes = "10", crc = String(crc32(secret)), captured = "1700000000" } = numbers;
  return [quoted(stream), quoted(source), quoted(name), quoted(session), seq, bytes, crc, captured]
    .concat("1700000000", "NULL", "NULL", "NULL")
    .join(", ");
}

const columns =
  "stream, source, name, session, seq, bytes, crc32, captured, received, key, meta, format";

function addRow(directory: string, row: Row): void {
  alter(directory, `INSERT INTO frames (${columns}) VALUES (${valuesOf(row)})`);
}

function expectUntouched({ outside }: Scene): void {
  expect(readdirSync(outside)).toEqual(["letter.txt"]);
  expect(readFileSync(join(outside, "letter.txt"))).toEqual(Buffer.from(secret));
}

async function findings(
  directory: string,
  options: Parameters<typeof verify>[1] = {},
): Promise<string[]> {
  const found: Finding[] = [];
  await verify(directory, { ...options, onFinding: (finding) => found.push(finding) });
  return found.map(({ kind, what }) => `${kind} ${what}`);
}

/** Rows whose names lead out of the store, to the file beside it. */
const leadingOut: [what: string, row: Row][] = [
  ["the stream is ..", { stream: "..", source: "outside", name: "letter.txt" }],
  ["the stream and the source are ..", { stream: "..", source: "..", name: "letter.txt" }],
  ["the source climbs", { source: "../../outside", name: "letter.txt" }],
  ["the source climbs inside", { source: "a/../../../outside", name: "letter.txt" }],
  ["the name climbs", { name: "../../../outside/letter.txt" }],
  ["the name climbs with backslashes", { name: "..\\..\\..\\outside\\letter.txt" }],
  ["the stream is hidden", { stream: ".frames", source: "partial", name: "letter.txt" }],
  ["the stream is a path", { stream: "../outside", source: "../outside", name: "letter.txt" }],
  ["the name has a zero", { name: "letter.txt\0" }],
];

/** Rows with values that no server writes. */
const impossible: [what: string, row: Row][] = [
  ["the number is text", { seq: "'../../outside'" }],
  ["the number is 0", { seq: "0" }],
  ["the size is negative", { bytes: "-1" }],
  ["the size has 63 bits", { bytes: "9223372036854775807" }],
  ["the size is a blob", { bytes: "x'2e2e'" }],
  ["the checksum has 40 bits", { crc: "1099511627776" }],
  ["the time is text", { captured: "'yesterday'" }],
  ["the time is a fraction", { captured: "1.5" }],
];

const bad = [...leadingOut, ...impossible];

function itemOf(item: PlaybackItem): string {
  if (item.type === "frame") return `frame ${item.frame.name}`;
  return item.type === "lost" ? `lost ${item.error.code}` : item.type;
}

/** Plays back a stream. Returns each item, and reads each frame. */
function playback(store: DirectoryStore, stream: string): string[] {
  const tail = new JournalTail(store.contents, new CommitSignal(), undefined);
  const items: string[] = [];
  try {
    const player = new JournalPlayback(tail, { stream, follow: false });
    for (let item = player.next(); !player.isEnded || item !== undefined; item = player.next()) {
      if (item === undefined) continue;
      items.push(itemOf(item));
      if (item.type === "frame") item.frame.read(new Uint8Array(item.frame.size));
    }
  } finally {
    tail.close();
  }
  return items;
}

for (const [what, row] of bad) {
  describe(`a row of which ${what}`, () => {
    test("is found by verify as damage at its place, and the other frames are verified", async () => {
      const place = await scene();
      addRow(place.directory, row);
      expect(await findings(place.directory)).toEqual(["damaged row 2 of the table frames"]);
      expect(await verify(place.directory)).toMatchObject({ frames: 1, damaged: 1, missing: 0 });
      await findings(place.directory, { repair: true });
      expect(names(place.directory)).toEqual(["1"]);
      expect(await findings(place.directory)).toEqual([]);
      expectUntouched(place);
    });

    test("is not removed with its file when a server starts or keeps its limit", async () => {
      const place = await scene();
      addRow(place.directory, row);
      alter(place.directory, "INSERT INTO removing SELECT max(id) FROM frames");
      // The newest row is never removed, so another follows.
      const keep = { bytes: 1 };
      const more = [["3", picture]] as const;
      await withStore(
        place.directory,
        async (store) => {
          expect(await putAll(store, openVisible(store), more)).toEqual(["stored"]);
          for (let steps = 0; await store.retention!.step(); steps++) {
            if (steps > 100) throw new Error("retention does not end");
          }
        },
        { keep, clock: () => now },
      );
      // The frames before and after it were considered.
      expect(existsSync(join(place.directory, "run7/visible/1"))).toBe(false);
      expectUntouched(place);
    });

    test("is not played back, listed or served, and the other frames are", async () => {
      const place = await scene();
      const { stream = "run7", source = "visible", name = "2" } = row;
      addRow(place.directory, row);
      await withStore(place.directory, async (store) => {
        expect(playback(store, "run7").filter((item) => item.startsWith("frame"))).toEqual([
          "frame 1",
        ]);
        expect(playback(store, stream)).toContain("lost unreadable");
        const location = { stream, source, name, size: secret.length };
        expect(() => store.contents.blob(location)?.size).not.toBe(secret.length);
        const reader = new JournalReader(store.contents.journalPath);
        try {
          const position = { captured: 2n ** 62n, sequence: 1, id: 1 };
          const listed = [
            ...reader.framesAfter(stream, source, undefined, 10),
            ...reader.framesBefore(stream, source, position, 10),
            ...(await reader.scanByNumber({ stream, source, number: 7 }, 9, runAtOnce)),
            reader.newest(stream, source),
            reader.oldest(stream, source),
            reader.nearest(stream, source, 1_700_000_000n),
            reader.findByName(stream, source, name),
          ];
          const isOther = (frame: (typeof listed)[number]) =>
            frame !== undefined && (frame.name !== "1" || frame.source !== "visible");
          expect(listed.filter(isOther)).toEqual([]);
          const totals = new SourceTotals(reader, runAtOnce);
          await totals.refresh();
          expect(totals.streams).toEqual(["run7"]);
          expect(totals.sources("run7").map((total) => total.source)).toEqual(["visible"]);
          expect(totals.bytes).toBeGreaterThanOrEqual(picture.length);
          const gaps = new GapIndex(reader, runAtOnce);
          await gaps.gaps(stream, () => true, undefined, 10);
        } finally {
          reader.close();
        }
      });
      expect(listSources(place.directory).map((found) => found.source)).toEqual(["visible"]);
      expect(Array.from(readGaps(place.directory, stream), (gap) => gap.source)).not.toContain(
        "../../outside",
      );
      expectUntouched(place);
    });

    test("is not taken for a replacement that a killed server has begun", async () => {
      const place = await scene();
      const values = `'gone', ${valuesOf(row)}`;
      alter(place.directory, `INSERT INTO replacements (partial, ${columns}) VALUES (${values})`);
      await withStore(place.directory, (store) => expect(store.recovery.replaced).toBe(0));
      expect(names(place.directory)).toEqual(["1"]);
      // A client does not wait for its end either.
      const reader = new JournalReader(journalPath(place.directory));
      const { stream = "run7", source = "visible", name = "2" } = row;
      expect(reader.isBeingReplaced({ stream, source, name } as FrameRecord)).toBe(false);
      reader.close();
      expect(await findings(place.directory)).toEqual(["damaged row 1 of the table replacements"]);
      await findings(place.directory, { repair: true });
      expectUntouched(place);
    });
  });
}

test("a replacement whose partial file is a path is damage", async () => {
  const place = await scene();
  const values = `'../../../outside/letter.txt', ${valuesOf({ name: "1" })}`;
  alter(place.directory, `INSERT INTO replacements (partial, ${columns}) VALUES (${values})`);
  await withStore(place.directory, (store) => expect(store.recovery.replaced).toBe(0));
  expect(await findings(place.directory)).toEqual(["damaged row 1 of the table replacements"]);
});

test("sums that overflow 64 bits do not keep a store from being listed", async () => {
  const { directory } = await scene();
  for (let number = 2; number < 2003; number++) {
    addRow(directory, { name: String(number), bytes: "9007199254740991" });
  }
  expect(listSources(directory)[0]).toMatchObject({ source: "visible", frames: 2002 });
  const reader = new JournalReader(journalPath(directory));
  const totals = new SourceTotals(reader, runAtOnce);
  await totals.refresh();
  expect(totals.frames).toBe(2002);
  reader.close();
});

for (const [what, values] of [
  ["with text for escapes", `'run7', 'visible', '', 3, 9, char(27) || '[2J', 0, NULL, NULL`],
  ["of a stream that leads out", `'..', 'visible', '', 3, 9, 'dropped', 0, NULL, NULL`],
  [
    "with a range of 63 bits",
    `'run7', 'visible', '', 1, 9223372036854775807, 'dropped', 0, NULL, NULL`,
  ],
]) {
  test(`a loss ${what} is damage, and is neither listed nor told as lost`, async () => {
    const { directory } = await scene();
    alter(directory, `INSERT INTO losses VALUES (${values})`);
    expect(await findings(directory)).toEqual(["damaged row 1 of the table losses"]);
    const told = Array.from(readGaps(directory, "run7"), ({ reason }) => reason);
    expect(told.filter((reason) => reason !== undefined)).toEqual([]);
    expect(listSources(directory).map(({ stream }) => stream)).toEqual(["run7"]);
  });
}

describe("copies", () => {
  /** Makes a copy of `s` with the frame `1`. */
  async function copied(): Promise<Scene> {
    const parent = temporaryFolder();
    const [directory, outside] = [join(parent, "copy"), join(parent, "outside")];
    mkdirSync(outside);
    writeFileSync(join(outside, "letter.txt"), secret);
    const copy = new StreamCopy(directory, { stream: "s" }, true);
    copy.onConnected("original", "a store", true);
    const source = copy.open({ stream: "s", source: "a", session, isCopy: true });
    expect(await storeFrame(source, "1", picture)).toBe("stored");
    await copy.flush();
    copy.close();
    return { directory, outside };
  }

  for (const [what, row] of [
    ["another stream", { stream: "other", source: "a", name: "letter.txt" }],
    // Without `s` and a slash, its path would begin with two dots.
    ["a stream that ends in dots", { stream: "xx..", source: "outside", name: "letter.txt" }],
    ["the stream ..", { stream: "..", source: "outside", name: "letter.txt" }],
  ] as const) {
    test(`a row of ${what} in a copy is damage, and its file stays when the copy goes on`, async () => {
      const place = await copied();
      addRow(place.directory, row);
      expect(await findings(place.directory)).toEqual(["damaged row 2 of the table frames"]);
      alter(place.directory, "INSERT INTO removing SELECT max(id) FROM frames");
      const copy = new StreamCopy(place.directory, { stream: "s" }, true);
      copy.onConnected("original", "a store", true);
      copy.close();
      addRow(place.directory, { ...row, name: "again" });
      await findings(place.directory, { repair: true });
      expect(names(place.directory)).toEqual(["1"]);
      expectUntouched(place);
    });
  }

  for (const [what, value] of [
    ["is no JSON", "{"],
    ["names a stream that leads out", '{"stream":".."}'],
    ["names no stream", '{"stream":5}'],
  ] as const) {
    test(`a copy whose property ${what} is not opened as a store`, async () => {
      const place = await copied();
      alter(place.directory, `UPDATE properties SET value = '${value}' WHERE name = 'copy'`);
      const copy = () => new StreamCopy(place.directory, { stream: "s" }, true);
      expect(refusal(copy)).toMatchObject({ code: "usage" });
      expect((await findings(place.directory))[0]).toMatch(
        /^damaged row \d of the table properties/,
      );
    });
  }

  test("a copy whose cursor is damaged starts from the beginning", async () => {
    const { directory } = await copied();
    const value = '{"cursor":"1.2.3","sources":[5],"since":"soon"}';
    alter(directory, `INSERT OR REPLACE INTO properties VALUES ('cursor', '${value}')`);
    const copy = new StreamCopy(directory, { stream: "s" }, true);
    expect(copy.cursor).toBeUndefined();
    copy.close();
  });
});

describe.skipIf(windows)("links that lead out", () => {
  /** Puts a link to the folder beside the store in place of the source's or the stream's folder. */
  async function linked(below: string): Promise<Scene> {
    const place = await scene();
    const outside = join(place.outside, "deep");
    mkdirSync(join(outside, "visible"), { recursive: true });
    for (const folder of [outside, join(outside, "visible")]) {
      writeFileSync(join(folder, "1"), picture);
    }
    renameSync(join(place.directory, below), join(place.directory, ".moved"));
    symlinkSync(outside, join(place.directory, below));
    return place;
  }

  function expectLinked({ outside }: Scene): void {
    for (const path of ["deep/1", "deep/visible/1"]) {
      expect(readFileSync(join(outside, path))).toEqual(Buffer.from(picture));
    }
  }

  for (const below of ["run7", "run7/visible"]) {
    test(`verify counts frames behind a link in place of ${below} as missing, and moves none`, async () => {
      const place = await linked(below);
      // A file that differs would be moved aside.
      for (const path of ["deep/1", "deep/visible/1"]) {
        writeFileSync(join(place.outside, path), "something!");
      }
      expect(await findings(place.directory)).toEqual(["missing run7/visible/1"]);
      expect(await findings(place.directory, { repair: true })).toEqual(["missing run7/visible/1"]);
      expect(readFileSync(join(place.outside, "deep/1"), "utf8")).toBe("something!");
      expect(existsSync(join(place.directory, ".frames/damaged"))).toBe(false);
    });

    test(`a server does not give out frames behind a link in place of ${below}`, async () => {
      const place = await linked(below);
      await withStore(place.directory, (store) => {
        const location = { stream: "run7", source: "visible", name: "1", size: picture.length };
        expect(store.contents.blob(location)).toBeUndefined();
        expect(() => playback(store, "run7")).toThrow("its file was deleted from the store");
      });
      expectLinked(place);
    });
  }

  test("a journal that is rebuilt takes no checksum from a file behind a link", async () => {
    const place = await linked("run7");
    alter(place.directory, "UPDATE frames SET meta = '{'");
    await findings(place.directory, { repair: true });
    expect(names(place.directory)).toEqual([]);
    expectLinked(place);
  });

  test("verify --repair does not move a frame into a folder for damaged frames that is a link", async () => {
    const place = await scene();
    writeFileSync(join(place.directory, "run7/visible/1"), "something!");
    symlinkSync(place.outside, join(place.directory, ".frames/damaged"));
    await expect(verify(place.directory, { repair: true })).rejects.toThrow("is not a folder");
    expectUntouched(place);
  });

  test("a link in place of the journal is neither read nor written, and is replaced by --repair", async () => {
    const place = await scene();
    const path = journalPath(place.directory);
    const target = join(place.outside, "journal");
    renameSync(path, target);
    symlinkSync(target, path);
    const before = readFileSync(target);
    expect(() => listSources(place.directory)).toThrow("it is not a file");
    await expect(verify(place.directory)).rejects.toThrow("damaged or missing");
    expect(refusal(() => openStore(place.directory))).toMatchObject({ code: "store" });
    expect(await verify(place.directory, { repair: true })).toMatchObject({ rebuilt: 1 });
    expect(lstatSync(path).isFile()).toBe(true);
    expect(readFileSync(target)).toEqual(before);
    expect(rows(place.directory, "SELECT * FROM frames")).toHaveLength(1);
    rmSync(target);
    expectUntouched(place);
  });

  test("pipes in place of the store's files block neither verify nor ls", async () => {
    for (const name of ["journal.sqlite", "identity.json"]) {
      const { directory } = await scene();
      rmSync(join(directory, ".frames", name));
      expect(Bun.spawnSync(["mkfifo", join(directory, ".frames", name)]).exitCode).toBe(0);
      if (name === "identity.json") expect(await findings(directory)).toEqual([]);
      else {
        await expect(verify(directory)).rejects.toThrow("damaged or missing");
        expect(() => listSources(directory)).toThrow("it is not a file");
      }
    }
  });

  test("a store whose .frames is a link is not verified", async () => {
    const place = await scene();
    renameSync(join(place.directory, ".frames"), join(place.outside, "frames"));
    symlinkSync(join(place.outside, "frames"), join(place.directory, ".frames"));
    await expect(verify(place.directory)).rejects.toThrow("it is not a store of frames");
  });
});

describe("FrameFiles", () => {
  test("finds only regular files, and refuses names that lead out", async () => {
    const { directory } = await scene();
    const files = new FrameFiles(directory);
    const frame = { stream: "run7", source: "visible", name: "1" };
    expect(files.find(frame)).toBe(join(directory, "run7/visible/1"));
    expect(files.find({ ...frame, name: "2" })).toBeUndefined();
    expect(files.find({ ...frame, source: "visible/1" })).toBeUndefined();
    expect(files.find({ stream: "run7", source: "run7", name: "visible" })).toBeUndefined();
    for (const wrong of [{ name: "../1" }, { source: ".." }, { stream: "." }]) {
      expect(refusal(() => files.find({ ...frame, ...wrong })).code).toBe("bad-name");
      expect(refusal(() => files.open({ ...frame, ...wrong })).code).toBe("bad-name");
    }
    expect(statSync(files.find(frame)!).size).toBe(picture.length);
  });
});
