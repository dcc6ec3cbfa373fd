// Messages and requests that cost a server far more than their own bytes, against the compiled
// server. Meanwhile one honest sender continues, another one completes, and memory stays small. How
// much of such work runs in one turn is held by test/common/work-queue.test.ts and
// test/protocol/receive/receiver.test.ts.

import { describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";

import { crowdOf, HostileGroup, honestly } from "../helper/hostile-group.ts";
import { a } from "../helper/hostile-messages.ts";
import {
  converse,
  data,
  frame,
  hello,
  json,
  MORE,
  Peer,
  preface,
  source,
} from "../helper/hostile.ts";
import { until } from "../helper/time.ts";
import { bytesOf } from "../store/contract.ts";
import { type } from "../wire/vectors.ts";

/** Number of sources of the stream that receivers and HTTP clients ask for. */
const sourceCount = 9000;
const sourceNames = Array.from({ length: sourceCount }, (_, index) => `s${index + 1}`);
/** As many as a receiver may name. */
const requestedNames = sourceNames.slice(0, 1000);

/** Builds FRAME and DATA of a frame that is longer than one message. */
function largeFrame(name: string, sequence: number, bytes: Uint8Array): Buffer {
  const pieces: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += 1_000_000) {
    const payload = bytes.subarray(from, from + 1_000_000);
    const flags = from + payload.length < bytes.length ? MORE : 0;
    pieces.push(
      from === 0
        ? frame({ name, sequence, size: bytes.length, payload, flags })
        : data(payload, bytes.subarray(0, from), { flags }),
    );
  }
  return Buffer.concat(pieces);
}

/** Calls `act` again and again while `served` is pending. */
async function flood(act: () => void, served: Promise<void>): Promise<void> {
  const timer = setInterval(act, 3);
  try {
    await served;
  } finally {
    clearInterval(timer);
  }
}

describe("a server without keys and costly messages", () => {
  const group = new HostileGroup({ isKeyed: false });

  test(`a server without keys ${honestly} a peer that offers stored frames of 20 MB endlessly`, async () => {
    const { guarded } = group;
    const stream = group.newStream();
    const files = { "1.jpg": bytesOf(20e6, 1), "2.jpg": bytesOf(20e6, 2) };
    using peer = await converse(guarded, { stream, features: ["offer"], durable: true }, a);
    const entries = Object.entries(files).map(([name, bytes], index) => {
      peer.write(largeFrame(name, index + 1, bytes));
      return [name, bytes.length, "1700000000000000000", index + 1, crc32(bytes)];
    });
    await until("their receipt", () => peer.messages().some((heard) => "frames" in heard));
    const offers = json(type.OFFER, { frames: entries }, 1);
    const part = Buffer.concat(Array.from({ length: 20 }, () => offers));
    await flood(() => peer.queued === 0 && peer.write(part), group.expectServed());
    await until("an answer", () => peer.bodies(type.ANSWER).length > 0);
    expect(peer.bodies(type.ANSWER)[0]).toEqual({ answers: "ss" });
    for (const [name, bytes] of Object.entries(files)) {
      group.want(`${stream}/a/${name}`, Buffer.from(bytes).toString("utf8"));
    }
  });

  test(`a server without keys ${honestly} peers that report 3,000 losses in each message`, async () => {
    const { guarded } = group;
    const peers = await Promise.all(
      Array.from({ length: 5 }, () => converse(guarded, { stream: group.newStream() }, a)),
    );
    let next = 1;
    const losses = () => {
      const ranges = Array.from({ length: 3000 }, () => [(next += 2), next]);
      return json(type.LOST, { ranges, error: 51 }, 1);
    };
    const say = () => peers.forEach((peer) => peer.queued === 0 && peer.write(losses()));
    await flood(say, group.expectServed());
    expect(peers.filter(({ isClosed }) => isClosed)).toEqual([]);
    peers.forEach((peer) => peer.reset());
  });

  test(`a server without keys ${honestly} peers that send 8,000 frames of a byte at once`, async () => {
    const { guarded } = group;
    const peers = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const stream = group.newStream();
        const names = Array.from({ length: 8000 }, (_, index) => `${index + 1}`);
        group.allow(stream, Object.fromEntries(names.map((name) => [`a/${name}`, "x"])));
        const frames = names.map((name, index) =>
          frame({ name, sequence: index + 1, payload: "x" }),
        );
        return converse(guarded, { stream }, a, ...frames);
      }),
    );
    await group.expectServed();
    peers.forEach((peer) => peer.reset());
  });
});

