// The JSON API: streams, frames in the order of capture, times and gaps.

import { describe, expect, spyOn, test } from "bun:test";
import { send, serve, version } from "frames";
import { WorkQueue } from "../../../src/common/work-queue.ts";
import { run, temporaryFolder } from "../../helper/program.ts";
import { type RawAnswer, rawHttp, request } from "../../helper/raw-http.ts";
import { until } from "../../helper/time.ts";
import { Camera, startViewed } from "../../helper/viewing.ts";

const frame = (text: string) => new TextEncoder().encode(text);

test("the API lists streams with their sources, page by page", async () => {
  await using viewed = await startViewed();
  for (const [stream, source] of [
    ["b", "x"],
    ["a", "y"],
    ["a", "x"],
    ["c", "c"],
  ] as const) {
    const camera = new Camera(viewed.server, stream, source);
    await camera.store(frame("12345"), "1", 100n);
    await camera.store(frame("123"), "2", 50n);
    await camera.end();
  }
  const all = await viewed.json("/api/streams");
  expect(all.next).toBeNull();
  expect(all.streams.map(({ name }: { name: string }) => name)).toEqual(["a", "b", "c"]);
  expect(all.streams[0].sources.map(({ name }: { name: string }) => name)).toEqual(["x", "y"]);
  const { live, ...source } = all.streams[0].sources[0];
  expect(source).toEqual({
    name: "x",
    frames: 2,
    bytes: 8,
    lost: 0,
    firstCaptured: "50",
    lastCaptured: "100",
  });
  expect(live).toMatchObject({ number: 2, name: "2", gaps: 0 });
  const first = await viewed.json("/api/streams?limit=2");
  expect(first.streams.length).toBe(2);
  const second = await viewed.json(`/api/streams?limit=2&after=${first.next}`);
  expect(second.streams.map(({ name }: { name: string }) => name)).toEqual(["c"]);
  expect(second.next).toBeNull();
  expect(await viewed.json("/api/streams/c")).toMatchObject({ name: "c" });
  expect((await viewed.get("/api/streams/none")).status).toBe(404);
  const server = await viewed.json("/api/server");
  expect(server).toMatchObject({ version, store: { frames: 8, bytes: 32 } });
  expect(server.store.place).toBe(viewed.server.directory);
});

test("the API says of pictures of encoded video whether they are key frames", async () => {
  await using viewed = await startViewed();
  const camera = new Camera(viewed.server, "site", "gate");
  for (const [index, nal] of ["65", "41"].entries()) {
    await camera.store(Uint8Array.fromHex(`00000001${nal}88`), `${index}.h264`);
  }
  const { frames } = await viewed.json("/api/streams/site/frames?source=gate");
  expect(frames.map(({ isKey }: any) => isKey)).toEqual([true, false]);
});

test("the API lists frames in the order of capture, forwards and backwards, with their properties", async () => {
  await using viewed = await startViewed();
  const camera = new Camera(viewed.server, "run7", "x");
  const times = [5n, 3n, 9n, 3n, -7n, 1_700_000_000_000_000_001n];
  for (const [index, time] of times.entries()) {
    await camera.store(frame(`${index}`), `${index + 1}`, time);
  }
  const list = (more: string) => viewed.json(`/api/streams/run7/frames?source=x&${more}`);
  const names = (answer: any): string[] => answer.frames.map(({ name }: any) => name);
  const whole = await list("");
  expect(names(whole)).toEqual(["5", "2", "4", "1", "3", "6"]);
  expect(whole.frames[5]).toMatchObject({
    number: 6,
    size: 1,
    captured: "1700000000000000001",
    key: null,
    metadata: null,
    raw: null,
    isKey: null,
    type: "application/octet-stream",
    url: "/streams/run7/sources/x/frames/6",
  });
  expect(whole.frames[5].crc32).toMatch(/^[0-9a-f]{8}$/);
  let next: string | null = null;
  const forth: string[] = [];
  do {
    const page: any = await list(`limit=2${next === null ? "" : `&after=${next}`}`);
    forth.push(...names(page));
    ({ next } = page);
  } while (next !== null);
  expect(forth).toEqual(names(whole));
  const back: string[] = [];
  for (let cursor = whole.frames[5].cursor; ;) {
    const page: any = await list(`limit=1&before=${cursor}`);
    if (page.frames.length === 0) break;
    back.push(...names(page));
    ({ cursor } = page.frames[0]);
  }
  expect(back).toEqual(names(whole).slice(0, -1).reverse());
  expect(names(await list("number=3"))).toEqual(["3"]);
  for (const wrong of ["after=x", "before=1_2", "limit=0", "limit=-1", "number=x"]) {
    const answer = await viewed.get(`/api/streams/run7/frames?source=x&${wrong}`);
    expect([wrong, answer.status]).toEqual([wrong, 400]);
  }
  expect((await viewed.get("/api/streams/run7/frames")).status).toBe(400);
  await camera.end();
});

