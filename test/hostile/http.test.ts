// Malformed and hostile HTTP requests, against the compiled server: its responses, no disclosure,
// and no effect on its store or on an honest sender.
//
// Covers: http/context.ts, http/http-server.ts, http/media-type.ts, http/request-body.ts,
//   http/responses.ts, http/routes/request.ts, http/routes/routes.ts, http/routes/stream-response.ts,
//   http/stream-body.ts, http/stream-clients.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { HostileGroup } from "../helper/hostile-group.ts";
import { type Server, startServer, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { type RawAnswer, rawHttp, request, type Saying } from "../helper/raw-http.ts";

/** Two existing streams: one readable, one only for other keys. */
const seen = "seen";
const hidden = "hidden-from-others";

/** Content of the hidden stream's frames, and of files outside the store. */
const hiddenBytes = "bytes-of-what-is-hidden";
const outsideBytes = "what is in ";

const html = "<html><script>document.title='ran'</script></html>";
const svg = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`;
const oddSource = "<script>alert(1)<b>";
const oddName = `a"b;c='ä%0d.jpg`;

const entry = (name: string, fields: Partial<KeyEntry> = {}): KeyEntry => {
  return { name, key: generateKey(), role: "both", streams: "*", ...fields };
};
const looker = entry("looker", { role: "receive", streams: "seen*" });
const sender = entry("sender", { role: "send" });

/** A server with a page, and the requests to it. */
class Page {
  readonly group: HostileGroup;
  readonly isKeyed: boolean;
  readonly #keys: readonly KeyEntry[];
  readonly #answers: [what: string, answer: RawAnswer][] = [];

  constructor(isKeyed: boolean) {
    this.isKeyed = isKeyed;
    this.#keys = isKeyed ? [looker, sender] : [];
    this.group = new HostileGroup({ isKeyed, http: "127.0.0.1:0", moreKeys: [looker, sender] });
    beforeAll(async () => {
      await this.#seed(seen, "a", {
        "1.jpg": "first",
        "2.jpg": html,
        "3.svg": svg,
        [oddName]: "odd",
      });
      await this.#seed(seen, oddSource, { "1.jpg": "of an odd source" });
      await this.#seed(hidden, "a", { "1.jpg": hiddenBytes });
    });
    afterAll(() => this.#expectNothingLeaked());
  }

  async #seed(stream: string, source: string, files: Record<string, string>): Promise<void> {
    const steps = Object.entries(files).map(([name, payload]) => {
      this.group.want(`${stream}/${source}/${name}`, payload);
      return { source, name, payload, expects: "stored" } as const;
    });
    await this.group.deliver({ stream }, steps);
  }

  get port(): number {
    const { http } = this.group.guarded.server;
    return Number(http!.slice(http!.lastIndexOf(":") + 1));
  }

  get host(): string {
    return `Host: 127.0.0.1:${this.port}`;
  }

  /** Returns the header that authenticates, if the server requires keys. */
  as(key: KeyEntry = looker): string[] {
    return this.isKeyed ? [`Authorization: Bearer ${key.key.text}`] : [];
  }

  /** Sends these bytes. The response is searched for secrets at the end. */
  async say(what: string, said: string | Uint8Array, saying?: Saying): Promise<RawAnswer> {
    const answer = await rawHttp(this.port, said, saying);
    this.#answers.push([what, answer]);
    return answer;
  }

  /** Sends a valid request with a key that may read the visible stream. */
  ask(line: string, headers: string[] = [], body = "", saying?: Saying): Promise<RawAnswer> {
    return this.say(line, request(line, [this.host, ...this.as(), ...headers], body), saying);
  }

  post(path: string, body: unknown, headers: string[] = this.as()): Promise<RawAnswer> {
    const text = JSON.stringify(body);
    const more = ["Content-Type: application/json", `Content-Length: ${Buffer.byteLength(text)}`];
    return this.say(
      `POST ${path}`,
      request(`POST ${path}`, [this.host, ...more, ...headers], text),
    );
  }

  async expectAlive(): Promise<void> {
    expect((await this.ask("GET /healthz")).status).toBe(200);
  }

  #expectNothingLeaked(): void {
    const { around, store } = this.group.guarded;
    const secrets = [
      ...[outsideBytes, "SQLite format", "root:x:", "/src/", "node_modules", around, store],
      ...(this.isKeyed ? [hidden, hiddenBytes] : []),
      ...this.#keys.flatMap(({ key }) => [key.text]),
      ...(this.isKeyed ? [this.group.guarded.key!.key.text] : []),
    ];
    expect(this.#answers.length).toBeGreaterThan(50);
    for (const [what, answer] of this.#answers) {
      const found = secrets.filter((secret) => answer.text.includes(secret));
      expect([what, found]).toEqual([what, []]);
      // Bun itself rejects invalid HTTP, without a body.
      if (answer.body === "" && answer.headers["connection"] === "close") continue;
      if (answer.status === 0 || answer.status === 101) continue;
      const { headers } = answer;
      expect([what, headers["x-content-type-options"]]).toEqual([what, "nosniff"]);
      expect([what, headers["cross-origin-resource-policy"]]).toEqual([what, "same-origin"]);
      expect([what, headers["content-security-policy"]]).toEqual([
        what,
        expect.stringContaining("default-src 'none'"),
      ]);
      expect([what, headers["access-control-allow-origin"]]).toEqual([what, undefined]);
      expect([what, headers["server"], headers["x-powered-by"]]).toEqual([
        what,
        undefined,
        undefined,
      ]);
      if (answer.status >= 400) expect([what, isError(answer)]).toEqual([what, true]);
    }
  }
}

