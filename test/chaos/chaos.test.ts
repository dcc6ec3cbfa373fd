// The short form of the chaos test. The long one: bun test/chaos/main.ts

import { expect, test } from "bun:test";

import { chaos, shortForm } from "./main.ts";

const seed = Number(process.env["FRAMES_CHAOS_SEED"] ?? 20261122);
const needs = process.platform === "win32" ? "a POSIX shell" : undefined;

test.skipIf(needs !== undefined)(
  `${needs === undefined ? "" : `skipped: needs ${needs}: `}kills, cut or frozen links, damage and full disks leave no frame lost, torn or stored twice`,
  async () => {
    const { faults, lines } = await chaos({ ...shortForm, seed });
    console.log(`chaos: FRAMES_CHAOS_SEED=${seed}\n${lines.join("\n")}`);
    for (const [kind, count] of faults) expect([kind, count > 0]).toEqual([kind, true]);
    expect(faults.size).toBeGreaterThanOrEqual(6);
  },
);
