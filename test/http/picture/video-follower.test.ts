// Which pictures of a video a viewer gets, fast or slow. On a fake clock, with a journal in memory.

import { expect, test } from "bun:test";
import { crc32 } from "../../../src/common/checksum.ts";
import { LiveSources } from "../../../src/http/live/live-sources.ts";
import { VideoFollower, type VideoStore } from "../../../src/http/picture/video-follower.ts";
import { isKeyFrame } from "../../../src/video/nal-units.ts";
import {
  type FrameRecord,
  maxGroupFrames,
  type VideoPicture,
} from "../../../src/store/journal/journal-reader.ts";

/** Access units of H.264: an IDR picture every ten, and others. */
const bytesOf = (sequence: number) =>
  new Uint8Array([0, 0, 1, sequence % 10 === 1 ? 0x65 : 0x41, 0x88, sequence]);

/** The same without IDR pictures, and with recovery points instead. */
const recoveringBytesOf = (sequence: number) =>
  Buffer.concat([
    Buffer.from(sequence % 10 === 1 ? "0000010606012480" : "", "hex"),
    Buffer.from([0, 0, 1, 0x41, 0x88, sequence]),
  ]);

/** A source whose pictures a test stores and removes. */
class Source implements Disposable {
  now = 1_000_000;
  readonly rows: FrameRecord[] = [];
  readonly skipped: number[] = [];
  /** Pictures that were read. */
  reads = 0;
  readonly live = new LiveSources(() => this.now);
  readonly #follower: VideoFollower;
  readonly #bytesOf: (sequence: number) => Uint8Array<ArrayBuffer>;

  constructor(toBytes: (sequence: number) => Uint8Array<ArrayBuffer> = bytesOf) {
    this.#bytesOf = toBytes;
    const ofSession = ({ session }: VideoPicture) =>
      this.rows.filter((row) => row.session === session);
    const reader = {
      newest: () => this.rows.at(-1),
      keyFrameBefore: (picture: VideoPicture) =>
        ofSession(picture).findLast((row) => row.isKey && row.sequence <= picture.sequence),
      picturesAfter: (picture: VideoPicture, count: number) =>
        ofSession(picture).filter(({ sequence }) => {
          return sequence > picture.sequence && sequence <= picture.sequence + count;
        }),
    };
    const blob = ({ name }: { name: string }) => {
      this.reads++;
      return new Blob([toBytes(parseInt(name))]);
    };
    const contents = { blob };
    const store = { reader, contents, liveSources: this.live } as unknown as VideoStore;
    this.#follower = new VideoFollower(store, this.live.getOrCreate("s", "cam"), "h264");
  }

  /** Stores pictures `from` to `to`. */
  add(from: number, to: number, session = "a"): void {
    const recorder = this.live.recorder({ stream: "s", source: "cam", session });
    for (let sequence = from; sequence <= to; sequence++) {
      const bytes = this.#bytesOf(sequence);
      const frame = { sequence, name: `${sequence}.h264`, captured: 0n, size: bytes.length };
      const isKey = isKeyFrame(bytes, "h264");
      const crc = crc32(bytes);
      const facts = { stream: "s", source: "cam", session, crc32: crc, received: 0n, isKey };
      this.rows.push({ ...frame, ...facts } as FrameRecord);
      recorder.recordStored({ ...frame, metadata: "", isKey }, crc);
    }
  }

  /** Takes at most `count` pictures, and returns their numbers. */
  async take(count = Infinity): Promise<number[]> {
    const numbers: number[] = [];
    while (numbers.length < count) {
      const picture = await this.#follower.next();
      if (picture === undefined) break;
      numbers.push(picture.record.sequence);
      this.skipped.push(picture.skipped);
    }
    return numbers;
  }

  restart(): void {
    this.#follower.restart();
  }

  [Symbol.dispose](): void {
    this.live.close();
  }
}

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

test("a viewer begins at the key frame before the newest picture, and gets all after it", async () => {
  using source = new Source();
  expect(await source.take()).toEqual([]);
  source.add(5, 9);
  expect(await source.take()).toEqual([]);
  source.add(10, 24);
  expect(await source.take()).toEqual(range(21, 24));
  source.add(25, 200);
  expect(await source.take()).toEqual(range(25, 200));
  expect(source.skipped.every((skipped) => skipped === 0)).toBe(true);
});

