// A live source of encoded video: whatever it drops, the rest can be decoded, and each number is
// delivered or told as lost.
//
// Covers: video/picture-gate.ts, source/live/spooled-pictures.ts

import { describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { cpSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { EncodedVideo } from "../../../src/source/live/encoded-video.ts";
import { FrameFeed } from "../../../src/source/live/frame-feed.ts";
import type { Capture } from "../../../src/source/live/iterable-source.ts";
import { LiveSource } from "../../../src/source/live/live-source.ts";
import { Spool } from "../../../src/source/live/spool.ts";
import type { QueuePolicy } from "../../../src/source/per-source.ts";
import { AccessUnitSplitter } from "../../../src/video/access-units.ts";
import type { VideoCodec } from "../../../src/video/nal-units.ts";
import { isDecodable } from "../../helper/encoded-video.ts";
import { ffmpeg, needs } from "../../helper/ffmpeg.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { SystemFaults } from "../../helper/system-faults.ts";
import { Random } from "../../wire/fuzz.ts";

const started = Date.UTC(2026, 10, 22);
const session = { id: "a".repeat(32), started };
const pictureBytes = 100;

/** Access units by letter: a key frame, another picture, a leading one, and a recovery point. */
const units: Readonly<Record<VideoCodec, Readonly<Record<string, string>>>> = {
  // Two pictures from the recovery point on may be damaged.
  h264: { K: "0000000165", d: "0000000141", r: "0000000106060164800000" + "0141" },
  h265: { K: "000000012a01", d: "000000010201", l: "000000011201" },
};

function unitOf(codec: VideoCodec, letter: string, size = pictureBytes): Uint8Array {
  const bytes = new Uint8Array(size).fill(0x55);
  bytes.set(Uint8Array.fromHex(units[codec][letter]!));
  return bytes;
}

/** A source of encoded video that captures pictures by letters. Items are taken from it. */
class Camera {
  readonly codec: VideoCodec;
  readonly source: LiveSource;
  readonly folder: string;
  readonly #spool: Spool | undefined;
  readonly #feed = new FrameFeed<Capture>();
  #pending: Promise<void> | undefined;
  /** Number of taken items that `take` has returned. */
  #returned = 0;
  /** Everything taken: numbers of frames, and losses as `dropped 4-6`. */
  readonly taken: string[] = [];
  readonly frames: Frame[] = [];
  captured = 0;

  constructor(
    policy: QueuePolicy,
    codec: VideoCodec = "h264",
    spoolBytes?: number,
    folder: string = temporaryFolder(),
  ) {
    this.codec = codec;
    this.folder = folder;
    const clock = () => started;
    const video = new EncodedVideo(codec, () => {});
    if (spoolBytes !== undefined) {
      const { folder: directory } = this;
      this.#spool = new Spool({ directory, stream: "run7", session, maxBytes: spoolBytes });
    }
    const spool = this.#spool?.sourceSpool("cam");
    const settings = { started, clock, video };
    const options = { policy, settings, capturesOffline: true, ...(spool && { spool }) };
    this.source = new LiveSource("cam", this.#feed, options);
    this.source.startCapture();
  }

  /** Captures pictures, each until it is queued, spooled or dropped. */
  async captures(letters: string, size = pictureBytes): Promise<void> {
    for (const letter of letters) await this.capture(unitOf(this.codec, letter, size));
  }

  /** Captures an access unit. */
  async capture(bytes: Uint8Array): Promise<void> {
    void this.#feed.push({ bytes, captured: 0n });
    this.captured++;
    await turns(() => this.source.capturedCount === this.captured);
  }

  /** Takes at most `count` items. Returns those of all calls since the last. */
  async take(count = Infinity): Promise<string[]> {
    for (let left = count; left > 0; left--) {
      if (this.#pending === undefined) this.#request();
      await turns(() => this.#pending === undefined);
      if (this.#pending !== undefined) break;
    }
    const before = this.#returned;
    this.#returned = this.taken.length;
    return this.taken.slice(before);
  }

  #request(): void {
    const next = this.source.next();
    const record = (item: Frame | Loss | undefined) => {
      this.#pending = undefined;
      if (item === undefined) return;
      if ("error" in item) this.taken.push(`${item.error.code} ${item.first}-${item.last}`);
      else {
        this.taken.push(`${item.sequence}`);
        this.frames.push(item);
      }
    };
    if (next instanceof Promise) this.#pending = next.then(record);
    else record(next);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.source.close();
    // The source looks into its spool once more when its camera has ended.
    await turns(() => false);
    this.#spool?.close();
  }
}

/** Lets promises settle until a condition holds, or for long enough that it never will. */
async function turns(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 20 && !condition(); turn++) await Promise.resolve();
}

/** Starts a camera whose first picture was taken for sending. */
async function begun(latest: number, codec: VideoCodec = "h264"): Promise<Camera> {
  const camera = new Camera({ latest }, codec);
  camera.source.onConnected();
  await camera.captures("K");
  expect(await camera.take(1)).toEqual(["1"]);
  return camera;
}

describe("a full queue of encoded video", () => {
  const cases: [what: string, latest: number, letters: string, expected: string[]][] = [
    [
      "keeps what can be decoded, and drops up to the next key frame",
      2,
      "ddddd",
      ["dropped 4-6", "2", "3"],
    ],
    ["goes on at a key frame that is newer", 2, "ddddKd", ["dropped 4-5", "dropped 2-3", "6", "7"]],
    ["drops whole groups when a newer key frame is there", 3, "KddKd", ["dropped 2-4", "5", "6"]],
    ["drops the rest of a group whose key frame was sent", 3, "ddKd", ["dropped 2-3", "4", "5"]],
    [
      "has one key frame at a time with the limit 1",
      1,
      "dddKKd",
      ["dropped 3-4", "dropped 2-2", "dropped 5-5", "dropped 7-7", "6"],
    ],
    ["drops nothing below its limit", 9, "dddKdd", ["2", "3", "4", "5", "6", "7"]],
  ];
  for (const [what, latest, letters, expected] of cases) {
    test(`a full queue ${what}`, async () => {
      await using camera = await begun(latest);
      await camera.captures(letters);
      const taken = await camera.take();
      expect(taken.toSorted()).toEqual(expected.toSorted());
      expect(taken.filter((item) => !item.includes(" "))).toEqual(
        expected.filter((item) => !item.includes(" ")),
      );
    });
  }

  test("leading pictures that need what was dropped are dropped too, and others are not", async () => {
    await using camera = await begun(3, "h265");
    await camera.captures("ddKlldd");
    expect(await camera.take()).toEqual(["dropped 2-3", "dropped 5-6", "4", "7", "8"]);
    await camera.captures("Kld");
    expect(await camera.take()).toEqual(["9", "10", "11"]);
  });

  test("a stream without key frames goes on at a recovery point", async () => {
    await using camera = await begun(2);
    await camera.captures("ddddd");
    expect(await camera.take()).toEqual(["dropped 4-6", "2", "3"]);
    await camera.captures("ddrd");
    expect(await camera.take()).toEqual(["dropped 7-7", "dropped 8-8", "9", "10"]);
    expect(camera.source.maybeDamagedCount).toBe(2);
    await camera.captures("dd");
    await camera.take();
    expect(camera.source.maybeDamagedCount).toBe(2);
  });

  test("pictures before a key frame are not counted as damaged any more", async () => {
    await using camera = await begun(2);
    await camera.captures("ddd");
    await camera.take();
    await camera.captures("rK");
    expect(await camera.take()).toEqual(["5", "6"]);
    await camera.captures("d");
    await camera.take();
    expect(camera.source.maybeDamagedCount).toBe(1);
  });

  test("a stream without any key frame goes on after a bounded number of pictures", async () => {
    await using camera = await begun(2);
    await camera.captures("dddd");
    expect(await camera.take()).toEqual(["dropped 4-5", "2", "3"]);
    await camera.captures("d".repeat(2000));
    expect(await camera.take()).toEqual(["dropped 6-6", "dropped 7-2004", "2005"]);
    // No picture tells from when on the others are right.
    await camera.captures("d");
    await camera.take();
    expect(camera.source.maybeDamagedCount).toBe(2);
  });
});

describe("a spool of encoded video", () => {
  test("a full spool drops whole groups, and goes on where a decoder can", async () => {
    await using camera = new Camera({ latest: 5 }, "h264", 6 * pictureBytes);
    await camera.captures("KddKddKd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 1-3", "4", "5", "6", "7", "8"]);
    expect(camera.frames.map(({ isKey }) => isKey)).toEqual([true, false, false, true, false]);
  });

  test("a full spool keeps a group that is larger than it from its key frame on", async () => {
    await using camera = new Camera({ latest: 5 }, "h264", 4 * pictureBytes);
    await camera.captures("KddddddddKd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 5-9", "dropped 1-4", "10", "11"]);
  });

  test("a full spool drops leading pictures whose key frame has lost what was before it", async () => {
    await using camera = new Camera({ latest: 5 }, "h265", 7 * pictureBytes);
    // Those behind the key frame are in the spool already.
    await camera.captures("KddKlldd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 1-3", "dropped 5-6", "4", "7", "8"]);
    for (const frame of camera.frames) camera.source.onSettled(frame);
    camera.source.onDisconnected([]);
    // The spool is full when the key frame comes, and the leading ones come later.
    await camera.captures("KddddddKlldd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 9-15", "dropped 17-18", "16", "19", "20"]);
  });

  test("a full spool drops a leading picture for which it makes room", async () => {
    await using camera = new Camera({ latest: 5 }, "h265", 4 * pictureBytes);
    await camera.captures("KddKlld");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 1-3", "dropped 5-6", "4", "7"]);
  });

  test("a full spool of a stream without key frames goes on at recovery points", async () => {
    await using camera = new Camera({ latest: 5 }, "h264", 7 * pictureBytes);
    await camera.captures("Kddrddrdd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 1-3", "4", "5", "6", "7", "8", "9"]);
    expect(camera.source.maybeDamagedCount).toBe(2);
  });

  test("a full spool without a recovery point goes on at the next one that comes", async () => {
    await using camera = new Camera({ latest: 5 }, "h264", 4 * pictureBytes);
    await camera.captures("Kddddrd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["dropped 5-5", "dropped 1-4", "6", "7"]);
  });

  test("pictures that the full disk of a spool cannot take are dropped with those that need them", async () => {
    using faults = new SystemFaults();
    await using camera = new Camera({ latest: 3 }, "h264", 1e6);
    faults.decide = (call) => (call === "statement.run" ? "SQLITE_FULL" : undefined);
    await faults.within(() => camera.captures("KddddKddd"));
    faults.decide = undefined;
    await camera.captures("dKd");
    camera.source.onConnected();
    expect(await camera.take()).toEqual([
      "unreadable 1-1",
      "dropped 2-5",
      "unreadable 6-6",
      "dropped 7-10",
      "11",
      "12",
    ]);
  });

  test("pictures leave in their order, although others come while the spool drains", async () => {
    await using camera = new Camera({ latest: 5 }, "h264", 1e6);
    await camera.captures("KddKdd");
    camera.source.onConnected();
    expect(await camera.take(2)).toEqual(["1", "2"]);
    await camera.captures("KddKdddd");
    expect((await camera.take()).map(Number)).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
  });

  test("pictures wait for earlier ones in the spool that cannot be read now", async () => {
    using faults = new SystemFaults();
    await using camera = new Camera({ latest: 5 }, "h264", 1e6);
    await camera.captures("KddKdd");
    camera.source.onConnected();
    expect(await camera.take(2)).toEqual(["1", "2"]);
    faults.decide = (call) => (call === "statement.get" ? "SQLITE_FULL" : undefined);
    await faults.within(async () => {
      await camera.captures("dd");
      expect(await camera.take()).toEqual([]);
    });
    faults.decide = undefined;
    await camera.captures("d");
    expect((await camera.take()).map(Number)).toEqual([3, 4, 5, 6, 7, 8, 9]);
  });

  test("pictures of an earlier process keep whether they are key frames, unless an earlier version wrote them", async () => {
    const folder = temporaryFolder();
    const inFolder = () => new Camera({ latest: 5 }, "h264", 1e6, folder);
    const captured = inFolder();
    await captured.captures("Kd");
    await captured[Symbol.asyncDispose]();
    const isKeys = async () => {
      await using camera = inFolder();
      camera.source.onConnected();
      await camera.take();
      return camera.frames.map(({ isKey }) => isKey);
    };
    expect(await isKeys()).toEqual([true, false]);
    expect(isKeyRows(folder)).toBe(2);
    const database = new Database(join(folder, "spool.sqlite"));
    database.run("DROP TABLE pictures");
    database.close();
    expect(await isKeys()).toEqual([undefined, undefined]);
  });

  test("a spool forgets what it knew of settled pictures", async () => {
    const folder = temporaryFolder();
    const camera = new Camera({ latest: 5 }, "h264", 1e6, folder);
    await camera.captures("KdKd");
    camera.source.onConnected();
    await camera.take();
    for (const frame of camera.frames.slice(0, 3)) camera.source.onSettled(frame);
    await camera[Symbol.asyncDispose]();
    expect(isKeyRows(folder)).toBe(1);
  });
});

