// Too much from one peer, against the compiled server: countless sources, and answers that the peer
// never reads. Meanwhile one honest sender continues, another one completes, and memory stays
// small.

import { describe, expect, test } from "bun:test";

import { crowdOf, HostileGroup, kinds } from "../helper/hostile-group.ts";
import { a } from "../helper/hostile-messages.ts";
import { end, frame, hello, json, Peer, preface, source } from "../helper/hostile.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

/** Messages sent without end by a peer that never reads the answers. */
const answered: [what: string, says: Buffer][] = [
  ["PINGs", json(type.PING, { time: "0" })],
  ["OFFERs", json(type.OFFER, { frames: Array(1000).fill(["1.png", 0, "0", 1]) }, 1)],
  ["frames that are refused", frame({ name: `..${"n".repeat(200)}` })],
];

/** Messages with a short answer or none, so that a peer that reads could not send them faster. */
const unanswered: [what: string, says: Buffer][] = [
  ["losses", json(type.LOST, { ranges: [[1, 1]], error: 51, message: "m".repeat(100) }, 1)],
  ["sources that are refused", source("..", 2)],
  ["frames that are there already", frame()],
];

const honestly = "serves an honest sender with little memory beside";

for (const [kind, isKeyed] of kinds) {
  for (const [what, prefix] of [
    ["short names", "n"],
    ["names of 220 bytes", "n".repeat(210)],
  ] as const) {
    describe(`Server ${kind} and many sources`, () => {
      const group = new HostileGroup({ isKeyed });

      test(`a server ${kind} ${honestly} ten peers that have 10,000 sources each, of ${what}`, async () => {
        const { guarded } = group;
        const streams = Array.from({ length: 10 }, () => group.newStream());
        using crowd = await crowdOf(guarded, streams.length, (peer, index) => {
          const stream = streams[index]!;
          const said = Buffer.concat([preface, hello(guarded, { stream })]);
          const sources = Array.from({ length: 10_000 }, (_, id) =>
            source(`${prefix}${id}`, id + 1),
          );
          return Buffer.concat([peer.greeting(said), ...sources, frame({ source: 10_000 })]);
        });
        const settled = (peer: Peer) => peer.messages().some((heard) => "frames" in heard);
        await until("their receipts", () => crowd.peers.every(settled));
        await group.expectServed();
        for (const peer of crowd.peers) {
          peer.write(end(1));
          await group.expectOutcome(peer, { expects: "done" });
        }
        for (const stream of streams) {
          group.expectKept(stream, { [`${prefix}9999/1.png`]: "bytes" });
        }
      });
    });
  }

  describe(`Server ${kind} and many sources under one id`, () => {
    const group = new HostileGroup({ isKeyed });

    test(`a server ${kind} ${honestly} four peers that declare 25,000 sources each under one id`, async () => {
      const { guarded } = group;
      const streams = Array.from({ length: 4 }, () => group.newStream());
      const sources = Array.from({ length: 25_000 }, (_, number) => source(`${number}`));
      const said = Buffer.concat([a, frame(), ...sources, frame({ sequence: 2 }), end(2)]);
      using crowd = await crowdOf(guarded, streams.length, (peer, index) => {
        const greeting = Buffer.concat([preface, hello(guarded, { stream: streams[index] })]);
        return Buffer.concat([peer.greeting(greeting), said]);
      });
      await group.expectServed();
      for (const peer of crowd.peers) {
        await until("DONE", () => peer.outcome !== "closed" || peer.isClosed);
        await group.expectOutcome(peer, { expects: "done" });
      }
      for (const stream of streams) {
        group.expectKept(stream, { "a/1.png": "bytes", "24999/1.png": "bytes" });
      }
    });
  });

  for (const [what, says] of isKeyed ? answered : [...answered, ...unanswered]) {
    describe(`Server ${kind} and endless ${what}`, () => {
      const group = new HostileGroup({ isKeyed });

      test(`a server ${kind} ${honestly} a peer that sends ${what} endlessly and reads nothing`, async () => {
        const { guarded } = group;
        const stream = group.newStream();
        group.want(`${stream}/a/1.png`, "bytes");
        using peer = await Peer.connect(guarded, "deaf");
        const said = Buffer.concat([preface, hello(guarded, { stream })]);
        peer.write(Buffer.concat([peer.greeting(said), a, frame()]));
        // Small enough to stay within the window.
        const count = Math.ceil(64_000 / says.length);
        const part = Buffer.concat(Array.from({ length: count }, () => says));
        const flood = setInterval(() => peer.queued === 0 && peer.write(part), 3);
        try {
          // Until the server stops reading, or five times.
          for (let turns = 0, before = -1; turns < 5 && peer.taken > before; turns++) {
            before = peer.taken;
            await group.expectServed();
          }
        } finally {
          clearInterval(flood);
        }
        expect(peer.taken).toBeGreaterThan(500_000);
      });
    });
  }
}
