/** `/api/tokens`: creates, lists and revokes the tokens of a key. */
import { toNanoseconds } from "../../common/clock.ts";
import { randomBytes } from "node:crypto";
import { type AuthRequest, type HttpKey, openKey } from "./access.ts";
import { sourceUrlPath } from "../media-type.ts";
import { usageError } from "../../errors.ts";
import { HttpError, jsonResponse, notFound } from "../responses.ts";
import { readJsonBody } from "../request-body.ts";
import type { SecretStore } from "./secrets.ts";
import { isReachedByTls } from "./origin-check.ts";
import { foxglovePath, type AccessToken } from "./access-tokens.ts";

/** Limit of valid tokens per key. */
const maxTokensPerKey = 100;

/** Lifetime of a token: default and maximum. */
const defaultHours = 24;
const maxHours = 30 * 24;

/** Body of `POST /api/tokens`. */
interface TokenParams {
  readonly stream: string | undefined;
  readonly source: string | undefined;
  readonly hours: number;
}

export class TokenEndpoint {
  readonly #isTls: boolean;
  readonly #tokens: SecretStore<AccessToken>;

  constructor(isTls: boolean, tokens: SecretStore<AccessToken>) {
    this.#isTls = isTls;
    this.#tokens = tokens;
  }

  /**
   * Handles a request of a client that has a key.
   *
   * @throws {FramesError} as the response says it
   */
  handle(req: AuthRequest, key: HttpKey): Response | Promise<Response> {
    const id = tokenId(req);
    switch (req.request.method) {
      case "POST":
        if (id === undefined) return this.#create(req, key);
        throw methodNotAllowed("DELETE");
      case "DELETE":
        if (id !== undefined) return this.#revoke(id, key, req.now);
        throw methodNotAllowed("GET, HEAD, POST");
      default:
        if (id === undefined) return this.#list(key, req.now);
        throw methodNotAllowed("DELETE");
    }
  }

  async #create(req: AuthRequest, key: HttpKey): Promise<Response> {
    const params = await readTokenParams(req.request);
    const { stream, source, hours } = params;
    // A server without keys needs a token only for Foxglove's page, which is of another site.
    if (key === openKey && source !== undefined) {
      return jsonResponse({ id: null, address: this.#url(req, params), expires: null });
    }
    // Does not check that the stream exists, so the response cannot reveal it.
    if (stream !== undefined && !key.allows(stream)) {
      const message = "The key does not allow this stream: log in with another";
      throw new HttpError(403, "wrong-stream", message);
    }
    const createdAt = req.now;
    if (this.#tokens.ofKey(key, createdAt).length >= maxTokensPerKey) {
      const hint = "revoke one with DELETE /api/tokens/ID";
      const message = `Cannot make another token: the limit is ${maxTokensPerKey} a key; ${hint}`;
      throw new HttpError(429, "full", message);
    }
    const id = randomBytes(8).toString("hex");
    const expiresAt = createdAt + hours * 3_600_000;
    const controller = new AbortController();
    const text = this.#tokens.add({ id, stream, source, key, createdAt, expiresAt, controller });
    const address = this.#url(req, params, text);
    return jsonResponse({ id, address, expires: toNanoseconds(expiresAt) }, 201);
  }

  #list(key: HttpKey, now: number): Response {
    const tokens = this.#tokens.ofKey(key, now).map((token) => ({
      id: token.id,
      stream: token.stream ?? null,
      source: token.source ?? null,
      created: toNanoseconds(token.createdAt),
      expires: toNanoseconds(token.expiresAt),
    }));
    return jsonResponse({ tokens, next: null });
  }

  #revoke(id: string, key: HttpKey, now: number): Response {
    const token = this.#tokens.ofKey(key, now).find((one) => one.id === id);
    if (token === undefined) {
      throw notFound("This key has no such token: GET /api/tokens lists its tokens");
    }
    this.#tokens.remove(token);
    return new Response(null, { status: 204 });
  }

  /** Returns the URL of MJPEG or of Foxglove by which the client reaches this server. */
  #url({ request }: AuthRequest, { stream, source }: TokenParams, token?: string): string {
    const isTls = isReachedByTls(request, this.#isTls);
    const isMjpeg = stream !== undefined && source !== undefined;
    const path = isMjpeg ? `${sourceUrlPath(stream, source)}/latest.mjpeg` : foxglovePath;
    const url = new URL(
      `${isMjpeg ? "http" : "ws"}${isTls ? "s" : ""}://${request.headers.get("host")}${path}`,
    );
    if (!isMjpeg && stream !== undefined) url.searchParams.set("stream", stream);
    if (token !== undefined) url.searchParams.set("token", token);
    return url.href;
  }
}

/** @throws {FramesError} `usage` if the body is wrong */
async function readTokenParams(request: Request): Promise<TokenParams> {
  const { stream, source, hours = defaultHours } = await readJsonBody(request);
  const isScope =
    (stream === undefined || isName(stream, 255)) &&
    (source === undefined || (stream !== undefined && isName(source, 1024)));
  if (!isScope) {
    throw usageError('Cannot make a token: the body is {"stream", "source", "hours"}');
  }
  if (typeof hours !== "number" || !(hours > 0 && hours <= maxHours)) {
    throw usageError(`Cannot make a token: expected hours above 0 and up to ${maxHours}`);
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

function methodNotAllowed(Allow: string): HttpError {
  return new HttpError(405, "usage", `This address accepts ${Allow}`, { Allow });
}
