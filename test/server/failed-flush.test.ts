// A server whose journal cannot commit confirms no frame of that batch, also not with the next one.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { FrameFeed, send, serve } from "frames";
import { temporaryFolder } from "../helper/program.ts";
import { SystemFaults } from "../helper/system-faults.ts";
import { rows } from "../store/fixture.ts";

test("a frame is confirmed only with its row, although the commit before failed", async () => {
  using faults = new SystemFaults();
  const directory = join(temporaryFolder(), "store");
  const server = await serve(directory, { listen: "127.0.0.1:0", reserve: 0 });
  const feed = new FrameFeed();
  const count = 5;
  for (let number = 1; number <= count; number++) {
    void feed.push({ bytes: new Uint8Array(100).fill(number), name: `${number}.bin` });
  }
  feed.end();
  let failures = 0;
  faults.decide = (_, [sql]) => (sql === "COMMIT" && failures++ === 0 ? "SQLITE_FULL" : undefined);
  const options = { to: server.address, stream: "run7", source: "visible" };
  const summary = await faults.within(() => send(feed, options));
  await server.stop();
  expect([summary.frames, failures > 1]).toEqual([count, true]);
  const stored = rows<{ name: string }>(directory, "SELECT name FROM frames ORDER BY seq");
  expect(stored.map(({ name }) => name)).toEqual(["1.bin", "2.bin", "3.bin", "4.bin", "5.bin"]);
});
