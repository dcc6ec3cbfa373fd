// Recorded pictures under the mouse and the keys in a real browser: select, enlarge, full screen, back.
//
// Covers: http/page/keyboard.ts, http/page/picture-input.ts, http/page/frame-panel.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { send } from "frames";
import { Browser, noBrowser, type Position } from "../../helper/browser.ts";
import { keepPicture, panel, scene } from "../../helper/page.ts";
import { startViewed, type Viewed } from "../../helper/viewing.ts";

describe.skipIf(noBrowser !== "")(`${noBrowser}a recorded picture`, () => {
  let viewed: Viewed;
  let browser: Browser;

  const at = (number: number, source: string) =>
    browser.until(`frame ${number}`, `${panel(source)}?.dataset.number === "${number}"`);
  const canvas = (source: string) => `${panel(source)}.querySelector(".picture canvas")`;
  const isChosen = (source: string) => `${panel(source)}.classList.contains("chosen")`;
  const isZoomed = `${panel("left")}.querySelector(".picture.zoomed") !== null`;
  /** Clicks the middle of an element. */
  const click = async (target: string, clickCount = 1) => {
    const { x, y } = await browser.read<Position>(
      `(({ left, top, width, height }) => ({ x: left + width / 2, y: top + height / 2 }))(${target}.getBoundingClientRect())`,
    );
    await browser.mouse("mouseMoved", { x, y });
    for (let count = 1; count <= clickCount; count++) {
      await browser.mouse("mousePressed", { x, y }, 0, count);
      await browser.mouse("mouseReleased", { x, y }, 0, count);
    }
  };

  beforeAll(async () => {
    viewed = await startViewed();
    for (const source of ["left", "right"]) {
      const frames = Array.from({ length: 20 }, (_, index) => ({
        bytes: scene("rgb8", 0),
        name: `${index + 1}.png`,
        captured: BigInt(1 + index) * 1_000_000_000n,
      }));
      await send(frames, { to: viewed.server.address, stream: "yard", source });
    }
    browser = await Browser.open();
    await browser.look({ width: 1400, height: 900 });
  });

  afterAll(async () => {
    expect(browser?.console).toEqual([]);
    browser?.close();
    await viewed?.[Symbol.asyncDispose]();
  });

  const open = async () => {
    await browser.go(`${viewed.base}/#/yard?source=left&at=${5_000_000_000n}`);
    await at(5, "left");
    await at(5, "right");
  };

  test("a click selects its source, and the keys of the player go on", async () => {
    await open();
    await click(canvas("right"));
    await browser.until("its choice", isChosen("right"));
    await browser.press("ArrowRight");
    await at(6, "right");
    await browser.press("ArrowLeft");
    await at(5, "right");
    // So they do after a click on a name and on a button.
    await click(`${panel("left")}.querySelector("input")`);
    await browser.until("its choice", isChosen("left"));
    await browser.press("ArrowRight");
    await at(6, "left");
    await click(`document.querySelector('[aria-label="Next"]')`);
    await at(7, "left");
    await browser.press(" ");
    await browser.until("playback", `document.querySelector(".playing").textContent !== "paused"`);
  });

  test("a double click enlarges a small picture, and Escape shows it whole before it goes back", async () => {
    await open();
    const isFilled = `(() => {
      const { width, height } = ${canvas("left")};
      const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      pen.drawImage(${canvas("left")}, 0, 0);
      const { data } = pen.getImageData(0, 0, width, height);
      return [0, width - 1].every((x) => data[(width * (height >> 1) + x) * 4 + 3] > 0);
    })()`;
    expect(await browser.read<boolean>(isFilled)).toBe(false);
    await click(canvas("left"), 2);
    await browser.until("the zoom", isZoomed);
    // The picture is wider than its box.
    await browser.until("more of it", isFilled);
    await browser.press("Escape");
    await browser.until("all of it", `!(${isZoomed})`);
    expect(await browser.read<string>("location.hash")).toStartWith("#/yard");
    await browser.press("Escape");
    await browser.until("the wall", `location.hash === "#/"`);
  });

  test("the whole screen shows the picture that was clicked, says what it is, and has an exit", async () => {
    await open();
    await click(canvas("right"));
    await browser.press("f");
    const full = `${panel("right")}.querySelector(".picture")`;
    await browser.until("the whole screen", `document.fullscreenElement === ${full}`);
    const bar = `document.fullscreenElement.querySelector(".full-screen-bar")`;
    expect(await browser.read<boolean>(`${bar}.checkVisibility()`)).toBe(true);
    expect(await browser.read<string>(`${bar}.textContent`)).toBe(
      "right of yard, frame 5 of 00:00:05.000 UTCExit",
    );
    await browser.press("ArrowRight");
    await browser.until("the next frame", `${bar}.textContent.includes("frame 6")`);
    await keepPicture(browser, "full-screen");
    await click(`${bar}.querySelector("button")`);
    await browser.until("its end", "document.fullscreenElement === null");
    expect(
      await browser.read<boolean>(`${full}.querySelector(".full-screen-bar").checkVisibility()`),
    ).toBe(false);
  });
});
