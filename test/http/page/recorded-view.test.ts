// Recordings on the page in a real browser: time, gaps, playback and many sources.
//
// Covers: http/page/frame-navigator.ts, http/page/frame-panel.ts, http/page/stream-select.ts,
//   http/page/timeline.ts, http/page/transport.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { send } from "frames";
import { Browser, noBrowser, type Position } from "../../helper/browser.ts";
import { keepPicture, panel, scene } from "../../helper/page.ts";
import { Camera, startViewed, type Viewed } from "../../helper/viewing.ts";

const second = 1_000_000_000n;
const start = BigInt(Date.parse("2026-11-25T14:00:00Z")) * 1_000_000n;

describe.skipIf(noBrowser !== "")(`${noBrowser}the recorded view`, () => {
  let viewed: Viewed;
  let browser: Browser;
  const picture = scene("rgb8", 0);

  /** Clicks a button by its label. */
  const click = (label: string) =>
    browser.read(
      `[...document.querySelectorAll("#recorded button")].find((one) => (one.getAttribute("aria-label") ?? one.textContent) === ${JSON.stringify(label)}).click()`,
    );
  const at = (number: number, source = "left") =>
    browser.until(`frame ${number}`, `${panel(source)}?.dataset.number === "${number}"`);
  const moment = () => browser.read<string>(`document.querySelector(".moment").textContent`);

  beforeAll(async () => {
    viewed = await startViewed();
    // Ten minutes with a frame a second, and one source that began late.
    for (const [source, from] of [
      ["left", 0],
      ["right", 200],
    ] as const) {
      const frames = Array.from({ length: 600 - from }, (_, index) => ({
        bytes: picture,
        name: `${index + 1}.png`,
        captured: start + BigInt(from + index) * second,
      }));
      await send(frames, { to: viewed.server.address, stream: "run7", source });
    }
    await send([{ bytes: picture, name: "1.png", captured: start }], {
      ...{ to: viewed.server.address, stream: "other", source: "camera" },
    });
    browser = await Browser.open();
    await browser.look({ width: 1400, height: 900 });
  });

  afterAll(async () => {
    expect(browser?.console).toEqual([]);
    browser?.close();
    await viewed?.[Symbol.asyncDispose]();
  });

  test("a user goes to a time or a number by typing it, and both sources follow", async () => {
    await browser.go(`${viewed.base}/#/run7`);
    await at(600);
    await browser.press("g");
    await browser.type("14:03");
    await browser.press("Enter");
    await at(181);
    // Of the source that began later, its first frame is the nearest.
    await at(1, "right");
    expect(await moment()).toBe("2026-11-25 14:03:00.000 UTC  frame 181");
    await browser.press("g");
    await browser.type("500");
    await browser.press("Enter");
    await at(500);
    await at(300, "right");
    await browser.press("g");
    await browser.type("soon");
    await browser.press("Enter");
    const note = `document.querySelector("#recorded .message").textContent`;
    await browser.until("an example", `${note}.includes("yesterday 14:03")`);
    await browser.press("Escape");
  });

  test("a click on the field selects what was typed, and another stream begins without it", async () => {
    await browser.go(`${viewed.base}/#/run7`);
    await at(600);
    await browser.click(".go input");
    await browser.type("2:03 pm");
    await browser.press("Enter");
    await at(181);
    await browser.click(".go input");
    await browser.type("14");
    const typed = `document.querySelector(".go input").value`;
    expect(await browser.read<string>(typed)).toBe("14");
    await browser.press("Enter");
    await at(14);
    await browser.read(`(location.hash = "#/other")`);
    await browser.until("an empty field", `${typed} === ""`);
    await at(1, "camera");
  });

  test("a phone shows the day, and has a button to go", async () => {
    await browser.look({ width: 390, height: 844 });
    await browser.go(`${viewed.base}/#/run7?source=left&at=${start}`);
    await at(1);
    const isShown = (selector: string) =>
      browser.read<boolean>(
        `(({ left, right, bottom, width }) => width > 0 && left >= 0 && right <= 390 && bottom <= 844)(document.querySelector("${selector}").getBoundingClientRect())`,
      );
    for (const selector of [".moment .day", ".go input", ".go button"]) {
      expect([selector, await isShown(selector)]).toEqual([selector, true]);
    }
    await keepPicture(browser, "recorded-390");
    await browser.look({ width: 1400, height: 900 });
  });

  test("space and j k l play, and the state says how", async () => {
    await browser.go(`${viewed.base}/#/run7?source=left&at=${start + 300n * second}`);
    await at(301);
    const state = `document.querySelector(".playing").textContent`;
    expect(await browser.read<string>(state)).toBe("paused");
    for (let press = 0; press < 4; press++) await browser.press("l");
    await browser.until("its speed", `${state} === "playing at 8×"`);
    await browser.until("progress", `Number(${panel("left")}.dataset.number) > 305`);
    await browser.press("j");
    await browser.until("the direction", `${state} === "playing backwards at 8×"`);
    await browser.until("the way back", `Number(${panel("left")}.dataset.number) < 301`);
    await browser.press("k");
    await browser.until("the end", `${state} === "paused"`);
    await browser.press(" ");
    await browser.until("it again, at the first speed", `${state} === "playing backwards at 1×"`);
    await browser.press("ArrowRight");
    await browser.until("the end", `${state} === "paused"`);
    await browser.press("End");
    await at(600);
    await browser.press("l");
    await browser.until("its end at the last frame", `${state} === "paused"`);
  });

  test("playback moves nothing on the page but the pictures, on a desk or a phone", async () => {
    for (const width of [1400, 1210, 390]) {
      await browser.look({ width, height: 844 });
      await browser.go(`${viewed.base}/#/run7?source=left&at=${start + 300n * second}`);
      await at(301);
      const places = `JSON.stringify([...document.querySelectorAll(".dock, .controls > *:not(.message, .playing)")].map((one) => Math.round(one.getBoundingClientRect().top)))`;
      const before = await browser.read<string>(places);
      for (let press = 0; press < 5; press++) await browser.press("j");
      const state = `document.querySelector(".playing").textContent`;
      await browser.until("its speed", `${state} === "playing backwards at 16×"`);
      expect([width, await browser.read<string>(places)]).toEqual([width, before]);
      await browser.press("k");
    }
    await browser.look({ width: 1400, height: 900 });
  });

  test("the next gap is one click away, and says which frames are missing", async () => {
    const camera = new Camera(viewed.server, "holes", "camera", { policy: "latest:2" });
    await camera.store(picture, "first.png", start);
    for (let index = 0; index < 400; index++)
      camera.give(picture, `${index}.png`, start + BigInt(index + 1) * second);
    await camera.arrived();
    await camera.end();
    const { gaps } = await viewed.json<{ gaps: { first: number; last: number }[] }>(
      "/api/streams/holes/gaps",
    );
    const gap = gaps[0]!;
    await browser.go(`${viewed.base}/#/holes`);
    await browser.until("a frame", `Number(${panel("camera")}?.dataset.number) > 1`);
    await browser.press("Home");
    await at(1, "camera");
    await click("Next gap");
    await at(gap.last + 1, "camera");
    const note = await browser.read<string>(
      `document.querySelector("#recorded .message").textContent`,
    );
    expect(note.replaceAll(",", "")).toContain(`frames ${gap.first} to ${gap.last} are missing`);
  });

  test("another stream is shown at the same moment", async () => {
    await send(
      [
        { bytes: picture, name: "1.png", captured: start + 5n * second },
        { bytes: picture, name: "2.png", captured: start + 90n * second },
      ],
      { to: viewed.server.address, stream: "gate", source: "camera" },
    );
    await browser.go(`${viewed.base}/#/run7?source=left&at=${start + 6n * second}`);
    await at(7);
    const select = `document.querySelector(".recorded-head select")`;
    await browser.until(
      "the streams",
      `[...${select}.options].some(({ value }) => value === "gate")`,
    );
    await browser.read(
      `(() => { ${select}.value = "gate"; ${select}.dispatchEvent(new Event("change")); })()`,
    );
    await at(1, "camera");
  });

  test("fifty sources have a lane each, which scrolls, and a click on a lane chooses it", async () => {
    for (let number = 1; number <= 50; number++) {
      const frames = [0, 1, 2].map((index) => ({
        bytes: picture,
        name: `${index}.png`,
        captured: start + BigInt(index * 20 + number) * second,
      }));
      await send(frames, { to: viewed.server.address, stream: "many", source: `cam${number}` });
    }
    await browser.go(`${viewed.base}/#/many`);
    await at(3, "cam1");
    const lanes = `document.querySelector(".lanes")`;
    const [shown, whole] = await browser.read<[number, number]>(
      `[${lanes}.clientHeight, ${lanes}.scrollHeight]`,
    );
    expect([shown, whole]).toEqual([160, 1000]);
    const order = await browser.read<string>(
      `[...document.querySelectorAll(".panel")].slice(0, 3).map((one) => one.dataset.source).join()`,
    );
    expect(order).toBe("cam1,cam2,cam3");
    await browser.read(`(${lanes}.scrollTop = 160)`);
    await keepPicture(browser, "recorded-fifty");
    // The twelfth lane is the fourth that is in view.
    const { x, y } = await browser.read<Position>(
      `(({ left, top, width }) => ({ x: left + width / 2, y: top + 70 }))(${lanes}.getBoundingClientRect())`,
    );
    await browser.mouse("mousePressed", { x, y });
    await browser.mouse("mouseReleased", { x, y });
    await browser.until("its choice", `${panel("cam12")}.classList.contains("chosen")`);
  });

  test("the lanes show where a source has frames, from the server's count", async () => {
    await browser.go(`${viewed.base}/#/run7`);
    await at(600);
    const canvas = `document.querySelector(".lanes canvas")`;
    // Left of the middle the first lane has frames, and the second has none.
    const painted = (lane: number, share: number) =>
      `(() => {
        const [one, ratio] = [${canvas}, devicePixelRatio];
        const x = Math.round((140 + (one.clientWidth - 148) * ${share}) * ratio);
        const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
        pen.drawImage(one, -x, -(${lane} * 20 + 14) * ratio);
        return pen.getImageData(0, 0, 1, 1).data[3] > 0;
      })()`;
    await browser.until("the first lane", `${painted(0, 0.1)} && ${painted(0, 0.6)}`);
    await browser.until("the second lane", `!${painted(1, 0.1)} && ${painted(1, 0.6)}`);
  });
});
