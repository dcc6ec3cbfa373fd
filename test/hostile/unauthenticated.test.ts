// Connections before authentication, against the compiled server: peers that speak another
// protocol, do not have the key, or are slow. An honest sender continues meanwhile.
//
// Covers: server/wrong-protocol.ts

import { beforeAll, describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { connect as connectTls } from "node:tls";

import type { ErrorName } from "../../src/errors.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { expectCode, summaryOf } from "../helper/delivery.ts";
import { HostileGroup, kinds } from "../helper/hostile-group.ts";
import { a, begun } from "../helper/hostile-messages.ts";
import {
  converse,
  end,
  frame,
  hello,
  json,
  message,
  OPTIONAL,
  type Part,
  Peer,
  preface,
  source,
} from "../helper/hostile.ts";
import { makeTree, run } from "../helper/program.ts";
import { until, within } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

const nonsense = new Uint8Array(5000).map((_, index) => (index * 89 + 200) % 256);

/** Returns the first flight of a TLS 1.3 client. */
async function clientHello(): Promise<Uint8Array> {
  const { promise, resolve } = Promise.withResolvers<Uint8Array>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (_, chunk) => resolve(Uint8Array.from(chunk)) },
  });
  const socket = connectTls({ host: "127.0.0.1", port: listener.port, rejectUnauthorized: false });
  socket.on("error", () => {});
  const bytes = await within(promise, () => "TLS said nothing");
  socket.destroy();
  listener.stop(true);
  return bytes;
}

// prettier-ignore
const foreigners: [who: string, first: Part, answer: RegExp, error: ErrorName][] = [
  ["sends an HTTP request", "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", /^HTTP\/1\.1 400 /, "foreign"],
  ["begins HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", /^HTTP\/1\.1 400 /, "foreign"],
  ["speaks a later version of FRAMES", "FRAMES/2", /^FRAMES\/1\x0e.*"error":2,/s, "version"],
  ["sends a preface without a version", "FRAMES/x", /^$/, "foreign"],
  ["speaks SSH", "SSH-2.0-OpenSSH_9.6\r\n", /^$/, "foreign"],
  ["sends random bytes", nonsense, /^$/, "foreign"],
  ["sends HTTP after the preface", "FRAMES/1\r\nGET / HTTP/1.1\r\n\r\n", /^FRAMES\/1\x0e.*"error":1,/s, "protocol"],
];

for (const [kind, isKeyed] of kinds) {
  describe(`Foreign clients at a server ${kind}`, () => {
    const group = new HostileGroup({ isKeyed });

    for (const [who, first, answer, error] of foreigners) {
      test(`a server ${kind} logs ${error} for a peer that ${who}`, async () => {
        using peer = await Peer.connect(group.guarded);
        peer.write(Buffer.from(first as string));
        await peer.closed();
        expect(peer.bytes.toString("latin1")).toMatch(answer);
        await until("a line of the log", () => group.guarded.lines(peer, "failed").length > 0);
        expect(group.guarded.lines(peer, "failed")).toMatchObject([{ error }]);
      });
    }

    for (const [who, first] of [
      ["sends nothing and closes", ""],
      ["sends half a preface and closes", "FRAM"],
      ["sends a preface and closes", preface],
    ] as const) {
      for (const way of ["finish", "reset"] as const) {
        test(`a server ${kind} does not answer a peer that ${who} (${way})`, async () => {
          using peer = await Peer.connect(group.guarded);
          peer.write(Buffer.from(first as string));
          peer[way]();
          await peer.closed();
          expect(peer.outcome).toBe("closed");
        });
      }
    }
  });
}

describe("Server without keys", () => {
  const group = new HostileGroup({ isKeyed: false });

  test("a server without keys answers a TLS client with a protocol version alert", async () => {
    using peer = await Peer.connect(group.guarded);
    peer.write(await clientHello());
    await peer.closed();
    expect(peer.bytes.toString("hex")).toBe("15030300020246");
    await until("a line of the log", () => group.guarded.lines(peer, "failed").length > 0);
    expect(group.guarded.lines(peer, "failed")).toMatchObject([{ error: "foreign" }]);
  });

  test("a server without keys ignores a key and its proof", async () => {
    const proof = message(type.PROOF, Buffer.alloc(32));
    using peer = await converse(group.guarded, { key: "0".repeat(16) }, proof, end(0));
    await group.expectOutcome(peer, { expects: "done" });
  });
});

