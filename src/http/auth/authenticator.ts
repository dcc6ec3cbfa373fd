/**
 * Authenticates HTTP requests.
 * First checks Host and Origin against the server's own names.
 * If the server has keys, it then requires a Bearer key, a login cookie or a token.
 */
import { FramesError, usageError } from "../../errors.ts";
import { RejectedPeers } from "../../common/rejected-peers.ts";
import {
  type AuthRequest,
  fullAccess,
  type KeyPrincipal,
  noKeys,
  openKey,
  unauthenticated,
  type HttpKey,
  type HttpKeys,
} from "./access.ts";
import type { Principal } from "../principal.ts";
import { toErrorResponse, errorResponse } from "../responses.ts";
import { type Login, LoginEndpoint } from "./login-endpoint.ts";
import { checkHost, type OriginRejection, checkOrigin, type ServerNames } from "./origin-check.ts";
import { SecretStore } from "./secrets.ts";
import { TokenEndpoint } from "./token-endpoint.ts";
import { type AccessToken, foxglovePath, isAllowedByToken, tokenPrefix } from "./access-tokens.ts";

/** Settings and dependencies of an `Authenticator`. */
export interface AuthenticatorOptions {
  readonly names: ServerNames;
  /** Whether this server terminates TLS itself. */
  readonly isTls: boolean;
  /** Without keys every client may read everything. */
  readonly keys: HttpKeys | undefined;
  /** Returns ms since 1970. */
  readonly clock: () => number;
  /** Called for each rejected key or token. */
  readonly onAuthFailure: (peer: string, error: FramesError) => void;
}

/** Methods that at least one route supports. */
const allowedMethods: readonly string[] = ["GET", "HEAD", "POST", "DELETE"];

/** Paths of the page's own files: one part with a file extension of the page, or `/`. */
const pageFilePattern = /^\/(?:[\w-]+(?:\.[\w-]+)*\.(?:js|css|svg|png|ico|webmanifest))?$/;

/** Paths that the authenticator answers itself. Tokens have paths below theirs. */
export const authPaths = { login: "/login", logout: "/logout", tokens: "/api/tokens" } as const;

/** Paths of the health checks, which need no key. */
const healthPaths: readonly string[] = ["/healthz", "/readyz"];