describe("a spool that lacks pictures", () => {
  /** Captures pictures while no server is there, and changes the spool before the next process. */
  async function spooled(letters: string, ...changes: string[]): Promise<Camera> {
    const before = new Camera({ latest: 5 }, "h264", 1e6);
    await before.captures(letters);
    await before[Symbol.asyncDispose]();
    const database = new Database(join(before.folder, "spool.sqlite"));
    for (const sql of changes) database.run(sql);
    database.close();
    return new Camera({ latest: 5 }, "h264", 1e6, before.folder);
  }

  for (const [what, change, expected] of [
    [
      "that no process told",
      ["DELETE FROM frames WHERE seq BETWEEN 3 AND 4"],
      ["stopped 3-4", "dropped 5-5", "1", "2", "6", "7", "8"],
    ],
    [
      "of which a process told some before it was killed",
      [
        "DELETE FROM frames WHERE seq BETWEEN 2 AND 4",
        "INSERT INTO losses VALUES ('cam', 3, 3, 'x', 'dropped')",
      ],
      ["dropped 3-3", "stopped 2-2", "stopped 4-4", "dropped 5-5", "1", "6", "7", "8"],
    ],
    [
      "since a process was killed while it dropped a group",
      [
        "DELETE FROM frames WHERE seq BETWEEN 1 AND 2",
        "INSERT INTO losses VALUES ('cam', 1, 2, 'x', 'dropped')",
      ],
      ["dropped 1-5", "6", "7", "8"],
    ],
    [
      "because a row is damaged",
      ["UPDATE frames SET size = -1 WHERE seq = 2"],
      ["unreadable 2-2", "dropped 3-5", "1", "6", "7", "8"],
    ],
  ] as const) {
    test(`pictures that need a missing one are dropped, and those are told as lost, ${what}`, async () => {
      await using camera = await spooled("KddddKdd", ...change);
      camera.source.onConnected();
      expect(await camera.take()).toEqual([...expected]);
      // The process after the next tells the same.
      for (const frame of camera.frames.slice(1)) camera.source.onSettled(frame);
      await camera[Symbol.asyncDispose]();
      await using later = new Camera({ latest: 5 }, "h264", 1e6, camera.folder);
      later.source.onConnected();
      const numbers = (items: readonly string[]) =>
        items.filter((item) => item.includes(" ")).flatMap((item) => range(item.split(" ")[1]!));
      const told = numbers(await later.take());
      expect(told.toSorted()).toEqual(numbers(expected).toSorted());
    });
  }

  test("pictures before the first in the spool were delivered, unless they are recorded as lost", async () => {
    await using camera = await spooled("KddddKdd", "DELETE FROM frames WHERE seq < 4");
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["4", "5", "6", "7", "8"]);
  });

  for (const [what, damage] of [
    ["damaged", (path: string) => writeFileSync(path, "other")],
    ["missing", (path: string) => rmSync(path)],
  ] as const) {
    test(`pictures that need one whose file is ${what} are dropped up to the next key frame`, async () => {
      await using camera = await spooled("KdddKdd");
      for (const number of [2, 7]) damage(join(camera.folder, "cam", `${number}`));
      camera.source.onConnected();
      expect(await takeAndRead(camera)).toEqual(["1", "lost 2", "dropped 3-4", "5", "6", "lost 7"]);
      // Those that come later need it too.
      await camera.captures("ddKd");
      expect(await takeAndRead(camera)).toEqual(["dropped 8-8", "10", "dropped 9-9", "11"]);
      // A killed process has told the server, or the next one does.
      const copy = temporaryFolder();
      cpSync(camera.folder, copy, { recursive: true });
      await using next = new Camera({ latest: 5 }, "h264", 1e6, copy);
      next.source.onConnected();
      const lost = (await next.take()).filter((item) => item.includes(" "));
      expect(lost.flatMap((item) => range(item.split(" ")[1]!))).toEqual([2, 3, 4, 7, 8, 9]);
    });
  }
});

