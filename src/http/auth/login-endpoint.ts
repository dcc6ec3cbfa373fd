/** `/login` and `/logout`: a key into a cookie, which no script of a page can read. */
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

  /** The login that the cookie of a request stands for, which is used by that. */
  find(req: AuthRequest): LoginSession | undefined {
    const secret = this.#readCookie(req);
    return secret === undefined ? undefined : this.#sessions.touch(secret, req.now);
  }

  /** Says who is logged in, and whether anybody has to be. */
  loginStatus(req: AuthRequest, keys: HttpKeys | undefined): Response {
    const login = keys === undefined ? undefined : this.find(req);
    const isValid = login !== undefined && keys!.isValid(login.key);
    return loginResponse(keys !== undefined, isValid ? login : undefined);
  }

  /** Answers whoever logs in where nobody has to. */
  async logInWithoutKeys({ request }: AuthRequest): Promise<Response> {
    const body = await readJsonBody(request);
    return body instanceof Response ? body : loginResponse(false, undefined);
  }

  /**
   * Logs in by key.
   *
   * @param findKey the key of a text, or the answer to whoever has a wrong one
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
   * Cookies know no ports, so that two servers of one machine, or behind `ssh -L`, need two names. A browser
   * takes `__Host-` over TLS alone, and lets no other host of the domain set it.
   */
  #cookieName({ request }: AuthRequest): string {
    const { port = "" } = parseHost(request.headers.get("host")) ?? {};
    return `${this.#isTls ? "__Host-" : ""}frames${port === "" ? "" : `-${port}`}`;
  }

  #formatCookie(req: AuthRequest, value: string, seconds: number): string {
    // Something in front of this server may speak TLS.
    const isTls = this.#isTls || req.request.headers.get("origin")?.startsWith("https:") === true;
    const secure = isTls ? "; Secure" : "";
    const name = this.#cookieName(req);
    return `${name}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
  }

  #readCookie(req: AuthRequest): string | undefined {
    const name = this.#cookieName(req);
    const cookies = (req.request.headers.get("cookie") ?? "").split(";");
    const matching = cookies.map((cookie) => cookie.trim()).filter((c) => c.startsWith(`${name}=`));
    // Of two, one is from elsewhere.
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
