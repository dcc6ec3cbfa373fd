// A raw HTTP client: writes bytes to a socket and returns the reply. Browsers cannot send such
// requests.

import { within } from "./time.ts";

/** Reply of a server, and whether it closed the connection. */
export interface RawAnswer {
  /** Status of the first response; 0 if there was none. */
  readonly status: number;
  /** Headers by lower-case name. */
  readonly headers: Readonly<Record<string, string>>;
  /** All bytes received, as latin1. */
  readonly text: string;
  /** Everything after the head of the first response. */
  readonly body: string;
  /** Number of responses. */
  readonly answers: number;
  readonly isClosed: boolean;
}

/** How to send a request. */
export interface Saying {
  /** Sends this piece every `every` milliseconds after the rest. */
  readonly drip?: { readonly piece: string; readonly every: number };
  /**
   * Whether to return after the head of a response without a length, because its body never ends.
   */
  readonly headOnly?: boolean;
}

/**
 * Sends these bytes (text is latin1). Waits until the response is complete or the server closes.
 */
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
  // With this header the end of the response is the end of the connection.
  if (headers["connection"] === "close") return false;
  return length !== undefined && body.length >= Number(length);
}

/** Builds an HTTP/1.1 request from its first line, headers and body. */
export function request(line: string, headers: readonly string[] = [], body = ""): string {
  return [`${line} HTTP/1.1`, ...headers, "", body].join("\r\n");
}
