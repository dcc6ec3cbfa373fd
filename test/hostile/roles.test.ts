// What each key may do on every path: wire messages, sessions past and present, streams in and out
// of its pattern, every HTTP route, and the article's port. Each cell of the tables is tried. A
// message or route without a row fails.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { authPaths } from "../../src/http/auth/authenticator.ts";
import { apiRoutes, streamRoutes } from "../../src/http/routes/api.ts";
import { frameRoutes, rootRoutes, sourceRoutes } from "../../src/http/routes/routes.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { sendArticle } from "../../src/client/article/send.ts";
import { serve } from "../../src/server/serve.ts";
import type { Server } from "../../src/server/server-options.ts";
import { MessageType } from "../../src/wire/messages.ts";
import { journal } from "../helper/delivery.ts";
import { FoxgloveViewer } from "../helper/foxglove.ts";
import {
  data,
  end,
  frame,
  hello,
  json,
  message,
  MORE,
  Peer,
  preface,
  source,
} from "../helper/hostile.ts";
import { makeTree, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

function keyOf(name: string, role: KeyEntry["role"], streams: string): KeyEntry {
  return { name, key: generateKey(), role, streams };
}

/** Who tries. All but the last three have a key that is in the server's key file. */
const visitors = {
  send: keyOf("send", "send", "in-*"),
  receive: keyOf("receive", "receive", "in-*"),
  both: keyOf("both", "both", "in-*"),
  all: keyOf("all", "both", "*"),
  unknown: keyOf("unknown", "both", "*"),
  none: undefined,
  keyless: undefined,
} as const;

type Visitor = keyof typeof visitors;
const names = Object.keys(visitors) as Visitor[];

/** What happens to each visitor. */
type Row = Readonly<Record<Visitor, string>>;

/** Returns a row of one outcome for all, apart from some. */
function row(usual: string, apart: Partial<Row> = {}): Row {
  const every = Object.fromEntries(names.map((name) => [name, usual])) as Row;
  return { ...every, ...apart };
}

/** Outcome of HELLO for visitors that no server lets in. A server with keys hears no plain text. */
const outside = { unknown: "not-let-in", none: "no TLS" } as const;

/** Another sender, whose sessions, frames and gaps the visitors try to change. */
const owner = keyOf("owner", "both", "*");
const pastSession = "a".repeat(32);
const presentSessions = { "in-1": "b".repeat(32), "out-1": "c".repeat(32) } as const;
const streams = ["in-1", "out-1"] as const;

let folder: string;
/** A server with keys, and one without. */
let keyed: Server;
let plain: Server;
let present: Peer[];
let answering: Timer;
/** State of the owner's frames and gaps in both stores before the first visitor. */
let untouched: unknown[];
/** Begin the attempts with the unknown key. The server answers each a second late. */
const attemptsWithUnknownKey: (() => void)[] = [];

const serverOf = (visitor: Visitor): Server => (visitor === "keyless" ? plain : keyed);

beforeAll(async () => {
  folder = temporaryFolder();
  const keyFile = join(folder, "keys");
  const { send, receive, both, all } = visitors;
  const known = [owner, send, receive, both, all];
  writeFileSync(keyFile, known.map(formatKey).join(""), { mode: 0o600 });
  const ports = { listen: "127.0.0.1:0", http: "127.0.0.1:0", article: "127.0.0.1:0" };
  keyed = await serve(join(folder, "keyed"), { ...ports, keyFile });
  plain = await serve(join(folder, "plain"), ports);
  present = [];
  const answered = new Map<Peer, number>();
  // The owner's connections answer PING, as every sender does.
  answering = setInterval(() => {
    for (const peer of present) {
      const pings = peer.bodies(type.PING);
      for (const { time } of pings.slice(answered.get(peer) ?? 0)) {
        peer.write(json(type.PONG, { time, clock: "1" }));
      }
      answered.set(peer, pings.length);
    }
  }, 50);
  for (const server of [keyed, plain]) {
    const key = server === keyed ? owner : undefined;
    for (const stream of streams) {
      const past = await greet(server, key, { session: pastSession, stream });
      past.write(Buffer.concat([source("a"), frame({ name: "1.png", payload: "owner" })]));
      past.write(json(type.LOST, { ranges: [[2, 2]], error: 51 }, 1));
      past.write(end(1));
      await past.closed();
      expect(past.outcome).toBe("done");
      const live = await greet(server, key, { session: presentSessions[stream], stream });
      live.write(Buffer.concat([source("live"), frame({ name: "live.png", payload: "owner" })]));
      await until("the live frame", () => live.bodies(type.WELCOME).length === 1);
      await until("its receipt", () => live.messages().some((one) => one.type === type.RECEIPT));
      present.push(live);
    }
  }
  untouched = ownersStates();
  for (const begin of attemptsWithUnknownKey) begin();
});

afterAll(async () => {
  clearInterval(answering);
  for (const peer of present) peer.reset();
  await Promise.all([keyed.stop(), plain.stop()]);
  rmSync(folder, { recursive: true });
});

/** Connects as the holder of a key, and says HELLO. */
async function greet(
  { port }: Server,
  key: KeyEntry | undefined,
  fields: object,
  ...follows: Buffer[]
): Promise<Peer> {
  const target = { port, key };
  const peer = await Peer.connect(target);
  const greeting = peer.greeting(Buffer.concat([preface, hello(target, fields)]));
  peer.write(Buffer.concat([greeting, ...follows]));
  return peer;
}

/**
 * Says HELLO and more, and returns how the server takes it: the error with which the connection
 * ends, or what it answers.
 *
 * @param answered returns the answer once it is there
 */
async function converse(
  visitor: Visitor,
  fields: object,
  follows: readonly Buffer[],
  answered: (peer: Peer) => string | undefined,
): Promise<string> {
  using peer = await greet(serverOf(visitor), visitors[visitor], fields, ...follows);
  let answer: string | undefined;
  await until("an answer", () => {
    answer = peer.hasHeardAll || peer.isClosed ? undefined : answered(peer);
    return answer !== undefined || peer.hasHeardAll || peer.isClosed;
  });
  if (answer !== undefined) return answer;
  return answered(peer) ?? refusalOf(peer);
}

/** The error that ended a connection. To plain text a server with keys says only a TLS alert. */
function refusalOf(peer: Peer): string {
  return peer.messages().length === 0 ? "no TLS" : peer.outcome;
}

const isWelcome = (peer: Peer) => (peer.bodies(type.WELCOME).length > 0 ? "let in" : undefined);

/** The answer to a PING that follows the message: the server took the message without an error. */
const ping = json(type.PING, { time: "7" });
const isTaken = (peer: Peer) => (peer.bodies(type.PONG).length > 0 ? "taken" : undefined);

/** The frames and gaps of the owner, as both stores have them. */
function ownersStates(): unknown[] {
  const sessions = [pastSession, ...Object.values(presentSessions)];
  const list = sessions.map((session) => `'${session}'`).join();
  const inSessions = `WHERE session IN (${list}) ORDER BY 1, 2, 3`;
  return [keyed.directory, plain.directory].map((store) => ({
    frames: journal(store, `SELECT stream, name, crc32, seq FROM frames ${inSessions}`),
    losses: journal(store, `SELECT stream, first, last FROM losses ${inSessions}`),
    accounted: journal(store, `SELECT stream, first, last FROM accounted ${inSessions}`),
    file: readFileSync(join(store, "in-1/a/1.png"), "utf8"),
  }));
}

/** Tries a row with every visitor. */
function tryRow(what: string, expected: Row, attempt: (visitor: Visitor) => Promise<string>): void {
  test(`${what}: what each key may do`, async () => {
    const got = {} as Record<Visitor, string>;
    for (const visitor of names) got[visitor] = await attempt(visitor);
    expect(got).toEqual({ ...expected });
    expect(ownersStates()).toEqual(untouched);
    expect(present.map((peer) => peer.isClosed || peer.hasHeardAll)).toEqual(
      present.map(() => false),
    );
  });
}

/** Tries a row of the wire. The attempts of all rows with the unknown key wait at the same time. */
function tryWireRow(...[what, expected, attempt]: Parameters<typeof tryRow>): void {
  let unknown: Promise<string>;
  attemptsWithUnknownKey.push(() => {
    unknown = attempt("unknown");
    unknown.catch(() => {});
  });
  tryRow(what, expected, (visitor) => (visitor === "unknown" ? unknown : attempt(visitor)));
}

describe("HELLO with streams and sessions", () => {
  const ofOwner = "stolen-session";
  const sessions: [what: string, session: string | undefined, taken: Partial<Row>][] = [
    ["a new session", undefined, {}],
    // A server without keys protects no session from its clients.
    ["another's ended session", pastSession, { send: ofOwner, both: ofOwner, all: ofOwner }],
    [
      "another's connected session",
      presentSessions["in-1"],
      { send: ofOwner, both: ofOwner, all: ofOwner },
    ],
    [
      "the session of no sender",
      "0".repeat(32),
      {
        ...{ send: ofOwner, both: ofOwner, all: ofOwner, keyless: ofOwner },
      },
    ],
  ];
  for (const [what, session, taken] of sessions) {
    // On the server without keys, a newer connection of the session rightly ends the older one.
    const isPresent = session === presentSessions["in-1"];
    for (const stream of streams) {
      const fields = { stream, revises: true, ...(session === undefined ? {} : { session }) };
      const isOut = stream === "out-1";
      const out = isOut ? { send: "wrong-stream", both: "wrong-stream" } : {};
      const asSender = row("let in", { ...taken, ...out, receive: "wrong-role", ...outside });
      tryWireRow(`HELLO to send ${stream} in ${what}`, asSender, (visitor) => {
        const isSpared = isPresent && visitor === "keyless";
        return isSpared ? Promise.resolve("let in") : converse(visitor, fields, [], isWelcome);
      });
      // A receiving client names no session of a sender.
      const limited = isOut ? { receive: "wrong-stream", both: "wrong-stream" } : {};
      const asReceiver = row("let in", { ...limited, send: "wrong-role", ...outside });
      tryWireRow(`HELLO to receive ${stream} in ${what}`, asReceiver, (visitor) =>
        converse(visitor, { ...fields, role: "receive" }, [], isWelcome),
      );
    }
  }
});

/** A message, and what becomes of it after WELCOME. */
interface MessageRow {
  /** From a client that sends: its bytes after SOURCE, and the outcome. */
  readonly bytes: Buffer | Buffer[];
  readonly sends: string;
  /** From a client that receives: the outcome. */
  readonly receives: string;
}

const offer = (name: string) => json(type.OFFER, { frames: [[name, 5, "0", 9]] }, 1);

/** Messages with which a client could do something, or that only a server may send. */
const messages: Readonly<Record<keyof typeof MessageType, MessageRow>> = {
  hello: { bytes: hello({ port: 0 }), sends: "protocol", receives: "protocol" },
  welcome: {
    bytes: json(type.WELCOME, {
      ...{ window: { bytes: 1, frames: 1 }, limits: { frame: 1, sources: 1, unfinished: 1 } },
    }),
    sends: "protocol",
    receives: "protocol",
  },
  source: { bytes: source("b", 2), sends: "taken", receives: "protocol" },
  frame: { bytes: frame({ name: "new.png" }), sends: "taken", receives: "protocol" },
  data: {
    bytes: [frame({ name: "d.png", size: 4, payload: "da", flags: MORE }), data("ta", "da")],
    sends: "taken",
    receives: "protocol",
  },
  abort: {
    bytes: [
      frame({ name: "e.png", size: 4, payload: "da", flags: MORE, sequence: 3 }),
      json(type.ABORT, { sequence: 3 }, 1),
    ],
    sends: "taken",
    receives: "protocol",
  },
  receipt: { bytes: receipt(0), sends: "protocol", receives: "taken" },
  refused: {
    bytes: json(type.REFUSED, { sequence: 99, error: 35, message: "no" }, 1),
    sends: "protocol",
    receives: "protocol",
  },
  lost: {
    bytes: json(type.LOST, { ranges: [[2, 9]], error: 51, name: "1.png" }, 1),
    sends: "taken",
    receives: "protocol",
  },
  offer: { bytes: offer("1.png"), sends: "taken", receives: "protocol" },
  answer: {
    bytes: json(type.ANSWER, { answers: "s" }, 1),
    sends: "protocol",
    receives: "protocol",
  },
  end: { bytes: end(0), sends: "done", receives: "protocol" },
  done: {
    bytes: json(type.DONE, { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 }),
    sends: "protocol",
    receives: "protocol",
  },
  error: {
    bytes: json(type.ERROR, { error: 12, message: "over" }),
    sends: "internal",
    receives: "internal",
  },
  ping: { bytes: json(type.PING, { time: "1" }), sends: "taken", receives: "taken" },
  pong: { bytes: json(type.PONG, { time: "1", clock: "1" }), sends: "taken", receives: "taken" },
  proof: { bytes: proof(), sends: "protocol", receives: "protocol" },
  gone: {
    bytes: json(type.GONE, { sequence: 1, name: "1.png" }, 1),
    sends: "protocol",
    receives: "protocol",
  },
  cursor: { bytes: json(type.CURSOR, { cursor: "1" }), sends: "protocol", receives: "protocol" },
};

function receipt(frames: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeBigUInt64BE(BigInt(frames));
  return message(type.RECEIPT, body);
}

function proof(): Buffer {
  return message(type.PROOF, Buffer.alloc(32));
}

describe("messages after HELLO", () => {
  test("every message of the wire has a row", () => {
    expect(Object.keys(messages)).toEqual(Object.keys(MessageType));
  });

  for (const [name, { bytes, sends, receives }] of Object.entries(messages)) {
    const follows = Array.isArray(bytes) ? bytes : [bytes];
    const isLast = sends === "done";
    const sent = row(sends, { receive: "wrong-role", ...outside });
    tryWireRow(`${name.toUpperCase()} of a client that sends`, sent, (visitor) => {
      const rest = isLast ? follows : [...follows, ping];
      const session = crypto.randomUUID().replaceAll("-", "");
      const own = source(`by-${visitor}-${name}`);
      return converse(visitor, { stream: "in-1", session }, [own, ...rest], (peer) =>
        peer.outcome === "done" ? "done" : isTaken(peer),
      );
    });
    // A server without keys ignores one PROOF.
    const heard = row(receives, {
      ...(name === "proof" ? { keyless: "taken" } : {}),
      ...{ send: "wrong-role", ...outside },
    });
    tryWireRow(`${name.toUpperCase()} of a client that receives`, heard, async (visitor) => {
      const fields = { stream: "in-1", role: "receive", follow: true };
      using peer = await greet(serverOf(visitor), visitors[visitor], fields);
      const isOver = () => peer.hasHeardAll || peer.isClosed;
      await until("WELCOME", () => isWelcome(peer) !== undefined || isOver());
      if (isWelcome(peer) === undefined) return refusalOf(peer);
      peer.write(Buffer.concat([...follows, ping]));
      await until("an answer", () => isTaken(peer) !== undefined || isOver());
      return isTaken(peer) ?? peer.outcome;
    });
  }

  const elsewhere = row("taken", {
    ...{ send: "wrong-stream", both: "wrong-stream", receive: "wrong-role", ...outside },
  });
  tryWireRow("SOURCE of a stream out of the pattern", elsewhere, (visitor) => {
    const declared = source(`by-${visitor}`, 1, { stream: "out-1" });
    return converse(visitor, { stream: "in-1" }, [declared, ping], isTaken);
  });

  const inside = row("taken", { receive: "wrong-role", ...outside });
  tryWireRow("SOURCE with the session of another key", inside, async (visitor) => {
    const declared = source(`of-${visitor}`, 1, { session: pastSession, revises: true });
    const bytes = [declared, frame({ name: "1.png", sequence: 9 }), ping];
    return await converse(visitor, { stream: "in-1" }, bytes, isTaken);
  });

  const conflict = row("conflict", { receive: "wrong-role", ...outside });
  tryWireRow("FRAME in place of another's", { ...conflict, keyless: "conflict" }, (visitor) => {
    const forged = frame({ name: "1.png", sequence: 9, payload: "forged" });
    const how = visitor === "keyless" ? {} : { conflict: "replace" };
    const fields = { stream: "in-1", revises: true, ...how };
    return converse(visitor, fields, [source("a"), forged], (peer) => peer.refusals[0]);
  });

  const taken = row("busy", { receive: "wrong-role", ...outside });
  tryWireRow("SOURCE that another key sends now", taken, async (visitor) => {
    return await converse(visitor, { stream: "in-1" }, [source("live"), ping], isTaken);
  });
});

/** Asks over HTTP, and returns the status and which streams the body names. */
async function ask(
  visitor: Visitor,
  path: string,
  { method = "GET", body }: { method?: string; body?: object | undefined } = {},
): Promise<string> {
  const key = visitors[visitor]?.key;
  const over = new AbortController();
  const response = await fetch(`http://${serverOf(visitor).http}${path}`, {
    method,
    headers: {
      ...(key === undefined ? {} : { Authorization: `Bearer ${key.text}` }),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: over.signal,
    redirect: "manual",
  });
  const isEndless = /event-stream|x-mixed-replace/.test(response.headers.get("Content-Type") ?? "");
  let text = "";
  if (!isEndless) text = await response.text();
  else {
    const { value } = await response.body!.getReader().read();
    text = Buffer.from(value ?? []).toString("latin1");
    over.abort();
  }
  const isError = response.status >= 400;
  const seen = streams.filter((stream) => !isError && text.includes(stream));
  // An address that sent many wrong keys is told to wait.
  const status = response.status === 429 ? 401 : response.status;
  return [status, ...seen].join(" ");
}

/** Opens `/live`, watches the owner's sources, and returns of which of them frames come. */
async function watch(visitor: Visitor): Promise<string> {
  const key = visitors[visitor]?.key;
  const headers: Record<string, string> = { Origin: `http://${serverOf(visitor).http}` };
  if (key !== undefined) headers["Authorization"] = `Bearer ${key.text}`;
  const socket = new WebSocket(`ws://${serverOf(visitor).http}/live`, { headers } as never);
  socket.binaryType = "arraybuffer";
  const heard: string[] = [];
  let end: string | undefined;
  socket.onmessage = ({ data: heardData }) => {
    heard.push(Buffer.from(heardData as ArrayBuffer).toString("latin1"));
  };
  socket.onopen = () => {
    const [inside, outOf] = streams.map((stream) => [stream, "live"]);
    socket.send(JSON.stringify({ watch: [outOf, inside] }));
  };
  socket.onclose = () => (end ??= "refused");
  socket.onerror = () => (end ??= "refused");
  const isHeard = (stream: string) => heard.some((text) => text.includes(`"stream":"${stream}"`));
  const hears = visitor === "all" || visitor === "keyless" ? streams : ["in-1"];
  await until("frames or the end", () => end !== undefined || hears.every(isHeard));
  const outcome = end ?? ["watched", ...streams.filter(isHeard)].join(" ");
  socket.close();
  return outcome;
}

/** Opens `/foxglove` and returns of which of the owner's sources frames come. */
async function view(visitor: Visitor): Promise<string> {
  const key = visitors[visitor]?.key;
  const headers = key === undefined ? {} : { Authorization: `Bearer ${key.text}` };
  using viewer = new FoxgloveViewer(serverOf(visitor).http!, headers as Record<string, string>);
  const topics = streams.map((stream) => `/${stream}/live`);
  const seen = () => topics.filter((topic) => viewer.topics.includes(topic));
  await until("a channel or the end", () => viewer.closed !== undefined || seen().length > 0);
  if (viewer.closed !== undefined) return "refused";
  for (const topic of seen()) await viewer.subscribe(topic, topics.indexOf(topic));
  const ids = () => [...new Set(viewer.data.map(({ id }) => id))].toSorted();
  await until("a frame of each", () => ids().length === seen().length);
  return ["watched", ...ids().map((id) => streams[id])].join(" ");
}

/** Statuses for a client without the right to read anything. */
const closed = { send: "403", unknown: "401", none: "401" } as const;

/** What is open to everybody, except under a wrong key. */
const open = row("200", { send: "403", unknown: "401" });

/** A list of streams: everybody sees those that the key covers. */
const list = row("200 in-1 out-1", { receive: "200 in-1", both: "200 in-1", ...closed });

/** What belongs to the server as a whole is not shown to a key of some streams. */
const whole = row("200 in-1 out-1", { receive: "200", both: "200", ...closed });

const inside = row("200", closed);
const outOf = row("200", { receive: "404", both: "404", ...closed });

/** Rows of a path that is below a stream, in the pattern of the keys and out of it. */
function below(path: (stream: string) => string, sees = ""): [string, Row][] {
  const show = (expected: Row, stream: string): Row => {
    const entries = Object.entries(expected).map(([visitor, outcome]) => {
      return [visitor, outcome === "200" && sees === "stream" ? `200 ${stream}` : outcome];
    });
    return Object.fromEntries(entries) as Row;
  };
  return [
    [path("in-1"), show(inside, "in-1")],
    [path("out-1"), show(outOf, "out-1")],
  ];
}

/** Rows of an address that needs pictures or video, which the owner's frames are not. */
function unfit(name: string): [string, Row][] {
  return [
    [`/streams/in-1/sources/a/${name}`, row("415", closed)],
    [`/streams/out-1/sources/a/${name}`, row("415", { ...outOf, all: "415", keyless: "415" })],
  ];
}

/** Rows of every route, by the names that the code gives them. */
const routes: Readonly<Record<string, [path: string, expected: Row][]>> = {
  "/healthz": [["/healthz", open]],
  "/readyz": [["/readyz", open]],
  "/metrics": [["/metrics", list]],
  "/events": [["/events", list]],
  "/live": [["/live", row("426", closed)]],
  "/foxglove": [["/foxglove", row("426", closed)]],
  "/api/server": [["/api/server", row("200", closed)]],
  "/api/streams": [["/api/streams", list]],
  "/api/senders": [["/api/senders", whole]],
  "/api/problems": [["/api/problems", list]],
  "/api/streams/S": below((stream) => `/api/streams/${stream}`, "stream"),
  "/api/streams/S/frames": below((stream) => `/api/streams/${stream}/frames?source=a`, "stream"),
  "/api/streams/S/moment": below((stream) => `/api/streams/${stream}/moment?at=0`, "stream"),
  "/api/streams/S/gaps": below((stream) => `/api/streams/${stream}/gaps`),
  "/api/streams/S/density": below(
    (stream) => `/api/streams/${stream}/density?from=0&to=9&parts=2&source=a`,
  ),
  "/api/streams/S/pause": below(
    (stream) => `/api/streams/${stream}/pause?source=a&after=0_0_0`,
    "stream",
  ),
  "/api/streams/S/export.mcap": below((stream) => `/api/streams/${stream}/export.mcap`, "stream"),
  "/streams/S/sources/X/latest": below((stream) => `/streams/${stream}/sources/a/latest`),
  "/streams/S/sources/X/latest.jpg": unfit("latest.jpg"),
  "/streams/S/sources/X/latest.mjpeg": unfit("latest.mjpeg"),
  "/streams/S/sources/X/latest.h264": unfit("latest.h264"),
  "/streams/S/sources/X/latest.h265": unfit("latest.h265"),
  "/streams/S/sources/X/frames/N": below((stream) => `/streams/${stream}/sources/a/frames/1.png`),
  "/streams/S/sources/X/numbers/N": below((stream) => {
    return `/streams/${stream}/sources/a/numbers/1?session=${pastSession}`;
  }),
  "/login": [["/login", row("200")]],
  "/logout": [["/logout", row("405")]],
  "/api/tokens": [["/api/tokens", row("200", closed)]],
  "page files": [["/", open]],
};

describe("HTTP routes", () => {
  test("every route has a row", () => {
    const known = [
      ...[...rootRoutes.keys()].map((name) => `/${name}`),
      ...[...apiRoutes.keys()].map((name) => `/api/${name}`),
      "/api/streams/S",
      ...[...streamRoutes.keys()].map((name) => `/api/streams/S/${name}`),
      ...[...sourceRoutes.keys()].map((name) => `/streams/S/sources/X/${name}`),
      ...[...frameRoutes].map((name) => `/streams/S/sources/X/${name}/N`),
      ...Object.values(authPaths),
      "page files",
    ];
    expect(Object.keys(routes).toSorted()).toEqual(known.toSorted());
  });

  for (const rows of Object.values(routes)) {
    for (const [path, expected] of rows) {
      tryRow(`GET ${path}`, expected, (visitor) => ask(visitor, path));
    }
  }

  for (const stream of streams) {
    const isOut = stream === "out-1";
    const token = row(isOut ? "201 out-1" : "201 in-1", {
      ...(isOut ? { receive: "403", both: "403" } : {}),
      ...closed,
      // Without keys no token is needed, so the answer is an address only.
      keyless: `200 ${stream}`,
    });
    tryRow(`POST /api/tokens for ${stream}`, token, (visitor) =>
      ask(visitor, "/api/tokens", { method: "POST", body: { stream, source: "a" } }),
    );
  }

  const login = row("200", { send: "403", unknown: "401", none: "400" });
  tryRow("POST /login", login, (visitor) => {
    const body = { key: visitors[visitor]?.key.text };
    return ask(visitor, "/login", { method: "POST", body });
  });

  for (const path of ["/api/server", "/api/streams/in-1", "/streams/in-1/sources/a/latest"]) {
    for (const method of ["POST", "DELETE", "PUT"]) {
      const refused = row("405", method === "PUT" ? {} : closed);
      tryRow(`${method} ${path}`, refused, (visitor) => ask(visitor, path, { method }));
    }
  }

  const watched = row("watched in-1 out-1", {
    ...{ receive: "watched in-1", both: "watched in-1" },
    ...{ send: "refused", unknown: "refused", none: "refused" },
  });
  tryRow("a page that watches both streams at /live", watched, watch);
  tryRow("a viewer of all channels at /foxglove", watched, view);
});

describe("the article's port", () => {
  for (const stream of streams) {
    // The dialect has no keys, so all have the same rights.
    tryRow(`pictures for ${stream} over the article's port`, row("stored"), async (visitor) => {
      const folder = makeTree({ [`article-${visitor}/7.png`]: "picture" });
      await sendArticle(folder, { to: serverOf(visitor).article!, stream });
      rmSync(folder, { recursive: true });
      const stored = join(serverOf(visitor).directory, stream, `article-${visitor}`, "7.png");
      await until("the picture", () => existsSync(stored));
      return "stored";
    });
  }

  tryRow("another's picture over the article's port", row("kept"), async (visitor) => {
    const folder = makeTree({ "a/1.png": "forged" });
    const sent = sendArticle(folder, { to: serverOf(visitor).article!, stream: "in-1" });
    const outcome = await sent.then(
      () => "taken",
      () => "kept",
    );
    rmSync(folder, { recursive: true });
    return outcome;
  });
});
