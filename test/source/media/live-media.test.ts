// Endless streams, as from cameras, sent by real servers to the real ffmpeg.

import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../src/errors.ts";
import { type Media, type MediaOptions, openMedia } from "../../../src/source/media/media.ts";
import type { CapturedFrame } from "../../../src/source/live/iterable-source.ts";
import type { OnSourceEvent } from "../../../src/source/source-event.ts";
import { isKeyFrame } from "../../../src/video/nal-units.ts";
import { pictureHashes } from "../../helper/encoded-video.ts";
import { startRtspCamera } from "../../helper/rtsp-camera.ts";
import { until } from "../../helper/time.ts";
import { framesIn } from "../image/images.ts";
import {
  children,
  ffmpeg,
  framesOf,
  inFolder,
  inTime,
  needs,
  packetsOf,
} from "../../helper/ffmpeg.ts";

const largest = 64 << 20;
const test_ = test.skipIf(needs !== "");
const noisy = ["-f", "lavfi", "-i", "testsrc2=size=174x130:rate=25,noise=alls=40:allf=t"];

/** Images of the camera, made once. */
let made: Promise<Buffer[]> | undefined;
const pictures = (): Promise<Buffer[]> =>
  (made ??= ffmpeg(...noisy, "-frames:v", "20", "-c:v", "mjpeg", "-f", "mjpeg", "-").then((bytes) =>
    framesIn(bytes).map((frame) => Buffer.from(frame.bytes)),
  ));

const servers: Bun.Server<undefined>[] = [];
afterAll(() => Promise.all(servers.map((server) => server.stop(true))));

/** How a camera serves a connection: images from the first on, and then this event. */
interface Serving {
  readonly count: number;
  readonly then: "more" | "silence" | "end" | "half";
  /** Whether each image has a Content-Length. */
  readonly lengths?: boolean;
  /** Whether the images follow each other without boundaries, in no multipart stream. */
  readonly bare?: boolean;
}

/**
 * Starts a camera that speaks HTTP. Each connection is served in the next way, and all further ones
 * in the last way.
 */
async function camera(...ways: Serving[]) {
  const jpegs = await pictures();
  const closed = Promise.withResolvers<void>();
  let connections = 0;
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch({ signal }) {
      const {
        count,
        then,
        lengths = true,
        bare = false,
      } = ways[Math.min(connections++, ways.length - 1)]!;
      const gone = new Promise<void>((resolve) =>
        signal.addEventListener("abort", () => resolve()),
      );
      async function* body(): AsyncGenerator<Uint8Array> {
        for (let index = 0; then === "more" || index < count; index++) {
          const jpeg = jpegs[index % jpegs.length]!;
          yield bare ? jpeg : part(jpeg, lengths);
          // Paced like a camera, and lets other tasks run.
          await Bun.sleep(5);
        }
        if (then === "half") yield part(jpegs[count]!, lengths).subarray(0, 2000);
        if (then === "silence") await gone;
      }
      void gone.then(() => closed.resolve());
      const type = bare ? "video/x-motion-jpeg" : "multipart/x-mixed-replace; boundary=picture";
      return new Response(body() as unknown as ReadableStream, {
        headers: { "content-type": type },
      });
    },
  });
  servers.push(server);
  return { url: `http://127.0.0.1:${server.port}/video`, jpegs, closed: closed.promise };
}

function part(jpeg: Uint8Array, lengths: boolean): Uint8Array {
  const length = lengths ? `Content-Length: ${jpeg.length}\r\n` : "";
  return Buffer.concat([
    Buffer.from(`--picture\r\nContent-Type: image/jpeg\r\n${length}\r\n`),
    jpeg,
    Buffer.from("\r\n"),
  ]);
}

/** Returns a listener that passes on the errors after which a source is tried again. */
function onRetry(listen: (error: FramesError) => void): { onEvent: OnSourceEvent } {
  return { onEvent: (event) => void (event.type === "retry" && listen(event.error)) };
}

function open(url: string, options: Partial<MediaOptions> = {}): Promise<Media> {
  return inTime(openMedia(url, { maxFrameBytes: largest, ...options }), `opening ${url}`);
}

/** Returns the ffmpeg and ffprobe processes still running. */
async function running(): Promise<{ pid: number; name: string }[]> {
  return (await children()).filter(({ name }) => name === "ffmpeg" || name === "ffprobe");
}

