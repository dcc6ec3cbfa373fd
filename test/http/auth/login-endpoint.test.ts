// Login in a real browser to a server that requires keys: logging in, creating an address for other
// programs, logging out.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { send } from "../../../src/mod.ts";
import { FoxgloveViewer } from "../../helper/foxglove.ts";
import { Browser, noBrowser } from "../../helper/browser.ts";
import { encodePng } from "../../helper/png.ts";
import { jsonLines, run, startServer, temporaryFolder } from "../../helper/program.ts";

test.skipIf(noBrowser !== "")(
  `${noBrowser}the page asks for a key, shows the streams that the key allows, and hides them after logout`,
  async () => {
    const folder = temporaryFolder();
    const keyFile = join(folder, "keys");
    const { code } = await run(["key", "new", "cam-3", "--key-file", keyFile]);
    expect(code).toBe(0);
    const [key] = /frames_key_\S+/.exec(readFileSync(keyFile, "utf8"))!;
    const args = ["--http", "127.0.0.1:0", "--key-file", keyFile];
    const server = await startServer({ dir: join(folder, "received"), args });
    const browser = await Browser.open();
    try {
      const pixels = new Uint8Array(2 * 40 * 30).fill(90);
      const bytes = encodePng({ width: 40, height: 30, colour: "grey16", pixels });
      const to = `127.0.0.1:${server.port}`;
      await send([{ bytes }], { to, keyFile, stream: "run7", source: "infrared" });
      await browser.look({ width: 1280, height: 1000 });
      const [listening] = jsonLines(server.stdout());
      await browser.go(`http://${listening!["http"] as string}/`);

      const asks = `document.querySelector("dialog.login[open]")`;
      await browser.until("the question", asks);
      // The page behind the dialog contains no data.
      expect(await browser.read<string>("document.body.textContent")).not.toContain("run7");
      await browser.type("frames_key_none");
      await browser.press("Enter");
      await browser.until("the refusal", `${asks}.querySelector(".wrong").textContent`);
      await browser.type(key);
      await browser.press("Enter");
      await browser.until("the stream", `document.querySelector('.stored [data-stream="run7"]')`);
      expect(await browser.read(asks)).toBeNull();
      const logout = `document.querySelector("#logout")`;
      expect(await browser.read<string>(`${logout}.title`)).toBe("Logged in with the key cam-3");

      await browser.read(`(location.hash = "#/run7?live&source=infrared")`);
      await browser.click(".close-up .tools button");
      const address = `document.querySelector("dialog.address input")`;
      await browser.until("the address", address);
      const found = await browser.read<string>(`${address}.value`);
      expect(found).toContain("/streams/run7/sources/infrared/latest.mjpeg?token=");
      const answer = await fetch(found.replace("latest.mjpeg", "latest"));
      expect(answer.status).toBe(200);
      expect(Buffer.from(await answer.bytes()).equals(bytes)).toBe(true);

      await browser.click("dialog.address .buttons button");
      await browser.until("Foxglove's address", `${address}?.value.includes("/foxglove")`);
      const forFoxglove = await browser.read<string>(`${address}.value`);
      expect(forFoxglove).toMatch(/^ws:.*\/foxglove\?stream=run7&token=/);
      const foreign = { Origin: "https://app.foxglove.dev" };
      using viewer = new FoxgloveViewer(forFoxglove.slice("ws://".length), foreign);
      await viewer.channel("/infrared");
      await browser.press("Escape");

      await browser.click("#logout");
      await browser.until("the question again", asks);
      expect(await browser.read<string>("document.body.textContent")).not.toContain("run7");

      await browser.type(key);
      await browser.press("Enter");
      await browser.until("the stream", `document.body.textContent.includes("run7")`);
      // A page that is open when its key is revoked shows nothing of it any more.
      expect((await run(["key", "remove", "cam-3", "--key-file", keyFile])).code).toBe(0);
      await browser.until("the question again", asks);
      expect(await browser.read<string>("document.body.textContent")).not.toContain("run7");
    } finally {
      browser.close();
      await server.stop();
    }
  },
);
