// Rate limiting of a socket, with a fake clock.

import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { WriteQueue, type Writable } from "../../src/net/write-queue.ts";
import { PacedSocket } from "../../src/net/paced-socket.ts";

let now = 0;

beforeEach(() => {
  now = 5_000_000;
  jest.useFakeTimers();
});

afterEach(() => jest.useRealTimers());

/** A socket that accepts up to `most` bytes at a time and records when. */
class FakeSocket implements Writable {
  readonly taken: [at: number, bytes: number][] = [];
  writes = 0;
  most = Infinity;
  sum = 0;
  /** The last byte received, to check the order. */
  #next = 0;

  write(bytes: Uint8Array, offset: number, length: number): number {
    this.writes++;
    if (length < 0 || offset < 0 || offset + length > bytes.length) throw new RangeError("write");
    const accepted = this.most < 0 ? -1 : Math.min(this.most, length);
    if (accepted <= 0) return accepted;
    if (bytes[offset] !== this.#next % 251) throw new Error("bytes are out of order");
    this.#next += accepted;
    this.sum += accepted;
    this.taken.push([now, accepted]);
    return accepted;
  }

  /** Returns the bytes received within `milliseconds` from `from` on. */
  within(from: number, milliseconds: number): number {
    return this.taken
      .filter(([at]) => at >= from && at < from + milliseconds)
      .reduce((sum, [, bytes]) => sum + bytes, 0);
  }
}

/** A sender that always has more data, in messages of one size. */
class Sender {
  readonly socket = new FakeSocket();
  readonly paced: PacedSocket;
  readonly began = now;
  readonly #outbox: WriteQueue;
  readonly #size: number;
  #sent = 0;
  wakes = 0;
  isHungry = true;

  constructor(rate: number, size: number) {
    this.paced = new PacedSocket(
      this.socket,
      rate,
      () => now,
      () => {
        this.wakes++;
        this.go();
      },
    );
    this.#outbox = new WriteQueue(this.paced);
    this.#size = size;
  }

  /** Writes as much as the paced socket accepts. */
  go(): void {
    if (!this.#outbox.flush()) return;
    while (this.isHungry && this.#outbox.queuedBytes === 0) {
      const from = this.#sent;
      this.#sent += this.#size;
      this.#outbox.send(
        Uint8Array.from({ length: this.#size }, (_, index) => (from + index) % 251),
      );
    }
  }
}

/** Advances the clock. Timers fire up to `late` milliseconds late, as on a busy machine. */
function pass(milliseconds: number, late = 1): void {
  for (let gone = 0; gone < milliseconds; gone += late) {
    const step = Math.min(late, milliseconds - gone);
    now += step;
    jest.advanceTimersByTime(step);
  }
}

describe("PacedSocket", () => {
  const cases: [rate: number, size: number, late: number][] = [
    [100_000, 100, 1],
    [100_000, 1500, 1],
    [100_000, 70_000, 1],
    [100_000, 1_000_000, 1],
    [1_000_000, 1500, 1],
    [1_000_000, 1 << 20, 1],
    [1_000_000, 65_536, 7],
    [1_000_000, 1500, 23],
    [5000, 1, 1],
    [5000, 20_000, 1],
    [300, 10_000, 1],
  ];
  for (const [rate, size, late] of cases) {
    const timers = late === 1 ? "" : `, with timers that are ${late} ms late`;
    test(`a paced socket writes ${rate} bytes in any second, in messages of ${size} bytes${timers}`, () => {
      const sender = new Sender(rate, size);
      sender.go();
      pass(6000, late);
      sender.paced.stop();
      for (let from = 0; from <= 5000; from += 50) {
        const bytes = sender.socket.within(sender.began + from, 1000);
        expect([from, bytes >= rate * 0.9]).toEqual([from, true]);
        expect([from, bytes <= rate * 1.1]).toEqual([from, true]);
      }
    });
  }

  test("a paced socket writes a small message at once", () => {
    const sender = new Sender(100_000, 500);
    sender.isHungry = false;
    sender.go();
    expect(sender.paced.write(new Uint8Array(500), 0, 500)).toBe(500);
    expect(sender.socket.sum).toBe(500);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("a paced socket does not catch up on idle time", () => {
    const sender = new Sender(100_000, 1500);
    sender.isHungry = false;
    sender.go();
    pass(10_000);
    expect(sender.socket.sum).toBe(0);
    sender.isHungry = true;
    const from = now;
    sender.go();
    pass(1000);
    sender.paced.stop();
    expect(sender.socket.within(from, 1000)).toBeLessThanOrEqual(110_000);
    // At the start too, because only 50 ms may be caught up.
    expect(sender.socket.within(from, 10)).toBeLessThanOrEqual(0.06 * 100_000);
  });

  test("a paced socket writes byte by byte at a very low rate", () => {
    const sender = new Sender(2, 10);
    sender.go();
    expect(sender.socket.sum).toBe(1);
    pass(10_000, 5);
    sender.paced.stop();
    expect(sender.socket.sum).toBeGreaterThanOrEqual(19);
    expect(sender.socket.sum).toBeLessThanOrEqual(22);
  });

  test("a paced socket waits for the drain event of the socket after a short write", () => {
    const sender = new Sender(1_000_000, 100_000);
    sender.socket.most = 1000;
    sender.go();
    expect(sender.socket.sum).toBe(1000);
    // The socket's drain event resumes writing, so no timer is needed.
    expect(jest.getTimerCount()).toBe(0);
    const { writes } = sender.socket;
    pass(100);
    expect(sender.socket.writes).toBe(writes);
    sender.socket.most = Infinity;
    sender.go();
    pass(1000);
    sender.paced.stop();
    const bytes = sender.socket.within(sender.began + 100, 1000);
    expect(bytes).toBeGreaterThanOrEqual(900_000);
    expect(bytes).toBeLessThanOrEqual(1_100_000);
  });

  test("a paced socket counts the bytes that the socket took, not the bytes offered", () => {
    const sender = new Sender(100_000, 1500);
    sender.socket.most = 100;
    sender.go();
    // Every millisecond the socket accepts another 100 bytes, exactly the rate.
    for (let milliseconds = 0; milliseconds < 2000; milliseconds++) {
      pass(1);
      sender.go();
    }
    sender.paced.stop();
    const bytes = sender.socket.within(sender.began + 500, 1000);
    expect(bytes).toBeGreaterThanOrEqual(90_000);
    expect(bytes).toBeLessThanOrEqual(110_000);
  });

  test("a paced socket reports that the socket is closed", () => {
    const sender = new Sender(100_000, 1500);
    sender.socket.most = -1;
    expect(sender.paced.write(new Uint8Array(10), 0, 10)).toBe(-1);
  });

  test("a stopped paced socket no longer wakes its sender", () => {
    const sender = new Sender(1000, 1500);
    sender.go();
    pass(100);
    const { wakes } = sender;
    expect(wakes).toBeGreaterThan(0);
    sender.paced.stop();
    pass(10_000);
    expect(sender.wakes).toBe(wakes);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("a paced socket has at most one timer, however often it is written to", () => {
    const sender = new Sender(1000, 1500);
    for (let times = 0; times < 100; times++) sender.go();
    expect(jest.getTimerCount()).toBe(1);
    sender.paced.stop();
  });
});
