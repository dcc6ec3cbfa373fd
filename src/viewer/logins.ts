/** Logins of browsers by key, in memory: they end with the server, with their key, and by themselves. */
import type { ViewerKey } from "./access.ts";
import { digest, newSecret, type Random } from "./secrets.ts";

/** A login that nobody uses ends after so many milliseconds, and any after so many. */
const longestIdle = 12 * 3_600_000;
const longest = 7 * 86_400_000;

/** Seconds that a browser may keep it. */
export const longestSeconds = longest / 1000;

/** So many of one key are kept; the one that was not used for longest goes for a new one. */
const mostOfKey = 100;

/** A browser that is let in. */
export interface Login {
  readonly key: ViewerKey;
  readonly ended: AbortController;
  /** Milliseconds since 1970. */
  readonly began: number;
  used: number;
}

/** When a login ends unless it is used before, in milliseconds since 1970. */
export function endOf({ began, used }: Login): number {
  return Math.min(began + longest, used + longestIdle);
}

export class Logins {
  readonly #random: Random;
  /** By the digest of what the cookie says: the memory of a server shows no cookie. */
  readonly #logins = new Map<string, Login>();

  constructor(random: Random) {
    this.#random = random;
  }

  /** Begins one. @returns it, with what its cookie says */
  begin(key: ViewerKey, now: number): { login: Login; secret: string } {
    const others = [...this.#logins].filter(([, login]) => login.key.id === key.id);
    if (others.length >= mostOfKey) {
      const [oldest] = others.reduce((a, b) => (b[1].used < a[1].used ? b : a));
      this.#end(oldest);
    }
    const secret = newSecret(this.#random);
    const login: Login = { key, ended: new AbortController(), began: now, used: now };
    this.#logins.set(digest(secret), login);
    return { login, secret };
  }

  /** The login of a cookie, which is used by that. */
  use(secret: string, now: number): Login | undefined {
    const name = digest(secret);
    const login = this.#logins.get(name);
    if (login === undefined) return undefined;
    if (now >= endOf(login)) return void this.#end(name);
    login.used = now;
    return login;
  }

  /** Ends the login of a cookie, if there is one. */
  end(secret: string): void {
    this.#end(digest(secret));
  }

  #end(name: string): void {
    this.#logins.get(name)?.ended.abort();
    this.#logins.delete(name);
  }

  /** Ends what is over, and what hangs on a key that is not held. */
  look(now: number, isHeld: (key: ViewerKey) => boolean): void {
    for (const [name, login] of this.#logins) {
      if (now >= endOf(login) || !isHeld(login.key)) this.#end(name);
    }
  }
}
