// Access control of HTTP requests, in memory with a fake clock.
//
// Covers: http/auth/access-tokens.ts, http/auth/authenticator.ts, http/auth/origin-check.ts,
//   http/auth/secrets.ts, http/auth/token-endpoint.ts,
//   http/principal.ts

import { beforeEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { formatKey, type KeyEntry } from "../../../src/auth/key.ts";
import type { FramesError } from "../../../src/errors.ts";
import { KeyRing, generateKey } from "../../../src/keys/key-file.ts";
import { KeyRingAdapter } from "../../../src/server/http-keys.ts";
import { fullAccess, unauthenticated } from "../../../src/http/auth/access.ts";
import type { Principal } from "../../../src/http/principal.ts";
import { toErrorResponse } from "../../../src/http/responses.ts";
import { type AuthenticatorOptions, Authenticator } from "../../../src/http/auth/authenticator.ts";
import type { ServerNames } from "../../../src/http/auth/origin-check.ts";
import { temporaryFolder } from "../../helper/program.ts";

type Json = Record<string, unknown>;

const loopback: ServerNames = { isLoopback: true, names: [] };
const anywhere: ServerNames = { isLoopback: false, names: ["gpu1", "gpu1.local", "*.lab.example"] };

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** Properties of a request besides its path. */
interface Asking {
  method?: string;
  host?: string | null;
  headers?: Record<string, string>;
  body?: unknown;
  peer?: string;
}

const peerHere = "127.0.0.1";
const host = "127.0.0.1:9727";
const ownOrigin = { Origin: `http://${host}`, "Sec-Fetch-Site": "same-origin" };

let now = 1_700_000_000_000;
let wrong: { peer: string; code: FramesError["code"] }[] = [];
beforeEach(() => {
  now = 1_700_000_000_000;
  wrong = [];
});

function doorkeeper(door: Partial<AuthenticatorOptions> = {}): Authenticator {
  return new Authenticator({
    names: loopback,
    isTls: false,
    keys: undefined,
    clock: () => now,
    onAuthFailure: (peer, { code }) => void wrong.push({ peer, code }),
    ...door,
  });
}

/** Builds the request as Bun would. An invalid host yields no valid URL. */
function requestOf(path: string, asking: Asking = {}): Request {
  const { method = "GET", body, headers = {} } = asking;
  const given = asking.host === undefined ? host : asking.host;
  return new Request(`http://${URL.canParse(`http://${given}`) ? given : "x"}${path}`, {
    method,
    headers: {
      ...(given === null ? {} : { Host: given }),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
}

/** Asks, and turns a thrown error into a response as the server does. */
async function ask(
  access: Authenticator,
  path: string,
  asking: Asking = {},
): Promise<Principal | Response> {
  try {
    return await access.authenticate(requestOf(path, asking), asking.peer ?? peerHere);
  } catch (error) {
    return toErrorResponse(error);
  }
}

/** Returns the status and error code of the response, or that the request was let in. */
async function verdict(
  access: Authenticator,
  path: string,
  asking: Asking = {},
): Promise<unknown[]> {
  const answer = await ask(access, path, asking);
  if (!(answer instanceof Response)) return ["accepted"];
  const text = await answer.text();
  return [answer.status, text === "" ? "" : (JSON.parse(text) as Json)["error"]];
}

/** How a title says a verdict. */
function outcome([first]: readonly unknown[]): string {
  return first === "accepted" ? "is accepted" : `is refused with ${first}`;
}

async function visitorOf(
  access: Authenticator,
  path: string,
  asking: Asking = {},
): Promise<Principal> {
  const answer = await ask(access, path, asking);
  if (answer instanceof Response) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer;
}

async function responseOf(
  access: Authenticator,
  path: string,
  asking: Asking = {},
): Promise<Response> {
  const answer = await ask(access, path, asking);
  if (!(answer instanceof Response)) throw new Error("accepted");
  return answer;
}

describe("Host header", () => {
  const cases: [host: string | null, here: unknown[], elsewhere: unknown[]][] = [
    ["127.0.0.1:9727", ["accepted"], ["accepted"]],
    ["127.0.0.1", ["accepted"], ["accepted"]],
    ["127.8.9.1:1", ["accepted"], ["accepted"]],
    ["localhost:9727", ["accepted"], ["accepted"]],
    ["LOCALHOST:80", ["accepted"], ["accepted"]],
    ["[::1]:9727", ["accepted"], ["accepted"]],
    ["192.168.1.7:9727", [421, "not-let-in"], ["accepted"]],
    ["[fd00::7]:9727", [421, "not-let-in"], ["accepted"]],
    ["gpu1:9727", [421, "not-let-in"], ["accepted"]],
    ["gpu1.local", [421, "not-let-in"], ["accepted"]],
    ["cam.lab.example", [421, "not-let-in"], ["accepted"]],
    ["a.cam.lab.example", [421, "not-let-in"], [421, "not-let-in"]],
    ["lab.example", [421, "not-let-in"], [421, "not-let-in"]],
    ["evil.example:9727", [421, "not-let-in"], [421, "not-let-in"]],
    ["localhost.evil.example", [421, "not-let-in"], [421, "not-let-in"]],
    ["127.0.0.1.evil.example", [421, "not-let-in"], [421, "not-let-in"]],
    ["evil-127.0.0.1", [421, "not-let-in"], [421, "not-let-in"]],
    ["2130706433", [421, "not-let-in"], [421, "not-let-in"]],
    ["0x7f.1", [421, "not-let-in"], [421, "not-let-in"]],
    ["127.0.0.1, evil.example", [400, "usage"], [400, "usage"]],
    ["evil@127.0.0.1", [400, "usage"], [400, "usage"]],
    ["127.0.0.1/../x", [400, "usage"], [400, "usage"]],
    ["127.0.0.1:97a7", [400, "usage"], [400, "usage"]],
    ["127.0.0.1:", [400, "usage"], [400, "usage"]],
    ["[::1", [400, "usage"], [400, "usage"]],
    ["", [400, "usage"], [400, "usage"]],
    [null, [400, "usage"], [400, "usage"]],
  ];
  const here = doorkeeper();
  const elsewhere = doorkeeper({ names: anywhere });
  for (const [named, onLoopback, others] of cases) {
    test(`a request with the Host ${JSON.stringify(named)} ${outcome(onLoopback)} on loopback and ${outcome(others)} elsewhere`, async () => {
      for (const path of ["/", "/api/streams", "/healthz"]) {
        expect(await verdict(here, path, { host: named })).toEqual(onLoopback);
        expect(await verdict(elsewhere, path, { host: named })).toEqual(others);
      }
    });
  }
});

describe("Origin and Sec-Fetch headers", () => {
  const site = (of: string, mode = "no-cors", dest = "image"): Record<string, string> => ({
    "Sec-Fetch-Site": of,
    "Sec-Fetch-Mode": mode,
    "Sec-Fetch-Dest": dest,
  });
  const no = [403, "not-let-in"];
  const cases: [
    what: string,
    path: string,
    headers: Record<string, string>,
    expected: unknown[],
  ][] = [
    ["a program without these headers", "/api/streams", {}, ["accepted"]],
    ["the server's own page", "/api/streams", ownOrigin, ["accepted"]],
    [
      "the address bar of a browser",
      "/api/streams",
      site("none", "navigate", "document"),
      ["accepted"],
    ],
    ["a foreign <img>", "/streams/s/sources/x/latest", site("cross-site"), no],
    ["a foreign <img> that loads the page", "/", site("cross-site"), no],
    ["a foreign <script>", "/chunk.js", site("cross-site", "no-cors", "script"), no],
    ["a page at another port", "/streams/s/sources/x/latest", site("same-site"), no],
    ["a foreign link to the page", "/", site("cross-site", "navigate", "document"), ["accepted"]],
    [
      "a foreign link to a frame",
      "/streams/s/sources/x/latest",
      site("cross-site", "navigate", "document"),
      no,
    ],
    ["a foreign <iframe>", "/", site("cross-site", "navigate", "iframe"), no],
    ["a foreign <object>", "/", site("cross-site", "navigate", "object"), no],
    ["a site with an unknown Sec-Fetch-Site", "/", site("SAME-ORIGIN"), no],
    ["a foreign fetch", "/api/streams", { Origin: "https://evil.example" }, no],
    ["a foreign WebSocket", "/live", { Origin: "http://evil.example", Upgrade: "websocket" }, no],
    [
      "a WebSocket of a page at another port",
      "/live",
      { Origin: "http://127.0.0.1:3000", Upgrade: "websocket" },
      no,
    ],
    [
      "the server's own WebSocket",
      "/live",
      { Origin: `http://${host}`, Upgrade: "websocket" },
      ["accepted"],
    ],
    [
      "a proxy that speaks TLS in front of the server",
      "/live",
      { Origin: `https://${host}` },
      ["accepted"],
    ],
    ["a sandboxed iframe", "/api/streams", { Origin: "null" }, no],
    [
      "a sandboxed iframe with Sec-Fetch-Site",
      "/api/streams",
      { Origin: "null", ...site("cross-site") },
      no,
    ],
    [
      "a form of the server's own page",
      "/api/streams",
      { Origin: "null", ...site("same-origin") },
      ["accepted"],
    ],
    ["a browser extension", "/api/streams", { Origin: "chrome-extension://abcdef" }, no],
    ["a local file", "/api/streams", { Origin: "file://" }, no],
    ["an invalid origin", "/api/streams", { Origin: `http://${host}, http://evil.example` }, no],
    [
      "a host name that begins like the server's",
      "/api/streams",
      { Origin: `http://${host}.evil.example` },
      no,
    ],
    [
      "an origin with user information before another host",
      "/api/streams",
      { Origin: `http://evil.example@${host}:1` },
      no,
    ],
    [
      "the server's origin with Sec-Fetch-Site cross-site",
      "/api/streams",
      { Origin: `http://${host}`, ...site("cross-site") },
      no,
    ],
  ];
  const access = doorkeeper();
  for (const [what, path, headers, expected] of cases) {
    test(`a request from ${what} ${outcome(expected)}`, async () => {
      expect(await verdict(access, path, { headers })).toEqual(expected);
    });
  }

  test("a POST for a token from another site is refused", async () => {
    const body = { stream: "s", source: "x" };
    const foreign = { Origin: "https://evil.example" };
    expect(
      await verdict(access, "/api/tokens", { method: "POST", body, headers: foreign }),
    ).toEqual(no);
    // A form on another site can send this without a preflight request.
    const plain = { "Content-Type": "text/plain" };
    expect(await verdict(access, "/api/tokens", { method: "POST", body, headers: plain })).toEqual([
      415,
      "usage",
    ]);
  });

  test("the origin of a request must use TLS if the server does", async () => {
    const secure = doorkeeper({ isTls: true });
    expect(await verdict(secure, "/live", { headers: { Origin: `https://${host}` } })).toEqual([
      "accepted",
    ]);
    expect(await verdict(secure, "/live", { headers: { Origin: `http://${host}` } })).toEqual(no);
    const usual = { host: "localhost", headers: { Origin: "https://localhost" } };
    expect(await verdict(secure, "/live", usual)).toEqual(["accepted"]);
  });
});

test("a request with an unsupported method is refused before any other check", async () => {
  const access = doorkeeper();
  for (const method of ["PUT", "PATCH", "OPTIONS", "PROPFIND"]) {
    const answer = await responseOf(access, "/", { method, host: "evil.example" });
    expect([answer.status, answer.headers.get("allow")]).toEqual([405, "GET, HEAD, POST, DELETE"]);
  }
});

describe("access without keys", () => {
  const access = doorkeeper();
  test("a server without keys lets every client read everything without a login", async () => {
    expect(await ask(access, "/api/streams")).toBe(fullAccess);
    expect(await ask(access, "/api/streams", { headers: { Authorization: "Bearer x" } })).toBe(
      fullAccess,
    );
    const who = await responseOf(access, "/login");
    expect(await who.json()).toEqual({ needed: false, name: null, streams: null, expires: null });
    const posted = await responseOf(access, "/login", { method: "POST", body: { key: "x" } });
    expect([posted.status, posted.headers.get("set-cookie")]).toEqual([200, null]);
  });

  test("a server without keys makes addresses without a token", async () => {
    const body = { stream: "run 7", source: "site/cam-3?" };
    const answer = await responseOf(access, "/api/tokens", { method: "POST", body });
    expect([answer.status, await answer.json()]).toEqual([
      200,
      {
        id: null,
        address: `http://${host}/streams/run%207/sources/site/cam-3%3F/latest.mjpeg`,
        expires: null,
      },
    ]);
  });
});

/** A key file with changeable keys, and access control that uses it. */
class Keyed {
  readonly access: Authenticator;
  readonly ring: KeyRing;
  readonly #path = join(temporaryFolder(), "keys");
  #entries: KeyEntry[];

  constructor(entries: KeyEntry[], door: Partial<AuthenticatorOptions> = {}) {
    this.#entries = entries;
    this.#write();
    this.ring = new KeyRing({ path: this.#path });
    this.access = doorkeeper({ keys: new KeyRingAdapter(this.ring), ...door });
  }

  #write(): void {
    writeFileSync(this.#path, this.#entries.map(formatKey).join(""), { mode: 0o600 });
  }

  /** Changes the key file and reloads it. */
  change(change: (entries: KeyEntry[]) => KeyEntry[]): void {
    this.#entries = change(this.#entries);
    this.#write();
    this.ring.reload();
  }

  revoke(name: string): void {
    this.change((entries) => entries.filter((entry) => entry.name !== name));
  }

  /** Logs in. @returns the headers that the browser sends from then on */
  async logIn(
    entry: KeyEntry,
    headers: Record<string, string> = {},
  ): Promise<Record<string, string>> {
    const answer = await responseOf(this.access, "/login", {
      method: "POST",
      body: { key: entry.key.text },
      headers: { ...ownOrigin, ...headers },
    });
    expect(answer.status).toBe(200);
    return { ...ownOrigin, Cookie: answer.headers.get("set-cookie")!.split(";")[0]! };
  }
}

function entry(name: string, fields: Partial<KeyEntry> = {}): KeyEntry {
  return { name, key: generateKey(), role: "both", streams: "*", ...fields };
}

const all = entry("all");
const other = entry("other", { role: "receive", streams: "cam*" });
const sender = entry("sender", { role: "send" });
const keyed = (door: Partial<AuthenticatorOptions> = {}) => new Keyed([all, other, sender], door);
const bearer = (text: string) => ({ headers: { Authorization: `Bearer ${text}` } });

describe("access with keys", () => {
  test("a client without a key gets the page's files and the server's health, and nothing else", async () => {
    const { access } = keyed();
    for (const path of [
      "/",
      "/index-a1b2c3.js",
      "/style.css",
      "/icon.svg",
      "/healthz",
      "/readyz",
    ]) {
      expect(await ask(access, path)).toBe(unauthenticated);
      expect(await ask(access, path, { method: "HEAD" })).toBe(unauthenticated);
    }
    const paths = [
      "/api/streams",
      "/api/streams/s/export.mcap",
      "/api/tokens",
      "/events",
      "/live",
      "/metrics",
      "/streams/s/sources/x/latest",
      "/streams/s/sources/x/frames/1.png",
      "/a/b.js",
      "/api.js/x",
      "/..js",
      "/%2e.js",
      "//x.js",
    ];
    for (const path of paths)
      expect([path, ...(await verdict(access, path))]).toEqual([path, 401, "no-key"]);
    expect(await verdict(access, "/", { method: "POST", body: {} })).toEqual([401, "no-key"]);
  });

  test("a program with a key reads the streams that its key allows", async () => {
    const { access } = keyed();
    const visitor = await visitorOf(access, "/api/streams", bearer(other.key.text));
    expect(visitor.canReadAll).toBe(false);
    expect(["cam3", "cam", "night", "xcam"].map((name) => visitor.canRead(name, "x"))).toEqual([
      true,
      true,
      false,
      false,
    ]);
    const whole = await visitorOf(access, "/api/streams", bearer(all.key.text));
    expect([whole.canReadAll, whole.canRead("night")]).toEqual([true, true]);
    expect(wrong).toEqual([]);
  });

  const unknown = generateKey();
  const wrongs: [what: string, headers: Record<string, string>, expected: unknown[]][] = [
    ["an unknown key", { Authorization: `Bearer ${unknown.text}` }, [401, "not-let-in"]],
    ["a key for sending", { Authorization: `Bearer ${sender.key.text}` }, [403, "wrong-role"]],
    [
      "a key with a letter changed",
      { Authorization: `Bearer ${all.key.text.slice(0, -1)}-` },
      [400, "usage"],
    ],
    ["the id of a key", { Authorization: `Bearer ${all.key.id}` }, [400, "usage"]],
    ["an empty key", { Authorization: "Bearer" }, [400, "usage"]],
    ["a password", { Authorization: `Basic ${btoa(`x:${all.key.text}`)}` }, [400, "usage"]],
    ["an unknown token", { Authorization: "Bearer frames_token_x" }, [401, "not-let-in"]],
    ["an unknown cookie", { Cookie: `frames-9727=${"a".repeat(43)}` }, [401, "no-key"]],
    ["a malformed cookie", { Cookie: "frames-9727=../../keys" }, [401, "no-key"]],
  ];
  for (const [what, headers, expected] of wrongs) {
    test(`a request with ${what} is refused with ${expected.join(" ")}, and the answer shows no key`, async () => {
      const { access } = keyed();
      const answer = await responseOf(access, "/api/streams", { headers });
      const text = await answer.text();
      expect([answer.status, (JSON.parse(text) as Json)["error"]]).toEqual(expected);
      for (const { key } of [all, other, sender]) expect(text).not.toContain(key.text);
      expect(text).not.toContain(unknown.text);
      expect(wrong.every(({ peer }) => peer === peerHere)).toBe(true);
      const known = (JSON.parse(text) as Json)["message"] as string;
      expect(known).toMatch(/^[A-Z].*[^.]$/);
    });
  }

  test("a request with two credentials is refused", async () => {
    const { access } = keyed();
    const both = bearer(all.key.text);
    expect(await verdict(access, "/metrics?token=frames_token_x", both)).toEqual([400, "usage"]);
    expect(await verdict(access, "/metrics?token=a&token=b")).toEqual([400, "usage"]);
    // Keys are never accepted in URLs.
    expect(await verdict(access, `/metrics?token=${all.key.text}`)).toEqual([401, "not-let-in"]);
  });
});

test("a key with the id of another key is refused", () => {
  const forged = new KeyRingAdapter({ find: () => other, holds: () => true } as unknown as KeyRing);
  expect(() => forged.find(all.key.text)).toThrow("is not in the server's key file");
});

describe("logins", () => {
  test("a login sets a cookie that scripts cannot read and other sites do not send", async () => {
    const answers: string[] = [];
    for (const isTls of [false, true]) {
      const { access } = keyed({ isTls });
      const origin = { Origin: `${isTls ? "https" : "http"}://${host}` };
      const body = { key: ` ${all.key.text}\n` };
      const answer = await responseOf(access, "/login", { method: "POST", body, headers: origin });
      answers.push(answer.headers.get("set-cookie")!.replace(/=[\w-]{43};/, "=SECRET;"));
      expect(await answer.json()).toEqual({
        needed: true,
        name: "all",
        streams: "*",
        expires: `${now + 12 * hour}000000`,
      });
    }
    expect(answers).toEqual([
      "frames-9727=SECRET; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict",
      "__Host-frames-9727=SECRET; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict; Secure",
    ]);
  });

  test("a login grants the streams of its key, and names the key", async () => {
    const door = keyed();
    const headers = await door.logIn(other);
    const visitor = await visitorOf(door.access, "/events", { headers });
    expect([visitor.canReadAll, visitor.canRead("cam1"), visitor.canRead("night")]).toEqual([
      false,
      true,
      false,
    ]);
    const who = (await (await responseOf(door.access, "/login", { headers })).json()) as Json;
    expect([who["name"], who["streams"]]).toEqual(["other", "cam*"]);
  });

  test("a login with a wrong key or a malformed body is refused", async () => {
    const { access } = keyed();
    const post = (body: unknown, headers = {}) =>
      verdict(access, "/login", { method: "POST", body, headers: { ...ownOrigin, ...headers } });
    expect(await post({ key: generateKey().text })).toEqual([401, "not-let-in"]);
    expect(await post({ key: sender.key.text })).toEqual([403, "wrong-role"]);
    expect(await post({ key: "frames_key_" })).toEqual([400, "usage"]);
    expect(await post({ key: 7 })).toEqual([400, "usage"]);
    expect(await post({})).toEqual([400, "usage"]);
    expect(await post("[]")).toEqual([400, "usage"]);
    expect(await post("null")).toEqual([400, "usage"]);
    expect(await post("{")).toEqual([400, "usage"]);
    expect(await post({ key: "x".repeat(5000) })).toEqual([413, "too-large"]);
    expect(
      await post(`key=${all.key.text}`, { "Content-Type": "application/x-www-form-urlencoded" }),
    ).toEqual([415, "usage"]);
    expect(wrong.map(({ code }) => code)).toEqual(["not-let-in", "wrong-role", "usage"]);
  });

  test("a logout ends the login and its open responses", async () => {
    const door = keyed();
    const headers = await door.logIn(all);
    const others = await door.logIn(all);
    const { signal: ended } = await visitorOf(door.access, "/events", { headers });
    const out = await responseOf(door.access, "/logout", { method: "POST", headers });
    expect([out.status, out.headers.get("set-cookie")]).toEqual([
      204,
      "frames-9727=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict",
    ]);
    expect(ended.aborted).toBe(true);
    expect(await verdict(door.access, "/events", { headers })).toEqual([401, "no-key"]);
    expect(await verdict(door.access, "/events", { headers: others })).toEqual(["accepted"]);
    expect(await verdict(door.access, "/logout", { headers: others })).toEqual([405, "usage"]);
  });

  test("a new login in the same browser replaces the one before", async () => {
    const door = keyed();
    const first = await door.logIn(all);
    const second = await door.logIn(other, { Cookie: first["Cookie"]! });
    expect(await verdict(door.access, "/events", { headers: first })).toEqual([401, "no-key"]);
    expect(await verdict(door.access, "/events", { headers: second })).toEqual(["accepted"]);
  });

  test("a login ends after 12 idle hours, and after 7 days in any case", async () => {
    const door = keyed();
    const idle = await door.logIn(all);
    const busy = await door.logIn(all);
    const { signal: ended } = await visitorOf(door.access, "/events", { headers: idle });
    now += 11 * hour;
    expect(await verdict(door.access, "/events", { headers: busy })).toEqual(["accepted"]);
    now += hour;
    expect(ended.aborted).toBe(false);
    door.access.sweepExpired();
    expect(ended.aborted).toBe(true);
    expect(await verdict(door.access, "/events", { headers: idle })).toEqual([401, "no-key"]);
    for (let hours = 12; hours < 7 * 24; hours += 6) {
      expect(await verdict(door.access, "/events", { headers: busy })).toEqual(["accepted"]);
      now += 6 * hour;
    }
    expect(await verdict(door.access, "/events", { headers: busy })).toEqual([401, "no-key"]);
  });

  test("a login ends when its key is removed or changed", async () => {
    const changes: ((entries: KeyEntry[]) => KeyEntry[])[] = [
      (entries) => entries.filter(({ name }) => name !== "all"),
      (entries) => entries.map((one) => (one.name === "all" ? { ...one, streams: "x" } : one)),
      (entries) => entries.map((one) => (one.name === "all" ? { ...one, role: "send" } : one)),
    ];
    for (const change of changes) {
      const door = keyed();
      const headers = await door.logIn(all);
      const others = await door.logIn(other);
      const login = await visitorOf(door.access, "/events", { headers });
      const program = await visitorOf(door.access, "/events", bearer(all.key.text));
      door.change(change);
      expect(await verdict(door.access, "/events", { headers })).toEqual([401, "no-key"]);
      door.access.sweepExpired();
      expect([login.signal.aborted, program.signal.aborted]).toEqual([true, true]);
      expect(await verdict(door.access, "/events", { headers: others })).toEqual(["accepted"]);
    }
  });

  test("a browser with a login may POST only from the server's own page", async () => {
    const door = keyed();
    const { Cookie } = await door.logIn(all);
    const body = { stream: "s", source: "x" };
    const posted = (headers: Record<string, string>) =>
      verdict(door.access, "/api/tokens", {
        method: "POST",
        body,
        headers: { Cookie: Cookie!, ...headers },
      });
    expect(await posted({})).toEqual([403, "not-let-in"]);
    expect(await posted({ Origin: "https://evil.example" })).toEqual([403, "not-let-in"]);
    expect(await posted({ "Sec-Fetch-Site": "same-site" })).toEqual([403, "not-let-in"]);
    expect(await posted({ "Sec-Fetch-Site": "same-origin" })).toEqual([201, undefined]);
  });

  test("a login of one server is not valid for another server at the same host", async () => {
    const door = keyed();
    const headers = await door.logIn(all);
    const elsewhere = { Cookie: headers["Cookie"]! };
    expect(
      await verdict(door.access, "/events", { host: "127.0.0.1:9728", headers: elsewhere }),
    ).toEqual([401, "no-key"]);
    const twice = { ...headers, Cookie: `${headers["Cookie"]}; frames-9727=${"a".repeat(43)}` };
    expect(await verdict(door.access, "/events", { headers: twice })).toEqual([401, "no-key"]);
    const among = { ...headers, Cookie: `a=b; ${headers["Cookie"]}; x` };
    expect(await verdict(door.access, "/events", { headers: among })).toEqual(["accepted"]);
  });

  test("a key has at most 100 logins, and one more ends the login that is idle for longest", async () => {
    const door = keyed();
    const foreign = await door.logIn(other);
    const first = await door.logIn(all);
    const second = await door.logIn(all);
    now += 1;
    expect(await verdict(door.access, "/events", { headers: first })).toEqual(["accepted"]);
    for (let count = 2; count < 101; count++) await door.logIn(all);
    expect(await verdict(door.access, "/events", { headers: second })).toEqual([401, "no-key"]);
    expect(await verdict(door.access, "/events", { headers: first })).toEqual(["accepted"]);
    expect(await verdict(door.access, "/events", { headers: foreign })).toEqual(["accepted"]);
  });
});

test("wrong keys from one address are answered with 429, but right keys and other addresses are not", async () => {
  const { access } = keyed();
  const attempt = (peer: string) =>
    verdict(access, "/api/streams", { ...bearer(generateKey().text), peer });
  for (let count = 0; count < 30; count++)
    expect(await attempt("10.0.0.1")).toEqual([401, "not-let-in"]);
  const late = await responseOf(access, "/api/streams", {
    ...bearer(generateKey().text),
    peer: "10.0.0.1",
  });
  expect([late.status, late.headers.get("retry-after")]).toEqual([429, "60"]);
  expect(await attempt("10.0.0.2")).toEqual([401, "not-let-in"]);
  expect(
    await verdict(access, "/api/streams", { ...bearer(all.key.text), peer: "10.0.0.1" }),
  ).toEqual(["accepted"]);
  now += minute;
  access.sweepExpired();
  expect(await attempt("10.0.0.1")).toEqual([401, "not-let-in"]);
});

describe("access tokens", () => {
  const wish = { stream: "cam3", source: "site/visible" };
  const make = async (door: Keyed, key: KeyEntry, body: Json = wish): Promise<Json> => {
    const answer = await responseOf(door.access, "/api/tokens", {
      method: "POST",
      body,
      ...bearer(key.key.text),
    });
    return { status: answer.status, ...((await answer.json()) as Json) };
  };
  const path = "/streams/cam3/sources/site/visible/latest";
  const queryOf = (token: Json): string => new URL(String(token["address"])).search;

  test("a token is part of an address, and lasts a day unless another time is requested", async () => {
    const door = keyed();
    const token = await make(door, other);
    expect(token["address"]).toMatch(
      /^http:\/\/127\.0\.0\.1:9727\/streams\/cam3\/sources\/site\/visible\/latest\.mjpeg\?token=frames_token_[\w-]{43}$/,
    );
    expect([token["status"], token["expires"]]).toEqual([201, `${now + day}000000`]);
    const longer = await make(door, other, { ...wish, hours: 720 });
    expect(longer["expires"]).toBe(`${now + 30 * day}000000`);
    const query = queryOf(token);
    now += day - 1;
    expect(await verdict(door.access, path + query)).toEqual(["accepted"]);
    const { signal: ended } = await visitorOf(door.access, `${path}.mjpeg${query}`);
    now += 1;
    expect(await verdict(door.access, path + query)).toEqual([401, "not-let-in"]);
    door.access.sweepExpired();
    expect(ended.aborted).toBe(true);
    expect(await verdict(door.access, path + queryOf(longer))).toEqual(["accepted"]);
  });

  test("a token allows the newest frame of its source and the metrics, and nothing else", async () => {
    const door = keyed();
    const query = queryOf(await make(door, all));
    const seen = await visitorOf(door.access, `${path}${query}`);
    expect(seen.canReadAll).toBe(false);
    expect([seen.canRead("cam3"), seen.canRead("cam3", "site/visible")]).toEqual([true, true]);
    expect([
      seen.canRead("cam3", "site"),
      seen.canRead("cam4"),
      seen.canRead("cam4", "site/visible"),
    ]).toEqual([false, false, false]);
    for (const good of [
      ...["mjpeg", "jpg", "h264", "h265"].map((extension) => `${path}.${extension}`),
      "/metrics",
      "/streams/cam%33/sources/site/visible/latest",
    ]) {
      expect([good, ...(await verdict(door.access, good + query))]).toEqual([good, "accepted"]);
    }
    const bad = [
      "/",
      "/events",
      "/live",
      "/api/streams",
      "/api/streams/cam3/export.mcap",
      "/api/tokens",
      "/metrics/",
      "/streams/cam3/sources/site/latest",
      "/streams/cam3/sources/site%2Fvisible/latest",
      "/streams/cam3/sources/site/visible/x/latest",
      "/streams/cam3/sources/site/visible/frames/latest",
      "/streams/cam4/sources/site/visible/latest",
      "/streams/cam4/sources/x/%2e%2e/%2e%2e/cam3/sources/site/visible/../latest",
      "/streams/cam4%2f..%2fcam3/sources/site/visible/latest",
      `//evil.example${path}`,
      `/%ff${path}`,
      `${path}/`,
      `${path}%00`,
      `${path}.mp4`,
      "/streams/cam3/sources/site/visible/numbers/1",
    ];
    for (const other of bad) {
      expect([other, ...(await verdict(door.access, other + query))]).toEqual([
        other,
        403,
        "not-let-in",
      ]);
    }
    expect(await verdict(door.access, path + query, { method: "POST", body: {} })).toEqual([
      403,
      "not-let-in",
    ]);
    expect(await verdict(door.access, path, bearer(query.slice("?token=".length)))).toEqual([
      "accepted",
    ]);
  });

  test("a token is made only for a stream of its key and for a valid source", async () => {
    const door = keyed();
    expect(await make(door, other, { stream: "night", source: "x" })).toMatchObject({
      status: 403,
      error: "wrong-stream",
    });
    const bad: Json[] = [
      { source: "x" },
      { stream: null },
      { stream: "cam3", source: 7 },
      { stream: "", source: "x" },
      { stream: "cam3", source: "a//b" },
      { stream: "cam3", source: "../x" },
      { stream: "cam3", source: "x".repeat(1025) },
      { stream: "cam3\ud800", source: "x" },
      { ...wish, hours: 0 },
      { ...wish, hours: -1 },
      { ...wish, hours: 721 },
      { ...wish, hours: "24" },
    ];
    for (const body of bad) {
      expect(await make(door, other, body)).toMatchObject({ status: 400, error: "usage" });
    }
  });

  test("a token without a source is for Foxglove, and reads the streams of its key", async () => {
    const door = keyed();
    const ofAll = await make(door, other, {});
    expect(ofAll["address"]).toMatch(
      /^ws:\/\/127\.0\.0\.1:9727\/foxglove\?token=frames_token_[\w-]{43}$/,
    );
    const ofStream = await make(door, all, { stream: "run 7" });
    expect(ofStream["address"]).toMatch(/\/foxglove\?stream=run\+7&token=frames_token_[\w-]{43}$/);
    const everything = await visitorOf(door.access, `/foxglove${queryOf(ofAll)}`);
    expect([everything.canRead("cam3", "x"), everything.canRead("night", "x")]).toEqual([
      true,
      false,
    ]);
    const one = await visitorOf(door.access, `/foxglove${queryOf(ofStream)}`);
    expect([one.canRead("run 7", "x"), one.canRead("cam3", "x")]).toEqual([true, false]);
    expect([one.canReadAll, everything.canReadAll]).toEqual([false, false]);
    for (const bad of ["/metrics", "/live", "/events", "/api/streams", path, "/foxglove/"]) {
      expect(await verdict(door.access, bad + queryOf(ofAll))).toEqual([403, "not-let-in"]);
    }
    const ofSource = await make(door, all);
    expect(await verdict(door.access, `/foxglove${queryOf(ofSource)}`)).toEqual([
      403,
      "not-let-in",
    ]);
    expect(await make(door, other, { stream: "night" })).toMatchObject({ error: "wrong-stream" });
    const { key } = other;
    const list = await responseOf(door.access, "/api/tokens", bearer(key.text));
    expect((await list.json()) as Json).toMatchObject({
      tokens: [{ id: ofAll["id"], stream: null, source: null }],
    });
  });

  test("a page of another site opens Foxglove's address with a token, and no other address", async () => {
    const foreign = { Origin: "https://app.foxglove.dev", "Sec-Fetch-Site": "cross-site" };
    const door = keyed();
    const open = doorkeeper();
    const made = await responseOf(open, "/api/tokens", { method: "POST", body: {} });
    const tokens: [Authenticator, Json][] = [
      [door.access, await make(door, all, {})],
      [open, { status: made.status, ...((await made.json()) as Json) }],
    ];
    for (const [access, token] of tokens) {
      expect(token["status"]).toBe(201);
      const query = queryOf(token);
      const from = async (address: string, headers: Record<string, string> = foreign) =>
        verdict(access, address, { headers });
      expect(await from(`/foxglove${query}`)).toEqual(["accepted"]);
      expect(await from("/foxglove")).toEqual([403, "not-let-in"]);
      for (const wrong of ["", "x", "frames_token_x"]) {
        expect(await from(`/foxglove?token=${wrong}`)).toEqual([401, "not-let-in"]);
      }
      for (const other of ["/live", "/events", "/api/streams", "/foxglove/x", "/"]) {
        expect(await from(other + query)).toEqual([403, "not-let-in"]);
      }
      expect(await from(`/foxglove${query}`, { ...foreign, Authorization: "Bearer x" })).toEqual([
        400,
        "usage",
      ]);
      const post = { method: "POST", body: {}, headers: foreign };
      expect(await verdict(access, `/foxglove${query}`, post)).toEqual([403, "not-let-in"]);
      const { signal } = await visitorOf(access, `/foxglove${query}`, { headers: foreign });
      now += day;
      access.sweepExpired();
      expect([signal.aborted, await from(`/foxglove${query}`)]).toEqual([
        true,
        [401, "not-let-in"],
      ]);
      now -= day;
    }
    expect(await verdict(open, "/foxglove")).toEqual(["accepted"]);
    const own = { headers: { Origin: `http://${host}` } };
    expect(await verdict(open, "/foxglove", own)).toEqual(["accepted"]);
  });

  test("a cookie does not let another site's page open Foxglove's address", async () => {
    const door = keyed();
    const headers = { ...(await door.logIn(all)), Origin: "https://app.foxglove.dev" };
    expect(await verdict(door.access, "/foxglove", { headers })).toEqual([403, "not-let-in"]);
    const query = "?token=frames_token_x";
    expect(await verdict(door.access, `/foxglove${query}`, { headers })).toEqual([
      401,
      "not-let-in",
    ]);
  });

  test("a token is listed and revoked by its own key, and by no other", async () => {
    const door = keyed();
    const token = await make(door, all);
    await make(door, other);
    const listed = async (key: KeyEntry): Promise<Json[]> => {
      const answer = await responseOf(door.access, "/api/tokens", bearer(key.key.text));
      const text = await answer.text();
      expect(text).not.toContain("frames_token_");
      return (JSON.parse(text) as { tokens: Json[] }).tokens;
    };
    expect(await listed(all)).toEqual([
      { id: token["id"], ...wish, created: `${now}000000`, expires: token["expires"] },
    ]);
    const revoke = (id: unknown, key: KeyEntry) =>
      verdict(door.access, `/api/tokens/${String(id)}`, {
        method: "DELETE",
        ...bearer(key.key.text),
      });
    expect(await revoke(token["id"], other)).toEqual([404, "missing"]);
    const { signal: ended } = await visitorOf(door.access, path + queryOf(token));
    expect(await revoke(token["id"], all)).toEqual([204, ""]);
    expect(ended.aborted).toBe(true);
    expect(await verdict(door.access, path + queryOf(token))).toEqual([401, "not-let-in"]);
    expect(await revoke(token["id"], all)).toEqual([404, "missing"]);
    expect(await listed(all)).toEqual([]);
  });

  test("a token ends when the key that made it is removed", async () => {
    const door = keyed();
    const query = queryOf(await make(door, all));
    const { signal: ended } = await visitorOf(door.access, path + query);
    door.revoke("all");
    expect(await verdict(door.access, path + query)).toEqual([401, "not-let-in"]);
    door.access.sweepExpired();
    expect(ended.aborted).toBe(true);
  });

  test("a token cannot make another token", async () => {
    const door = keyed();
    const token = queryOf(await make(door, all)).slice("?token=".length);
    const again = { method: "POST", body: wish, ...bearer(token) };
    expect(await verdict(door.access, "/api/tokens", again)).toEqual([403, "not-let-in"]);
  });

  test("a key has at most 100 tokens", async () => {
    const door = keyed();
    for (let count = 0; count < 100; count++) expect((await make(door, all))["status"]).toBe(201);
    expect(await make(door, all)).toMatchObject({ status: 429, error: "full" });
    expect((await make(door, other))["status"]).toBe(201);
    now += day;
    expect((await make(door, all))["status"]).toBe(201);
  });
});