describe("Server with keys", () => {
  const group = new HostileGroup({ isKeyed: true });
  const greeting = () => Buffer.concat([preface, hello(group.guarded)]);

  /** Messages of a peer after the TLS handshake, and the error it gets. */
  const cases: [who: string, expects: ErrorName, say: (peer: Peer) => Buffer | Promise<Buffer>][] =
    [
      ["names no key", "not-let-in", () => Buffer.concat([preface, hello({ port: 0 })])],
      ...["", "0".repeat(16), "__proto__", "constructor", "*"].map(
        (key): [string, ErrorName, (peer: Peer) => Buffer] => [
          `names the key ${JSON.stringify(key)}`,
          "not-let-in",
          (peer) => peer.greeting(Buffer.concat([preface, hello({ port: 0 }, { key })])),
        ],
      ),
      [
        "declares a source and sends a frame without a proof",
        "not-let-in",
        () => Buffer.concat([greeting(), a, frame()]),
      ],
      [
        "sends a frame without a source or a proof",
        "not-let-in",
        () => Buffer.concat([greeting(), frame()]),
      ],
      ["sends END without a proof", "not-let-in", () => Buffer.concat([greeting(), end(0)])],
      [
        "sends PROOF before HELLO",
        "protocol",
        (peer) => Buffer.concat([preface, peer.proof(preface)]),
      ],
      [
        "guesses a proof",
        "not-let-in",
        () => Buffer.concat([greeting(), message(type.PROOF, Buffer.alloc(32, 7))]),
      ],
      [
        "proves another key than it names",
        "not-let-in",
        () => {
          const said = greeting();
          const proof = createHmac("sha256", generateKey().bytes).update(said).digest();
          return Buffer.concat([said, message(type.PROOF, proof)]);
        },
      ],
      [
        "sends the proof of another connection",
        "not-let-in",
        async () => {
          using other = await Peer.connect(group.guarded);
          return other.greeting(greeting());
        },
      ],
      [
        "proves another HELLO than it sent",
        "not-let-in",
        (peer) => Buffer.concat([greeting(), peer.proof(greeting())]),
      ],
      [
        "sends too many bytes before the proof",
        "limit",
        () => {
          const idle = message(200, Buffer.alloc(60_000), { flags: OPTIONAL });
          return Buffer.concat([greeting(), idle, idle]);
        },
      ],
      [
        "sends PROOF twice",
        "protocol",
        (peer) => {
          const said = peer.greeting(greeting());
          return Buffer.concat([said, peer.proof(said)]);
        },
      ],
    ];
  for (const [who, expects, say] of cases) {
    test(`a server with keys answers ${expects} to a peer that ${who}`, async () => {
      using peer = await Peer.connect(group.guarded);
      peer.write(await say(peer));
      await peer.closed();
      expect(peer.outcome).toBe(expects);
      await until("a line of the log", () => group.guarded.lines(peer, "failed").length > 0);
      expect(group.guarded.lines(peer, "failed")).toMatchObject([{ error: expects }]);
    });
  }

  /** Connects to the same port without TLS. */
  const inTheClear = () => Peer.connect({ port: group.guarded.port });

  for (const [who, first] of [
    ["speaks FRAMES without TLS", Buffer.concat([preface, hello({ port: 0 }), a, frame()])],
    ["sends random bytes without TLS", nonsense],
    ["begins a TLS record of the largest length", Buffer.from("160303ffff01ffffff", "hex")],
    ["sends a TLS alert", Buffer.from("15030300020100", "hex")],
  ] as const) {
    test(`a server with keys disconnects a peer that ${who}, without an answer in FRAMES`, async () => {
      using peer = await inTheClear();
      peer.write(Buffer.from(first));
      await peer.closed();
      expect(peer.messages()).toEqual([]);
      expect(peer.bytes.includes("FRAMES")).toBe(false);
    });
  }

  for (const method of ["GET", "HEAD", "POST", "PUT"]) {
    test(`a server with keys answers ${method} without TLS with 400, and reports HTTP`, async () => {
      using peer = await inTheClear();
      peer.write(Buffer.from(`${method} / HTTP/1.1\r\nHost: x\r\n${"A: b\r\n".repeat(3000)}\r\n`));
      await peer.closed();
      expect(peer.bytes.toString()).toMatch(
        /^HTTP\/1\.1 400 [^]*\r\n\r\nThis port is for FRAMES\/1 over TLS/,
      );
      await until("a line of the log", () => group.guarded.lines(peer, "failed").length > 0);
      expect(group.guarded.lines(peer, "failed")).toMatchObject([
        {
          error: "foreign",
          message:
            "The client sent an HTTP request without TLS; the page is at the address of --http",
        },
      ]);
    });
  }

  test("a server with keys sends no FRAMES bytes to a peer that closes within the TLS handshake", async () => {
    const first = await clientHello();
    for (const length of [1, 5, 100, first.length]) {
      using peer = await inTheClear();
      peer.write(first.subarray(0, length));
      peer.finish();
      await peer.closed();
      expect(peer.bytes.includes("FRAMES")).toBe(false);
    }
  });

  test("a server with keys refuses a peer that speaks TLS 1.2 only", async () => {
    const { port } = group.guarded;
    const options = { host: "127.0.0.1", port, rejectUnauthorized: false, maxVersion: "TLSv1.2" };
    const socket = connectTls(options as Parameters<typeof connectTls>[0]);
    let secured = false;
    socket.once("secureConnect", () => (secured = true));
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const event of ["error", "close"]) socket.once(event, () => resolve());
    await within(promise, () => "the TLS handshake did not end");
    socket.destroy();
    expect(secured).toBe(false);
  });
});

