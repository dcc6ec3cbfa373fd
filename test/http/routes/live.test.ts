// Live output: MJPEG, events and the page's WebSocket. A slow client must not affect others.
//
// Covers: http/live/instrumented-store.ts, http/live/live-sources.ts, http/live/status.ts,
//   http/picture/bitmap.ts, http/picture/converter-worker.ts, http/picture/jpeg-cache.ts,
//   http/picture/newest-frames.ts, http/picture/to-jpeg.ts, http/routes/events.ts, http/routes/live-socket.ts, http/routes/mjpeg.ts

import { describe, expect, spyOn, test } from "bun:test";
import { rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { send } from "frames";
import { groupLength, makeClip } from "../../helper/encoded-video.ts";
import { needs } from "../../helper/ffmpeg.ts";
import { encodePng } from "../../helper/png.ts";
import { until } from "../../helper/time.ts";
import { Camera, jpeg, parts, startViewed, type Viewed } from "../../helper/viewing.ts";

/** Sends a request and never reads the response. */
async function deaf(viewed: Viewed, path: string): Promise<Socket> {
  const [host, port] = viewed.server.http!.split(":");
  const socket = connect({ host, port: Number(port) });
  socket.on("error", () => {});
  socket.pause();
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${viewed.server.http}\r\n\r\n`);
  return socket;
}

async function metric(viewed: Viewed, series: string): Promise<number | undefined> {
  const text = await (await viewed.get("/metrics")).text();
  const line = text.split("\n").find((one) => one.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

async function viewers(viewed: Viewed, kind: string, count: number): Promise<void> {
  const series = `frames_viewers{kind="${kind}"}`;
  await until(`${count} of ${kind}`, async () => (await metric(viewed, series)) === count);
}

describe("MJPEG", () => {
  test("MJPEG sends the JPEG of each frame unchanged, with number and time", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    const frames = await Promise.all([10, 90, 200].map((shade) => jpeg(shade)));
    await camera.store(frames[0]!, "1.jpg", 1_500_000_000n);
    const answer = await viewed.get("/streams/site/sources/gate/latest.mjpeg");
    expect(answer.headers.get("Content-Type")).toBe("multipart/x-mixed-replace; boundary=frame");
    let index = 0;
    for await (const { headers, body } of parts(answer)) {
      expect(headers.get("Content-Type")).toBe("image/jpeg");
      expect(headers.get("X-Sequence")).toBe(String(index + 1));
      if (index === 0) expect(headers.get("X-Timestamp")).toBe("1.500000000");
      expect(Buffer.from(body).equals(frames[index]!)).toBe(true);
      if (++index === frames.length) break;
      camera.give(frames[index]!);
    }
    expect(index).toBe(3);
    await viewers(viewed, "mjpeg", 0);
    await camera.end();
  });

  test("MJPEG stretches 16-bit grey images, and converts other formats to JPEG", async () => {
    await using viewed = await startViewed();
    const [width, height] = [64, 48];
    const values = Buffer.alloc(width * height * 2);
    // A narrow range of values far from zero, as in a thermal image.
    for (let at = 0; at < width * height; at++) values.writeUInt16BE(29_000 + (at % width), at * 2);
    const png = encodePng({ width, height, colour: "grey16", pixels: values });
    const pgm = Buffer.concat([Buffer.from(`P5 ${width} ${height} 65535\n`), values]);
    const colours = Buffer.alloc(width * height * 3, 50);
    const ppm = Buffer.concat([Buffer.from(`P6\n# made\n${width} ${height}\n255\n`), colours]);
    const sources = {
      png,
      pgm,
      ppm,
      rgb: encodePng({ width, height, colour: "rgb8", pixels: colours }),
    };
    for (const [source, bytes] of Object.entries(sources)) {
      const camera = new Camera(viewed.server, "site", source);
      await camera.store(bytes, `1.${source}`);
      const answer = await viewed.get(`/streams/site/sources/${source}/latest.mjpeg`);
      expect([source, answer.status]).toEqual([source, 200]);
      for await (const { body } of parts(answer)) {
        const image = new Bun.Image(body);
        expect(await image.metadata()).toEqual({ width, height, format: "jpeg" });
        if (source === "png" || source === "pgm") {
          // The contrast is stretched from black to white. Without that, a browser would show one
          // nearly black grey.
          const shown = await new Bun.Image(await image.png().bytes()).resize(8, 1).png().bytes();
          expect(shown.length).toBeGreaterThan(80);
        }
        break;
      }
      await camera.end();
    }
  });

  test("MJPEG of a frame that is no image is answered with 415 and an explanation", async () => {
    await using viewed = await startViewed();
    const to = { to: viewed.server.address, stream: "site", source: "table" };
    await send([{ bytes: Buffer.from("a,b\n1,2"), name: "1.csv" }], to);
    const answer = await viewed.get("/streams/site/sources/table/latest.mjpeg");
    expect(answer.status).toBe(415);
    const { error, message } = (await answer.json()) as { error: string; message: string };
    expect(error).toBe("unreadable");
    expect(message).toMatch(/"1\.csv".*as JPEG/);
  });

  for (const [name, size] of [
    ["1.jpg", 0],
    ["1.bin", 0],
    ["1.png", 1],
  ] as const) {
    test(`MJPEG of ${name} with ${size} bytes is answered with 415 and what is wrong with it`, async () => {
      await using viewed = await startViewed();
      const to = { to: viewed.server.address, stream: "site", source: "cam" };
      await send([{ bytes: new Uint8Array(size), name }], to);
      const answer = await viewed.get("/streams/site/sources/cam/latest.mjpeg");
      expect(answer.status).toBe(415);
      const { message } = (await answer.json()) as { message: string };
      expect(message).not.toContain("detached");
      if (size === 0) expect(message).toContain("the frame is empty");
    });
  }

  test("MJPEG of a source that is not live shows the last stored frame, then new ones", async () => {
    let directory: string;
    const first = await jpeg(10);
    {
      await using viewed = await startViewed();
      directory = viewed.server.directory;
      const camera = new Camera(viewed.server, "site", "gate");
      await camera.store(first);
      await camera.end();
    }
    const { serve } = await import("frames");
    const options = { listen: "127.0.0.1:0", http: "127.0.0.1:0", reserve: 0 };
    const server = await serve(directory, options);
    const answer = await fetch(`http://${server.http}/streams/site/sources/gate/latest.mjpeg`);
    const second = await jpeg(99);
    let camera: Camera | undefined;
    for await (const { body } of parts(answer)) {
      if (camera !== undefined) {
        expect(Buffer.from(body).equals(second)).toBe(true);
        break;
      }
      expect(Buffer.from(body).equals(first)).toBe(true);
      camera = new Camera(server, "site", "gate");
      camera.give(second, "second.jpg");
    }
    await camera!.end();
    await server.stop();
  });
});