export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #logins = new SecretStore<Login>();
  readonly #tokens = new SecretStore<AccessToken>(tokenPrefix);
  readonly #loginEndpoint: LoginEndpoint;
  readonly #tokenEndpoint: TokenEndpoint;
  /** Principals that authenticated by Bearer key, by key id. `end` aborts their responses. */
  readonly #bearerPrincipals = new Map<string, KeyPrincipal & { readonly end: AbortController }>();
  readonly #rejectedPeers = new RejectedPeers();

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#loginEndpoint = new LoginEndpoint(options.isTls, this.#logins);
    this.#tokenEndpoint = new TokenEndpoint(options.isTls, this.#tokens);
  }

  /**
   * Returns the principal, or a response that rejects the request or handles login, logout or
   * tokens.
   *
   * @param peer IP address of the client, without the port
   */
  authenticate(request: Request, peer: string): Principal | Response | Promise<Response> {
    const { names, isTls, keys, clock } = this.#options;
    if (!allowedMethods.includes(request.method)) {
      const message = `Cannot answer this method: use one of ${allowedMethods.join(", ")}`;
      return errorResponse(405, "usage", message, { Allow: allowedMethods.join(", ") });
    }
    const hostRejection = checkHost(request.headers.get("host"), names);
    if (hostRejection !== undefined) return rejectionResponse(hostRejection);
    const url = URL.parse(request.url);
    if (url === null) throw usageError("Cannot read the address of the request");
    const { pathname } = url;
    const hasFoxgloveToken = pathname === foxglovePath && url.searchParams.has("token");
    const originRejection = checkOrigin(request, pathname, isTls);
    // Foxglove's own page is of another site. Its token proves that a user gave it the address.
    if (originRejection !== undefined && !hasFoxgloveToken) {
      return rejectionResponse(originRejection);
    }
    const req: AuthRequest = { request, url, peer, now: clock() };
    if (pathname === authPaths.login || pathname === authPaths.logout)
      return this.#handleLogin(req);
    const isOpen = keys === undefined && !hasFoxgloveToken;
    const principal = isOpen ? fullAccess : this.#authenticateKeys(req);
    const isForTokens = `${pathname}/`.startsWith(`${authPaths.tokens}/`);
    if (!isForTokens || principal instanceof Response) return principal;
    if (principal === fullAccess) return this.#tokenEndpoint.handle(req, openKey);
    if (isKeyPrincipal(principal)) return this.#tokenEndpoint.handle(req, principal.key);
    return errorResponse(403, "not-let-in", "Cannot manage tokens with a token: log in with a key");
  }

  /** Ends expired logins and tokens, and those whose key was removed. Call it once a second. */
  sweepExpired(): void {
    const now = this.#options.clock();
    this.#rejectedPeers.takeSummaries(now);
    this.#logins.sweepExpired(now);
    this.#tokens.sweepExpired(now);
    for (const [id, { key, end }] of this.#bearerPrincipals) {
      if (key.isValid()) continue;
      this.#bearerPrincipals.delete(id);
      end.abort();
    }
  }

  #handleLogin(req: AuthRequest): Response | Promise<Response> {
    const { keys } = this.#options;
    const { pathname } = req.url;
    const { method } = req.request;
    const isLogin = pathname === authPaths.login;
    if (method === "POST") {
      if (!isLogin) return this.#loginEndpoint.logOut(req);
      const findKey = (text: string) => this.#findKey(text, req);
      return this.#loginEndpoint.logIn(req, keys === undefined ? undefined : findKey);
    }
    if (!isLogin || method === "DELETE") {
      const Allow = isLogin ? "GET, HEAD, POST" : "POST";
      return errorResponse(405, "usage", `${pathname} accepts ${Allow}`, { Allow });
    }
    return this.#loginEndpoint.status(req, keys !== undefined);
  }

  /** Authenticates a request on a server that has keys. */
  #authenticateKeys(req: AuthRequest): Principal | Response {
    const { request, url } = req;
    const authorization = request.headers.get("authorization");
    const tokens = url.searchParams.getAll("token");
    if (authorization !== null || tokens.length > 0) {
      const bearer =
        authorization === null ? undefined : /^Bearer +(\S+)$/i.exec(authorization)?.[1];
      if (
        tokens.length + (authorization === null ? 0 : 1) > 1 ||
        (authorization !== null && bearer === undefined)
      ) {
        throw usageError(
          "Cannot read the credentials: send one Authorization: Bearer KEY, or one token",
        );
      }
      const text = bearer ?? tokens[0]!;
      if (bearer === undefined || text.startsWith(tokenPrefix))
        return this.#authenticateToken(text, req);
      const key = this.#findKey(text, req);
      return key instanceof Response ? key : this.#bearerPrincipal(key);
    }
    const login = this.#loginEndpoint.find(req);
    if (login !== undefined) {
      // Browsers send one of these headers with a write request. Programs must use their key.
      if (!isReadMethod(request) && hasNoOrigin(request)) {
        const message =
          "Cannot use a browser's cookie from a program: send Authorization: Bearer KEY";
        return errorResponse(403, "not-let-in", message);
      }
      return keyPrincipal(login.key, login.controller.signal);
    }
    const isPublic = pageFilePattern.test(url.pathname) || healthPaths.includes(url.pathname);
    if (isPublic && isReadMethod(request)) return unauthenticated;
    return unauthorizedResponse(
      401,
      new FramesError(
        "no-key",
        "A key is required: log in on the page, or send Authorization: Bearer KEY",
      ),
    );
  }

  #bearerPrincipal(key: HttpKey): KeyPrincipal {
    const existing = this.#bearerPrincipals.get(key.id);
    if (existing?.key.isValid() === true) return existing;
    existing?.end.abort();
    const end = new AbortController();
    const principal = { ...keyPrincipal(key, end.signal), end };
    this.#bearerPrincipals.set(key.id, principal);
    return principal;
  }

  #authenticateToken(text: string, req: AuthRequest): Principal | Response {
    const { request, url, peer, now } = req;
    const token = this.#tokens.find(text, now);
    if (token === undefined) {
      const error = new FramesError("not-let-in", "The token is unknown or expired: make another");
      return this.#rejectKey(peer, now, error);
    }
    if (isReadMethod(request) && isAllowedByToken(url.pathname, token))
      return tokenPrincipal(token);
    const scope = token.source === undefined ? "Foxglove" : "the latest frame of one source";
    return errorResponse(403, "not-let-in", `The token allows only ${scope}`);
  }

  /** Returns the key with this text, or a response that rejects it. */
  #findKey(text: string, { peer, now }: AuthRequest): HttpKey | Response {
    try {
      return (this.#options.keys ?? noKeys).find(text);
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      return this.#rejectKey(peer, now, error);
    }
  }

  /**
   * Counts and answers a wrong key or token. After too many failures the address gets 429.
   * A valid key is still accepted from that address.
   * Guessing needs no delay, because a key has 256 random bits.
   */
  #rejectKey(peer: string, now: number, error: FramesError): Response {
    this.#rejectedPeers.add(peer, now);
    this.#options.onAuthFailure(peer, error);
    if (error.code === "usage") return toErrorResponse(error);
    if (error.code === "wrong-role") return unauthorizedResponse(403, error);
    if (!this.#rejectedPeers.isOverLimit(peer)) return unauthorizedResponse(401, error);
    const message = "This address sent too many wrong keys: wait a minute";
    return errorResponse(429, "not-let-in", message, { "Retry-After": "60" });
  }
}

function isReadMethod({ method }: Request): boolean {
  return method === "GET" || method === "HEAD";
}

/** Returns whether a request does not name the page it comes from. */
function hasNoOrigin({ headers }: Request): boolean {
  return headers.get("origin") === null && headers.get("sec-fetch-site") === null;
}

function isKeyPrincipal(principal: Principal): principal is KeyPrincipal {
  return "key" in principal;
}

function keyPrincipal(key: HttpKey, signal: AbortSignal): KeyPrincipal {
  return {
    key,
    keyId: key.id,
    canRead: (stream) => key.allows(stream),
    canReadAll: key.streams === "*",
    signal,
  };
}

function tokenPrincipal({ key, stream, source, controller }: AccessToken): Principal {
  return {
    keyId: key.id,
    canRead: (requestedStream, requestedSource) =>
      key.allows(requestedStream) &&
      (stream === undefined || requestedStream === stream) &&
      (source === undefined || requestedSource === undefined || requestedSource === source),
    canReadAll: false,
    signal: controller.signal,
  };
}

function rejectionResponse({ status, message }: OriginRejection): Response {
  return errorResponse(status, status === 400 ? "usage" : "not-let-in", message);
}

function unauthorizedResponse(status: 401 | 403, { code, message }: FramesError): Response {
  const headers = status === 401 ? { "WWW-Authenticate": 'Bearer realm="frames"' } : {};
  return errorResponse(status, code, message, headers as Record<string, string>);
}
