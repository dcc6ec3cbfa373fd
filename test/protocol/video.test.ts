// Key frames of encoded video between a sender and a receiver: the bytes decide, whatever the peer
// says, and a peer without the feature is sent no flag that it does not know.

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import type { SourceDeclaration } from "../../src/wire/messages.ts";
import { maxHeadBytes } from "../../src/video/picture-head.ts";
import { type } from "../wire/vectors.ts";
import { everyByte, grants, MemoryFrame, MemorySource, MemoryStore } from "./memory.ts";
import { Client, deliver, of } from "./peers.ts";

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");

/** Access units of H.264 and H.265: a key frame with its parameter sets, and another picture. */
const key = hex("00000001 6742c01e 000001 68ce 000001 6588 1122");
const delta = hex("00000001 419a 1122");
const key265 = hex("00000001 4001 0c 000001 2601 af11");
const h264 = { type: "video/h264" };

/** Returns the frames that a server stores, each as its name and whether it is a key frame. */
function storedOf(client: Client): string[] {
  return client.store.frames.map(({ description: { name, isKey } }) => `${name} ${isKey}`);
}

function greeted(features: string[] = ["video"], store = new MemoryStore()): Client {
  const client = new Client(grants, store);
  client.greet({ features });
  return client;
}

describe("a receiver of encoded video", () => {
  test("the bytes decide which frames are key frames, whatever the flag says", () => {
    const client = greeted();
    const said = client.says(
      client.source(1, "a", h264),
      client.frame(1, { sequence: 1, name: "1.h264", payload: key, isKey: true }),
      client.frame(1, { sequence: 2, name: "2.h264", payload: delta }),
      client.frame(1, { sequence: 3, name: "3.h264", payload: key }),
      client.frame(1, { sequence: 4, name: "4.h264", payload: delta, isKey: true }),
      client.frame(1, { sequence: 5, name: "5.h264", payload: key265, isKey: true }),
    );
    expect(said).toBeUndefined();
    const expected = ["1.h264 true", "2.h264 false", "3.h264 true", "4.h264 false", "5.h264 false"];
    expect(storedOf(client)).toEqual(expected);
  });

  test("the flag is fatal from a sender that does not list the feature", () => {
    const client = greeted(["offer"]);
    const frame = client.frame(1, { name: "1.h264", payload: key, isKey: true });
    expect(client.says(client.source(1, "a", h264), frame)).toBe("protocol");
    expect(client.store.begun).toEqual([]);
  });

  const declarations: [string, Partial<SourceDeclaration>, string, boolean | undefined][] = [
    ["of type video/h265", { type: "video/h265" }, "1.h265", true],
    ["without a type, by the ending of the name,", {}, "1.h265", true],
    ["of another type", { type: "image/png" }, "1.h265", undefined],
    ["without a type and with another ending", {}, "1.png", undefined],
  ];
  for (const [what, declaration, name, expected] of declarations) {
    test(`the frame of a source ${what} has isKey ${expected}, without the feature`, () => {
      const client = greeted([]);
      const frame = client.frame(1, { name, payload: key265 });
      expect(client.says(client.source(1, "a", declaration), frame)).toBeUndefined();
      expect(storedOf(client)).toEqual([`${name} ${expected}`]);
    });
  }

  test("a picture is the same in pieces of one byte, and its bytes are whole", () => {
    const client = greeted();
    const [first, rest] = [key.subarray(0, 6), key.subarray(6)];
    const bytes = Buffer.concat([
      client.source(1, "a", h264),
      client.frame(1, {
        name: "1.h264",
        payload: first,
        size: key.length,
        more: true,
        isKey: true,
      }),
      client.data(1, first, rest, false),
      client.frame(1, { sequence: 2, name: "2.h264", payload: delta }),
    ]);
    for (const chunk of everyByte(bytes)) expect(client.says(chunk)).toBeUndefined();
    expect(storedOf(client)).toEqual(["1.h264 true", "2.h264 false"]);
    expect(Buffer.from(client.store.frames[0]!.bytes)).toEqual(key);
    expect(client.receiver.bufferedBytes).toBeLessThan(1000);
  });

  test("an empty frame, and one whose first slice comes late, are no key frames", () => {
    const client = greeted();
    const late = Buffer.concat([hex("000001 06"), Buffer.alloc(maxHeadBytes, 0xff), key]);
    client.says(
      client.source(1, "a", h264),
      client.frame(1, { sequence: 1, name: "1.h264" }),
      client.frame(1, { sequence: 2, name: "2.h264", payload: late }),
      client.frame(1, { sequence: 3, name: "3.h264", payload: hex("000001 67 42") }),
    );
    expect(storedOf(client)).toEqual(["1.h264 false", "2.h264 false", "3.h264 false"]);
    expect(Buffer.from(client.store.frames[1]!.bytes)).toEqual(late);
  });

  test("a receiver keeps a bounded part of a picture that does not tell, and drops it with ABORT", () => {
    const client = greeted();
    const before = client.receiver.bufferedBytes;
    const sent = Buffer.alloc(1000);
    client.says(client.source(1, "a", h264));
    client.says(client.frame(1, { name: "1.h264", payload: sent, size: 1e6, more: true }));
    expect(client.receiver.bufferedBytes - before).toBe(sent.length);
    expect(client.store.begun).toEqual([]);
    client.says(client.json(type.ABORT, 1, { sequence: 1, error: 49, message: "changed" }));
    expect(client.receiver.bufferedBytes).toBe(before);
    expect([client.receiver.counts.aborted, client.store.writers]).toEqual([1, 0]);

    client.says(client.frame(1, { name: "1.h264", payload: sent, size: 1e6, more: true }));
    client.says(client.data(1, sent, Buffer.alloc(maxHeadBytes), true));
    expect(client.receiver.bufferedBytes).toBe(before);
    expect(client.store.begun).toEqual(["1.h264"]);
    client.receiver.close();
    expect(client.store.writers).toBe(0);
  });

  test("a picture that the store refuses is refused once, and the next one is stored", () => {
    const store = new MemoryStore({
      refuse: ({ name }) => (name === "1.h264" ? new FramesError("conflict") : undefined),
    });
    const client = greeted(["video"], store);
    client.says(
      client.source(1, "a", h264),
      client.frame(1, { sequence: 1, name: "1.h264", payload: key }),
      client.frame(1, { sequence: 2, name: "2.h264", payload: delta }),
    );
    expect(client.heard().map((heard) => heard.type)).toEqual([type.REFUSED]);
    expect(storedOf(client)).toEqual(["2.h264 false"]);
    expect(client.receiver.counts).toMatchObject({ stored: 1, refused: 1 });
  });
});

describe("a sender of encoded video", () => {
  /** A frame of zeros is no key frame, whatever its sender says. */
  const isKeys = [true, false, false, undefined];

  /** Returns the flags of the FRAMEs that are sent to a server with these features. */
  async function flagsFor(features: string[]): Promise<number[]> {
    const source = new MemorySource("a", [
      new MemoryFrame(1, key, { name: "1.h264", isKey: true }),
      new MemoryFrame(2, delta, { name: "2.h264", isKey: false }),
      new MemoryFrame(3, new Uint8Array(3 << 20), { name: "3.h264", isKey: true }),
      new MemoryFrame(4, delta, { name: "4.png" }),
    ]);
    const onHello = () => ({ fresh: true, features });
    const link = await deliver({ sources: [source], onHello });
    expect(link.store.frames.map(({ description }) => description.isKey)).toEqual(isKeys);
    return of(link.said, type.FRAME).map(({ message }) => message.flags);
  }

  test("key frames have the flag KEY where the server lists the feature", async () => {
    expect(await flagsFor(["video"])).toEqual([2, 0, 3, 0]);
  });

  test("a server of an earlier version is sent no flag that it does not know", async () => {
    expect(await flagsFor(["offer"])).toEqual([0, 0, 1, 0]);
  });
});
