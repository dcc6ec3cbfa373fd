import { expect, test } from "bun:test";
import { ServerHandshake } from "../../src/protocol/handshake.ts";
import { Receiver } from "../../src/protocol/receive/receiver.ts";
import { FramesError } from "../../src/errors.ts";
import { grants, MemoryStore } from "./memory.ts";
import { Client } from "./peers.ts";
import { decodeAll } from "../wire/oracle.ts";
import { type } from "../wire/vectors.ts";

const peer = new Client();

test("what a client sends behind its HELLO waits for the machine of its role", () => {
  const store = new MemoryStore();
  const handshake = new ServerHandshake(undefined, undefined, 30_000, 0);
  const behind = Buffer.concat([peer.source(1), peer.frame(1, { payload: Buffer.alloc(5000) })]);
  const hello = handshake.receive(Buffer.concat([peer.hello(), behind]), 0);
  expect(hello).toMatchObject({ role: "send" });
  // HELLO is returned once, and the rest is kept.
  expect(handshake.receive(peer.json(type.END, 0, { frames: 1 }), 0)).toBeUndefined();
  expect(handshake.bufferedBytes).toBeGreaterThan(behind.length);
  expect([handshake.drain(), store.frames.length]).toEqual([[], 0]);
  const client = handshake.welcome(store, { ...grants, fresh: true });
  const said = Buffer.concat(handshake.drain());
  expect(decodeAll(said.subarray(8)).messages.map((one) => one.type)).toEqual([type.WELCOME]);
  const receiver = new Receiver({ store, grants, timeoutMs: 30_000, now: 0, peer: client });
  expect(store.frames).toHaveLength(0);
  receiver.start();
  expect([store.frames.length, receiver.isEnding]).toEqual([1, true]);
});

test("the deadline of the handshake ends when the client is admitted, not with its first byte", () => {
  const handshake = new ServerHandshake(undefined, undefined, 30_000, 0);
  handshake.receive(peer.hello().subarray(0, 20), 9_999);
  handshake.tick(9_999);
  expect(() => handshake.tick(10_000)).toThrow("No HELLO arrived within 10 s");
  handshake.receive(peer.hello().subarray(20), 10_000);
  handshake.tick(1_000_000);
});

test("a handshake keeps the sources of a HELLO only for a client that receives, until it ends", () => {
  const sources = Array.from({ length: 1000 }, (_, index) => `source-${index}`);
  const bytesOf = (role: "send" | "receive") => {
    const handshake = new ServerHandshake(undefined, undefined, 30_000, 0);
    handshake.receive(peer.hello({ role, sources }), 0);
    return { handshake, bytes: handshake.bufferedBytes };
  };
  const [sender, receiver] = [bytesOf("send"), bytesOf("receive")];
  expect(receiver.bytes - sender.bytes).toBeGreaterThan(1000 * 150);
  expect(sender.handshake.hello!.sources).toBeUndefined();
  expect(receiver.handshake.hello!.sources).toHaveLength(1000);
  receiver.handshake.close();
  expect(receiver.handshake.hello!.sources).toBeUndefined();
});

test("a failed handshake says so once, and processes nothing more", () => {
  const handshake = new ServerHandshake(undefined, undefined, 30_000, 0);
  handshake.fail(new FramesError("stopping"));
  expect(handshake.receive(peer.hello(), 0)).toBeUndefined();
  expect(handshake.isAdmitted).toBe(false);
  const { messages } = decodeAll(Buffer.concat(handshake.drain()).subarray(8));
  expect(messages.map((one) => one.type)).toEqual([type.ERROR]);
});
