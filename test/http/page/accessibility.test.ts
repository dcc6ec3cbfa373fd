// The page for people who use a screen reader, only the keyboard, a phone or little contrast.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { FrameFeed, send } from "frames";
import { Browser, noBrowser } from "../../helper/browser.ts";
import { accessibilityPackages, bringPackages } from "../../helper/npm-packages.ts";
import { card, panel, scene, tile } from "../../helper/page.ts";
import { Camera, startViewed, type Viewed } from "../../helper/viewing.ts";

const { load, needs } =
  noBrowser === "" ? bringPackages(accessibilityPackages) : { load: undefined, needs: noBrowser };

describe.skipIf(load === undefined)(`${needs}the page`, () => {
  let viewed: Viewed;
  /** A server without frames. */
  let empty: Viewed;
  let browser: Browser;
  const feeds = [new FrameFeed(), new FrameFeed()];
  let sending: Promise<unknown>[] = [];
  let axe = "";

  beforeAll(async () => {
    axe = readFileSync(load!.resolve("axe-core/axe.min.js"), "utf8");
    [viewed, empty] = await Promise.all([startViewed(), startViewed()]);
    const to = viewed.server.address;
    const old = new Camera(viewed.server, "old", "camera");
    for (let number = 1; number <= 3; number++) {
      await old.store(
        scene("grey16", number / 3),
        `${number}.png`,
        BigInt(number) * 1_000_000_000n,
      );
    }
    await old.end();
    sending = ["thermal", "visible"].map((source, index) =>
      send(feeds[index]!, { to, stream: "yard", source, policy: "latest:9" }),
    );
    for (const [index, feed] of feeds.entries()) {
      void feed.push({ bytes: scene(index === 0 ? "grey16" : "rgb8", 0), name: "1.png" });
    }
    // A problem, so that the list has one.
    await fetch(`http://${viewed.server.address}/`);
    browser = await Browser.open();
  });

  afterAll(async () => {
    feeds.forEach((feed) => feed.end());
    await Promise.allSettled(sending);
    expect(browser?.console).toEqual([]);
    browser?.close();
    await Promise.all([viewed, empty].map((one) => one?.[Symbol.asyncDispose]()));
  });

  /** Returns what axe finds on the page as it is. */
  const violations = async (): Promise<string[]> => {
    return await browser.read<string[]>(
      `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
        violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => id + " " + target + " " + failureSummary)))`,
    );
  };

  const views: Record<string, { hash: string; isShown: string; then?: string; isEmpty?: boolean }> =
    {
      "the empty store": {
        hash: "",
        isShown: `document.querySelector("#live .notice:not([hidden])") !== null && document.querySelector("#store .place")`,
        isEmpty: true,
      },
      "the wall": {
        hash: "",
        isShown: `${tile("thermal")}?.dataset.shownCount > 0 && ${tile("visible")}?.dataset.shownCount > 0`,
      },
      "the wall while it is arranged": {
        hash: "",
        isShown: `${tile("thermal")}?.dataset.shownCount > 0`,
        then: `[...document.querySelectorAll(".wall-tools button")].at(-1).click()`,
      },
      "one source": {
        hash: "#/yard?live&source=thermal",
        isShown: `${card("thermal")}?.dataset.shownCount > 0`,
      },
      "a stream": { hash: "#/yard?live", isShown: `${card("visible")}?.dataset.shownCount > 0` },
      "a recording": { hash: "#/old", isShown: `${panel("camera")}?.dataset.number === "3"` },
      "a recording with a message": {
        hash: "#/old",
        isShown: `${panel("camera")}?.dataset.number === "3"`,
        then: `(({ form }) => form.requestSubmit())(Object.assign(document.querySelector(".go input"), { value: "soon" }))`,
      },
      "the shortcuts": {
        hash: "",
        isShown: `document.querySelector("#link").textContent === "Connected"`,
        then: `document.querySelector("#help").click()`,
      },
    };

  for (const [name, { hash, isShown, then, isEmpty = false }] of Object.entries(views)) {
    test(`axe finds nothing wrong with ${name} in both schemes, on a desk or a phone`, async () => {
      await browser.look({ width: 1400, height: 844 });
      await browser.go(`${(isEmpty ? empty : viewed).base}/${hash}`);
      await browser.until(name, isShown);
      if (then !== undefined) await browser.read(then);
      await browser.read(`(() => { ${axe} })()`);
      for (const scheme of ["light", "dark"] as const) {
        for (const width of [1400, 390]) {
          // Colours do not fade to those of the other scheme.
          await browser.look({ width, height: 844, scheme, isReducedMotion: true });
          expect([scheme, width, ...(await violations())]).toEqual([scheme, width]);
        }
      }
    });
  }

  test("every control of the page is reached with the Tab key", async () => {
    await browser.look({ width: 1400, height: 844 });
    for (const hash of ["", "#/yard?live&source=thermal", "#/old"]) {
      await browser.go(`${viewed.base}/${hash}`);
      const view =
        hash === "" ? tile("visible") : hash === "#/old" ? panel("camera") : card("thermal");
      await browser.until(
        "the view",
        `${view}?.dataset.shownCount > 0 || ${view}?.dataset.number === "3"`,
      );
      const controls = `[...document.querySelectorAll("a[href], button, select, input, summary, [tabindex='0']")]
        .filter((one) => one.checkVisibility() && one.tabIndex >= 0 && !one.disabled)`;
      const missed = await browser.read<number>(`${controls}.length`);
      const reached = new Set<number>();
      await browser.read("document.activeElement.blur()");
      for (let press = 0; press < missed + 2; press++) {
        await browser.press("Tab");
        reached.add(await browser.read<number>(`${controls}.indexOf(document.activeElement)`));
      }
      reached.delete(-1);
      expect([hash, reached.size]).toEqual([hash, missed]);
    }
  });

  test("the page loads nothing from other servers", async () => {
    await browser.go(viewed.base);
    await browser.until("a picture", `${tile("visible")}?.dataset.shownCount > 0`);
    const origins = await browser.read<string[]>(
      `[...new Set(performance.getEntriesByType("resource").map(({ name }) => new URL(name).origin))]`,
    );
    expect(origins).toEqual([viewed.base]);
  });

  test("figures that change move nothing on the page", async () => {
    await browser.go(viewed.base);
    await browser.until(
      "both pictures",
      `${tile("thermal")}?.dataset.shownCount > 0 && ${tile("visible")}?.dataset.shownCount > 0`,
    );
    await browser.read(`(() => {
      window.shifts = 0;
      new PerformanceObserver((list) => {
        for (const { value } of list.getEntries()) window.shifts += value;
      }).observe({ type: "layout-shift", buffered: false });
    })()`);
    for (let number = 2; number <= 60; number++) {
      for (const feed of feeds)
        void feed.push({ bytes: scene("grey16", number / 60), name: `${number}.png` });
      await browser.until("it", `${tile("visible")}.dataset.shownNumber >= ${number - 5}`);
    }
    await browser.until(
      "the rate",
      `${tile("visible")}.querySelector(".rate").textContent !== "0 /s"`,
    );
    expect(await browser.read<number>("window.shifts")).toBeLessThan(0.001);
  });
});
