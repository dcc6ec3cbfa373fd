// Frames that a receiving client gets from a journal: none twice and none missing, whatever happens
// to the journal.
//
// Covers: server/playback/journal-tail.ts, server/playback/latest-playback.ts,
//   server/playback/playback-items.ts, server/playback/playback-request.ts,
//   server/playback/journaled-frame.ts, server/playback/stored-frame.ts, server/server.ts,
//   store/read-errors.ts

import { afterEach, describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { receive, send, serve } from "frames";
import { CommitSignal } from "../../../src/store/journal/commit-signal.ts";
import { FramesError } from "../../../src/errors.ts";
import type { SourceInfo } from "../../../src/frame.ts";
import { JournalPlayback } from "../../../src/server/playback/journal-playback.ts";
import { LatestPlayback } from "../../../src/server/playback/latest-playback.ts";
import type { PlaybackRequest } from "../../../src/server/playback/playback-request.ts";
import type { FrameServer } from "../../../src/server/server.ts";
import type {
  PlaybackItem,
  PlaybackFrame,
  Playback,
} from "../../../src/protocol/playback/playback.ts";
import { DirectoryStore } from "../../../src/store/directory/directory-store.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { JournalTail } from "../../../src/server/playback/journal-tail.ts";
import { FrameFiles } from "../../../src/store/directory/frame-files.ts";
import { journal } from "../../helper/delivery.ts";
import { hello, message, Peer, preface } from "../../helper/hostile.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { refusal } from "../../helper/refusal.ts";
import { SystemFaults } from "../../helper/system-faults.ts";
import { until } from "../../helper/time.ts";
import { type } from "../../wire/vectors.ts";

const session = "1".repeat(32);
const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

/** A store that is read while it is filled. */
class Shelf {
  readonly place = temporaryFolder();
  readonly store = new DirectoryStore(this.place, {
    portableNames: false,
    reserve: 0,
    clock: Date.now,
  });
  readonly arrivals = new CommitSignal();
  reader = this.#read();

  constructor() {
    closing.unshift(() => this.store.close());
  }

  #read(): JournalTail {
    const reader = new JournalTail(this.store.contents, this.arrivals, undefined);
    closing.unshift(() => reader.close());
    return reader;
  }

  /** Simulates a restart of the server, which then knows only the rows in the journal. */
  restart(): void {
    this.reader = this.#read();
  }

  /** Stores frames `first` to `last` of a source, each with its number as content. */
  async put(source: string, first: number, last = first, more: Partial<SourceInfo> = {}) {
    const into = this.store.open({ stream: "s", source, session, ...more });
    const outcomes: unknown[] = [];
    for (let sequence = first; sequence <= last; sequence++) {
      const bytes = Buffer.from(`${source} ${sequence} ${more.session ?? ""}`);
      const description = {
        name: `${sequence}`,
        sequence,
        captured: BigInt(sequence),
        metadata: "",
      };
      const writer = into.begin({ ...description, size: bytes.length });
      writer.write(bytes);
      outcomes.push(writer.finish(crc32(bytes)));
    }
    await this.store.flush();
    this.arrivals.notify();
    await Promise.all(outcomes);
  }

  /** Removes frames as retention does, and tells a playback of them. */
  remove(playback: JournalPlayback, ...ids: number[]): boolean[] {
    const { journal } = this.store;
    const frames = journal.deletionLog.candidates(0, 1_000_000);
    const removed = ids.map((id) => frames.find((frame) => frame.id === id)!);
    journal.endDeletion(removed, 0n);
    journal.flush();
    for (const { source, name } of removed) rmSync(join(this.place, "s", source, name));
    return removed.map((frame) => playback.addPassedOver(frame));
  }

  complete(fields: Partial<PlaybackRequest> = {}): JournalPlayback {
    return new JournalPlayback(this.reader, { stream: "s", follow: false, ...fields });
  }

  latest(fields: Partial<PlaybackRequest> = {}): LatestPlayback {
    return new LatestPlayback(this.reader, { stream: "s", follow: true, ...fields });
  }
}

