// A camera with H.264 at /dev/video0. In name spaces of its own, a null device has its place, and
// programs in the places of ffmpeg and ffprobe log their arguments and read a file instead.

import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { md5, unitsOf } from "../../helper/encoded-video.ts";
import { inFolder, inTime, needs as needsFfmpeg } from "../../helper/ffmpeg.ts";

/** Puts the folder $0 in the place of /dev, and runs the other arguments. */
const withDevice = `
mount -t tmpfs dev "$0" || exit
for name in null zero random urandom; do
  touch "$0/$name" && mount --bind "/dev/$name" "$0/$name" || exit
done
touch "$0/video0" && mount --bind /dev/null "$0/video0" && mount --rbind "$0" /dev || exit
exec "$@"`;

const hasMounts =
  process.platform === "linux" &&
  Bun.which("unshare") !== null &&
  Bun.spawnSync(["unshare", "-Urm", "sh", "-c", withDevice, "/mnt", "true"]).exitCode === 0;
const needs = needsFfmpeg || (hasMounts ? "" : "skipped: this user may not mount a device: ");

function fakeProgram(program: string, file: string, log: string): string {
  return `#!/bin/bash
echo "${program} $*" >> ${log}
words=()
while [ $# -gt 0 ]; do
  case "$1 $2" in
    "-f v4l2"|"-video_size "*|"-input_format "*|"-framerate "*) shift ;;
    "-i /dev/video"*) words+=(-f h264 -i ${file}); shift ;;
    *) words+=("$1") ;;
  esac
  shift
done
exec ${Bun.which(program)} "\${words[@]}"
`;
}

test.skipIf(needs !== "")(
  `${needs}a device is opened in the mode of --camera, and its access units arrive as they are`,
  () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "main", 60);
      const [file, log, devices] = ["device.h264", "log", "dev"].map((name) => join(folder, name));
      await Bun.write(file!, Buffer.concat(units));
      mkdirSync(devices!);
      for (const program of ["ffmpeg", "ffprobe"]) {
        await Bun.write(join(folder, program), fakeProgram(program, file!, log!));
        chmodSync(join(folder, program), 0o755);
      }
      const media = JSON.stringify(resolve(import.meta.dir, "../../../src/source/media/media.ts"));
      const program = `
        import { openMedia } from ${media};
        const options = { maxFrameBytes: 1e7, camera: "176x144:h264@30" };
        const { isLive, type, description, frames } = await openMedia("/dev/video0", options);
        const hashes = [];
        for await (const { bytes } of frames) {
          hashes.push(new Bun.CryptoHasher("md5").update(bytes).digest("hex"));
          if (hashes.length === 50) break;
        }
        console.log(JSON.stringify({ isLive, type, description, hashes }));
        process.exit(0);`;
      const command = ["unshare", "-Urm", "sh", "-c", withDevice, devices!, process.execPath];
      const child = Bun.spawn([...command, "-e", program], {
        env: { ...process.env, PATH: `${folder}:${process.env["PATH"]}` },
        stderr: "inherit",
      });
      const text = await inTime(new Response(child.stdout).text(), "reading the device");
      expect(await child.exited).toBe(0);
      expect(JSON.parse(text)).toEqual({
        ...{ isLive: true, type: "video/h264" },
        description: expect.stringMatching(/^176x144 h264 at 30 fps, copied as it is/),
        hashes: units.slice(0, 50).map(md5),
      });
      const device = "-f v4l2 -video_size 176x144 -input_format h264 -framerate 30 -i /dev/video0";
      const opened = readFileSync(log!, "utf8")
        .split("\n")
        .filter((line) => line.includes(device));
      expect(opened.map((line) => line.split(" ")[0])).toEqual(["ffprobe", "ffmpeg"]);
      expect(opened[1]).toContain("-c:v copy -copyinkf -bsf:v h264_mp4toannexb,");
    }),
);
