// The wall in a real browser: many sources, and a server, a key and a clock that misbehave.
//
// Covers: http/page/tile.ts, http/page/live-view.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { FrameFeed, send } from "frames";
import { Browser, noBrowser } from "../../helper/browser.ts";
import { keepPicture, panel, scene, tile } from "../../helper/page.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { startViewed, type Viewed } from "../../helper/viewing.ts";

/** Sends one picture of each source, and goes on until it is stopped. */
async function sendSources(viewed: Viewed, stream: string, names: readonly string[]) {
  const folder = join(temporaryFolder(), stream);
  const picture = scene("rgb8", 0);
  for (const name of names) {
    mkdirSync(join(folder, name), { recursive: true });
    await Bun.write(join(folder, name, "1.png"), picture);
  }
  const stop = new AbortController();
  const sending = send(folder, {
    ...{ to: viewed.server.address, stream, watch: true },
    signal: stop.signal,
  });
  return async () => {
    stop.abort();
    await sending.catch(() => {});
  };
}

const numbered = (count: number) => Array.from({ length: count }, (_, index) => `cam${index + 1}`);

describe.skipIf(noBrowser !== "")(`${noBrowser}the wall`, () => {
  let viewed: Viewed;
  let browser: Browser;
  const tiles = `[...document.querySelectorAll(".tile")]`;

  beforeAll(async () => {
    viewed = await startViewed();
    browser = await Browser.open();
  });

  afterAll(async () => {
    expect(browser?.console).toEqual([]);
    browser?.close();
    await viewed?.[Symbol.asyncDispose]();
  });

  test("sixteen sources fit the window of a desk and of a phone, in natural order", async () => {
    const stop = await sendSources(viewed, "sixteen", numbered(16));
    for (const [width, height] of [
      [1400, 900],
      [390, 844],
    ] as const) {
      await browser.look({ width, height });
      await browser.go(viewed.base);
      await browser.until(
        "all tiles",
        `${tiles}.length === 16 && ${tiles}.every(({ dataset }) => dataset.shownCount > 0)`,
      );
      const order = await browser.read<string[]>(`${tiles}.map(({ dataset }) => dataset.source)`);
      expect(order).toEqual(numbered(16));
      const bottom = `Math.max(...${tiles}.map((one) => one.getBoundingClientRect().bottom))`;
      expect(await browser.read<number>(bottom)).toBeLessThanOrEqual(height);
      await keepPicture(browser, `wall-16-${width}`);
    }
    await stop();
    await browser.until("no tiles", `${tiles}.length === 0`);
  });

  test("a thousand sources are thumbnails, of which the page takes only those in view", async () => {
    const stop = await sendSources(viewed, "thousand", numbered(1000));
    await browser.look({ width: 1400, height: 900 });
    await browser.go(viewed.base);
    const count = `document.querySelector(".wall .about").textContent`;
    // Those of the test before have ended, and are left out as well.
    const isComplete = `${count} === "500 sources, 516 more not listed"`;
    await browser.until("the count", isComplete);
    // While there were few sources, the page may have shown the last of them.
    await browser.go(viewed.base);
    await browser.until("the count again", isComplete);
    expect(await browser.read<number>(`${tiles}.length`)).toBe(500);
    await browser.until("a picture", `${tiles}[3].dataset.shownCount > 0`);
    expect(await browser.read<boolean>(`${tiles}.at(-1).dataset.shownCount === undefined`)).toBe(
      true,
    );
    await browser.read(`${tiles}.at(-1).scrollIntoView()`);
    await browser.until("the last picture", `${tiles}.at(-1).dataset.shownCount > 0`);
    await stop();
  });

  test("names of any script and of 255 bytes are shown as text, and break no tile", async () => {
    const names = ["x".repeat(255), "カ".repeat(85), "مرحبا", "<b>bold"];
    const stop = await sendSources(viewed, "names", names);
    for (const width of [1400, 390]) {
      await browser.look({ width, height: 844 });
      await browser.go(viewed.base);
      await browser.until(
        "all tiles",
        `${tiles}.length === 4 && ${tiles}.every(({ dataset }) => dataset.shownCount > 0)`,
      );
      const texts = await browser.read<string[]>(
        `${tiles}.map((one) => one.querySelector("h3").textContent)`,
      );
      for (const name of names) {
        expect(texts).toContain(`names${name}`);
      }
      expect(await browser.read<number>("document.documentElement.scrollWidth")).toBe(width);
      const heights = await browser.read<number[]>(`${tiles}.map((one) => one.offsetHeight)`);
      expect(new Set(heights).size).toBe(1);
      expect(await browser.read<number>(`document.querySelectorAll("main b").length`)).toBe(0);
    }
    await stop();
  });

  test("a source whose clock is an hour ahead or behind is live, and says its delay", async () => {
    const feeds = [new FrameFeed(), new FrameFeed()];
    const sending = ["ahead", "behind"].map((source, index) =>
      send(feeds[index]!, { to: viewed.server.address, stream: "clocks", source }),
    );
    const hour = 3_600_000_000_000n;
    for (const [index, feed] of feeds.entries()) {
      const captured = BigInt(Date.now()) * 1_000_000n + (index === 0 ? hour : -hour);
      await feed.push({ bytes: scene("rgb8", 0), name: "1.png", captured });
    }
    await browser.go(viewed.base);
    for (const source of ["ahead", "behind"]) {
      await browser.until(`${source}`, `${tile(source)}?.dataset.shownNumber === "1"`);
    }
    await browser.click('.wall [data-source="ahead"] a');
    const delay = `document.querySelector(".close-up").textContent`;
    await browser.until("its delay", `${delay}.includes("−59 min") || ${delay}.includes("−1 h")`);
    feeds.forEach((feed) => feed.end());
    await Promise.all(sending);
    await browser.go(viewed.base);
  });

  test("a user who wants little motion sees at most one picture a second of each source", async () => {
    await browser.look({ width: 1400, height: 900, isReducedMotion: true });
    const feed = new FrameFeed();
    const sending = send(feed, { to: viewed.server.address, stream: "calm", source: "camera" });
    await feed.push({ bytes: scene("rgb8", 0), name: "1.png" });
    await browser.go(viewed.base);
    await browser.until("the first frame", `${tile("camera")}?.dataset.shownNumber === "1"`);
    const start = performance.now();
    for (let number = 2; number <= 40; number++) {
      await feed.push({ bytes: scene("rgb8", number / 40), name: `${number}.png` });
    }
    await browser.until("the last frame", `${tile("camera")}.dataset.shownNumber === "40"`);
    const seconds = (performance.now() - start) / 1000;
    const shown = Number(await browser.read<string>(`${tile("camera")}.dataset.shownCount`));
    expect(shown).toBeLessThanOrEqual(seconds + 2);
    feed.end();
    await sending;
    await browser.look({ width: 1400, height: 900 });
  });

  test("a page in the background takes no frames, and shows the newest when it is back", async () => {
    const feed = new FrameFeed();
    const sending = send(feed, { to: viewed.server.address, stream: "yard", source: "camera" });
    await feed.push({ bytes: scene("rgb8", 0), name: "1.png" });
    const shown = `${tile("camera")}?.dataset.shownNumber`;
    await browser.until("the first frame", `${shown} === "1"`);
    const hide = (isHidden: boolean) =>
      browser.read(`(() => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => ${isHidden} });
        document.dispatchEvent(new Event("visibilitychange"));
      })()`);
    await hide(true);
    for (let number = 2; number <= 20; number++) {
      await feed.push({ bytes: scene("rgb8", number / 20), name: `${number}.png` });
    }
    await until("the last frame", async () => {
      const path = "/api/streams/yard/frames?source=camera&number=20";
      return (await viewed.json<{ frames: unknown[] }>(path)).frames.length > 0;
    });
    expect(await browser.read<string>(shown)).toBe("1");
    await hide(false);
    await browser.until("the newest frame", `${shown} === "20"`);
    feed.end();
    await sending;
  });

  test("a camera that ends leaves a link to its recording, and the stored streams are a click away", async () => {
    await browser.look({ width: 1400, height: 900 });
    const feeds = [new FrameFeed(), new FrameFeed()];
    const sending = ["stays", "ends"].map((source, index) =>
      send(feeds[index]!, { to: viewed.server.address, stream: "shift", source }),
    );
    for (const feed of feeds) await feed.push({ bytes: scene("rgb8", 0), name: "1.png" });
    await browser.go(viewed.base);
    await browser.until(
      "both",
      `${tile("stays")}?.dataset.shownCount > 0 && ${tile("ends")} !== null`,
    );
    const link = `[...document.querySelectorAll(".ended a")].find((one) => one.textContent === "shift / ends")`;
    expect(await browser.read<boolean>(`${link} === undefined`)).toBe(true);
    feeds[1]!.end();
    await sending[1];
    await browser.until("its link", `${link} !== undefined && ${tile("ends")} === null`);
    const below = `[...document.querySelectorAll(".wall > header button")].find((one) => one.textContent.endsWith("below"))`;
    await browser.until(
      "the count",
      `${below}.textContent === document.querySelectorAll(".stored li").length + " stored streams below"`,
    );
    await keepPicture(browser, "wall-ended");
    await browser.look({ width: 390, height: 844 });
    await keepPicture(browser, "wall-ended-390");
    await browser.look({ width: 1400, height: 900 });
    await browser.read(`${below}.click()`);
    const top = `document.querySelector("#stored-title").getBoundingClientRect().top`;
    await browser.until("the list", `${top} >= 0 && ${top} < innerHeight / 2`);
    await browser.read(`${link}.click()`);
    await browser.until("its recording", `${panel("ends")}?.dataset.number === "1"`);
    feeds[0]!.end();
    await sending[0];
  });

  test("a paused wall says how to resume it", async () => {
    await browser.go(viewed.base);
    const pause = `document.querySelector("#pause")`;
    const width = await browser.read<number>(`${pause}.offsetWidth`);
    await browser.click("#pause");
    expect(await browser.read<string>(`${pause}.textContent`)).toBe("Resume");
    expect(await browser.read<number>(`${pause}.offsetWidth`)).toBe(width);
    await browser.click("#pause");
    expect(await browser.read<string>(`${pause}.textContent`)).toBe("Pause");
  });

  test("a problem itself is in view after a click on their count", async () => {
    // The server does not understand this as frames.
    await fetch(`http://${viewed.server.address}/`);
    const count = `document.querySelector("#to-problems")`;
    await browser.look({ width: 390, height: 400 });
    await browser.go(viewed.base);
    await browser.until("its count", `/[1-9]/.test(${count}.textContent)`);
    const view = `document.querySelector(".problems li").getBoundingClientRect()`;
    // What comes later, above the problem, would move it out of view again.
    await browser.until("what is above it", `${view}.top > innerHeight`);
    await browser.click("#to-problems");
    await browser.until("the problem", `${view}.top >= 0 && ${view}.bottom <= innerHeight`);
    await browser.look({ width: 1400, height: 900 });
  });

  test("a camera that does not come back with the server stays on the wall, without a picture of now", async () => {
    const feed = new FrameFeed();
    const stop = new AbortController();
    const to = viewed.server.address;
    const sending = send(feed, { to, stream: "yard", source: "gone", signal: stop.signal });
    await feed.push({ bytes: scene("rgb8", 0), name: "1.png" });
    await browser.until("its tile", `${tile("gone")}?.dataset.shownCount > 0`);
    const { directory, http } = viewed.server;
    await viewed.server.stop();
    stop.abort();
    await sending.catch(() => {});
    const link = `document.querySelector("#link").textContent`;
    await browser.until("no server", `${link}.startsWith("No connection")`);
    viewed = await startViewed({ http: http! }, directory);
    await browser.until("the server", `${link} === "Connected"`);
    const state = `${tile("gone")}?.querySelector(".state").textContent`;
    await browser.until("what is missed", `${state}.startsWith("no frame for ")`);
    // The browser logs what it could not reach.
    browser.console.length = 0;
  });
});