test("a frame number of several sessions is looked up in the newest session first", async () => {
  await using viewed = await startViewed();
  for (const name of ["first", "second"]) {
    const camera = new Camera(viewed.server, "run7", "x");
    await camera.store(frame(name), name, 1n);
    await camera.end();
  }
  const { frames } = await viewed.json("/api/streams/run7/frames?source=x&number=1");
  expect(frames.map(({ name }: any) => name)).toEqual(["second", "first"]);
  const path = "/streams/run7/sources/x/numbers/1";
  expect(await (await viewed.get(path)).text()).toBe("second");
  const { session } = frames[1];
  expect(await (await viewed.get(`${path}?session=${session}`)).text()).toBe("first");
});

test("the look-up of a number ends when its client leaves", async () => {
  await using viewed = await startViewed();
  const camera = new Camera(viewed.server, "run7", "x");
  await camera.store(frame("first"), "first", 1n);
  await camera.end();
  let slices = 0;
  let isEnded = false;
  const realRun = WorkQueue.prototype.run;
  // Each slice says that more rows follow, so that the look-up does not end by itself.
  const runs = spyOn(WorkQueue.prototype, "run").mockImplementation(function (
    this: WorkQueue<unknown>,
    owner: unknown,
    slice: () => unknown,
  ) {
    slices++;
    const result = realRun.call(this, owner, () => {
      slice();
      return true;
    });
    result.catch(() => (isEnded = true));
    return result as Promise<never>;
  });
  try {
    const client = new AbortController();
    const path = "/api/streams/run7/frames?source=x&number=1";
    const answer = viewed.get(path, { signal: client.signal }).catch(() => "left");
    await until("some slices", () => slices > 10);
    expect(isEnded).toBe(false);
    client.abort();
    await until("the end of the look-up", () => isEnded);
    expect(await answer).toBe("left");
  } finally {
    runs.mockRestore();
  }
});

test("a request that waits longer for the server's own work than it may take to arrive is answered", async () => {
  const realServe = Bun.serve;
  const serves = spyOn(Bun, "serve").mockImplementation((options) =>
    realServe({ ...options, idleTimeout: 1 } as never),
  );
  await using viewed = await startViewed();
  serves.mockRestore();
  const camera = new Camera(viewed.server, "run7", "x");
  await camera.store(frame("first"), "first", 1n);
  await camera.end();
  // The server ends a request whose body does not arrive. Bun looks for such requests every 4 s.
  const { host, port } = new URL(viewed.base);
  const headers = [`Host: ${host}`, "Content-Type: application/json", "Content-Length: 9"];
  const timeOut = () => rawHttp(Number(port), request("POST /login", headers));
  const realRun = WorkQueue.prototype.run;
  let waiting: Promise<RawAnswer> | undefined;
  const runs = spyOn(WorkQueue.prototype, "run").mockImplementation(async function (
    this: WorkQueue<unknown>,
    owner: unknown,
    slice: () => unknown,
  ) {
    // The second begins when the time of this request would be over as well.
    waiting ??= timeOut().then(timeOut);
    expect([0, 408]).toContain((await waiting).status);
    return (await realRun.call(this, owner, slice)) as never;
  });
  try {
    const { frames } = await viewed.json("/api/streams/run7/frames?source=x&number=1");
    expect(frames.map(({ name }: any) => name)).toEqual(["first"]);
  } finally {
    runs.mockRestore();
  }
});

