/**
 * Browser login sessions, in memory only. A session ends on expiry, with its key, or with the
 * server.
 */
import type { HttpKey } from "./access.ts";
import { digest, createSecret, type RandomBytes } from "./secrets.ts";

/** Lifetime of an unused session, and of any session. */
const maxIdleMs = 12 * 3_600_000;
const maxAgeMs = 7 * 86_400_000;

/** `Max-Age` of the login cookie. */
export const cookieMaxAgeSeconds = maxAgeMs / 1000;

/** Limit of sessions per key. At the limit, the least recently used session is removed. */
const maxLoginsPerKey = 100;

/** A logged-in browser. */
export interface LoginSession {
  readonly key: HttpKey;
  readonly controller: AbortController;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  lastUsedAt: number;
}

/** Returns when a session expires unless it is used before, in ms since 1970. */
export function expiresAt({ createdAt, lastUsedAt }: LoginSession): number {
  return Math.min(createdAt + maxAgeMs, lastUsedAt + maxIdleMs);
}

export class LoginSessions {
  readonly #random: RandomBytes;
  /** Sessions by the digest of the cookie value, so that server memory does not reveal cookies. */
  readonly #sessions = new Map<string, LoginSession>();

  constructor(random: RandomBytes) {
    this.#random = random;
  }

  /**
   * Creates a session, and removes the least recently used one of the key at the limit.
   *
   * @returns the session and the value of its cookie
   */
  create(key: HttpKey, now: number): { login: LoginSession; secret: string } {
    const others = [...this.#sessions].filter(([, login]) => login.key.id === key.id);
    if (others.length >= maxLoginsPerKey) {
      const [oldest] = others.reduce((a, b) => (b[1].lastUsedAt < a[1].lastUsedAt ? b : a));
      this.#remove(oldest);
    }
    const secret = createSecret(this.#random);
    const login: LoginSession = {
      key,
      controller: new AbortController(),
      createdAt: now,
      lastUsedAt: now,
    };
    this.#sessions.set(digest(secret), login);
    return { login, secret };
  }

  /**
   * Returns the session of a cookie value and restarts its idle time. Undefined if unknown or
   * expired.
   */
  touch(secret: string, now: number): LoginSession | undefined {
    const hash = digest(secret);
    const login = this.#sessions.get(hash);
    if (login === undefined) return undefined;
    if (now >= expiresAt(login)) return void this.#remove(hash);
    login.lastUsedAt = now;
    return login;
  }

  /** Ends the session of a cookie value, if it exists. */
  remove(secret: string): void {
    this.#remove(digest(secret));
  }

  #remove(hash: string): void {
    this.#sessions.get(hash)?.controller.abort();
    this.#sessions.delete(hash);
  }

  /** Ends sessions that have expired or whose key is no longer valid. */
  sweepExpired(now: number, isValid: (key: HttpKey) => boolean): void {
    for (const [hash, login] of this.#sessions) {
      if (now >= expiresAt(login) || !isValid(login.key)) this.#remove(hash);
    }
  }
}
