import { expect, test } from "bun:test";
import { fullAccess } from "../../src/http/auth/access.ts";
import { createBody, type BodySource } from "../../src/http/stream-body.ts";
import { StreamClients } from "../../src/http/stream-clients.ts";

/** Opens a body for a new client. */
function open(source: Partial<BodySource> & Pick<BodySource, "next">) {
  const client = new StreamClients().add("mjpeg", fullAccess);
  const reader = createBody(client, { close() {}, ...source }).getReader();
  return { client, reader };
}

test("a body keeps nothing of the parts that its client has read", async () => {
  const parts: WeakRef<Uint8Array>[] = [];
  const { reader } = open({
    async next() {
      const part = new Uint8Array(1000);
      parts.push(new WeakRef(part));
      return part;
    },
  });
  for (let count = 0; count < 200; count++) await reader.read();
  await new Promise((resolve) => setImmediate(resolve));
  Bun.gc(true);
  const kept = parts.filter((part) => part.deref() !== undefined).length;
  expect(kept).toBeLessThan(20);
});

test("a body that the server ends while its source waits has the closing bytes and ends", async () => {
  let isClosed = false;
  const { client, reader } = open({
    next: () => new Promise<undefined>(() => {}),
    closingBytes: (reason) => new TextEncoder().encode(reason),
    close: () => void (isClosed = true),
  });
  const first = reader.read();
  client.end("stopping");
  expect(new TextDecoder().decode((await first).value)).toBe("stopping");
  expect((await reader.read()).done).toBe(true);
  expect(isClosed).toBe(true);
});

test("a body that must be complete breaks off when the server ends it, also between two parts", async () => {
  for (const isWaiting of [true, false]) {
    const { client, reader } = open({
      mustBeComplete: true,
      next: async () => (isWaiting ? await new Promise<undefined>(() => {}) : new Uint8Array(1)),
    });
    const read = isWaiting ? reader.read() : reader.read().then(() => reader.read());
    client.end("not-allowed");
    let error: unknown;
    await read.catch((failure: unknown) => (error = failure));
    for (let count = 0; count < 3 && error === undefined; count++) {
      await reader.read().catch((failure: unknown) => (error = failure));
    }
    expect(error).toMatchObject({ code: "stopping" });
  }
});

test("a body whose source fails fails with it, and ends its client", async () => {
  const { client, reader } = open({ next: () => Promise.reject(new Error("the source")) });
  await expect(reader.read()).rejects.toThrow("the source");
  expect(client.isEnded).toBe(true);
});
