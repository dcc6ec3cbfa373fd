// Pictures on the page in a real browser: their pixels and values against the stored bytes.
//
// Covers: http/page/picture-input.ts, http/page/recorded-video.ts, http/page/stored-picture.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Browser, noBrowser, type Position } from "../../helper/browser.ts";
import { groupLength, unitsOf } from "../../helper/encoded-video.ts";
import { needs } from "../../helper/ffmpeg.ts";
import { card, panel, tile } from "../../helper/page.ts";
import { encodePng } from "../../helper/png.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { Camera, startViewed, type Viewed } from "../../helper/viewing.ts";

const width = 40;
const height = 30;

/** Red, green and blue of a pixel of the test picture. */
const colourAt = (x: number, y: number) => [x * 6, y * 8, (x * 7 + y * 13) % 256];

const colour = encodePng({
  ...{ width, height, colour: "rgb8" },
  pixels: Buffer.from(
    Array.from({ length: width * height }, (_, at) =>
      colourAt(at % width, Math.floor(at / width)),
    ).flat(),
  ),
});

/** Value of a pixel of the thermal test picture. */
const warmthAt = (x: number, y: number) => 27_000 + x * 50 + y * 7;

const thermal = encodePng({
  ...{ width, height, colour: "grey16" },
  pixels: Buffer.from(
    Uint16Array.from({ length: width * height }, (_, at) =>
      warmthAt(at % width, Math.floor(at / width)),
    ).buffer,
  ).swap16(),
});

/** Reads the pixels of a canvas, row by row, as red, green, blue. */
const pixelsOf = (view: string) => `(() => {
  const from = ${view}.querySelector(".picture canvas");
  const copy = new OffscreenCanvas(from.width, from.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(from, 0, 0);
  const { data } = pen.getImageData(0, 0, from.width, from.height);
  return { width: from.width, height: from.height, data: [...data].filter((_, at) => at % 4 < 3) };
})()`;

interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: readonly number[];
}

/** Returns the position of a pixel of the picture that fits in the canvas of a view. */
const positionOf = (view: string, x: number, y: number) => `(() => {
  const box = ${view}.querySelector(".picture canvas").getBoundingClientRect();
  const scale = Math.min(box.width / ${width}, box.height / ${height});
  return {
    x: box.left + (box.width - ${width} * scale) / 2 + (${x} + 0.5) * scale,
    y: box.top + (box.height - ${height} * scale) / 2 + (${y} + 0.5) * scale,
  };
})()`;

const valueOf = (view: string) => `${view}.querySelector(".value").textContent`;

