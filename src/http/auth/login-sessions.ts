/** Logins of browsers by key, in memory: they end with the server, with their key, and by themselves. */
import type { HttpKey } from "./access.ts";
import { digest, createSecret, type RandomBytes } from "./secrets.ts";

/** A login that nobody uses ends after so many milliseconds, and any after so many. */
const maxIdleMs = 12 * 3_600_000;
const maxAgeMs = 7 * 86_400_000;

/** Seconds that a browser may keep it. */
export const cookieMaxAgeSeconds = maxAgeMs / 1000;

/** So many of one key are kept; the one that was not used for longest goes for a new one. */
const maxLoginsPerKey = 100;

/** A browser that is let in. */
export interface LoginSession {
  readonly key: HttpKey;
  readonly controller: AbortController;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  lastUsedAt: number;
}

/** When a login ends unless it is used before, in milliseconds since 1970. */
export function expiresAt({ createdAt, lastUsedAt }: LoginSession): number {
  return Math.min(createdAt + maxAgeMs, lastUsedAt + maxIdleMs);
}

export class LoginSessions {
  readonly #random: RandomBytes;
  /** By the digest of what the cookie says: the memory of a server shows no cookie. */
  readonly #sessions = new Map<string, LoginSession>();

  constructor(random: RandomBytes) {
    this.#random = random;
  }

  /** Begins one. @returns it, with what its cookie says */
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

  /** The login of a cookie, which is used by that. */
  touch(secret: string, now: number): LoginSession | undefined {
    const hash = digest(secret);
    const login = this.#sessions.get(hash);
    if (login === undefined) return undefined;
    if (now >= expiresAt(login)) return void this.#remove(hash);
    login.lastUsedAt = now;
    return login;
  }

  /** Ends the login of a cookie, if there is one. */
  remove(secret: string): void {
    this.#remove(digest(secret));
  }

  #remove(hash: string): void {
    this.#sessions.get(hash)?.controller.abort();
    this.#sessions.delete(hash);
  }

  /** Ends what is over, and what hangs on a key that is not held. */
  sweepExpired(now: number, isValid: (key: HttpKey) => boolean): void {
    for (const [hash, login] of this.#sessions) {
      if (now >= expiresAt(login) || !isValid(login.key)) this.#remove(hash);
    }
  }
}
