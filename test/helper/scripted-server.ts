/**
 * A server that sends anything a test wants, valid or not, and the result of `frames send` against
 * it.
 */
import { lstatSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

import { parseArguments } from "../../src/cli/args/arguments.ts";
import { sendCommand } from "../../src/cli/send.ts";
import { printError, type Terminal } from "../../src/cli/output/terminal.ts";
import { FramesError } from "../../src/errors.ts";
import { decodeAll } from "../wire/oracle.ts";
import { type DecodedMessage, message, type } from "../wire/vectors.ts";
import { environment, type Finished, makeTree, run } from "./program.ts";
import { within } from "./time.ts";

export const preface: Buffer = Buffer.from("FRAMES/1");

/** Builds a message with any body. Only its CRC-32 is correct. */
export function binary(
  number: number,
  body: string | Uint8Array = "",
  { flags = 0, source = 0 } = {},
): Buffer {
  return Buffer.from(
    message({ type: number, flags, source }, Buffer.from(body).toString("hex")),
    "hex",
  );
}

/** Builds a message with a JSON body. */
export function json(number: number, body: object, source = 0): Buffer {
  return binary(number, JSON.stringify(body), { source });
}

/** Builds the header of a message whose body never follows. */
export function header(number: number, length: number, source = 0): Buffer {
  return Buffer.from(message({ type: number, flags: 0, source }, "", "", length), "hex");
}

export const window = { bytes: 1 << 26, frames: 1000 };
export const limits = { frame: 1 << 30, sources: 10, unfinished: 2 };

/** Builds the preface and a WELCOME that grants everything, with `fields` replaced. */
export function welcome(fields: object = {}): Buffer {
  const granted = { window, limits, durable: true, features: ["replace"], store: "/store" };
  return Buffer.concat([preface, json(type.WELCOME, { ...granted, ...fields })]);
}

export function receipt(frames: number | bigint): Buffer {
  const body = Buffer.alloc(8);
  body.writeBigUInt64BE(BigInt(frames));
  return binary(type.RECEIPT, body);
}

export function done(frames: number, fields: object = {}): Buffer {
  const counts = { frames, stored: frames, present: 0, refused: 0, aborted: 0 };
  return json(type.DONE, { ...counts, ...fields });
}

export function error(number: number, text = "as the test wants it"): Buffer {
  return json(type.ERROR, { error: number, message: text });
}

export function refused(sequence: number, number = 36, text = "no room", source = 1): Buffer {
  return json(type.REFUSED, { sequence, error: number, message: text }, source);
}

/** The server side of one connection. */
export class Peer {
  /** Index of the connection among those of the same sender, from 0. */
  readonly turn: number;
  isClosed = false;
  readonly #socket: Bun.Socket<Peer | undefined>;
  readonly #heard: DecodedMessage[] = [];
  #rest: Uint8Array = new Uint8Array(0);
  #waiting: Uint8Array[] = [];
  #isReading = true;
  #isEnding = false;
  #changed = Promise.withResolvers<void>();

  constructor(socket: Bun.Socket<Peer | undefined>, turn: number) {
    this.#socket = socket;
    this.turn = turn;
  }

  /** Sends bytes in one write. */
  say(...parts: Uint8Array[]): void {
    this.#waiting.push(Buffer.concat(parts));
    this.flush();
  }

  /** Sends bytes one at a time: each in a turn of the event loop, or `pauseMs` after the last. */
  async drip(bytes: Uint8Array, pauseMs?: number): Promise<void> {
    for (let at = 0; at < bytes.length && !this.isClosed; at++) {
      this.say(bytes.subarray(at, at + 1));
      await (pauseMs === undefined ? new Promise(setImmediate) : Bun.sleep(pauseMs));
    }
  }

  /** Sends the same bytes repeatedly, as fast as the sender reads, up to `total` bytes. */
  async flood(bytes: Uint8Array, total: number): Promise<void> {
    for (let sent = 0; sent < total; sent += bytes.length) {
      this.say(bytes);
      await this.#until(() => this.#waiting.length === 0);
      // Lets other servers in this process run.
      await new Promise(setImmediate);
    }
  }

  /** Waits until this many messages of a type have arrived. */
  async hears(number: number, count = 1): Promise<void> {
    await this.#until(() => this.#heard.filter((heard) => heard.type === number).length >= count);
  }

  /** Returns the bodies of all JSON messages of a type. */
  heard(number: number): object[] {
    return this.#heard.flatMap((one) => (one.type === number && "json" in one ? [one.json] : []));
  }

  /** Confirms all frames of the sender, following the protocol. */
  async agree(frames = 3, ...before: Uint8Array[]): Promise<void> {
    await this.hears(type.END);
    this.say(...before, receipt(frames), done(frames));
  }

  /** Stops reading. */
  ignore(): void {
    this.#isReading = false;
    this.#socket.pause();
  }

  /** Sends FIN after all data, and continues to read. */
  end(): void {
    this.#isEnding = true;
    this.flush();
  }

  reset(): void {
    this.#socket.terminate();
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.isClosed) throw new Error("The sender has closed the connection");
      await this.#changed.promise;
    }
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  // Socket events.

  flush(): void {
    for (let bytes; (bytes = this.#waiting[0]) !== undefined; this.#waiting.shift()) {
      const written = this.isClosed ? bytes.length : Math.max(0, this.#socket.write(bytes));
      if (written < bytes.length) {
        this.#waiting[0] = bytes.subarray(written);
        return;
      }
    }
    if (this.#isEnding) this.#socket.shutdown();
    this.#wake();
  }

  received(chunk: Uint8Array): void {
    if (!this.#isReading) return;
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const begin = this.#heard.length === 0 ? preface.length : 0;
    const { messages, consumed } = decodeAll(this.#rest.subarray(begin));
    if (messages.length === 0) return;
    this.#heard.push(...messages);
    this.#rest = this.#rest.subarray(begin + consumed);
    this.#wake();
  }

  closed(): void {
    this.isClosed = true;
    this.#wake();
  }
}

/** Handles one connection. */
export type Script = (peer: Peer) => unknown;

/** Result of a delivery to a hostile server. */
export interface Outcome extends Finished {
  connections: number;
  /** Files that still exist, and files that were changed. */
  left: string[];
  changed: string[];
}

/** Three frames of one source. */
export const three = { "visible/1.png": 1000, "visible/2.png": 1000, "visible/3.png": 1000 };
export const names: string[] = Object.keys(three);

/** Characters that control a terminal or make text misleading. */
export const escapes = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202egnp.exe\x00\x7f";
export const long: string = "x".repeat(60_000);

/** Runs `frames send --json` against a server that runs `script` on each connection. */
export async function sendTo(
  script: Script,
  { args = [] as string[], files = three as Record<string, number>, isHere = false } = {},
): Promise<Outcome> {
  let connections = 0;
  const faults: unknown[] = [];
  const listener = Bun.listen<Peer | undefined>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        const peer = (socket.data = new Peer(socket, connections++));
        // Errors because the sender closes early are expected in most scripts.
        void (async () => script(peer))().catch((fault: unknown) => {
          if (!peer.isClosed) faults.push(fault);
        });
      },
      data: (socket, chunk) => socket.data?.received(chunk),
      drain: (socket) => socket.data?.flush(),
      end: (socket) => void socket.end(),
      close: (socket) => socket.data?.closed(),
      error() {},
    },
  });
  const folder = makeTree(files);
  const before = look(folder);
  try {
    const words = ["send", folder, "--to", `127.0.0.1:${listener.port}`, "--json", ...args];
    const finished = await (isHere ? runHere(words) : run(words));
    if (faults.length > 0) throw faults[0];
    const after = look(folder);
    const changed = [...after.keys()].filter((name) => after.get(name) !== before.get(name));
    return { ...finished, connections, left: [...after.keys()], changed };
  } finally {
    listener.stop(true);
    rmSync(join(folder, ".."), { recursive: true, force: true });
  }
}

/** Runs `frames send` in this process; main.ts does the same in the executable. */
async function runHere([, ...words]: string[]): Promise<Finished> {
  const [out, err]: [string[], string[]] = [[], []];
  const terminal: Terminal = {
    out: (text) => void out.push(text),
    err: (text) => void err.push(text),
    isLive: false,
    size: () => ({ columns: 80, rows: 24 }),
    colours: false,
    end: async () => {},
  };
  const stop = { graceful: new AbortController().signal, immediate: new AbortController().signal };
  let code: number;
  try {
    const given = parseArguments("send", words, environment());
    const signals = { stopOnSignal: () => stop, reportOnSignal: () => {} };
    const command = sendCommand(given, terminal, signals);
    code = await within(command, () => `frames send ${words.join(" ")} did not end`);
  } catch (error) {
    if (!(error instanceof FramesError) || error.code === "internal") throw error;
    printError(terminal, error.message, error.code);
    code = error.exitCode;
  }
  const stdout = out.join("");
  return { code, stdout, stderr: err.join(""), output: Buffer.from(stdout), peakMemory: 0 };
}

/** Returns the files below a folder with their metadata and content. */
function look(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
  const found = new Map<string, string>();
  for (const name of names) {
    const path = join(folder, name);
    const { mode, mtimeMs, size } = lstatSync(path);
    if (lstatSync(path).isDirectory()) continue;
    found.set(name, `${mode} ${mtimeMs} ${size} ${Bun.hash(readFileSync(path))}`);
  }
  return found;
}
