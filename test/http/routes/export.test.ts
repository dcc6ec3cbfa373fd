// `export.mcap`: a stream as an MCAP file over HTTP.

import { expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { send, serve } from "frames";
import { formatKey, type KeyEntry } from "../../../src/auth/key.ts";
import { generateKey } from "../../../src/keys/key-file.ts";
import { memoryInput } from "../../../src/mcap/cursor.ts";
import { pictureBytes, pictureDecoder } from "../../../src/mcap/picture.ts";
import { readSummary } from "../../../src/mcap/summary.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { startViewed, type Viewed } from "../../helper/viewing.ts";
import { noise, readEvents } from "../../mcap/files.ts";

/** Sends frames with fixed times, in the order of their numbers. */
async function put(viewed: Viewed, sources: Record<string, readonly Uint8Array[]>): Promise<void> {
  for (const [source, frames] of Object.entries(sources)) {
    await send(
      frames.map((bytes, index) => {
        const number = index + 1;
        return { bytes, name: `${number}.jpg`, captured: BigInt(number) * 1000n };
      }),
      { to: viewed.server.address, stream: "run", source },
    );
  }
}

const path = "/api/streams/run/export.mcap";

/** Reads an export, and describes each frame in one line. */
async function framesOf(viewed: Viewed, query = ""): Promise<string[]> {
  const answer = await viewed.get(`${path}${query}`);
  expect(answer.status).toBe(200);
  const file = await answer.bytes();
  const { messages, problems } = readEvents(file);
  expect(problems).toEqual([]);
  expect(readSummary(memoryInput(file))?.messages).toBe(messages.length);
  return messages.map(({ channel, data }) => {
    const picture = pictureDecoder(channel)!(data);
    const { name, sequence, captured } = picture.facts!;
    const bytes = pictureBytes(picture);
    return `${channel.topic} ${name} ${sequence} ${captured} ${Bun.hash.crc32(bytes)}`;
  });
}

function line(source: string, number: number, bytes: Uint8Array): string {
  return `/${source} ${number}.jpg ${number} ${number * 1000} ${Bun.hash.crc32(bytes)}`;
}

const small = [1, 2, 3].map((number) => noise(number, 20_000));
const large = [noise(9, 9_000_000), noise(10, 5)];

test("an export has every frame of the stream in the order of arrival, small and large", async () => {
  await using viewed = await startViewed();
  await put(viewed, { a: small, "site/b": large });
  const all = [
    ...small.map((bytes, index) => line("a", index + 1, bytes)),
    ...large.map((bytes, index) => line("site/b", index + 1, bytes)),
  ];
  expect(await framesOf(viewed)).toEqual(all);
  expect(await framesOf(viewed, "?source=site/b")).toEqual(all.slice(3));
  expect(await framesOf(viewed, "?source=a&source=site/b")).toEqual(all);
  expect(await framesOf(viewed, "?from=2000&to=3000")).toEqual([all[1]!, all[4]!]);
  expect(await framesOf(viewed, "?from=5000")).toEqual([]);
  const head = await viewed.get(path, { method: "HEAD" });
  expect(head.headers.get("Content-Disposition")).toBe("attachment; filename*=UTF-8''run.mcap");
  expect(head.headers.get("Content-Type")).toBe("application/octet-stream");
});

test("an export from a time begins encoded video at the key frame before", async () => {
  await using viewed = await startViewed();
  // Slices of an IDR picture of H.264 every four frames, and of others.
  const frames = Array.from({ length: 12 }, (_, index) => ({
    bytes: new Uint8Array([0, 0, 1, index % 4 === 0 ? 0x65 : 0x41, 0x88, index]),
    name: `${index + 1}.h264`,
    captured: BigInt(index + 1) * 1000n,
  }));
  await send(frames, { to: viewed.server.address, stream: "run", source: "a" });
  await put(viewed, { b: small });
  const numbers = async (query: string) => {
    const lines = await framesOf(viewed, query);
    return lines.filter((text) => text.startsWith("/a ")).map((text) => Number(text.split(" ")[2]));
  };
  expect(await numbers("?from=7000&to=11000")).toEqual([5, 6, 7, 8, 9, 10]);
  expect(await numbers("?from=9000")).toEqual([9, 10, 11, 12]);
  expect((await framesOf(viewed, "?from=2000&source=b")).length).toBe(2);
});

test("an export of what does not exist is 404, and a time that is none 400", async () => {
  await using viewed = await startViewed();
  await put(viewed, { a: small });
  for (const [address, status] of [
    ["/api/streams/none/export.mcap", 404],
    [`${path}?source=none`, 404],
    [`${path}?source=a&source=none`, 404],
    [`${path}?from=yesterday`, 400],
    [`${path}?to=1.5`, 400],
    [`${path}/x`, 404],
  ] as const) {
    expect([address, (await viewed.get(address)).status]).toEqual([address, status]);
  }
});

test("frames that are gone or changed are left out, and the file names them", async () => {
  await using viewed = await startViewed();
  await put(viewed, { a: [...small, large[0]!] });
  const folder = join(viewed.server.directory, "run/a");
  rmSync(join(folder, "1.jpg"));
  writeFileSync(join(folder, "2.jpg"), noise(77, 20_000));
  rmSync(join(folder, "4.jpg"));
  const file = await (await viewed.get(path)).bytes();
  const { messages, events } = readEvents(file);
  expect(messages.map(({ sequence }) => sequence)).toEqual([3]);
  expect(events.filter(({ type }) => type === "metadata")).toContainEqual({
    ...{ type: "metadata", name: "frames.missing" },
    entries: new Map([
      ["count", "3"],
      ["a/1.jpg", "it was moved away or deleted"],
      ["a/2.jpg", "its bytes changed after it was stored"],
      ["a/4.jpg", "it was moved away or deleted"],
    ]),
  });
});

test("an export with a damaged large frame breaks off, so that it does not look complete", async () => {
  await using viewed = await startViewed();
  await put(viewed, { a: large });
  writeFileSync(join(viewed.server.directory, "run/a/1.jpg"), noise(78, 9_000_000));
  const answer = await viewed.get(path);
  expect(await answer.bytes().catch(() => "broken off")).toBe("broken off");
});

/** Requests the export and reads nothing of it. */
async function deaf(viewed: Viewed): Promise<Socket> {
  const { hostname, port } = new URL(viewed.base);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\n\r\n`);
  socket.on("error", () => {});
  await until("the first bytes", () => socket.bytesRead > 0 || socket.readableLength > 0);
  socket.pause();
  return socket;
}

test("a client that reads nothing holds back its own export only", async () => {
  await using viewed = await startViewed();
  await put(viewed, { a: Array.from({ length: 60 }, (_, index) => noise(index, 3_000_000)) });
  const sockets = [await deaf(viewed), await deaf(viewed), await deaf(viewed)];
  const kind = 'frames_viewers{kind="export"}';
  const metrics = async () => await (await viewed.get("/metrics")).text();
  await until("the exports", async () => (await metrics()).includes(`${kind} 3`));
  expect((await framesOf(viewed)).length).toBe(60);
  for (const socket of sockets) socket.destroy();
  await until("their end", async () => (await metrics()).includes(`${kind} 0`));
});

test("an export that the server ends early breaks off, so that it does not look complete", async () => {
  const viewed = await startViewed();
  await put(viewed, { a: Array.from({ length: 40 }, (_, index) => noise(index, 3_000_000)) });
  const answer = await viewed.get(path);
  const reader = answer.body!.getReader();
  await reader.read();
  const stopped = viewed.server.stop();
  let isBroken = false;
  for (;;) {
    const part = await reader.read().catch(() => undefined);
    isBroken = part === undefined;
    if (part === undefined || part.done) break;
  }
  await stopped;
  expect(isBroken).toBe(true);
});

test("a key for other streams does not learn that the stream exists, and one for it gets the file", async () => {
  const folder = temporaryFolder();
  const keyFile = join(folder, "keys");
  const entry = (name: string, streams: string): KeyEntry => {
    return { name, role: "both", streams, key: generateKey() };
  };
  const [own, other] = [entry("own", "run"), entry("other", "x*")];
  writeFileSync(keyFile, formatKey(own) + formatKey(other), { mode: 0o600 });
  const server = await serve(join(folder, "store"), {
    ...{ listen: "127.0.0.1:0", http: "127.0.0.1:0", reserve: 0, keyFile },
  });
  try {
    await send([{ bytes: small[0]!, name: "1.jpg" }], {
      ...{ to: server.address, stream: "run", source: "a", key: own.key.text },
    });
    const get = (headers: Record<string, string>) =>
      fetch(`http://${server.http}${path}`, { headers });
    expect((await get({})).status).toBe(401);
    expect((await get({ Authorization: `Bearer ${other.key.text}` })).status).toBe(404);
    const answer = await get({ Authorization: `Bearer ${own.key.text}` });
    expect(readEvents(await answer.bytes()).messages.length).toBe(1);
  } finally {
    await server.stop();
  }
});
