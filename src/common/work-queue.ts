/**
 * Runs costly work for peers in turns, so that no peer delays the others. Work comes in slices of a
 * few milliseconds. In one turn of the event loop slices run for `sliceMs`. Then sockets are read.
 */
import { monotonicNow } from "./clock.ts";
import type { RunSlice } from "../frame.ts";

/** Time for slices in one turn of the event loop, in milliseconds. The last one may exceed it. */
const sliceMs = 5;

/** Time for all data read in one turn, in milliseconds. What is left then waits for a slice. */
const maxInputMs = 50;

/** Runs work at once, where there is only one peer. */
export const runAtOnce: RunSlice = async (slice) => slice();

export class WorkQueue<Owner> {
  /** Waiting slices by owner. The owner whose turn is next comes first. */
  readonly #waiting = new Map<Owner, (() => void)[]>();
  readonly #now: () => number;
  #isScheduled = false;
  /** When the current turn is over; undefined before its first use. */
  #turnEnd: number | undefined;

  /** @param now clock in milliseconds */
  constructor(now: () => number = monotonicNow) {
    this.#now = now;
  }

  /**
   * Runs a slice of work when the turn of `owner` comes. Slices of one owner run in order.
   *
   * @returns what `slice` returns; rejects with what it throws
   */
  run<T>(owner: Owner, slice: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const start = () => {
      try {
        resolve(slice());
      } catch (error) {
        reject(error);
      }
    };
    this.#waiting.getOrInsertComputed(owner, () => []).push(start);
    this.#schedule();
    return promise;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => this.#runTurn());
  }

  /**
   * Whether the work of this turn has taken its time, so that the rest should wait for a slice. The
   * turn of data that is read begins with the first use of this property.
   */
  get isTurnOver(): boolean {
    const now = this.#now();
    if (this.#turnEnd === undefined) {
      this.#turnEnd = now + maxInputMs;
      setImmediate(() => (this.#turnEnd = undefined));
    }
    return now >= this.#turnEnd;
  }

  #runTurn(): void {
    this.#isScheduled = false;
    const end = (this.#turnEnd = this.#now() + sliceMs);
    for (const [owner, slices] of this.#waiting) {
      // Deleted and set again, so that the owner takes the last place.
      this.#waiting.delete(owner);
      const start = slices.shift()!;
      if (slices.length > 0) this.#waiting.set(owner, slices);
      start();
      if (this.#now() >= end) break;
    }
    this.#turnEnd = undefined;
    if (this.#waiting.size > 0) this.#schedule();
  }
}
