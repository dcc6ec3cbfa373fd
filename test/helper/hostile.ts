// A peer that keeps to no rule, the honest sender beside it, and what may have changed around a store.
// Its bytes are built here from SPEC.md alone: what builds those of `frames` could not break the rules.

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

/** Text, which stands for its UTF-8, or bytes. */
export type Part = string | Uint8Array;

export const preface: Buffer = Buffer.from("FRAMES/1");
export const MORE = 0x01;
export const OPTIONAL = 0x80;

/** What is usual of a message, and may be wrong. */
interface Heading {
  source?: number;
  flags?: number;
  length?: number;
  crc?: number;
  payload?: Part;
}

const asBytes = (part: Part): Buffer => Buffer.from(part as string);

/** Any message (SPEC section 3). */
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

/** A message whose body is JSON, or what passes for it. */
export function json(kind: number, body: object | Part, source = 0, heading: Heading = {}): Buffer {
  const isText = typeof body === "string" || body instanceof Uint8Array;
  return message(kind, isText ? body : JSON.stringify(body), { source, ...heading });
}

/** SOURCE; of id 1 where nothing else is said. */
export const source = (name: string, id = 1, fields: object = {}): Buffer =>
  json(type.SOURCE, { name, ...fields }, id);

export const end = (frames: number): Buffer => json(type.END, { frames });

/** What is said of a frame; what is not is right. */
export interface FrameFields extends Heading {
  name?: Part;
  sequence?: number | bigint;
  size?: number | bigint;
  metadata?: Part;
  payloadCrc?: number;
  nameLength?: number;
  metadataLength?: number;
}

/** FRAME (SPEC section 5). */
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

/** DATA; `before` is the payload of the pieces before it. */
export function data(payload: Part, before: Part, fields: FrameFields = {}): Buffer {
  const crc = Buffer.alloc(4);
  const whole = Bun.hash.crc32(asBytes(payload), Bun.hash.crc32(asBytes(before)));
  crc.writeUInt32BE(fields.payloadCrc ?? whole);
  return message(type.DATA, crc, { source: 1, ...fields, payload });
}

// Connections.

/** Where to connect, and the key of whoever may. */
export interface Target {
  readonly port: number;
  readonly key?: KeyEntry | undefined;
  /** How long its log is by now. */
  logged?(): number;
}

/** HELLO, with a session of its own and the id of the key. */
export function hello({ key }: Target, fields: object = {}): Buffer {
  const session = randomBytes(16).toString("hex");
  const named = key === undefined ? {} : { key: key.key.id };
  return json(type.HELLO, { role: "send", session, stream: "s", ...named, ...fields });
}

/** One connection, over TLS where the target has a key. */
export class Peer {
  readonly #key: KeyEntry | undefined;
  #socket: Bun.Socket<undefined> | undefined;
  #exporter: Uint8Array = new Uint8Array(0);
  #waiting: Buffer[] = [];
  readonly #heard: Uint8Array[] = [];
  /** Bytes that the system took. */
  taken = 0;
  /** Whether the server has closed its sending side. */
  hasHeardAll = false;
  isClosed = false;
  /** How the server's log calls it, from here on: ports are used again. */
  name = "";
  loggedFrom = 0;

  private constructor(key: KeyEntry | undefined) {
    this.#key = key;
  }