describe("events", () => {
  async function* events(answer: Response) {
    let held = "";
    const decoder = new TextDecoder();
    for await (const chunk of answer.body!) {
      held += decoder.decode(chunk, { stream: true });
      for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
        const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(held.slice(0, end))!;
        yield { name: name!, data: JSON.parse(data!) };
      }
    }
  }

  test("the event stream reports sources, senders, problems and the end of the server", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    await camera.store(await jpeg());
    const answer = await viewed.get("/events");
    expect(answer.headers.get("Content-Type")).toMatch(/^text\/event-stream/);
    const names: string[] = [];
    let other: Promise<unknown> | undefined;
    for await (const { name, data } of events(answer)) {
      names.push(name);
      if (name === "state" && names.length === 1) {
        const [source] = data.sources;
        expect(source).toMatchObject({ stream: "site", source: "gate", number: 1, gaps: 0 });
        expect(data.senders[0]).toMatchObject({ stream: "site", sources: ["gate"], frames: 1 });
        expect(data.store.place).toBe(viewed.server.directory);
        const to = { to: viewed.server.address, stream: "other", source: "x" };
        other = send([{ bytes: Buffer.from("x"), name: ".hidden" }], to).catch(() => {});
      } else if (name === "problem") {
        expect(data).toMatchObject({ code: "bad-name", stream: "other", source: "x" });
        await Promise.all([other, camera.end()]);
        void viewed.server.stop();
      }
    }
    expect(names.filter((name) => name !== "state")).toEqual(["problem", "bye"]);
  });
});