test("the API finds the frame of each source that is nearest to a moment", async () => {
  await using viewed = await startViewed();
  const [visible, infrared] = ["visible", "infrared"].map(
    (source) => new Camera(viewed.server, "run7", source),
  );
  for (const time of [100n, 200n, 300n]) await visible!.store(frame("v"), `v${time}`, time);
  for (const time of [140n, 260n]) await infrared!.store(frame("i"), `i${time}`, time);
  const at = async (time: number | string, more = "") => {
    const { frames } = await viewed.json(`/api/streams/run7/moment?at=${time}${more}`);
    return frames.map(({ name }: any) => name).toSorted();
  };
  expect(await at(190)).toEqual(["i140", "v200"]);
  expect(await at(210)).toEqual(["i260", "v200"]);
  expect(await at(0)).toEqual(["i140", "v100"]);
  expect(await at("9223372036854775807", "&source=visible")).toEqual(["v300"]);
  expect((await viewed.get("/api/streams/run7/moment?at=now")).status).toBe(400);
  await Promise.all([visible!.end(), infrared!.end()]);
});

describe("gaps", () => {
  test("the API lists the same gaps as frames ls, page by page, and the sums count new ones", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "x", { policy: "latest" });
    // Frames given in one turn of the event loop: only the newest is left when the first is taken.
    await camera.store(frame("1"), "1");
    for (let number = 2; number <= 9; number++) camera.give(frame(`${number}`), `${number}`);
    await camera.arrived();
    await camera.end();
    const other = new Camera(viewed.server, "run7", "y");
    await other.store(frame("y"), "1");
    const told = async () => {
      const found: unknown[] = [];
      for (let next: string | null = ""; next !== null;) {
        const query: string = next === "" ? "" : `&after=${encodeURIComponent(next)}`;
        const page: any = await viewed.json(`/api/streams/run7/gaps?limit=1${query}`);
        found.push(...page.gaps);
        ({ next } = page);
      }
      return found as { source: string; first: number; last: number; reason: string }[];
    };
    const listed = async () => {
      const { stdout } = await run([
        "ls",
        "run7",
        "--gaps",
        "--json",
        "--dir",
        viewed.server.directory,
      ]);
      return stdout
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line))
        .map(({ source, first, last, reason }) => ({ source, first, last, reason }));
    };
    const found = await told();
    expect(found.length).toBeGreaterThan(0);
    expect(found.every(({ source, reason }) => source === "x" && reason === "dropped")).toBe(true);
    expect(
      found.map(({ source, first, last, reason }) => ({ source, first, last, reason })),
    ).toEqual(await listed());
    const { sources } = await viewed.json("/api/streams/run7");
    const dropped = found.reduce((sum, { first, last }) => sum + last - first + 1, 0);
    expect(sources[0].lost).toBe(dropped);
    expect(sources[0].live.gaps).toBe(dropped);
    await other.end();
  });

  test("frames that were already present are no gaps", async () => {
    await using viewed = await startViewed();
    const frames = Array.from({ length: 20 }, (_, index) => ({
      bytes: frame(`${index}`),
      name: `${index}`,
    }));
    const to = { to: viewed.server.address, stream: "run7", source: "x" };
    await send(
      frames.filter((_, index) => index % 2 === 0),
      to,
    );
    await send(frames, { ...to, onConflict: "skip" });
    expect(await viewed.json("/api/streams/run7/gaps")).toEqual({ gaps: [], next: null });
    const { sources } = await viewed.json("/api/streams/run7");
    expect(sources[0]).toMatchObject({ frames: 20, live: { gaps: 0 } });
  });
});

test("the sums of a source follow removed and replaced frames", async () => {
  const server = await serve(temporaryFolder(), {
    listen: "127.0.0.1:0",
    http: "127.0.0.1:0",
    reserve: 0,
    keep: { bytes: 500 },
  });
  try {
    const sums = async () => {
      const answer = (await (await fetch(`http://${server.http}/api/streams`)).json()) as any;
      const { frames, bytes } = answer.streams[0].sources[0];
      return [frames, bytes] as const;
    };
    const frames = Array.from({ length: 20 }, (_, index) => ({
      bytes: new Uint8Array(100).fill(index),
      name: `${index}`,
    }));
    const to = { to: server.address, stream: "run7", source: "x" };
    await send(frames.slice(0, 4), to);
    expect(await sums()).toEqual([4, 400]);
    await send([{ bytes: new Uint8Array(60), name: "3" }], { ...to, onConflict: "replace" });
    expect(await sums()).toEqual([4, 360]);
    await send(frames.slice(4), to);
    await until("the removal of all but 5", async () => (await sums())[0] === 5);
    expect(await sums()).toEqual([5, 500]);
  } finally {
    await server.stop();
  }
});
