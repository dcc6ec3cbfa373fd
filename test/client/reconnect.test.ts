import { expect, test } from "bun:test";

import type { Key } from "../../src/auth/key.ts";
import { Reconnector } from "../../src/client/reconnect.ts";
import { Transfer } from "../../src/client/transfer.ts";
import { brokenError } from "../../src/client/connection-errors.ts";
import { asFramesError, FramesError } from "../../src/errors.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { connect } from "../../src/net/connect.ts";

const address = { host: "127.0.0.1", port: 9726 };

/**
 * Runs connections with a key that fail with these errors, then one that succeeds. Returns the
 * outcome.
 */
async function outcomeOf(...failures: FramesError[]): Promise<unknown> {
  return await outcomeWith([generateKey()], ...failures);
}

async function outcomeWith(keys: Key[], ...failures: FramesError[]): Promise<unknown> {
  const use = keys.length > 0 ? "always" : "never";
  const transfer = new Transfer("run7", address, Date.now());
  const reconnector = new Reconnector(transfer, { use, keys: () => keys });
  const left = [...failures];
  const attempt = async (): Promise<string> => {
    const failure = left.shift();
    if (failure !== undefined) throw failure;
    return "done";
  };
  const rules = { isLocalError: () => false, isLive: true };
  return await reconnector.run(attempt, () => {}, rules).catch((error: unknown) => error);
}

/** The error of a connection that the peer reset after it was open. */
function reset(): FramesError {
  const system = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  return brokenError("127.0.0.1:9726", asFramesError(system, "network"));
}

const refused = new FramesError("unreachable", "Cannot connect: connection refused");

test.concurrent("the third reset in a row before any server has answered is final", async () => {
  expect(await outcomeOf(reset(), reset())).toBe("done");
  const last = reset();
  expect(await outcomeOf(reset(), reset(), last)).toBe(last);
});

test.concurrent(
  "without a key, the first reset before any server has answered is final",
  async () => {
    const only = reset();
    expect(await outcomeWith([], only)).toBe(only);
  },
);

test.concurrent(
  "a first connection that is refused, or closed without a reset, is final",
  async () => {
    expect(await outcomeOf(refused)).toBe(refused);
    const closed = brokenError("127.0.0.1:9726", new FramesError("network"));
    expect(await outcomeOf(closed)).toBe(closed);
  },
);

test.concurrent.each(["full", "stopping"] as const)(
  "after a server has said %s, a refused or reset connection is tried again",
  async (code) => {
    const failures = [reset(), new FramesError(code), refused, reset(), reset(), reset()];
    expect(await outcomeOf(...failures)).toBe("done");
  },
);

test.concurrent(
  "a connection that the peer closes during its TLS handshake counts as reset",
  async () => {
    const listener = Bun.listen({
      ...{ hostname: "127.0.0.1", port: 0 },
      socket: { data: (socket) => void socket.terminate() },
    });
    const handler = {} as Parameters<typeof connect>[1];
    const failure = connect({ host: "127.0.0.1", port: listener.port }, handler, 60_000, true);
    const error = (await failure.catch((caught: unknown) => caught)) as FramesError;
    listener.stop(true);
    expect(error.code).toBe("network");
    expect(await outcomeOf(error, error)).toBe("done");
  },
);
