import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

import { startRelay, type RelayOptions } from "./relay.ts";
import { until } from "./time.ts";

/** Connects two sockets through a relay. Each can close its own half only. */
async function throughRelay(options: Omit<RelayOptions, "to"> = {}) {
  const server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const to = { host: "127.0.0.1", port: (server.address() as AddressInfo).port };
  const relay = await startRelay({ to, ...options });
  const client = connect({ host: "127.0.0.1", port: relay.port, allowHalfOpen: true });
  const [peer] = (await once(server, "connection")) as [Socket];
  return {
    server,
    relay,
    client,
    peer,
    [Symbol.dispose]() {
      client.destroy();
      peer.destroy();
      relay.stop();
      server.close();
    },
  };
}

/** Waits until a socket is closed and returns the error code, if any. */
async function closing(socket: Socket): Promise<string | undefined> {
  let code: string | undefined;
  socket.on("error", (error: NodeJS.ErrnoException) => (code = error.code)).resume();
  await new Promise((resolve) => socket.once("close", resolve));
  return code;
}

async function everything(socket: Socket): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of socket.iterator({ destroyOnReturn: false })) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

for (const options of [{}, { delay: 20 }, { delay: 5, rate: 40_000_000, record: true }]) {
  test(`the relay passes bytes unchanged and in order both ways with ${JSON.stringify(options)}`, async () => {
    using link = await throughRelay(options);
    const up = randomBytes(6_000_000);
    const down = randomBytes(5_000_000);
    link.client.end(up);
    link.peer.end(down);
    const [atPeer, atClient] = await Promise.all([everything(link.peer), everything(link.client)]);
    expect(atPeer.equals(up)).toBe(true);
    expect(atClient.equals(down)).toBe(true);
    expect(link.relay.bytes).toBe(11_000_000);
    expect(link.relay.connections).toBe(1);
    if (options.record) expect(Buffer.concat(link.relay.record.toServer).equals(up)).toBe(true);
  });
}

test("the relay passes a half close, and the other half stays open", async () => {
  using link = await throughRelay({ delay: 5 });
  link.client.end("question");
  expect((await everything(link.peer)).toString()).toBe("question");
  link.peer.end("answer");
  expect((await everything(link.client)).toString()).toBe("answer");
});

test("a slow reader blocks the writer through the relay, and no byte is lost", async () => {
  using link = await throughRelay({ delay: 2 });
  const sent = randomBytes(40_000_000);
  link.client.end(sent);
  link.peer.pause();
  let before = -1;
  await until(
    "a writer that is held up",
    () => {
      const isStill = link.relay.bytes === before && link.client.writableLength > 0;
      before = link.relay.bytes;
      return isStill;
    },
    50,
  );
  expect((await everything(link.peer)).equals(sent)).toBe(true);
});

test("the relay applies the configured delay and rate", async () => {
  using link = await throughRelay({ delay: 40, rate: 10_000_000 });
  const start = performance.now();
  link.client.write("ping");
  await once(link.peer, "data");
  link.peer.write("pong");
  await once(link.client, "data");
  const roundTrip = performance.now() - start;
  expect(roundTrip).toBeGreaterThan(79);

  const begin = performance.now();
  link.client.end(Buffer.alloc(4_000_000));
  expect((await everything(link.peer)).length).toBe(4_000_000);
  expect(performance.now() - begin).toBeGreaterThan(430);
});

test("a frozen relay passes no bytes until it is thawed", async () => {
  using link = await throughRelay();
  link.relay.freeze();
  link.client.end("late");
  // What is sent later through another one has passed by then.
  using other = await throughRelay();
  other.client.end("early");
  expect((await everything(other.peer)).toString()).toBe("early");
  expect(link.relay.bytes).toBe(0);
  link.relay.thaw();
  expect((await everything(link.peer)).toString()).toBe("late");
});

test("a new rate of the relay applies at once, also to buffered bytes", async () => {
  using link = await throughRelay({ rate: 20_000 });
  link.client.end(Buffer.alloc(1_000_000));
  const arrived = everything(link.peer);
  await until("the bytes", () => link.relay.bytes > 0);
  // At the old rate the rest would take most of a minute.
  link.relay.limit(Infinity);
  expect((await arrived).length).toBe(1_000_000);

  using second = await throughRelay({ rate: 4_000_000 });
  second.client.end(Buffer.alloc(1_000_000));
  second.peer.resume();
  await until("the bytes", () => second.relay.bytes > 100_000);
  second.relay.limit(10_000);
  const before = second.relay.bytes;
  const began = performance.now();
  await until("more bytes", () => second.relay.bytes > before + 2_000);
  const seconds = (performance.now() - began) / 1000;
  expect(second.relay.bytes - before).toBeLessThan(10_000 * seconds + 17_000);
});

test("the relay flips a given bit of a given byte, in one direction only", async () => {
  using link = await throughRelay({ rate: 20_000_000, record: true });
  const { relay } = link;
  const up = randomBytes(300_000);
  const down = randomBytes(200_000);
  const first = relay.flip("toServer", 0, 0);
  const later = relay.flip("toServer", 250_000, 7);
  const back = relay.flip("toClient", 100_001, 3);
  const never = relay.flip("toClient", 200_000, 1);
  expect(first.happened).toBe(false);
  link.client.end(up);
  link.peer.end(down);
  const [atPeer, atClient] = await Promise.all([everything(link.peer), everything(link.client)]);
  expect(Buffer.concat(relay.record.toServer).equals(atPeer)).toBe(true);
  up[0]! ^= 1;
  up[250_000]! ^= 0x80;
  down[100_001]! ^= 8;
  expect(atPeer.equals(up)).toBe(true);
  expect(atClient.equals(down)).toBe(true);
  const flips = [first, later, back, never];
  expect(flips.map(({ happened }) => happened)).toEqual([true, true, true, false]);
});

test("a pending bit flip applies on the next connection that reaches it, unless it is cancelled", async () => {
  using link = await throughRelay();
  const { relay } = link;
  const flip = relay.flip("toServer", 2, 5);
  relay.flip("toServer", 3, 5).cancel();
  link.client.end("ab");
  expect((await everything(link.peer)).toString()).toBe("ab");
  expect(flip.happened).toBe(false);
  const client = connect({ host: "127.0.0.1", port: relay.port }).end("cd");
  const [peer] = (await once(link.server, "connection")) as [Socket];
  expect((await everything(peer)).toString()).toBe("Cd");
  peer.end();
  await closing(client);
  expect(flip.happened).toBe(true);
});

test("the relay counts its open connections", async () => {
  using link = await throughRelay();
  expect(link.relay.open).toBe(1);
  const both = Promise.all([closing(link.client), closing(link.peer)]);
  link.relay.cut();
  await both;
  expect([link.relay.open, link.relay.connections]).toEqual([0, 1]);
});

test("a cut of the relay resets both ends, and a reset passes through it", async () => {
  using link = await throughRelay();
  const both = Promise.all([closing(link.client), closing(link.peer)]);
  link.relay.cut();
  expect(await both).toEqual(["ECONNRESET", "ECONNRESET"]);

  using second = await throughRelay({ delay: 5 });
  const failure = closing(second.peer);
  second.client.resetAndDestroy();
  expect(await failure).toBe("ECONNRESET");
});

test("the relay closes the connection if the server cannot be reached", async () => {
  const relay = await startRelay({ to: { host: "127.0.0.1", port: 1 } });
  const client = connect(relay.port, "127.0.0.1");
  await closing(client);
  relay.stop();
});
