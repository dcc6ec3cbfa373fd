// Too many connections, against the compiled server: peers that send nothing, or almost nothing,
// and stay. Meanwhile one honest sender continues, another one completes, and the server's memory
// stays small.

import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";

import { crowded, testCrowds } from "../helper/hostile-crowd.ts";
import { crowdOf, HostileGroup, honestly, kinds } from "../helper/hostile-group.ts";
import { a } from "../helper/hostile-messages.ts";
import {
  converse,
  frame,
  type GuardedServer,
  hello,
  json,
  MORE,
  Peer,
  preface,
  source,
} from "../helper/hostile.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

/** Returns the number of files that a server has open. */
function openFiles({ server }: GuardedServer): number {
  return readdirSync(`/proc/${server.process.pid}/fd`).length;
}

/** Returns the number of frames being written. */
function unfinished({ store }: GuardedServer): number {
  return readdirSync(join(store, ".frames/partial")).length;
}

/** Starts a crowd in a separate process and waits until all have connected. */
async function silentCrowd(port: number, count: number, ...words: string[]) {
  const script = join(import.meta.dir, "../helper/silent-crowd.ts");
  const child = Bun.spawn([process.execPath, script, `${port}`, `${count}`, ...words], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const said = child.stdout.getReader();
  const next = async () => new TextDecoder().decode((await said.read()).value).trim();
  expect(await next()).toBe("open");
  return {
    /** Ends the crowd. Returns how many connections the server had closed. */
    async leave(): Promise<number> {
      void child.stdin.end();
      const closed = Number(await next());
      await child.exited;
      return closed;
    },
    [Symbol.dispose]: () => child.kill("SIGKILL"),
  };
}

/** A hundred kilobytes of messages. */
const more = Buffer.concat(Array.from({ length: 4000 }, () => json(type.PING, { time: "0" })));

testCrowds([
  {
    what: "2,000 peers that send HELLO and nothing more",
    only: true,
    count: 2000,
    say: ({ guarded }, peer, index) =>
      peer.greeting(Buffer.concat([preface, hello(guarded, { stream: `${index}` })])),
    isLetIn: true,
  },
  {
    what: "2,000 peers that wait for the source of another peer and keep sending",
    count: 2000,
    say: ({ guarded }, peer) => {
      const said = Buffer.concat([preface, hello(guarded, { stream: "held" })]);
      return Buffer.concat([peer.greeting(said), a, more]);
    },
    isLetIn: true,
    prepare: async ({ guarded }) => {
      const holder = await converse(guarded, { stream: "held" }, a);
      await until("WELCOME", () => holder.bodies(type.WELCOME).length > 0);
      return holder;
    },
  },
]);

for (const [kind, isKeyed] of kinds) {
  for (const [what, count, words] of [
    ["5,000 silent connections", 5000, []],
    ...(isKeyed ? ([["1,000 silent TLS connections", 1000, ["tls"]]] as const) : []),
  ] as const) {
    describe.skipIf(crowded !== "")(`${crowded}Server ${kind} and ${what}`, () => {
      const group = new HostileGroup({ isKeyed });

      test(`a server ${kind} ${honestly} ${what}`, async () => {
        const before = openFiles(group.guarded);
        using crowd = await silentCrowd(group.guarded.port, count, ...words);
        await group.expectServed();
        const kept = openFiles(group.guarded) - before;
        expect(kept).toBeLessThanOrEqual(4096);
        // Evicted connections were closed.
        expect(await crowd.leave()).toBeGreaterThanOrEqual(count - kept);
        await until("the end of all of them", () => openFiles(group.guarded) < before + 10);
      });
    });
  }

  const hoarders = "peers whose unfinished frames use all of its open files";
  describe.skipIf(crowded !== "")(`${crowded}Server ${kind} and ${hoarders}`, () => {
    const group = new HostileGroup({ isKeyed, openFiles: 300 });

    test(`a server ${kind} ${honestly} ${hoarders}`, async () => {
      const { guarded } = group;
      const begin = (peer: Peer, index: number, frames: number) => {
        const said = Buffer.concat([preface, hello(guarded, { stream: `${index}` })]);
        const begun = Array.from({ length: frames }, (_, id) => [
          source(`${id}`, id + 1),
          frame({ source: id + 1, flags: MORE, size: 8, payload: "half" }),
        ]);
        return Buffer.concat([peer.greeting(said), ...begun.flat()]);
      };
      using _ = await crowdOf(guarded, 16, (peer, index) => begin(peer, index, 16));
      await until("their frames", () => unfinished(guarded) >= 16 * 16);
      // Use up the rest one by one, so that a refused peer frees little.
      const others: Peer[] = [];
      const failed = () => others.filter(({ hasHeardAll }) => hasHeardAll).length;
      try {
        while (others.length < 60 && failed() < 2) {
          const peer = await Peer.connect(guarded);
          others.push(peer);
          peer.write(begin(peer, 100 + others.length, 1));
          await until("WELCOME", () => peer.bytes.length > 100 || peer.isClosed);
        }
        await group.expectServed();
      } finally {
        others.forEach((peer) => peer.reset());
      }
    });
  });
}
