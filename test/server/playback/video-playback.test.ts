// Playback of encoded video: a client gets what a decoder can use, and is told of all else.
//
// Covers: server/playback/picture-queue.ts, server/playback/decodable-playback.ts

import { afterEach, describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import { DecodablePlayback } from "../../../src/server/playback/decodable-playback.ts";
import { JournalPlayback } from "../../../src/server/playback/journal-playback.ts";
import { JournalTail } from "../../../src/server/playback/journal-tail.ts";
import { LatestPlayback } from "../../../src/server/playback/latest-playback.ts";
import { LiveWindow } from "../../../src/protocol/live-window.ts";
import { PrefetchPlayback } from "../../../src/server/playback/prefetch-playback.ts";
import type { PlaybackRequest } from "../../../src/server/playback/playback-request.ts";
import type { Playback, PlaybackFrame } from "../../../src/protocol/playback/playback.ts";
import { DirectoryStore } from "../../../src/store/directory/directory-store.ts";
import type { FrameLocation } from "../../../src/store/store-contents.ts";
import { CommitSignal } from "../../../src/store/journal/commit-signal.ts";
import { maxGroupFrames } from "../../../src/store/journal/journal-reader.ts";
import { isDecodable } from "../../helper/encoded-video.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { Random } from "../../wire/fuzz.ts";

const session = "1".repeat(32);
const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

/** Access units of H.265 by letter: a key frame, another picture, a leading one, a recovery point. */
const units: Readonly<Record<string, string>> = {
  K: "000000012a01ff",
  d: "000000010201ff",
  l: "000000011201ff",
  r: "000000014e0106012580" + "000000010201ff",
};

/** A store whose sources of encoded video grow while it is read. */
class Recorder {
  readonly #store = new DirectoryStore(temporaryFolder(), {
    portableNames: false,
    reserve: 0,
    clock: Date.now,
  });
  readonly #arrivals = new CommitSignal();
  readonly #last = new Map<string, number>();
  readonly #tail: JournalTail;

  /** @param isRemote whether its frames have to be fetched, as those of a bucket */
  constructor(isRemote = false) {
    const { contents } = this.#store;
    const fetch = async (frame: FrameLocation) => new Response(contents.blob(frame)!);
    const remote = { ...contents, location: contents.location, journalPath: contents.journalPath };
    this.#tail = new JournalTail(
      isRemote ? { ...remote, fetch } : contents,
      this.#arrivals,
      undefined,
    );
    closing.push(
      () => this.#tail.close(),
      () => this.#store.close(),
    );
  }

  /** Stores pictures by letters, with the numbers that follow. A dot is a number that never comes. */
  async put(source: string, letters: string, of = session, first?: number): Promise<void> {
    const into = this.#store.open({ stream: "s", source, session: of });
    if (first !== undefined) this.#last.set(source + of, first - 1);
    const outcomes: unknown[] = [];
    for (const letter of letters) {
      const sequence = (this.#last.get(source + of) ?? 0) + 1;
      this.#last.set(source + of, sequence);
      if (letter === ".") continue;
      outcomes.push(this.#write(into, letter, sequence, of));
    }
    await this.#store.flush();
    this.#arrivals.notify();
    await Promise.all(outcomes);
  }

  #write(
    into: ReturnType<DirectoryStore["open"]>,
    letter: string,
    sequence: number,
    of: string,
  ): unknown {
    const isPicture = letter !== "p";
    const bytes = Uint8Array.fromHex(units[letter] ?? "00");
    const writer = into.begin({
      name: `${of[0]}-${sequence}.${isPicture ? "h265" : "png"}`,
      sequence,
      captured: BigInt(sequence),
      size: bytes.length,
      metadata: "",
      isKey: isPicture ? letter === "K" : undefined,
    });
    writer.write(bytes);
    return writer.finish(crc32(bytes));
  }

  latest(fields: Partial<PlaybackRequest> = {}): DecodablePlayback {
    const request = { stream: "s", follow: true, ...fields };
    const latest = new LatestPlayback(this.#tail, request);
    const { fetch } = this.#tail;
    const isLocal = fetch === undefined;
    return new DecodablePlayback(isLocal ? latest : new PrefetchPlayback(latest, fetch, () => {}));
  }

  complete(fields: Partial<PlaybackRequest> = {}): JournalPlayback {
    return new JournalPlayback(this.#tail, { stream: "s", follow: false, ...fields });
  }
}

/** Takes at most `count` items that are available now: `cam 3`, or `dropped cam 4-6`. */
function take(playback: Playback, count = Infinity): string[] {
  const taken: string[] = [];
  for (let idle = 0; taken.length < count && idle < 10;) {
    const item = playback.next();
    if (item === undefined) {
      if (!playback.isBusy) break;
      idle++;
    } else if (item.type === "frame") taken.push(`${item.source.name} ${item.frame.sequence}`);
    else if (item.type === "lost") {
      taken.push(`${item.error.code} ${item.source.name} ${item.first}-${item.last}`);
    }
  }
  return taken;
}

/** Takes items, until there are as many as are expected. */
async function fetched(playback: Playback, count: number): Promise<string[]> {
  const taken: string[] = [];
  await until(`${count} items`, () => {
    taken.push(...take(playback, count - taken.length));
    return taken.length === count;
  });
  return taken;
}

function numbered(source: string, first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, index) => `${source} ${first + index}`);
}