describe("MJPEG over HTTP", () => {
  test_(`${needs}an endless MJPEG stream arrives unchanged, with times of arrival`, async () => {
    const { url, jpegs, closed } = await camera({ count: 0, then: "more" });
    const before = BigInt(Date.now()) * 1_000_000n;
    const media = await open(url);
    expect(media.isLive).toBe(true);
    expect(media.type).toBe("image/jpeg");
    expect(media.description).toMatch(
      /^174x130 mjpeg, copied as it is, about [\d.]+ [kM]B a frame$/,
    );
    const { frames, error } = await framesOf(media, 70);
    expect(error).toBeUndefined();
    expect(frames.every(({ bytes }, at) => jpegs[at % jpegs.length]!.equals(bytes))).toBe(true);
    expect(frames.every(({ extension }) => extension === "jpg")).toBe(true);
    const times = frames.map(({ captured }) => captured!);
    expect(times.every((time, at) => time >= (times[at - 1] ?? before))).toBe(true);
    expect(times.at(-1)).toBeLessThanOrEqual(BigInt(Date.now()) * 1_000_000n);
    await inTime(closed, "the end of the connection");
    expect(await running()).toEqual([]);
  });

  for (const lengths of [true, false]) {
    const how = lengths ? "with" : "without";
    test_(
      `${needs}an MJPEG stream ${how} lengths is restarted after its end, and gives no incomplete frame`,
      async () => {
        const { url, jpegs } = await camera(
          { count: 4, then: "more", lengths },
          { count: 6, then: "half", lengths },
          { count: 3, then: "end", lengths },
          { count: 5, then: "end", lengths },
          { count: 0, then: "more", lengths },
        );
        const troubles: FramesError[] = [];
        const media = await open(
          url,
          onRetry((error) => troubles.push(error)),
        );
        // Connections in order: probe, 6 and a half, probe, 5, probe, endless.
        const { frames, error } = await framesOf(media, 15);
        expect(error).toBeUndefined();
        const order = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1, 2, 3];
        expect(frames.map(({ bytes }) => jpegs.findIndex((jpeg) => jpeg.equals(bytes)))).toEqual(
          order,
        );
        expect(troubles.map(({ code }) => code)).toEqual(["unreadable", "unreadable"]);
        for (const { message } of troubles) {
          expect(message).toMatch(/^Cannot read http:[^\n]*; starting it again in 1 s$/);
        }
        expect(await running()).toEqual([]);
      },
    );
  }

  test_(`${needs}an MJPEG stream that stalls is restarted`, async () => {
    const { url, jpegs } = await camera(
      { count: 4, then: "end" },
      { count: 3, then: "silence" },
      { count: 0, then: "more" },
    );
    const troubles: string[] = [];
    const onTrouble = ({ message }: FramesError) => troubles.push(message);
    const media = await open(url, { stallTimeoutMs: 3000, ...onRetry(onTrouble) });
    const { frames, error } = await framesOf(media, 10);
    expect(error).toBeUndefined();
    expect(frames.slice(0, 3).every(({ bytes }, at) => jpegs[at]!.equals(bytes))).toBe(true);
    expect(frames.length).toBe(10);
    expect(troubles[0]).toBe(
      `Cannot read ${url}: no data arrived for 3 s; starting it again in 1 s`,
    );
    expect(await running()).toEqual([]);
  });

  test.skipIf(needs !== "" || process.platform !== "linux")(
    `${needs || (process.platform === "linux" ? "" : "skipped: needs Linux: ")}a stream that ffmpeg reads is restarted when ffmpeg is killed`,
    async () => {
      const { url, jpegs } = await camera({ count: 0, then: "more", bare: true });
      const troubles: string[] = [];
      const media = await open(
        url,
        onRetry(({ message }) => troubles.push(message)),
      );
      const frames = media.frames[Symbol.asyncIterator]();
      // Frames that ffmpeg has written before are still read.
      for (let count = 0; troubles.length === 0; count++) {
        const { value } = await inTime(frames.next(), "a frame");
        expect(value).not.toHaveProperty("error");
        const { bytes } = value as CapturedFrame;
        expect(jpegs.some((jpeg) => jpeg.equals(bytes))).toBe(true);
        if (count === 5) for (const { pid } of await running()) process.kill(pid, "SIGKILL");
      }
      await inTime(frames.return!(), "giving it up");
      expect(troubles).toEqual([
        `Cannot read ${url}: ffmpeg was stopped by SIGKILL; starting it again in 1 s`,
      ]);
      expect(await running()).toEqual([]);
    },
  );

  test_(`${needs}an MJPEG stream can be closed while a frame is awaited`, async () => {
    const { url } = await camera({ count: 2, then: "end" }, { count: 1, then: "silence" });
    const media = await open(url);
    const frames = media.frames[Symbol.asyncIterator]();
    expect((await inTime(frames.next(), "a frame")).done).toBe(false);
    const waiting = frames.next();
    expect((await inTime(frames.return!(), "giving it up")).done).toBe(true);
    expect((await inTime(waiting, "the frame that was waited for")).done).toBe(true);
    expect(await running()).toEqual([]);
  });

  test_(`${needs}an MJPEG stream can be closed during the pause before a restart`, async () => {
    const { url } = await camera({ count: 2, then: "end" });
    const paused = Promise.withResolvers<void>();
    const media = await open(
      url,
      onRetry(() => paused.resolve()),
    );
    const frames = media.frames[Symbol.asyncIterator]();
    for (let count = 0; count < 2; count++) await inTime(frames.next(), "a frame");
    const waiting = frames.next();
    await inTime(paused.promise, "the end of the stream");
    await inTime(frames.return!(), "giving it up");
    expect((await inTime(waiting, "the frame that was waited for")).done).toBe(true);
    expect(await running()).toEqual([]);
  });

  test_(`${needs}opening a server that sends no data fails with a timeout`, async () => {
    const { url } = await camera({ count: 0, then: "silence" });
    const error = await open(url, { stallTimeoutMs: 500 }).catch((thrown: unknown) => thrown);
    expect((error as FramesError).code).toBe("timeout");
    expect((error as FramesError).message).toContain("ffprobe did not recognize it within 5.5 s");
    expect(await running()).toEqual([]);
  });
});

