// The page of the executable in a real browser, while frames are being sent.
//
// Covers: http/page/api.ts, http/page/dialogs.ts, http/page/dom.ts, http/page/event-stream.ts,
//   http/page/frame-panel.ts, http/page/grey-painter.ts, http/page/keyboard.ts,
//   http/page/live-frames.ts, http/page/live-view.ts, http/page/login.ts, http/page/overview.ts,
//   http/page/page.ts, http/page/palette-scale.ts, http/page/picture.ts, http/page/plot.ts,
//   http/page/recorded-view.ts, http/page/source-card.ts, http/page/timeline.ts,
//   http/routes/page-files.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { FrameFeed, send, type SendSummary } from "../../src/mod.ts";
import { Browser, noBrowser } from "../helper/browser.ts";
import { encodePng } from "../helper/png.ts";
import { jsonLines, type Server, startServer, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";

const width = 320;
const height = 240;
/** Frames per second of each source. */
const rate = 30;
/** Frames that arrive before a camera runs, so that its policy drops none of them. */
const calm = 20;

/** A moving scene, in colour or as temperatures within a thirtieth of the 16-bit range. */
function scene(colour: "rgb8" | "grey16", time: number): Uint8Array {
  const pixels = Buffer.alloc(width * height * (colour === "rgb8" ? 3 : 2));
  const [x0, y0] = [width * (0.5 + 0.3 * Math.sin(time * 6.28)), height / 2];
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const warmth = Math.exp(-(((x - x0) ** 2 + (y - y0) ** 2) / 2500));
      if (colour === "rgb8") at = pixels.writeUIntBE(0x204060 + Math.round(150 * warmth), at, 3);
      else at = pixels.writeUInt16BE(Math.round(29_000 + x / 4 + 1900 * warmth), at);
    }
  }
  return encodePng({ width, height, colour, pixels });
}

/** A camera that pushes prepared images at its rate, as a program would. */
class Camera {
  readonly #feed = new FrameFeed();
  readonly #pictures: readonly Uint8Array[];
  readonly #sending: Promise<SendSummary>;
  readonly #source: string;
  #timer: Timer | undefined;
  #pushed = 0;

  /** @param kept number of frames that may be queued */
  constructor(server: Server, source: string, pictures: readonly Uint8Array[], kept: number) {
    this.#pictures = pictures;
    this.#source = source;
    const to = `127.0.0.1:${server.port}`;
    this.#sending = send(this.#feed, { to, stream: "run7", source, policy: `latest:${kept}` });
  }

  /** Sends the first frames, of which two have the same capture time, and then runs. */
  async begin(address: string): Promise<void> {
    const start = Date.now() - calm * 33;
    for (let index = 0; index < calm; index++) {
      this.push(start + (index === 1 ? 0 : index) * 33);
    }
    const query = `source=${this.#source}&number=${calm}`;
    await until(`frame ${calm} of ${this.#source}`, async () => {
      const answer = await fetch(`${address}api/streams/run7/frames?${query}`);
      // There is no stream yet before its first frame.
      if (!answer.ok) return false;
      return ((await answer.json()) as { frames: unknown[] }).frames.length > 0;
    });
    this.#timer = this.#begin();
  }

