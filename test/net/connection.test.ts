// Covers: common/clock.ts, net/connect.ts, net/listen.ts, net/tls.ts

import { afterEach, describe, expect, jest, spyOn, test } from "bun:test";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import {
  type AddressInfo,
  connect as connectSocket,
  createServer,
  isIPv4,
  type Server,
  type Socket,
} from "node:net";
import { FramesError } from "../../src/errors.ts";
import { reachableHosts } from "../../src/net/address.ts";
import { connect } from "../../src/net/connect.ts";
import type { Connection, ConnectionHandler } from "../../src/net/connection.ts";
import { listen, type Listener } from "../../src/net/listen.ts";
import { environment } from "../helper/program.ts";

/** Cleanups of the current test, run in reverse order. */
const cleanups: (() => void)[] = [];

afterEach(() => {
  jest.useRealTimers();
  while (cleanups.length > 0) cleanups.pop()!();
});

/** Reactions of a test to the events of a connection. */
type Reactions = Partial<Record<"opened" | "data" | "transmit" | "ended" | "tick", () => void>>;

/** Records the events of a connection and lets a test wait for them. */
class Recorder implements ConnectionHandler {
  readonly timeoutMs = 30_000;
  isPaused = false;
  readonly events: string[] = [];
  readonly hash = new Bun.CryptoHasher("sha256");
  connection!: Connection;
  bytes = 0;
  /** The last chunk, valid only during `data`. */
  chunk: Uint8Array | undefined;
  failure: FramesError | undefined;
  error: FramesError | undefined;
  readonly #waiting = new Set<() => void>();
  readonly #on: Reactions;

  constructor(on: Reactions = {}) {
    this.#on = on;
  }