function tell(item: PlaybackItem): string {
  const { name: source } = item.source;
  if (item.type === "frame") return `${source} ${item.frame.sequence}`;
  if (item.type === "gone") return `gone ${source} ${item.sequence}`;
  return `${item.error.code} ${source} ${item.first}-${item.last}`;
}

/** Builds RECEIPT. */
function receipt(frames: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeBigUInt64BE(BigInt(frames));
  return message(type.RECEIPT, body);
}

/** Returns what is sent in place of a frame in memory whose file may be missing. */
function failed(supply: Playback, item: PlaybackFrame): PlaybackItem {
  try {
    item.frame.read(new Uint8Array(item.frame.size));
    return item;
  } catch (error) {
    return supply.onReadError(item, error as FramesError)!;
  }
}

/** Returns all items available now. */
function take(supply: Playback): PlaybackItem[] {
  const items: PlaybackItem[] = [];
  for (let turn = 0; turn < 10_000; turn++) {
    const item = supply.next();
    if (item !== undefined) items.push(item);
    else if (!supply.isBusy) return items;
  }
  throw new Error("it is busy for ever");
}

describe("JournalPlayback", () => {
  test("a playback gives the frames of one stream in order of arrival, across gaps in row ids", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 300);
    await shelf.put("x", 1, 6000, { stream: "other" });
    await shelf.put("b", 1, 2);
    const supply = shelf.complete();
    expect(supply.isEnded).toBe(false);
    const items = take(supply);
    expect(items.map(({ position }) => position)).toEqual([
      ...Array.from({ length: 300 }, (_, index) => index + 1),
      6301,
      6302,
    ]);
    expect(supply.isEnded).toBe(true);
    expect(take(shelf.complete({ sources: ["b"] })).map(tell)).toEqual(["b 1", "b 2"]);
    expect(take(shelf.complete({ since: 299n })).map(tell)).toEqual(["a 299", "a 300"]);
    expect(take(shelf.complete({ until: 3n })).map(tell)).toEqual(["a 1", "a 2", "b 1", "b 2"]);
    expect(take(shelf.complete({ since: 2n, until: 3n })).map(tell)).toEqual(["a 2", "b 2"]);
    // Frames stored later are not part of this playback.
    const before = shelf.complete();
    await shelf.put("b", 3);
    expect(take(before)).toHaveLength(302);
  });

  test("a playback with a span follows into the frames of the span only", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 2);
    const supply = shelf.complete({ follow: true, since: 2n, until: 5n });
    expect(take(supply).map(tell)).toEqual(["a 2"]);
    await shelf.put("a", 3, 9);
    expect(take(supply).map(tell)).toEqual(["a 3", "a 4"]);
    expect(supply.isEnded).toBe(false);
  });

  test("a playback with follow continues from stored to new frames, also beyond the tail in memory", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 10);
    const supply = shelf.complete({ follow: true });
    expect(take(supply)).toHaveLength(10);
    for (const [first, last] of [
      [11, 11],
      [12, 20],
      [21, 3000],
    ] as const) {
      await shelf.put("a", first, last);
      expect(take(supply).map(tell)).toEqual(
        Array.from({ length: last - first + 1 }, (_, index) => `a ${first + index}`),
      );
      expect(supply.isEnded).toBe(false);
    }
  });

  test("a playback continues after the frame of each cursor", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 20);
    const items = take(shelf.complete());
    for (const [index, { cursor }] of items.entries()) {
      expect(take(shelf.complete({ cursor })).length).toBe(19 - index);
      expect(shelf.complete({ cursor }).position).toBe(index + 1);
    }
  });

  test("a playback restarts from the first frame if its cursor is invalid or no longer matches", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 20);
    const { cursor } = take(shelf.complete()).at(-1)!;
    for (const odd of ["x", "", "1.2.3", "..", cursor!.replace(/^\w/, "-"), `${cursor}0`, "\0"]) {
      expect(take(shelf.complete({ cursor: odd })).length).toBe(20);
    }
    // The last rows are lost, as after a power failure, and their numbers are reused.
    const database = new Database(journalPath(shelf.place));
    database.run("DELETE FROM frames WHERE id > 15");
    database.close();
    shelf.restart();
    expect(take(shelf.complete({ cursor })).length).toBe(15);
    await shelf.put("b", 1, 5);
    expect(take(shelf.complete({ cursor })).length).toBe(20);
  });

  test("a playback gives a replaced frame once, at its new position, also if it was the newest", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 3);
    const supply = shelf.complete({ follow: true });
    expect(take(supply)).toHaveLength(3);
    const other = { session: "2".repeat(32), conflict: "replace" } as const;
    await shelf.put("a", 3, 3, other);
    expect(take(supply).map(({ position }) => position)).toEqual([4]);
    await shelf.put("a", 2, 2, other);
    shelf.restart();
    expect(take(shelf.complete()).map(({ position }) => position)).toEqual([1, 4, 5]);
  });

  test("a playback reports a row that the disk has damaged as lost, and gives all others", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 8);
    const database = new Database(journalPath(shelf.place));
    for (const [number, change] of [
      [2, `meta = '{"exposure":'`],
      [3, "session = 'f'"],
      [4, "seq = 0"],
      [5, "source = '../a'"],
      [6, "format = '0x0.gray'"],
      [7, "bytes = 'many'"],
    ] as const) {
      database.run(`UPDATE frames SET ${change} WHERE id = ${number}`);
    }
    database.close();
    shelf.restart();
    const given = ["a 1", "a 2-2", "a 3-3", "a 1-1", "s 5-5", "a 6-6", "a 7-7", "a 8"];
    const items = take(shelf.complete());
    expect(items.map((item) => tell(item).replace("unreadable ", ""))).toEqual(given);
    expect(items[1]).toMatchObject({ error: { message: expect.stringContaining("--repair") } });
    expect(take(shelf.latest()).map(tell).at(-1)).toBe("a 8");
  });

  test("a playback waits while a frame is being replaced, and does not report it as damaged", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 2);
    const supply = shelf.complete({ follow: true });
    const first = supply.next() as PlaybackFrame;
    const database = new Database(journalPath(shelf.place));
    const columns = "stream, source, name, session, seq, bytes, crc32, captured, received";
    database.run(`INSERT INTO replacements (partial, ${columns})
      SELECT 'p', ${columns} FROM frames WHERE id = 1`);
    expect(supply.onReadError(first, new FramesError("unreadable"))).toBeUndefined();
    expect([supply.next(), supply.isBusy, supply.position]).toEqual([undefined, false, 0]);
    // The replacement was abandoned.
    database.run("DELETE FROM replacements");
    database.close();
    expect(take(supply).map(tell)).toEqual(["a 1", "a 2"]);
  });

  test("a playback reports removed frames as gone and changed ones as unreadable", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 3);
    renameSync(join(shelf.place, "s/a/1"), join(shelf.place, "s/a/away"));
    writeFileSync(join(shelf.place, "s/a/2"), "a X ");
    const supply = shelf.complete();
    const told = (take(supply) as PlaybackFrame[]).map((item) => {
      try {
        const into = new Uint8Array(item.frame.size);
        item.frame.read(into);
        return Buffer.from(into).toString();
      } catch (error) {
        return tell(supply.onReadError(item, error as FramesError)!);
      }
    });
    expect(told).toEqual(["gone a 1", "unreadable a 2-2", "a 3 "]);
  });
});