describe.skipIf(noBrowser !== "")(`${noBrowser}a picture`, () => {
  let viewed: Viewed;
  let browser: Browser;
  const position = (view: string, x: number, y: number) =>
    browser.read<Position>(positionOf(view, x, y));

  beforeAll(async () => {
    viewed = await startViewed();
    const cameras = [
      new Camera(viewed.server, "yard", "colour"),
      new Camera(viewed.server, "yard", "thermal"),
    ];
    for (const [index, bytes] of [colour, thermal].entries()) {
      await cameras[index]!.store(bytes, "1.png", 1_700_000_000_000_000_000n);
      await cameras[index]!.end();
    }
    browser = await Browser.open();
    await browser.look({ width: 1280, height: 900 });
  });

  afterAll(async () => {
    expect(browser?.console).toEqual([]);
    browser?.close();
    await viewed?.[Symbol.asyncDispose]();
  });

  test("a picture at 1:1 has the stored pixels, and the value under the pointer is that of the pixel", async () => {
    await browser.go(`${viewed.base}/#/yard?source=colour`);
    await browser.until(
      "both pictures",
      `${panel("colour")}?.dataset.number === "1" && ${panel("thermal")}?.dataset.number === "1"`,
    );
    await browser.read(`${panel("colour")}.querySelector("canvas").focus()`);
    await browser.press("1");
    const { data, ...size } = await browser.read<Pixels>(pixelsOf(panel("colour")));
    const [left, top] = [
      Math.round((size.width - width) / 2),
      Math.round((size.height - height) / 2),
    ];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = ((top + y) * size.width + left + x) * 3;
        expect([x, y, ...data.slice(at, at + 3)]).toEqual([x, y, ...colourAt(x, y)]);
      }
    }
    await browser.press("0");
    for (const [x, y] of [
      [0, 0],
      [39, 0],
      [17, 29],
      [23, 11],
    ] as const) {
      await browser.mouse("mouseMoved", await position(panel("colour"), x, y));
      await browser.until("the pixel", `${valueOf(panel("colour"))}.startsWith("${x}, ${y}: ")`);
      const said = await browser.read<string>(valueOf(panel("colour")));
      expect(said).toBe(`${x}, ${y}: ${colourAt(x, y).join(" ")}`);
      // The cursor is linked, so the other picture says its own value of the same pixel.
      const other = await browser.read<string>(valueOf(panel("thermal")));
      expect(other.replaceAll(",", "")).toBe(`${x} ${y}: ${warmthAt(x, y)}`);
    }
  });

  test("a tap shows the value under the finger, and it stays", async () => {
    const finger = await position(panel("thermal"), 12, 5);
    await browser.touch("touchStart", [finger]);
    await browser.touch("touchEnd");
    const spoken = `document.querySelector("#announcer").textContent`;
    await browser.until("the value", `${spoken}.startsWith("12, 5: ")`);
    const said = await browser.read<string>(valueOf(panel("thermal")));
    expect(said.replaceAll(",", "")).toBe(`12 5: ${warmthAt(12, 5)}`);
    expect(await browser.read<string>(spoken)).toBe(said);
  });

  test("the wheel zooms around the pointer, two fingers pinch, and a drag moves the picture", async () => {
    const view = panel("colour");
    const [from, to] = [await position(view, 10, 10), await position(view, 20, 10)];
    const isZoomed = `document.querySelector(".zoomed") !== null`;
    for (let turn = 0; turn < 8; turn++) await browser.mouse("mouseWheel", from, -100);
    await browser.until("the zoom", isZoomed);
    await browser.mouse("mouseMoved", from);
    await browser.until("the same pixel", `${valueOf(view)}.startsWith("10, 10: ")`);
    // The neighbour of the pixel is further away now.
    await browser.mouse("mouseMoved", await position(view, 11, 10));
    await browser.until("still the same", `${valueOf(view)}.startsWith("10, 10: ")`);
    await browser.mouse("mouseMoved", from);
    await browser.mouse("mousePressed", from);
    await browser.mouse("mouseMoved", to);
    await browser.mouse("mouseReleased", to);
    await browser.until("the pixel at its new place", `${valueOf(view)}.startsWith("10, 10: ")`);
    await browser.read(
      `[...document.querySelectorAll("#recorded .view-tools button")].find((one) => one.textContent === "Fit").click()`,
    );
    expect(await browser.read<boolean>(isZoomed)).toBe(false);
    const [left, right] = [await position(view, 15, 15), await position(view, 25, 15)];
    await browser.touch("touchStart", [left, right]);
    await browser.touch("touchMove", [left, await position(view, 35, 15)]);
    await browser.touch("touchEnd");
    await browser.until("the zoom of two fingers", isZoomed);
    await browser.press("0");
  });

  test("pictures of 1x1 and of 20,000x20,000 pixels are shown, or the page says why not", async () => {
    const camera = new Camera(viewed.server, "sizes", "camera");
    const dot = encodePng({
      width: 1,
      height: 1,
      colour: "rgb8",
      pixels: Buffer.from([9, 90, 200]),
    });
    await camera.store(dot, "1.png", 1n);
    // A header that promises more than it has.
    const large = Buffer.from(dot);
    large.writeUInt32BE(20_000, 16);
    large.writeUInt32BE(20_000, 20);
    await camera.store(large, "2.png", 2n);
    await camera.store(colour, "3.png", 3n);
    await camera.end();
    await browser.go(`${viewed.base}/#/sizes`);
    const view = panel("camera");
    await browser.until("the last frame", `${view}?.dataset.number === "3"`);
    await browser.press("ArrowLeft");
    await browser.until("the large frame", `${view}.dataset.number === "2"`);
    expect(await browser.read<string>(`${view}.querySelector(".note").textContent`)).toBe(
      "This page cannot show 20000x20000 pixels; the stored frame can be downloaded",
    );
    await browser.press("ArrowLeft");
    await browser.until("the small frame", `${view}.dataset.number === "1"`);
    const { data, ...size } = await browser.read<Pixels>(pixelsOf(view));
    const middle = ((size.height >> 1) * size.width + (size.width >> 1)) * 3;
    expect(data.slice(middle, middle + 3)).toEqual([9, 90, 200]);
  });

  describe.skipIf(needs !== "")(`${needs}of encoded video`, () => {
    const pictures = 2 * groupLength;
    /** Grey of each picture, 3 apart, and what a browser makes of it. */
    const input = [
      "-f",
      "lavfi",
      "-i",
      "color=black:size=64x48:rate=30,geq=lum='16+3*N':cb=128:cr=128",
    ];
    const greyOf = (number: number) => ((number - 1) * 3 * 255) / 219;
    let units: readonly Uint8Array[];
    let camera: Camera;

    /** Red, green and blue in the middle of a picture. */
    const middleOf = async (view: string) => {
      const { data, ...size } = await browser.read<Pixels>(pixelsOf(view));
      const middle = ((size.height >> 1) * size.width + (size.width >> 1)) * 3;
      return data.slice(middle, middle + 3);
    };

    const expectPicture = async (view: string, number: number) => {
      for (const channel of await middleOf(view)) {
        expect(Math.abs(channel - greyOf(number))).toBeLessThan(1.5);
      }
    };

    beforeAll(async () => {
      units = await unitsOf(temporaryFolder(), "main", pictures, input);
      camera = new Camera(viewed.server, "video", "gate");
    });

    const give = (number: number) =>
      camera.give(units[number - 1]!, `${number}.h264`, BigInt(number) * 33_000_000n);

    test("live video is decoded from its key frame on, each picture with its number", async () => {
      for (let number = 1; number <= 5; number++) give(number);
      await browser.go(viewed.base);
      await browser.until("the fifth picture", `${tile("gate")}?.dataset.shownNumber === "5"`);
      await expectPicture(tile("gate"), 5);
      for (let number = 6; number <= pictures; number++) {
        give(number);
        if (number % 10 !== 0) continue;
        await browser.until(
          `picture ${number}`,
          `${tile("gate")}.dataset.shownNumber === "${number}"`,
        );
        await expectPicture(tile("gate"), number);
      }
      await browser.go(`${viewed.base}/#/video?live&source=gate`);
      await browser.until("it large", `${card("gate")}?.dataset.shownNumber === "${pictures}"`);
      await expectPicture(card("gate"), pictures);
      await camera.end();
    });

    test("recorded video is stepped, sought and played", async () => {
      await browser.go(`${viewed.base}/#/video`);
      const view = panel("gate");
      const at = (number: number) =>
        browser.until(`frame ${number}`, `${view}?.dataset.number === "${number}"`);
      await at(pictures);
      await expectPicture(view, pictures);
      for (const [key, number] of [
        ["ArrowLeft", pictures - 1],
        ["ArrowLeft", pictures - 2],
        ["ArrowRight", pictures - 1],
        ["Home", 1],
        ["ArrowRight", 2],
      ] as const) {
        await browser.press(key);
        await at(number);
        await expectPicture(view, number);
      }
      await browser.press("g");
      await browser.type("47");
      await browser.press("Enter");
      await at(47);
      await expectPicture(view, 47);
      await browser.press("Home");
      await at(1);
      await browser.press("l");
      await at(pictures);
      await expectPicture(view, pictures);
    });

    test("a source that changes from video to pictures and to another size is shown on", async () => {
      const odd = new Camera(viewed.server, "video", "odd");
      await odd.store(units[0]!, "1.h264");
      await browser.go(viewed.base);
      const shown = `${tile("odd")}?.dataset.shownNumber`;
      await browser.until("the video", `${shown} === "1"`);
      await odd.store(thermal, "2.png");
      await browser.until("the picture", `${shown} === "2"`);
      const larger = await unitsOf(temporaryFolder(), "high", 1, [
        "-f",
        "lavfi",
        "-i",
        "color=white:size=128x64",
      ]);
      await odd.store(larger[0]!, "3.h264");
      await browser.until("the other video", `${shown} === "3"`);
      expect(await middleOf(tile("odd"))).toEqual([255, 255, 255]);
      await odd.end();
    });

    test("video that the browser cannot decode has one sentence instead", async () => {
      const odd = new Camera(viewed.server, "video", "modern");
      const h265 = await unitsOf(temporaryFolder(), "H.265 main", 2);
      await odd.store(h265[0]!, "1.h265");
      await browser.go(viewed.base);
      const note = `${tile("modern")}?.querySelector(".note")`;
      await browser.until(
        "a sentence or the picture",
        `${tile("modern")}?.dataset.shownNumber === "1"`,
      );
      const text = await browser.read<string>(`${note}.textContent`);
      expect([
        "",
        "This browser cannot decode H.265; latest.mjpeg shows it if the server has ffmpeg",
      ]).toContain(text);
      await odd.end();
    });
  });
});
