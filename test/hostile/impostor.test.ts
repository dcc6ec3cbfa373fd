// A man in the middle, and impostors of either side, when both ends have a key. Uses real sockets
// and the executables.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHmac, generateKeyPairSync, randomBytes } from "node:crypto";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";

import { makeCertificate } from "../../src/auth/certificate.ts";
import { channelBinding, ClientProof } from "../../src/auth/key-proof.ts";
import { formatKey, type Key, type KeyEntry } from "../../src/auth/key.ts";
import { errors } from "../../src/errors.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { encodeProof } from "../../src/wire/encode.ts";
import { expectCode } from "../helper/delivery.ts";
import { binary, done, error, json, preface, receipt, welcome } from "../helper/scripted-server.ts";
import {
  jsonLines,
  makeTree,
  run,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until, within } from "../helper/time.ts";
import { decodeAll } from "../wire/oracle.ts";
import { type } from "../wire/vectors.ts";

/** A name and a frame that an attacker must not see. */
const name = "a-name-that-nobody-may-read.png";
const content = "what-the-camera-saw-".repeat(50);
const folder = makeTree({ [name]: content });

const cam: KeyEntry = { name: "cam", key: generateKey(), role: "both", streams: "*" };
const viewer: KeyEntry = {
  name: "viewer",
  key: generateKey(),
  role: "receive",
  streams: "night-*",
};
const keys = join(temporaryFolder(), "keys");
writeFileSync(keys, formatKey(cam) + formatKey(viewer), { mode: 0o600 });

let server: Server;
beforeAll(async () => {
  server = await startServer({ dir: temporaryFolder(), args: ["--key-file", keys] });
});
afterAll(async () => {
  try {
    // A sender with the key is still accepted afterwards.
    expectCode(await send(server.port), 0);
    expect(readdirSync(server.dir).toSorted()).toEqual([".frames", "run7"]);
    expect(await server.stop()).toBe(0);
  } finally {
    for (const path of [folder, keys, server.dir]) rmSync(path, { recursive: true, force: true });
  }
});

const made = makeCertificate(
  generateKeyPairSync("ec", { namedCurve: "P-256" }),
  randomBytes(16),
  new Date(),
);
const certificate = { key: made.key, cert: made.certificate };

type Say = (...parts: Uint8Array[]) => void;

/** Starts an attacker with its own certificate. It sees the decrypted bytes of each connection. */
function stand(heard: (all: Buffer, say: Say, turn: number) => void, tls: boolean = true) {
  const said: Buffer[] = [];
  const listener = Bun.listen<number | undefined>({
    hostname: "127.0.0.1",
    port: 0,
    ...(tls ? { tls: certificate } : {}),
    socket: {
      open: (socket) => void (socket.data = said.push(Buffer.alloc(0)) - 1),
      data(socket, chunk) {
        const turn = socket.data!;
        said[turn] = Buffer.concat([said[turn]!, chunk]);
        heard(said[turn], (...parts) => void socket.write(Buffer.concat(parts)), turn);
      },
      error() {},
    },
  });
  return { port: listener.port, said, [Symbol.dispose]: () => listener.stop(true) };
}

function send(port: number, ...more: string[]) {
  return run(["send", folder, "--to", `127.0.0.1:${port}`, "--key-file", keys, "--json", ...more]);
}

/** Expects that a client sent only its identity, and possibly an error. */
function expectSilence(said: Buffer): void {
  expect(said.subarray(0, preface.length)).toEqual(preface);
  const { messages, consumed, error } = decodeAll(said.subarray(preface.length));
  expect([error, consumed]).toEqual([undefined, said.length - preface.length]);
  const types = messages.map((message) => message.type).filter((one) => one !== type.ERROR);
  expect(types).toEqual([type.HELLO, type.PROOF]);
  const text = said.toString("latin1");
  for (const secret of [name, content.slice(0, 20), cam.key.text, cam.key.text.slice(11)]) {
    expect(text).not.toContain(secret);
  }
  expect(said.includes(cam.key.bytes)).toBe(false);
}

/** Returns whether preface, HELLO and PROOF of a client are complete. */
const isFlight = (said: Buffer): boolean => {
  return decodeAll(said.subarray(preface.length)).messages.length === 2;
};

/** Returns failed connections in the server's log from this line on. */
function failures(from: number): Record<string, unknown>[] {
  const text = server.stdout();
  const lines = jsonLines(text.slice(from, text.lastIndexOf("\n") + 1));
  return lines.filter((line) => line["type"] === "failed");
}

/** Connects to the server and completes the TLS handshake. */
function secured(heard: (chunk: Buffer) => void, closed = () => {}): Promise<Bun.Socket> {
  const { promise, resolve } = Promise.withResolvers<Bun.Socket>();
  const connecting = Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    tls: { rejectUnauthorized: false },
    socket: {
      handshake: resolve,
      data: (_, chunk) => heard(Buffer.from(chunk)),
      close: closed,
      error() {},
    },
  });
  return connecting.then(() => promise);
}

