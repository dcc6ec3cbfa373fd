// HTTP as no browser speaks it: bytes into a socket, and what came back.

import { within } from "./time.ts";

/** What a server said, and whether it closed. */
export interface RawAnswer {
  /** Of the first answer; 0 where there was none. */
  readonly status: number;
  /** By their names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** All that came, byte by byte. */
  readonly text: string;
  /** What came after the head of the first answer. */
  readonly body: string;
  /** Answers to anything that was said. */
  readonly answers: number;
  readonly isClosed: boolean;
}

/** How something is said. */
export interface Saying {
  /** What is said piece by piece after the rest, one each so many milliseconds. */
  readonly drip?: { readonly piece: string; readonly every: number };
  /** Whether the head of an answer without a length is enough, since the rest never ends. */
  readonly headOnly?: boolean;
}

/** Says these bytes (text is latin1), and waits until the answer is whole or the server closes. */
export async function rawHttp(
  port: number,
  said: string | Uint8Array,
  { drip, headOnly = false }: Saying = {},
): Promise<RawAnswer> {
  const heard: Uint8Array[] = [];
  let isClosed = false;
  const { promise, resolve } = Promise.withResolvers<void>();
  let waiting = Buffer.from(said as string, "latin1");
  const flush = (socket: Bun.Socket): void => {
    if (waiting.length === 0) return;
    waiting = waiting.subarray(Math.max(0, socket.write(waiting)));
  };
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, chunk) {
        heard.push(chunk);
        if (isWhole(Buffer.concat(heard).toString("latin1"), headOnly)) resolve();
      },
      drain: flush,
      close() {
        isClosed = true;
        resolve();
      },
      error() {},
    },
  });
  flush(socket);
  const dripping =
    drip === undefined ? undefined : setInterval(() => socket.write(drip.piece), drip.every);
  const text = (): string => Buffer.concat(heard).toString("latin1");
  try {
    await within(promise, () => `No answer but: ${text()}`);
  } finally {
    clearInterval(dripping);
    socket.terminate();
  }
  return { ...readAnswer(text()), isClosed };
}

function readAnswer(text: string): Omit<RawAnswer, "isClosed"> {
  const end = text.indexOf("\r\n\r\n");
  const [first = "", ...lines] = text.slice(0, Math.max(0, end)).split("\r\n");
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  });
  return {
    status: Number(/^HTTP\/1\.1 (\d{3})/.exec(first)?.[1] ?? 0),
    headers: Object.fromEntries(headers),
    text,
    body: end < 0 ? "" : text.slice(end + 4),
    answers: text.split(/^HTTP\/1\.1 \d{3} /m).length - 1,
  };
}

function isWhole(text: string, headOnly: boolean): boolean {
  const { status, headers, body } = readAnswer(text);
  if (status === 0) return false;
  if (status === 204 || status === 304 || status === 101) return true;
  const length = headers["content-length"];
  if (headOnly && length === undefined) return true;
  // Whoever closes says so by closing.
  if (headers["connection"] === "close") return false;
  return length !== undefined && body.length >= Number(length);
}

/** A request of HTTP/1.1: its first line, its headers as given, and its body. */
export function request(line: string, headers: readonly string[] = [], body = ""): string {
  return [`${line} HTTP/1.1`, ...headers, "", body].join("\r\n");
}
