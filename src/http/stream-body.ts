/** A response body produced on demand, without read-ahead, that the server can end immediately. */
import { FramesError } from "../errors.ts";
import type { EndReason, StreamClient } from "./stream-clients.ts";

/** Produces the bytes of a body. */
export interface BodySource {
  /**
   * Returns the next bytes, or undefined at the end. Called when the system has taken the previous
   * ones.
   */
  next(): Promise<Uint8Array | undefined>;
  /** Whether a body that the server ends early breaks off, because it must not look complete. */
  readonly mustBeComplete?: boolean;
  /** Returns the last bytes to send when the server ends the body. */
  closingBytes?(reason: EndReason): Uint8Array | undefined;
  /** Releases resources. Called once, when the client disconnected or the body ended. */
  close(): void;
}

/** Lets a loop that produces a body wait for the next event. An event meanwhile is not lost. */
export class Wakeup {
  #resolve = () => {};

  /** Resolves at the next `notify`. */
  next(): Promise<void> {
    return new Promise((resolve) => (this.#resolve = resolve));
  }

  notify(): void {
    this.#resolve();
  }
}

/** Creates the body for `client`, and ends the client when the body ends. */
export function createBody(client: StreamClient, source: BodySource): ReadableStream<Uint8Array> {
  let unreadBytes = 0;
  let isPulling = false;
  let output: ReadableStreamDefaultController<Uint8Array> | undefined;
  /** Ends the pull in progress. */
  let endPull: ((reason: EndReason) => void) | undefined;
  const finish = (reason: EndReason): void => {
    if (reason === "left") return;
    if (source.mustBeComplete === true) return output?.error(new FramesError("stopping"));
    const last = source.closingBytes?.(reason);
    if (last !== undefined) output?.enqueue(last);
    output?.close();
  };
  client.bufferedBytes = () => unreadBytes;
  client.onEnd = (reason) => {
    source.close();
    endPull?.(reason);
    // Queues the closing bytes behind unread ones. A pull in progress sends them itself.
    if (!isPulling) finish(reason);
  };
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => void (output = controller),
      async pull(controller) {
        unreadBytes = 0;
        isPulling = true;
        try {
          // A promise that outlives the pull would keep what each pull has returned.
          const ended = new Promise<EndReason>((resolve) => (endPull = resolve));
          const next = await Promise.race([source.next(), ended]);
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
