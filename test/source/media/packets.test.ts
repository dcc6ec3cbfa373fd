// Parsing of the alternating output of two ffmpeg muxers, and times of live sources, without
// ffmpeg.
//
// Covers: source/media/source-clock.ts

import { describe, expect, test } from "bun:test";
import { type Packet, PacketParser } from "../../../src/source/media/packets.ts";
import { SourceClock } from "../../../src/source/media/source-clock.ts";
import { pieces } from "../image/images.ts";

const header = [
  "#software: Lavf59.27.100",
  "#tb 0: 1001/30000",
  "#media_type 0: video",
  "#codec_id 0: mjpeg",
  "",
].join("\n");

/** Output of ffmpeg 5.1, including a packet with side data after the checksum. */
const written = Buffer.concat([
  Buffer.from(`${header}0,          0,          0,        1,    5, 0xdfe02ac8, S=1,        8\n`),
  Buffer.from("a\n#b\n"),
  Buffer.from("0,         -2,          3,        1,    0, 0x00000001\n"),
  Buffer.from("0, -9223372036854775808, -9223372036854775808,        0,    3, 0x00000001\nxyz"),
  Buffer.from("0,      NOPTS,      NOPTS,        0,    1, 0x00000001\n\n"),
]);

const packets: Packet[] = [
  { bytes: new Uint8Array(Buffer.from("a\n#b\n")), time: 0n, duration: 33_366_666n },
  { bytes: new Uint8Array(Buffer.from("xyz")), time: undefined, duration: 0n },
  { bytes: new Uint8Array(Buffer.from("\n")), time: undefined, duration: 0n },
];

describe("PacketParser", () => {
  test("the packet parser gives the same packets for any size of reads", () => {
    for (let size = 1; size <= written.length; size++) {
      const parser = new PacketParser(5);
      const found = [...pieces(written, size)].flatMap((piece) => [...parser.push(piece)]);
      expect(found).toEqual(packets);
    }
  });

  test("the packet parser reports a packet over the size limit before its bytes arrive, and goes on", () => {
    for (let size = 1; size <= written.length; size++) {
      const parser = new PacketParser(4);
      const found = [...pieces(written, size)].flatMap((piece) => [...parser.push(piece)]);
      expect(found[0]).toMatchObject({
        error: {
          code: "too-large",
          message: "Cannot read a frame: it is 5 bytes long, the limit is 4",
        },
        time: 0n,
      });
      expect(found.slice(1)).toEqual(packets.slice(1));
    }
    const parser = new PacketParser(4);
    expect([...parser.push(written.subarray(0, header.length + 70))]).toHaveLength(1);
  });

  test("the packet parser refuses malformed lines and endless lines", () => {
    for (const bad of ["\n", "0, 1, 2\n", "0, 1, 2, 3, -4, 0x0\n", "#".repeat(5000)]) {
      expect(() => [...new PacketParser(9).push(Buffer.from(bad))]).toThrow(
        "its format is unknown",
      );
    }
  });
});

describe("SourceClock", () => {
  const millisecond = 1_000_000n;
  const dates = (...came: [number, number][]): number[] => {
    const clock = new SourceClock();
    return came.map(([time, arrived]) =>
      Number(
        clock.toCaptureTime(BigInt(time) * millisecond, BigInt(arrived) * millisecond) /
          millisecond,
      ),
    );
  };

  test("the source clock keeps the spacing of the source despite jitter of the link", () => {
    expect(dates([500, 1000], [540, 1090], [580, 1090], [620, 1120])).toEqual([
      ...[1000, 1040, 1080, 1120],
    ]);
  });

  test("the source clock dates no frame later than its arrival", () => {
    expect(dates([0, 1000], [40, 1001], [80, 1002], [120, 1100])).toEqual([
      ...[1000, 1001, 1002, 1042],
    ]);
  });

  test("the source clock follows a source whose clock runs slow or fast", () => {
    const [slow, fast] = [0.9995, 1.0005].map((rate) => {
      const came = Array.from({ length: 1000 }, (_, index): [number, number] => [
        Math.round(index * 1000 * rate),
        index * 1000,
      ]);
      return came.at(-1)![1] - dates(...came).at(-1)!;
    });
    expect(slow).toBeLessThan(5);
    expect(fast).toBeLessThan(5);
  });

  test("the source clock follows a source whose time restarts or jumps ahead", () => {
    expect(dates([9000, 1000], [0, 2000], [40, 2045])).toEqual([1000, 2000, 2040]);
    expect(dates([0, 1000], [3_600_000, 1040], [3_600_040, 1085])).toEqual([1000, 1040, 1080]);
  });

  test("pictures in decoding order keep the time at which they were captured", () => {
    // Of four pictures the last comes first, because the others need it.
    const order = [0n, 3n, 1n, 2n, 6n, 4n, 5n];
    const step = 33_000_000n;
    const clock = new SourceClock(true);
    const times = order.map((number, at) =>
      clock.toCaptureTime(number * step, 10n ** 18n + BigInt(at + 3) * step),
    );
    const steps = times.map((time) => Math.round(Number(time - times[1]!) / 33e6));
    // The first one counts as captured when it arrived, since nothing came sooner.
    expect(steps).toEqual([-1, 0, -2, -1, 3, 1, 2]);
  });
});