  #begin(): Timer {
    const [start, before] = [performance.now(), this.#pushed];
    return setInterval(() => {
      // Push the frames missed by late timers.
      const due = before + Math.floor(((performance.now() - start) * rate) / 1000);
      while (this.#pushed < due) this.push();
    }, 5);
  }

  push(captured = Date.now()): void {
    const bytes = this.#pictures[this.#pushed++ % this.#pictures.length]!;
    void this.#feed.push({ bytes, captured: BigInt(captured) * 1_000_000n });
  }

  /** Pushes more frames at once than the policy keeps. */
  burst(count: number): void {
    clearInterval(this.#timer);
    for (let index = 0; index < count; index++) this.push();
    this.#timer = this.#begin();
  }

  async end(): Promise<SendSummary> {
    clearInterval(this.#timer);
    this.#feed.end();
    return await this.#sending;
  }
}

/** Selects a source's image in the live or recorded view. */
const card = (source: string, view = "live") =>
  `document.querySelector('#${view} [data-source="${source}"]')`;

/** Reads pixels of a canvas as red, green, blue in turn. */
const colours = (source: string, view = "live") => `(() => {
  const from = ${card(source, view)}.querySelector(".picture canvas");
  const copy = new OffscreenCanvas(from.width, from.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(from, 0, 0);
  const { data } = pen.getImageData(0, 0, from.width, from.height);
  return Array.from({ length: data.length / 4 / 16 }, (_, at) => [...data.slice(at * 64, at * 64 + 3)]);
})()`;

describe.skipIf(noBrowser !== "")(`${noBrowser}Page`, () => {
  let server: Server;
  let browser: Browser;
  let cameras: readonly Camera[] = [];
  let address = "";

  beforeAll(async () => {
    server = await startServer({ dir: temporaryFolder(), args: ["--http", "127.0.0.1:0"] });
    address = pageOf(server);
    const times = Array.from({ length: 30 }, (_, index) => index / 30);
    const jpegs = times.map((time) => new Bun.Image(scene("rgb8", time)).jpeg().bytes());
    const [visible, thermal] = [
      await Promise.all(jpegs),
      times.map((time) => scene("grey16", time)),
    ];
    cameras = [
      new Camera(server, "visible", visible, 60),
      new Camera(server, "infrared", thermal, 6000),
    ];
    await Promise.all(cameras.map((camera) => camera.begin(address)));
    browser = await Browser.open();
    await browser.look({ width: 1280, height: 900, scheme: "dark" });
    await browser.go(address);
  });

  afterAll(async () => {
    browser?.close();
    await Promise.allSettled(cameras.map((camera) => camera.end()));
    await server?.stop();
  });

  test("the page shows two sources side by side, both moving", async () => {
    for (const source of ["visible", "infrared"]) {
      await browser.until(`a frame of ${source}`, `${card(source)}?.dataset.shownCount > 10`);
      const before = await browser.read<string>(`JSON.stringify(${colours(source)})`);
      await browser.until(
        `another picture of ${source}`,
        `JSON.stringify(${colours(source)}) !== ${JSON.stringify(before)}`,
      );
    }
    type Box = { x: number; y: number };
    const [infrared, visible] = await browser.read<[Box, Box]>(
      `[${card("infrared")}, ${card("visible")}].map((one) => one.getBoundingClientRect().toJSON())`,
    );
    expect(visible.y).toBe(infrared.y);
    expect(visible.x).toBeGreaterThan(infrared.x + 300);
  });

  test("the page shows frame rates that are right within a tenth", async () => {
    const said = ["visible", "infrared"].map(
      (source) => `parseFloat(${card(source)}.querySelector(".figures dd").textContent)`,
    );
    const isRight = (figure: string) => `Math.abs(${figure} - ${rate}) <= ${rate / 10}`;
    await browser.until("rates that are right", said.map(isRight).join(" && "));
  });

  test("the page shows a thermal frame in the iron palette with full contrast", async () => {
    const palette = await browser.read(
      `${card("infrared")}.querySelector(".scale").dataset.palette`,
    );
    expect(palette).toBe("iron");
    const seen = await browser.read<[number, number, number][]>(colours("infrared"));
    const light = seen.map(([red, green, blue]) => 0.2126 * red + 0.7152 * green + 0.0722 * blue);
    // Without scaling, a browser would show all values between 113 and 121.
    expect(Math.min(...light)).toBeLessThan(20);
    expect(Math.max(...light)).toBeGreaterThan(220);
    // The iron palette contains purple and orange, which grey does not.
    expect(seen.some(([red, green, blue]) => blue > green + 60 && red > green + 20)).toBe(true);
    expect(seen.some(([red, green, blue]) => red > 200 && green > 60 && blue < 80)).toBe(true);
  });

  test("the page shows the value of a pixel that the keyboard selects", async () => {
    await browser.read(`${card("infrared")}.querySelector(".picture canvas").focus()`);
    await browser.press("Enter");
    const value = `${card("infrared")}.querySelector(".value")`;
    await browser.until("a value", `!${value}.hidden`);
    const [place, number] = (await browser.read<string>(`${value}.textContent`)).split(": ");
    expect(place).toBe(`${width / 2}, ${height / 2}`);
    expect(Number(number!.replaceAll(",", ""))).toBeWithin(29_000, 31_000);
    await browser.press("ArrowRight");
    await browser.until("the next pixel", `${value}.textContent.startsWith("161, 120: ")`);
    await browser.press("Escape");
    await browser.until("no value any more", `${value}.hidden`);
    await browser.read("document.activeElement.blur()");
  });

  test("the page shows a gap after frames were dropped", async () => {
    const gaps = `Number(${card("visible")}.dataset.gaps)`;
    const before = await browser.read<number>(gaps);
    cameras[0]!.burst(600);
    await browser.until("a gap", `${gaps} > ${before}`);
    expect(await browser.read<boolean>(`${card("visible")}.classList.contains("lossy")`)).toBe(
      true,
    );
    expect(await browser.read<string>(`${card("infrared")}.dataset.gaps`)).toBe("0");
  });

  test("the page lists the senders and the frames in the store", async () => {
    await browser.until("the senders", `document.querySelectorAll("#senders li").length === 2`);
    const senders = await browser.read<string>(`document.querySelector("#senders").textContent`);
    expect(senders).toContain("run7: visible");
    expect(senders).toContain("run7: infrared");
    const store = await browser.read<string>(`document.querySelector("#store").textContent`);
    expect(store).toContain(server.dir);
    expect(store).toMatch(/[1-9]\d* frames in .* free/);
  });

  test("the page shows frames soon after their capture", async () => {
    for (const source of ["visible", "infrared"]) {
      const delay = await browser.read<string>(`${card(source)}.dataset.shownDelay`);
      expect(Number(delay)).toBeGreaterThan(0);
      const received = await browser.read<string>(
        `${card(source)}.querySelectorAll(".figures dd")[2].textContent`,
      );
      console.log(
        `${source}: from capture to receipt ${received}, to the screen ${delay} ms (medians)`,
      );
    }
  });

  test("a paused page shows the number of its picture, and does not call it live", async () => {
    const shown = `Number(${card("visible")}.dataset.shownNumber)`;
    const newest = `Number(${card("visible")}.dataset.number)`;
    const caption = `${card("visible")}.querySelector(".last").textContent.replaceAll(",", "")`;
    const state = `${card("visible")}.querySelector(".state").textContent`;
    await browser.until("a live picture", `${state} === "live"`);
    await browser.press(" ");
    await browser.until("the pause", `${state} === "paused"`);
    // A picture that came before the pause may still be drawn.
    const last = await browser.read<number>(shown);
    await browser.until("more frames at the server", `${newest} > ${last + 3 * rate}`);
    const number = await browser.read<number>(shown);
    const picture = await browser.read<string>(`JSON.stringify(${colours("visible")})`);
    await browser.until("even more frames", `${newest} > ${number + 6 * rate}`);
    expect(await browser.read<string>(`JSON.stringify(${colours("visible")})`)).toBe(picture);
    expect(await browser.read<string>(caption)).toBe(`frame ${number}`);
    expect(await browser.read<string>(state)).toBe("paused");
    const label = `${card("visible")}.querySelector(".picture canvas").getAttribute("aria-label")`;
    expect((await browser.read<string>(label)).replaceAll(",", "")).toContain(`frame ${number} of`);
    const color = `getComputedStyle(${card("visible")}.querySelector(".state")).color`;
    const paused = await browser.read<string>(color);
    await keep(browser, "paused");
    await browser.press(" ");
    await browser.until(
      "a newer picture",
      `${shown} > ${number + 6 * rate} && ${state} === "live"`,
    );
    expect(await browser.read<string>(color)).not.toBe(paused);
  });

  test("a frame that the page cannot show has its own caption, and nothing of the one before", async () => {
    // Sorted after run7, whose cards must stay in view.
    const to = { to: `127.0.0.1:${server.port}`, stream: "strange" };
    const good = scene("grey16", 0);
    const feed = new FrameFeed();
    const sending = send(feed, { ...to, source: "camera" });
    await feed.push({ bytes: good, name: "1.png" });
    const odd = card("camera");
    await browser.until("the first frame", `${odd}?.dataset.shownNumber === "1"`);
    await browser.until("its scale", `!${odd}.querySelector(".scale").hidden`);
    await feed.push({ bytes: good.subarray(0, 300), name: "2.png" });
    await browser.until("the second frame", `${odd}.dataset.shownNumber === "2"`);
    expect(await browser.read<string>(`${odd}.querySelector(".last").textContent`)).toBe("frame 2");
    expect(await browser.read<boolean>(`${odd}.querySelector(".note").hidden`)).toBe(false);
    expect(await browser.read<boolean>(`${odd}.querySelector(".scale").hidden`)).toBe(true);
    feed.end();
    await sending;
  });

  test("a recorded frame that cannot be fetched has its own caption and no picture", async () => {
    const to = { to: `127.0.0.1:${server.port}`, stream: "vanished", source: "camera" };
    const frames = [1, 2].map((number) => ({
      bytes: scene("rgb8", number / 3),
      name: `${number}.png`,
      captured: BigInt(number) * 5_000_000_000n,
    }));
    await send(frames, to);
    rmSync(join(server.dir, "vanished", "camera", "1.png"));
    await browser.go(`${address}#/vanished`);
    const panel = card("camera", "recorded");
    await browser.until("the last frame", `${panel}?.dataset.number === "2"`);
    expect(await browser.read<boolean>(`${panel}.querySelector(".note").hidden`)).toBe(true);
    await browser.press("Home");
    await browser.until("the first frame", `${panel}.dataset.number === "1"`);
    expect(await browser.read<boolean>(`${panel}.querySelector(".note").hidden`)).toBe(false);
    expect(await browser.read<string>(`${panel}.querySelector(".facts").textContent`)).toContain(
      "name1.png",
    );
    await browser.press("End");
    await browser.until("the last frame again", `${panel}.dataset.number === "2"`);
    expect(await browser.read<boolean>(`${panel}.querySelector(".note").hidden`)).toBe(true);
    // The browser logs the refused request.
    browser.console.length = 0;
    await browser.go(address);
  });

  test("the page steps through recorded frames and goes to a frame by its number", async () => {
    await browser.go(`${address}#/run7?source=visible`);
    const shown = `${card("visible", "recorded")}?.dataset`;
    await browser.until("a recorded frame", `${shown}?.number`);
    await browser.press("Home");
    // The second has the same capture time.
    await browser.until("the first frame", `${shown}.number === "1"`);
    await browser.press("ArrowRight");
    await browser.until("the second frame", `${shown}.number === "2"`);
    await browser.press("g");
    await browser.type("12");
    await browser.press("Enter");
    const at = `document.querySelector(".moment").dataset.at`;
    await browser.until("frame 12", `${shown}.number === "12" && ${shown}.captured === ${at}`);
    const [visible, infrared] = await browser.read<[string, string]>(
      `["visible", "infrared"].map((source) =>
        document.querySelector('#recorded [data-source="' + source + '"]').dataset.captured)`,
    );
    // The other source has no frame closer in time.
    const list = await fetch(`${address}api/streams/run7/frames?source=infrared&limit=1000`);
    const { frames } = (await list.json()) as { frames: { captured: string }[] };
    const distance = (captured: string) => Math.abs(Number(BigInt(captured) - BigInt(visible)));
    expect(distance(infrared)).toBe(Math.min(...frames.map(({ captured }) => distance(captured))));
    await browser.until("its address", `location.hash.includes("at=${visible}")`);
    const hash = await browser.read<string>("location.hash");
    await browser.go(address + hash);
    await browser.until("the same frame again", `${shown}?.number === "12"`);
    const facts = await browser.read<string>(
      `${card("visible", "recorded")}.querySelector(".facts").textContent`,
    );
    expect(facts).toMatch(/name\S+-00000012\.jpgnumber12captured.* UTC.*CRC-32[0-9a-f]{8}session/);
    const link = await browser.read<string>(
      `${card("visible", "recorded")}.querySelector(".download").href`,
    );
    const kept = await (await fetch(link)).bytes();
    expect(facts).toContain(Bun.hash.crc32(kept).toString(16).padStart(8, "0"));
  });

  test("the page shows names with HTML in them as text and runs no script", async () => {
    const [stream, source] = ["<b>bold", "<img src=x onerror=console.log(1)>"];
    const frame = { bytes: scene("rgb8", 0), name: "<script>console.log(2)<" };
    await send([frame], { to: `127.0.0.1:${server.port}`, stream, source });
    await browser.go(address);
    const named = `[...document.querySelectorAll("#live h3")].map((one) => one.textContent)`;
    await browser.until("its name", `${named}.includes(${JSON.stringify(source)})`);
    await browser.go(`${address}#/${encodeURIComponent(stream)}`);
    const facts = `document.querySelector("#recorded .facts")?.textContent`;
    await browser.until("its frame", `${facts}?.includes(${JSON.stringify(frame.name)})`);
    expect(
      await browser.read<number>(`document.querySelectorAll("img, b, main script").length`),
    ).toBe(0);
  });

  for (const scheme of ["light", "dark"] as const) {
    for (const across of [1280, 390]) {
      test(`the page fits a width of ${across} pixels in ${scheme} mode`, async () => {
        await browser.look({ width: across, height: 844, scheme });
        for (const [view, hash] of [
          ["live", ""],
          ["recorded", "#/run7"],
        ] as const) {
          await browser.go(address + hash);
          const picture = `${card("infrared", view)}?.querySelector(".scale")`;
          await browser.until("a picture", `${picture} && !${picture}.hidden`);
          const wide = await browser.read<string[]>(
            `[...document.querySelectorAll("#${view} *, .top *, footer *")]
              .filter((one) => one.closest(".wide, .unseen, [hidden]") === null)
              .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
              .map((one) => one.tagName + "." + one.className)`,
          );
          expect(wide).toEqual([]);
          expect(await browser.read<number>("document.documentElement.scrollWidth")).toBe(across);
          const paper = await browser.read<string>(
            "getComputedStyle(document.documentElement).backgroundColor",
          );
          const [red = 0] = /\d+/.exec(paper) ?? [];
          if (scheme === "dark") expect(Number(red)).toBeLessThan(40);
          else expect(Number(red)).toBeGreaterThan(220);
          await keep(browser, `${view}-${across}-${scheme}`);
        }
      });
    }
  }

  test("the page reports that the server is away, and reconnects by itself", async () => {
    // Must be the last test, because the browser logs refused connections to its console.
    expect(browser.console).toEqual([]);
    await browser.go(address);
    const link = `document.querySelector("#link").textContent`;
    await browser.until("the server", `${link} === "Connected"`);
    await Promise.all(cameras.map((camera) => camera.end()));
    cameras = [];
    await server.stop();
    await browser.until(
      "that the server is away",
      `${link}.startsWith("No connection to the server since ")`,
    );
    const states = `[...document.querySelectorAll("#live .state")].map((one) => one.textContent)`;
    expect(new Set(await browser.read<string[]>(states))).toEqual(new Set(["no connection"]));
    const { port } = new URL(address);
    const { dir } = server;
    server = await startServer({ dir, args: ["--http", `127.0.0.1:${port}`] });
    await browser.until("the server again", `${link} === "Connected"`);
  });
});

/** Saves a screenshot if requested by the environment. */
async function keep(browser: Browser, name: string): Promise<void> {
  const folder = process.env["FRAMES_TEST_PICTURES"];
  if (folder !== undefined) await Bun.write(`${folder}/${name}.png`, await browser.picture());
}

/** Returns the address of the page from the server's output. */
function pageOf(server: Server): string {
  const listening = jsonLines(server.stdout()).find(({ type }) => type === "listening");
  return `http://${listening?.["http"] as string}/`;
}
