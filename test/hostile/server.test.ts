// Hostile servers: `frames send` must end with one line that explains why, count nothing as
// delivered without confirmation, remove nothing in that case, and limit its memory.
//
// Covers: client/connection-errors.ts

import { expect, test } from "bun:test";

import { type ErrorName, errors, FramesError } from "../../src/errors.ts";
import {
  answers,
  type Case,
  expectEnd,
  grants,
  knows,
  says,
  table,
} from "../helper/hostile-case.ts";
import {
  binary,
  done,
  error,
  escapes,
  header,
  json,
  limits,
  long,
  names,
  preface,
  receipt,
  refused,
  sendTo,
  three,
  welcome,
  window,
} from "../helper/scripted-server.ts";
import { type } from "../wire/vectors.ts";

/** Longer than a slow machine needs for one connection. */
const patient = ["--give-up-after", "4"];

/** Rows whose memory or whole output counts, and one of each kind: these run the executable. */
const ofProcess = new Set([
  "no window",
  "a body of 2^32-1 bytes",
  "a body of 65,537 bytes",
  "an unknown message of 1,048,577 bytes",
  "RECEIPT of more than was sent",
  "a DATA",
  "internal",
  "no-key",
]);

table("frames send ends at once when a server answers HELLO with", [
  ...Object.entries({
    "a WELCOME that grants a window of 0 bytes": welcome({ window: { bytes: 0, frames: 9 } }),
    "a WELCOME that grants a window of 0 frames": welcome({ window: { bytes: 9, frames: 0 } }),
    "a window of 2^53 bytes": welcome({ window: { bytes: 2 ** 53, frames: 9 } }),
    "a negative window": welcome({ window: { bytes: -1, frames: 9 } }),
    "a window that is text": welcome({ window: { bytes: "many", frames: 9 } }),
    "no window": welcome({ window: undefined }),
    "a window that is no object": welcome({ window: [9, 9] }),
    "a limit of 0 bytes": welcome({ limits: { ...limits, frame: 0 } }),
    "a limit of 0 sources": welcome({ limits: { ...limits, sources: 0 } }),
    "a limit of 0 unfinished frames": welcome({ limits: { ...limits, unfinished: 0 } }),
    "a limit of half a source": welcome({ limits: { ...limits, sources: 0.5 } }),
    "an infinite limit": Buffer.concat([
      preface,
      binary(type.WELCOME, JSON.stringify({ window, limits }).replace("1000", "1e999")),
    ]),
    "features that are no list": welcome({ features: "offer" }),
    "a window in its prototype": Buffer.concat([
      preface,
      binary(
        type.WELCOME,
        JSON.stringify({ limits, proto: { window } }).replace("proto", "__proto__"),
      ),
    ]),
    "a WELCOME without a body": Buffer.concat([preface, header(type.WELCOME, 0)]),
    "a body of 2^32-1 bytes": Buffer.concat([preface, header(type.WELCOME, 0xffffffff)]),
    "a body of 65,537 bytes": Buffer.concat([preface, header(type.WELCOME, 65_537)]),
    "a body that is no object": Buffer.concat([preface, binary(type.WELCOME, "[1,2]")]),
    "a body that is not UTF-8": Buffer.concat([
      preface,
      binary(type.WELCOME, Buffer.from([0xc0, 0xaf])),
    ]),
    "a WELCOME with a source id": Buffer.concat([
      preface,
      json(type.WELCOME, { window, limits }, 1),
    ]),
    "the preface twice": Buffer.concat([preface, welcome()]),
    DONE: Buffer.concat([preface, done(0)]),
    RECEIPT: Buffer.concat([preface, receipt(0)]),
    PING: Buffer.concat([preface, json(type.PING, { time: "0" })]),
    REFUSED: Buffer.concat([preface, refused(1)]),
    ANSWER: Buffer.concat([preface, json(type.ANSWER, { answers: "sss" }, 1)]),
    "a PROOF without a key": Buffer.concat([preface, binary(type.PROOF, Buffer.alloc(32))]),
    "a message of unknown type": Buffer.concat([preface, binary(99)]),
  }).map(([what, bytes]): Case => ({
    what,
    script: says(bytes),
    error: "protocol",
    connections: 1,
    isProcess: ofProcess.has(what),
  })),
  {
    what: "WELCOME before the preface",
    script: says(welcome().subarray(preface.length)),
    ...{ error: "foreign", says: /expected FRAMES\/1/, connections: 1 },
  },
  {
    what: "a limit of fewer sources than are sent",
    script: says(welcome({ limits: { ...limits, sources: 1 } })),
    files: { "a/1.png": 10, "b/1.png": 10 },
    ...{ error: "limit", says: /2 sources.*accepts 1/, connections: 1 },
  },
  {
    what: "a WELCOME without the feature replace",
    script: says(welcome({ features: [] })),
    args: ["--on-conflict", "replace"],
    ...{ error: "usage", connections: 1 },
  },
]);

