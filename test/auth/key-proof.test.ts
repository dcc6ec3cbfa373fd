// Key proofs of SPEC section 10, valid and invalid.

import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ClientProof, ServerProof, Transcript } from "../../src/auth/key-proof.ts";
import { Key, type KeyEntry } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { FramesError } from "../../src/errors.ts";
import { ServerEnd, type ServerEndEvents } from "../protocol/server-end.ts";
import { OutgoingSource } from "../../src/protocol/send/outgoing-source.ts";
import { Sender } from "../../src/protocol/send/sender.ts";
import { outgoingBufferBytes } from "../../src/protocol/send/write-batch.ts";
import { encodeProof } from "../../src/wire/encode.ts";
import { framesOf, grants, hello, MemorySource, MemoryStore } from "../protocol/memory.ts";
import { Client } from "../protocol/peers.ts";
import { decodeAll } from "../wire/oracle.ts";
import { message, type } from "../wire/vectors.ts";

const key = new Key(Uint8Array.from({ length: 32 }, (_, index) => index));
const exporter = Buffer.alloc(32, 0xee);
const preface = Buffer.from("FRAMES/1");

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof FramesError) return error.code;
    throw error;
  }
}

/** Builds preface and HELLO with the id of a key. */
function greeting(id = key.id): Buffer {
  return new Client().hello({ key: id });
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function hmac(secret: Uint8Array, ...parts: (string | Uint8Array)[]): Buffer {
  const sum = createHmac("sha256", secret);
  for (const part of parts) sum.update(part);
  return sum.digest();
}

describe("key proofs", () => {
  test("a proof is the HMAC that SPEC section 10 describes, at both ends", () => {
    const said = greeting();
    const client = new ClientProof(key);
    const proof = client.create(exporter, said);
    expect(hex(proof)).toBe(hex(hmac(key.bytes, "FRAMES/1 client", exporter, said)));
    const whole = Buffer.concat([said, encodeProof(proof)]);
    const server = new ServerProof(exporter);
    server.onReceived(whole);
    const answer = server.answer(key, proof, preface);
    expect(hex(answer)).toBe(hex(hmac(key.bytes, "FRAMES/1 server", exporter, whole, preface)));
    client.onSent(encodeProof(proof));
    client.onReceived(Buffer.concat([preface, encodeProof(answer)]));
    client.verify(answer);
    expect(client.isDone).toBe(true);
  });

  test("a proof matches the test vector in SPEC section 10", () => {
    // Computed with independent HMAC and CRC-32 implementations from the text of the SPEC alone.
    const vector = [
      "e1e47f9585f03e06",
      "7adb9462de8c50030aac134a2b81b96037273ba067c8354d73ba25cdb0a88ce6",
      "d7bc33085f6e5d0d7d00ed58fb09b008dcebbf9dd98c379b24bfe51a90d54663",
    ];
    const body = Buffer.from('{"role":"send"}').toString("hex");
    const hello = message({ type: type.HELLO, flags: 0, source: 0 }, body);
    const said = Buffer.concat([preface, Buffer.from(hello, "hex")]);
    const proof = new ClientProof(key).create(exporter, said);
    const server = new ServerProof(exporter);
    server.onReceived(Buffer.concat([said, encodeProof(proof)]));
    const answer = server.answer(key, proof, preface);
    expect([
      key.id,
      Buffer.from(proof).toString("hex"),
      Buffer.from(answer).toString("hex"),
    ]).toEqual(vector);
    const spec = readFileSync(join(import.meta.dir, "../../src/wire/SPEC.md"), "utf8");
    for (const value of vector) expect(spec).toContain(value);
  });

  test("the transcript finds a proof at any split, behind skipped messages and before further bytes", () => {
    const skipped = Buffer.from(message({ type: 99, flags: 0x80, source: 0 }, "1111"), "hex");
    const before = Buffer.concat([greeting(), skipped]);
    const whole = Buffer.concat([before, encodeProof(Buffer.alloc(32, 7))]);
    for (let size = 1; size < whole.length; size += 7) {
      const transcript = new Transcript();
      const bytes = Buffer.concat([whole, Buffer.from("more of it")]);
      for (let at = 0; at < bytes.length; at += size) transcript.add(bytes.subarray(at, at + size));
      const taken = transcript.finish();
      expect(Buffer.from(taken.beforeProof)).toEqual(before);
      expect(Buffer.from(taken.throughProof)).toEqual(whole);
    }
  });

  test("the transcript fails with `limit` when too many bytes come before the proof", () => {
    const transcript = new Transcript();
    const endless = Buffer.from(
      message({ type: 99, flags: 0x80, source: 0 }, "00".repeat(16_000)),
      "hex",
    );
    transcript.add(Buffer.concat([preface, endless]));
    expect(codeOf(() => transcript.add(endless))).toBe("limit");
  });
});

/** Returns the entry of a key file. */
function entryOf(one: Key): KeyEntry {
  return { name: "cam", key: one, role: "both", streams: "*" };
}

/** A receiver that requires keys, and the client it talks to. */
function server(
  keys: readonly Key[] = [key],
  events: Partial<ServerEndEvents> = {},
  channel = exporter,
) {
  let greeted = 0;
  const receiver = new ServerEnd(
    new MemoryStore(),
    grants,
    30_000,
    0,
    {
      onHello: () => {
        greeted++;
        return { fresh: true };
      },
      ...events,
    },
    { find: (id) => keys.filter((one) => one.id === id).map(entryOf)[0] },
    channel,
  );
  return {
    receiver,
    get greeted() {
      return greeted;
    },
    /** Returns the code of the error that these bytes cause. */
    says: (...parts: Uint8Array[]) =>
      codeOf(() => {
        for (const part of parts) receiver.receive(part, 0);
      }),
    heard: () => decodeAll(Buffer.concat(receiver.drain(0)).subarray(8)).messages,
  };
}

function proofOf(secret: Key, said: Uint8Array, channel = exporter): Uint8Array {
  return encodeProof(new ClientProof(secret).create(channel, said));
}

describe("a server with keys", () => {
  test("a server with keys sends PROOF and WELCOME after a valid proof, and nothing before it", () => {
    const said = greeting();
    const at = server();
    expect(at.says(said)).toBeUndefined();
    expect([at.greeted, at.receiver.drain(0)]).toEqual([0, []]);
    expect(at.says(proofOf(key, said))).toBeUndefined();
    expect(at.heard().map(({ type: number }) => number)).toEqual([type.PROOF, type.WELCOME]);
    expect(at.greeted).toBe(1);
  });

  const other = generateKey();
  const said = greeting();
  const right = proofOf(key, said);
  const flipped = Buffer.from(hmac(key.bytes, "FRAMES/1 client", exporter, said));
  flipped[31]! ^= 1;
  const cases: [string, Uint8Array[]][] = [
    ["no key", [new Client().hello()]],
    ["an unknown key", [greeting(other.id), proofOf(other, greeting(other.id))]],
    ["the id of one key and the proof of another", [said, proofOf(other, said)]],
    ["a proof with one bit wrong", [said, encodeProof(flipped)]],
    ["a proof of zeros", [said, encodeProof(new Uint8Array(32))]],
    ["the proof of another HELLO", [new Client().hello({ key: key.id, stream: "x" }), right]],
    ["a proof from another channel", [said, proofOf(key, said, Buffer.alloc(32, 1))]],
    [
      "the proof that a server gives",
      [said, encodeProof(hmac(key.bytes, "FRAMES/1 server", exporter, said))],
    ],
    ["a source instead of a proof", [said, new Client().source(1)]],
    ["a frame instead of a proof", [said, new Client().frame(1)]],
    ["END instead of a proof", [said, new Client().json(type.END, 0, { frames: 0 })]],
  ];
  for (const [what, parts] of cases) {
    test(`a server refuses a client with ${what}, and sends nothing but ERROR`, () => {
      const at = server();
      expect(at.says(...parts)).toBe("not-let-in");
      at.receiver.fail(new FramesError("not-let-in"));
      expect(at.heard()).toMatchObject([{ type: type.ERROR, json: { error: 3 } }]);
      expect(at.greeted).toBe(0);
    });
  }

  test("a server accepts no second proof and no second HELLO", () => {
    const at = server();
    expect(at.says(said, right)).toBeUndefined();
    expect(at.says(right)).toBe("protocol");
    const again = server();
    expect(again.says(said, said.subarray(8))).toBe("protocol");
  });

  test("a server welcomes a client once when its proof comes byte by byte", () => {
    const at = server();
    const bytes = Buffer.concat([said, right]);
    for (const byte of bytes) expect(at.says(Uint8Array.of(byte))).toBeUndefined();
    expect(at.greeted).toBe(1);
  });
});

/** A sender with a key, and the bytes it sends when connected. */
function sender(
  { channel = exporter, secret }: { channel?: Uint8Array; secret?: Key } = { secret: key },
) {
  const sources = [new MemorySource("a", framesOf(3, 10))];
  const outlets = sources.map((source, index) => new OutgoingSource(index + 1, source));
  const machine = new Sender({
    ...{ sources: outlets, hello, key: secret, checksum: false, timeoutMs: 30_000, now: 0 },
    onWritable: () => {},
  });
  const into = new Uint8Array(outgoingBufferBytes);
  const transmit = () => Buffer.from(into.subarray(0, machine.transmit(into, 0).length));
  return {
    machine,
    connect: () => {
      machine.onConnected(0, channel);
      return transmit();
    },
    transmit,
  };
}

describe("a sender with a key", () => {
  test("a sender with a key sends HELLO and PROOF together, and nothing before the server's proof", () => {
    const { machine, connect, transmit } = sender();
    const flight = connect();
    const { messages } = decodeAll(flight.subarray(8));
    expect(messages.map(({ type: number }) => number)).toEqual([type.HELLO, type.PROOF]);
    expect(transmit().length).toBe(0);
    const at = server();
    expect(at.says(flight)).toBeUndefined();
    const answer = Buffer.concat(at.receiver.drain(0));
    for (const byte of answer) {
      machine.receive(Uint8Array.of(byte), 0);
      if (machine.welcome === undefined) expect(transmit().length).toBe(0);
    }
    expect(transmit().length).toBeGreaterThan(0);
  });

  test("a sender with a key refuses a channel without TLS", () => {
    const { machine } = sender();
    expect(codeOf(() => machine.onConnected(0, undefined))).toBe("plaintext");
  });

  const welcome = Buffer.from(
    message(
      { type: type.WELCOME, flags: 0, source: 0 },
      Buffer.from(JSON.stringify(grants)).toString("hex"),
    ),
    "hex",
  );
  const impostors: [string, (flight: Buffer) => Uint8Array][] = [
    ["sends WELCOME without a proof", () => Buffer.concat([preface, welcome])],
    ["invents a proof", () => Buffer.concat([preface, encodeProof(Buffer.alloc(32, 1)), welcome])],
    [
      "returns the sender's own proof",
      (flight) => Buffer.concat([preface, flight.subarray(-44), welcome]),
    ],
    [
      "has another key",
      (flight) => {
        const proof = hmac(generateKey().bytes, "FRAMES/1 server", exporter, flight, preface);
        return Buffer.concat([preface, encodeProof(proof), welcome]);
      },
    ],
  ];
  for (const [what, answer] of impostors) {
    test(`a sender with a key sends nothing to a server that ${what}`, () => {
      const { machine, connect, transmit } = sender();
      const flight = connect();
      expect(codeOf(() => machine.receive(answer(flight), 0))).toBe("impostor");
      expect(machine.welcome).toBeUndefined();
      expect(transmit().length).toBe(0);
    });
  }

  test("a relay between two TLS channels cannot pass a sender's proof on", () => {
    const { machine, connect } = sender({ channel: Buffer.alloc(32, 1), secret: key });
    // The attacker relays all messages between two TLS connections with different channel bindings.
    const at = server([key], {}, Buffer.alloc(32, 2));
    expect(at.says(connect())).toBe("not-let-in");
    at.receiver.fail(new FramesError("not-let-in"));
    const answer = Buffer.concat(at.receiver.drain(0));
    expect(codeOf(() => machine.receive(answer, 0))).toBe("not-let-in");
  });

  test("a sender fails with `protocol` on a second proof, and without a key on any proof", () => {
    const { machine, connect } = sender();
    const at = server();
    at.says(connect());
    const answer = Buffer.concat(at.receiver.drain(0));
    const twice = Buffer.concat([answer.subarray(0, 52), answer.subarray(8)]);
    expect(codeOf(() => machine.receive(twice, 0))).toBe("protocol");
    const plain = sender({});
    plain.connect();
    const proof = Buffer.concat([preface, encodeProof(new Uint8Array(32))]);
    expect(codeOf(() => plain.machine.receive(proof, 0))).toBe("protocol");
  });
});