describe("LatestPlayback", () => {
  test("a latest playback gives the newest frame of each source, and ends there without follow", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 9);
    await shelf.put("b", 1, 5);
    const supply = shelf.latest({ follow: false });
    expect(take(supply).map(tell)).toEqual(["a 9", "b 5"]);
    expect(supply.isEnded).toBe(true);
  });

  test("a latest playback reports skipped frames as ranges of dropped numbers", async () => {
    const shelf = new Shelf();
    const supply = shelf.latest();
    await shelf.put("a", 1, 4);
    expect(take(supply).map(tell)).toEqual(["dropped a 1-3", "a 4"]);
    await shelf.put("a", 5);
    expect(take(supply).map(tell)).toEqual(["a 5"]);
    await shelf.put("a", 6, 6000);
    await shelf.put("b", 1);
    await shelf.put("a", 7, 9, { session: "2".repeat(32), conflict: "replace" });
    const told = take(supply).map(tell);
    expect(told.slice(-2)).toEqual(["a 9", "b 1"]);
    const dropped = told.flatMap((line) => /^dropped a (\d+)-(\d+)$/.exec(line)?.slice(1) ?? []);
    expect(dropped.map(Number)).toEqual([6, 6, 10, 6000, 7, 8]);
  });
});

describe("frames that retention removed before a client had them", () => {
  test("removed frames are gone, in their place in the order, whether their rows were read or not", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 500);
    shelf.restart();
    const supply = shelf.complete({ follow: true });
    expect(tell(supply.next()!)).toBe("a 1");
    // The first 200 rows are in memory. Reported out of order, and twice.
    shelf.remove(supply, 250, 2, 1, 300, 251);
    const told = take(supply).map((item) => {
      const isRead = item.type !== "frame" || item.position > 200;
      return isRead ? tell(item) : tell(failed(supply, item));
    });
    expect(told).toHaveLength(499);
    expect(told.filter((line) => line.startsWith("gone"))).toEqual([
      "gone a 2",
      "gone a 250",
      "gone a 251",
      "gone a 300",
    ]);
    expect(told.map((line) => Number(line.split(" ").at(-1)))).toEqual(
      Array.from({ length: 499 }, (_, index) => index + 2),
    );
    expect([supply.position, supply.isBusy]).toEqual([500, false]);
  });

  test("a client resumes at the cursor of a removed frame", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 3);
    shelf.restart();
    const supply = shelf.complete();
    shelf.remove(supply, 1, 2);
    const [first] = take(supply);
    expect([tell(first!), supply.isEnded]).toEqual(["gone a 1", true]);
    expect(take(shelf.complete({ cursor: first!.cursor })).map(tell)).toEqual(["a 3"]);
  });

  test("a playback reports no removed frame that was not requested", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1, 3);
    shelf.restart();
    const supply = shelf.complete({ since: 2n });
    await shelf.put("a", 4, 5);
    shelf.remove(supply, 1, 2, 4);
    expect(take(supply).map(tell)).toEqual(["gone a 2", "a 3"]);
  });

  test("a playback remembers 10,000 removed frames, and refuses more", async () => {
    const shelf = new Shelf();
    await shelf.put("a", 1);
    const supply = shelf.complete({ follow: true });
    const frame = {
      ...{ id: 0, stream: "s", source: "a", session, name: "x", seq: 1, isDamaged: false },
    };
    const add = (id: number) =>
      supply.addPassedOver({ ...frame, id, bytes: 1, crc32: 1, captured: 1n, received: 1n });
    for (let id = 1; id <= 10_000; id++) expect(add(id)).toBe(true);
    expect([add(10_001), add(20_000)]).toEqual([false, false]);
  });
});

