// Problems and times on the page in a real browser.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { FrameFeed, send } from "frames";
import { Browser, noBrowser } from "../../helper/browser.ts";
import { panel, scene, tile } from "../../helper/page.ts";
import { startViewed, type Viewed } from "../../helper/viewing.ts";

describe.skipIf(noBrowser !== "")(`${noBrowser}the overview`, () => {
  let viewed: Viewed;
  let browser: Browser;
  const button = `document.querySelector("#to-problems").textContent`;
  const list = `document.querySelector("#problems").textContent`;

  beforeAll(async () => {
    viewed = await startViewed();
    browser = await Browser.open();
    await browser.look({ width: 1400, height: 900 });
    await browser.go(viewed.base);
  });

  afterAll(async () => {
    expect(browser?.console).toEqual([]);
    browser?.close();
    await viewed?.[Symbol.asyncDispose]();
  });

  /** Makes the server report a problem. */
  const disturb = () => fetch(`http://${viewed.server.address}/`);

  test("a sender that is interrupted is no problem, and its tile goes", async () => {
    const feed = new FrameFeed();
    const stop = new AbortController();
    const sending = send(feed, {
      ...{ to: viewed.server.address, stream: "yard", source: "camera" },
      signal: stop.signal,
    });
    await feed.push({ bytes: scene("rgb8", 0), name: "1.png" });
    await browser.until("its tile", `${tile("camera")}?.dataset.shownCount > 0`);
    stop.abort();
    await sending.catch(() => {});
    await browser.until("no tile", `document.querySelector(".tile") === null`);
    expect(await browser.read<string>(button)).toBe("No problems");
  });

  test("problems that were cleared stay cleared, and new ones are shown", async () => {
    await disturb();
    await browser.until("the problem", `${button} === "1 problem"`);
    expect(await browser.read<string>(list)).toContain("The client sent an HTTP request");
    await browser.read(
      `[...document.querySelectorAll("#problems button")].find((one) => one.textContent === "Clear").click()`,
    );
    expect(await browser.read<string>(button)).toBe("No problems");
    expect(await browser.read<string>(list)).toBe("No problems since they were cleared.");
    await browser.go(viewed.base);
    await browser.until("the page", `document.querySelector("#link").textContent === "Connected"`);
    expect(await browser.read<string>(button)).toBe("No problems");
  });

  test("times are shown in UTC or in local time, as the user chose before", async () => {
    const captured = BigInt(Date.parse("2026-11-25T20:14:06.123Z")) * 1_000_000n;
    await send([{ bytes: scene("rgb8", 0), name: "1.png", captured }], {
      ...{ to: viewed.server.address, stream: "times", source: "camera" },
    });
    await browser.timeZone("Asia/Kolkata");
    await browser.go(`${viewed.base}/#/times`);
    await browser.until("the frame", `${panel("camera")}?.dataset.number === "1"`);
    const moment = `document.querySelector(".moment").textContent`;
    expect(await browser.read<string>(moment)).toBe("2026-11-25 20:14:06.123 UTC  frame 1");
    await browser.click("#zone");
    expect(await browser.read<string>(moment)).toBe("2026-11-26 01:44:06.123 UTC+5:30  frame 1");
    expect(
      await browser.read<string>(`${panel("camera")}.querySelector(".facts").textContent`),
    ).toContain("2026-11-26 01:44:06.123 000 000 UTC+5:30");
    await browser.go(`${viewed.base}/#/times`);
    await browser.until("the same", `${moment} === "2026-11-26 01:44:06.123 UTC+5:30  frame 1"`);
    await browser.click("#zone");
    expect(await browser.read<string>(moment)).toBe("2026-11-25 20:14:06.123 UTC  frame 1");
  });
});
