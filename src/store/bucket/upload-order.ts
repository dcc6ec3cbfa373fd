/**
 * Order in which frames are recorded: that in which they arrived, although their uploads end in any
 * order. A decoder of video needs the frames of a source in that order.
 */

/** Frames of one source in their order, until one of them fails. */
interface Queue {
  /** Settles when the last frame has left, and all before it. */
  last: Promise<void> | undefined;
}

/** Place of one frame. */
export interface UploadPlace {
  /**
   * Resolves when all frames before it have left; `undefined` if there are none. Rejects if one of
   * them has failed.
   */
  readonly turn: Promise<void> | undefined;
  /** Lets the next frame be recorded. Only the first call of `leave` and `fail` counts. */
  leave(): void;
  /**
   * Rejects the frames behind this one. Their sender sends all of them again, which then wait for
   * none of these.
   */
  fail(error: unknown): void;
}

export class UploadOrder {
  readonly #queues = new Map<string, Queue>();

  /**
   * Returns the place behind all frames of a source.
   *
   * @param source path of its folder
   */
  join(source: string): UploadPlace {
    const queue = this.#queues.getOrInsertComputed(source, () => ({ last: undefined }));
    const turn = queue.last;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // The next frame awaits it, if there is one.
    promise.catch(() => {});
    queue.last = promise;
    const remove = () => {
      if (this.#queues.get(source) === queue) this.#queues.delete(source);
    };
    const leave = () => {
      if (queue.last === promise) remove();
      resolve();
    };
    return {
      turn,
      leave: () => void (turn === undefined ? leave() : turn.then(leave, reject)),
      fail(error) {
        remove();
        reject(error);
      },
    };
  }
}
