/**
 * Authenticates HTTP requests.
 * First checks Host and Origin against the server's own names.
 * If the server has keys, it then requires a Bearer key, a login cookie or a token.
 */
import { type ErrorName, FramesError, usageError } from "../../errors.ts";
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
import { HttpError } from "../responses.ts";
import { type Login, LoginEndpoint } from "./login-endpoint.ts";
import { checkHost, checkOrigin, type ServerNames } from "./origin-check.ts";
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
   * Returns the principal, or a response that handles login, logout or tokens.
   *
   * @param peer IP address of the client, without the port
   * @throws {FramesError} if the request is rejected
   */
  authenticate(request: Request, peer: string): Principal | Response | Promise<Response> {
    const { names, isTls, keys, clock } = this.#options;
    if (!allowedMethods.includes(request.method)) {
      const message = `Cannot answer this method: use one of ${allowedMethods.join(", ")}`;
      throw new HttpError(405, "usage", message, { Allow: allowedMethods.join(", ") });
    }
    checkHost(request.headers.get("host"), names);
    const url = URL.parse(request.url);
    if (url === null) throw usageError("Cannot read the address of the request");
    const { pathname } = url;
    const hasFoxgloveToken = pathname === foxglovePath && url.searchParams.has("token");
    // Foxglove's own page is of another site. Its token proves that a user gave it the address.
    if (!hasFoxgloveToken) checkOrigin(request, pathname, isTls);
    const req: AuthRequest = { request, url, peer, now: clock() };
    if (pathname === authPaths.login || pathname === authPaths.logout)
      return this.#handleLogin(req);
    const isOpen = keys === undefined && !hasFoxgloveToken;
    const principal = isOpen ? fullAccess : this.#authenticateKeys(req);
    const isForTokens = `${pathname}/`.startsWith(`${authPaths.tokens}/`);
    if (!isForTokens) return principal;
    if (principal === fullAccess) return this.#tokenEndpoint.handle(req, openKey);
    if (isKeyPrincipal(principal)) return this.#tokenEndpoint.handle(req, principal.key);
    throw new FramesError("not-let-in", "Cannot manage tokens with a token: log in with a key");
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
      throw new HttpError(405, "usage", `${pathname} accepts ${Allow}`, { Allow });
    }
    return this.#loginEndpoint.status(req, keys !== undefined);
  }

  /** Authenticates a request on a server that has keys. */
  #authenticateKeys(req: AuthRequest): Principal {
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
      return this.#bearerPrincipal(this.#findKey(text, req));
    }
    const login = this.#loginEndpoint.find(req);
    if (login !== undefined) {
      // Browsers send one of these headers with a write request. Programs must use their key.
      if (!isReadMethod(request) && hasNoOrigin(request)) {
        const message =
          "Cannot use a browser's cookie from a program: send Authorization: Bearer KEY";
        throw new FramesError("not-let-in", message);
      }
      return keyPrincipal(login.key, login.controller.signal);
    }
    const isPublic = pageFilePattern.test(url.pathname) || healthPaths.includes(url.pathname);
    if (isPublic && isReadMethod(request)) return unauthenticated;
    throw unauthorized(
      "no-key",
      "A key is required: log in on the page, or send Authorization: Bearer KEY",
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

  #authenticateToken(text: string, req: AuthRequest): Principal {
    const { request, url, peer, now } = req;
    const token = this.#tokens.find(text, now);
    if (token === undefined) {
      const error = new FramesError("not-let-in", "The token is unknown or expired: make another");
      throw this.#rejectKey(peer, now, error);
    }
    if (isReadMethod(request) && isAllowedByToken(url.pathname, token))
      return tokenPrincipal(token);
    const scope = token.source === undefined ? "Foxglove" : "the latest frame of one source";
    throw new FramesError("not-let-in", `The token allows only ${scope}`);
  }

  /** Returns the key with this text. */
  #findKey(text: string, { peer, now }: AuthRequest): HttpKey {
    try {
      return (this.#options.keys ?? noKeys).find(text);
    } catch (error) {
      throw error instanceof FramesError ? this.#rejectKey(peer, now, error) : error;
    }
  }

  /**
   * Counts a wrong key or token, and returns the error to answer. After too many failures the address gets 429.
   * A valid key is still accepted from that address.
   * Guessing needs no delay, because a key has 256 random bits.
   */
  #rejectKey(peer: string, now: number, error: FramesError): FramesError {
    this.#rejectedPeers.add(peer, now);
    this.#options.onAuthFailure(peer, error);
    if (error.code === "usage") return error;
    if (error.code === "wrong-role") return new HttpError(403, error.code, error.message);
    if (!this.#rejectedPeers.isOverLimit(peer)) return unauthorized(error.code, error.message);
    const message = "This address sent too many wrong keys: wait a minute";
    return new HttpError(429, "not-let-in", message, { "Retry-After": "60" });
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

function unauthorized(code: ErrorName, message: string): HttpError {
  return new HttpError(401, code, message, { "WWW-Authenticate": 'Bearer realm="frames"' });
}
