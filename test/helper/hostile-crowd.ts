// Crowds of peers that stay connected, and what a server must stand: an honest sender continues,
// another one completes, and the server's memory stays small.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";

import type { Peer } from "./hostile.ts";
import { crowdOf, HostileGroup, honestly, kinds } from "./hostile-group.ts";
import { until } from "./time.ts";

/**
 * A server accepts 4,096 connections if it may open twice as many files. The test needs files for
 * its own ends too.
 */
const needed = 10_000;

/** Prefix for the name of a test with many connections; empty if enough files may be open. */
export const crowded: string =
  filesAllowed() >= needed ? "" : `skipped: needs Linux, and ${needed} open files: `;

function filesAllowed(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8");
    return Number(/^Max open files +\d+ +(\d+)/m.exec(limits)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** A crowd of peers. */
export interface Crowd {
  readonly what: string;
  readonly count: number;
  /** Messages of each peer. */
  say(group: HostileGroup, peer: Peer, index: number): Buffer;
  /** Whether each completes HELLO first. */
  readonly isLetIn: boolean;
  prepare?(group: HostileGroup): Promise<Disposable>;
  /** Limits the case to servers with keys, or to those without. */
  readonly only?: boolean;
}

/** Tries each crowd on a server without keys and on one with keys. */
export function testCrowds(crowds: readonly Crowd[]): void {
  for (const [kind, isKeyed] of kinds) {
    for (const { what, count, say, isLetIn, prepare, only = isKeyed } of crowds) {
      if (only !== isKeyed) continue;
      describe.skipIf(crowded !== "")(`${crowded}Server ${kind} and ${what}`, () => {
        const group = new HostileGroup({ isKeyed });

        test(`a server ${kind} ${honestly} ${what}`, async () => {
          using _ = await prepare?.(group);
          const { guarded } = group;
          using crowd = await crowdOf(guarded, count, (peer, index) => say(group, peer, index));
          if (isLetIn) {
            // A slow machine needs longer for all of them than the server waits for one.
            const isLetIn = ({ bytes }: Peer) => bytes.length > 100;
            const isAnswered = (peer: Peer) => isLetIn(peer) || peer.isClosed;
            await until("answers to all of them", () => crowd.peers.every(isAnswered));
            expect(crowd.peers.some(isLetIn)).toBe(true);
          }
          await group.expectServed();
        });
      });
    }
  }
}
