// A camera that sends MJPEG over HTTP, without ffmpeg.

import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import type { FramesError } from "../../../src/errors.ts";
import { probeHttpCamera, readHttpCamera } from "../../../src/source/media/http-camera.ts";
import { inTime } from "../../helper/ffmpeg.ts";
import { encodePng } from "../../helper/png.ts";

const pixels = new Uint8Array(8 * 6 * 3).fill(90);
const jpeg = await new Bun.Image(encodePng({ width: 8, height: 6, colour: "rgb8", pixels }))
  .jpeg()
  .bytes();
const part = Buffer.concat([Buffer.from("Content-Type: image/jpeg\r\n\r\n"), jpeg]);
const limits = { maxFrameBytes: 1 << 20, stallTimeoutMs: 60_000 };

const servers: Bun.Server<undefined>[] = [];
afterAll(() => Promise.all(servers.map((server) => server.stop(true))));

/** Starts a server and returns its URL, with the credentials of a user. */
function serve(fetch: (request: Request) => Response): string {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch });
  servers.push(server);
  return `http://us%20er:p%3Ass@127.0.0.1:${server.port}/video?channel=1`;
}

function multipart(...parts: Uint8Array[]): Response {
  const headers = { "content-type": "Multipart/X-Mixed-Replace;boundary=--frame" };
  return new Response(Buffer.concat(parts), { headers });
}

async function framesOf(url: string): Promise<{ frames: Uint8Array[]; failure?: string }> {
  const frames: Uint8Array[] = [];
  const packets = readHttpCamera(url, { ...limits, signal: new AbortController().signal });
  for (;;) {
    const { done, value } = await inTime(packets.next(), "a frame");
    if (done) return { frames, ...(value.failure === undefined ? {} : { failure: value.failure }) };
    if ("bytes" in value) frames.push(value.bytes);
  }
}

describe("a camera that sends MJPEG over HTTP", () => {
  test("the size of its pictures is known from its first JPEG", async () => {
    const url = serve(() => multipart(part, part));
    expect(await probeHttpCamera(url, "camera", 60_000, limits)).toMatchObject({
      codec: "mjpeg",
      width: 8,
      height: 6,
      frameBytes: jpeg.length,
    });
    expect(await framesOf(url)).toEqual({ frames: [jpeg, jpeg] });
  });

  for (const [algorithm, hashName] of [
    ["MD5", "md5"],
    ["SHA-256", "sha256"],
  ] as const) {
    test(`it is read with the credentials of its URL by digest ${algorithm}`, async () => {
      const hash = (text: string) => createHash(hashName).update(text).digest("hex");
      const url = serve((request) => {
        const answer = request.headers.get("authorization") ?? "";
        const [, clientNonce] = /cnonce="(\w+)"/.exec(answer) ?? [];
        const middle = `a,b:00000001:${clientNonce}:auth`;
        const secret = hash("us er:door:p:ss");
        const expected = hash(`${secret}:${middle}:${hash("GET:/video?channel=1")}`);
        if (answer.includes(`response="${expected}"`)) return multipart(part);
        const challenge = `Digest realm="door", nonce="a,b", qop="auth", algorithm=${algorithm}`;
        return new Response(null, { status: 401, headers: { "www-authenticate": challenge } });
      });
      expect(await framesOf(url)).toEqual({ frames: [jpeg] });
    });
  }

  test("a URL that is no multipart stream, or that refuses, is left to ffmpeg", async () => {
    const basic = { "www-authenticate": 'Basic realm="door"' };
    const others = [
      () => new Response(jpeg as BodyInit, { headers: { "content-type": "image/jpeg" } }),
      () => new Response("busy", { status: 503, headers: { "content-type": "multipart/mixed" } }),
      () => new Response(null, { status: 401, headers: basic }),
      () => Response.redirect("file:///etc/passwd"),
    ];
    for (const answer of others) {
      expect(await probeHttpCamera(serve(answer), "camera", 60_000, limits)).toBeUndefined();
    }
  });

  test("a stream that ends before a picture came is an error without credentials", async () => {
    for (const body of ["--frame\r\n", "--frame\r\n\r\n\xff\xd8\xff\xd9"]) {
      const url = serve(() => multipart(Buffer.from(body, "latin1")));
      const opening = probeHttpCamera(url, "camera", 60_000, limits);
      const error = (await opening.catch((thrown: unknown) => thrown)) as FramesError;
      expect(error.code).toBe("unreadable");
      expect(error.message).toBe("Cannot read camera: it ended before a frame arrived");
    }
  });
});
