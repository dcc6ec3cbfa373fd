// Sessions after their key was exchanged, and another key that names them: servers and senders in
// this process.
//
// Covers: client/send-session.ts, protocol/send/renumbering.ts

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { send } from "../../src/client/send.ts";
import type { SendEvent } from "../../src/client/send-event.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { serve } from "../../src/server/serve.ts";
import { Spool } from "../../src/source/live/spool.ts";
import { readGaps } from "../../src/store/journal/gaps.ts";
import { journal } from "../helper/delivery.ts";
import { end, frame, hello, json, Peer, preface, source } from "../helper/hostile.ts";
import { temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

function keyOf(name: string): KeyEntry {
  return { name, key: generateKey(), role: "both", streams: "*" };
}

function writeKeys(path: string, ...keys: KeyEntry[]): string {
  writeFileSync(path, keys.map(formatKey).join(""), { mode: 0o600 });
  return path;
}

interface StoredRow {
  readonly name: string;
  readonly session: string;
  readonly seq: number;
}

const stored = (directory: string) =>
  journal<StoredRow>(directory, "SELECT name, session, seq FROM frames ORDER BY name");

/** Frames that a test hands to a sender one after the other. */
class Camera {
  #shots: string[] = [];
  #wake = () => {};
  #isOver = false;

  shoot(...names: string[]): void {
    this.#shots.push(...names);
    this.#wake();
  }

  finish(): void {
    this.#isOver = true;
    this.#wake();
  }

  async *frames(): AsyncGenerator<{ name: string; bytes: Uint8Array }> {
    for (;;) {
      const name = this.#shots.shift();
      if (name !== undefined) yield { name, bytes: Buffer.from(`picture ${name}`) };
      else if (this.#isOver) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

/**
 * Leaves frames in a spool whose session has begun at a store with a key of the name `cam`. A busy
 * machine may need seconds for the first connection, so the sender gives up after more than that.
 */
async function spoolWithRest(folder: string): Promise<{ store: string; spool: string }> {
  const [store, spool] = [join(folder, "store"), join(folder, "spool")];
  const keyFile = writeKeys(join(folder, "keys"), keyOf("cam"));
  const server = await serve(store, { listen: "127.0.0.1:0", keyFile });
  const camera = new Camera();
  const sending = send(camera.frames(), {
    ...{ to: server.address, keyFile, stream: "s", source: "a", spool, giveUpAfter: 5_000 },
  });
  const failure = sending.catch((error: unknown) => error);
  camera.shoot("1", "2", "3");
  await until("the first frames", () => stored(store).length === 3);
  await server.stop();
  camera.shoot("4", "5", "6");
  expect(await failure).toMatchObject({ code: "given-up" });
  return { store, spool };
}

/** Expects that the rest of a spool is stored under sessions without gaps. */
function expectRest(store: string): void {
  const rows = stored(store);
  expect(rows.map(({ name }) => name)).toEqual(["1", "2", "3", "4", "5", "6"]);
  expect(new Set(rows.map(({ session }) => session)).size).toBe(2);
  expect(rows.map(({ seq }) => seq)).toEqual([1, 2, 3, 1, 2, 3]);
  expect([...readGaps(store, "s")]).toEqual([]);
}

test("a spool whose key was exchanged goes on under a new session, and says so", async () => {
  const folder = temporaryFolder();
  const { store, spool } = await spoolWithRest(folder);
  // The same name, but another key.
  const keyFile = writeKeys(join(folder, "keys"), keyOf("cam"));
  const server = await serve(store, { listen: "127.0.0.1:0", keyFile });
  const events: SendEvent[] = [];
  const summary = await send([], {
    ...{ to: server.address, keyFile, stream: "s", source: "a", spool },
    onEvent: (event) => void events.push(event),
  });
  await server.stop();
  expect(summary).toMatchObject({ frames: 3, refused: 0, lost: 0 });
  const reasons = events.flatMap((event) => (event.type === "waiting" ? [event.reason] : []));
  expect(reasons.map(({ code, message }) => [code, message])).toEqual([
    ["stolen-session", expect.stringContaining("a new session sends what is not confirmed yet")],
  ]);
  expectRest(store);
});

test("a spool whose session another key began is continued by the next process under its own session", async () => {
  const folder = temporaryFolder();
  const { store, spool } = await spoolWithRest(folder);
  const session = { id: "d".repeat(32), started: 0 };
  // A process that was stopped after the server had refused the session.
  const refused = new Spool({ directory: spool, stream: "s", session, maxBytes: 1 << 20 });
  expect(refused.isSessionEnded).toBe(false);
  refused.endSession();
  refused.close();
  const keyFile = writeKeys(join(folder, "keys"), keyOf("cam"));
  const server = await serve(store, { listen: "127.0.0.1:0", keyFile });
  const reasons: string[] = [];
  const summary = await send([], {
    ...{ to: server.address, keyFile, stream: "s", source: "a", spool },
    onEvent: (event) => void (event.type === "waiting" && reasons.push(event.reason.code)),
  });
  await server.stop();
  expect([summary.frames, reasons]).toEqual([3, []]);
  expectRest(store);
  // The empty spool begins anew.
  const next = new Spool({ directory: spool, stream: "s", session, maxBytes: 1 << 20 });
  expect([next.session.id, next.isSessionEnded]).toEqual([session.id, false]);
  next.close();
});

test("a sender whose key is exchanged while it sends goes on under a new session", async () => {
  const folder = temporaryFolder();
  const [old, young] = [keyOf("cam"), keyOf("young")];
  const store = join(folder, "store");
  const serverKeys = writeKeys(join(folder, "keys"), old);
  const keyFile = writeKeys(join(folder, "both"), old, young);
  const server = await serve(store, { listen: "127.0.0.1:0", keyFile: serverKeys });
  const camera = new Camera();
  const codes: string[] = [];
  const sending = send(camera.frames(), {
    ...{ to: server.address, keyFile, stream: "s", source: "a", policy: "block" },
    onEvent: (event) => void (event.type === "waiting" && codes.push(event.reason.code)),
  });
  camera.shoot("1", "2", "3");
  await until("the first frames", () => stored(store).length === 3);
  writeKeys(serverKeys, young);
  server.reload();
  await until("the new session", () => codes.includes("stolen-session"));
  camera.shoot("4", "5", "6");
  camera.finish();
  const summary = await sending;
  await server.stop();
  expect(summary).toMatchObject({ frames: 6, refused: 0, lost: 0 });
  expectRest(store);
  const keys = journal<{ key: string }>(store, "SELECT key FROM frames ORDER BY name");
  expect(keys.map(({ key }) => key)).toEqual(["cam", "cam", "cam", "young", "young", "young"]);
});

test("another key that names an ended session changes neither its frames nor its gaps", async () => {
  const folder = temporaryFolder();
  const [owner, other] = [keyOf("owner"), keyOf("other")];
  const keyFile = writeKeys(join(folder, "keys"), owner, other);
  const store = join(folder, "store");
  const session = "a".repeat(32);
  const converse = async (port: number, key: KeyEntry, ...follows: Buffer[]): Promise<string> => {
    using peer = await Peer.connect({ port, key });
    const fields = { session, revises: true, conflict: "replace", again: true };
    const greeting = peer.greeting(Buffer.concat([preface, hello({ port, key }, fields)]));
    peer.write(Buffer.concat([greeting, source("a"), ...follows]));
    await peer.closed();
    return peer.outcome;
  };
  const rows = () => [
    journal(store, "SELECT name, crc32, seq FROM frames"),
    journal(store, "SELECT first, last FROM losses"),
    journal(store, "SELECT first, last FROM accounted"),
  ];
  const lost = (first: number) => json(type.LOST, { ranges: [[first, first]], error: 51 }, 1);
  const forgeries = [
    frame({ sequence: 9, payload: "forged" }),
    lost(7),
    json(type.OFFER, { frames: [["1.png", 5, "0", 3]] }, 1),
    json(type.ABORT, { sequence: 1 }, 1),
    end(0),
  ];
  // Also after a restart of the server.
  for (const isFirst of [true, false]) {
    const server = await serve(store, { listen: "127.0.0.1:0", keyFile });
    if (isFirst) {
      expect(await converse(server.port, owner, frame(), lost(3), end(1))).toBe("done");
    }
    const before = rows();
    for (const forged of forgeries) {
      expect(await converse(server.port, other, forged)).toBe("stolen-session");
    }
    expect(rows()).toEqual(before);
    await server.stop();
  }
});
