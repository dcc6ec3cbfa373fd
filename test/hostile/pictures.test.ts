// Pictures that are small files and large in memory, of one key, against the compiled server: its
// memory stays bounded, and the pictures of another key are shown meanwhile.
//
// Covers: common/memory.ts

import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";

import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { encodePng } from "../helper/png.ts";
import {
  launch,
  type Launched,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until, within } from "../helper/time.ts";
import { ascii, chunk, join as bytesOf, pngSignature } from "../source/image/images.ts";

/** Builds a PNG whose data inflates to `inflated` zeros. */
function zeroPng(
  [width, height, depth, colour, interlaced = 0]: readonly number[],
  inflated: number,
  extra: Uint8Array[] = [],
): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width!, 0);
  header.writeUInt32BE(height!, 4);
  header.set([depth!, colour!, 0, 0, interlaced], 8);
  const data = chunk("IDAT", deflateSync(new Uint8Array(inflated), { level: 9 }));
  return bytesOf(pngSignature, chunk("IHDR", header), ...extra, data, chunk("IEND", ""));
}

const side = 4096;
const textBomb = chunk("zTXt", bytesOf("k\0\0", deflateSync(new Uint8Array(400e6), { level: 9 })));

/** A WebP whose canvas is larger than any limit, and a GIF whose picture is larger than its screen. */
const webp = Buffer.from("UklGRhYAAABXRUJQVlA4WAoAAAAAAAAA////////", "base64");
const gif = Buffer.from("R0lGODlhQAAwAIAAAAAAAP///ywAAAAA/////wACAkwBADs=", "base64");

const bombs: Record<string, Uint8Array> = {
  "grey of 16 bits": zeroPng([8192, 8192, 16, 0], (8192 * 2 + 1) * 8192),
  "colour of 16 bits": zeroPng([side, side, 16, 6], (side * 8 + 1) * side),
  "colour of 8 bits": zeroPng([side, side, 8, 6], (side * 4 + 1) * side),
  "small sides and much data": zeroPng([64, 48, 16, 0], 200e6),
  "large sides and no data": zeroPng([2400, 2400, 16, 0], 10),
  "text that inflates": zeroPng([64, 48, 8, 2], (64 * 3 + 1) * 48, [textBomb]),
  "a million empty chunks": zeroPng([64, 48, 16, 0], (64 * 2 + 1) * 48, [
    bytesOf(
      ...Array<Uint8Array>(1000).fill(bytesOf(...Array<Uint8Array>(1000).fill(chunk("IDAT", "")))),
    ),
  ]),
  "six million rows": zeroPng([1, 6e6, 16, 0], 18e6),
  webp,
  gif,
  "PPM without pixels": ascii("P6 4000 4000 255\n"),
  "PGM of text": ascii(`P2 2000 2000 65535\n${"0 ".repeat(4e6)}`),
  "PPM of 30 MB": bytesOf(ascii("P6 3200 3200 255\n"), new Uint8Array(3200 * 3200 * 3)),
};

const evil: KeyEntry = { name: "evil", key: generateKey(), role: "both", streams: "evil*" };
const good: KeyEntry = { name: "good", key: generateKey(), role: "both", streams: "good*" };

const folders: string[] = [];
let server: Server;
const sending: Launched[] = [];

function folder(): string {
  const made = temporaryFolder();
  folders.push(made);
  return made;
}

function keyFile(...entries: KeyEntry[]): string {
  const path = join(folder(), "keys");
  writeFileSync(path, entries.map(formatKey).join(""), { mode: 0o600 });
  return path;
}

/** Sends pictures, each as a live source of its own, and stays connected. */
async function show(entry: KeyEntry, pictures: Record<string, Uint8Array>): Promise<void> {
  const root = folder();
  for (const [source, bytes] of Object.entries(pictures)) {
    await Bun.write(join(root, source, "1.png"), bytes);
  }
  const to = ["--to", `127.0.0.1:${server.port}`, "--key-file", keyFile(entry)];
  const stream = `${entry.name}-pictures`;
  const sender = launch([
    "send",
    root,
    "--stream",
    stream,
    "--watch",
    "--settle",
    "1",
    ...to,
    "--json",
  ]);
  sending.push(sender);
  const path = `/api/streams/${stream}`;
  await until("all pictures are stored", async () => {
    const answer = await get(entry, path);
    return (
      ((await answer.json()) as { sources?: unknown[] }).sources?.length ===
      Object.keys(pictures).length
    );
  });
}

function get({ key }: KeyEntry, path: string, signal?: AbortSignal): Promise<Response> {
  const headers = { Authorization: `Bearer ${key.text}` };
  return fetch(`http://${server.http}${path}`, {
    headers,
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Requests the live pictures of a source. Returns the status, and closes the view. */
async function look(entry: KeyEntry, source: string): Promise<number> {
  const view = new AbortController();
  const path = `/streams/${entry.name}-pictures/sources/${encodeURIComponent(source)}/latest.mjpeg`;
  const { status, body } = await get(entry, path, view.signal);
  if (status === 200) await body!.getReader().read();
  view.abort();
  return status;
}

beforeAll(async () => {
  const keys = ["--key-file", keyFile(evil, good)];
  server = await startServer({ dir: folder(), args: [...keys, "--http", "127.0.0.1:0"] });
});
afterAll(async () => {
  for (const sender of sending) sender[Symbol.dispose]();
  await server.stop();
  for (const path of folders) rmSync(path, { recursive: true, force: true });
});

test("pictures that are large in memory keep the server below 250 MB, and those of another key are shown meanwhile", async () => {
  const pixels = new Uint8Array(64 * 48 * 2);
  await show(good, { gate: encodePng({ width: 64, height: 48, colour: "grey16", pixels }) });
  await show(evil, bombs);
  const hostile = Object.keys(bombs).flatMap((name) => [look(evil, name), look(evil, name)]);
  const all = Promise.all(hostile);
  let isOver = false;
  void all.finally(() => (isOver = true));
  let honest = 0;
  do {
    expect(await within(look(good, "gate"), () => "the picture of the other key")).toBe(200);
    honest++;
  } while (!isOver);
  expect(honest).toBeGreaterThan(0);
  const statuses = await all;
  expect(statuses.every((status) => status === 200 || status === 415)).toBe(true);
  expect(statuses).toContain(200);
  expect(statuses).toContain(415);
  expect(server.peakMemory()).toBeLessThan(250e6);
  // The page works as before.
  expect((await get(good, "/api/streams/good-pictures")).status).toBe(200);
});
