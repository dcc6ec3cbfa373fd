// A server with a page, and a camera that a test triggers.

import { join } from "node:path";
import { FrameFeed, send, type SendOptions, serve, type ServeOptions, type Server } from "frames";
import { temporaryFolder } from "./program.ts";
import { until } from "./time.ts";

/** A server in this process, with a page. */
export interface Viewed {
  readonly server: Server;
  /** `http://HOST:PORT` */
  readonly base: string;
  /** Requests a path below `base`. */
  get(path: string, options?: RequestInit): Promise<Response>;
  json<T = any>(path: string): Promise<T>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startViewed(
  options: ServeOptions = {},
  directory = join(temporaryFolder(), "store"),
): Promise<Viewed> {
  const server = await serve(directory, {
    listen: "127.0.0.1:0",
    http: "127.0.0.1:0",
    reserve: 0,
    ...options,
  });
  const base = `http://${server.http}`;
  const get = (path: string, init?: RequestInit) => fetch(`${base}${path}`, init);
  return {
    server,
    base,
    get,
    async json<T>(path: string) {
      const answer = await get(path);
      if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
      return (await answer.json()) as T;
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** A source that sends the frames given by a test. */
export class Camera {
  readonly #feed = new FrameFeed();
  readonly #sent: Promise<unknown>;
  readonly #server: Pick<Server, "address" | "http">;
  readonly stream: string;
  readonly source: string;
  /** Number of frames given so far. */
  count = 0;

  constructor(
    server: Pick<Server, "address" | "http">,
    stream: string,
    source: string,
    options: Partial<SendOptions> = {},
  ) {
    this.#server = server;
    this.stream = stream;
    this.source = source;
    this.#sent = send(this.#feed, { to: server.address, stream, source, ...options });
    this.#sent.catch(() => {});
  }

  /** Sends a frame. Default name: its number. */
  give(bytes: Uint8Array, name = `${this.count + 1}.jpg`, captured?: bigint): void {
    this.count++;
    this.#feed.push({ bytes, name, ...(captured === undefined ? {} : { captured }) });
  }

  /** Sends a frame and waits until it is in the journal. */
  async store(bytes: Uint8Array, name?: string, captured?: bigint): Promise<void> {
    this.give(bytes, name, captured);
    await this.arrived();
  }

  /** Waits until all frames are in the journal. */
  async arrived(): Promise<void> {
    const { stream, source, count } = this;
    const query = `source=${encodeURIComponent(source)}&number=${count}`;
    const url = `http://${this.#server.http}/api/streams/${encodeURIComponent(stream)}/frames?${query}`;
    await until(`frame ${count}`, async () => {
      const { frames } = (await (await fetch(url)).json()) as { frames: unknown[] };
      return frames.length > 0;
    });
  }

  async end(): Promise<void> {
    this.#feed.end();
    await this.#sent;
  }
}

/** Returns a grey JPEG with a bright square. */
export async function jpeg(shade = 128, width = 64, height = 48): Promise<Uint8Array> {
  const row = (width * 3 + 3) & ~3;
  const bmp = Buffer.alloc(54 + row * height, shade);
  bmp.fill(0, 0, 54);
  bmp.write("BM");
  bmp.writeUInt32LE(bmp.length, 2);
  bmp.writeUInt32LE(54, 10);
  bmp.writeUInt32LE(40, 14);
  bmp.writeInt32LE(width, 18);
  bmp.writeInt32LE(height, 22);
  bmp.writeUInt16LE(1, 26);
  bmp.writeUInt16LE(24, 28);
  return await new Bun.Image(bmp).jpeg({ quality: 90 }).bytes();
}

/** Yields the parts of a multipart response. */
export async function* parts(
  answer: Response,
): AsyncGenerator<{ headers: Map<string, string>; body: Uint8Array }> {
  let held: Buffer = Buffer.alloc(0);
  for await (const chunk of answer.body!) {
    held = Buffer.concat([held, chunk]);
    for (;;) {
      const start = held.indexOf("Content-Type");
      const end = held.indexOf("\r\n\r\n", start);
      if (start < 0 || end < 0) break;
      const headers = new Map(
        held
          .subarray(start, end)
          .toString()
          .split("\r\n")
          .map((line) => line.split(": ") as [string, string]),
      );
      const length = Number(headers.get("Content-Length"));
      const body = end + 4;
      if (held.length < body + length + 2) break;
      yield { headers, body: new Uint8Array(held.subarray(body, body + length)) };
      held = held.subarray(body + length + 2);
    }
  }
}
