// Pages of other sites in a real browser, against the compiled server: what they can read of its
// frames, and that no frame runs as a page.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { Browser, noBrowser } from "../helper/browser.ts";
import { expectCode } from "../helper/delivery.ts";
import { encodePng } from "../helper/png.ts";
import { run, type Server, startServer, temporaryFolder } from "../helper/program.ts";
import { hangMs } from "../helper/time.ts";

const folder = temporaryFolder();
const key: KeyEntry = { name: "alice", key: generateKey(), role: "both", streams: "*" };

/** Shows whether it ran, in its own title and in that of an embedding page. */
const script = `document.title = "ran"; try { parent.document.title = "ran" } catch {}`;
const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>${script}</script></svg>`;

/** Attempts of a page of another site. Each returns what it got. */
const attempts: Record<string, string> = {
  image: `new Promise((done) => { const image = new Image();
    image.onload = () => done("got " + image.width); image.onerror = () => done("nothing"); image.src = FRAME; })`,
  "image of MJPEG": `new Promise((done) => { const image = new Image();
    image.onload = () => done("got " + image.width); image.onerror = () => done("nothing"); image.src = FRAME + ".mjpeg"; })`,
  MJPEG: `fetch(FRAME + ".mjpeg").then(({ body }) => body.getReader().read())
    .then(({ value }) => "got " + new TextDecoder().decode(value).trim(), () => "nothing")`,
  fetch: `fetch(FRAME).then((answer) => answer.text()).then((text) => "got " + text.length, () => "nothing")`,
  "fetch that asks for nothing back": `fetch(FRAME, { mode: "no-cors" }).then((answer) => answer.text())
    .then((text) => text === "" ? "nothing" : "got", () => "nothing")`,
  "a request with the login": `fetch(BASE + "/api/streams", { credentials: "include" })
    .then((answer) => answer.text()).then((text) => "got " + text, () => "nothing")`,
  script: `new Promise((done) => { const script = document.createElement("script");
    script.onload = () => done("got"); script.onerror = () => done("nothing"); script.src = BASE + "/api/streams";
    document.head.append(script); })`,
  events: `new Promise((done) => { const events = new EventSource(BASE + "/events");
    events.onopen = () => done("got"); events.onerror = () => done("nothing"); })`,
  WebSocket: `new Promise((done) => { const socket = new WebSocket(BASE.replace("http", "ws") + "/live");
    socket.onopen = () => done("got"); socket.onerror = () => done("nothing"); })`,
  "WebSocket of Foxglove": `new Promise((done) => {
    const socket = new WebSocket(BASE.replace("http", "ws") + "/foxglove", "foxglove.websocket.v1");
    socket.onopen = () => done("got"); socket.onerror = () => done("nothing"); })`,
  "a frame of the page": `new Promise((done) => { const frame = document.createElement("iframe");
    frame.onload = () => { try { done(frame.contentDocument === null ? "nothing" : "got " + frame.contentDocument.title); }
      catch { done("nothing"); } }; frame.src = BASE + "/"; document.body.append(frame); })`,
};

/** Results of the same attempts in the server's own page. */
const own: Record<string, unknown> = {
  image: "got 8",
  // An image would be displayed only with the second frame, and there is only one.
  MJPEG: expect.stringMatching(/^got --frame/),
  fetch: expect.stringMatching(/^got \d{2,}$/),
  "a request with the login": expect.stringContaining("run7"),
  events: "got",
  WebSocket: "got",
  "WebSocket of Foxglove": "got",
};

describe("Pages of other sites", () => {
  let browser: Browser;
  let open: Server;
  let keyed: Server;
  let foreign: Bun.Server<undefined>;

  beforeAll(async () => {
    if (noBrowser !== "") return;
    const frames = join(folder, "run7/visible");
    mkdirSync(frames, { recursive: true });
    const pixels = new Uint8Array(8 * 8 * 3).fill(90);
    writeFileSync(
      join(frames, "1.png"),
      encodePng({ width: 8, height: 8, colour: "rgb8", pixels }),
    );
    mkdirSync(join(folder, "run7/odd"));
    writeFileSync(join(folder, "run7/odd/1.svg"), svg);
    writeFileSync(join(folder, "run7/odd/2.html"), `<script>${script}</script>`);
    writeFileSync(join(folder, "run7/odd/3.jpg"), `<html><script>${script}</script></html>`);
    const keys = join(folder, "keys");
    writeFileSync(keys, formatKey(key), { mode: 0o600 });
    const http = "127.0.0.1:0";
    open = await startServer({ dir: join(folder, "open"), http });
    keyed = await startServer({ dir: join(folder, "keyed"), http, args: ["--key-file", keys] });
    for (const { port } of [open, keyed]) {
      const words = port === keyed.port ? ["--key-file", keys] : [];
      expectCode(
        await run(["send", join(folder, "run7"), "--to", `127.0.0.1:${port}`, ...words]),
        0,
      );
    }
    const html = { "Content-Type": "text/html" };
    foreign = Bun.serve({
      port: 0,
      fetch: () => new Response("<!doctype html><title>foreign</title><body>", { headers: html }),
    });
    browser = await Browser.open();
    // A login cookie exists, which the browser could send along.
    await browser.go(`http://${keyed.http}/`);
    const logIn = `fetch("/login", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key: "${key.key.text}" }) }).then(({ status }) => status)`;
    expect(await browser.read<number>(logIn)).toBe(200);
  });
  afterAll(async () => {
    if (noBrowser !== "") return;
    browser.close();
    await foreign.stop(true);
    expect([await open.stop(), await keyed.stop()]).toEqual([0, 0]);
    rmSync(folder, { recursive: true, force: true });
  });

  /** Runs each attempt in the current page and returns the results. */
  async function tryAll(names: readonly string[], base: string): Promise<Record<string, unknown>> {
    const given = `const BASE = ${JSON.stringify(base)}, FRAME = BASE + "/streams/run7/sources/visible/latest";`;
    const late = `new Promise((done) => setTimeout(() => done("nothing in time"), ${hangMs}))`;
    const tries = names.map((name) => {
      return `Promise.race([${attempts[name]}, ${late}]).then((got) => [${JSON.stringify(name)}, got])`;
    });
    const all = `(() => { ${given} return Promise.all([${tries.join(", ")}]); })()`;
    return Object.fromEntries(await browser.read<[string, unknown][]>(all));
  }

  for (const kind of ["without keys", "with a key and a login"]) {
    const of = () => (kind === "without keys" ? open : keyed).http!;

    test(`${noBrowser}a server ${kind} gives its own page everything`, async () => {
      if (noBrowser !== "") return;
      await browser.go(`http://${of()}/`);
      expect(await tryAll(Object.keys(own), `http://${of()}`)).toEqual(own);
    });

    for (const [what, host] of [
      ["of another site", "localhost"],
      ["at another port", "127.0.0.1"],
    ]) {
      test(`${noBrowser}a server ${kind} gives a page ${what} nothing`, async () => {
        if (noBrowser !== "") return;
        await browser.go(`http://${host}:${foreign.port}/`);
        const names = Object.keys(attempts);
        const nothing = Object.fromEntries(names.map((name) => [name, "nothing"]));
        expect(await tryAll(names, `http://${of()}`)).toEqual(nothing);
      });
    }

    test(`${noBrowser}a server ${kind} refuses a host name that resolves to it but is not its own`, async () => {
      if (noBrowser !== "") return;
      // Browsers resolve every name below localhost to this machine.
      const port = of().split(":")[1];
      await browser.go(`http://rebound.localhost:${port}/`);
      expect(await browser.read<string>("document.body.innerText")).toContain("not-let-in");
      const said = `fetch("/api/streams").then(({ status }) => status, () => 0)`;
      expect([0, 421]).toContain(await browser.read<number>(said));
    });

    test(`${noBrowser}a server ${kind} shows no frame in a way that runs its script`, async () => {
      if (noBrowser !== "") return;
      const base = `http://${of()}/streams/run7/sources/odd/frames`;
      for (const name of ["1.svg", "2.html", "3.jpg"]) {
        await browser.go(`http://${of()}/`);
        // For a download the page does not change.
        await browser.go(`${base}/${name}`).catch(() => {});
        expect([name, await browser.read<string>("document.title")]).not.toEqual([name, "ran"]);
        await browser.go(`http://${of()}/`);
        const framed = `new Promise((done) => { const frame = document.createElement("iframe");
          frame.onload = () => done(document.title); frame.onerror = () => done(document.title);
          setTimeout(() => done(document.title), 2000);
          frame.src = ${JSON.stringify(`${base}/${name}`)}; document.body.append(frame); })`;
        expect([name, await browser.read<string>(framed)]).not.toEqual([name, "ran"]);
      }
    });
  }
});
