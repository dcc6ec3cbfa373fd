/**
 * Lets in whoever may look: holds every request against the server's own names and pages, then asks for a key
 * (`Authorization: Bearer`), the cookie of a login, or a token, where the server has keys.
 */
import { FramesError } from "../errors.ts";
import { TurnedAway } from "../turned-away.ts";
import {
  type Access,
  type Caller,
  everybody,
  type Holder,
  stranger,
  type ViewerKey,
  type ViewerKeys,
  type Visitor,
} from "./access.ts";
import { failure, refusal } from "./answers.ts";
import { LoginDesk } from "./login-desk.ts";
import { hostFault, type OriginFault, pageFault, type ServerNames } from "./origin.ts";
import type { Random } from "./secrets.ts";
import { TokenDesk } from "./token-desk.ts";
import { isForToken, isToken, type Token } from "./tokens.ts";

/** What a doorkeeper knows of its server, and what it is given. */
export interface Door {
  readonly names: ServerNames;
  /** Whether the server speaks TLS itself. */
  readonly isTls: boolean;
  /** Without keys everybody may see everything. */
  readonly keys: ViewerKeys | undefined;
  /** Milliseconds since 1970. */
  readonly clock: () => number;
  readonly random: Random;
  /** Is told of whoever came with a wrong key. */
  readonly onWrong: (peer: string, error: FramesError) => void;
}

/** Methods that anything here is asked by. */
const methods: readonly string[] = ["GET", "HEAD", "POST", "DELETE"];

/** The page's own files: one part, with an ending of the page's. */
const pageFile = /^\/(?:[\w-]+(?:\.[\w-]+)*\.(?:js|css|svg|png|ico|webmanifest))?$/;

/** What says whether the server is well. */
const health: readonly string[] = ["/healthz", "/readyz"];

export class Doorkeeper implements Access {
  readonly #door: Door;
  readonly #logins: LoginDesk;
  readonly #tokens: TokenDesk;
  /** What ends those that came with a key itself, by its id. */
  readonly #bearers = new Map<string, Holder & { readonly end: AbortController }>();
  readonly #wrong = new TurnedAway();

  constructor(door: Door) {
    this.#door = door;
    this.#logins = new LoginDesk(door.isTls, door.random);
    this.#tokens = new TokenDesk(door.isTls, door.random);
  }

  admit(request: Request, peer: string): Visitor | Response | Promise<Response> {
    const { names, isTls, keys, clock } = this.#door;
    if (!methods.includes(request.method)) {
      const message = `Cannot answer this method: there are ${methods.join(", ")}`;
      return refusal(405, "usage", message, { Allow: methods.join(", ") });
    }
    const wrongHost = hostFault(request.headers.get("host"), names);
    if (wrongHost !== undefined) return turnedAway(wrongHost);
    const url = URL.parse(request.url);
    if (url === null) return refusal(400, "usage", "Cannot read the address that is asked for");
    const wrongPage = pageFault(request, url.pathname, isTls);
    if (wrongPage !== undefined) return turnedAway(wrongPage);
    const caller: Caller = { request, url, peer, now: clock() };
    const { pathname } = url;
    if (pathname === "/login" || pathname === "/logout") return this.#loginOrOut(caller);
    const visitor = keys === undefined ? everybody : this.#visitor(caller, keys);
    if (!/^\/api\/tokens(?:\/|$)/.test(pathname) || visitor instanceof Response) return visitor;
    if (visitor === everybody) return this.#tokens.open(caller);
    if (isHolder(visitor)) return this.#tokens.answer(caller, visitor);
    return refusal(403, "not-let-in", "Tokens are made with a key: log in with one");
  }

  look(): void {
    const { keys, clock } = this.#door;
    const now = clock();
    this.#wrong.sums(now);
    if (keys === undefined) return;
    const isHeld = (key: ViewerKey) => keys.holds(key);
    this.#logins.look(now, isHeld);
    this.#tokens.look(now, isHeld);
    for (const [id, { key, end }] of this.#bearers) {
      if (isHeld(key)) continue;
      this.#bearers.delete(id);
      end.abort();
    }
  }