test("a slow receiver is told which frames --keep removed before it had them, and the server says how many", async () => {
  const directory = temporaryFolder();
  let passedOver = 0;
  const server = await serve(directory, {
    ...{ listen: "127.0.0.1:0", keep: { bytes: 10_000 } },
    onEvent: (event) => void (event.type === "removed" && (passedOver += event.passedOver)),
  });
  using peer = await Peer.connect({ port: server.port });
  const follower = { role: "receive", stream: "s", follow: true };
  // It takes one frame, and confirms none.
  const small = { ...follower, window: { bytes: 2000, frames: 1 } };
  const frames = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, index) => {
      return { name: `${from + index}`, bytes: new Uint8Array(1000).fill(from + index) };
    });
  try {
    await send(frames(1, 9), { to: server.address, stream: "s", source: "a" });
    peer.write(Buffer.concat([preface, hello({ port: server.port }, small)]));
    const heard = (kind: number) => peer.messages().filter((one) => one.type === kind).length;
    await until("the first frame", () => heard(type.FRAME) === 1);
    await send(frames(10, 30), { to: server.address, stream: "s", source: "a" });
    const stored = () =>
      journal<{ bytes: number }>(directory, "SELECT sum(bytes) AS bytes FROM frames")[0]!.bytes;
    // A tenth of the limit is one frame, and the newest frame is never removed.
    await until("the limit and a tenth", () => stored() <= 11_000);
    await until("the report", () => passedOver > 0);
    peer.write(receipt(1));
    await until("the frames that are left", () => {
      const told = heard(type.GONE) + heard(type.FRAME);
      const receipts = heard(type.FRAME);
      peer.write(receipt(receipts));
      return told === 30;
    });
    const gone = peer.bodies(type.GONE).map(({ sequence, name }) => [sequence, name]);
    expect(heard(type.FRAME) + gone.length).toBe(30);
    // The second sender numbers from 1 again, in a session of its own.
    expect(gone.slice(0, 9).map(([, name]) => name)).toEqual(
      ["2", "3", "4", "5", "6", "7", "8", "9", "10"].slice(0, 9),
    );
    expect(peer.outcome).toBe("closed");
  } finally {
    await server.stop();
  }
});