describe("LatestPlayback of encoded video", () => {
  test("a latest playback begins with the key frame before the newest picture, and goes on in order", async () => {
    const recorder = new Recorder();
    await recorder.put("cam", "KddKdd");
    const playback = recorder.latest();
    expect(take(playback)).toEqual(numbered("cam", 4, 6));
    await recorder.put("cam", "dK");
    await recorder.put("cam", "d");
    // The picture before the newer key frame came in the same commit.
    expect(take(playback)).toEqual(["dropped cam 7-7", "cam 8", "cam 9"]);
    await recorder.put("cam", "d");
    expect(take(playback)).toEqual(["cam 10"]);
  });

  test("a latest playback without follow ends with the newest picture", async () => {
    const recorder = new Recorder();
    await recorder.put("a", "KdKd");
    await recorder.put("b", "Kdd");
    const playback = recorder.latest({ follow: false });
    expect(take(playback)).toEqual([...numbered("a", 3, 4), ...numbered("b", 1, 3)]);
    expect(playback.isEnded).toBe(true);
  });

  test("a latest playback begins with the group of a picture that arrives before the stored ones are read", async () => {
    const recorder = new Recorder();
    await recorder.put("cam", "Kd");
    const playback = recorder.latest();
    await recorder.put("cam", "d");
    expect(take(playback)).toEqual(numbered("cam", 1, 3));
  });

  test("a slow client goes on at the newest key frame, and is told each dropped picture", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "Kdddd");
    expect(take(playback, 2)).toEqual(["cam 1", "cam 2"]);
    await recorder.put("cam", "ddKdd");
    await recorder.put("cam", "dKdd");
    expect(take(playback)).toEqual(["dropped cam 3-11", "cam 12", "cam 13", "cam 14"]);
  });

  test("a latest playback leaves out leading pictures after a hole, and not without one", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "Kd");
    expect(take(playback)).toEqual(["cam 1", "cam 2"]);
    await recorder.put("cam", "K");
    await recorder.put("cam", "ld");
    expect(take(playback)).toEqual(["cam 3", "cam 4", "cam 5"]);
    await recorder.put("cam", "ddK");
    await recorder.put("cam", "lld");
    const leading = ["dropped cam 9-9", "dropped cam 10-10"];
    expect(take(playback)).toEqual(["dropped cam 6-7", "cam 8", ...leading, "cam 11"]);
  });

  test("a latest playback from a bucket leaves out leading pictures after a hole, and not without one", async () => {
    const recorder = new Recorder(true);
    const playback = recorder.latest();
    await recorder.put("cam", "Kd");
    expect(await fetched(playback, 2)).toEqual(["cam 1", "cam 2"]);
    await recorder.put("cam", "Kld");
    expect(await fetched(playback, 3)).toEqual(["cam 3", "cam 4", "cam 5"]);
    await recorder.put("cam", "ddKlld");
    const leading = ["dropped cam 9-9", "dropped cam 10-10"];
    expect(await fetched(playback, 5)).toEqual(["dropped cam 6-7", "cam 8", ...leading, "cam 11"]);
  });

  test("a latest playback of a source that has recovery points only begins with the newest one", async () => {
    const recorder = new Recorder();
    await recorder.put("cam", "drddrdd");
    const playback = recorder.latest();
    expect(take(playback)).toEqual(numbered("cam", 5, 7));
    await recorder.put("cam", "d");
    expect(take(playback)).toEqual(["cam 8"]);
  });

  test("a slow client of a stream without key frames goes on at a recovery point when many pictures wait", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "Kd");
    expect(take(playback)).toEqual(numbered("cam", 1, 2));
    await recorder.put("cam", "drd".repeat(10));
    expect(take(playback, 1)).toEqual(["cam 3"]);
    await recorder.put("cam", `${"d".repeat(31)}rd`);
    expect(take(playback)).toEqual(["dropped cam 4-63", "cam 64", "cam 65"]);
  });

  for (const isRemote of [false, true]) {
    const what = isRemote ? "a bucket" : "a directory";
    test(`a latest playback from ${what} goes on at a recovery point where the key frame is too far`, async () => {
      const recorder = new Recorder(isRemote);
      await recorder.put("cam", `K${"d".repeat(maxGroupFrames)}`);
      const playback = recorder.latest();
      const last = maxGroupFrames + 1;
      expect(await fetched(playback, 1)).toEqual([`dropped cam ${last}-${last}`]);
      await recorder.put("cam", "drd");
      const sent = [`dropped cam ${last + 1}-${last + 1}`, ...numbered("cam", last + 2, last + 3)];
      expect(await fetched(playback, 3)).toEqual(sent);
    });
  }

  test("after a frame that cannot be read, the ones that need it are dropped", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "Kdd");
    const key = playback.next() as PlaybackFrame;
    const error = new FramesError("vanished");
    expect(playback.onReadError(key, error)).toMatchObject({ type: "gone", sequence: 1 });
    expect(take(playback)).toEqual(["dropped cam 2-2", "dropped cam 3-3"]);
    await recorder.put("cam", "Kd");
    expect(take(playback)).toEqual(["cam 4", "cam 5"]);
  });

  test("a latest playback goes on with a new session at its key frame, and drops a picture that comes late", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "Kdd");
    expect(take(playback, 1)).toEqual(["cam 1"]);
    await recorder.put("cam", "Kd", "2".repeat(32));
    expect(take(playback)).toEqual(["dropped cam 2-3", "cam 1", "cam 2"]);
    await recorder.put("cam", "K.dd", "2".repeat(32));
    await recorder.put("cam", "d", "2".repeat(32), 4);
    expect(take(playback)).toEqual(["dropped cam 4-4", "cam 3", "cam 5", "cam 6"]);
  });

  test("sources of encoded video and others have their turns", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("a", "Kdd");
    await recorder.put("b", "Kd");
    await recorder.put("c", "pp");
    expect(take(playback)).toEqual(["dropped c 1-1", "a 1", "b 1", "c 2", "a 2", "b 2", "a 3"]);
  });

  test("queued pictures are dropped when their source sends other frames", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "Kdd");
    await recorder.put("cam", "p");
    expect(take(playback)).toEqual(["dropped cam 1-3", "cam 4"]);
    await recorder.put("cam", "pKd");
    expect(take(playback)).toEqual(["dropped cam 5-5", "cam 6", "cam 7"]);
  });

  test("a latest playback queues a bounded number of pictures, and goes on at the next key frame", async () => {
    const recorder = new Recorder();
    const playback = recorder.latest();
    await recorder.put("cam", "K");
    expect(take(playback)).toEqual(["cam 1"]);
    await recorder.put("cam", "d".repeat(maxGroupFrames + 10));
    const taken = take(playback);
    const last = 1 + maxGroupFrames;
    expect(taken.slice(0, 2)).toEqual([`dropped cam ${last + 1}-${last + 10}`, "cam 2"]);
    expect(taken.at(-1)).toBe(`cam ${last}`);
    await recorder.put("cam", "d");
    expect(take(playback)).toEqual([`dropped cam ${last + 11}-${last + 11}`]);
    await recorder.put("cam", "Kd");
    expect(take(playback)).toEqual(numbered("cam", last + 12, last + 13));
  });

  test("pictures of a source without key frames are sent as they are", async () => {
    const recorder = new Recorder();
    await recorder.put("cam", "dd");
    const playback = recorder.latest();
    expect(take(playback)).toEqual(["cam 2"]);
    await recorder.put("cam", "dd");
    expect(take(playback)).toEqual(["cam 3", "cam 4"]);
  });

  for (const [what, keyBytes, otherBytes] of [
    ["key frames of seven times the size", 35_000, 5000],
    ["pictures of one size", 6000, 6000],
  ] as const) {
    test(`over a link of a third of the rate, a client is never more than one group behind: ${what}`, async () => {
      const [groupLength, intervalMs] = [30, 33];
      const rate = (keyBytes + (groupLength - 1) * otherBytes) / (groupLength * intervalMs) / 3;
      const recorder = new Recorder();
      const playback = recorder.latest();
      const window = new LiveWindow();
      /** Numbers of frames on the link, and when each arrives. */
      const inFlight: { number: number; at: number }[] = [];
      const arrived: number[] = [];
      let [stored, busyUntil, most] = [0, 0, 0];
      for (let now = 0; now < 20_000; now++) {
        if (now % intervalMs === 0) {
          await recorder.put("cam", stored % groupLength === 0 ? "K" : "d");
          stored++;
        }
        while (inFlight[0] !== undefined && inFlight[0].at <= now) {
          const { number } = inFlight.shift()!;
          window.ack(now);
          arrived.push(number);
          const groupOf = (picture: number) => Math.floor((picture - 1) / groupLength);
          most = Math.max(most, groupOf(stored) - groupOf(number));
        }
        while (window.canBegin(now)) {
          const item = playback.next();
          if (item === undefined) break;
          if (item.type !== "frame") continue;
          const size = item.frame.isKey === true ? keyBytes : otherBytes;
          busyUntil = Math.max(busyUntil, now) + size / rate;
          inFlight.push({ number: item.frame.sequence, at: busyUntil });
          window.begin();
        }
      }
      expect(most).toBe(1);
      expect(arrived.length).toBeGreaterThan(stored / 6);
      for (const [index, number] of arrived.entries()) {
        const isNext = number === (arrived[index - 1] ?? 0) + 1;
        expect([number, isNext || number % groupLength === 1]).toEqual([number, true]);
      }
    });
  }

  for (const isRemote of [false, true]) {
    const where = isRemote ? "from a bucket" : "from a directory";
    test(`in any order of events each picture ${where} is sent or told once, and what is sent can be decoded`, async () => {
      for (let seed = 0; seed < 15; seed++) {
        const random = new Random(seed);
        const recorder = new Recorder(isRemote);
        const playback = recorder.latest();
        const sent = new Set<number>();
        const told = new Set<number>();
        const record = (items: readonly string[]) => {
          for (const item of items) {
            const [, first, last = first] = /(\d+)(?:-(\d+))?$/.exec(item)!;
            const numbers = numbered("", Number(first), Number(last)).map(Number);
            for (const number of numbers) (item.startsWith("cam") ? sent : told).add(number);
          }
        };
        let letters = "K";
        await recorder.put("cam", letters);
        for (let step = 0; step < 40; step++) {
          let more = "";
          for (let count = random.below(4); count > 0; count--) {
            const mayLead = /[Kl]$/.test(letters + more) && random.below(3) > 0;
            more += random.below(6) === 0 ? "K" : mayLead ? "l" : "d";
          }
          letters += more;
          await recorder.put("cam", more);
          record(take(playback, random.below(4)));
        }
        await until("all pictures", () => {
          record(take(playback));
          return sent.size + told.size >= letters.length;
        });
        expect(sent.isDisjointFrom(told)).toBe(true);
        for (const number of sent) {
          const isRight = isDecodable(number, letters, sent);
          expect([seed, letters, number, isRight]).toEqual([seed, letters, number, true]);
        }
      }
    });
  }
});

