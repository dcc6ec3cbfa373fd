// Which losses of a watched folder a chaos run accepts.

import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../helper/program.ts";
import { Random } from "../wire/fuzz.ts";
import { WatchedTree } from "./watched.ts";

const hasQueue = existsSync("/proc/sys/fs/inotify/max_queued_events");

test.skipIf(!hasQueue)(
  `${hasQueue ? "" : "skipped: needs Linux: "}a watched file may be told as stopped only if it came without events, and not as lost in another way`,
  async () => {
    const place = temporaryFolder();
    const watched = new WatchedTree(place, new Random(1));
    await watched.loseEvents();
    const names = readdirSync(join(place, "watched")).filter((file) => !file.startsWith("."));
    const numbers = { session: "a".repeat(32), first: 1n, last: 1n };
    const isWrong = (reason: string, of: string | null) => {
      const found = watched.faults([], [{ ...numbers, reason, name: of }]);
      return found.some((what) => what.startsWith("the journal has a loss"));
    };
    expect(names.filter((name) => isWrong("stopped", name))).toEqual([]);
    // Those that were written in place may be told in other ways.
    expect(names.filter((name) => isWrong("vanished", name))).not.toEqual([]);
    expect([isWrong("stopped", "7.png"), isWrong("stopped", null)]).toEqual([true, true]);
  },
);