test("a viewer that is not late gets each picture, also after newer key frames", async () => {
  using source = new Source();
  source.add(1, 3);
  expect(await source.take()).toEqual([1, 2, 3]);
  // Waiting for pictures is not being late.
  source.now += 3_600_000;
  source.add(4, 45);
  expect(await source.take(1)).toEqual([4]);
  source.now += 1000;
  expect(await source.take()).toEqual(range(5, 45));
});

test("a viewer that has not caught up for a second goes on at the newest key frame", async () => {
  using source = new Source();
  source.add(1, 3);
  await source.take();
  source.add(4, 45);
  expect(await source.take(1)).toEqual([4]);
  source.now += 1001;
  expect(await source.take()).toEqual(range(41, 45));
  expect(source.skipped.slice(-5)).toEqual([36, 0, 0, 0, 0]);
});

test("a late viewer goes on where it is if there is no newer key frame", async () => {
  using source = new Source();
  source.add(1, 2);
  expect(await source.take(1)).toEqual([1]);
  source.add(3, 9);
  source.now += 60_000;
  expect(await source.take()).toEqual(range(2, 9));
});

test("after a picture that is not stored, a viewer goes on at the next key frame", async () => {
  using source = new Source();
  source.add(1, 4);
  source.add(6, 9);
  expect(await source.take()).toEqual([1, 2, 3, 4]);
  source.add(10, 12);
  expect(await source.take()).toEqual([11, 12]);
  // More numbers are missing than are looked up at a time.
  source.add(213, 220);
  expect(await source.take()).toEqual([]);
  source.add(221, 222);
  expect(await source.take()).toEqual([221, 222]);
});

test("a viewer follows a new session from its first key frame on", async () => {
  using source = new Source();
  source.add(1, 14);
  expect(await source.take()).toEqual(range(11, 14));
  source.add(8, 9, "b");
  expect(await source.take()).toEqual([]);
  source.add(10, 12, "b");
  expect(await source.take()).toEqual([11, 12]);
});

test("a viewer that lost a picture is given none before the next key frame", async () => {
  using source = new Source();
  source.add(1, 4);
  expect(await source.take()).toEqual([1, 2, 3, 4]);
  source.restart();
  source.add(5, 12);
  expect(await source.take()).toEqual([11, 12]);
});

test("a viewer of a stream without key frames begins at a recovery point, and goes on at one when it is late", async () => {
  using source = new Source(recoveringBytesOf);
  source.add(5, 9);
  expect(await source.take()).toEqual([]);
  source.add(10, 24);
  source.now += 1000;
  expect(await source.take()).toEqual(range(21, 24));
  source.add(25, 45);
  expect(await source.take(1)).toEqual([25]);
  source.now += 1001;
  expect(await source.take()).toEqual(range(41, 45));
});

test("a recovery point is looked for once a second, because that reads many pictures", async () => {
  using source = new Source((sequence) => new Uint8Array([0, 0, 1, 0x41, 0x88, sequence]));
  source.add(1, 1000);
  for (const reads of [300, 600]) {
    for (let count = 0; count < 10; count++) expect(await source.take()).toEqual([]);
    expect(source.reads).toBe(reads);
    source.now += 1000;
  }
});

test("a viewer of a stream whose key frame is far away begins at a recovery point", async () => {
  using source = new Source((sequence) => {
    return sequence === 1 ? bytesOf(sequence) : recoveringBytesOf(sequence);
  });
  source.add(1, 2 * maxGroupFrames);
  const newest = 2 * maxGroupFrames;
  expect(await source.take()).toEqual(range(newest - 9, newest));
});

test("a late viewer of a stream whose key frame is near goes on at a recovery point that is newer", async () => {
  using source = new Source((sequence) => {
    return sequence === 1 ? bytesOf(sequence) : recoveringBytesOf(sequence);
  });
  source.add(1, 5);
  expect(await source.take()).toEqual(range(1, 5));
  source.add(6, 45);
  expect(await source.take(1)).toEqual([6]);
  source.now += 1001;
  expect(await source.take()).toEqual(range(41, 45));
});
