/** `/api/tokens`: makes, lists and revokes the tokens of a key. */
import { FramesError } from "../../errors.ts";
import type { AuthRequest, KeyPrincipal, HttpKey } from "./access.ts";
import { toErrorResponse, jsonResponse, errorResponse } from "../responses.ts";
import { readJsonBody } from "../request-body.ts";
import type { RandomBytes } from "./secrets.ts";
import { latestPath, type AccessToken, AccessTokens } from "./access-tokens.ts";

/** How many hours a token lasts: where nothing is said, and at most. */
const defaultHours = 24;
const maxHours = 30 * 24;

/** Which source is to be seen. */
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

  /** The token of this text, if it holds. */
  find(text: string, now: number): AccessToken | undefined {
    return this.#tokens.find(text, now);
  }

  sweepExpired(now: number, isValid: (key: HttpKey) => boolean): void {
    this.#tokens.sweepExpired(now, isValid);
  }

  /** Answers whoever has a key. */
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

  /** Answers where nobody needs a token. */
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
    // Whether there is such a stream is not looked at, and so not said.
    if (!key.allows(stream)) {
      return errorResponse(
        403,
        "wrong-stream",
        "The key is not for this stream: log in with another",
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

  /** As whoever asks reaches this server; something in front of it may speak TLS. */
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
      `Cannot make a token: hours are more than 0, up to ${maxHours}`,
    );
  }
  return { stream, source, hours };
}

/** Whether this can be the name of a stream or source; the address of one that is none shows nothing. */
function isName(value: unknown, maxBytes: number): value is string {
  return (
    typeof value === "string" &&
    value.isWellFormed() &&
    Buffer.byteLength(value) <= maxBytes &&
    value.split("/").every((part) => part !== "" && !part.startsWith("."))
  );
}

/** What follows `/api/tokens/`; nothing where nothing does. */
function tokenId({ url }: AuthRequest): string | undefined {
  return url.pathname.split("/")[3] || undefined;
}

function toNanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds)) * 1_000_000n;
}

function methodNotAllowed(Allow: string): Response {
  return errorResponse(405, "usage", `That address answers to ${Allow}`, { Allow });
}

function tokenNotFound(): Response {
  return errorResponse(
    404,
    "missing",
    "There is no such token of this key: GET /api/tokens lists them",
  );
}
