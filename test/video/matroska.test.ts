import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { isKeyFrame } from "../../src/video/nal-units.ts";
import { matroskaHead, matroskaPictureHead } from "../../src/video/matroska.ts";
import { groupLength, makeClip, pictureHashes } from "../helper/encoded-video.ts";
import { needs, packetsOf } from "../helper/ffmpeg.ts";
import { temporaryFolder } from "../helper/program.ts";

test("the head of a picture says its time, its length and whether it is a key frame", () => {
  const cluster = `1f43b675 01 ${"24".padStart(14, "0")}`;
  const timestamp = `e7 01 ${"8".padStart(14, "0")} ${"102030405".padStart(16, "0")}`;
  const block = `a3 01 ${"a".padStart(14, "0")} 81 0000 80`;
  const expected = `${cluster} ${timestamp} ${block}`.replaceAll(" ", "");
  const head = matroskaPictureHead(0x0102030405, 6, true);
  expect(Buffer.from(head).toString("hex")).toBe(expected);
  expect(matroskaPictureHead(0, 6, false).at(-1)).toBe(0);
});

for (const codec of ["h264", "h265"] as const) {
  test.skipIf(needs !== "")(
    `${needs}ffmpeg reads the pictures of ${codec} and their times, also after hours`,
    async () => {
      const clip = await makeClip(codec, groupLength + 2);
      const hoursUs = 100 * 3600 * 1e6;
      const parts: Uint8Array[] = [matroskaHead(codec)];
      for (const [index, unit] of clip.units.entries()) {
        const ticks = index === 0 ? 0 : hoursUs + index * 33_333;
        parts.push(matroskaPictureHead(ticks, unit.length, isKeyFrame(unit, codec)), unit);
      }
      const file = join(temporaryFolder(), "clip.mkv");
      writeFileSync(file, Buffer.concat(parts));
      expect(await pictureHashes(file)).toEqual(await pictureHashes(clip.path));
      const packets = await packetsOf(file);
      expect(packets.map(({ size }) => size)).toEqual(clip.units.map(({ length }) => length));
      expect(packets[1]!.seconds).toBeCloseTo((hoursUs + 33_333) / 1e6, 5);
    },
  );
}
