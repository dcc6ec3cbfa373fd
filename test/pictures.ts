// Makes the screenshots of the README and of the help pages, in a real Chromium. Takes two minutes.
//
//   bun .ci/build.ts --here && bun test/pictures.ts

import { join } from "node:path";
import { FrameFeed, send } from "../src/mod.ts";
import { Browser, type Position } from "./helper/browser.ts";
import { panel, tile } from "./helper/page.ts";
import { startServer, temporaryFolder } from "./helper/program.ts";
import { drawScene } from "./helper/scene.ts";

const folder = join(import.meta.dir, "../src/cli/help/images");
/** Largest size of a picture in bytes. */
const maxBytes = 300_000;
/** Frames of a pass of the car, and frames a second. */
const shots = 90;
const rate = 15;
/** Cameras; `start` is where the pass of the car begins, as a share. */
const sources = [
  { name: "depth", camera: "depth", width: 320, height: 240, start: 0 },
  { name: "gate", camera: "visible", width: 640, height: 480, start: 0.62 },
  { name: "thermal", camera: "thermal", width: 320, height: 240, start: 0 },
  { name: "visible", camera: "visible", width: 640, height: 480, start: 0 },
] as const;

/** Saves what the browser shows. */
async function save(browser: Browser, name: string): Promise<void> {
  const png = await browser.picture();
  await Bun.write(join(folder, name), png);
  if (png.length > maxBytes) throw new Error(`${name} has ${png.length} bytes`);
  console.log(`${name}: ${png.length} bytes`);
}

async function main(): Promise<void> {
  const pictures = await Promise.all(
    sources.map(({ camera, width, height, start }) =>
      Promise.all(
        Array.from({ length: shots }, async (_, shot) => {
          const png = drawScene(camera, width, height, (start + shot / shots) % 1);
          return camera === "visible"
            ? await new Bun.Image(png).jpeg({ quality: 92 }).bytes()
            : png;
        }),
      ),
    ),
  );
  const server = await startServer({ dir: join(temporaryFolder(), "frames"), http: "127.0.0.1:0" });
  const to = `127.0.0.1:${server.port}`;
  const feeds = sources.map(() => new FrameFeed());
  const sent = sources.map(({ name }, at) =>
    send(feeds[at]!, { to, stream: "yard", source: name, policy: "latest:60" }),
  );
  let shot = 0;
  const timer = setInterval(() => {
    const captured = BigInt(Date.now()) * 1_000_000n;
    for (const [at, feed] of feeds.entries()) {
      void feed.push({ bytes: pictures[at]![shot % shots]!, captured });
    }
    shot++;
  }, 1000 / rate);
  const browser = await Browser.open();
  try {
    /** Puts the pointer on the coat of the walker, whose temperature is then shown. */
    const point = async () => {
      const at = await browser.read<Position>(
        `(({ left, top, width, height }) => {
          const side = Math.min(width / 4, height / 3);
          return {
            x: left + (width - 4 * side) / 2 + 0.72 * 4 * side,
            y: top + (height - 3 * side) / 2 + 0.7 * 3 * side,
          };
        })(${tile("thermal")}.querySelector("canvas").getBoundingClientRect())`,
      );
      await browser.mouse("mouseMoved", at);
    };
    for (const scheme of ["light", "dark"] as const) {
      await browser.look({ width: 1280, height: 735, scheme });
      await browser.go(`http://${server.http}/`);
      for (const { name } of sources) {
        await browser.until(`frames of ${name}`, `${tile(name)}?.dataset.shownCount > 40`);
      }
      // The car is in the middle then.
      while (shot % shots !== 42) await Bun.sleep(5);
      await point();
      await save(browser, `live-${scheme}.png`);
    }
    // More at once than the policy keeps, so that the timeline has a gap.
    for (let count = 0; count < 1500; count++) {
      void feeds
        .at(-1)!
        .push({ bytes: pictures.at(-1)![0]!, captured: BigInt(Date.now()) * 1_000_000n });
    }
    await Bun.sleep(15_000);
    await browser.look({ width: 1280, height: 800, scheme: "light" });
    const moment = BigInt(Date.now() - 14_000) * 1_000_000n;
    await browser.go(`http://${server.http}/#/yard?source=visible&at=${moment}`);
    await browser.until("a recorded frame", `${panel("visible")}?.dataset.number`);
    await Bun.sleep(2000);
    await save(browser, "recorded.png");
  } finally {
    clearInterval(timer);
    for (const feed of feeds) feed.end();
    await Promise.allSettled(sent);
    browser.close();
    await server.stop();
  }
}

await main();
