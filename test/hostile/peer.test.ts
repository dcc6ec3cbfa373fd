// A peer that breaks the protocol, against the compiled server: its replies, its log, and no harm
// to an honest sender, the store or its surroundings.

import { describe, expect, test } from "bun:test";

import { HostileGroup, kinds } from "../helper/hostile-group.ts";
import { a, fatal, greetings, kept, right } from "../helper/hostile-messages.ts";
import { converse, data, end, frame, hello, MORE, Peer, preface } from "../helper/hostile.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

/** Files that the conversation below creates. */
const whole: Record<string, string> = {
  "a/1.png": "bytes",
  "a/2.png": "halfhalf",
  "a/3.png": "",
};

for (const [kind, isKeyed] of kinds) {
  describe(`Messages to a server ${kind}`, () => {
    const group = new HostileGroup({ isKeyed });

    for (const one of [...fatal, ...right]) {
      test(`a server ${kind} answers ${one.what} with ${one.expects}`, async () => {
        const stream = group.newStream();
        using peer = await converse(group.guarded, { stream, ...one.hello }, ...one.says);
        await group.expectOutcome(peer, one);
        group.expectKept(stream, one.keeps);
      });
    }

    for (const [what, fields, expects] of greetings) {
      test(`a server ${kind} rejects ${what}`, async () => {
        using peer = await Peer.connect(group.guarded);
        const said =
          fields instanceof Buffer ? fields : hello(group.guarded, { stream: "h", ...fields });
        peer.write(peer.greeting(Buffer.concat([preface, said])));
        await group.expectOutcome(peer, { expects });
      });
    }

    test(`a server ${kind} rejects a second HELLO`, async () => {
      using peer = await converse(group.guarded, { stream: "h" }, hello(group.guarded), end(0));
      await group.expectOutcome(peer, { expects: "protocol" });
    });

    test(`a server ${kind} keeps up with frames beyond the window or ends the connection`, async () => {
      const frames = Array.from({ length: 20_000 }, () => frame());
      using peer = await converse(group.guarded, { stream: "window" }, a, ...frames, end(20_000));
      await until("the last word", () => peer.outcome !== "closed" || peer.isClosed);
      expect(["limit", "done"]).toContain(peer.outcome);
      group.expectKept("window", kept);
    });

    /** Builds a valid conversation, and returns where its frames end. */
    function conversation(peer: Peer, stream: string): { bytes: Buffer; ends: number[] } {
      const greeting = peer.greeting(Buffer.concat([preface, hello(group.guarded, { stream })]));
      const frames = [
        frame({ metadata: '{"a":1}' }),
        frame({ name: "2.png", sequence: 2, flags: MORE, size: 8, payload: "half" }),
        data("half", "half"),
        frame({ sequence: 3, name: "3.png", payload: "" }),
      ];
      const parts = [Buffer.concat([greeting, a]), ...frames];
      const ends = parts.map((_, index) => Buffer.concat(parts.slice(0, index + 1)).length);
      return { bytes: Buffer.concat([...parts, end(3)]), ends: [ends[1]!, ends[3]!, ends[4]!] };
    }
    const counts = { frames: 3, stored: 3, present: 0, refused: 0, aborted: 0 };

    test(`a server ${kind} sends DONE with right counts when all messages come in one segment`, async () => {
      using peer = await Peer.connect(group.guarded);
      peer.write(conversation(peer, "segment").bytes);
      await group.expectOutcome(peer, { expects: "done" });
      expect(peer.bodies(type.DONE)).toEqual([counts]);
      group.expectKept("segment", whole);
    });

    test(`a server ${kind} sends DONE with right counts when messages come a byte at a time`, async () => {
      using peer = await Peer.connect(group.guarded);
      for (const byte of conversation(peer, "bytes").bytes) {
        peer.write(Uint8Array.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await group.expectOutcome(peer, { expects: "done" });
      expect(peer.bodies(type.DONE)).toEqual([counts]);
      group.expectKept("bytes", whole);
    });

    for (const way of ["FIN", "RST"] as const) {
      test(`a server ${kind} stores exactly the whole frames of a connection cut at any byte by ${way}`, async () => {
        const streamOf = (at: number) => `${way.toLowerCase()}-${String(at).padStart(3, "0")}`;
        let length = Infinity;
        let ends: number[] = [];
        let next = 0;
        const cutNext = async (): Promise<void> => {
          while (next < length) {
            const at = next++;
            using peer = await Peer.connect(group.guarded);
            const spoken = conversation(peer, streamOf(at));
            ({ ends, length } = { ends: spoken.ends, length: spoken.bytes.length });
            peer.write(spoken.bytes.subarray(0, at));
            if (way === "RST") peer.reset();
            else peer.finish();
            await peer.closed();
            expect(peer.outcome).toBe("closed");
            const stored = Object.entries(whole).filter((_, index) => at >= ends[index]!);
            const keeps = Object.fromEntries(stored);
            // A reset may overtake earlier data, which the server may still process later.
            if (way === "RST") {
              group.allow(streamOf(at), keeps);
              continue;
            }
            group.expectKept(streamOf(at), keeps);
            const receipt = peer.messages().findLast((heard) => "frames" in heard);
            expect(receipt === undefined ? 0 : receipt.frames).toBe(stored.length);
          }
        };
        await Promise.all(Array.from({ length: 16 }, cutNext));
        expect(next).toBeGreaterThan(300);
      });
    }
  });
}
