/** `/login` and `/logout`: a key into a cookie, which no script of a page can read. */
import type { Caller, ViewerKey, ViewerKeys } from "./access.ts";
import { json, refusal } from "./answers.ts";
import { readBody } from "./body.ts";
import { endOf, type Login, Logins, longestSeconds } from "./logins.ts";
import { readHost } from "./origin.ts";
import type { Random } from "./secrets.ts";

export class LoginDesk {
  readonly #isTls: boolean;
  readonly #logins: Logins;

  constructor(isTls: boolean, random: Random) {
    this.#isTls = isTls;
    this.#logins = new Logins(random);
  }

  /** The login that the cookie of a request stands for, which is used by that. */
  find(caller: Caller): Login | undefined {
    const secret = this.#cookieOf(caller);
    return secret === undefined ? undefined : this.#logins.use(secret, caller.now);
  }

  /** Says who is logged in, and whether anybody has to be. */
  who(caller: Caller, keys: ViewerKeys | undefined): Response {
    const login = keys === undefined ? undefined : this.find(caller);
    const isHeld = login !== undefined && keys!.holds(login.key);
    return answerOf(keys !== undefined, isHeld ? login : undefined);
  }

  /** Answers whoever logs in where nobody has to. */
  async welcome({ request }: Caller): Promise<Response> {
    const body = await readBody(request);
    return body instanceof Response ? body : answerOf(false, undefined);
  }

  /**
   * Logs in by key.
   *
   * @param keyOf the key of a text, or the answer to whoever has a wrong one
   */
  async logIn(caller: Caller, keyOf: (text: string) => ViewerKey | Response): Promise<Response> {
    const body = await readBody(caller.request);
    if (body instanceof Response) return body;
    const text = body["key"];
    if (typeof text !== "string") {
      return refusal(400, "usage", 'Cannot log in: the body is {"key": "frames_key_…"}');
    }
    const key = keyOf(text.trim());
    if (key instanceof Response) return key;
    const before = this.#cookieOf(caller);
    if (before !== undefined) this.#logins.end(before);
    const { login, secret } = this.#logins.begin(key, caller.now);
    const answer = answerOf(true, login);
    answer.headers.set("Set-Cookie", this.#cookie(caller, secret, longestSeconds));
    return answer;
  }

  logOut(caller: Caller): Response {
    const secret = this.#cookieOf(caller);
    if (secret !== undefined) this.#logins.end(secret);
    const headers = { "Set-Cookie": this.#cookie(caller, "", 0) };
    return new Response(null, { status: 204, headers });
  }

  look(now: number, isHeld: (key: ViewerKey) => boolean): void {
    this.#logins.look(now, isHeld);
  }

  /**
   * Cookies know no ports, so that two servers of one machine, or behind `ssh -L`, need two names. A browser
   * takes `__Host-` over TLS alone, and lets no other host of the domain set it.
   */
  #cookieName({ request }: Caller): string {
    const { port = "" } = readHost(request.headers.get("host")) ?? {};
    return `${this.#isTls ? "__Host-" : ""}frames${port === "" ? "" : `-${port}`}`;
  }

  #cookie(caller: Caller, value: string, seconds: number): string {
    // Something in front of this server may speak TLS.
    const isTls =
      this.#isTls || caller.request.headers.get("origin")?.startsWith("https:") === true;
    const secure = isTls ? "; Secure" : "";
    const name = this.#cookieName(caller);
    return `${name}=${value}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`;
  }

  #cookieOf(caller: Caller): string | undefined {
    const name = this.#cookieName(caller);
    const cookies = (caller.request.headers.get("cookie") ?? "").split(";");
    const own = cookies.map((cookie) => cookie.trim()).filter((c) => c.startsWith(`${name}=`));
    // Of two, one is from elsewhere.
    const [value = ""] = own.length === 1 ? own.map((cookie) => cookie.slice(name.length + 1)) : [];
    return /^[\w-]{43}$/.test(value) ? value : undefined;
  }
}

function answerOf(needed: boolean, login: Login | undefined): Response {
  return json({
    needed,
    name: login?.key.name ?? null,
    streams: login?.key.streams ?? null,
    expires: login === undefined ? null : BigInt(endOf(login)) * 1_000_000n,
  });
}
