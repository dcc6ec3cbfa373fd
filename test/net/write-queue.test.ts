import { describe, expect, test } from "bun:test";
import { WriteQueue, type Writable } from "../../src/net/write-queue.ts";

/** A socket that accepts as much as the test allows. */
class FakeSocket implements Writable {
  readonly taken: number[] = [];
  /** Bytes accepted by the next writes; after these, none. */
  readonly takes: number[] = [];
  writes = 0;

  write(bytes: Uint8Array, offset: number, length: number): number {
    this.writes++;
    // A real socket may behave in any way with invalid ranges.
    if (length < 0 || offset < 0 || offset + length > bytes.length) throw new RangeError("write");
    const take = this.takes.shift() ?? 0;
    const accepted = Math.min(take, length);
    if (accepted <= 0) return accepted;
    for (const byte of bytes.subarray(offset, offset + accepted)) this.taken.push(byte);
    return accepted;
  }
}

/** Returns bytes whose order can be checked: any 251 consecutive ones differ. */
function numbered(from: number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, index) => (from + index) % 251);
}

function generator(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));

describe("WriteQueue", () => {
  test("a write queue passes bytes to the socket at once, and keeps none that the socket took", () => {
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    socket.takes.push(10, 5);
    outbox.send(numbered(0, 10));
    expect(outbox.queuedBytes).toBe(0);
    outbox.send(numbered(10, 5));
    expect(outbox.queuedBytes).toBe(0);
    expect(socket.taken).toEqual([...numbered(0, 15)]);
  });

  test("a write queue keeps the bytes that the socket did not take, and sends them first", () => {
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    socket.takes.push(3);
    outbox.send(numbered(0, 10));
    expect(outbox.queuedBytes).toBe(7);
    // The socket has space now, but earlier bytes must go first.
    socket.takes.push(100, 100);
    outbox.send(numbered(10, 5));
    expect(socket.taken).toEqual([0, 1, 2]);
    expect(outbox.queuedBytes).toBe(12);
    expect(outbox.flush()).toBe(true);
    expect(outbox.queuedBytes).toBe(0);
    expect(socket.taken).toEqual([...numbered(0, 15)]);
  });

  test("a write queue stops at the first short write of a flush", () => {
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    outbox.send(numbered(0, 10));
    outbox.send(numbered(10, 10));
    socket.takes.push(4, 100);
    expect(outbox.flush()).toBe(false);
    expect(socket.taken).toEqual([0, 1, 2, 3]);
    expect(outbox.queuedBytes).toBe(16);
    expect(outbox.flush()).toBe(false);
    expect(outbox.queuedBytes).toBe(10);
    socket.takes.push(100);
    expect(outbox.flush()).toBe(true);
    expect(socket.taken).toEqual([...numbered(0, 20)]);
  });

  test("an empty write queue can be flushed", () => {
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    expect(outbox.flush()).toBe(true);
    outbox.send(new Uint8Array());
    expect(outbox.queuedBytes).toBe(0);
    expect(outbox.flush()).toBe(true);
    expect(socket.taken).toEqual([]);
  });

  test("a write queue counts no byte twice when the socket is closed", () => {
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    socket.takes.push(-1, -1);
    outbox.send(numbered(0, 10));
    expect(outbox.queuedBytes).toBe(10);
    expect(outbox.flush()).toBe(false);
    expect(outbox.queuedBytes).toBe(10);
    outbox.clear();
    expect(outbox.queuedBytes).toBe(0);
    socket.takes.push(100);
    expect(outbox.flush()).toBe(true);
    expect(socket.taken).toEqual([]);
  });

  test("a write queue holds bytes by reference, without a copy", () => {
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    const bytes = numbered(0, 4);
    outbox.send(bytes);
    bytes[3] = 99;
    socket.takes.push(100);
    outbox.flush();
    expect(socket.taken).toEqual([0, 1, 2, 99]);
  });

  test(`a write queue sends every byte once and in order, whatever the socket takes, seed ${seed}`, () => {
    const random = generator(seed);
    for (let round = 0; round < 200; round++) {
      const socket = new FakeSocket();
      const outbox = new WriteQueue(socket);
      let sent = 0;
      for (let step = 0; step < 60; step++) {
        const writes = random(4);
        for (let count = 0; count < writes; count++) socket.takes.push(random(12) - 1);
        if (random(3) === 0) {
          const before = outbox.queuedBytes;
          const all = outbox.flush();
          expect(all).toBe(outbox.queuedBytes === 0);
          expect(outbox.queuedBytes).toBeLessThanOrEqual(before);
        } else {
          const count = random(20);
          outbox.send(numbered(sent, count));
          sent += count;
        }
        // The queue holds exactly what the socket did not accept.
        expect(outbox.queuedBytes).toBe(sent - socket.taken.length);
        socket.takes.length = 0;
      }
      while (outbox.queuedBytes > 0) {
        socket.takes.push(random(30));
        outbox.flush();
      }
      expect(socket.taken).toEqual([...numbered(0, sent)]);
    }
  });

  test("a write queue never holds more than one send, if the sender waits until it is empty", () => {
    const random = generator(seed);
    const socket = new FakeSocket();
    const outbox = new WriteQueue(socket);
    let sent = 0;
    let most = 0;
    while (sent < 5000) {
      if (outbox.queuedBytes === 0) {
        outbox.send(numbered(sent, 100));
        sent += 100;
      }
      most = Math.max(most, outbox.queuedBytes);
      socket.takes.push(random(40));
      outbox.flush();
    }
    expect(most).toBeLessThanOrEqual(100);
    expect(socket.taken).toEqual([...numbered(0, sent - outbox.queuedBytes)]);
  });
});
