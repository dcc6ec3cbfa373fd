// A peer that may break every protocol rule, an honest sender beside it, and checks of the file
// system around a store. The bytes are built here from SPEC.md alone, because the encoder of
// `frames` cannot break the rules.

import { expect } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";

import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { errorByNumber, type ErrorName } from "../../src/errors.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { decodeAll } from "../wire/oracle.ts";
import { type DecodedMessage, type JsonMessage, type } from "../wire/vectors.ts";
import { expectCode, type Json, relayTo, summaryOf } from "./delivery.ts";
import {
  executable,
  jsonLines,
  launch,
  makeTree,
  manyFrames,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "./program.ts";
import { until } from "./time.ts";

// Bytes.

/** Text, encoded as UTF-8, or bytes. */
export type Part = string | Uint8Array;

export const preface: Buffer = Buffer.from("FRAMES/1");
export const MORE = 0x01;
export const OPTIONAL = 0x80;

/** Header fields that differ from the default and may be invalid. */
interface Heading {
  source?: number;
  flags?: number;
  length?: number;
  crc?: number;
  payload?: Part;
}

const asBytes = (part: Part): Buffer => Buffer.from(part as string);

/** Builds any message (SPEC section 3). */
export function message(kind: number, covered: Part, heading: Heading = {}): Buffer {
  const [body, payload] = [asBytes(covered), asBytes(heading.payload ?? "")];
  const header = Buffer.alloc(12);
  header.writeUInt8(kind, 0);
  header.writeUInt8(heading.flags ?? 0, 1);
  header.writeUInt16BE(heading.source ?? 0, 2);
  header.writeUInt32BE(heading.length ?? body.length + payload.length, 4);
  const crc = Bun.hash.crc32(body, Bun.hash.crc32(header.subarray(0, 8)));
  header.writeUInt32BE(heading.crc ?? crc, 8);
  return Buffer.concat([header, body, payload]);
}

/** Builds a message with a JSON body, or with bytes in its place. */
export function json(kind: number, body: object | Part, source = 0, heading: Heading = {}): Buffer {
  const isText = typeof body === "string" || body instanceof Uint8Array;
  return message(kind, isText ? body : JSON.stringify(body), { source, ...heading });
}

/** Builds SOURCE. Default id: 1. */
export const source = (name: string, id = 1, fields: object = {}): Buffer =>
  json(type.SOURCE, { name, ...fields }, id);

export const end = (frames: number): Buffer => json(type.END, { frames });

/** Fields of a frame. Defaults are valid. */
export interface FrameFields extends Heading {
  name?: Part;
  sequence?: number | bigint;
  size?: number | bigint;
  metadata?: Part;
  payloadCrc?: number;
  nameLength?: number;
  metadataLength?: number;
}

/** Builds FRAME (SPEC section 5). */
export function frame(fields: FrameFields = {}): Buffer {
  const { name = "1.png", sequence = 1, metadata = "", source: id = 1 } = fields;
  const payload = asBytes(fields.payload ?? "bytes");
  const [nameBytes, metadataBytes] = [asBytes(name), asBytes(metadata)];
  const fixed = Buffer.alloc(32);
  fixed.writeBigUInt64BE(BigInt(sequence), 0);
  fixed.writeBigInt64BE(1_700_000_000_000_000_000n, 8);
  fixed.writeBigUInt64BE(BigInt(fields.size ?? payload.length), 16);
  fixed.writeUInt32BE(fields.payloadCrc ?? Bun.hash.crc32(payload), 24);
  fixed.writeUInt16BE(fields.nameLength ?? nameBytes.length, 28);
  fixed.writeUInt16BE(fields.metadataLength ?? metadataBytes.length, 30);
  const covered = Buffer.concat([fixed, nameBytes, metadataBytes]);
  return message(type.FRAME, covered, { ...fields, source: id, payload });
}

/** Builds DATA. `before` is the payload of the previous pieces. */
export function data(payload: Part, before: Part, fields: FrameFields = {}): Buffer {
  const crc = Buffer.alloc(4);
  const whole = Bun.hash.crc32(asBytes(payload), Bun.hash.crc32(asBytes(before)));
  crc.writeUInt32BE(fields.payloadCrc ?? whole);
  return message(type.DATA, crc, { source: 1, ...fields, payload });
}

// Connections.

/** Address of a server, and a key that it accepts. */
export interface Target {
  readonly port: number;
  readonly key?: KeyEntry | undefined;
  /** Returns the current length of its log. */
  logged?(): number;
}

/** Builds HELLO with a new session and the id of the key. */
export function hello({ key }: Target, fields: object = {}): Buffer {
  const session = randomBytes(16).toString("hex");
  const named = key === undefined ? {} : { key: key.key.id };
  return json(type.HELLO, { role: "send", session, stream: "s", ...named, ...fields });
}

/** One connection; over TLS if the target has a key. */
export class Peer {
  readonly #key: KeyEntry | undefined;
  #socket: Bun.Socket<undefined> | undefined;
  #exporter: Uint8Array = new Uint8Array(0);
  #waiting: Buffer[] = [];
  readonly #heard: Uint8Array[] = [];
  /** Bytes accepted by the operating system. */
  taken = 0;
  /** Whether the server has closed its sending side. */
  hasHeardAll = false;
  isClosed = false;
  /**
   * Name of this connection in the server's log, searched from `loggedFrom` because ports are
   * reused.
   */
  name = "";
  loggedFrom = 0;

  private constructor(key: KeyEntry | undefined) {
    this.#key = key;
  }

  /**
   * Connects, including the TLS handshake. A `deaf` peer never reads; a `stubborn` one stays open
   * when the server closes.
   */
  static async connect(target: Target, manners?: "deaf" | "stubborn"): Promise<Peer> {
    const { port, key } = target;
    const peer = new Peer(key);
    peer.loggedFrom = target.logged?.() ?? 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const socket = await Bun.connect<undefined>({
      hostname: "127.0.0.1",
      port,
      allowHalfOpen: true,
      ...(key === undefined ? {} : { tls: { rejectUnauthorized: false } }),
      socket: {
        handshake(socket) {
          // SPEC section 10.
          const exported = socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding") as unknown;
          peer.#exporter = Uint8Array.from(exported as Uint8Array);
          resolve();
        },
        data: (_, chunk) => void peer.#heard.push(chunk),
        drain: () => peer.#flush(),
        end(socket) {
          peer.hasHeardAll = true;
          if (manners !== "stubborn") socket.end();
        },
        close() {
          peer.isClosed = true;
          resolve();
        },
        error() {},
      },
    });
    peer.#socket = socket;
    peer.name = `127.0.0.1:${socket.localPort}`;
    if (key !== undefined) await promise;
    if (manners === "deaf") socket.pause();
    return peer;
  }

  /** Returns preface and HELLO as given, followed by the proof of the key. */
  greeting(said: Buffer): Buffer {
    return Buffer.concat([said, ...(this.#key === undefined ? [] : [this.proof(said)])]);
  }

  /** Builds PROOF for these bytes (SPEC section 10). */
  proof(said: Uint8Array): Buffer {
    const hmac = createHmac("sha256", this.#key!.key.bytes).update("FRAMES/1 client");
    return message(type.PROOF, hmac.update(this.#exporter).update(said).digest());
  }

  write(bytes: Uint8Array): void {
    this.#waiting.push(Buffer.from(bytes));
    if (this.#waiting.length === 1) this.#flush();
  }

  /** Bytes not yet accepted by the operating system. */
  get queued(): number {
    return this.#waiting.reduce((sum, { length }) => sum + length, 0);
  }

  #flush(): void {
    let next: Buffer | undefined;
    while (!this.isClosed && (next = this.#waiting[0]) !== undefined) {
      const accepted = Math.max(0, this.#socket!.write(next));
      this.taken += accepted;
      if (accepted < next.length) return void (this.#waiting[0] = next.subarray(accepted));
      this.#waiting.shift();
    }
  }

  /** Bytes received. */
  get bytes(): Buffer {
    return Buffer.concat(this.#heard);
  }

  /** Messages received, if the input begins with a valid preface. */
  messages(): DecodedMessage[] {
    const { bytes } = this;
    if (!bytes.subarray(0, 8).equals(preface)) return [];
    return decodeAll(bytes.subarray(8)).messages;
  }

  /** Returns the bodies of all messages of a type. */
  bodies(kind: number): Json[] {
    const found = this.messages().filter((heard) => heard.type === kind);
    return found.map((heard) => (heard as JsonMessage).json as Json);
  }

  /** How the connection ended: the error in ERROR, `done`, or `closed` without a message. */
  get outcome(): ErrorName | "done" | "closed" {
    const last = this.messages().at(-1) as JsonMessage | undefined;
    if (last?.type === type.DONE) return "done";
    if (last?.type !== type.ERROR) return "closed";
    return errorByNumber((last.json as { error: number }).error, "end");
  }

  /** Errors with which frames were refused. */
  get refusals(): ErrorName[] {
    return this.bodies(type.REFUSED).map(({ error }) => errorByNumber(Number(error), "refusal"));
  }

  /** Sends FIN. */
  finish(): void {
    this.#socket!.shutdown();
  }

  /** Closes with RST. */
  reset(): void {
    this.#socket!.terminate();
  }

  /** Waits until the server has closed. */
  async closed(): Promise<void> {
    const what = `the end of the connection ${this.name}`;
    await until(what, () => this.isClosed).finally(() => this.reset());
  }

  [Symbol.dispose](): void {
    this.reset();
  }
}

/** Connects and sends preface, HELLO, proof and messages in a single write. */
export async function converse(
  target: Target,
  fields: object,
  ...follows: Buffer[]
): Promise<Peer> {
  const peer = await Peer.connect(target);
  const greeting = peer.greeting(Buffer.concat([preface, hello(target, fields)]));
  peer.write(Buffer.concat([greeting, ...follows]));
  return peer;
}

// A monitored server, and an honest sender.

/** A server whose store lies in a folder that must not change otherwise. */
export interface GuardedServer extends Target, Disposable {
  readonly server: Server;
  /** The folder around the store. */
  readonly around: string;
  readonly store: string;
  /** Arguments with the key file for `frames send`. */
  readonly keyWords: string[];
  /** Returns the log lines about a peer. */
  lines(peer: { name: string; loggedFrom: number }, kind: string): Json[];
  /** Expects that only the store changed, and that memory use stayed low. */
  expectUnharmed(): void;
  /** Stops the server. Expects a clean exit and a log without terminal control characters. */
  stop(): Promise<void>;
}

/** Limit for the server's memory, in bytes. */
const tooMuch = 250e6;

/** Options of `guardedServer`. */
export interface GuardedOptions {
  /** Whether it requires keys. */
  isKeyed: boolean;
  args?: string[];
  /** Address of its page. Default: no page. */
  http?: string;
  /** Keys besides the peer's. */
  moreKeys?: KeyEntry[];
  /** Limit for open files. */
  openFiles?: number;
}

/** Starts a server whose store and surroundings are monitored. */
export async function guardedServer(options: GuardedOptions): Promise<GuardedServer> {
  const { isKeyed, args = [], http = "off", moreKeys = [], openFiles } = options;
  const around = temporaryFolder();
  const store = join(around, "store");
  mkdirSync(join(around, "outside/folder"), { recursive: true });
  for (const name of ["sibling.txt", "outside/secret.png", "outside/folder/1.png"]) {
    writeFileSync(join(around, name), `what is in ${name}\n`);
  }
  const key: KeyEntry = { name: "cam", key: generateKey(), role: "both", streams: "*" };
  const keys = join(around, "keys");
  writeFileSync(keys, [key, ...moreKeys].map(formatKey).join(""), { mode: 0o600 });
  mkdirSync(store);
  const keyWords = isKeyed ? ["--key-file", keys] : [];
  const limited = ["sh", "-c", `ulimit -n ${openFiles} && exec "$0" "$@"`, executable];
  const server = await startServer({
    dir: store,
    http,
    args: [...keyWords, ...args],
    ...(openFiles === undefined ? {} : { command: limited }),
  });
  const before = snapshot(around, store);
  return {
    server,
    around,
    store,
    port: server.port,
    key: isKeyed ? key : undefined,
    keyWords,
    logged: () => server.stdout().length,
    lines(peer, kind) {
      const lines = server.stdout().slice(peer.loggedFrom).split("\n");
      const own = lines.filter((line) => line.includes(`"peer":"${peer.name}"`));
      return jsonLines(own.join("\n")).filter((line) => line["type"] === kind);
    },
    expectUnharmed() {
      expect(snapshot(around, store)).toEqual(before);
      expect(server.peakMemory()).toBeLessThan(tooMuch);
    },
    async stop() {
      expect(await server.stop()).toBe(0);
      expect(server.stdout().replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
      // Partial files are removed with their connection.
      expect(readdirSync(join(store, ".frames/partial"))).toEqual([]);
    },
    [Symbol.dispose]: () => rmSync(around, { recursive: true, force: true }),
  };
}

/** Returns kind, size, times and content of everything in a folder except `except`. */
export function snapshot(folder: string, except: string): Record<string, string> {
  const found: Record<string, string> = {};
  const visit = (path: string): void => {
    if (path === except) return;
    const { mode, size, mtimeNs } = lstatSync(path, { bigint: true });
    const kind = (Number(mode) & 0o170000).toString(8);
    const content = kind === "120000" ? readlinkSync(path) : "";
    const bytes = kind === "100000" ? readFileSync(path, "latin1") : content;
    const length = kind === "40000" ? 0 : size;
    found[relative(folder, path)] = `${mode.toString(8)} ${length} ${mtimeNs} ${bytes}`;
    if (kind !== "40000") return;
    for (const name of readdirSync(path).sort()) visit(join(path, name));
  };
  visit(folder);
  return found;
}

/** Returns the text of all files in a folder. Other entries are given by kind. */
export function contents(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  if (!existsSync(folder)) return found;
  const visit = (below: string): void => {
    const entries = readdirSync(join(folder, below), { withFileTypes: true });
    if (entries.length === 0 && below !== "") found[`${below}/`] = "(an empty folder)";
    for (const entry of entries) {
      const path = below === "" ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) found[path] = readFileSync(join(folder, path), "utf8");
      else found[path] = "(neither file nor folder)";
    }
  };
  visit("");
  return found;
}

// At the rate of its link these take ten minutes. Larger frames would count against the server.
const honestFrames = 1000;
const honestBytes = 10_000;
let honestTree: string | undefined;

/** A sender that delivers 1,000 frames slowly until told to finish. */
export interface HonestSender extends Disposable {
  /** Bytes sent so far. */
  readonly bytes: number;
  /**
   * Removes the speed limit. Expects that the sender was still running, and now delivers
   * everything.
   */
  finish(): Promise<void>;
}

/** The stream of the honest sender. */
export const honestStream = "honest";

/** Starts `frames send` over a link so slow that it cannot finish before `finish` is called. */
export async function honestSender(
  { server, store, keyWords }: GuardedServer,
  stream = honestStream,
): Promise<HonestSender> {
  honestTree ??= makeTree(manyFrames(honestFrames, honestBytes));
  const tree = honestTree;
  const link = await relayTo(server, { rate: 17_000 });
  const words = ["send", tree, "--stream", stream, "--to", link.to, "--json", ...keyWords];
  const sender = launch(words);
  // Before HELLO is accepted, a crowd may displace it like any pending connection.
  const isLetIn = () => server.stdout().includes(`"stream":"${stream}"`);
  await until("the honest sender's beginning", () => isLetIn() && link.relay.bytes > 1000);
  return {
    get bytes() {
      return link.relay.bytes;
    },
    async finish() {
      expect(sender.child.exitCode).toBeNull();
      link.relay.limit(1e9);
      const sent = await sender.ended();
      expectCode(sent, 0);
      const all = { frames: honestFrames, refused: 0, lost: 0, retries: 0 };
      expect(summaryOf(sent)).toMatchObject(all);
      expect(sameTree(tree, join(store, stream))).toEqual([]);
    },
    [Symbol.dispose]() {
      sender[Symbol.dispose]();
      link[Symbol.dispose]();
    },
  };
}
