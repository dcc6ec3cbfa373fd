// A recording with a time without frames on the page in a real browser: gaps, moments and messages.
//
// Covers: http/page/gap-finder.ts, http/page/frame-navigator.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { send } from "frames";
import { Browser, noBrowser, type Position } from "../../helper/browser.ts";
import { keepPicture, panel, scene } from "../../helper/page.ts";
import { startViewed, type Viewed } from "../../helper/viewing.ts";

const second = 1_000_000_000n;
const start = BigInt(Date.parse("2026-11-25T14:00:00Z")) * 1_000_000n;

describe.skipIf(noBrowser !== "")(`${noBrowser}a recording with a hole`, () => {
  let viewed: Viewed;
  let browser: Browser;
  const picture = scene("rgb8", 0);

  const click = (label: string) =>
    browser.read(
      `[...document.querySelectorAll("#recorded button")].find((one) => one.getAttribute("aria-label") === ${JSON.stringify(label)}).click()`,
    );
  const at = (number: number, source = "gate") =>
    browser.until(`frame ${number}`, `${panel(source)}?.dataset.number === "${number}"`);
  const message = `(({ hidden, textContent }) => hidden ? "" : textContent)(document.querySelector(".message"))`;
  const says = (text: string) => browser.until(text, `${message} === ${JSON.stringify(text)}`);
  const open = (source: string, seconds: bigint) =>
    browser.go(`${viewed.base}/#/yard?source=${source}&at=${start + seconds * second}`);

  beforeAll(async () => {
    viewed = await startViewed();
    // Ten minutes with a frame a second. The gate was away from 14:05:30 to 14:06:30.
    for (const source of ["door", "gate"]) {
      const times = Array.from({ length: 600 }, (_, index) => index);
      const frames = times
        .filter((time) => source === "door" || time <= 330 || time >= 390)
        .map((time, index) => ({
          bytes: picture,
          name: `${index + 1}.png`,
          captured: start + BigInt(time) * second,
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

  test("the next gap is also a time without frames, in both directions, and ends the message before it", async () => {
    await open("gate", 0n);
    await at(1);
    await browser.press("n");
    await at(332);
    await says("gate: 1 min without frames");
    await click("Next gap");
    await says("gate has no gap after this frame");
    await browser.press("ArrowRight");
    await at(333);
    expect(await browser.read<string>(message)).toBe("");
    await click("Previous gap");
    await at(332);
    await says("gate: 1 min without frames");
  });

  test("where the selected source has no gap, the next one of another is shown, and says so", async () => {
    await open("door", 0n);
    await at(1, "door");
    await at(1, "gate");
    await click("Next gap");
    await says("door has no gap after this frame; gate: 1 min without frames");
    await at(332);
    expect(await browser.read<boolean>(`${panel("gate")}.classList.contains("chosen")`)).toBe(true);
  });

  test("messages move nothing, and lie where the user typed, also on a phone", async () => {
    for (const [width, height] of [
      [1400, 900],
      [390, 844],
    ] as const) {
      await browser.look({ width, height });
      await open("gate", 0n);
      await at(1);
      const places = `JSON.stringify([scrollY, ...[...document.querySelectorAll("#recorded .panel, .dock")].map((one) => Math.round(one.getBoundingClientRect().top))])`;
      const before = await browser.read<string>(places);
      await browser.press("g");
      await browser.type("14:06");
      expect(await browser.read<string>(places)).toBe(before);
      await browser.press("Enter");
      await says("No frame at 14:06:00; the last is at 14:05:30");
      expect(await browser.read<string>(places)).toBe(before);
      const isVisible = await browser.read<boolean>(
        `(({ left, top, right, bottom }) => left >= 0 && top >= 0 && right <= ${width} && bottom <= ${height})(document.querySelector(".message").getBoundingClientRect())`,
      );
      expect(isVisible).toBe(true);
      await keepPicture(browser, `message-${width}`);
    }
    await browser.look({ width: 1400, height: 900 });
  });

  test("a time that no frame has is told, with the day if it is another", async () => {
    await open("gate", 0n);
    await at(1);
    for (const [text, expected] of [
      ["23:00", "No frame at 23:00:00; the last is at 14:09:59"],
      ["14:06:20", "No frame at 14:06:20; the next is at 14:06:30"],
      ["2026-11-24 10:00", "No frame at 2026-11-24 10:00:00; the next is at 2026-11-25 14:00:00"],
    ] as const) {
      await browser.press("g");
      await browser.type(text);
      await browser.press("Enter");
      await says(expected);
    }
    await browser.press("g");
    await browser.type("14:06:30");
    await browser.press("Enter");
    await says("");
  });

  test("an address and another stream at the same time also tell that they have no frame of it", async () => {
    await open("gate", 360n);
    await at(331);
    await says("No frame at 14:06:00; the last is at 14:05:30");
    await send([{ bytes: picture, name: "1.png", captured: start - 86_400n * second }], {
      ...{ to: viewed.server.address, stream: "yesterday", source: "camera" },
    });
    await open("gate", 400n);
    await at(342);
    const select = `document.querySelector(".recorded-head select")`;
    await browser.until("the streams", `${select}.options.length === 2`);
    await browser.read(
      `(() => { ${select}.value = "yesterday"; ${select}.dispatchEvent(new Event("change")); })()`,
    );
    await at(1, "camera");
    await says("No frame at 2026-11-25 14:06:40; the last is at 2026-11-24 14:00:00");
  });

  test("a click in the hole of a lane goes to its time, which the other source has frames of", async () => {
    await open("gate", 0n);
    await at(1);
    const { x, y } = await browser.read<Position>(
      `(({ left, top, width }) => ({ x: left + 140 + (width - 148) * 355 / 599, y: top + 30 }))(document.querySelector(".lanes").getBoundingClientRect())`,
    );
    for (const type of ["mousePressed", "mouseReleased"] as const)
      await browser.mouse(type, { x, y });
    await at(331);
    await browser.until(
      "the time",
      `document.querySelector(".moment").textContent.includes("14:05:5")`,
    );
    await browser.until("it", `Math.abs(Number(${panel("door")}.dataset.number) - 356) <= 1`);
    expect(await browser.read<boolean>(`${panel("gate")}.classList.contains("far")`)).toBe(true);
    await keepPicture(browser, "recorded-hole");
    // A step goes on from the frame shown.
    await browser.press("ArrowRight");
    await at(332);
  });
});
