/** `/login` and `/logout`: exchanges a key for an HttpOnly cookie. */
import type { AuthRequest, HttpKey, HttpKeys } from "./access.ts";
import { jsonResponse, errorResponse } from "../responses.ts";
import { readJsonBody } from "../request-body.ts";
import {
  expiresAt,
  type LoginSession,
  LoginSessions,
  cookieMaxAgeSeconds,
} from "./login-sessions.ts";
import { parseHost } from "./origin-check.ts";
import type { RandomBytes } from "./secrets.ts";

export class LoginEndpoint {
  readonly #isTls: boolean;
  readonly #sessions: LoginSessions;

  constructor(isTls: boolean, random: RandomBytes) {
    this.#isTls = isTls;
    this.#sessions = new LoginSessions(random);
  }

  /** Returns the session of the request's cookie and restarts its idle time. */
  find(req: AuthRequest): LoginSession | undefined {
    const secret = this.#readCookie(req);
    return secret === undefined ? undefined : this.#sessions.touch(secret, req.now);
  }

  /** Handles `GET /login`: returns the current login and whether a login is needed. */
  loginStatus(req: AuthRequest, keys: HttpKeys | undefined): Response {
    const login = keys === undefined ? undefined : this.find(req);
    const isValid = login !== undefined && keys!.isValid(login.key);
    return loginResponse(keys !== undefined, isValid ? login : undefined);
  }

  /** Handles `POST /login` on a server without keys. */
  async logInWithoutKeys({ request }: AuthRequest): Promise<Response> {
    const body = await readJsonBody(request);
    return body instanceof Response ? body : loginResponse(false, undefined);
  }

  /**
   * Handles `POST /login`: checks the key, creates a session and sets the cookie.
   *
   * @param findKey returns the key with this text, or a response that rejects it
   */
  async logIn(req: AuthRequest, findKey: (text: string) => HttpKey | Response): Promise<Response> {
    const body = await readJsonBody(req.request);
    if (body instanceof Response) return body;
    const text = body["key"];
    if (typeof text !== "string") {
      return errorResponse(400, "usage", 'Cannot log in: the body is {"key": "frames_key_…"}');
    }
    const key = findKey(text.trim());
    if (key instanceof Response) return key;
    const previous = this.#readCookie(req);
    if (previous !== undefined) this.#sessions.remove(previous);
    const { login, secret } = this.#sessions.create(key, req.now);
    const response = loginResponse(true, login);
    response.headers.set("Set-Cookie", this.#formatCookie(req, secret, cookieMaxAgeSeconds));
    return response;
  }

  logOut(req: AuthRequest): Response {
    const secret = this.#readCookie(req);
    if (secret !== undefined) this.#sessions.remove(secret);
    const headers = { "Set-Cookie": this.#formatCookie(req, "", 0) };
    return new Response(null, { status: 204, headers });
  }

  sweepExpired(now: number, isValid: (key: HttpKey) => boolean): void {
    this.#sessions.sweepExpired(now, isValid);
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
    // A reverse proxy in front of this server may terminate TLS.
    const isTls = this.#isTls || req.request.headers.get("origin")?.startsWith("https:") === true;
    const secure = isTls ? "; Secure" : "";
    const name = this.#cookieName(req);
    return `${name}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
  }

  #readCookie(req: AuthRequest): string | undefined {
    const name = this.#cookieName(req);
    const cookies = (req.request.headers.get("cookie") ?? "").split(";");
    const matching = cookies.map((cookie) => cookie.trim()).filter((c) => c.startsWith(`${name}=`));
    // With two cookies of this name, one was set by another host, so neither is trusted.
    const [value = ""] =
      matching.length === 1 ? matching.map((cookie) => cookie.slice(name.length + 1)) : [];
    return /^[\w-]{43}$/.test(value) ? value : undefined;
  }
}

function loginResponse(needed: boolean, login: LoginSession | undefined): Response {
  return jsonResponse({
    needed,
    name: login?.key.name ?? null,
    streams: login?.key.streams ?? null,
    expires: login === undefined ? null : BigInt(expiresAt(login)) * 1_000_000n,
  });
}