/** Expects one of these statuses. */
function expectStatus(what: string, status: number, ...allowed: number[]): void {
  expect([what, status]).toEqual([what, allowed.includes(status) ? status : allowed.join(" or ")]);
}

/** Returns whether a response has the common form of errors. */
function isError({ body, headers }: RawAnswer): boolean {
  if (headers["content-type"] !== "application/json; charset=utf-8") return false;
  if (body === "") return true;
  const said = JSON.parse(Buffer.from(body, "latin1").toString()) as Record<string, unknown>;
  return typeof said["error"] === "string" && typeof said["message"] === "string";
}

/** Paths that lead out of the store, or to files that are not frames. */
const traversals: string[] = [
  "../../../../outside/secret.png",
  "..%2f..%2f..%2f..%2foutside%2fsecret.png",
  "..%2F..%2F..%2Foutside%2Fsecret.png",
  "%2e%2e/%2e%2e/%2e%2e/outside/secret.png",
  "%2e%2e%2f%2e%2e%2f%2e%2e%2foutside%2fsecret.png",
  "..%5c..%5c..%5coutside%5csecret.png",
  "..\\..\\..\\outside\\secret.png",
  "%252e%252e%252f%252e%252e%252foutside%252fsecret.png",
  "%25252e%25252e%25252foutside",
  "%c0%ae%c0%ae%c0%af%c0%ae%c0%ae%c0%afoutside%c0%afsecret.png",
  "%e0%80%ae%e0%80%ae/outside/secret.png",
  "%ef%bc%8e%ef%bc%8e%ef%bc%8foutside",
  "%u002e%u002e%u2215outside",
  "..%00/outside/secret.png",
  "1.jpg%00.png",
  "1.jpg%0d%0aX-Injected:%20yes",
  "..;/..;/outside/secret.png",
  "....//....//outside/secret.png",
  "..././..././outside/secret.png",
  "%2fetc%2fpasswd",
  "/etc/passwd",
  "//etc/passwd",
  "file:%2f%2f%2fetc%2fpasswd",
  "C:%5cWindows%5cwin.ini",
  "%5c%5chost%5cshare",
  ".frames/journal.sqlite",
  "%2eframes%2fjournal.sqlite",
  "..%2f..%2f.frames%2fjournal.sqlite",
  "%",
  "%2",
  "%zz",
  "%ff%fe",
  "%ed%a0%80",
  "~root/.ssh/id_rsa",
  "*",
  "?token=../../keys",
];

/** URL prefixes to which a path is appended. */
const places: string[] = [
  "/",
  "/streams/",
  `/streams/${seen}/sources/`,
  `/streams/${seen}/sources/a/frames/`,
  `/streams/${seen}/sources/a/numbers/`,
  "/api/streams/",
  `/api/streams/${seen}/frames?source=`,
  `/api/streams/${seen}/frames?source=a&after=`,
  `/api/streams/${seen}/export.mcap?source=`,
];

