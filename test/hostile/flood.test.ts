// Messages without end from a peer that reads no answers, against the compiled server. Meanwhile one
// honest sender continues, another one completes, and memory stays small.

import { describe, expect, test } from "bun:test";

import { HostileGroup, honestly, kinds } from "../helper/hostile-group.ts";
import { a } from "../helper/hostile-messages.ts";
import { frame, hello, json, Peer, preface, source } from "../helper/hostile.ts";
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

for (const [kind, isKeyed] of kinds) {
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
