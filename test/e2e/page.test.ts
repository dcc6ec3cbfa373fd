// The page of the executable in a real browser, while frames are being sent.
//
// Covers: http/page/api.ts, http/page/close-up.ts, http/page/decode-worker.ts,
//   http/page/dialogs.ts, http/page/dom.ts,
//   http/page/event-stream.ts, http/page/frame-image.ts, http/page/frame-navigator.ts,
//   http/page/frame-panel.ts,
//   http/page/frame-decoder.ts, http/page/keyboard.ts, http/page/live-frames.ts,
//   http/page/live-picture.ts, http/page/live-source-view.ts, http/page/live-view.ts,
//   http/page/login.ts, http/page/overview.ts, http/page/page.ts, http/page/palette-scale.ts,
//   http/page/picture.ts, http/page/picture-input.ts, http/page/plot.ts,
//   http/page/recorded-view.ts, http/page/source-card.ts, http/page/stored-list.ts,
//   http/page/stream-select.ts, http/page/tile.ts, http/page/timeline.ts, http/page/transport.ts,
//   http/page/view-tools.ts, http/page/wall.ts,
//   http/routes/page-files.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { FrameFeed, send } from "../../src/mod.ts";
import { Browser, noBrowser } from "../helper/browser.ts";
import {
  card,
  colours,
  height,
  keepPicture,
  PageCamera,
  pageOf,
  panel,
  rate,
  scene,
  tile,
  width,
} from "../helper/page.ts";
import { type Server, startServer, temporaryFolder } from "../helper/program.ts";