/** Slow peers: what each sends at once, and what it then sends byte by byte. */
const slow: {
  who: string;
  greets: boolean;
  says?: Buffer;
  drips?: Buffer;
  expects: ErrorName | "done";
}[] = [
  { who: "sends nothing", greets: false, expects: "timeout" },
  { who: "sends half a preface", greets: false, says: preface.subarray(0, 4), expects: "timeout" },
  { who: "sends a preface", greets: false, says: preface, expects: "timeout" },
  {
    who: "sends HELLO a byte at a time",
    greets: false,
    says: preface,
    drips: hello({ port: 0 }),
    expects: "timeout",
  },
  { who: "sends HELLO and nothing more", greets: true, expects: "timeout" },
  {
    who: "begins a message and sends nothing more",
    greets: true,
    says: a.subarray(0, 20),
    expects: "timeout",
  },
  {
    who: "sends a message a byte at a time",
    greets: true,
    drips: source("a".repeat(1000)),
    expects: "timeout",
  },
  {
    who: "sends the header of a message a byte at a time and then nothing",
    greets: true,
    drips: a.subarray(0, 3),
    expects: "timeout",
  },
  {
    who: "sends the description of a frame a byte at a time",
    greets: true,
    says: a,
    drips: frame({ name: "n".repeat(255) }),
    expects: "timeout",
  },
  {
    who: "begins a frame and sends nothing more",
    greets: true,
    says: Buffer.concat([a, begun]),
    expects: "timeout",
  },
  {
    who: "sends half the payload of a message and nothing more",
    greets: true,
    says: Buffer.concat([a, frame({ payload: "x".repeat(1000) }).subarray(0, 500)]),
    expects: "timeout",
  },
  {
    who: "breaks a rule and does not close",
    greets: true,
    says: json(type.PING, "[]"),
    expects: "protocol",
  },
  { who: "sends END and does not close", greets: true, says: end(0), expects: "done" },
];

// All slow peers run at the same time.
describe("Slow peers", () => {
  const groups = kinds.map(([kind, isKeyed]) => {
    return {
      kind,
      peers: [] as Peer[],
      group: new HostileGroup({ isKeyed, args: ["--timeout", "2"] }),
    };
  });
  const patient = new HostileGroup({ isKeyed: true });
  let half: Peer;

  beforeAll(async () => {
    half = await Peer.connect({ port: patient.guarded.port });
    half.write(await clientHello());
    for (const { group, peers } of groups) {
      for (const { greets, says = Buffer.alloc(0), drips = Buffer.alloc(0) } of slow) {
        const peer = await Peer.connect(group.guarded, "stubborn");
        const stream = group.newStream();
        const said = Buffer.concat([preface, hello(group.guarded, { stream })]);
        peer.write(Buffer.concat([greets ? peer.greeting(said) : Buffer.alloc(0), says]));
        let at = 0;
        const timer = setInterval(() => {
          if (at === drips.length || peer.isClosed) return clearInterval(timer);
          peer.write(drips.subarray(at, ++at));
        }, 250);
        peers.push(peer);
      }
    }
  });

  for (const { kind, peers, group } of groups) {
    describe(`Server ${kind} and --timeout 2`, () => {
      for (const [index, { who, expects }] of slow.entries()) {
        test(`a server ${kind} answers ${expects} within 2 s to a peer that ${who}`, async () => {
          using peer = peers[index]!;
          await peer.closed();
          expect(peer.outcome).toBe(expects);
          const word = expects === "done" ? "delivered" : "failed";
          await until("a line of the log", () => group.guarded.lines(peer, word).length > 0);
          const error = expects === "done" ? {} : { error: expects };
          expect(group.guarded.lines(peer, word)).toMatchObject([error]);
        });
      }
    });
  }

  test("a server gives a source to another sender when its owner does not answer", async () => {
    const folder = makeTree({ "visible/1.png": 1000 });
    const { guarded } = patient;
    using holder = await converse(guarded, { stream: "held" }, source("visible"));
    await until("WELCOME", () => holder.bodies(type.WELCOME).length > 0);
    const words = ["--stream", "held", "--to", `127.0.0.1:${guarded.port}`, ...guarded.keyWords];
    const sent = await run(["send", folder, "--json", ...words]);
    expectCode(sent, 0);
    expect(summaryOf(sent)).toMatchObject({ frames: 1, retries: 0 });
    expect(holder.outcome).toBe("superseded");
    const text = Buffer.alloc(1000, "visible/1.png ").toString();
    patient.expectKept("held", { "visible/1.png": text });
  });

  test("a server with keys disconnects a peer that stops within the TLS handshake", async () => {
    using peer = half;
    await until("the end of that", () => peer.hasHeardAll || peer.isClosed);
    expect(peer.bytes.includes("FRAMES")).toBe(false);
  });
});
