// Which command-line paths are passed to ffmpeg, and with which arguments.

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../src/errors.ts";
import { inputArguments, parseCameraMode, parseInput } from "../../../src/source/media/input.ts";
import { isMedia, openMedia } from "../../../src/source/media/media.ts";
import { inFolder } from "../../helper/ffmpeg.ts";

describe("command-line inputs", () => {
  test("a PATH is media if it is a URL, a device, a file, or has the extension of a video", () =>
    inFolder(async (folder) => {
      const file = join(folder, "anything");
      writeFileSync(file, "");
      for (const url of ["rtsp", "rtsps", "http", "HTTPS", "udp", "rtp", "rtmp", "srt", "tcp"]) {
        expect([url, isMedia(`${url}://camera/1`)]).toEqual([url, true]);
      }
      for (const path of [file, "/dev/video0", "nowhere.mkv"]) {
        expect([path, isMedia(path)]).toEqual([path, true]);
      }
      for (const path of [folder, "nowhere", "nowhere.png", "/dev/null", "-", "concat:a|b"]) {
        expect([path, isMedia(path)]).toEqual([path, false]);
      }
      for (const path of ["file:///etc/passwd", "pipe:0", "lavfi://x"]) {
        expect([path, isMedia(path)]).toEqual([path, false]);
      }
    }));

  test("a camera mode is a size, a format and a rate, and is refused for other inputs", async () => {
    expect(parseCameraMode("640x512:gray16le@30")).toEqual({
      ...{ size: "640x512", format: "gray16le", rate: "30" },
    });
    expect(parseCameraMode("1280x720")).toEqual({ size: "1280x720" });
    expect(parseCameraMode("MJPEG")).toEqual({ format: "mjpeg" });
    expect(parseCameraMode("@29.97")).toEqual({ rate: "29.97" });
    expect(parseCameraMode("1280x720@30000/1001")).toEqual({
      size: "1280x720",
      rate: "30000/1001",
    });
    for (const text of ["", "640", "640x", "0x512", "-f lavfi", "640x512:gray16le@", "@-1", ":"]) {
      expect(() => parseCameraMode(text)).toThrow("Cannot read --camera");
    }
    const { args: words } = inputArguments(
      { kind: "device", path: "/dev/video0" },
      parseCameraMode("64x48:y16@9"),
    );
    expect(words.join(" ")).toBe(
      "-f v4l2 -video_size 64x48 -input_format y16 -framerate 9 -i /dev/video0",
    );
    const opening = openMedia("http://127.0.0.1:9/", { maxFrameBytes: 9, camera: "64x48" });
    const error = await opening.catch((thrown: unknown) => thrown);
    expect((error as FramesError).code).toBe("usage");
  });

  test("a URL with a secret is in no argument, unless it is read by HTTP", () => {
    for (const url of [
      "rtsp://admin:Pa@ss'w0rd@camera/1",
      "srt://camera:9000?passphrase=w0rdw0rd",
      "rtmp://camera/live?auth=w0rd",
    ]) {
      const { args, script } = inputArguments(parseInput(url)!, {}, true);
      expect(args.join(" ")).not.toContain("w0rd");
      expect(script).toContain(`file '${url.replace("'", String.raw`'\''`)}'\n`);
    }
    const { args, script } = inputArguments(parseInput("http://camera/?token=w0rd")!, {}, true);
    expect([args.at(-1), script]).toEqual(["http://camera/?token=w0rd", undefined]);
  });

  test("a URL with a space is refused without showing it, because a password may follow", () => {
    for (const url of ["rtsp://admin:a b@camera/1", "rtsp://camera/1\nfile 'x'", "http://a\t@b/"]) {
      expect(() => parseInput(url)).toThrow(
        /^Cannot read the URL of a camera: it contains a space/,
      );
    }
  });
});
