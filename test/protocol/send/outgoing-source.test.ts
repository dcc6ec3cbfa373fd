// What a source gives when it is asked for its next frame.

import { expect, test } from "bun:test";
import type { Frame, FrameSource, Loss } from "../../../src/frame.ts";
import { OutgoingSource } from "../../../src/protocol/send/outgoing-source.ts";
import { lossOf, MemoryFrame, MemorySource } from "../memory.ts";

/** A connected source whose items come when the test says so, and how often it was ready. */
function connected(...items: (Frame | Loss | Promise<Frame | Loss | undefined>)[]) {
  const source = new OutgoingSource(1, new MemorySource("a", items));
  const calls = { ready: 0 };
  source.connect(() => calls.ready++);
  return { source, calls };
}

const turn = () => new Promise(setImmediate);

test("a source gives its frames and losses in order, and then its end", () => {
  const frames = [new MemoryFrame(1, 10), lossOf(2), new MemoryFrame(3, 10)];
  const { source, calls } = connected(...frames);
  expect([1, 2, 3, 4, 5].map(() => source.next(10, false))).toEqual([...frames, "end", "end"]);
  expect([source.isExhausted, calls.ready]).toEqual([true, 0]);
});

test("a source gives a loss in place of a frame that is too large for the server", () => {
  const { source } = connected(new MemoryFrame(1, 11), new MemoryFrame(2, 10));
  expect(source.next(10, false)).toMatchObject({ first: 1, last: 1, error: { code: "too-large" } });
  expect(source.next(10, false)).toMatchObject({ sequence: 2 });
});

test("a source that is asked for an item that comes later is asked once, and says when it has come", async () => {
  const { promise, resolve } = Promise.withResolvers<Frame>();
  const frame = new MemoryFrame(1, 10);
  const { source, calls } = connected(promise);
  expect([source.next(10, false), source.next(10, false)]).toEqual(["pending", "pending"]);
  expect((source.input as MemorySource).taken).toBe(1);
  resolve(frame);
  await turn();
  expect([calls.ready, source.isExhausted]).toEqual([1, false]);
  expect([source.next(10, false), source.next(10, false)]).toEqual([frame, "end"]);
});

test("a source that fails says so and is at its end", async () => {
  const error = new Error("the camera is gone");
  const { source, calls } = connected(Promise.reject(error));
  expect(source.next(10, false)).toBe("pending");
  await turn();
  expect([calls.ready, source.failure, source.next(10, false)]).toEqual([1, { error }, "end"]);
});

for (const when of ["before", "after"]) {
  test(`an item that has come ${when} the connection broke is kept for the next one`, async () => {
    const later = [Promise.withResolvers<Frame>(), Promise.withResolvers<Loss>()] as const;
    const { source } = connected(...later.map(({ promise }) => promise));
    for (const [index, item] of [new MemoryFrame(1, 10), lossOf(2)].entries()) {
      source.next(10, false);
      if (when === "after") source.disconnect();
      later[index]!.resolve(item as Frame & Loss);
      await turn();
      source.disconnect();
      source.connect(() => {});
    }
    expect(source.candidates).toMatchObject([{ frame: { sequence: 1 }, wasSent: false }]);
    expect(source.unreportedLosses).toMatchObject([{ first: 2 }]);
    expect(source.next(10, false)).toBe("end");
  });
}

for (const when of ["before", "after"]) {
  test(`a source takes back an item that has come ${when} the connection broke`, async () => {
    const late = new MemoryFrame(2, 10);
    const { promise, resolve } = Promise.withResolvers<Frame>();
    const takenBack = new Set<Frame>();
    const input = Object.assign(new MemorySource("a", [new MemoryFrame(1, 10), promise]), {
      onDisconnected(frames: readonly Frame[]) {
        for (const frame of frames) takenBack.add(frame);
        return [];
      },
    });
    const source = new OutgoingSource(1, input);
    source.connect(() => {});
    source.requeue(source.next(10, false) as Frame, undefined, true);
    source.next(10, false);
    if (when === "after") source.disconnect();
    resolve(late);
    await turn();
    if (when === "before") source.disconnect();
    expect([...takenBack].map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect(source.candidates).toEqual([]);
  });
}

for (const when of ["before", "after"]) {
  test(`a source drops what comes ${when} it is stopped, because the next delivery sends it`, async () => {
    const { promise, resolve } = Promise.withResolvers<Frame>();
    const source = new OutgoingSource(1, new MemorySource("a", [promise], { resumes: true }));
    source.connect(() => {});
    source.next(10, true);
    if (when === "after") source.stop();
    resolve(new MemoryFrame(1, 10));
    await turn();
    source.stop();
    expect([source.next(10, true), source.isExhausted]).toEqual(["end", true]);
  });
}

test("a source that takes frames back is told that one is too large, under its own number", () => {
  const frame = new MemoryFrame(5, 11);
  const input: FrameSource = new MemorySource("a", [frame, new MemoryFrame(6, 10)]);
  const told: string[] = [];
  Object.assign(input, { onDisconnected: () => [] });
  input.retry = ({ sequence, name: what }, error) => {
    told.push(`${sequence} ${error.code}`);
    return { first: sequence, last: sequence, what, error };
  };
  const source = new OutgoingSource(1, input);
  source.beginSession();
  expect(source.next(10, false)).toMatchObject({ first: 1, error: { code: "too-large" } });
  expect(source.next(10, false)).toMatchObject({ sequence: 2 });
  expect(told).toEqual(["5 too-large"]);
});
