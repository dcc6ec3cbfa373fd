/**
 * Tokens for programs that know neither keys nor cookies (OpenCV, VLC, Prometheus): each can look at one
 * source, stands in an address, and ends by itself, with the key that made it, with the server, or earlier.
 */
import { FramesError } from "../../errors.ts";
import type { HttpKey } from "./access.ts";
import { digest, createSecret, type RandomBytes } from "./secrets.ts";

/** What every token begins with, so that people and scanners of secrets know one. */
const tokenPrefix = "frames_token_";

/** So many of one key are kept. */
const maxTokensPerKey = 100;

/** Which source a token is for, and how long it lasts. Times are milliseconds since 1970. */
export interface AccessToken {
  readonly id: string;
  readonly stream: string;
  readonly source: string;
  readonly key: HttpKey;
  readonly created: number;
  readonly expires: number;
  readonly controller: AbortController;
}

/** What a token is wanted for. */
export type NewToken = Pick<AccessToken, "stream" | "source" | "key" | "created" | "expires">;

export class AccessTokens {
  readonly #random: RandomBytes;
  /** By the digest of their text. */
  readonly #tokens = new Map<string, AccessToken>();

  constructor(random: RandomBytes) {
    this.#random = random;
  }

  /**
   * Makes one. @returns it, with its text, which cannot be had again
   *
   * @throws {FramesError} `full`
   */
  create(newToken: NewToken): { token: AccessToken; text: string } {
    if (this.list(newToken.key, newToken.created).length >= maxTokensPerKey) {
      const hint = "DELETE /api/tokens/ID revokes one";
      throw new FramesError("full", `A key can have ${maxTokensPerKey} tokens at a time: ${hint}`);
    }
    const id = Buffer.from(this.#random(8)).toString("hex");
    const text = tokenPrefix + createSecret(this.#random);
    const token: AccessToken = { ...newToken, id, controller: new AbortController() };
    this.#tokens.set(digest(text), token);
    return { token, text };
  }

  /** The token of this text, if it still holds. */
  find(text: string, now: number): AccessToken | undefined {
    const token = this.#tokens.get(digest(text));
    return token !== undefined && now < token.expires ? token : undefined;
  }

  /** Those that a key made and that still hold, the oldest first. */
  list(key: HttpKey, now: number): AccessToken[] {
    return [...this.#tokens.values()].filter(
      (token) => token.key.id === key.id && now < token.expires,
    );
  }

  /** Revokes one of a key; whether there was one. */
  revoke(id: string, key: HttpKey): boolean {
    for (const [hash, token] of this.#tokens) {
      if (token.id !== id || token.key.id !== key.id) continue;
      this.#remove(hash, token);
      return true;
    }
    return false;
  }

  /** Ends what is over, and what hangs on a key that is not held. */
  sweepExpired(now: number, isValid: (key: HttpKey) => boolean): void {
    for (const [hash, token] of this.#tokens) {
      if (now >= token.expires || !isValid(token.key)) this.#remove(hash, token);
    }
  }

  #remove(hash: string, token: AccessToken): void {
    this.#tokens.delete(hash);
    token.controller.abort();
  }
}

/** Whether a text is meant as a token. */
export function isToken(text: string): boolean {
  return text.startsWith(tokenPrefix);
}

/** The path of what a source shows last, each part encoded by itself. */
export function latestPath(
  stream: string,
  source: string,
  hash: "latest" | "latest.mjpeg",
): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}/${hash}`;
}

/** Whether a path is one that a token lets its holder read. */
export function isAllowedByToken(path: string, { stream, source }: AccessToken): boolean {
  if (path === "/metrics") return true;
  const expected = ["", "streams", stream, "sources", ...source.split("/")];
  const parts = path.split("/").map(decodePart);
  const last = parts.pop();
  const isLatest = last === "latest" || last === "latest.mjpeg";
  return (
    isLatest &&
    parts.length === expected.length &&
    parts.every((part, index) => part === expected[index])
  );
}

/** A part of a path; nothing if it is not UTF-8. */
function decodePart(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
