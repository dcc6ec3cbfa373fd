// What a server shows on its page as a problem, and what it does not.

import { expect, spyOn, test } from "bun:test";
import { errors } from "../../src/errors.ts";
import { DirectoryStore } from "../../src/store/directory/directory-store.ts";
import { converse, end, frame, json, source } from "../helper/hostile.ts";
import { until } from "../helper/time.ts";
import { Camera, startViewed, type Viewed } from "../helper/viewing.ts";
import { type } from "../wire/vectors.ts";

const target = ({ server }: Viewed) => ({ port: Number(server.address.split(":").at(-1)) });

const problems = async (viewed: Viewed) =>
  (await viewed.json<{ problems: { message: string }[] }>("/api/problems")).problems.map(
    ({ message }) => message.replace(/^\S+ /, ""),
  );

/** Returns an ERROR of a client. */
const leaving = (name: "interrupted" | "timeout") =>
  json(type.ERROR, { error: errors[name].wireCode, message: name });

test("a client that was interrupted is no problem, and one that had another error is", async () => {
  await using viewed = await startViewed();
  using interrupted = await converse(target(viewed), {}, leaving("interrupted"));
  await interrupted.closed();
  using failed = await converse(target(viewed), {}, leaving("timeout"));
  await failed.closed();
  expect(await problems(viewed)).toEqual(["The sender says: timeout"]);
});

test("a sender that ends early is no problem once it has said that it stops, or END", async () => {
  const events: string[] = [];
  await using viewed = await startViewed({
    onEvent: (event) => void events.push(event.type === "failed" ? event.error.code : event.type),
  });
  const mayFlush = Promise.withResolvers<void>();
  using _ = spyOn(DirectoryStore.prototype, "flush").mockImplementation(() => mayFlush.promise);
  const frames = [source("a"), frame()];
  for (const [messages, code] of [
    [[...frames, json(type.PING, { time: "0", stopping: true })], "interrupted"],
    [[...frames, end(1)], "interrupted"],
    [frames, "network"],
  ] as const) {
    events.length = 0;
    using peer = await converse(target(viewed), {}, ...messages);
    await until("its messages", () => events.includes("session"));
    peer.reset();
    await until("its end", () => events.length > 1);
    expect(events).toEqual(["session", code]);
  }
  mayFlush.resolve();
  expect(await problems(viewed)).toHaveLength(1);
});

test("a sender that its user stops tells the server so", async () => {
  await using viewed = await startViewed();
  const lines: string[] = [];
  const stop = new AbortController();
  const camera = new Camera(viewed.server, "yard", "camera", {
    signal: stop.signal,
    onMessage: (_, line) => void lines.push(line),
  });
  await camera.store(new Uint8Array(9), "1.bin");
  stop.abort();
  await until("its word", () => lines.some((line) => /^PING .*"stopping":true/.test(line)));
  await camera.end();
  expect(await problems(viewed)).toEqual([]);
});