describe("JournalPlayback of encoded video since a time", () => {
  test("a playback begins each source of encoded video at the key frame before the time", async () => {
    const recorder = new Recorder();
    await recorder.put("a", "KddKddd");
    await recorder.put("b", "dddKd");
    await recorder.put("c", "ppppp");
    const taken = take(recorder.complete({ since: 3n }));
    expect(taken).toEqual([
      ...numbered("a", 1, 7),
      // No key frame precedes this picture.
      ...numbered("b", 3, 5),
      ...numbered("c", 3, 5),
    ]);
    expect(take(recorder.complete({ since: 4n, sources: ["a"] }))).toEqual(numbered("a", 4, 7));
    expect(take(recorder.complete({ since: 6n, sources: ["a"] }))).toEqual(numbered("a", 4, 7));
    expect(take(recorder.complete({ sources: ["a"] }))).toEqual(numbered("a", 1, 7));
  });

  test("a playback does not repeat what came before its cursor, and the pictures before the time have none", async () => {
    const recorder = new Recorder();
    await recorder.put("a", "KddKddd");
    const playback = recorder.complete({ since: 6n });
    const cursors: (string | undefined)[] = [];
    for (let item; (item = playback.next()) !== undefined;) cursors.push(item.cursor);
    expect(cursors.map((cursor) => cursor !== undefined)).toEqual([false, false, true, true]);
    const resumed = recorder.complete({ since: 6n, cursor: cursors[2]! });
    expect(take(resumed)).toEqual(["a 7"]);
  });

  test("a playback begins at the time itself if the key frame is too many pictures away", async () => {
    const recorder = new Recorder();
    await recorder.put("a", `K${"d".repeat(maxGroupFrames + 1)}`);
    const last = maxGroupFrames + 2;
    expect(take(recorder.complete({ since: BigInt(last) }))).toEqual([`a ${last}`]);
  });
});