describe("media URLs", () => {
  test_(`${needs}a URL cannot make ffmpeg read a local file`, () =>
    inFolder(async (folder) => {
      const secret = join(folder, "secret.ts");
      await ffmpeg(...noisy, "-frames:v", "25", "-c:v", "libx264", secret);
      const list = `#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\nfile://${secret}\n#EXT-X-ENDLIST\n`;
      const lists: Record<string, string> = {
        "/list.m3u8": list,
        "/list.txt": `ffconcat version 1.0\nfile 'file:${secret}'\n`,
      };
      const server = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        fetch: ({ url }) => new Response(lists[new URL(url).pathname]!),
      });
      servers.push(server);
      for (const path of Object.keys(lists)) {
        const opening = open(`http://user:hidden@127.0.0.1:${server.port}${path}`);
        const error = await opening.catch((thrown: unknown) => thrown);
        expect((error as FramesError).code).toBe("unreadable");
        // The password is not in the message.
        expect((error as FramesError).message).not.toContain("hidden");
      }
    }),
  );

  test_(`${needs}a URL of a finite video is read like a file`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      await ffmpeg(...noisy, "-frames:v", "30", "-c:v", "libx264", "-movflags", "faststart", file);
      const server = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        fetch: () => new Response(Bun.file(file)),
      });
      servers.push(server);
      const media = await open(`http://127.0.0.1:${server.port}/clip.mp4`);
      expect(media.isLive).toBe(false);
      const { frames, error } = await framesOf(media);
      expect([frames.length, error]).toEqual([30, undefined]);
    }),
  );
});

test_(`${needs}a video file that is closed midway leaves no ffmpeg process running`, () =>
  inFolder(async (folder) => {
    const file = join(folder, "long.mkv");
    await ffmpeg(...noisy, "-frames:v", "500", "-c:v", "mjpeg", "-q:v", "2", file);
    expect((await packetsOf(file)).length).toBe(500);
    const media = await open(file);
    expect((await framesOf(media, 2)).frames.length).toBe(2);
    expect(await running()).toEqual([]);
    // The input can be read again from its start.
    expect((await framesOf(media)).frames.length).toBe(500);
  }),
);

test_(`${needs}the password of an RTSP camera is used, but is in no argument and no message`, () =>
  inFolder(async (folder) => {
    const file = join(folder, "stream.ts");
    await ffmpeg(...noisy, "-frames:v", "100", "-c:v", "libx264", "-g", "25", "-bf", "0", file);
    const camera = startRtspCamera(await Bun.file(file).bytes(), "admin:Pa@ss'w0rd");
    try {
      const messages: string[] = [];
      const media = await open(`rtsp://admin:Pa@ss'w0rd@127.0.0.1:${camera.port}/1`, {
        ...onRetry(({ message }) => messages.push(message)),
      });
      expect(media.isLive).toBe(true);
      expect(media.description).toMatch(/^174x130 h264 at 25 fps, copied as it is/);
      expect(media.description).not.toContain("ps shows");
      const frames = media.frames[Symbol.asyncIterator]();
      for (let count = 0; count < 30; count++) {
        expect(await inTime(frames.next(), "a frame")).toMatchObject({ done: false });
      }
      const programs = await running();
      if (process.platform === "linux") expect(programs.length).toBe(1);
      for (const { pid } of programs) {
        expect(readFileSync(`/proc/${pid}/cmdline`, "latin1")).not.toContain("w0rd");
        expect(readFileSync(`/proc/${pid}/environ`, "latin1")).not.toContain("w0rd");
      }
      camera.stop();
      // The camera is gone, which is said without its URL.
      const rest = (async () => {
        while ((await frames.next()).done !== true);
      })();
      await until("the end of the camera", () => messages.length > 0);
      await inTime(frames.return!(), "giving it up");
      await inTime(rest, "the end of the frames");
      expect(messages.join()).not.toContain("w0rd");
      expect(new Set(camera.credentials)).toEqual(new Set(["admin:Pa@ss'w0rd"]));
    } finally {
      camera.stop();
    }
    expect(await running()).toEqual([]);
  }),
);

