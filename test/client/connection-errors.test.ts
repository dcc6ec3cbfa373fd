import { expect, test } from "bun:test";

import { translateError } from "../../src/client/connection-errors.ts";
import { FramesError } from "../../src/errors.ts";
import { Keepalive } from "../../src/protocol/keepalive.ts";

/** Returns the limit in seconds at which a deadline passes, and the message for the user. */
function timeOut(timeoutMs: number, isWelcomed: boolean): { limit: number; message: string } {
  const keepalive = new Keepalive(0, timeoutMs);
  if (isWelcomed) keepalive.onHandshakeDone();
  for (let limit = 1; ; limit++) {
    try {
      keepalive.tick(limit * 1000, "answer", 0);
    } catch (failure) {
      const client = { hasKey: false, isWelcomed, timeoutMs };
      const { error } = translateError(failure as FramesError, "gpu1:9726", client);
      return { limit, message: error.message };
    }
  }
}

test.each([
  [2, false],
  [9, false],
  [10, false],
  [30, false],
  [2, true],
  [10, true],
  [30, true],
])(
  "with a timeout of %d s (WELCOME: %p), --timeout is named only if more of it helps",
  (seconds, isWelcomed) => {
    const { limit, message } = timeOut(seconds * 1000, isWelcomed);
    const helps = timeOut(2 * seconds * 1000, isWelcomed).limit > limit;
    expect(message).toContain("; check the address and the network");
    expect(message.includes("give more time with --timeout")).toBe(helps);
  },
);

test("a server that ran out of time may need more of it too", () => {
  const said = new FramesError("timeout", "The server says: The peer was silent for 5 s");
  const client = { hasKey: false, isWelcomed: true, timeoutMs: 30_000 };
  expect(translateError(said, "gpu1:9726", client).error.message).toBe(
    "gpu1:9726: The server says: The peer was silent for 5 s; check the address and the network, or give more time with --timeout at both ends",
  );
});
