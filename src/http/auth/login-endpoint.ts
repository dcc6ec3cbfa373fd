/** `/login` and `/logout`: exchanges a key for an HttpOnly cookie. */
import type { AuthRequest, HttpKey } from "./access.ts";
import { usageError } from "../../errors.ts";
import { jsonResponse } from "../responses.ts";
import { readJsonBody } from "../request-body.ts";
import { isReachedByTls, parseHost } from "./origin-check.ts";
import type { Grant, SecretStore } from "./secrets.ts";

/** Lifetime of an unused login, and of any login. */
const maxIdleMs = 12 * 3_600_000;
const maxAgeMs = 7 * 86_400_000;

/** Limit of logins per key. At the limit, the least recently used one is removed. */
const maxLoginsPerKey = 100;

/** A logged-in browser. */
export interface Login extends Grant {
  lastUsedAt: number;
}

export class LoginEndpoint {
  readonly #isTls: boolean;
  readonly #logins: SecretStore<Login>;

  constructor(isTls: boolean, logins: SecretStore<Login>) {
    this.#isTls = isTls;
    this.#logins = logins;
  }

  /** Returns the login of the request's cookie and restarts its idle time. */
  find(req: AuthRequest): Login | undefined {
    const login = this.#logins.find(this.#readCookie(req), req.now);
    if (login === undefined) return undefined;
    login.lastUsedAt = req.now;
    login.expiresAt = Math.min(login.createdAt + maxAgeMs, req.now + maxIdleMs);
    return login;
  }

  /**
   * Handles `GET /login`: returns the current login.
   *
   * @param isNeeded whether the server has keys
   */
  status(req: AuthRequest, isNeeded: boolean): Response {
    return loginResponse(isNeeded, this.find(req));
  }

  /**
   * Handles `POST /login`: checks the key, creates a login and sets the cookie.
   *
   * @param findKey returns the key with this text, or throws; undefined on a server without keys
   * @throws {FramesError} `usage` if the body has no key
   */
  async logIn(
    req: AuthRequest,
    findKey: ((text: string) => HttpKey) | undefined,
  ): Promise<Response> {
    const body = await readJsonBody(req.request);
    if (findKey === undefined) return loginResponse(false, undefined);
    const text = body["key"];
    if (typeof text !== "string") {
      throw usageError('Cannot log in: the body is {"key": "frames_key_…"}');
    }
    const key = findKey(text.trim());
    this.#endLogin(req);
    const { now } = req;
    const others = this.#logins.ofKey(key, now);
    if (others.length >= maxLoginsPerKey) {
      this.#logins.remove(others.reduce((a, b) => (b.lastUsedAt < a.lastUsedAt ? b : a)));
    }
    const times = { createdAt: now, lastUsedAt: now, expiresAt: now + maxIdleMs };
    const login: Login = { key, controller: new AbortController(), ...times };
    const secret = this.#logins.add(login);
    const response = loginResponse(true, login);
    response.headers.set("Set-Cookie", this.#formatCookie(req, secret, maxAgeMs / 1000));
    return response;
  }

  /** Handles `POST /logout`. */
  logOut(req: AuthRequest): Response {
    this.#endLogin(req);
    const headers = { "Set-Cookie": this.#formatCookie(req, "", 0) };
    return new Response(null, { status: 204, headers });
  }

  #endLogin(req: AuthRequest): void {
    const login = this.#logins.find(this.#readCookie(req), req.now);
    if (login !== undefined) this.#logins.remove(login);
  }

  /**
   * Returns the cookie name for this host and port.
   * Browsers do not separate cookies by port, so two servers on one machine or behind `ssh -L` need
   * two names.
   * Browsers accept `__Host-` only over TLS, and other hosts of the domain cannot set it.
   */
  #cookieName({ request }: AuthRequest): string {
    const { port = "" } = parseHost(request.headers.get("host")) ?? {};
    return `${this.#isTls ? "__Host-" : ""}frames${port === "" ? "" : `-${port}`}`;
  }

  #formatCookie(req: AuthRequest, value: string, seconds: number): string {
    const secure = isReachedByTls(req.request, this.#isTls) ? "; Secure" : "";
    const name = this.#cookieName(req);
    return `${name}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
  }

  /** Returns the value of the login cookie; empty if there is none. */
  #readCookie(req: AuthRequest): string {
    const name = this.#cookieName(req);
    const cookies = [...new Bun.CookieMap(req.request.headers.get("cookie") ?? "")];
    const values = cookies.flatMap(([key, value]) => (key === name ? [value] : []));
    // With two cookies of this name, one was set by another host, so neither is trusted.
    return values.length === 1 ? values[0]! : "";
  }
}

function loginResponse(needed: boolean, login: Login | undefined): Response {
  return jsonResponse({
    needed,
    name: login?.key.name ?? null,
    streams: login?.key.streams ?? null,
    expires: login === undefined ? null : BigInt(login.expiresAt) * 1_000_000n,
  });
}