  /**
   * Connects; over TLS it has then shaken hands. Who is `deaf` reads nothing; who is `stubborn` does not
   * close when the server has.
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

  /** `preface` and HELLO as given, and what proves the key. */
  greeting(said: Buffer): Buffer {
    return Buffer.concat([said, ...(this.#key === undefined ? [] : [this.proof(said)])]);
  }

  /** PROOF (SPEC section 10) after these bytes. */
  proof(said: Uint8Array): Buffer {
    const hmac = createHmac("sha256", this.#key!.key.bytes).update("FRAMES/1 client");
    return message(type.PROOF, hmac.update(this.#exporter).update(said).digest());
  }

  write(bytes: Uint8Array): void {
    this.#waiting.push(Buffer.from(bytes));
    if (this.#waiting.length === 1) this.#flush();
  }

  /** Bytes that the system has not taken. */
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

  /** What came, as bytes. */
  get bytes(): Buffer {
    return Buffer.concat(this.#heard);
  }

  /** What came, if that began as the protocol does. */
  messages(): DecodedMessage[] {
    const { bytes } = this;
    if (!bytes.subarray(0, 8).equals(preface)) return [];
    return decodeAll(bytes.subarray(8)).messages;
  }

  /** The bodies of the messages of a type. */
  bodies(kind: number): Json[] {
    const found = this.messages().filter((heard) => heard.type === kind);
    return found.map((heard) => (heard as JsonMessage).json as Json);
  }

  /** How it ended: the name of ERROR, `done`, or `closed` where nothing was said of it. */
  get outcome(): ErrorName | "done" | "closed" {
    const last = this.messages().at(-1) as JsonMessage | undefined;
    if (last?.type === type.DONE) return "done";
    if (last?.type !== type.ERROR) return "closed";
    return errorByNumber((last.json as { error: number }).error, "end");
  }

  /** Names of the errors by which frames were refused. */
  get refusals(): ErrorName[] {
    return this.bodies(type.REFUSED).map(({ error }) => errorByNumber(Number(error), "refusal"));
  }

  /** Sends FIN: it says nothing more. */
  finish(): void {
    this.#socket!.shutdown();
  }

  /** Closes, with RST. */
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

/** Connects and says preface, HELLO, proof and what follows, all in one write. */
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

// A server with a guard around its store, and an honest sender.

/** A server whose store lies in a folder that nobody may change otherwise. */
export interface GuardedServer extends Target, Disposable {
  readonly server: Server;
  /** The folder around the store. */
  readonly around: string;
  readonly store: string;
  /** The file with the key, as `frames send` takes it. */
  readonly keyWords: string[];
  /** Lines of its log about a peer. */
  lines(peer: { name: string; loggedFrom: number }, kind: string): Json[];
  /** That nothing but the store was changed, and that it needed little memory so far. */
  expectUnharmed(): void;
  /** That it stops in order, and that its log holds nothing that a terminal would obey. */
  stop(): Promise<void>;
}

/** What is more memory than a server may need, in bytes. */
const tooMuch = 250e6;

/** How a server is started. */
export interface GuardedOptions {
  /** Whether it asks for keys. */
  isKeyed: boolean;
  args?: string[];
  /** Where its page is; nowhere unless it is said. */
  http?: string;
  /** Keys that it has beside that of the peer. */
  moreKeys?: KeyEntry[];
  /** Files that it may have open. */
  openFiles?: number;
}

/** Starts a server in a store that is guarded. */
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
      // What was half written is gone with its connection.
      expect(readdirSync(join(store, ".frames/partial"))).toEqual([]);
    },
    [Symbol.dispose]: () => rmSync(around, { recursive: true, force: true }),
  };
}

/** Everything in a folder but what is in `except`: what it is, how large, since when, and its bytes. */
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

/** What is in a folder: the text of its files; what else there is is named by its kind. */
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

// At the rate of its link these take ten minutes.
const honestFrames = 300;
const honestBytes = 100_000;
let honestTree: string | undefined;

/** A sender whose 300 frames are on their way as long as it is wanted. */
export interface HonestSender extends Disposable {
  /** Bytes that have passed so far. */
  readonly bytes: number;
  /** Lets it go on as fast as it can: it must have been under way until now, and deliver everything. */
  finish(): Promise<void>;
}

/** The stream of the honest sender. */
export const honestStream = "honest";

/** Starts `frames send` over a link that is too slow for it to end before it is told to. */
export async function honestSender(
  { server, store, keyWords }: GuardedServer,
  stream = honestStream,
): Promise<HonestSender> {
  honestTree ??= makeTree(manyFrames(honestFrames, honestBytes));
  const tree = honestTree;
  const link = await relayTo(server, { rate: 50_000 });
  const words = ["send", tree, "--stream", stream, "--to", link.to, "--json", ...keyWords];
  const sender = launch(words);
  // Before it is let in a crowd may send it away, as it may anybody.
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
