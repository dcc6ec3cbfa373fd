// Fuzzes the handshake with mutated messages. Only the exact bytes may authenticate a client or a
// server.

import { expect, test } from "bun:test";
import { ClientProof } from "../../src/auth/key-proof.ts";
import { Key, type KeyEntry } from "../../src/auth/key.ts";
import { FramesError } from "../../src/errors.ts";
import { OutgoingSource } from "../../src/protocol/send/outgoing-source.ts";
import { ServerEnd } from "../protocol/server-end.ts";
import { Sender } from "../../src/protocol/send/sender.ts";
import { outgoingBufferBytes } from "../../src/protocol/send/write-batch.ts";
import { encodeProof } from "../../src/wire/encode.ts";
import { Size, MessageType } from "../../src/wire/messages.ts";
import { framesOf, grants, hello, MemorySource, MemoryStore } from "../protocol/memory.ts";
import { Client } from "../protocol/peers.ts";
import { cut, messagesOf, mutate, preface, Random, seedOf } from "../wire/fuzz.ts";

/** Total number of inputs, half of them for each side. */
const inputs = Math.floor(Number(process.env["FRAMES_FUZZ_INPUTS"] ?? 200_000) / 10);
const seed = Number(process.env["FRAMES_FUZZ_SEED"] ?? 20261122);

const key = new Key(new Uint8Array(32).fill(7));
const exporter = new Uint8Array(32).fill(9);

/** A receiver that requires keys, and the number of HELLOs it accepted. */
function newReceiver() {
  const seen = { greeted: 0 };
  const events = {
    onHello: () => {
      seen.greeted++;
      return { fresh: true };
    },
  };
  const entry: KeyEntry = { name: "cam", key, role: "both", streams: "*" };
  const keys = { find: (id: string) => (id === key.id ? entry : undefined) };
  return {
    seen,
    receiver: new ServerEnd(new MemoryStore(), grants, 30_000, 0, events, keys, exporter),
  };
}

const into = new Uint8Array(outgoingBufferBytes);

function newSender() {
  const outlets = [new OutgoingSource(1, new MemorySource("a", framesOf(2, 10)))];
  const sender = new Sender({
    ...{ sources: outlets, hello, key, checksum: false, timeoutMs: 30_000, now: 0 },
    onWritable: () => {},
  });
  sender.onConnected(0, exporter);
  const flight = into.slice(0, sender.transmit(into, 0).length);
  return { sender, flight };
}

/** Bytes of a valid client: HELLO and PROOF. */
const greeting = new Client().hello({ key: key.id });
const said = Buffer.concat([
  greeting,
  encodeProof(new ClientProof(key).create(exporter, greeting)),
]);

/** Reply of a valid server to a sender: PROOF and WELCOME. */
const answer = (() => {
  const { receiver } = newReceiver();
  receiver.receive(newSender().flight, 0);
  return Buffer.concat(receiver.drain(0));
})();

// Copies to a plain Uint8Array, because slices of a Buffer would be views of it.
const withoutPreface = (bytes: Uint8Array) => Uint8Array.from(bytes.subarray(preface.length));

/** Mutates messages after the preface. Sometimes inserts a message instead. */
function make(original: Uint8Array, random: Random): Uint8Array {
  const messages = messagesOf(withoutPreface(original));
  if (random.below(3) === 0) {
    const other = random.pick([said, answer]);
    const odd = random.pick(messagesOf(withoutPreface(other)));
    messages.splice(random.below(messages.length + 1), 0, odd);
    return Buffer.concat([preface, ...messages]);
  }
  return Buffer.concat([preface, mutate(messages, random)]);
}

/** Passes the input to one side in pieces. It may throw only `FramesError`. */
function give(input: Uint8Array, random: Random, receive: (chunk: Uint8Array) => void): void {
  try {
    for (const chunk of cut(input, random)) receive(chunk);
  } catch (error) {
    if (!(error instanceof FramesError)) throw error;
  }
}

/**
 * Returns whether `bytes` equal `right` up to the body of its PROOF. The header of PROOF may have
 * OPTIONAL, which changes nothing on a known message (SPEC section 3).
 */
function isRight(bytes: Uint8Array, right: Uint8Array, proofAt: number): boolean {
  const same = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to)).equals(right.subarray(from, to));
  const body = proofAt + Size.header;
  return same(0, proofAt) && same(body, body + Size.proof) && bytes[proofAt] === MessageType.proof;
}

function report(index: number, input: Uint8Array, wrong: string): Error {
  const hex = Buffer.from(input).toString("hex");
  return new Error(`FRAMES_FUZZ_SEED=${seed}, input ${index}: ${wrong}\n${hex}`);
}

test("both ends accept a handshake without mutations", () => {
  const { receiver, seen } = newReceiver();
  give(said, new Random(1), (chunk) => receiver.receive(chunk, 0));
  expect(seen.greeted).toBe(1);
  const { sender } = newSender();
  give(answer, new Random(1), (chunk) => sender.receive(chunk, 0));
  expect(sender.welcome).toBeDefined();
});

test(`a server accepts none of ${inputs >> 1} clients with a mutated handshake`, () => {
  let refused = 0;
  for (let index = 0; index < inputs >> 1; index++) {
    const random = new Random(seedOf(seed ^ 3, index));
    const input = make(said, random);
    const { receiver, seen } = newReceiver();
    give(input, random, (chunk) => receiver.receive(chunk, 0));
    if (isRight(input, said, greeting.length)) continue;
    refused++;
    if (seen.greeted > 0) throw report(index, input, "it was let in");
    if (receiver.drain(0).length > 0) throw report(index, input, "it was answered");
  }
  expect(refused).toBeGreaterThan(inputs / 4);
});

test(`a sender sends nothing to any of ${inputs >> 1} servers with a mutated handshake`, () => {
  // The proof covers everything before WELCOME. TLS protects WELCOME itself.
  let refused = 0;
  for (let index = 0; index < inputs >> 1; index++) {
    const random = new Random(seedOf(seed ^ 4, index));
    const input = make(answer, random);
    const { sender } = newSender();
    give(input, random, (chunk) => sender.receive(chunk, 0));
    if (isRight(input, answer, preface.length)) continue;
    refused++;
    if (sender.welcome !== undefined) throw report(index, input, "it was believed");
    if (sender.transmit(into, 0).length > 0) throw report(index, input, "it was sent something");
  }
  expect(refused).toBeGreaterThan(inputs / 8);
});
