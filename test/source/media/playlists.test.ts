// Files that would make ffmpeg open other files, under names of videos, read with the real ffmpeg.

import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { FramesError } from "../../../src/errors.ts";
import { openMedia } from "../../../src/source/media/media.ts";
import { ffmpeg, framesOf, inFolder, inTime, needs } from "../../helper/ffmpeg.ts";

const test_ = test.skipIf(needs !== "");
const video = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=5", "-frames:v", "5"];

/** Texts that name another video, as formats that ffmpeg recognizes. */
const lists: Record<string, (path: string) => string> = {
  "an HLS playlist": (path) =>
    `#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nfile://${path}\n#EXT-X-ENDLIST\n`,
  "a relative HLS playlist": (path) =>
    `#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n../private/${basename(path)}\n#EXT-X-ENDLIST\n`,
  "a concat script": (path) => `ffconcat version 1.0\nfile 'file:${path}'\n`,
  "a relative concat script": (path) => `ffconcat version 1.0\nfile ${basename(path)}\n`,
  "a DASH manifest": (path) =>
    `<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet><Representation id="1" mimeType="video/mp4" codecs="avc1" bandwidth="1"><BaseURL>file://${path}</BaseURL></Representation></AdaptationSet></Period></MPD>`,
  "an SDP": () =>
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 33\r\n",
  "an IMF list": () =>
    `<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"></CompositionPlaylist>`,
  "an SVG": (path) =>
    `<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"><image href="file://${path}"/></svg>`,
  subtitles: () => "1\n00:00:00,000 --> 00:00:01,000\nhello\n\n",
};

for (const [what, listOf] of Object.entries(lists)) {
  test_(`${needs}${what} named like a video opens no other file`, () =>
    inFolder(async (folder) => {
      for (const name of ["inbox", "private"]) mkdirSync(join(folder, name));
      const other = join(folder, "private", "home.ts");
      await ffmpeg(...video, "-c:v", "mpeg2video", "-f", "mpegts", other);
      symlinkSync(other, join(folder, "inbox", "home.ts"));
      for (const name of ["clip.mp4", "clip.m3u8", "clip", "clip.mkv", "-clip:1%03d.ts"]) {
        const path = join(folder, "inbox", name);
        writeFileSync(path, listOf(other));
        const opening = openMedia(path, { maxFrameBytes: 1 << 20 });
        const error = await inTime(opening, `opening ${name}`).catch((thrown: unknown) => thrown);
        expect([name, error]).toEqual([name, expect.any(FramesError)]);
        expect((error as FramesError).code).toBe("unreadable");
        // ffmpeg's own message lists all formats.
        expect((error as FramesError).message).not.toContain("whitelist");
      }
    }),
  );
}

test_(`${needs}a file whose name is a pattern or looks like an option or a URL is read alone`, () =>
  inFolder(async (folder) => {
    for (const number of [0, 1, 2]) {
      await ffmpeg(...video.slice(0, 4), "-frames:v", "1", join(folder, `shot${number}.dpx`));
    }
    // Numbered images would be read for this name, which is no file.
    const opening = openMedia(join(folder, "shot%d.dpx"), { maxFrameBytes: 1 << 20 });
    expect(await opening.catch((thrown: unknown) => thrown)).toMatchObject({ code: "missing" });
    for (const name of [
      "shot%d.dpx",
      "-i.ts",
      "http:x.ts",
      "concat:a|b.ts",
      "pipe:0.ts",
      "a'b.ts",
    ]) {
      const path = join(folder, name);
      if (name.endsWith(".ts"))
        await ffmpeg(...video, "-c:v", "mpeg2video", "-f", "mpegts", `file:${path}`);
      else await Bun.write(path, Bun.file(join(folder, "shot1.dpx")));
      const { frames, error } = await framesOf(await openMedia(path, { maxFrameBytes: 1 << 20 }));
      expect([name, frames.length, error]).toEqual([name, name.endsWith(".ts") ? 5 : 1, undefined]);
    }
  }),
);
