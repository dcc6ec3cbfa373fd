/** Frames that a program pushes, where it cannot be asked for them: a camera's loop or callback. */
import type { CapturedFrame } from "./iterable-source.ts";

/**
 * Takes frames one by one and gives them to `send`. `push` says when there is room for the next: with the
 * policy `block` (the usual one) when the frame was taken to be sent, with `latest` at once.
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
export class FrameFeed implements AsyncIterableIterator<CapturedFrame, undefined> {
  readonly #queue: { frame: CapturedFrame; resolve: () => void }[] = [];
  #pendingNext: ((result: IteratorResult<CapturedFrame, undefined>) => void) | undefined;
  #hasEnded = false;

  /** Frames that were pushed and not taken: a program that does not await `push` looks here. */
  get queueLength(): number {
    return this.#queue.length;
  }

  /** Resolves when the frame was taken; after the end it is dropped at once. */
  push(frame: CapturedFrame): Promise<void> {
    if (this.#hasEnded) return Promise.resolve();
    if (this.#pendingNext !== undefined) {
      this.#pendingNext({ done: false, value: frame });
      this.#pendingNext = undefined;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#queue.push({ frame, resolve }));
  }

  /** Nothing more is pushed: the delivery ends when all is delivered. */
  end(): void {
    this.#hasEnded = true;
    if (this.#queue.length > 0) return;
    this.#pendingNext?.({ done: true, value: undefined });
    this.#pendingNext = undefined;
  }

  next(): Promise<IteratorResult<CapturedFrame, undefined>> {
    const first = this.#queue.shift();
    if (first !== undefined) {
      first.resolve();
      return Promise.resolve({ done: false, value: first.frame });
    }
    if (this.#hasEnded) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => (this.#pendingNext = resolve));
  }

  /** Nobody takes frames any more. */
  return(): Promise<IteratorResult<CapturedFrame, undefined>> {
    for (const { resolve } of this.#queue.splice(0)) resolve();
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
