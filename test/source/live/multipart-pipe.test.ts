// A pipe of frames with headers becomes live sources, one for each name.

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { LiveSource } from "../../../src/source/live/live-source.ts";
import { MultipartPipe, type RefusedPart } from "../../../src/source/live/multipart-pipe.ts";
import type { QueuePolicy } from "../../../src/source/per-source.ts";
import { until } from "../../helper/time.ts";

/** Runs a pipe, and collects its sources and refusals. */
function open(policy: QueuePolicy = "block", spooled: readonly string[] = []) {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const sources: LiveSource[] = [];
  const refused: RefusedPart[] = [];
  const naming = { started: 0, clock: () => 1.5 };
  const pipe = new MultipartPipe(readable, spooled, {
    maxFrameBytes: 100,
    defaultSource: undefined,
    clock: naming.clock,
    createSource(name, frames) {
      if (name === "..") throw new FramesError("bad-name", "the name is not allowed");
      return new LiveSource(name, frames, { policy, settings: naming, capturesOffline: true });
    },
  });
  const running = pipe.run({
    onSource(source) {
      sources.push(source);
      source.startCapture();
    },
    onRefused: (part) => refused.push(part),
  });
  running.catch(() => {});
  const write = (text: string) => writer.write(Buffer.from(text));
  const part = (source: string, body: string) =>
    write(`--frame\nX-Source: ${source}\nContent-Length: ${body.length}\n\n${body}\n`);
  return { pipe, running, sources, refused, write, part, end: () => writer.close() };
}

async function drain(source: LiveSource): Promise<string[]> {
  source.onConnected();
  const items: string[] = [];
  for (;;) {
    const item: Frame | Loss | undefined = await source.next();
    if (item === undefined) return items;
    if ("error" in item) items.push(`${item.first}-${item.last} ${item.error.code}`);
    else {
      const bytes = new Uint8Array(item.size);
      item.read(bytes);
      items.push(`${item.sequence} ${item.captured} ${Buffer.from(bytes)}`);
    }
  }
}

describe("MultipartPipe", () => {
  test("frames reach the source of their name, numbered in each source", async () => {
    const { running, sources, part, end } = open({ latest: 10 });
    for (const [source, body] of [
      ["a", "1"],
      ["b", "2"],
      ["a", "3"],
    ] as const) {
      void part(source, body);
    }
    void end();
    await running;
    expect(sources.map(({ name }) => name)).toEqual(["a", "b"]);
    expect(await drain(sources[0]!)).toEqual(["1 1500000 1", "2 1500000 3"]);
    expect(await drain(sources[1]!)).toEqual(["1 1500000 2"]);
  });

  test("the policy latest reads on while there is no connection, and counts what it drops", async () => {
    const { running, sources, part, end } = open({ latest: 1 });
    for (const body of ["1", "2", "3"]) void part("a", body);
    void end();
    await running;
    expect(await drain(sources[0]!)).toEqual(["1-2 dropped", "3 1500000 3"]);
  });

  test("the policy block stops reading while the queue is full", async () => {
    const { running, sources, part, end } = open("block");
    for (const body of ["1", "2", "3", "4"]) void part("a", body);
    void end();
    await until("the first source", () => sources.length === 1);
    expect(sources[0]!.capturedCount).toBeLessThan(3);
    expect(await drain(sources[0]!)).toHaveLength(4);
    await running;
  });

  test("a frame without a valid source is refused, and the rest goes on", async () => {
    const { running, sources, refused, write, part, end } = open({ latest: 10 });
    void part("..", "1");
    void write("--frame\nX-Name: one\nContent-Length: 1\n\n2\n");
    void part("a", "3");
    void end();
    await running;
    expect(refused.map(({ source, what, error }) => [source, what, error.message])).toEqual([
      ["..", "a frame", "the name is not allowed"],
      ["", "one", "it names no source: add X-Source, or --source NAME"],
    ]);
    expect(await drain(sources[0]!)).toEqual(["1 1500000 3"]);
  });

  test("a damaged pipe ends its sources after the frames before the damage", async () => {
    const { running, sources, write, part } = open({ latest: 10 });
    void part("a", "1");
    void write("nonsense\n");
    expect(running).rejects.toMatchObject({ code: "damaged" });
    await running.catch(() => {});
    expect(await drain(sources[0]!)).toEqual(["1 1500000 1"]);
  });

  test("stop ends it while it waits for bytes, and nothing is taken afterwards", async () => {
    const { pipe, running, sources, part } = open();
    await part("a", "1");
    await until("the source", () => sources.length === 1);
    pipe.stop();
    await running;
    expect(sources.map(({ name }) => name)).toEqual(["a"]);
  });

  test("sources with frames in the spool exist from the start", () => {
    const { pipe } = open("block", ["b", "c"]);
    expect(pipe.spooled.map(({ name }) => name)).toEqual(["b", "c"]);
  });
});