/** Sends something to the server over TLS and returns its reply until it closes. */
async function say(
  make: (exporter: Uint8Array) => Uint8Array,
  isOver: (heard: Buffer) => boolean = () => false,
): Promise<Buffer> {
  let heard: Buffer = Buffer.alloc(0);
  const over = Promise.withResolvers<void>();
  const socket = await secured(
    (chunk) => {
      heard = Buffer.concat([heard, chunk]);
      if (isOver(heard)) over.resolve();
    },
    () => over.resolve(),
  );
  try {
    const { bytes, label } = channelBinding;
    socket.write(make(socket.exportKeyingMaterial(bytes, label) as unknown as Uint8Array));
    await within(over.promise, () => "the server did not close");
    return heard;
  } finally {
    socket.terminate();
  }
}

/** Builds preface and HELLO. */
function greeting(key?: string, stream = "run7"): Buffer {
  const body = { role: "send", session: "a1".repeat(16), stream, ...(key ? { key } : {}) };
  return Buffer.concat([preface, json(type.HELLO, body)]);
}

/** Builds a proof, correct or not, from the text of the SPEC. */
function proof(key: Key, role: string, exporter: Uint8Array, said: Uint8Array): Uint8Array {
  const sum = createHmac("sha256", key.bytes).update(`FRAMES/1 ${role}`);
  return encodeProof(sum.update(exporter).update(said).digest());
}

describe("Man in the middle", () => {
  test("a man in the middle that relays everything gets not-let-in from the server and no frame from the sender", async () => {
    const from = server.stdout().length;
    const answers: Buffer[] = [];
    const ups: Promise<Bun.Socket>[] = [];
    const passed: number[] = [];
    using middle = stand((all, say, turn) => {
      const onward = all.subarray(passed[turn] ?? 0);
      passed[turn] = all.length;
      ups[turn] ??= secured((chunk) => {
        answers.push(chunk);
        say(chunk);
      });
      void ups[turn].then((up) => void up.write(onward));
    });
    const sent = await send(middle.port);
    expect([sent.code, jsonLines(sent.stdout).at(-1)]).toMatchObject([5, { error: "not-let-in" }]);
    await until("the server said so", () => failures(from).length > 0);
    expect(failures(from)).toMatchObject([{ error: "not-let-in" }]);
    const { messages } = decodeAll(Buffer.concat(answers).subarray(preface.length));
    expect(messages).toMatchObject([
      { type: type.ERROR, json: { error: errors["not-let-in"].wireCode } },
    ]);
    expect(middle.said.length).toBe(1);
    expectSilence(middle.said[0]!);
    expect(readdirSync(server.dir)).toEqual([".frames"]);
  });

  const impostors: [string, (flight: Buffer) => Uint8Array[], string, number][] = [
    ["sends only WELCOME", () => [welcome()], "impostor", 5],
    [
      "invents a proof",
      () => [preface, encodeProof(randomBytes(32)), welcome().subarray(8)],
      "impostor",
      5,
    ],
    [
      "returns the sender's own proof",
      (flight) => [preface, flight.subarray(-44), welcome().subarray(8)],
      "impostor",
      5,
    ],
    [
      "proves another key",
      (flight) => [preface, proof(generateKey(), "server", randomBytes(32), flight)],
      "impostor",
      5,
    ],
    [
      "proves the right key for another channel",
      (flight) => {
        const said = Buffer.concat([flight, preface]);
        return [preface, proof(cam.key, "server", randomBytes(32), said)];
      },
      "impostor",
      5,
    ],
    ["confirms frames that it did not get", () => [preface, receipt(1), done(1)], "protocol", 2],
    [
      "sends too many bytes before its proof",
      () => [preface, ...Array<Buffer>(2).fill(binary(200, "x".repeat(60_000), { flags: 0x80 }))],
      "limit",
      2,
    ],
    [
      "sends a proof of 31 bytes",
      () => [preface, binary(type.PROOF, "x".repeat(31))],
      "protocol",
      2,
    ],
    ["answers not-let-in", () => [preface, error(3)], "not-let-in", 5],
  ];
  for (const [what, answer, code, exit] of impostors) {
    test(`an impostor that ${what} gets no frame, name or key, and the sender ends with ${code}`, async () => {
      using middle = stand((all, say) => {
        if (isFlight(all)) say(...answer(all));
      });
      const sent = await send(middle.port, "--move");
      expect([sent.code, jsonLines(sent.stdout).at(-1)]).toMatchObject([
        exit,
        { type: "error", error: code, confirmed: 0 },
      ]);
      expect(sent.stderr.trimEnd().split("\n")).toEqual([expect.stringMatching(/^frames: /)]);
      expect(middle.said.length).toBe(1);
      expectSilence(middle.said[0]!);
      expect(readdirSync(folder)).toEqual([name]);
    });
  }

  test("an impostor without TLS gets only a handshake, and the sender ends with plaintext", async () => {
    using middle = stand((_, say) => say(welcome(), receipt(1), done(1)), false);
    const sent = await send(middle.port, "--move");
    expect([sent.code, jsonLines(sent.stdout).at(-1)]).toMatchObject([5, { error: "plaintext" }]);
    const heard = Buffer.concat(middle.said).toString("latin1");
    for (const secret of ["FRAMES/1", name, "run7", cam.key.id]) {
      expect(heard).not.toContain(secret);
    }
    expect(readdirSync(folder)).toEqual([name]);
  });
});