describe.skipIf(noBrowser !== "")(`${noBrowser}Page`, () => {
  let server: Server;
  let browser: Browser;
  let cameras: readonly PageCamera[] = [];
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
      new PageCamera(server, "visible", visible, 60),
      new PageCamera(server, "infrared", thermal, 6000),
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

  test("the wall shows two sources side by side in natural order, both moving", async () => {
    for (const source of ["visible", "infrared"]) {
      await browser.until(`a frame of ${source}`, `${tile(source)}?.dataset.shownCount > 10`);
      const before = await browser.read<string>(`JSON.stringify(${colours(tile(source))})`);
      await browser.until(
        `another picture of ${source}`,
        `JSON.stringify(${colours(tile(source))}) !== ${JSON.stringify(before)}`,
      );
    }
    type Box = { x: number; y: number; bottom: number };
    const [infrared, visible] = await browser.read<[Box, Box]>(
      `[${tile("infrared")}, ${tile("visible")}].map((one) => one.getBoundingClientRect().toJSON())`,
    );
    expect(visible.y).toBe(infrared.y);
    expect(visible.x).toBeGreaterThan(infrared.x + 300);
    expect(visible.bottom).toBeLessThanOrEqual(900);
  });

  test("the wall shows frame rates that are right within a tenth", async () => {
    const said = ["visible", "infrared"].map(
      (source) => `parseFloat(${tile(source)}.querySelector(".rate").textContent)`,
    );
    const isRight = (figure: string) => `Math.abs(${figure} - ${rate}) <= ${rate / 10}`;
    await browser.until("rates that are right", said.map(isRight).join(" && "));
  });

  test("the wall shows a gap after frames were dropped", async () => {
    const gaps = `Number(${tile("visible")}.dataset.gaps)`;
    const before = await browser.read<number>(gaps);
    cameras[0]!.burst(600);
    await browser.until("a gap", `${gaps} > ${before}`);
    const text = `${tile("visible")}.querySelector(".gaps").textContent`;
    expect(await browser.read<string>(text)).toMatch(/^[1-9][\d,]* missing$/);
    expect(await browser.read<string>(`${tile("infrared")}.dataset.gaps`)).toBe("0");
    expect(await browser.read<boolean>(`${tile("infrared")}.querySelector(".gaps").hidden`)).toBe(
      true,
    );
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

  test("a paused wall says PAUSED with the number of each picture, and calls none live", async () => {
    const shown = `Number(${tile("visible")}.dataset.shownNumber)`;
    const newest = `Number(${tile("visible")}.dataset.number)`;
    const badge = `${tile("visible")}.querySelector(".badge")`;
    const state = `${tile("visible")}.querySelector(".state").textContent`;
    await browser.until("a live picture", `${state} === "live"`);
    await browser.press(" ");
    await browser.until("the pause", `${state} === "paused"`);
    // A picture that came before the pause may still be drawn.
    const last = await browser.read<number>(shown);
    await browser.until("more frames at the server", `${newest} > ${last + rate}`);
    const number = await browser.read<number>(shown);
    const picture = await browser.read<string>(`JSON.stringify(${colours(tile("visible"))})`);
    await browser.until("even more frames", `${newest} > ${number + 2 * rate}`);
    expect(await browser.read<string>(`JSON.stringify(${colours(tile("visible"))})`)).toBe(picture);
    const said = (await browser.read<string>(`${badge}.textContent`)).replaceAll(",", "");
    expect(said).toMatch(new RegExp(`^PAUSED frame ${number} of \\d\\d:\\d\\d:\\d\\d.\\d{3} UTC$`));
    expect(await browser.read<string>(state)).toBe("paused");
    const label = `${tile("visible")}.querySelector(".picture canvas").getAttribute("aria-label")`;
    expect((await browser.read<string>(label)).replaceAll(",", "")).toContain(`frame ${number} of`);
    await keepPicture(browser, "paused");
    await browser.press(" ");
    await browser.until(
      "a newer picture",
      `${shown} > ${number + 2 * rate} && ${state} === "live" && ${badge}.hidden`,
    );
  });

  test("Enter on a tile shows its source large, with figures, and Escape leads back", async () => {
    await browser.read(`${tile("infrared")}.querySelector("a").focus()`);
    await browser.press("Enter");
    const large = card("infrared");
    await browser.until("a frame", `${large}?.dataset.shownCount > 10`);
    const box = `${large}.querySelector(".picture").getBoundingClientRect()`;
    expect(await browser.read<number>(`${box}.width`)).toBeGreaterThan(1150);
    expect(await browser.read<number>(`document.querySelector(".wall").clientHeight`)).toBe(0);
    await browser.until("its delay", `${large}.dataset.shownDelay > 0`);
    const delay = await browser.read<string>(`${large}.dataset.shownDelay`);
    const received = await browser.read<string>(
      `${large}.querySelectorAll(".figures dd")[2].textContent`,
    );
    console.log(
      `infrared: from capture to receipt ${received}, to the screen ${delay} ms (medians)`,
    );
    await browser.press("]");
    await browser.until("the next source", `${card("visible")}?.dataset.shownCount > 0`);
    expect(await browser.read<boolean>(`${card("infrared")} === null`)).toBe(true);
    await browser.press("Escape");
    await browser.until("the wall", `document.querySelector(".wall").clientHeight > 300`);
  });

  test("a thermal frame is shown in the iron palette with full contrast", async () => {
    await browser.click('.wall [data-source="infrared"] a');
    await browser.until("a frame", `${card("infrared")}?.dataset.shownCount > 0`);
    const palette = await browser.read(
      `${card("infrared")}.querySelector(".scale").dataset.palette`,
    );
    expect(palette).toBe("iron");
    const seen = await browser.read<[number, number, number][]>(colours(card("infrared")));
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

  test("all live sources of a stream are shown side by side, with one zoom and cursor", async () => {
    await browser.read(
      `[...document.querySelectorAll(".close-up header a")].find((one) => one.textContent.includes("side by side")).click()`,
    );
    await browser.until(
      "both sources",
      `${card("infrared")}?.dataset.shownCount > 0 && ${card("visible")}?.dataset.shownCount > 0`,
    );
    await browser.read(`${card("infrared")}.querySelector(".picture canvas").focus()`);
    await browser.press("+");
    await browser.press("Enter");
    for (const source of ["infrared", "visible"]) {
      const picture = `${card(source)}.querySelector(".picture")`;
      await browser.until(`the zoom of ${source}`, `${picture}.classList.contains("zoomed")`);
      await browser.until(
        `the value of ${source}`,
        `${picture}.querySelector(".value").textContent.startsWith("160, 120: ")`,
      );
    }
    await browser.press("0");
    await browser.until("no zoom", `document.querySelector(".zoomed") === null`);
    await browser.go(address);
  });

  test("the wall remembers its order, and which sources are hidden", async () => {
    const order = `[...document.querySelectorAll(".tile")].map((one) => one.dataset.source).join()`;
    await browser.until("both tiles", `${order} === "infrared,visible"`);
    await browser.click(".wall-tools button");
    await browser.read(`${tile("infrared")}.querySelectorAll(".arrange button")[1].click()`);
    expect(await browser.read<string>(order)).toBe("visible,infrared");
    await browser.read(`${tile("visible")}.querySelectorAll(".arrange button")[2].click()`);
    await browser.go(address);
    await browser.until("one tile", `${order} === "infrared"`);
    const count = `document.querySelector(".wall .about").textContent`;
    await browser.until("the number", `${count} === "2 sources, 1 hidden"`);
    await browser.click(".wall-tools button");
    await browser.click(".hidden-sources button");
    await browser.until("both tiles in their order", `${order} === "visible,infrared"`);
    await browser.read("localStorage.clear()");
    await browser.go(address);
    await browser.until("both tiles", `${order} === "infrared,visible"`);
  });

  test("a source whose sender has ended leaves the wall and stays in the list", async () => {
    const to = { to: `127.0.0.1:${server.port}`, stream: "upload" };
    await send([{ bytes: scene("rgb8", 0), name: "1.png" }], { ...to, source: "finished" });
    const row = `document.querySelector('.stored [data-stream="upload"]')`;
    await browser.until("its row", row);
    expect(await browser.read<boolean>(`${tile("finished")} === null`)).toBe(true);
    await browser.read(`${row}.scrollIntoView()`);
    const still = `${row}.querySelector(".picture")`;
    await browser.until("its still", `!${still}.classList.contains("empty")`);
    expect(await browser.read<string>(`${row}.textContent`)).toMatch(/upload.*finished.*1 frame/);
    await browser.read("scrollTo(0, 0)");
  });

  test("a frame that the page cannot show has a reason, and nothing of the one before", async () => {
    const to = { to: `127.0.0.1:${server.port}`, stream: "strange" };
    const good = scene("grey16", 0);
    const feed = new FrameFeed();
    const sending = send(feed, { ...to, source: "camera" });
    await feed.push({ bytes: good, name: "1.png" });
    await browser.until("a tile", `${tile("camera")}?.dataset.shownNumber === "1"`);
    await browser.click('.wall [data-source="camera"] a');
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
    const shown = panel("camera");
    await browser.until("the last frame", `${shown}?.dataset.number === "2"`);
    expect(await browser.read<boolean>(`${shown}.querySelector(".note").hidden`)).toBe(true);
    await browser.press("Home");
    await browser.until("the first frame", `${shown}.dataset.number === "1"`);
    expect(await browser.read<boolean>(`${shown}.querySelector(".note").hidden`)).toBe(false);
    expect(await browser.read<string>(`${shown}.querySelector(".facts").textContent`)).toContain(
      "name1.png",
    );
    await browser.press("End");
    await browser.until("the last frame again", `${shown}.dataset.number === "2"`);
    expect(await browser.read<boolean>(`${shown}.querySelector(".note").hidden`)).toBe(true);
    // The browser logs the refused request.
    browser.console.length = 0;
    await browser.go(address);
  });

  test("the page steps through recorded frames and goes to a frame by its number", async () => {
    await browser.go(`${address}#/run7?source=visible`);
    const shown = `${panel("visible")}?.dataset`;
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
      `${panel("visible")}.querySelector(".facts").textContent`,
    );
    expect(facts).toMatch(/name\S+-00000012\.jpgnumber12captured.* UTC.*CRC-32[0-9a-f]{8}session/);
    const link = await browser.read<string>(`${panel("visible")}.querySelector(".download").href`);
    const kept = await (await fetch(link)).bytes();
    expect(facts).toContain(Bun.hash.crc32(kept).toString(16).padStart(8, "0"));
  });

  test("the page shows names with HTML in them as text and runs no script", async () => {
    const [stream, source] = ["<b>bold", "<img src=x onerror=console.log(1)>"];
    const frame = { bytes: scene("rgb8", 0), name: "<script>console.log(2)<" };
    await send([frame], { to: `127.0.0.1:${server.port}`, stream, source });
    await browser.go(address);
    const named = `document.querySelector("#live").textContent`;
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
          const shown = `#${view} [data-source="infrared"] .picture:not(.empty)`;
          await browser.until("a picture", `document.querySelector('${shown}')`);
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
          await keepPicture(browser, `${view}-${across}-${scheme}`);
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
    const states = `[...document.querySelectorAll(".tile .state")].map((one) => one.textContent)`;
    expect(new Set(await browser.read<string[]>(states))).toEqual(new Set(["no connection"]));
    const { port } = new URL(address);
    const { dir } = server;
    server = await startServer({ dir, args: ["--http", `127.0.0.1:${port}`] });
    await browser.until("the server again", `${link} === "Connected"`);
  });
});
