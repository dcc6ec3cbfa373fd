// Which frames are key frames, on the way from a sender through a server to copies, pipes and
// recordings.

import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { receive, send, serve } from "frames";
import { expectCode, journal } from "../helper/delivery.ts";
import { run, temporaryFolder } from "../helper/program.ts";

const key = "00000001 67420a 00000001 68ce 00000001 6588";
const units = [key, "00000001 419a", "00000001 419b", key].map((hex) => {
  return Uint8Array.fromHex(hex.replaceAll(" ", ""));
});
const expected = units.map((_, index) => ({ seq: index + 1, is_key: index % 3 === 0 ? 1 : 0 }));

const isKeys = (store: string, stream: string) =>
  journal(store, `SELECT seq, is_key FROM frames WHERE stream = '${stream}' ORDER BY seq`);

test("a server, its copies, pipes and recordings keep which frames are key frames", async () => {
  const folder = temporaryFolder();
  const store = join(folder, "received");
  const server = await serve(store, { listen: "127.0.0.1:0" });
  const { address: to } = server;
  const from = to;
  const frames = units.map((bytes) => ({ bytes, extension: "h264" }));
  await send(frames, { to, stream: "live", source: "cam" });
  expect(isKeys(store, "live")).toEqual(expected);

  const copy = join(folder, "copy");
  await receive("live", { from, directory: copy });
  expect(isKeys(copy, "live")).toEqual(expected);

  // A directory of access units is encoded video by the names of its files.
  const cam = join(folder, "files/cam");
  mkdirSync(cam, { recursive: true });
  for (const [index, bytes] of units.entries()) writeFileSync(join(cam, `${index}.h264`), bytes);
  await send(join(folder, "files"), { to });
  expect(isKeys(store, "files")).toEqual(expected);

  const recording = join(folder, "live.mcap");
  await receive("live", { from, file: recording });
  await send(recording, { to, stream: "imported" });
  expect(isKeys(store, "imported")).toEqual(expected);

  const parts = await run(["receive", "live", "-", "--multipart", "--from", from, "-q"], {});
  expectCode(parts, 0);
  const lines = [...parts.stdout.matchAll(/X-Key: (\d)/g)].map(([, isKey]) => Number(isKey));
  expect(lines).toEqual(expected.map(({ is_key }) => is_key));
  await server.stop();
});
