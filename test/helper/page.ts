// Cameras for the page in a real browser, and expressions that read what it shows.

import { FrameFeed, send, type SendSummary } from "../../src/mod.ts";
import type { Browser } from "./browser.ts";
import { encodePng } from "./png.ts";
import { jsonLines, type Server } from "./program.ts";
import { until } from "./time.ts";

export const width = 320;
export const height = 240;
/** Frames per second of each source. */
export const rate = 30;
/** Frames that arrive before a camera runs, so that its policy drops none of them. */
const calm = 20;

/** A moving scene, in colour or as temperatures within a thirtieth of the 16-bit range. */
export function scene(colour: "rgb8" | "grey16", time: number): Uint8Array {
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
export class PageCamera {
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

/** The tile of a source on the wall. */
export const tile = (source: string) => `document.querySelector('.wall [data-source="${source}"]')`;

/** The card of a source close up. */
export const card = (source: string) =>
  `document.querySelector('.close-up [data-source="${source}"]')`;

/** The panel of a source in the recorded view. */
export const panel = (source: string) =>
  `document.querySelector('#recorded [data-source="${source}"]')`;

/** Reads every fourth pixel of a canvas as red, green, blue in turn, without the black around it. */
export const colours = (view: string) => `(() => {
  const from = ${view}.querySelector(".picture canvas");
  const copy = new OffscreenCanvas(from.width, from.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(from, 0, 0);
  const scale = Math.min(from.width / ${width}, from.height / ${height});
  const [w, h] = [Math.floor(${width} * scale) - 2, Math.floor(${height} * scale) - 2];
  const { data } = pen.getImageData((from.width - w) >> 1, (from.height - h) >> 1, w, h);
  return Array.from({ length: data.length / 4 / 16 }, (_, at) => [...data.slice(at * 64, at * 64 + 3)]);
})()`;

/** Saves a screenshot if requested by the environment. */
export async function keepPicture(browser: Browser, name: string): Promise<void> {
  const folder = process.env["FRAMES_TEST_PICTURES"];
  if (folder !== undefined) await Bun.write(`${folder}/${name}.png`, await browser.picture());
}

/** Returns the address of the page from the server's output. */
export function pageOf(server: Server): string {
  const listening = jsonLines(server.stdout()).find(({ type }) => type === "listening");
  return `http://${listening?.["http"] as string}/`;
}