describe("a server without keys and what receivers make it hold", () => {
  const group = new HostileGroup({ isKeyed: false });

  for (const [size, what] of [
    [20e6, "large frames"],
    [900e3, "frames of one message"],
  ] as const) {
    test(`a server without keys ${honestly} 300 receivers that read nothing of ${what}`, async () => {
      const { guarded } = group;
      const stream = group.newStream();
      using sender = await converse(guarded, { stream }, a);
      for (const number of [1, 2, 3]) {
        const bytes = bytesOf(size, number);
        sender.write(largeFrame(`${number}.jpg`, number, bytes));
        group.want(`${stream}/a/${number}.jpg`, Buffer.from(bytes).toString("utf8"));
      }
      const isStored = () =>
        sender.messages().some((heard) => "frames" in heard && heard.frames === 3);
      await until("their receipt", isStored);
      const receivers: Peer[] = [];
      try {
        for (let index = 0; index < 300; index++) {
          const receiver = await Peer.connect(guarded, "deaf");
          receivers.push(receiver);
          const fields = { role: "receive", stream, latest: index % 2 === 0, follow: true };
          receiver.write(Buffer.concat([preface, hello(guarded, fields)]));
        }
        await group.expectServed();
      } finally {
        receivers.forEach((receiver) => receiver.reset());
      }
    });
  }

  test(`a server without keys ${honestly} 1,500 receivers that name 1,000 long sources each`, async () => {
    const { guarded } = group;
    const stream = group.newStream();
    const sources = requestedNames.map((name) => name.padEnd(57, "x"));
    const says = Buffer.concat([
      preface,
      hello(guarded, { role: "receive", stream, sources, follow: true }),
    ]);
    using crowd = await crowdOf(guarded, 1500, () => says);
    await group.expectServed();
    const refused = () => crowd.peers.filter((peer) => peer.bodies(type.ERROR).length > 0);
    await until("refusals", () => refused().length > 0);
    expect(refused()[0]!.bodies(type.ERROR)[0]).toMatchObject({ error: 11 });
  });
});

describe("a server without keys and costly requests", () => {
  const group = new HostileGroup({ isKeyed: false, http: "127.0.0.1:0" });
  const stream = "many";

  /** Stores a frame of each source, once. */
  let stored: Promise<void> | undefined;
  const store = () => (stored ??= storeSources());
  async function storeSources(): Promise<void> {
    const said = sourceNames.map((name, index) => [
      source(name, index + 1),
      frame({ source: index + 1 }),
    ]);
    using peer = await converse(group.guarded, { stream }, ...said.flat());
    const isSettled = () =>
      peer.messages().some((heard) => "frames" in heard && Number(heard.frames) === sourceCount);
    await until("the receipt of all sources", isSettled);
    for (const name of sourceNames) group.want(`${stream}/${name}/1.png`, "bytes");
  }

  test(`a server without keys ${honestly} clients that ask for the newest frames of 1,000 sources again and again`, async () => {
    await store();
    let isServed = false;
    let welcomed = 0;
    const fields = { role: "receive", stream, latest: true, sources: requestedNames };
    const ask = async () => {
      while (!isServed) {
        using peer = await Peer.connect(group.guarded);
        peer.write(Buffer.concat([preface, hello(group.guarded, fields)]));
        await until("WELCOME", () => peer.bodies(type.WELCOME).length > 0 || peer.isClosed);
        welcomed += peer.bodies(type.WELCOME).length;
      }
    };
    const asking = Array.from({ length: 20 }, ask);
    await group.expectServed().finally(() => (isServed = true));
    await Promise.all(asking);
    expect(welcomed).toBeGreaterThanOrEqual(20);
  });

  test(`a server without keys ${honestly} clients that list everything over HTTP again and again`, async () => {
    await store();
    const base = `http://${group.guarded.server.http}`;
    const paths = [
      "/api/streams",
      `/api/streams/${stream}`,
      `/api/streams/${stream}/gaps`,
      `/api/streams/${stream}/moment?at=0`,
      `/api/streams/${stream}/frames?source=s1&number=9`,
      "/metrics",
    ];
    let isServed = false;
    const ask = async (path: string) => {
      while (!isServed) {
        const answer = await fetch(base + path);
        expect([path, answer.status]).toEqual([path, 200]);
        await answer.arrayBuffer();
      }
    };
    const asking = Array.from({ length: 100 }, (_, index) => ask(paths[index % paths.length]!));
    await group.expectServed().finally(() => (isServed = true));
    await Promise.all(asking);
    expect((await fetch(`${base}/healthz`)).status).toBe(200);
  });
});
