/**
 * Tokens for programs that know neither keys nor cookies (OpenCV, VLC, Prometheus): each can look at one
 * source, stands in an address, and ends by itself, with the key that made it, with the server, or earlier.
 */
import { FramesError } from "../errors.ts";
import type { ViewerKey } from "./access.ts";
import { digest, newSecret, type Random } from "./secrets.ts";

/** What every token begins with, so that people and scanners of secrets know one. */
const prefix = "frames_token_";

/** So many of one key are kept. */
const mostOfKey = 100;

/** Which source a token is for, and how long it lasts. Times are milliseconds since 1970. */
export interface Token {
  readonly id: string;
  readonly stream: string;
  readonly source: string;
  readonly key: ViewerKey;
  readonly created: number;
  readonly expires: number;
  readonly ended: AbortController;
}

/** What a token is wanted for. */
export type Wish = Pick<Token, "stream" | "source" | "key" | "created" | "expires">;

export class Tokens {
  readonly #random: Random;
  /** By the digest of their text. */
  readonly #tokens = new Map<string, Token>();

  constructor(random: Random) {
    this.#random = random;
  }

  /**
   * Makes one. @returns it, with its text, which cannot be had again
   *
   * @throws {FramesError} `full`
   */
  make(wish: Wish): { token: Token; text: string } {
    if (this.of(wish.key, wish.created).length >= mostOfKey) {
      const hint = "DELETE /api/tokens/ID revokes one";
      throw new FramesError("full", `A key can have ${mostOfKey} tokens at a time: ${hint}`);
    }
    const id = Buffer.from(this.#random(8)).toString("hex");
    const text = prefix + newSecret(this.#random);
    const token: Token = { ...wish, id, ended: new AbortController() };
    this.#tokens.set(digest(text), token);
    return { token, text };
  }

  /** The token of this text, if it still holds. */
  find(text: string, now: number): Token | undefined {
    const token = this.#tokens.get(digest(text));
    return token !== undefined && now < token.expires ? token : undefined;
  }

  /** Those that a key made and that still hold, the oldest first. */
  of(key: ViewerKey, now: number): Token[] {
    return [...this.#tokens.values()].filter(
      (token) => token.key.id === key.id && now < token.expires,
    );
  }

  /** Revokes one of a key; whether there was one. */
  revoke(id: string, key: ViewerKey): boolean {
    for (const [name, token] of this.#tokens) {
      if (token.id !== id || token.key.id !== key.id) continue;
      this.#end(name, token);
      return true;
    }
    return false;
  }

  /** Ends what is over, and what hangs on a key that is not held. */
  look(now: number, isHeld: (key: ViewerKey) => boolean): void {
    for (const [name, token] of this.#tokens) {
      if (now >= token.expires || !isHeld(token.key)) this.#end(name, token);
    }
  }

  #end(name: string, token: Token): void {
    this.#tokens.delete(name);
    token.ended.abort();
  }
}

/** Whether a text is meant as a token. */
export function isToken(text: string): boolean {
  return text.startsWith(prefix);
}

/** The path of what a source shows last, each part encoded by itself. */
export function latestPath(
  stream: string,
  source: string,
  name: "latest" | "latest.mjpeg",
): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}/${name}`;
}

/** Whether a path is one that a token lets its holder read. */
export function isForToken(path: string, { stream, source }: Token): boolean {
  if (path === "/metrics") return true;
  const wanted = ["", "streams", stream, "sources", ...source.split("/")];
  const parts = path.split("/").map(decoded);
  const last = parts.pop();
  const isLatest = last === "latest" || last === "latest.mjpeg";
  return (
    isLatest && parts.length === wanted.length && parts.every((part, at) => part === wanted[at])
  );
}

/** A part of a path; nothing if it is not UTF-8. */
function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