  #happened(event: string): void {
    this.events.push(event);
    for (const look of [...this.#waiting]) look();
  }

  onOpen(connection: Connection): void {
    this.connection = connection;
    this.#happened("opened");
    this.#on.opened?.();
  }

  onData(chunk: Uint8Array): void {
    this.bytes += chunk.length;
    this.chunk = chunk;
    this.hash.update(chunk);
    if (this.events.at(-1) !== "data") this.events.push("data");
    for (const look of [...this.#waiting]) look();
    this.#on.data?.();
  }

  transmit(): void {
    this.#on.transmit?.();
  }

  onEnd(): void {
    this.#happened("ended");
    this.#on.ended?.();
  }

  tick(): void {
    this.#happened("tick");
    this.#on.tick?.();
  }

  fail(error: FramesError): void {
    this.failure = error;
    this.#happened("failed");
  }

  onClose(error: FramesError | undefined): void {
    this.error = error;
    this.#happened("closed");
  }

  /** Waits until `reached` returns true after an event. */
  async until(reached: () => boolean): Promise<void> {
    if (reached()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = (): void => {
      if (reached()) resolve();
    };
    this.#waiting.add(look);
    await promise;
    this.#waiting.delete(look);
  }

  async closing(): Promise<void> {
    await this.until(() => this.events.includes("closed"));
  }
}

/** Listens on loopback. Each accepted connection gets a recorder from `accept`. */
function startListening(
  accept: (peer: string, isFull: boolean) => ConnectionHandler = () => new Recorder(),
): Listener {
  const listener = listen({ host: "127.0.0.1", port: 0 }, accept);
  cleanups.push(() => listener.stop());
  return listener;
}

async function open(listener: Listener, recorder = new Recorder()): Promise<Recorder> {
  await connect(listener.address, recorder, 10_000);
  cleanups.push(() => recorder.connection.terminate());
  return recorder;
}

/** Returns two connections joined to each other. */
async function pair(
  here = new Recorder(),
  there = new Recorder(),
): Promise<{ here: Recorder; there: Recorder }> {
  await open(
    startListening(() => there),
    here,
  );
  await there.until(() => there.events.includes("opened"));
  cleanups.push(() => there.connection.terminate());
  return { here, there };
}

/** Returns a connection whose peer is a plain socket that reads only on demand. */
async function withPlainPeer(here = new Recorder()): Promise<{ here: Recorder; peer: Socket }> {
  const server: Server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const { port } = server.address() as AddressInfo;
  await connect({ host: "127.0.0.1", port }, here, 10_000);
  const [peer] = await accepted;
  cleanups.push(() => (here.connection.terminate(), peer.destroy(), server.close()));
  return { here, peer };
}

function bytesOf(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32LE(at, at);
  return bytes;
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

describe("Connection", () => {
  test("a connection frees the memory of received bytes once they are handled", async () => {
    const { here, there } = await pair();
    here.connection.send(bytesOf(100_000));
    await there.until(() => there.bytes === 100_000);
    expect(there.chunk!.byteLength).toBe(0);
    expect(there.hash.digest("hex")).toBe(sha256(bytesOf(100_000)));
  });

  test("a connection carries bytes both ways, then closes at both ends without an error", async () => {
    const { here, there } = await pair();
    here.connection.send(new Uint8Array([1, 2, 3]));
    there.connection.send(new Uint8Array([4, 5]));
    await there.until(() => there.bytes === 3);
    await here.until(() => here.bytes === 2);
    here.connection.finish();
    await there.until(() => there.events.includes("ended"));
    there.connection.finish();
    await Promise.all([here.closing(), there.closing()]);
    expect(there.events).toEqual(["opened", "data", "ended", "closed"]);
    for (const { events, error, failure } of [here, there]) {
      expect(events.filter((event) => event === "closed")).toEqual(["closed"]);
      expect([events[0], events.at(-1)]).toEqual(["opened", "closed"]);
      expect([error, failure]).toEqual([undefined, undefined]);
    }
    expect(here.connection.isClosed).toBe(true);
  });

  test("a connection sends everything to a slow peer, and queues no more than one send", async () => {
    const all = bytesOf(48 << 20);
    const step = 5_000_011;
    let from = 0;
    let most = 0;
    let waited = 0;
    const pump = (): void => {
      while (here.connection.queuedBytes === 0 && from < all.length) {
        here.connection.send(all.subarray(from, from + step));
        from += step;
        most = Math.max(most, here.connection.queuedBytes);
        if (here.connection.queuedBytes > 0) waited++;
      }
      if (from >= all.length && here.connection.queuedBytes === 0) here.connection.finish();
    };
    let transmit = (): void => {};
    const { here, peer } = await withPlainPeer(new Recorder({ transmit: () => transmit() }));
    transmit = pump;
    here.connection.wake();
    // The peer does not read: the socket accepted what it could, the rest is queued.
    expect(here.connection.queuedBytes).toBeGreaterThan(0);
    expect(from).toBeLessThan(all.length);
    const hash = new Bun.CryptoHasher("sha256");
    for await (const chunk of peer) hash.update(chunk as Buffer);
    expect(hash.digest("hex")).toBe(sha256(all));
    expect(most).toBeLessThanOrEqual(step);
    expect(waited).toBeGreaterThan(1);
    await here.closing();
    expect(here.error).toBeUndefined();
  });

  test("a paused connection stops the peer from sending, and loses nothing after it resumes", async () => {
    const all = bytesOf(64 << 20);
    const there = new Recorder();
    there.isPaused = true;
    const { here } = await pair(new Recorder(), there);
    here.connection.send(all);
    // The event loop stays free for other connections.
    const other = await pair();
    for (let round = 1; round <= 50; round++) {
      other.here.connection.send(new Uint8Array(1));
      await other.there.until(() => other.there.bytes === round);
      other.there.connection.send(new Uint8Array(1));
      await other.here.until(() => other.here.bytes === round);
    }
    expect(there.bytes).toBe(0);
    expect(here.connection.queuedBytes).toBeGreaterThan(all.length / 2);
    there.isPaused = false;
    there.connection.wake();
    await there.until(() => there.bytes === all.length);
    expect(there.hash.digest("hex")).toBe(sha256(all));
    expect(here.connection.queuedBytes).toBe(0);
  });

  test("a connection transmits once after each event and each step, also after steps within it", async () => {
    let transmits = 0;
    const { here, peer } = await withPlainPeer(new Recorder({ transmit: () => transmits++ }));
    expect(transmits).toBe(1);
    let within = 0;
    here.connection.run(() => {
      here.connection.wake();
      here.connection.run(() => here.connection.wake());
      within = transmits;
    });
    expect([within, transmits]).toEqual([1, 2]);
    peer.write("x");
    await here.until(() => here.bytes === 1);
    expect(transmits).toBe(3);
    here.connection.terminate();
    here.connection.wake();
    expect(transmits).toBe(3);
  });

  test("a connection reads on as soon as a step ends the pause, and pauses after the next one", async () => {
    const here = new Recorder();
    const { peer } = await withPlainPeer(here);
    here.connection.run(() => (here.isPaused = true));
    expect(here.connection.isPaused).toBe(true);
    peer.write("x");
    here.connection.run(() => (here.isPaused = false));
    await here.until(() => here.bytes === 1);
    expect(here.connection.isPaused).toBe(false);
  });

  test("a connection that finishes loses nothing although the peer still sends", async () => {
    const all = bytesOf(24 << 20);
    const { here, peer } = await withPlainPeer();
    let stopped = false;
    const pour = (): void => {
      while (!stopped && peer.write(Buffer.alloc(100_000)));
    };
    peer.on("drain", pour);
    pour();
    here.connection.send(all);
    here.connection.finish();
    expect(here.connection.queuedBytes).toBeGreaterThan(0);
    const hash = new Bun.CryptoHasher("sha256");
    for await (const chunk of peer.iterator({ destroyOnReturn: false }))
      hash.update(chunk as Buffer);
    expect(hash.digest("hex")).toBe(sha256(all));
    // The peer was still sending, and closes when it is done.
    expect(here.bytes).toBeGreaterThan(0);
    stopped = true;
    peer.end();
    await here.closing();
    expect(here.error).toBeUndefined();
  });

  test("a connection sends nothing after finish, and finishes once", async () => {
    const { here, there } = await pair();
    here.connection.send(new Uint8Array([1]));
    here.connection.finish();
    here.connection.send(new Uint8Array([2]));
    here.connection.finish();
    await there.until(() => there.events.includes("ended"));
    expect(there.bytes).toBe(1);
    there.connection.finish();
    await here.closing();
    here.connection.send(new Uint8Array([3]));
    here.connection.finish();
    here.connection.terminate();
    here.isPaused = true;
    here.connection.wake();
    expect(here.events.filter((event) => event === "closed")).toHaveLength(1);
  });

  test("a finished connection closes after 2 s if the peer never closes its side", async () => {
    const { here, peer } = await withPlainPeer();
    peer.resume();
    jest.useFakeTimers();
    here.connection.finish();
    await once(peer, "end");
    jest.advanceTimersByTime(1_999);
    expect(here.connection.isClosed).toBe(false);
    jest.advanceTimersByTime(1);
    expect(here.connection.isClosed).toBe(true);
    expect(here.events.at(-1)).toBe("closed");
  });

  test("a finished connection closes after 2 s if the peer never reads what is left", async () => {
    const { here } = await withPlainPeer();
    jest.useFakeTimers();
    here.connection.send(bytesOf(64 << 20));
    here.connection.finish();
    expect(here.connection.queuedBytes).toBeGreaterThan(0);
    jest.advanceTimersByTime(2_000);
    expect(here.connection.isClosed).toBe(true);
    expect(here.connection.queuedBytes).toBe(0);
    expect(here.events.at(-1)).toBe("closed");
  });

  test("a finished connection gives the peer the requested time to close its side", async () => {
    const { here, peer } = await withPlainPeer();
    peer.resume();
    jest.useFakeTimers();
    here.connection.finish(30_000);
    await once(peer, "end");
    jest.advanceTimersByTime(29_999);
    expect(here.connection.isClosed).toBe(false);
    jest.advanceTimersByTime(1);
    expect(here.connection.isClosed).toBe(true);
  });

  test("a second finish may shorten the time for the peer, and never extends it", async () => {
    const { here, peer } = await withPlainPeer();
    peer.resume();
    jest.useFakeTimers();
    here.connection.finish(30_000);
    await once(peer, "end");
    jest.advanceTimersByTime(10_000);
    here.connection.finish();
    jest.advanceTimersByTime(1_000);
    here.connection.finish(2_000);
    here.connection.finish(60_000);
    jest.advanceTimersByTime(999);
    expect(here.connection.isClosed).toBe(false);
    jest.advanceTimersByTime(1);
    expect(here.connection.isClosed).toBe(true);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("a finished connection restarts its timeout whenever the peer takes bytes, and loses nothing", async () => {
    const all = bytesOf(64 << 20);
    const { here, peer } = await withPlainPeer();
    const hash = new Bun.CryptoHasher("sha256");
    jest.useFakeTimers();
    here.connection.send(all);
    here.connection.finish(1_000);
    let passed = 0;
    let rounds = 0;
    while (here.connection.queuedBytes > 0) {
      jest.advanceTimersByTime(999);
      passed += 999;
      expect(here.connection.isClosed).toBe(false);
      const before = here.connection.queuedBytes;
      // Read until the socket accepts more.
      while (here.connection.queuedBytes === before) {
        const chunk = peer.read() as Buffer | null;
        if (chunk === null) await once(peer, "readable");
        else hash.update(chunk);
      }
      rounds++;
    }
    expect(rounds).toBeGreaterThan(2);
    expect(passed).toBeGreaterThan(2_000);
    for await (const chunk of peer.iterator({ destroyOnReturn: false })) {
      hash.update(chunk as Buffer);
    }
    expect(hash.digest("hex")).toBe(sha256(all));
    // After this time the connection is closed.
    jest.advanceTimersByTime(1_000);
    expect(here.connection.isClosed).toBe(true);
  });

  test("a closed connection keeps no timer", async () => {
    jest.useFakeTimers();
    const { here, there } = await pair();
    here.connection.finish();
    await there.until(() => there.events.includes("ended"));
    there.connection.finish();
    await Promise.all([here.closing(), there.closing()]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("a connection ticks once a second while it is open", async () => {
    jest.useFakeTimers();
    const { here } = await pair();
    const ticks = () => here.events.filter((event) => event === "tick").length;
    expect(ticks()).toBe(0);
    jest.advanceTimersByTime(3_000);
    expect(ticks()).toBe(3);
    here.connection.terminate();
    jest.advanceTimersByTime(3_000);
    expect(ticks()).toBe(3);
  });

  test("a terminated connection closes at once, and the peer sees it close", async () => {
    const { here, there } = await pair();
    here.connection.terminate();
    expect(here.connection.isClosed).toBe(true);
    expect(here.events.at(-1)).toBe("closed");
    await there.closing();
  });

  test("a connection that the peer resets closes with the error `network`", async () => {
    const { here, peer } = await withPlainPeer();
    here.connection.send(new Uint8Array(1000));
    peer.resetAndDestroy();
    await here.closing();
    expect(here.error).toBeInstanceOf(FramesError);
    expect(here.error!.code).toBe("network");
    expect(here.error!.message).toBe("the peer reset the connection");
  });

  for (const event of ["opened", "data", "transmit", "ended", "tick"] as const) {
    for (const thrown of [new FramesError("damaged"), new TypeError("a slip")]) {
      const what = thrown instanceof FramesError ? "that error" : "an internal error";
      test(`a connection reports ${thrown.name} thrown in ${event} as ${what}, and stays open`, async () => {
        const fail = (): void => {
          throw thrown;
        };
        if (event === "tick") jest.useFakeTimers();
        const { here, peer } = await withPlainPeer(new Recorder({ [event]: fail }));
        peer.resume();
        if (event === "tick") jest.advanceTimersByTime(1_000);
        if (event === "data") peer.write("x");
        if (event === "ended") peer.end();
        if (event === "transmit") here.connection.wake();
        await here.until(() => here.failure !== undefined);
        if (thrown instanceof FramesError) expect(here.failure).toBe(thrown);
        else expect(here.failure).toMatchObject({ code: "internal", message: "a slip" });
        expect(here.connection.isClosed).toBe(false);
      });
    }
  }
});

describe("connect", () => {
  test("connecting to a port without a listener is refused at once, with a hint", async () => {
    const { address, stop } = listen({ host: "127.0.0.1", port: 0 }, () => new Recorder());
    stop();
    const recorder = new Recorder();
    const error = await connect(address, recorder, 10_000).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(FramesError);
    const { code, exitCode: exit, message } = error as FramesError;
    expect([code, exit]).toEqual(["unreachable", 10]);
    expect(message).toBe(
      `Cannot connect to 127.0.0.1:${address.port}: connection refused; run frames serve --listen 127.0.0.1:${address.port} on this machine`,
    );
    expect(recorder.events).toEqual([]);
  });

  const own = reachableHosts("").find((address) => isIPv4(address));
  const unless = own === undefined ? " (skipped: this machine has no address but loopback)" : "";
  test.skipIf(own === undefined)(
    `connecting to a port without a listener on a machine that others reach names possible causes${unless}`,
    async () => {
      const { address, stop } = listen({ host: own!, port: 0 }, () => new Recorder());
      stop();
      const error = await connect(address, new Recorder(), 10_000).catch(
        (caught: unknown) => caught,
      );
      expect(error).toBeInstanceOf(FramesError);
      const { code, message } = error as FramesError;
      expect(code).toBe("unreachable");
      expect(message).toBe(
        `Cannot connect to ${own}:${address.port}: connection refused; there run frames serve --listen :${address.port}, and open port ${address.port} in its firewall`,
      );
    },
  );

  test("connecting to an unknown host name fails with an error that names the host", async () => {
    const address = { host: "no.such.host.invalid", port: 9 };
    const error = await connect(address, new Recorder(), 10_000).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(FramesError);
    expect((error as FramesError).code).toBe("unreachable");
    expect((error as FramesError).message).toStartWith("Cannot connect to no.such.host.invalid:9:");
  });

  test("a name is looked up at each try, so a server that got another address is found", async () => {
    const lookup = spyOn(Bun.dns, "lookup");
    cleanups.push(() => lookup.mockRestore());
    const names = { "127.0.0.1": "old", "127.0.0.2": "new" } as const;
    const port = 20_000 + (process.pid % 10_000);
    for (const [hostname, name] of Object.entries(names)) {
      const server = Bun.listen({
        hostname,
        port,
        socket: { open: (socket) => void socket.end(name), data() {} },
      });
      cleanups.push(() => server.stop(true));
    }
    const answerOf = async (...addresses: string[]): Promise<string> => {
      const found = addresses.map((address) => ({ address, family: 4 as const, ttl: 0 }));
      lookup.mockImplementation(async () => found);
      const { promise, resolve } = Promise.withResolvers<string>();
      const peer = new Recorder({
        data: () => resolve(new TextDecoder().decode(peer.chunk)),
      });
      await connect({ host: "gpu1", port }, peer, 10_000);
      return await promise;
    };
    expect(await answerOf("127.0.0.1")).toBe("old");
    expect(await answerOf("127.0.0.2")).toBe("new");
    // An address without a listener and one that never answers do not hinder the others.
    expect(await answerOf("127.0.0.3", "192.0.2.1", "127.0.0.2")).toBe("new");
    await expect(answerOf("127.0.0.3", "127.0.0.4")).rejects.toMatchObject({
      code: "unreachable",
      message: expect.stringContaining(`gpu1:${port}: connection refused`),
    });
  });

  test("connecting without a host name reaches this machine", async () => {
    const listener = startListening();
    const recorder = new Recorder();
    await connect({ host: "", port: listener.address.port }, recorder, 10_000);
    recorder.connection.terminate();
    expect(recorder.events).toEqual(["opened", "closed"]);
  });

  test.skipIf(process.platform !== "linux")(
    "connecting ends at its deadline, and a connection that opens later is closed again",
    async () => {
      const { child, port } = await stoppedListener();
      // For a stopped process the system accepts connections until the backlog is full, then drops
      // them.
      const { allOpen, count } = await fillBacklog(port);
      const recorder = new Recorder();
      const address = { host: "127.0.0.1", port };
      const error = await connect(address, recorder, 300).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(FramesError);
      const { code, exitCode: exit, message } = error as FramesError;
      expect([code, exit]).toEqual(["no-connection", 35]);
      expect(message).toStartWith(`Cannot connect to 127.0.0.1:${port}: no answer within`);
      expect(message).toContain(`its firewall opens port ${port}`);
      expect(recorder.events).toEqual([]);
      // Once it runs again it accepts the retried connections. The one that timed out must be
      // closed.
      child.kill("SIGCONT");
      await allOpen;
      while (connectionsTo(port) > count) await new Promise(setImmediate);
      expect(recorder.events).toEqual([]);
    },
    20_000,
  );
});

describe("listen", () => {
  test("a listener reports its address and the address of each peer", async () => {
    const peers: string[] = [];
    const { address } = startListening((peer) => {
      peers.push(peer);
      return new Recorder();
    });
    expect(address.host).toBe("127.0.0.1");
    expect(address.port).toBeGreaterThan(0);
    const socket = connectSocket({ host: "127.0.0.1", port: address.port });
    cleanups.push(() => socket.destroy());
    await once(socket, "connect");
    const { here } = await pair();
    here.connection.terminate();
    expect(peers).toEqual([`127.0.0.1:${socket.localPort}`]);
  });

  test("listening at a port that is in use fails with an error that says so", () => {
    const { address } = startListening();
    let error: unknown;
    try {
      listen(address, () => new Recorder()).stop();
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(FramesError);
    expect((error as FramesError).code).toBe("unreachable");
    expect((error as FramesError).message).toBe(
      `Cannot listen at 127.0.0.1:${address.port}: the address is in use; stop the process that uses it, or choose another port with --listen`,
    );
  });

  test("a stopped listener accepts no connection, and its open connections continue", async () => {
    const there = new Recorder();
    const listener = startListening(() => there);
    const here = await open(listener);
    listener.stop();
    const late = await connect(listener.address, new Recorder(), 10_000).catch((error) => error);
    expect(late).toBeInstanceOf(FramesError);
    here.connection.send(new Uint8Array(5));
    await there.until(() => there.bytes === 5);
  });

  test.skipIf(process.platform !== "linux")(
    "a listener reports that it is full when connections use half of the allowed open files",
    async () => {
      const path = JSON.stringify(`${import.meta.dir}/../../src/net/listen.ts`);
      const program = `
        import { listen } from ${path};
        const nothing = () => {};
        const handler = {
          ...{ onOpen: (connection) => connection.markIdentified(), onData: nothing, transmit: nothing, onEnd: nothing },
          ...{ timeoutMs: 30_000, isPaused: false, tick: nothing, fail: nothing, onClose: () => console.log("closed") },
        };
        const accept = (peer, isFull) => (console.log(isFull ? "full" : "taken in"), handler);
        console.log(listen({ host: "127.0.0.1", port: 0 }, accept).address.port);`;
      const limited = ["sh", "-c", 'ulimit -n 80 && exec "$0" -e "$1"', process.execPath, program];
      const { port, line } = await startChild(limited);
      const knock = async (): Promise<Socket> => {
        const socket = connectSocket({ host: "127.0.0.1", port });
        cleanups.push(() => socket.destroy());
        await once(socket, "connect");
        return socket;
      };
      let last: Socket | undefined;
      for (let index = 1; index <= 40; index++) {
        last = await knock();
        expect(await line()).toBe("taken in");
      }
      const turnedAway = await knock();
      expect(await line()).toBe("full");
      for (const socket of [last!, turnedAway]) {
        socket.resetAndDestroy();
        expect(await line()).toBe("closed");
      }
      await knock();
      expect(await line()).toBe("taken in");
    },
  );
});

for (const isSecure of [false, true]) {
  test.skipIf(process.platform !== "linux")(
    `a full listener ${isSecure ? "with TLS " : ""}tells each of several new connections so, and resets none`,
    async () => {
      const port = await startLimitedListener(isSecure);
      for (let index = 0; index < 80; index++) expect(await visit(port, isSecure)).toBe("welcome");
      const visits = Array.from({ length: 12 }, () => visit(port, isSecure));
      expect(await Promise.all(visits)).toEqual(visits.map(() => "full"));
    },
  );
}

test.skipIf(process.platform !== "linux")(
  "a full listener says so to clients that read only after it has closed their connections",
  async () => {
    const port = await startLimitedListener(false);
    for (let index = 0; index < 80; index++) expect(await visit(port, false)).toBe("welcome");
    // A busy client: its connections are open before its event loop runs again.
    const program = `
      import { readSync, writeSync } from "node:fs";
      const connecting = Array.from({ length: 30 }, () => {
        const answer = Promise.withResolvers();
        const socket = {
          open: (opened) => opened.write("hello"),
          data: (_, chunk) => answer.resolve(new TextDecoder().decode(chunk)),
        };
        const options = { hostname: "127.0.0.1", port: ${port}, socket };
        return Bun.connect(options).then(() => answer.promise, (error) => error.code);
      });
      writeSync(1, "connecting\\n");
      readSync(0, new Uint8Array(1));
      console.log(JSON.stringify(await Promise.all(connecting)));
      process.exit();`;
    const child = Bun.spawn([process.execPath, "-e", program], {
      ...{ env: environment(), stdin: "pipe", stdout: "pipe", stderr: "inherit" },
    });
    cleanups.push(() => child.kill("SIGKILL"));
    const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    expect((await lines.read()).value).toBe("connecting\n");
    // The listener accepts this connection after those.
    expect(await visit(port, false)).toBe("full");
    child.stdin.write("\n");
    await child.stdin.end();
    expect(JSON.parse((await lines.read()).value!)).toEqual(Array(30).fill("full"));
  },
);

/**
 * Starts a process that listens on loopback and has places for 80 connections. It says `full` to
 * others, and `welcome` to a client that says something.
 */
async function startLimitedListener(isSecure: boolean): Promise<number> {
  const source = (path: string) => JSON.stringify(`${import.meta.dir}/../../src/${path}`);
  const program = `
    import { generateKeyPairSync } from "node:crypto";
    import { listen } from ${source("net/listen.ts")};
    import { makeCertificate } from ${source("auth/certificate.ts")};
    const nothing = () => {};
    const say = (connection, text) => {
      connection.send(new TextEncoder().encode(text));
      connection.finish();
    };
    const accept = (peer, isFull) => {
      let own;
      return {
        timeoutMs: 30_000, isPaused: false, transmit: nothing, onEnd: nothing, tick: nothing, onClose: nothing,
        onOpen(connection) {
          own = connection;
          if (isFull) say(connection, "full");
        },
        // A client that says something is identified.
        onData() { own.markIdentified(); own.send(new TextEncoder().encode("welcome")); },
        fail: () => say(own, "full"),
      };
    };
    const tls = ${isSecure} ? {
      certificate: makeCertificate(
        generateKeyPairSync("ec", { namedCurve: "P-256" }), new Uint8Array(16), new Date(),
      ),
      handshakeTimeoutMs: 60_000,
      onHandshakeFailed: nothing,
    } : undefined;
    console.log(listen({ host: "127.0.0.1", port: 0 }, accept, tls).address.port);`;
  const limited = ["sh", "-c", 'ulimit -n 160 && exec "$0" -e "$1"', process.execPath, program];
  return (await startChild(limited)).port;
}

/** Connects, says something, and returns the answer. */
async function visit(port: number, isSecure: boolean): Promise<string> {
  const answer = Promise.withResolvers<string>();
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    ...(isSecure ? { tls: { rejectUnauthorized: false } } : {}),
    socket: {
      open: (opened) => void (isSecure || opened.write("hello")),
      handshake: (opened) => void opened.write("hello"),
      data: (_, chunk) => answer.resolve(new TextDecoder().decode(chunk)),
      close: (_, error) => answer.resolve(`closed ${error}`),
    },
  });
  cleanups.push(() => socket.terminate());
  return await answer.promise;
}

/** Starts a process that prints the port on which it listens, and then other lines. */
async function startChild(command: string[]): Promise<{
  child: Bun.Subprocess<"ignore", "pipe", "inherit">;
  port: number;
  line: () => Promise<string>;
}> {
  const child = Bun.spawn(command, {
    ...{ env: environment(), stdin: "ignore", stdout: "pipe", stderr: "inherit" },
  });
  cleanups.push(() => child.kill("SIGKILL"));
  const reader = child.stdout.getReader();
  const decoder = new TextDecoder();
  let text = "";
  const line = async (): Promise<string> => {
    while (!text.includes("\n")) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`the process ended after ${JSON.stringify(text)}`);
      text += decoder.decode(value, { stream: true });
    }
    const end = text.indexOf("\n");
    const whole = text.slice(0, end);
    text = text.slice(end + 1);
    return whole;
  };
  return { child, port: Number(await line()), line };
}

/** Starts a process that listens on loopback and is stopped by a signal. */
async function stoppedListener(): ReturnType<typeof startChild> {
  const program = `
    const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    console.log(server.port);`;
  const started = await startChild([process.execPath, "-e", program]);
  started.child.kill("SIGSTOP");
  return started;
}

/** Opens connections until no more are accepted. The rest gets no answer for now. */
async function fillBacklog(port: number): Promise<{ allOpen: Promise<void>; count: number }> {
  const count = 600;
  // The backlog that Bun requests, limited by the system.
  const most = Number(readFileSync("/proc/sys/net/core/somaxconn", "utf8"));
  const backlog = Math.min(512, most);
  const filled = Promise.withResolvers<void>();
  const all = Promise.withResolvers<void>();
  let opened = 0;
  for (let index = 0; index < count; index++) {
    const socket = connectSocket({ host: "127.0.0.1", port });
    cleanups.push(() => socket.destroy());
    socket.on("error", all.reject);
    socket.on("connect", () => {
      opened++;
      if (opened > backlog) filled.resolve();
      if (opened === count) all.resolve();
    });
  }
  await filled.promise;
  return { allOpen: all.promise, count };
}

/** Counts connections of this machine to one of its own ports, including those not yet accepted. */
function connectionsTo(port: number): number {
  const to = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/self/net/tcp", "latin1").trim().split("\n").slice(1);
  // State 01 is ESTABLISHED, 02 SYN_SENT; the third column is the remote address.
  return rows.filter((row) => {
    const [, , far, state] = row.trim().split(/\s+/);
    return far === to && (state === "01" || state === "02");
  }).length;
}