test("retention keeps frames that a follower has not received, and no others", async () => {
  const server = (await serve(temporaryFolder(), { listen: "127.0.0.1:0" })) as FrameServer;
  const copy = temporaryFolder();
  try {
    const from = server.address;
    const frames = [1, 2, 3].map((number) => ({
      name: `${number}`,
      bytes: new Uint8Array(number),
    }));
    await send(frames, { to: from, stream: "s", source: "a" });
    await receive("s", { from, directory: copy });
    const over = new AbortController();
    const { signal } = over;
    // An abort before WELCOME arrives counts as an interruption, although the server has the follower.
    let isConnected = false;
    const onEvent = ({ type }: { type: string }) => (isConnected ||= type === "connected");
    const following = receive("s", { from, directory: copy, follow: true, signal, onEvent });
    await until("the follower", () => isConnected && server.journalTail.holds.size === 1);
    const [follower] = server.journalTail.holds;
    const awaits = (id: number, stream = "s") => follower!.needs({ id, stream, source: "a" });
    await until("its place", () => !awaits(3));
    expect([awaits(1), awaits(4), awaits(4, "t")]).toEqual([false, true, false]);
    over.abort();
    await following;
    await until("its end", () => server.journalTail.holds.size === 0);
  } finally {
    await server.stop();
    rmSync(copy, { recursive: true });
  }
});

test("a stored frame is not lost to a client because the server has too many open files", async () => {
  const { StoredFrame } = await import("../../../src/server/playback/stored-frame.ts");
  const folder = temporaryFolder();
  mkdirSync(join(folder, "run7/visible"), { recursive: true });
  const frame = new StoredFrame(new FrameFiles(folder), {
    ...{ stream: "run7", source: "visible", name: "1", session, sequence: 1, size: 1, crc32: 0 },
  } as ConstructorParameters<typeof StoredFrame>[1]);
  using faults = new SystemFaults();
  for (const [code, expected] of [
    ["EMFILE", "store"],
    ["EACCES", "unreadable"],
    ["EIO", "unreadable"],
  ] as const) {
    faults.decide = (call) => (call === "openSync" ? code : undefined);
    expect(refusal(() => faults.within(() => frame.read(new Uint8Array(1)))).code).toBe(expected);
  }
});
