/** A body that is made as it is read: nothing is made ahead, and an end is an end at once. */
import type { EndReason, StreamClient } from "./stream-clients.ts";

/** What a body is made of. */
export interface BodySource {
  /** The next bytes; nothing at the end. Called when those before were taken by the system. */
  next(): Promise<Uint8Array | undefined>;
  /** The last bytes, where an end is told. */
  closingBytes?(reason: EndReason): Uint8Array | undefined;
  /** Nobody reads any more, or there is no more: called once. */
  close(): void;
}

/** The body, for `viewer`, who leaves when it ends. */
export function createBody(client: StreamClient, source: BodySource): ReadableStream<Uint8Array> {
  let unreadBytes = 0;
  let isPulling = false;
  let output: ReadableStreamDefaultController<Uint8Array> | undefined;
  const ended = Promise.withResolvers<EndReason>();
  const finish = (reason: EndReason): void => {
    if (reason === "left") return;
    const last = source.closingBytes?.(reason);
    if (last !== undefined) output?.enqueue(last);
    output?.close();
  };
  client.bufferedBytes = () => unreadBytes;
  client.onEnd = (reason) => {
    source.close();
    ended.resolve(reason);
    // Whoever does not read now is told behind what it has not read.
    if (!isPulling) finish(reason);
  };
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => void (output = controller),
      async pull(controller) {
        unreadBytes = 0;
        isPulling = true;
        try {
          const next = await Promise.race([source.next(), ended.promise]);
          if (typeof next === "string") return finish(next);
          if (next !== undefined) {
            unreadBytes = next.length;
            return controller.enqueue(next);
          }
          controller.close();
          client.end("left");
        } catch (error) {
          controller.error(error);
          client.end("left");
        } finally {
          isPulling = false;
        }
      },
      cancel: () => client.end("left"),
    },
    { highWaterMark: 0 },
  );
}
