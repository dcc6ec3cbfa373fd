/** `/api/tokens`: creates, lists and revokes the tokens of a key. */
import { FramesError } from "../../errors.ts";
import type { AuthRequest, KeyPrincipal, HttpKey } from "./access.ts";
import { toErrorResponse, jsonResponse, errorResponse } from "../responses.ts";
import { readJsonBody } from "../request-body.ts";
import type { RandomBytes } from "./secrets.ts";
import { latestPath, type AccessToken, AccessTokens } from "./access-tokens.ts";

/** Lifetime of a token: default and maximum. */
const defaultHours = 24;
const maxHours = 30 * 24;

/** Body of `POST /api/tokens`. */
interface TokenParams {
  readonly stream: string;
  readonly source: string;
  readonly hours: number;
}

export class TokenEndpoint {
  readonly #isTls: boolean;
  readonly #tokens: AccessTokens;

  constructor(isTls: boolean, random: RandomBytes) {
    this.#isTls = isTls;
    this.#tokens = new AccessTokens(random);
  }

  /** Returns the token with this text, or undefined if it is unknown or expired. */
  find(text: string, now: number): AccessToken | undefined {
    return this.#tokens.find(text, now);
  }

  sweepExpired(now: number, isValid: (key: HttpKey) => boolean): void {
    this.#tokens.sweepExpired(now, isValid);
  }

  /** Handles a request of a client that has a key. */
  handle(req: AuthRequest, { key }: KeyPrincipal): Response | Promise<Response> {
    const id = tokenId(req);
    switch (req.request.method) {
      case "POST":
        return id === undefined ? this.#create(req, key) : methodNotAllowed("DELETE");
      case "DELETE":
        return id === undefined ? methodNotAllowed("GET, HEAD, POST") : this.#revoke(id, key);
      default:
        return id === undefined ? this.#list(key, req.now) : methodNotAllowed("DELETE");
    }
  }

  /** Handles a request on a server without keys: the address it returns needs no token. */
  handleWithoutKeys(req: AuthRequest): Response | Promise<Response> {
    const { method } = req.request;
    if (tokenId(req) !== undefined)
      return method === "DELETE" ? tokenNotFound() : methodNotAllowed("DELETE");
    if (method === "DELETE") return methodNotAllowed("GET, HEAD, POST");
    if (method !== "POST") return jsonResponse({ tokens: [], next: null });
    return this.#createAddress(req);
  }

  async #create(req: AuthRequest, key: HttpKey): Promise<Response> {
    const params = await readTokenParams(req.request);
    if (params instanceof Response) return params;
    const { stream, source, hours } = params;
    // Does not check that the stream exists, so the response cannot reveal it.
    if (!key.allows(stream)) {
      return errorResponse(
        403,
        "wrong-stream",
        "The key does not allow this stream: log in with another",
      );
    }
    try {
      const created = req.now;
      const expires = created + hours * 3_600_000;
      const { token, text } = this.#tokens.create({ stream, source, key, created, expires });
      const address = `${this.#mjpegUrl(req, params)}?token=${text}`;
      return jsonResponse({ id: token.id, address, expires: toNanoseconds(expires) }, 201);
    } catch (error) {
      if (error instanceof FramesError && error.code === "full") {
        return errorResponse(429, error.code, error.message);
      }
      return toErrorResponse(error);
    }
  }

  async #createAddress(req: AuthRequest): Promise<Response> {
    const params = await readTokenParams(req.request);
    if (params instanceof Response) return params;
    return jsonResponse({ id: null, address: this.#mjpegUrl(req, params), expires: null });
  }

  #list(key: HttpKey, now: number): Response {
    const tokens = this.#tokens.list(key, now).map(({ id, stream, source, created, expires }) => ({
      id,
      stream,
      source,
      created: toNanoseconds(created),
      expires: toNanoseconds(expires),
    }));
    return jsonResponse({ tokens, next: null });
  }

  #revoke(id: string, key: HttpKey): Response {
    return this.#tokens.revoke(id, key) ? new Response(null, { status: 204 }) : tokenNotFound();
  }

  /**
   * Returns the MJPEG URL by which the client reaches this server. A reverse proxy may terminate
   * TLS.
   */
  #mjpegUrl({ request }: AuthRequest, { stream, source }: TokenParams): string {
    const isTls = this.#isTls || request.headers.get("origin")?.startsWith("https:") === true;
    const host = request.headers.get("host")!;
    return `${isTls ? "https" : "http"}://${host}${latestPath(stream, source, "latest.mjpeg")}`;
  }
}

async function readTokenParams(request: Request): Promise<TokenParams | Response> {
  const body = await readJsonBody(request);
  if (body instanceof Response) return body;
  const { stream, source, hours = defaultHours } = body;
  if (!isName(stream, 255) || !isName(source, 1024)) {
    return errorResponse(
      400,
      "usage",
      'Cannot make a token: the body is {"stream", "source", "hours"}',
    );
  }
  if (typeof hours !== "number" || !(hours > 0 && hours <= maxHours)) {
    return errorResponse(
      400,
      "usage",
      `Cannot make a token: expected hours above 0 and up to ${maxHours}`,
    );
  }
  return { stream, source, hours };
}

/** Returns whether the value has the form of a stream or source name. The source need not exist. */
function isName(value: unknown, maxBytes: number): value is string {
  return (
    typeof value === "string" &&
    value.isWellFormed() &&
    Buffer.byteLength(value) <= maxBytes &&
    value.split("/").every((part) => part !== "" && !part.startsWith("."))
  );
}

/** Returns the path part after `/api/tokens/`, or undefined if there is none. */
function tokenId({ url }: AuthRequest): string | undefined {
  return url.pathname.split("/")[3] || undefined;
}

function toNanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds)) * 1_000_000n;
}

function methodNotAllowed(Allow: string): Response {
  return errorResponse(405, "usage", `This address accepts ${Allow}`, { Allow });
}

function tokenNotFound(): Response {
  return errorResponse(
    404,
    "missing",
    "This key has no such token: GET /api/tokens lists its tokens",
  );
}
