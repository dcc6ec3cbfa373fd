// The executable with common HTTP clients: OpenCV, ffmpeg, VLC, curl; and with many at once.

import { describe, expect, test } from "bun:test";
import { rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { serve } from "frames";
import { needsOpenCv, readHundredFrames } from "../helper/opencv.ts";
import {
  jsonLines,
  peerMissing,
  run,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { Camera, jpeg, parts } from "../helper/viewing.ts";

const needs = (command: string) => (peerMissing(command) ? `skipped: needs ${command}: ` : "");

/**
 * Runs a server with a page, and a camera with 60 frames of 640x480, about 30 KB each, per second.
 */
async function withCamera(
  use: (base: string, camera: Camera, server: Server, frame: Uint8Array) => Promise<void>,
): Promise<void> {
  const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
  const address = `127.0.0.1:${server.port}`;
  const camera = new Camera({ address, http: server.http }, "site", "gate");
  const image = await jpeg(128, 640, 480);
  const frame = new Uint8Array(30_000);
  frame.set(image);
  const timer = setInterval(() => camera.give(frame), 1000 / 60);
  try {
    await use(`http://${server.http}`, camera, server, frame);
  } finally {
    clearInterval(timer);
    await camera.end();
    await server.stop();
    rmSync(server.dir, { recursive: true });
  }
}

const path = "/streams/site/sources/gate/latest.mjpeg";

/** Runs a program and returns its output. */
async function peer(...command: string[]): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe", timeout: 40_000 });
  const [said, complained] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: ${said}${complained}`);
  return said;
}

test.skipIf(needsOpenCv !== "")(`${needsOpenCv}OpenCV reads a hundred frames of MJPEG`, () =>
  withCamera(async (base, camera) => {
    await until("a frame", () => camera.count > 2);
    const [shapes, errors] = await readHundredFrames(`${base}${path}`);
    expect([shapes, shapes === "" ? errors : ""]).toEqual(["{(480, 640, 3)}\n", ""]);
  }),
);

const ffmpeg = needs("ffmpeg");
test.skipIf(ffmpeg !== "")(`${ffmpeg}ffmpeg copies a hundred frames of MJPEG`, () =>
  withCamera(async (base, camera, _, frame) => {
    await until("a frame", () => camera.count > 2);
    const out = join(temporaryFolder(), "out.mjpeg");
    const words = ["-v", "error", "-i", `${base}${path}`, "-frames:v", "100", "-c", "copy"];
    await peer("ffmpeg", ...words, "-f", "mjpeg", out);
    expect(statSync(out).size).toBe(100 * frame.length);
  }),
);

const vlc = needs("cvlc");
test.skipIf(vlc !== "")(`${vlc}VLC plays MJPEG`, () =>
  withCamera(async (base, camera) => {
    await until("a frame", () => camera.count > 2);
    // Debian's VLC refuses to run as root.
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const words = ["-I", "dummy", "-vvv", "--no-audio", "--vout", "dummy", "--run-time", "3"];
    const child = Bun.spawn(
      [
        ...(process.getuid?.() === 0 ? nobody : []),
        "cvlc",
        ...words,
        `${base}${path}`,
        "vlc://quit",
      ],
      { env: { ...process.env, HOME: "/tmp" }, stdout: "ignore", stderr: "pipe", timeout: 30_000 },
    );
    let said = "";
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of child.stderr) said += decoder.decode(chunk);
    })();
    try {
      await until("a picture", () => /Received first picture/.test(said));
    } finally {
      child.kill("SIGKILL");
      await reading;
    }
  }),
);

const curl = needs("curl");
test.skipIf(curl !== "")(`${curl}curl downloads a frame as soon as it is receipted`, async () => {
  const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
  const address = `http://${server.http}/streams/run7/sources/x/latest`;
  const camera = new Camera(
    { address: `127.0.0.1:${server.port}`, http: server.http },
    "run7",
    "x",
  );
  for (let number = 1; number <= 5; number++) {
    const bytes = crypto.getRandomValues(new Uint8Array(20_000));
    await camera.store(bytes);
    const out = join(temporaryFolder(), "frame");
    const said = await peer("curl", "-s", "-w", "%{http_code} %{time_total}", "-o", out, address);
    expect(said).toMatch(/^200 /);
    expect(Buffer.from(await Bun.file(out).bytes()).equals(bytes)).toBe(true);
  }
  await camera.end();
  await server.stop();
});