for (const isKeyed of [false, true]) {
  describe(`HTTP server ${isKeyed ? "with" : "without"} keys`, () => {
    const page = new Page(isKeyed);
    for (const path of traversals) {
      test(`the HTTP server serves no file outside its store at ${path}`, async () => {
        for (const place of places) {
          const answer = await page.ask(`GET ${place}${path}`);
          // 200 for an empty list, and for any spelling of / as the page.
          expectStatus(place, answer.status, 200, 400, 404);
          if (answer.status === 200 && !place.includes("?")) {
            expect(new URL(`${place}${path}`, "http://x").pathname).toBe("/");
          }
          expect(answer.headers["x-injected"]).toBeUndefined();
        }
      });
    }

    const forms: [what: string, said: () => string, statuses: number[]][] = [
      [
        "an absolute form of another host",
        () => request("GET http://evil.example/api/streams", [page.host, ...page.as()]),
        [200, 400, 404, 421],
      ],
      [
        "an absolute form with a foreign Host",
        () =>
          request(`GET http://127.0.0.1:${page.port}/api/streams`, [
            "Host: evil.example",
            ...page.as(),
          ]),
        [421],
      ],
      ["two slashes", () => request("GET //evil.example/", [page.host, ...page.as()]), [404]],
      ["no slash", () => request("GET api/streams", [page.host]), [400]],
      [
        "a foreign Host",
        () => request("GET /api/streams", ["Host: evil.example", ...page.as()]),
        [421],
      ],
      ["a Host that ends with its own", () => request("GET /", ["Host: evil.127.0.0.1"]), [421]],
      ["a Host with a user name", () => request("GET /", ["Host: evil@127.0.0.1"]), [400]],
      ["a Host with a path", () => request("GET /", ["Host: 127.0.0.1/x"]), [400]],
      ["a Host of another address", () => request("GET /", ["Host: 192.0.2.1"]), [421]],
      ["an empty Host", () => request("GET /", ["Host:"]), [400]],
      ["no Host", () => request("GET /"), [400]],
      ["no Host, in HTTP/1.0", () => "GET /api/streams HTTP/1.0\r\n\r\n", [400]],
      [
        "two Hosts",
        () => request("GET /api/streams", [page.host, "Host: evil.example", ...page.as()]),
        [400],
      ],
      ["twice the same Host", () => request("GET /", [page.host, page.host]), [400]],
      [
        "X-Forwarded-Host beside a foreign Host",
        () => request("GET /", ["Host: evil.example", "X-Forwarded-Host: 127.0.0.1"]),
        [421],
      ],
      ["HTTP/0.9", () => "GET /\r\n", [505]],
      ["HTTP/2", () => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]],
      ["TLS", () => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]],
      ["FRAMES/1", () => "FRAMES/1\x01\0\0\0\0\0\0\0\0\0\0\0", [400]],
      ["a NUL in the path", () => request("GET /a\0b", [page.host]), [400, 505]],
      ["a space in the path", () => request("GET /a b", [page.host]), [400, 505]],
      ["a NUL in a header", () => request("GET /", [page.host, "X: a\0b"]), [400]],
      ["a header that is folded", () => request("GET /", [page.host, "X: a", " b"]), [400]],
      ["a header without a name", () => request("GET /", [page.host, ": x"]), [400]],
      ["lines that end in LF alone", () => "GET / HTTP/1.1\nHost: 127.0.0.1\n\n", [400, 505]],
      ["a path of 100 KB", () => request(`GET /${"a".repeat(100_000)}`, [page.host]), [414, 431]],
      [
        "a header of 100 KB",
        () => request("GET /", [page.host, `X: ${"a".repeat(100_000)}`]),
        [431],
      ],
      [
        "a thousand headers",
        () => request("GET /", [page.host, ...Array.from({ length: 1000 }, (_, i) => `X${i}: a`)]),
        [431],
      ],
      [
        "a cookie of 12 KB",
        () => request("GET /api/streams", [page.host, `Cookie: ${"a=b; ".repeat(2400)}`]),
        isKeyed ? [401] : [200],
      ],
    ];
    for (const [what, said, statuses] of forms) {
      test(`the HTTP server answers ${what} with ${statuses.join(" or ")}`, async () => {
        const answer = await page.say(what, said());
        expectStatus(what, answer.status, ...statuses);
        await page.expectAlive();
      });
    }

    test("the HTTP server rejects requests with ambiguous lengths, so that none can carry a second request", async () => {
      const second = request("GET /smuggled", [page.host]);
      const lengths: [what: string, headers: string[], body: string][] = [
        [
          "a length and chunks",
          ["Content-Length: 3", "Transfer-Encoding: chunked"],
          `0\r\n\r\n${second}`,
        ],
        [
          "chunks and a length",
          ["Transfer-Encoding: chunked", "Content-Length: 3"],
          `0\r\n\r\n${second}`,
        ],
        ["two lengths", ["Content-Length: 3", "Content-Length: 30"], `abc${second}`],
        ["a list of lengths", ["Content-Length: 3, 30"], `abc${second}`],
        [
          "chunks with a space",
          ["Transfer-Encoding : chunked", "Content-Length: 3"],
          `0\r\n\r\n${second}`,
        ],
        ["chunks of another kind", ["Transfer-Encoding: xchunked"], `0\r\n\r\n${second}`],
        ["chunks twice", ["Transfer-Encoding: chunked, identity"], `0\r\n\r\n${second}`],
        ["a negative length", ["Content-Length: -3"], `abc${second}`],
        ["a signed length", ["Content-Length: +3"], `abc${second}`],
        ["a length in hexadecimal", ["Content-Length: 0x3"], `abc${second}`],
        ["a length without end", ["Content-Length: 99999999999999999999"], "abc"],
        ["a chunk of no size", ["Transfer-Encoding: chunked"], `zz\r\nabc\r\n0\r\n\r\n${second}`],
        [
          "a chunk of less than nothing",
          ["Transfer-Encoding: chunked"],
          `-1\r\nabc\r\n0\r\n\r\n${second}`,
        ],
        [
          "a chunk of 2^64",
          ["Transfer-Encoding: chunked"],
          `ffffffffffffffff\r\nabc\r\n0\r\n\r\n${second}`,
        ],
      ];
      for (const [what, headers, body] of lengths) {
        const all = [page.host, "Content-Type: application/json", ...headers];
        const answer = await page.say(what, request("POST /login", all, body));
        expect([what, answer.status, answer.answers, answer.isClosed]).toEqual([
          what,
          400,
          1,
          true,
        ]);
      }
    });

    test("the HTTP server answers a large body with 413, whether whole or in chunks", async () => {
      const json = [page.host, "Content-Type: application/json"];
      const large = "a".repeat(100_000);
      const whole = request("POST /login", [...json, `Content-Length: ${large.length}`], large);
      expect((await page.say("a large body", whole)).status).toBe(413);
      const chunks = `${large.length.toString(16)}\r\n${large}\r\n0\r\n\r\n`;
      const chunked = request("POST /login", [...json, "Transfer-Encoding: chunked"], chunks);
      expect((await page.say("large chunks", chunked)).status).toBe(413);
      const announced = request("POST /login", [...json, "Content-Length: 4000000000"], "");
      expect((await page.say("an announced body", announced)).status).toBe(413);
    });

    const drip = { piece: "a", every: 500 };
    const body = ["Content-Type: application/json", "Content-Length: 1000"];
    const slow = (): [what: string, said: string, saying: Saying][] => [
      ["silence", "", {}],
      ["half a head", "GET / HTTP/1.1\r\nHo", {}],
      ["a head letter by letter", `GET / HTTP/1.1\r\n${page.host}\r\nX: `, { drip }],
      ["no body", request("POST /login", [page.host, ...body]), {}],
      ["a body letter by letter", request("POST /login", [page.host, ...body]), { drip }],
      ["an idle connection", request("GET /healthz", [page.host]), {}],
    ];
    let ended: Promise<unknown[]> | undefined;
    // It takes as long as a deadline does, and has nothing to do with keys: once is enough, beside all else.
    beforeAll(() => {
      if (isKeyed) return;
      ended = Promise.all(
        slow().map(async ([what, said, saying]) => {
          const { status } = await page.say(what, said, saying);
          return [what, status === 0 || status === 408 || what === "an idle connection"];
        }),
      );
      ended.catch(() => {});
    });

    test("the HTTP server rejects unsupported methods", async () => {
      const methods = ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "PURGE"];
      for (const method of methods) {
        const { status, headers } = await page.ask(`${method} /api/streams`);
        expect([method, status, headers["allow"]]).toEqual([
          method,
          405,
          "GET, HEAD, POST, DELETE",
        ]);
      }
      expectStatus("CONNECT", (await page.ask("CONNECT evil.example:80")).status, 400, 405);
      // An invalid method gets no response.
      for (const method of ["get", "FOO", "G\0ET"]) {
        expectStatus(method, (await page.ask(`${method} /api/streams`)).status, 0, 400, 405, 505);
      }
      for (const path of ["/", "/api/streams", `/streams/${seen}/sources/a/frames/1.jpg`]) {
        expect((await page.ask(`DELETE ${path}`)).status).toBe(405);
        expect((await page.post(path, {})).status).toBe(405);
      }
    });

    test("the HTTP server answers requests from pages of other sites with 403", async () => {
      const frame = `/streams/${seen}/sources/a/latest`;
      const image = ["Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"];
      const upgrade = [
        ...["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      ];
      const others: [what: string, path: string, headers: string[]][] = [
        ["<img>", frame, ["Sec-Fetch-Site: cross-site", ...image]],
        ["<img> at another port", frame, ["Sec-Fetch-Site: same-site", ...image]],
        ["<img> of MJPEG", `${frame}.mjpeg`, ["Sec-Fetch-Site: cross-site", ...image]],
        ["<script>", "/api/streams", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: script"]],
        [
          "<iframe>",
          "/",
          ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
        ],
        [
          "a link to a frame",
          frame,
          ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
        ],
        ["fetch", "/api/streams", ["Origin: https://evil.example"]],
        ["a sandbox", "/api/streams", ["Origin: null"]],
        ["EventSource", "/events", ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"]],
        ["WebSocket", "/live", ["Origin: https://evil.example", ...upgrade]],
        ["WebSocket at another port", "/live", ["Origin: http://127.0.0.1:1", ...upgrade]],
        ["WebSocket of a sandbox", "/live", ["Origin: null", ...upgrade]],
      ];
      for (const [what, path, headers] of others) {
        const answer = await page.ask(`GET ${path}`, headers);
        expect([what, answer.status]).toEqual([what, 403]);
        expect(answer.text).not.toContain("first");
      }
      const link = others.find(([what]) => what === "a link to a frame")![2];
      expect((await page.ask("GET /", link)).status).toBe(200);
      const form = [
        "Origin: https://evil.example",
        "Content-Type: text/plain",
        "Content-Length: 2",
      ];
      for (const path of ["/login", "/logout", "/api/tokens"]) {
        expect([path, (await page.ask(`POST ${path}`, form, "{}")).status]).toEqual([path, 403]);
      }
    });

    test("the HTTP server serves frames and names with markup so that no browser runs them", async () => {
      const frames = `/streams/${seen}/sources/a/frames`;
      const said = ({ status, headers, body }: RawAnswer) => [
        status,
        headers["content-type"],
        body,
      ];
      const disguised = await page.ask(`GET ${frames}/2.jpg`);
      expect(said(disguised)).toEqual([200, "image/jpeg", html]);
      const drawn = await page.ask(`GET ${frames}/3.svg`);
      expect(said(drawn)).toEqual([200, "application/octet-stream", svg]);
      expect(drawn.headers["content-disposition"]).toStartWith("attachment");
      const odd = await page.ask(`GET ${frames}/${encodeURIComponent(oddName)}`);
      expect([odd.status, odd.body]).toEqual([200, "odd"]);
      expect(odd.headers["content-disposition"]).toMatch(
        /^inline; filename\*=UTF-8''a%22b%3Bc%3D%27%C3%A4%250d\.jpg$/i,
      );
      for (const answer of [disguised, drawn, odd]) {
        expect(answer.headers["content-security-policy"]).toContain("sandbox");
        expect(answer.headers["cache-control"] ?? "").not.toContain("public");
      }
      const listed = await page.ask(`GET /api/streams/${seen}`);
      expect(listed.headers["content-type"]).toStartWith("application/json");
      expect(JSON.parse(listed.body)).toMatchObject({ name: seen });
      const scripts = encodeURIComponent("<img src=x onerror=alert(1)>");
      const missing = await page.ask(`GET /api/streams/${scripts}`);
      expect([missing.status, isError(missing)]).toEqual([404, true]);
    });

    test("the HTTP server answers invalid ranges, numbers, cursors and times without a server error", async () => {
      const frame = `/streams/${seen}/sources/a/frames/1.jpg`;
      const ranges = [
        "bytes=9-1",
        "bytes=-",
        "bytes=a-b",
        "items=0-1",
        "bytes=99999999999999999999-",
        "bytes=-99999999999999999999",
        "bytes=0-0,2-3",
        `bytes=${"0-0,".repeat(2000)}1-1`,
        "bytes=1e3-",
        "bytes=0x1-",
        "bytes=--1",
        "bytes= 0 - 1 ",
      ];
      for (const range of ranges) {
        const answer = await page.ask(`GET ${frame}`, [`Range: ${range}`]);
        expectStatus(range.slice(0, 40), answer.status, 200, 206, 416);
        expect(answer.body.length).toBeLessThan(1000);
      }
      const queries = [
        ...[
          "limit=-1",
          "limit=1e9",
          "limit=NaN",
          "limit=999999999999999999999999",
          "limit=",
          "limit=0x10",
        ],
        ...[
          "after=%27%20OR%201=1--",
          "after=99999999999999999999999999",
          "after=-1",
          "before=x",
          "after=a&after=b",
        ],
        ...["at=99999999999999999999999999", "at=1e400", "number=1e400", "source=a&source=a"],
      ];
      for (const query of queries) {
        for (const path of [
          "/api/streams",
          `/api/streams/${seen}/frames`,
          `/api/streams/${seen}/moment`,
          `/api/streams/${seen}/gaps`,
        ]) {
          const answer = await page.ask(`GET ${path}?source=a&${query}`);
          expectStatus(`${path} ${query}`, answer.status, 200, 400, 404);
        }
      }
      for (const number of ["0", "-1", "1e3", "99999999999999999999", "NaN", "1;drop", "%31"]) {
        const answer = await page.ask(`GET /streams/${seen}/sources/a/numbers/${number}`);
        expectStatus(number, answer.status, 200, 400, 404);
      }
    });

    test("the HTTP server survives invalid WebSocket messages", async () => {
      const upgrade = [
        ...["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      ];
      const says: [what: string, bytes: string][] = [
        ["a message of 4 GB", "\x82\xff\0\0\0\x01\0\0\0\0abcd"],
        ["a message without a mask", "\x81\x02{}"],
        ["a message of no kind", "\x8f\x80abcd"],
        ["a control message in pieces", "\x09\x80abcd"],
        ["text that is none", "\x81\x82\0\0\0\0\xff\xfe"],
        ["no JSON", "\x81\x82\0\0\0\0{{"],
        ["JSON of no use", "\x81\x84\0\0\0\0null"],
        ["a list of nothing", `\x81\x8e\0\0\0\0{"watch":[[]]}`],
      ];
      for (const [what, bytes] of says) {
        const head = request("GET /live", [page.host, ...page.as(), ...upgrade]);
        const answer = await page.say(what, head + bytes, { headOnly: true });
        expect([what, answer.status]).toEqual([what, 101]);
      }
      await page.expectAlive();
    });

    const once = isKeyed ? () => {} : test;
    once("the HTTP server closes a connection with a slow head or a slow body", async () => {
      expect(await ended).toEqual(slow().map(([what]) => [what, true]));
      await page.expectAlive();
    });

    test("the HTTP server and a sender still work after all hostile requests", async () => {
      await page.expectAlive();
      await page.group.expectServed();
    });

    if (!isKeyed) return;

    test("the HTTP server shows a client without a valid key nothing but its page", async () => {
      const latest = `/streams/${seen}/sources/a/latest`;
      const paths = [
        ...["/api/streams", `/api/streams/${seen}`, "/api/server", "/api/senders", "/api/problems"],
        ...["/api/tokens", "/events", "/live", "/metrics", latest, `${latest}.mjpeg`],
        ...[`/streams/${seen}/sources/a/frames/1.jpg`, `/streams/${seen}/sources/a/numbers/1`],
      ];
      const strangers: [what: string, headers: string[]][] = [
        ["nothing", []],
        ["a key for sending", page.as(sender)],
        ["a key that nobody knows", [`Authorization: Bearer ${generateKey().text}`]],
        ["a key in a cookie", [`Cookie: frames-${page.port}=${looker.key.text}`]],
        ["a password", [`Authorization: Basic ${btoa(`x:${looker.key.text}`)}`]],
        ["a cookie made up", [`Cookie: frames-${page.port}=${"A".repeat(43)}`]],
      ];
      for (const [what, headers] of strangers) {
        for (const path of paths) {
          const said = request(`GET ${path}`, [page.host, ...headers]);
          const answer = await page.say(what, said, { headOnly: true });
          expectStatus(`${what}: ${path}`, answer.status, 400, 401, 403, 429);
        }
      }
      const inAddress = request(`GET /metrics?token=${looker.key.text}`, [page.host]);
      expectStatus(
        "a key in an address",
        (await page.say("a key in an address", inAddress)).status,
        401,
        429,
      );
    });

    test("the HTTP server does not reveal to a key whether other streams exist", async () => {
      const paths = (stream: string): string[] => [
        ...[
          `/api/streams/${stream}`,
          `/api/streams/${stream}/frames?source=a`,
          `/api/streams/${stream}/gaps`,
        ],
        ...[
          `/api/streams/${stream}/moment?at=1700000000000000000`,
          `/streams/${stream}/sources/a/latest`,
        ],
        ...[
          `/streams/${stream}/sources/a/latest.mjpeg`,
          `/streams/${stream}/sources/a/frames/1.jpg`,
        ],
        `/streams/${stream}/sources/a/numbers/1`,
      ];
      const absent = "nowhere-to-be-found";
      for (const [index, path] of paths(hidden).entries()) {
        // The response contains the requested name, so it is excluded from the search for secrets.
        const said = (of: string) =>
          rawHttp(page.port, request(`GET ${of}`, [page.host, ...page.as()]), { headOnly: true });
        const [there, missing] = [await said(path), await said(paths(absent)[index]!)];
        expect([path, there.status]).toEqual([path, 404]);
        expect(
          there.text.replaceAll(hidden, absent).replace(/^(?:Date|Content-Length):.*\r\n/gm, ""),
        ).toEqual(missing.text.replace(/^(?:Date|Content-Length):.*\r\n/gm, ""));
        expect(there.text).not.toContain(hiddenBytes);
      }
      for (const path of [
        "/api/streams",
        "/metrics",
        "/api/server",
        "/api/senders",
        "/api/problems",
      ]) {
        expectStatus(path, (await page.ask(`GET ${path}`)).status, 200, 403, 404);
      }
      await page.ask("GET /events", [], "", { headOnly: true });
      expect((await page.post("/api/tokens", { stream: hidden, source: "a" })).status).toBe(403);
    });

    test("an access token gives access to its source and nothing else", async () => {
      const made = await page.post("/api/tokens", { stream: seen, source: "a", hours: 1 });
      expect(made.status).toBe(201);
      const { id, address } = JSON.parse(made.body) as { id: string; address: string };
      const query = new URL(address).search;
      const own = `/streams/${seen}/sources/a/latest`;
      const ask = async (path: string, line = `GET ${path}${query}`): Promise<number> =>
        (await page.say(path, request(line, [page.host]), { headOnly: true })).status;
      expect(await ask(own)).toBe(200);
      expect(await ask("/metrics")).toBe(200);
      const others = [
        ...[
          "/api/streams",
          "/events",
          "/live",
          "/api/tokens",
          `/streams/${seen}/sources/a/frames/1.jpg`,
        ],
        `/streams/${seen}/sources/${encodeURIComponent(oddSource)}/latest`,
        ...[
          `/streams/${hidden}/sources/a/latest`,
          `/streams/${hidden}/sources/%2e%2e/%2e%2e/${seen}/sources/a/frames/1.jpg`,
        ],
      ];
      for (const path of others) expect([path, await ask(path)]).toEqual([path, 403]);
      expect(await ask(own, `POST ${own}${query}`)).toBe(403);
      const revoke = request(`DELETE /api/tokens/${id}`, [page.host, ...page.as()]);
      expect((await page.say("revoke", revoke)).status).toBe(204);
      expectStatus("a revoked token", await ask(own), 401, 429);
    });

    test("the HTTP server refuses requests from other sites even with a login cookie", async () => {
      const entered = await page.post("/login", { key: looker.key.text }, []);
      const cookie = `Cookie: ${entered.headers["set-cookie"]!.split(";")[0]!}`;
      const with_ = (line: string, ...headers: string[]) =>
        page.say(line, request(line, [page.host, cookie, ...headers]));
      expect((await with_("GET /api/streams")).status).toBe(200);
      expect((await with_("GET /api/streams", "Origin: https://evil.example")).status).toBe(403);
      expect((await with_("DELETE /api/tokens/x")).status).toBe(403);
      expect((await with_("DELETE /api/tokens/x", "Origin: https://evil.example")).status).toBe(
        403,
      );
      expect(
        (await with_("DELETE /api/tokens/x", `Origin: http://127.0.0.1:${page.port}`)).status,
      ).toBe(404);
    });

    test("the server logs neither a key nor an access token", () => {
      const { server, key } = page.group.guarded;
      const log = server.stdout() + server.stderr();
      for (const one of [looker, sender, { key: key!.key }])
        expect(log).not.toContain(one.key.text);
      expect(log).not.toContain("frames_token_");
    });
  });
}

describe("Server with few open files", () => {
  const group = new HostileGroup({ isKeyed: false, http: "127.0.0.1:0", openFiles: 512 });

  test("a server serves senders while HTTP connections exceed its open files, and serves its page afterwards", async () => {
    const { http } = group.guarded.server;
    const port = Number(http!.slice(http!.lastIndexOf(":") + 1));
    const crowd: Bun.Socket[] = [];
    const isThere = async (): Promise<boolean> =>
      await fetch(`http://${http}/healthz`, { signal: AbortSignal.timeout(2000) }).then(
        ({ ok }) => ok,
        () => false,
      );
    expect(await isThere()).toBe(true);
    for (let wave = 0; wave < 3; wave++) {
      for (let count = 0; count < 600; count++) {
        const socket = { data() {}, error() {} };
        // When the server does not accept, the system refuses connections.
        await Bun.connect({ hostname: "127.0.0.1", port, socket }).then(
          (connection) => void crowd.push(connection),
          () => {},
        );
      }
      await group.expectServed();
    }
    expect(crowd.length).toBeGreaterThan(512);
    for (const connection of crowd) connection.terminate();
    let isBack = false;
    await until("the page", () => {
      void isThere().then((is) => (isBack = is));
      return isBack;
    });
  });
});

describe("Key removed from the key file", () => {
  const folder = temporaryFolder();
  const keys = join(folder, "keys");
  const write = (...entries: KeyEntry[]) =>
    writeFileSync(keys, entries.map(formatKey).join(""), { mode: 0o600 });
  let server: Server;
  beforeAll(async () => {
    write(looker, entry("other"));
    const args = ["--key-file", keys];
    server = await startServer({ dir: join(folder, "store"), http: "127.0.0.1:0", args });
  });
  afterAll(async () => {
    expect(await server.stop()).toBe(0);
    rmSync(folder, { recursive: true, force: true });
  });

  test("a key removed from the key file ends its logins, access tokens and open responses", async () => {
    const base = `http://${server.http}`;
    const bearer = { Authorization: `Bearer ${looker.key.text}` };
    const post = (path: string, body: unknown, headers = {}) =>
      fetch(base + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...headers },
        body: JSON.stringify(body),
      });
    const entered = await post("/login", { key: looker.key.text });
    const cookie = { Cookie: entered.headers.get("set-cookie")!.split(";")[0]! };
    const made = await post("/api/tokens", { stream: seen, source: "a" }, bearer);
    const { address } = (await made.json()) as { address: string };
    const metrics = `${base}/metrics${new URL(address).search}`;
    const events = await Promise.all(
      [cookie, bearer].map((headers) => fetch(`${base}/events`, { headers })),
    );
    expect(events.map(({ status }) => status)).toEqual([200, 200]);
    const ended = events.map((answer) =>
      answer.text().then(
        () => true,
        () => true,
      ),
    );
    const socket = new WebSocket(`ws://${server.http}/live`, { headers: cookie } as never);
    const closed = new Promise<boolean>((resolve) =>
      socket.addEventListener("close", () => resolve(true)),
    );
    await new Promise((resolve) => socket.addEventListener("open", resolve));
    expect((await fetch(metrics)).status).toBe(200);

    write(entry("other"));
    const statusOf = async (url: string, headers = {}): Promise<number> => {
      const answer = await fetch(url, { headers });
      await answer.text();
      return answer.status;
    };
    let statuses: number[] = [];
    await until("the end of the key", () => {
      void (async () => {
        statuses = [
          await statusOf(`${base}/api/streams`, cookie),
          await statusOf(`${base}/api/streams`, bearer),
          await statusOf(metrics),
        ];
      })();
      return statuses.length > 0 && statuses.every((status) => status === 401 || status === 429);
    });
    expect(await Promise.all([...ended, closed])).toEqual([true, true, true]);
  });
});