describe("pictures that are sent from memory", () => {
  test("they go to the spool before newer ones do, so that a killed process loses none", async () => {
    await using camera = new Camera({ latest: 2 }, "h264", 1e6);
    camera.source.onConnected();
    await camera.captures("Kdd");
    expect(await camera.take()).toEqual(["1", "2", "3"]);
    await camera.captures("ddddd");
    const copy = temporaryFolder();
    cpSync(camera.folder, copy, { recursive: true });
    await using next = new Camera({ latest: 2 }, "h264", 1e6, copy);
    next.source.onConnected();
    // The two in the queue are lost.
    expect(await next.take()).toEqual(["1", "2", "3", "4", "5", "6"]);
    // They are sent once on this connection.
    expect(await camera.take()).toEqual(["4", "5", "6", "7", "8"]);
    camera.source.onDisconnected(camera.frames);
    camera.source.onConnected();
    expect(await camera.take()).toEqual(["1", "2", "3", "4", "5", "6", "7", "8"]);
  });

  test("newer ones do not go to the spool while the disk cannot take them", async () => {
    using faults = new SystemFaults();
    await using camera = new Camera({ latest: 3 }, "h264", 1e6);
    camera.source.onConnected();
    await camera.captures("Kdd");
    await camera.take();
    let failures = 1;
    faults.decide = (call, [sql]) =>
      call === "statement.run" && String(sql).includes("INTO frames") && failures-- > 0
        ? "SQLITE_FULL"
        : undefined;
    // The disk has room for the others.
    const kept = faults.within(() => camera.source.onDisconnected(camera.frames));
    expect(kept.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
    camera.source.onConnected();
    await camera.captures("d");
    expect(await camera.take()).toEqual(["4"]);
  });

  test("what a sender still has when it ends goes to the spool, or is told as lost by the next one", async () => {
    using faults = new SystemFaults();
    const folder = temporaryFolder();
    const camera = new Camera({ latest: 5 }, "h264", 1e6, folder);
    camera.source.onConnected();
    await camera.captures("Kdd");
    expect(await camera.take(2)).toEqual(["1", "2"]);
    let failures = Infinity;
    faults.decide = (call, [sql]) =>
      call === "statement.run" && String(sql).includes("INTO frames") && --failures <= 0
        ? "SQLITE_FULL"
        : undefined;
    failures = 3;
    await faults.within(async () => await camera[Symbol.asyncDispose]());
    await using next = new Camera({ latest: 5 }, "h264", 1e6, folder);
    next.source.onConnected();
    expect(await next.take()).toEqual(["stopped 3-3", "1", "2"]);
  });
});

test("in any order of events each number is taken in order or lost once, and what is taken can be decoded", async () => {
  for (let seed = 0; seed < 120; seed++) {
    const random = new Random(seed);
    const latest = 1 + random.below(5);
    const spoolBytes = seed % 2 === 0 ? undefined : (1 + random.below(12)) * pictureBytes;
    const codec = seed % 4 < 2 ? "h264" : "h265";
    let isDiskFull = false;
    using faults = new SystemFaults();
    // On some full disks SQLite can still delete rows.
    const failing = seed % 4 === 1 ? /^INSERT/ : /^(?:INSERT|DELETE)/;
    /** Calls until the disk is copied as it is then, and the folder of the copy. */
    let callsLeft = Infinity;
    let copy: string | undefined;
    faults.decide = (call, [sql]) => {
      if (--callsLeft === 0) cpSync(camera.folder, (copy = temporaryFolder()), { recursive: true });
      const mayFail = isDiskFull && call === "statement.run" && failing.test(String(sql));
      return mayFail ? "SQLITE_FULL" : undefined;
    };
    await using camera = new Camera({ latest }, codec, spoolBytes);
    let letters = "";
    let isConnected = false;
    /** Numbers that the server has, and frames in flight to it. */
    const stored = new Set<number>();
    /** Numbers that the server got just before the link broke. */
    const unconfirmed = new Set<number>();
    let inFlight: Frame[] = [];
    const settle = (count: number) => {
      for (const frame of inFlight.splice(0, count)) {
        stored.add(frame.sequence);
        faults.within(() => camera.source.onSettled(frame));
      }
    };
    for (let step = 0; step < 150; step++) {
      if (step % 10 === 0) isDiskFull = seed % 3 === 1 && random.below(3) === 0;
      const takenBefore = camera.taken.length;
      callsLeft = step % 5 === 0 ? 1 + random.below(20) : Infinity;
      copy = undefined;
      const action = random.below(20);
      if (action < 11) {
        const mayLead = codec === "h265" && /[Kl]$/.test(letters) && random.below(3) > 0;
        const isKey = letters === "" || random.below(6) === 0;
        const isRecovery = codec === "h264" && seed % 8 > 3 && random.below(6) === 0;
        const letter = isKey ? "K" : mayLead ? "l" : isRecovery ? "r" : "d";
        const size = 20 + random.below(2 * pictureBytes);
        await faults.within(() => camera.captures(letter, size));
        letters += letter;
      } else if (!isConnected) {
        camera.source.onConnected();
        isConnected = true;
      } else if (action < 16) inFlight.push(...(await takenBy(camera, random.below(4))));
      else if (action < 19) settle(random.below(4));
      else {
        // What was taken since the last look is in flight too.
        inFlight.push(...(await takenBy(camera, 0)));
        const received = inFlight.slice(0, random.below(inFlight.length + 1));
        for (const { sequence } of received) unconfirmed.add(sequence);
        inFlight = [...faults.within(() => camera.source.onDisconnected(inFlight))];
        isConnected = false;
      }
      if (copy === undefined) continue;
      const received = inFlight.slice(0, random.below(inFlight.length + 1));
      const has = new Set([...stored, ...unconfirmed, ...received.map(({ sequence }) => sequence)]);
      const what = `seed ${seed}, step ${step}: ${letters}`;
      await expectWholeAfterKill(copy, codec, has, camera.taken.slice(0, takenBefore), what);
    }
    camera.source.onConnected();
    inFlight.push(...(await takenBy(camera, Infinity)));
    settle(Infinity);
    const lost = camera.taken.filter((item) => item.includes(" "));
    const numbers = [...stored, ...lost.flatMap((item) => range(item.split(" ")[1]!))];
    const what = `seed ${seed}: ${letters} ${camera.taken.join(", ")}`;
    expect([what, numbers.toSorted((a, b) => a - b)]).toEqual([what, range(`1-${letters.length}`)]);
    const isWrong = numbers.slice(stored.size).filter((number) => unconfirmed.has(number));
    expect([what, ...isWrong]).toEqual([what]);
    expect([what, ...stored]).toEqual([what, ...[...stored].toSorted((a, b) => a - b)]);
    for (const number of stored) {
      expect([what, number, isDecodable(number, letters, stored)]).toEqual([what, number, true]);
    }
  }
});

/**
 * Checks what the next process does if the one with this camera is killed: what the server has then
 * can be decoded, and no number before the last that it has is missing in silence.
 *
 * @param folder copy of its spool
 * @param has numbers that the server has
 * @param taken what was taken from it
 */
async function expectWholeAfterKill(
  folder: string,
  codec: VideoCodec,
  has: ReadonlySet<number>,
  taken: readonly string[],
  what: string,
): Promise<void> {
  const letters = /[A-Za-z]*$/.exec(what)![0];
  await using next = new Camera({ latest: 5 }, codec, 1e6, folder);
  next.source.onConnected();
  const sent = (await takenBy(next, Infinity)).map(({ sequence }) => sequence);
  const story = [what, `has ${[...has].join()}`, ...taken, "next:", ...next.taken].join(" ");
  const lost = [...taken, ...next.taken].filter((item) => item.includes(" "));
  const stored = new Set([...has, ...sent]);
  const known = new Set([...stored, ...lost.flatMap((item) => range(item.split(" ")[1]!))]);
  // Those behind were only in memory.
  const last = Math.max(...stored, 1) - 1;
  expect([story, ...range(`1-${last}`).filter((number) => !known.has(number))]).toEqual([story]);
  for (const number of sent) {
    expect([story, number, isDecodable(number, letters, stored)]).toEqual([story, number, true]);
  }
}

for (const [what, codec, format, options] of [
  ["H.264", "h264", "h264", ["libx264", "-bf", "0"]],
  [
    "H.265 with leading pictures",
    "h265",
    "hevc",
    ["libx265", "-x265-params", "open-gop=1:bframes=3:log-level=none"],
  ],
] as const) {
  test(`${needs}what is left of a real stream of ${what} is decoded without a warning`, async () => {
    if (needs !== "") return;
    const pictures = await realPictures(codec, format, options);
    for (let seed = 0; seed < 3; seed++) {
      const random = new Random(seed);
      await using camera = new Camera({ latest: 7 }, codec);
      camera.source.onConnected();
      const taken: Frame[] = [];
      for (const picture of pictures) {
        await camera.capture(picture);
        if (random.below(3) === 0) taken.push(...(await takenBy(camera, 1)));
      }
      taken.push(...(await takenBy(camera, Infinity)));
      expect(taken.length).toBeLessThan(150);
      const { decoded, warnings } = await decode(format, bytesOf(taken));
      expect([seed, warnings, decoded]).toEqual([seed, "", taken.length]);
    }
  });

  test(`${needs}what a full spool keeps of a real stream of ${what} is decoded without a warning`, async () => {
    if (needs !== "") return;
    const pictures = await realPictures(codec, format, options);
    const total = pictures.reduce((sum, { length }) => sum + length, 0);
    for (const share of [0.3, 0.5, 0.8]) {
      await using camera = new Camera({ latest: 7 }, codec, Math.round(total * share));
      for (const picture of pictures) await camera.capture(picture);
      camera.source.onConnected();
      const taken = await takenBy(camera, Infinity);
      expect(taken.length).toBeGreaterThan(20);
      expect(taken.length).toBeLessThan(190);
      const { decoded, warnings } = await decode(format, bytesOf(taken));
      expect([share, warnings, decoded]).toEqual([share, "", taken.length]);
    }
  });
}

test(`${needs}a real stream with intra refresh goes on at recovery points, and what ffmpeg cannot show is counted`, async () => {
  if (needs !== "") return;
  const pictures = await realPictures("h264", "h264", [
    "libx264",
    "-bf",
    "0",
    "-intra-refresh",
    "1",
  ]);
  const total = pictures.reduce((sum, { length }) => sum + length, 0);
  for (const spoolBytes of [undefined, Math.round(total / 2)]) {
    const random = new Random(1);
    await using camera = new Camera({ latest: 20 }, "h264", spoolBytes);
    if (spoolBytes === undefined) camera.source.onConnected();
    const taken: Frame[] = [];
    for (const [index, picture] of pictures.entries()) {
      await camera.capture(picture);
      // Losses are taken too.
      const isTaken = spoolBytes === undefined && index > 50 && random.below(4) === 0;
      if (isTaken) taken.push(...(await takenBy(camera, 5)));
    }
    camera.source.onConnected();
    taken.push(...(await takenBy(camera, Infinity)));
    const parts: Frame[][] = [];
    for (const [index, frame] of taken.entries()) {
      if (frame.sequence === (taken[index - 1]?.sequence ?? -1) + 1) parts.at(-1)!.push(frame);
      else parts.push([frame]);
    }
    // A decoder that begins with a part shows its pictures once they are right.
    let shown = 0;
    for (const part of parts) {
      const { decoded, warnings } = await decode("h264", bytesOf(part));
      expect(warnings).toBe("");
      shown += decoded;
    }
    const { maybeDamagedCount } = camera.source;
    expect(maybeDamagedCount).toBeGreaterThan(0);
    expect([spoolBytes, shown]).toEqual([spoolBytes, taken.length - maybeDamagedCount]);
  }
});

/** Encodes 200 pictures with a key frame every 20. */
async function realPictures(
  codec: VideoCodec,
  format: string,
  options: readonly string[],
): Promise<Uint8Array[]> {
  const clip = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=8", "-g", "20"];
  const stream = await ffmpeg(...clip, "-c:v", ...options, "-f", format, "-");
  const splitter = new AccessUnitSplitter(codec, 1 << 20);
  const pictures = [...splitter.push(stream), ...splitter.end()] as Uint8Array[];
  expect(pictures).toHaveLength(200);
  return pictures;
}

function bytesOf(frames: readonly Frame[]): Buffer {
  return Buffer.concat(
    frames.map((frame) => {
      const bytes = new Uint8Array(frame.size);
      frame.read(bytes);
      return bytes;
    }),
  );
}

/** Decodes a stream with ffmpeg. Returns the number of pictures, and what ffmpeg says about them. */
async function decode(
  format: string,
  stream: Buffer,
): Promise<{ decoded: number; warnings: string }> {
  const words = ["-v", "warning", "-f", format, "-i", "-", "-fps_mode", "passthrough"];
  const child = Bun.spawn(["ffmpeg", ...words, "-f", "framecrc", "-"], {
    stdin: stream,
    stderr: "pipe",
  });
  const [lines, warnings] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { decoded: lines.match(/^0,/gm)?.length ?? 0, warnings };
}

/** Takes everything, and reads each frame as a connection does. Returns what the server is told. */
async function takeAndRead(camera: Camera): Promise<string[]> {
  const told: string[] = [];
  for (let items; (items = await camera.take(1)).length > 0;) {
    for (const item of items) {
      const frame = camera.frames.find(({ sequence }) => `${sequence}` === item);
      try {
        frame?.read(new Uint8Array(frame.size));
        told.push(item);
      } catch (error) {
        const { first } = camera.source.retry(frame!, error as FramesError);
        told.push(`lost ${first}`);
      }
    }
  }
  return told;
}

/** Returns the number of pictures of which a spool knows whether they are key frames. */
function isKeyRows(folder: string): number {
  const database = new Database(join(folder, "spool.sqlite"), { readonly: true });
  const { count } = database
    .query<{ count: number }, []>("SELECT count(*) AS count FROM pictures")
    .get()!;
  database.close();
  return count;
}

/** Returns the frames that were taken since the last call, after at most `count` more. */
async function takenBy(camera: Camera, count: number): Promise<Frame[]> {
  await camera.take(count);
  return camera.frames.splice(0);
}

function range(text: string): number[] {
  const [first, last] = text.split("-").map(Number);
  return Array.from({ length: last! - first! + 1 }, (_, index) => first! + index);
}