  #loginOrOut(caller: Caller): Response | Promise<Response> {
    const { keys } = this.#door;
    const { pathname } = caller.url;
    const { method } = caller.request;
    const isLogin = pathname === "/login";
    if (method === "POST") {
      if (!isLogin) return this.#logins.logOut(caller);
      if (keys === undefined) return this.#logins.welcome(caller);
      return this.#logins.logIn(caller, (text) => this.#keyOf(text, caller, keys));
    }
    if (!isLogin || method === "DELETE") {
      const Allow = isLogin ? "GET, HEAD, POST" : "POST";
      return refusal(405, "usage", `${pathname} answers to ${Allow}`, { Allow });
    }
    return this.#logins.who(caller, keys);
  }

  /** Whoever it is that asks, where keys are asked for. */
  #visitor(caller: Caller, keys: ViewerKeys): Visitor | Response {
    const { request, url } = caller;
    const said = request.headers.get("authorization");
    const tokens = url.searchParams.getAll("token");
    if (said !== null || tokens.length > 0) {
      const bearer = said === null ? undefined : /^Bearer +(\S+)$/i.exec(said)?.[1];
      if (tokens.length + (said === null ? 0 : 1) > 1 || (said !== null && bearer === undefined)) {
        const message = "Cannot read who asks: give one Authorization: Bearer KEY, or one token";
        return refusal(400, "usage", message);
      }
      const text = bearer ?? tokens[0]!;
      if (bearer === undefined || isToken(text)) return this.#tokenHolder(text, caller, keys);
      const key = this.#keyOf(text, caller, keys);
      return key instanceof Response ? key : this.#bearer(key);
    }
    const login = this.#logins.find(caller);
    if (login !== undefined && keys.holds(login.key)) {
      // A browser says which page posts something; whoever does not is none, and has a key.
      if (!isSafe(request) && isSilent(request)) {
        const message = "A program uses Authorization: Bearer KEY, not the cookie of a browser";
        return refusal(403, "not-let-in", message);
      }
      return holderOf(login.key, login.ended.signal);
    }
    const isFree = pageFile.test(url.pathname) || health.includes(url.pathname);
    if (isFree && isSafe(request)) return stranger;
    return unknown(401, new FramesError("no-key", "A key is needed: log in with it, or send it"));
  }

  #bearer(key: ViewerKey): Holder {
    const known = this.#bearers.get(key.id);
    if (known !== undefined && this.#door.keys!.holds(known.key)) return known;
    known?.end.abort();
    const end = new AbortController();
    const holder = { ...holderOf(key, end.signal), end };
    this.#bearers.set(key.id, holder);
    return holder;
  }

  #tokenHolder(text: string, caller: Caller, keys: ViewerKeys): Visitor | Response {
    const { request, url, peer, now } = caller;
    const token = this.#tokens.find(text, now);
    if (token === undefined || !keys.holds(token.key)) {
      const error = new FramesError("not-let-in", "The token does not hold, or no more: make one");
      return this.#wrongly(peer, now, error);
    }
    if (
      (request.method === "GET" || request.method === "HEAD") &&
      isForToken(url.pathname, token)
    ) {
      return visitorWith(token);
    }
    return refusal(403, "not-let-in", "The token is for what one source shows last, and no more");
  }

  /** The key of a text, or the answer to whoever has a wrong one. */
  #keyOf(text: string, { peer, now }: Caller, keys: ViewerKeys): ViewerKey | Response {
    try {
      return keys.find(text);
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      return this.#wrongly(peer, now, error);
    }
  }

  /**
   * No wrong key is worth a second look: there are 2^256. Whoever brings many is told to wait, and told of no
   * more; whoever has the right one is let in all the same, also from the same address.
   */
  #wrongly(peer: string, now: number, error: FramesError): Response {
    this.#wrong.add(peer, now);
    this.#door.onWrong(peer, error);
    if (error.code === "usage") return failure(error);
    if (error.code === "wrong-role") return unknown(403, error);
    if (!this.#wrong.isNotorious(peer)) return unknown(401, error);
    const message = "Too many wrong keys came from this address: wait a minute";
    return refusal(429, "not-let-in", message, { "Retry-After": "60" });
  }
}

function isSafe({ method }: Request): boolean {
  return method === "GET" || method === "HEAD";
}

/** Whether a request does not say which page it comes from. */
function isSilent({ headers }: Request): boolean {
  return headers.get("origin") === null && headers.get("sec-fetch-site") === null;
}

function isHolder(visitor: Visitor): visitor is Holder {
  return "key" in visitor;
}

function holderOf(key: ViewerKey, ended: AbortSignal): Holder {
  return { key, maySee: (stream) => key.allows(stream), seesAll: key.streams === "*", ended };
}

function visitorWith({ stream, source, ended }: Token): Visitor {
  return {
    maySee: (ofStream, ofSource) =>
      ofStream === stream && (ofSource === undefined || ofSource === source),
    seesAll: false,
    ended: ended.signal,
  };
}

function turnedAway({ status, message }: OriginFault): Response {
  return refusal(status, status === 400 ? "usage" : "not-let-in", message);
}

function unknown(status: 401 | 403, { code, message }: FramesError): Response {
  const asked = status === 401 ? { "WWW-Authenticate": 'Bearer realm="frames"' } : {};
  return refusal(status, code, message, asked as Record<string, string>);
}
