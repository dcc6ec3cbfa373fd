/**
 * Access tokens for programs that use neither a key nor a cookie (OpenCV, VLC, Prometheus, Foxglove).
 * A token reads one source, or the live sources of Foxglove, and is part of a URL.
 * It expires, can be revoked, and ends with its key or with the server.
 */
import { FramesError } from "../../errors.ts";
import type { HttpKey } from "./access.ts";
import { digest, createSecret, type RandomBytes } from "./secrets.ts";

/** Prefix of every token, so that people and secret scanners recognize it. */
const tokenPrefix = "frames_token_";

/** Limit of valid tokens per key. */
const maxTokensPerKey = 100;

/**
 * A token and its scope: one source of one stream. Without a source the token is for Foxglove, and
 * reads the whole stream; without a stream, all that its key may read. Times are in ms since 1970.
 */
export interface AccessToken {
  readonly id: string;
  readonly stream: string | undefined;
  readonly source: string | undefined;
  readonly key: HttpKey;
  readonly created: number;
  readonly expires: number;
  readonly controller: AbortController;
}

/** Scope, key and lifetime of a token to be created. */
export type NewToken = Pick<AccessToken, "stream" | "source" | "key" | "created" | "expires">;

export class AccessTokens {
  readonly #random: RandomBytes;
  /** Tokens by the digest of their text. */
  readonly #tokens = new Map<string, AccessToken>();

  constructor(random: RandomBytes) {
    this.#random = random;
  }

  /**
   * Creates a token.
   *
   * @returns the token and its text; the text is not stored and cannot be read again
   * @throws {FramesError} `full` if the key has the maximum number of tokens
   */
  create(newToken: NewToken): { token: AccessToken; text: string } {
    if (this.list(newToken.key, newToken.created).length >= maxTokensPerKey) {
      const hint = "revoke one with DELETE /api/tokens/ID";
      throw new FramesError(
        "full",
        `Cannot make another token: the limit is ${maxTokensPerKey} a key; ${hint}`,
      );
    }
    const id = Buffer.from(this.#random(8)).toString("hex");
    const text = tokenPrefix + createSecret(this.#random);
    const token: AccessToken = { ...newToken, id, controller: new AbortController() };
    this.#tokens.set(digest(text), token);
    return { token, text };
  }

  /** Returns the token with this text, or undefined if it is unknown or expired. */
  find(text: string, now: number): AccessToken | undefined {
    const token = this.#tokens.get(digest(text));
    return token !== undefined && now < token.expires ? token : undefined;
  }

  /** Returns the unexpired tokens that `key` created, oldest first. */
  list(key: HttpKey, now: number): AccessToken[] {
    return [...this.#tokens.values()].filter(
      (token) => token.key.id === key.id && now < token.expires,
    );
  }

  /** Revokes a token of `key`. Returns false if the key has no token with this id. */
  revoke(id: string, key: HttpKey): boolean {
    for (const [hash, token] of this.#tokens) {
      if (token.id !== id || token.key.id !== key.id) continue;
      this.#remove(hash, token);
      return true;
    }
    return false;
  }

  /** Removes and aborts tokens that have expired or whose key is no longer valid. */
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

/** Returns whether `text` has the token prefix. Does not check that the token exists. */
export function isToken(text: string): boolean {
  return text.startsWith(tokenPrefix);
}

/** Returns the path of a source's `latest` or `latest.mjpeg`, percent-encoding each part. */
export function latestPath(
  stream: string,
  source: string,
  endpoint: "latest" | "latest.mjpeg",
): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}/${endpoint}`;
}

/** Last part of the addresses of a source's newest frames. */
const newestPaths: ReadonlySet<string | undefined> = new Set([
  "latest",
  "latest.jpg",
  "latest.mjpeg",
  "latest.h264",
  "latest.h265",
]);

/** Path of Foxglove's WebSocket. A page of another site may open it with a token. */
export const foxglovePath = "/foxglove";

/**
 * Returns whether the token may read `path`: the newest frames of its source, or
 * `/metrics`; without a source, `/foxglove`.
 */
export function isAllowedByToken(path: string, { stream, source }: AccessToken): boolean {
  if (stream === undefined || source === undefined) return path === foxglovePath;
  if (path === "/metrics") return true;
  const expected = ["", "streams", stream, "sources", ...source.split("/")];
  const parts = path.split("/").map(decodePart);
  const last = parts.pop();
  return (
    newestPaths.has(last) &&
    parts.length === expected.length &&
    parts.every((part, index) => part === expected[index])
  );
}

/** Decodes a path part. Returns undefined if it is not valid percent-encoded UTF-8. */
function decodePart(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