describe("Server with keys", () => {
  /** Expects `not-let-in` as the only reply, also in the log. */
  async function expectRefusal(make: (exporter: Uint8Array) => Uint8Array): Promise<Buffer> {
    const from = server.stdout().length;
    const heard = await say(make);
    expect(heard.subarray(0, preface.length)).toEqual(preface);
    const { messages, consumed } = decodeAll(heard.subarray(preface.length));
    expect(messages).toMatchObject([
      { type: type.ERROR, json: { error: errors["not-let-in"].wireCode } },
    ]);
    expect(consumed).toBe(heard.length - preface.length);
    await until("the server said so", () => failures(from).length > 0);
    expect(failures(from)).toMatchObject([{ error: "not-let-in" }]);
    return heard;
  }

  test("a server with keys refuses HELLO and PROOF replayed from another connection", async () => {
    const from = server.stdout().length;
    let flight: Buffer = Buffer.alloc(0);
    const isIn = (heard: Buffer): boolean => {
      const { messages } = decodeAll(heard.subarray(preface.length));
      return messages.some((message) => message.type === type.WELCOME);
    };
    const first = await say((exporter) => {
      const client = new ClientProof(cam.key);
      const said = greeting(client.keyId);
      return (flight = Buffer.concat([said, encodeProof(client.create(exporter, said))]));
    }, isIn);
    expect(isIn(first)).toBe(true);
    await until("the server saw the first go", () => failures(from).length > 0);
    await expectRefusal(() => flight);
  });

  test("a server with keys refuses HELLO and PROOF recorded by a man in the middle", async () => {
    using middle = stand((all, say) => {
      if (isFlight(all)) say(preface, error(3));
    });
    expectCode(await send(middle.port), 5);
    await expectRefusal(() => middle.said[0]!);
  });

  test("a server with keys refuses a client that makes the server's proof", async () => {
    const said = greeting(cam.key.id);
    await expectRefusal((exporter) => {
      return Buffer.concat([said, proof(cam.key, "server", exporter, said)]);
    });
  });

  test("a server with keys answers every failed proof with the same bytes, which do not reveal its keys", async () => {
    const wrong = encodeProof(randomBytes(32));
    const other = generateKey();
    // An existing key, keys for another purpose, and unknown ones.
    const wrongProofs = [
      () => Buffer.concat([greeting(cam.key.id), wrong]),
      () => Buffer.concat([greeting(viewer.key.id), wrong]),
      () => Buffer.concat([greeting(viewer.key.id, "night-1"), wrong]),
      () => Buffer.concat([greeting("g".repeat(5000)), wrong]),
      (exporter: Uint8Array) => {
        const said = greeting(other.id);
        return Buffer.concat([said, proof(other, "client", exporter, said)]);
      },
    ];
    const noProofs = [cam.key.id, viewer.key.id, other.id].map(
      (id) => () => Buffer.concat([greeting(id), json(type.SOURCE, { name: "a" }, 1)]),
    );
    const answers = [];
    for (const make of [...wrongProofs, ...noProofs]) answers.push(await expectRefusal(make));
    for (const answer of answers) expect(answer).toEqual(answers[0]!);
  });

  test("a server with keys answers a client without TLS with an alert at most", async () => {
    let heard: Buffer = Buffer.alloc(0);
    const closed = Promise.withResolvers<void>();
    await Bun.connect({
      hostname: "127.0.0.1",
      port: server.port,
      socket: {
        open: (socket) => void socket.write(greeting(cam.key.id)),
        data: (_, chunk) => void (heard = Buffer.concat([heard, chunk])),
        close: () => closed.resolve(),
        error() {},
      },
    });
    await within(closed.promise, () => "the server did not close");
    expect(heard.length).toBeLessThan(16);
    expect(heard.toString("latin1")).not.toContain("FRAMES");
  });

  test("a server with keys refuses a client that speaks TLS 1.2 only", async () => {
    const shake = async (maxVersion: "TLSv1.2" | "TLSv1.3"): Promise<string> => {
      const end = Promise.withResolvers<string>();
      const where = { host: "127.0.0.1", port: server.port };
      const socket = connectTls({ ...where, maxVersion, rejectUnauthorized: false });
      socket.once("secureConnect", () => end.resolve(`${socket.getProtocol()}`));
      socket.once("error", () => end.resolve("refused"));
      socket.once("close", () => end.resolve("refused"));
      try {
        return await within(end.promise, () => `nothing came of ${maxVersion}`);
      } finally {
        socket.destroy();
      }
    };
    expect([await shake("TLSv1.2"), await shake("TLSv1.3")]).toEqual(["refused", "TLSv1.3"]);
  });
});
