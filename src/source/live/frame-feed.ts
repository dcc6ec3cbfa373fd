/** A feed to which a program pushes frames, such as from a capture loop or a camera callback. */
import type { CapturedFrame } from "./iterable-source.ts";

/**
 * Passes pushed frames to `send` one by one. `push` resolves when there is room for the next frame.
 * With the policy `block`, the default, that is when the pushed frame is taken for sending; with
 * `latest` it is at once.
 *
 * @example
 * ```ts
 * import { FrameFeed, send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * const camera = new FrameFeed();
 * const sending = send(camera, { to: server.address, stream: "night", source: "visible" });
 * for (let shot = 1; shot <= 3; shot++) {
 *   await camera.push({ bytes: new TextEncoder().encode(`P5 1 1 255\n${shot}`) });
 * }
 * camera.end();
 * if ((await sending).frames !== 3) throw new Error("a frame is missing");
 * await server.stop();
 * ```
 */
export class FrameFeed<Item = CapturedFrame> implements AsyncIterableIterator<Item, undefined> {
  readonly #queue: { frame: Item; resolve: () => void }[] = [];
  #pendingNext: ((result: IteratorResult<Item, undefined>) => void) | undefined;
  #hasEnded = false;

  /** Resolves when the frame is taken. After the end, drops the frame and resolves at once. */
  push(frame: Item): Promise<void> {
    if (this.#hasEnded) return Promise.resolve();
    if (this.#pendingNext !== undefined) {
      this.#pendingNext({ done: false, value: frame });
      this.#pendingNext = undefined;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#queue.push({ frame, resolve }));
  }

  /** Ends the feed. `send` returns once all pushed frames are delivered. */
  end(): void {
    this.#hasEnded = true;
    if (this.#queue.length > 0) return;
    this.#pendingNext?.({ done: true, value: undefined });
    this.#pendingNext = undefined;
  }

  next(): Promise<IteratorResult<Item, undefined>> {
    const first = this.#queue.shift();
    if (first !== undefined) {
      first.resolve();
      return Promise.resolve({ done: false, value: first.frame });
    }
    if (this.#hasEnded) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => (this.#pendingNext = resolve));
  }

  /** Called when the consumer stops: drops the queued frames and ends the feed. */
  return(): Promise<IteratorResult<Item, undefined>> {
    for (const { resolve } of this.#queue.splice(0)) resolve();
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
