// Pictures on the page in a real browser: their pixels and values against the stored bytes.
//
// Covers: http/page/picture-input.ts, http/page/recorded-video.ts, http/page/stored-picture.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { codecName } from "../../../src/http/page/video-player.ts";
import { Browser, noBrowser, type Position } from "../../helper/browser.ts";
import { displayOrder, groupLength, unitsOf } from "../../helper/encoded-video.ts";
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

/** Red, green and blue of a pixel of a large picture, whose neighbours all differ. */
const valueAt = (x: number, y: number) => [(x * 83) % 256, (y * 59) % 256, (x * 7 + y * 13) % 256];

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

/**
 * Reads pixels in the middle of a canvas as red, green, blue, row by row. All of its pixels would
 * take seconds.
 */
const pixelsOf = (view: string, across = 1, down = 1) => `(() => {
  const from = ${view}.querySelector(".picture canvas");
  const pen = new OffscreenCanvas(${across}, ${down}).getContext("2d", { willReadFrequently: true });
  const [left, top] = [from.width - ${across}, from.height - ${down}].map((rest) => Math.round(rest / 2));
  pen.drawImage(from, -left, -top);
  const { data } = pen.getImageData(0, 0, ${across}, ${down});
  return [...data].filter((_, at) => at % 4 < 3);
})()`;

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
    const data = await browser.read<number[]>(pixelsOf(panel("colour"), width, height));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = (y * width + x) * 3;
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
    expect(await browser.read<number[]>(pixelsOf(view))).toEqual([9, 90, 200]);
  });

  test("a thumbnail takes the pixels of its tile, and the value under the pointer is that of the stored pixel", async () => {
    const [wide, high] = [1600, 1200];
    const large = encodePng({
      ...{ width: wide, height: high, colour: "rgb8" },
      pixels: Buffer.from(
        Uint8Array.from({ length: wide * high * 3 }, (_, at) => {
          const pixel = Math.floor(at / 3);
          return valueAt(pixel % wide, Math.floor(pixel / wide))[at % 3]!;
        }).buffer,
      ),
    });
    await browser.look({ width: 390, height: 844 });
    await browser.go(viewed.base);
    await browser.read(`(() => {
      const draw = CanvasRenderingContext2D.prototype.drawImage;
      CanvasRenderingContext2D.prototype.drawImage = function (image, ...rest) {
        this.canvas.dataset.drawnWidth = image.width;
        return draw.call(this, image, ...rest);
      };
    })()`);
    const camera = new Camera(viewed.server, "yard", "large");
    await camera.store(large, "1.png");
    const canvas = `${tile("large")}?.querySelector(".picture canvas")`;
    await browser.until("the picture", `${tile("large")}?.dataset.shownNumber === "1"`);
    const [drawn, across] = await browser.read<[string, number]>(
      `[${canvas}.dataset.drawnWidth, ${canvas}.width]`,
    );
    expect(Number(drawn)).toBeLessThanOrEqual(across);
    const { x, y } = await browser.read<Position>(
      `(({ left, top, width, height }) => ({ x: left + width / 3, y: top + height / 2 }))(${canvas}.getBoundingClientRect())`,
    );
    for (const step of [0, 1, 2]) {
      await browser.mouse("mouseMoved", { x: x + step, y });
      const value = `${tile("large")}.querySelector(".value")`;
      await browser.until("a value", `!${value}.hidden`);
      const said = await browser.read<string>(`${value}.textContent`);
      const [, column, row, value1] = /^(\d+), (\d+): (.*)$/.exec(said)!;
      expect(value1).toBe(valueAt(Number(column), Number(row)).join(" "));
    }
    await browser.mouse("mouseMoved", { x: 1, y: 1 });
    await camera.store(large, "2.png");
    await browser.until("the next picture", `${tile("large")}.dataset.shownNumber === "2"`);
    expect(Number(await browser.read<string>(`${canvas}.dataset.drawnWidth`))).toBe(Number(drawn));
    await camera.end();
    await browser.look({ width: 1280, height: 900 });
  });

  test("f shows the wall, one source or a recorded picture on the whole screen, and ends that", async () => {
    const camera = new Camera(viewed.server, "yard", "front");
    await camera.store(colour, "1.png");
    for (const [hash, view, full] of [
      ["", tile("front"), `document.querySelector(".wall")`],
      ["#/yard?live&source=front", card("front"), `${card("front")}.querySelector(".picture")`],
      ["#/yard?source=front", panel("front"), `${panel("front")}.querySelector(".picture")`],
    ] as const) {
      await browser.go(`${viewed.base}/${hash}`);
      await browser.until("the picture", `${view}?.querySelector(".picture:not(.empty)")`);
      await browser.press("f");
      await browser.until("the whole screen", `document.fullscreenElement === ${full}`);
      const { width, height } = await browser.read<{ width: number; height: number }>(
        `document.fullscreenElement.getBoundingClientRect().toJSON()`,
      );
      expect([width, height]).toEqual([1280, 900]);
      await browser.press("f");
      await browser.until("its end", "document.fullscreenElement === null");
    }
    await camera.end();
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
    const middleOf = (view: string) => browser.read<number[]>(pixelsOf(view));

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

    test("each access unit with B-frames has its own picture, live, stepped and sought", async () => {
      const folder = temporaryFolder();
      const length = groupLength;
      const order = await displayOrder(join(folder, "clip.mp4"), "B-frames", length, input);
      const clip = await unitsOf(folder, "B-frames", length, input);
      // It shows what the test is about.
      expect(order.slice(0, 3)).not.toEqual([0, 1, 2]);
      const odd = new Camera(viewed.server, "video", "reordered");
      await browser.go(viewed.base);
      for (const [index, unit] of clip.entries()) {
        odd.give(unit, `${index + 1}.h264`, BigInt(index + 1) * 33_000_000n);
      }
      const expectUnit = async (view: string, attribute: string) => {
        const [number, data] = await browser.read<[string, number[]]>(
          `[${view}.dataset.${attribute}, ${pixelsOf(view)}]`,
        );
        const grey = greyOf(order[Number(number) - 1]! + 1);
        expect([number, ...data.map((channel) => Math.abs(channel - grey) < 1.5)]).toEqual([
          number,
          true,
          true,
          true,
        ]);
      };
      await odd.arrived();
      await browser.until("most pictures", `${tile("reordered")}?.dataset.shownCount > 20`);
      await expectUnit(tile("reordered"), "shownNumber");
      await odd.end();
      await browser.go(`${viewed.base}/#/video?source=reordered`);
      const view = panel("reordered");
      const at = (number: number) =>
        browser.until(`frame ${number}`, `${view}?.dataset.number === "${number}"`);
      await at(length);
      await expectUnit(view, "number");
      await browser.press("Home");
      await at(1);
      for (let number = 2; number <= 12; number++) {
        await browser.press("ArrowRight");
        await at(number);
        await expectUnit(view, "number");
      }
      for (const number of [7, 25, 3]) {
        await browser.press("g");
        await browser.type(`${number}`);
        await browser.press("Enter");
        await at(number);
        await expectUnit(view, "number");
      }
    });

    test("H.265 is shown live and recorded, or one sentence where the browser cannot decode it", async () => {
      const odd = new Camera(viewed.server, "modern", "camera");
      const [unit] = await unitsOf(temporaryFolder(), "H.265 main", 2);
      await odd.store(unit!, "1.h265");
      await browser.go(viewed.base);
      const canDecode = await browser.read<boolean>(
        `VideoDecoder.isConfigSupported({ codec: ${JSON.stringify(codecName(unit!, "h265"))} }).then(({ supported }) => supported)`,
      );
      console.log(`this browser ${canDecode ? "decodes" : "does not decode"} H.265`);
      const sentence =
        "This browser cannot decode H.265; latest.mjpeg shows it if the server has ffmpeg";
      for (const [hash, view] of [
        ["", tile("camera")],
        ["#/modern", panel("camera")],
      ] as const) {
        await browser.go(`${viewed.base}/${hash}`);
        const note = `${view}?.querySelector(".note")`;
        const isShown = canDecode
          ? `${view}?.querySelector(".picture:not(.empty)")`
          : `${note}?.textContent === ${JSON.stringify(sentence)} && !${note}.hidden`;
        await browser.until("the picture or the sentence", isShown);
      }
      await odd.end();
    });
  });
});