test.concurrent(
  "frames send --move removes nothing when the server does not promise durable",
  async () => {
    for (const durable of [false, undefined]) {
      const row: Case = { what: "", script: grants({ durable }), error: "usage", connections: 1 };
      const outcome = await sendTo(row.script, { args: ["--move"] });
      expectEnd(outcome, row);
      expect(outcome.left).toEqual(Object.keys(three));
    }
  },
);

table("frames send ends after three tries when a server sends", [
  ...Object.entries({
    "WELCOME again": welcome().subarray(preface.length),
    "RECEIPT of more than was sent": receipt(4),
    "RECEIPT of 2^53 frames": receipt(2 ** 53),
    "RECEIPT of 2^64-1 frames": receipt(2n ** 64n - 1n),
    "RECEIPT of 7 bytes": binary(type.RECEIPT, Buffer.alloc(7)),
    "RECEIPT of 9 bytes": binary(type.RECEIPT, Buffer.alloc(9)),
    "RECEIPT with a source id": binary(type.RECEIPT, Buffer.alloc(8), { source: 1 }),
    "RECEIPT with the flag MORE": binary(type.RECEIPT, Buffer.alloc(8), { flags: 1 }),
    "a flag that does not exist": binary(type.RECEIPT, Buffer.alloc(8), { flags: 0x40 }),
    "DONE that counts less": done(2),
    "DONE that counts more": done(4),
    "DONE that does not add up": done(3, { stored: 2 }),
    "DONE that adds up by going below zero": done(3, { stored: 4, refused: -1 }),
    "DONE of refused frames without REFUSED": done(3, { stored: 0, refused: 3 }),
    "DONE of frames that were never aborted": done(3, { stored: 0, aborted: 3 }),
    "DONE without counts": json(type.DONE, { frames: 3 }),
    "REFUSED of a number that was never sent": refused(99),
    "REFUSED of number 0": refused(0),
    "REFUSED of an unknown source": refused(1, 36, "", 2),
    "REFUSED of the highest source id": refused(1, 36, "", 65_535),
    "REFUSED of no source": refused(1, 36, "", 0),
    "ANSWER to no OFFER": json(type.ANSWER, { answers: "sss" }, 1),
    HELLO: json(type.HELLO, { role: "send", session: "a1".repeat(16), stream: "s" }),
    SOURCE: json(type.SOURCE, { name: "a" }, 1),
    "a FRAME": header(type.FRAME, 100, 1),
    "a DATA": header(type.DATA, 100, 1),
    ABORT: json(type.ABORT, { sequence: 1 }, 1),
    LOST: json(type.LOST, { ranges: [[1, 3]], error: 48 }, 1),
    OFFER: json(type.OFFER, { frames: [] }, 1),
    END: json(type.END, { frames: 0 }),
    GONE: json(type.GONE, { sequence: 1, name: "a" }, 1),
    CURSOR: json(type.CURSOR, { cursor: "1" }),
    "a late PROOF": binary(type.PROOF, Buffer.alloc(32)),
    "an unknown message of 1,048,577 bytes": header(200, 1_048_577),
    "a message of type 0": binary(0),
    "half a RECEIPT and then a whole one": Buffer.concat([receipt(3).subarray(0, 15), receipt(3)]),
  }).map(([what, bytes]): Case => {
    // Bytes that are misread as another message cannot have the right CRC-32.
    const isCut = what.startsWith("half");
    return {
      what,
      script: answers(bytes),
      error: isCut ? "damaged" : "protocol",
      connections: 3,
      isProcess: ofProcess.has(what),
    };
  }),
  ...Object.entries({
    "a RECEIPT of an unsent frame": receipt(1),
    DONE: done(0),
    "RECEIPT and DONE": Buffer.concat([receipt(3), done(3)]),
  }).map(([what, bytes]): Case => {
    const script = says(welcome(), bytes);
    return { what: `${what} right after WELCOME`, script, error: "protocol", connections: 3 };
  }),
  {
    what: "DONE before END",
    async script(peer) {
      peer.say(welcome({ window: { bytes: 1 << 20, frames: 1 } }));
      await peer.hears(type.FRAME);
      peer.say(done(1));
    },
    ...{ error: "protocol", says: /DONE/, connections: 3 },
  },
  ...Object.entries({
    "too short an ANSWER": knows((frames) => "w".repeat(frames - 1)),
    "too long an ANSWER": knows((frames) => "w".repeat(frames + 1)),
    "an ANSWER of unknown letters": knows((frames) => "z".repeat(frames)),
    "an ANSWER for another source": knows((frames) => "w".repeat(frames), 2),
    "an ANSWER that asks again for a known CRC-32": knows((frames) => "c".repeat(frames)),
  }).map(([what, script]): Case => ({ what, script, error: "protocol", connections: 3 })),
]);