test("the executable converts raw thermal frames to JPEG for an MJPEG client", async () => {
  const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
  const to = ["--to", `127.0.0.1:${server.port}`];
  const words = ["send", "-", "--stream", "s", "--source", "t", "--raw", "64x48:gray16le", ...to];
  const pixels = new Uint16Array(64 * 48).map((_, index) => 29_000 + (index % 64));
  const { code } = await run(words, { stdin: new Uint8Array(pixels.buffer) });
  expect(code).toBe(0);
  const answer = await fetch(`http://${server.http}/streams/s/sources/t/latest.mjpeg`);
  expect(answer.status).toBe(200);
  for await (const { body } of parts(answer)) {
    expect(await new Bun.Image(body).metadata()).toEqual({ width: 64, height: 48, format: "jpeg" });
    break;
  }
  const raw = await fetch(`http://${server.http}/streams/s/sources/t/latest`);
  expect(Buffer.from(await raw.bytes()).equals(Buffer.from(pixels.buffer))).toBe(true);
  await server.stop();
});

describe("Thirty HTTP clients", () => {
  test("thirty MJPEG clients, half of which read nothing, cost the sender no frame and the server little memory", () =>
    withCamera(async (base, camera, server) => {
      await until("a frame", () => camera.count > 2);
      const ending = new AbortController();
      const [host, port] = server.http!.split(":") as [string, string];
      const deaf = Array.from({ length: 15 }, (_, index) => {
        const socket = connect({ host, port: Number(port) });
        socket.on("error", () => {});
        socket.pause();
        const address = index % 5 === 0 ? "/events" : path;
        socket.write(`GET ${address} HTTP/1.1\r\nHost: ${server.http}\r\n\r\n`);
        return socket;
      });
      const seen = Array.from({ length: 15 }, () => 0);
      const reading = seen.map(async (_, index) => {
        const answer = await fetch(`${base}${path}`, { signal: ending.signal });
        for await (const { headers } of parts(answer)) {
          expect(Number(headers.get("X-Sequence"))).toBeGreaterThan(0);
          seen[index]!++;
        }
      });
      const settled = Promise.allSettled(reading);
      const from = camera.count;
      await until("five seconds of frames", () => camera.count >= from + 300);
      await camera.arrived();
      await until("21 frames at each client", () => seen.every((count) => count > 20));
      ending.abort();
      await settled;
      for (const socket of deaf) socket.destroy();
      const { sources } = (await (await fetch(`${base}/api/streams/site`)).json()) as any;
      expect(sources[0].lost).toBe(0);
      expect(sources[0].live.gaps).toBe(0);
      expect(server.peakMemory()).toBeLessThan(300e6);
    }));
});

describe("HTTP port", () => {
  test("frames serve exits with 10 if the --http port is in use, and omits the page if the default port is", async () => {
    const taken = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
    expect(taken.http).toMatch(/^127\.0\.0\.1:\d+$/);
    await until("the greeting", () => taken.stderr().includes(`See it at http://${taken.http}/\n`));
    const words = ["serve", temporaryFolder(), "--listen", "127.0.0.1:0"];
    const refused = await run([...words, "--http", taken.http!]);
    expect(refused.code).toBe(10);
    expect(refused.stderr).toMatch(
      /Cannot serve the page at .*in use; choose another port with --http/,
    );
    const events: unknown[] = [];
    const server = await serve(temporaryFolder(), {
      listen: "127.0.0.1:0",
      http: taken.http!,
      httpIfFree: true,
      onEvent: (event) => events.push(event.type),
    });
    expect(server.http).toBeUndefined();
    expect(events).toEqual(["no-page"]);
    await server.stop();
    await taken.stop();
    const none = await startServer({ dir: temporaryFolder() });
    expect(none.http).toBeUndefined();
    expect(jsonLines(none.stdout())[0]).not.toHaveProperty("http");
    await none.stop();
  });

  test("the executable serves the page and its files with ETags", async () => {
    const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
    const base = `http://${server.http}`;
    const page = await fetch(`${base}/`);
    expect(page.headers.get("Content-Type")).toMatch(/^text\/html/);
    expect(page.headers.get("Content-Security-Policy")).toMatch(
      /^default-src 'none'; script-src 'self'/,
    );
    const text = await page.text();
    const named = [...text.matchAll(/(?:src|href)="(\/[^"/]+\.\w+)"/g)].map(([, name]) => name!);
    for (const name of named) {
      const file = await fetch(`${base}${name}`);
      expect([name, file.status]).toEqual([name, 200]);
      const etag = file.headers.get("ETag")!;
      const again = await fetch(`${base}${name}`, { headers: { "If-None-Match": etag } });
      expect(again.status).toBe(304);
    }
    expect((await fetch(`${base}/`, { method: "POST" })).status).toBe(405);
    await server.stop();
  });
});
