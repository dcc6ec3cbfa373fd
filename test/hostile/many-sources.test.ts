// Countless sources of a few peers, against the compiled server. Meanwhile one honest sender
// continues, another one completes, and memory stays small.

import { describe, test } from "bun:test";

import { crowdOf, HostileGroup, honestly, kinds } from "../helper/hostile-group.ts";
import { a } from "../helper/hostile-messages.ts";
import { end, frame, hello, type Peer, preface, source } from "../helper/hostile.ts";
import { until } from "../helper/time.ts";

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
}