test_(
  `${needs}a wrong password is not in the message, and a URL from a file is not at all`,
  async () => {
    const camera = startRtspCamera(new Uint8Array(188), "admin:right");
    try {
      const url = `rtsp://admin:wr@ngw0rd@127.0.0.1:${camera.port}/secretPath`;
      for (const shownAs of [undefined, "@gate.url"]) {
        const options = shownAs === undefined ? {} : { shownAs };
        const error = await open(url, options).catch((thrown: unknown) => thrown);
        const { code, message } = error as FramesError;
        expect([code, message]).toEqual(["unreadable", expect.stringContaining("401")]);
        expect(message).not.toContain("w0rd");
        expect(message).toContain(shownAs ?? `rtsp://…@127.0.0.1:${camera.port}/secretPath`);
        if (shownAs !== undefined) expect(message).not.toContain("secretPath");
      }
    } finally {
      camera.stop();
    }
  },
);

test_(`${needs}frames says that ps shows the URL of a video by HTTP with a password`, () =>
  inFolder(async (folder) => {
    const file = join(folder, "clip.mp4");
    await ffmpeg(...noisy, "-frames:v", "5", "-c:v", "libx264", "-movflags", "faststart", file);
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response(Bun.file(file)),
    });
    servers.push(server);
    const { description } = await open(`http://127.0.0.1:${server.port}/clip.mp4?token=w0rd`);
    expect(description).toEndWith("; ps shows its URL while ffmpeg runs, also to other users");
  }),
);

const vlc = needs || (Bun.which("cvlc") === null ? "skipped: needs cvlc: " : "");

test.skipIf(vlc !== "")(
  `${vlc}RTSP from a real server arrives as it is, with the server's times`,
  () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      // Debian's VLC refuses to run as root, so another user must be able to read the file.
      chmodSync(folder, 0o755);
      await ffmpeg(...noisy, "-frames:v", "500", "-c:v", "libx264", "-g", "25", "-bf", "0", file);
      const free = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        fetch: () => new Response(),
      });
      const url = `rtsp://127.0.0.1:${free.port}/video`;
      await free.stop(true);
      const words = ["-I", "dummy", "--loop", "--sout", `#rtp{sdp=${url}}`, "--sout-keep", file];
      const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
      const server = Bun.spawn([...(process.getuid?.() === 0 ? nobody : []), "cvlc", ...words], {
        env: { ...process.env, HOME: folder },
        ...{ stdout: "ignore", stderr: "ignore" },
      });
      try {
        let media: Media | undefined;
        await until("the RTSP server", async () => {
          media = await open(url).catch(() => undefined);
          return media !== undefined;
        });
        if (media === undefined) throw new Error("no media");
        expect(media.isLive).toBe(true);
        expect(media.description).toMatch(/^174x130 h264 at 25 fps, copied as it is/);
        const { frames, error } = await framesOf(media, 75);
        expect(error).toBeUndefined();
        const bytes = frames.map((frame) => frame.bytes);
        expect(isKeyFrame(bytes[0]!, "h264")).toBe(true);
        const copy = join(folder, "copy.h264");
        await Bun.write(copy, Buffer.concat(bytes));
        const [shown, source] = [await pictureHashes(copy), await pictureHashes(file)];
        const first = source.indexOf(shown[0]!);
        expect(shown).toEqual([...source, ...source].slice(first, first + 75));
        const times = frames.map(({ captured }) => captured!);
        expect(times.every((time, at) => time >= (times[at - 1] ?? 0n))).toBe(true);
        expect(times.at(-1)).toBeLessThanOrEqual(BigInt(Date.now()) * 1_000_000n);
      } finally {
        server.kill("SIGKILL");
        await server.exited;
      }
      expect(await running()).toEqual([]);
    }),
);
