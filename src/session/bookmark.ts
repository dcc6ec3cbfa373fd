/** When a client that receives is told the position behind what it was sent (SPEC section 9, CURSOR). */
import type { Supplied } from "./supply.ts";

/** It is told although frames go on; when they do not, after so many milliseconds. */
const every = { milliseconds: 100, bytes: 16 << 20, items: 256 } as const;

export class Bookmark {
  #last: Supplied | undefined;
  #items = 0;
  #bytes = 0;
  #at: number;

  /** @param now milliseconds, as everywhere here */
  constructor(now: number) {
    this.#at = now;
  }

  /** Whether anything was sent behind the position that was told last. */
  get isBehind(): boolean {
    return this.#items > 0;
  }

  /** So many bytes of this were sent, and it ended: whether the position is to be told now. */
  passed(item: Supplied, bytes: number): boolean {
    this.#last = item;
    this.#items++;
    this.#bytes += bytes;
    return this.#items >= every.items || this.#bytes >= every.bytes;
  }

  /** Whether the position is to be told, now that nothing more is to be sent. */
  isDue(now: number): boolean {
    return this.isBehind && now - this.#at >= every.milliseconds;
  }

  /** The position to be told, if it is another one. */
  take(now: number): string | undefined {
    const cursor = this.isBehind ? this.#last?.cursor : undefined;
    this.#items = this.#bytes = 0;
    this.#at = now;
    return cursor;
  }
}