table("frames send reports the confirmed frames when the server then", [
  {
    what: "sends a RECEIPT of fewer frames",
    script: answers(receipt(2), receipt(1)),
    ...{ error: "protocol", confirmed: 2, connections: 3 },
  },
  {
    what: "refuses a confirmed frame",
    script: answers(receipt(2), refused(1)),
    ...{ error: "protocol", confirmed: 2, connections: 3 },
  },
  {
    what: "lets another connection take over the session",
    script: answers(receipt(1), error(errors.superseded.wireCode)),
    ...{ error: "superseded", confirmed: 1, connections: 1 },
  },
  {
    what: "resets this connection and every later one",
    async script(peer) {
      if (peer.turn > 0) return peer.reset();
      await answers(receipt(2))(peer);
      await Bun.sleep(0);
      peer.end();
    },
    args: patient,
    ...{ error: "given-up", confirmed: 2 },
  },
  {
    what: "returns with an empty store",
    async script(peer) {
      peer.say(welcome({ fresh: peer.turn > 0 }));
      await peer.hears(type.END);
      peer.say(receipt(2), error(errors.store.wireCode));
    },
    ...{ error: "other-store", says: /had confirmed 2 frames/, confirmed: 2, connections: 2 },
  },
  {
    what: "sends only PINGs",
    async script(peer) {
      peer.say(welcome());
      await peer.hears(type.END);
      peer.say(receipt(2));
      while (!peer.isClosed) {
        peer.say(json(type.PING, { time: "0" }), receipt(2));
        await Bun.sleep(50);
      }
    },
    args: patient,
    ...{ error: "given-up", says: /confirmed no frame/, confirmed: 2, connections: 1 },
  },
]);

table("frames send reports the frames that a server refuses", [
  ...Object.entries({
    "with terminal escapes": [36, escapes],
    "with 60 KB of text": [36, long],
    "with an unknown error": [47, "of a later version"],
    "with an error that ends connections": [errors.superseded.wireCode, "no"],
    "with an error that is for losses": [errors.vanished.wireCode, "gone"],
    "with an error beyond all ranges": [Number.MAX_SAFE_INTEGER, ""],
    "with no error": [0, ""],
  } satisfies Record<string, [number, string]>).map(([what, [number, text]]): Case => {
    const parts = [1, 2, 3].map((sequence) => refused(sequence, number, text));
    const counts = done(3, { stored: 0, refused: 3 });
    const script = answers(...parts, receipt(3), counts);
    return { what, script, isPartial: true, left: names, isProcess: text.length > 50 };
  }),
  {
    what: "ten thousand times",
    script: answers(
      ...Array.from({ length: 10_000 }, () => refused(1)),
      receipt(3),
      done(3, { stored: 2, refused: 1 }),
    ),
    ...{ isPartial: true, says: /Stored in/, left: names.slice(0, 1), isProcess: true },
  },
  {
    what: "because they exceed its limit of one byte",
    script: grants({ limits: { ...limits, frame: 1 } }, 0),
    ...{ isPartial: true, says: /Not delivered: 3 too-large/, left: names },
  },
  {
    what: "because their names are taken",
    script: knows((frames) => "x".repeat(frames)),
    ...{ isPartial: true, left: names },
  },
]);

/** Returns the expected result of an ERROR with this name. */
function ends(name: ErrorName, isLetIn: boolean): Partial<Case> {
  const { retry } = new FramesError(name);
  const isServer = isLetIn || ["store", "stopping", "full", "damaged"].includes(name);
  if (retry === undefined || !isServer) return { error: name, connections: 1 };
  // A frame reported as damaged three times is given up, and the next one is tried.
  const connections = name === "damaged" && isLetIn ? 5 : 3;
  if (retry === "three-times") return { error: name, connections };
  return { error: "given-up", args: patient };
}

const endings = (Object.keys(errors) as ErrorName[]).filter((name) => {
  return errors[name].wireCode > 0 && errors[name].wireCode < 32;
});
for (const isLetIn of [false, true]) {
  const say = (bytes: Buffer) => (isLetIn ? answers(bytes) : says(preface, bytes));
  table(`frames send handles an ERROR ${isLetIn ? "after" : "instead of"} WELCOME that is`, [
    ...endings.map((name): Case => ({
      what: name,
      script: say(error(errors[name].wireCode)),
      says:
        name === "stolen-session" && isLetIn
          ? /: Another key began this session, so a new session sends what is not confirmed yet/
          : /The server says: as the test wants it|does not take the key/,
      isProcess: ofProcess.has(name),
      ...ends(name, isLetIn),
    })),
    ...([0, 31, 40, 999, Number.MAX_SAFE_INTEGER] as const).map((number): Case => {
      const end = ends("protocol", isLetIn);
      return { what: `number ${number}`, script: say(error(number)), ...end };
    }),
    ...[-1, 2 ** 53, 0.5, "1", undefined].map((number): Case => ({
      what: `number ${number}, which is invalid`,
      script: say(json(type.ERROR, { error: number, message: "" })),
      ...ends("protocol", isLetIn),
    })),
    {
      what: "full of terminal escapes",
      script: say(error(errors.busy.wireCode, escapes)),
      ...{ error: "busy", connections: 1, isProcess: true },
    },
    {
      what: "60 KB of text",
      script: say(error(errors.busy.wireCode, long)),
      ...{ error: "busy", connections: 1, isProcess: true },
    },
  ]);
}