describe("page socket", () => {
  class Page {
    readonly socket: WebSocket;
    readonly got: { header: any; frame: Uint8Array }[] = [];
    closed: number | undefined;

    constructor(viewed: Viewed) {
      this.socket = new WebSocket(`ws://${viewed.server.http}/live`);
      this.socket.binaryType = "arraybuffer";
      this.socket.onmessage = ({ data }) => {
        const length = new DataView(data as ArrayBuffer).getUint32(0);
        const header = JSON.parse(new TextDecoder().decode(data.slice(4, 4 + length)));
        this.got.push({ header, frame: new Uint8Array(data.slice(4 + length)) });
      };
      this.socket.onclose = ({ code }) => (this.closed = code);
    }

    async open(): Promise<void> {
      await until("the socket", () => this.socket.readyState === WebSocket.OPEN);
    }

    say(what: unknown): void {
      this.socket.send(JSON.stringify(what));
    }
  }

  test("the page's socket sends one frame at a time, then the newest, and counts skipped frames", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    const frames = await Promise.all([1, 2, 3, 4].map((shade) => jpeg(shade * 50)));
    await camera.store(frames[0]!, "1.jpg", 7n);
    const page = new Page(viewed);
    await page.open();
    page.say({
      watch: [
        ["none", "none"],
        ["site", "gate"],
      ],
    });
    await until("the first frame", () => page.got.length === 1);
    const { header, frame } = page.got[0]!;
    const { received, ...facts } = header;
    expect(facts).toEqual({
      index: 1,
      stream: "site",
      source: "gate",
      number: 1,
      name: "1.jpg",
      captured: "7",
      type: "image/jpeg",
      raw: null,
      skipped: 0,
    });
    expect(BigInt(received)).toBeGreaterThan(1_700_000_000_000_000_000n);
    expect(Buffer.from(frame).equals(frames[0]!)).toBe(true);
    for (const bytes of frames.slice(1)) await camera.store(bytes);
    expect(page.got.length).toBe(1);
    // Its frame stays in flight when the list changes.
    page.say({ watch: [["site", "gate"]] });
    page.say({ took: 5 });
    page.say({ took: 0 });
    await until("the newest frame", () => page.got.length === 2);
    expect(page.got[1]!.header).toMatchObject({ index: 0, number: 4, skipped: 2 });
    page.say({ took: 0 });
    camera.give(frames[0]!, "again.jpg");
    await until("the next frame", () => page.got.length === 3);
    page.say({ watch: [] });
    page.socket.close();
    await viewers(viewed, "page", 0);
    await camera.end();
  });

  test.skipIf(needs !== "")(
    `${needs}the page's socket sends all of a video, at most sixteen ahead, and a slow page goes on at a key frame`,
    async () => {
      await using viewed = await startViewed();
      const { units } = await makeClip("h264", 3 * groupLength);
      const camera = new Camera(viewed.server, "site", "gate");
      const give = (number: number) => camera.give(units[number - 1]!, `${number}.h264`);
      for (let number = 1; number <= 5; number++) give(number);
      await camera.arrived();
      const page = new Page(viewed);
      await page.open();
      page.say({ watch: [["site", "gate"]] });
      await until("the first pictures", () => page.got.length === 5);
      for (let number = 6; number <= 3 * groupLength; number++) give(number);
      await camera.arrived();
      await until("sixteen pictures", () => page.got.length === 16);
      // It confirms a picture now and then, until it is so far behind that pictures are left out.
      const isJump = () => page.got.some(({ header }) => header.skipped > 0);
      await until(
        "a newer key frame",
        () => {
          if (!isJump()) page.say({ took: 0 });
          return isJump();
        },
        100,
      );
      const numbers = page.got.map(({ header }) => header.number as number);
      const jump = page.got.findIndex(({ header }) => header.skipped > 0);
      expect(numbers.slice(0, jump)).toEqual(Array.from({ length: jump }, (_, at) => at + 1));
      expect(jump).toBeGreaterThanOrEqual(16);
      expect(numbers[jump]).toBe(2 * groupLength + 1);
      expect(page.got[jump]!.header).toMatchObject({
        type: "video/h264",
        skipped: 2 * groupLength - numbers[jump - 1]!,
      });
      for (const { header, frame } of page.got) {
        expect(Buffer.from(frame).equals(units[header.number - 1]!)).toBe(true);
      }
      page.socket.close();
      await camera.end();
    },
  );

  test("the page's socket closes after an invalid message", async () => {
    await using viewed = await startViewed();
    const wrong = [
      "[]",
      "{",
      '{"watch":1}',
      '{"watch":[["a"]]}',
      JSON.stringify({ watch: Array(65).fill(["a", "b"]) }),
    ];
    const ended = wrong.map(async (text) => {
      const page = new Page(viewed);
      await page.open();
      page.socket.send(text);
      await until("its end", () => page.closed !== undefined);
      return [text, page.closed];
    });
    expect(await Promise.all(ended)).toEqual(wrong.map((text) => [text, 1008]));
    expect((await viewed.get("/live")).status).toBe(426);
  });

  test("the page's socket closes when the server stops", async () => {
    const viewed = await startViewed();
    const page = new Page(viewed);
    await page.open();
    await viewed.server.stop();
    await until("its end", () => page.closed !== undefined);
  });
});

