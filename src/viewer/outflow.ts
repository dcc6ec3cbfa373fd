/** A body that is made as it is read: nothing is made ahead, and an end is an end at once. */
import type { End, Viewer } from "./viewers.ts";

/** What a body is made of. */
export interface Outflow {
  /** The next bytes; nothing at the end. Called when those before were taken by the system. */
  next(): Promise<Uint8Array | undefined>;
  /** The last bytes, where an end is told. */
  farewell?(why: End): Uint8Array | undefined;
  /** Nobody reads any more, or there is no more: called once. */
  close(): void;
}

/** The body, for `viewer`, who leaves when it ends. */
export function bodyOf(viewer: Viewer, flow: Outflow): ReadableStream<Uint8Array> {
  let waiting = 0;
  let isPulled = false;
  let output: ReadableStreamDefaultController<Uint8Array> | undefined;
  const over = Promise.withResolvers<End>();
  const finish = (why: End): void => {
    if (why === "left") return;
    const last = flow.farewell?.(why);
    if (last !== undefined) output?.enqueue(last);
    output?.close();
  };
  viewer.held = () => waiting;
  viewer.onEnd = (why) => {
    flow.close();
    over.resolve(why);
    // Whoever does not read now is told behind what it has not read.
    if (!isPulled) finish(why);
  };
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => void (output = controller),
      async pull(controller) {
        waiting = 0;
        isPulled = true;
        try {
          const next = await Promise.race([flow.next(), over.promise]);
          if (typeof next === "string") return finish(next);
          if (next !== undefined) {
            waiting = next.length;
            return controller.enqueue(next);
          }
          controller.close();
          viewer.end("left");
        } catch (error) {
          controller.error(error);
          viewer.end("left");
        } finally {
          isPulled = false;
        }
      },
      cancel: () => viewer.end("left"),
    },
    { highWaterMark: 0 },
  );
}