describe("slow clients", () => {
  test("a slow client misses frames and stays connected, while other clients and the store do not wait", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    const bytes = await jpeg(128, 640, 480);
    const large = Buffer.concat([bytes, Buffer.alloc(300_000 - bytes.length)]);
    await camera.store(large);
    const path = "/streams/site/sources/gate/latest.mjpeg";
    const sockets = await Promise.all(Array.from({ length: 8 }, () => deaf(viewed, path)));
    sockets.push(await deaf(viewed, "/events"));
    await viewers(viewed, "mjpeg", 8);
    const reading = await viewed.get(path);
    let read = 0;
    for await (const { headers } of parts(reading)) {
      expect(headers.get("X-Sequence")).toBe(String(++read));
      if (read === 100) break;
      camera.give(large);
    }
    // The sockets buffered a few MB each; later frames were dropped.
    await camera.arrived();
    expect(await metric(viewed, 'frames_viewers{kind="mjpeg"}')).toBe(8);
    expect((await viewed.json("/api/streams/site")).sources[0]).toMatchObject({ frames: 100 });
    // A client that reads again continues with new frames.
    let resumed = 0;
    sockets[0]!.on("data", (chunk) => (resumed += chunk.length));
    sockets[0]!.resume();
    await until("what waited", () => resumed > 1_000_000);
    const before = resumed;
    await camera.store(large);
    await until("what is new", () => resumed > before);
    expect(await metric(viewed, "frames_viewer_dropped_total")).toBeGreaterThan(50);
    for (const socket of sockets) socket.destroy();
    await viewers(viewed, "mjpeg", 0);
    await viewers(viewed, "events", 0);
    await camera.end();
  });

  test("a slow client stays connected longer than an idle one", async () => {
    // Seconds until Bun closes an idle connection. The server's own limit is longer.
    const { serve } = Bun;
    const spy = spyOn(Bun, "serve").mockImplementation(((options: object) =>
      serve({ ...options, idleTimeout: 1 } as never)) as never);
    await using viewed = await startViewed().finally(() => spy.mockRestore());
    const camera = new Camera(viewed.server, "site", "gate");
    await camera.store(await jpeg());
    const ends: string[] = [];
    const paths = ["/streams/site/sources/gate/latest.mjpeg", "/events"];
    const sockets = await Promise.all(paths.map((path) => deaf(viewed, path)));
    for (const socket of sockets) socket.once("close", () => ends.push("cut off"));
    await viewers(viewed, "mjpeg", 1);
    await viewers(viewed, "events", 1);
    // An idle connection that was opened later is closed meanwhile.
    const idle = await deaf(viewed, "/healthz");
    idle.resume();
    await until("the end of an idle connection", () => idle.readyState === "closed");
    expect(ends).toEqual([]);
    await viewers(viewed, "mjpeg", 1);
    await viewers(viewed, "events", 1);
    for (const socket of sockets) socket.destroy();
    await camera.end();
  });

  test("a client is answered with 503 when 256 other clients watch", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    await camera.store(await jpeg());
    const path = "/streams/site/sources/gate/latest.mjpeg";
    const sockets = await Promise.all(Array.from({ length: 256 }, () => deaf(viewed, path)));
    await viewers(viewed, "mjpeg", 256);
    for (const address of [path, "/events"]) {
      const answer = await viewed.get(address);
      expect(answer.status).toBe(503);
      expect(answer.headers.get("Retry-After")).toBe("1");
      expect(((await answer.json()) as { error: string }).error).toBe("full");
    }
    expect((await viewed.get("/streams/site/sources/gate/latest")).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    await viewers(viewed, "mjpeg", 0);
    await camera.end();
  });

  test("a slow client is disconnected at once when the server stops", async () => {
    const viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    await camera.store(await jpeg());
    await camera.end();
    const path = "/streams/site/sources/gate/latest.mjpeg";
    const sockets = await Promise.all([deaf(viewed, path), deaf(viewed, "/events")]);
    const reader = (await viewed.get(path)).body!.getReader();
    await reader.read();
    let ended = 0;
    for (const socket of sockets) {
      socket.resume();
      socket.once("close", () => ended++);
    }
    await viewed.server.stop();
    await until("their ends", () => ended === 2);
    rmSync(join(viewed.server.directory, "site"), { recursive: true });
  });
});
