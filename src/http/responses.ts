/** Builds HTTP responses and adds the headers that all of them have. */
import { countGarbage } from "../common/memory.ts";
import { type ErrorName, FramesError } from "../errors.ts";
import { redact, safeJson } from "../safe-text.ts";

/** Forbids a browser everything. Applies to all responses but the page. */
const defaultPolicy = "default-src 'none'; sandbox; frame-ancestors 'none'";

/** Added unless the response has its own value. */
const defaultHeaders: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": defaultPolicy,
};

/** Added to every response, replacing its own value. */
const securityHeaders: Readonly<Record<string, string>> = {
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
};

/** Adds the security headers. Every response passes through here. */
export function withSecurityHeaders(response: Response): Response {
  for (const [name, value] of Object.entries(defaultHeaders)) {
    if (!response.headers.has(name)) response.headers.set(name, value);
  }
  for (const [name, value] of Object.entries(securityHeaders)) response.headers.set(name, value);
  return response;
}

/** Creates a JSON response. BigInt values become strings. */
export function jsonResponse(
  value: unknown,
  status = 200,
  headers: Record<string, string> = {},
): Response {
  return jsonTextResponse(toJson(value), status, headers);
}

/** Creates a response of JSON text. */
export function jsonTextResponse(
  json: string,
  status = 200,
  headers: Record<string, string> = {},
): Response {
  const contentType = "application/json; charset=utf-8";
  return textResponse(json, status, { "Content-Type": contentType, ...headers });
}

/** Bytes of objects that a byte of a long list leaves behind, about. */
const garbagePerByte = 10;

/** Creates a response of text that was made for it. */
export function textResponse(text: string, status: number, headers: Record<string, string>) {
  countGarbage(garbagePerByte * text.length);
  return new Response(text, { status, headers });
}

/** Serializes a value as JSON without secrets in its messages. BigInt values become strings. */
export function toJson(value: unknown): string {
  return safeJson(value, (name, text) => (name === "message" ? redact(text) : text));
}

/** An error whose response has a status of its own. */
export class HttpError extends FramesError {
  readonly status: number;
  /** Headers of the response. */
  readonly headers: Record<string, string>;

  constructor(
    status: number,
    code: ErrorName,
    message: string,
    headers: Record<string, string> = {},
  ) {
    super(code, message);
    this.status = status;
    this.headers = headers;
  }
}

/** HTTP status of the other errors that a route may throw. Those that are not listed are 500. */
const statusCodes: Partial<Record<ErrorName, number>> = {
  usage: 400,
  missing: 404,
  damaged: 410,
  "bad-name": 404,
  "not-let-in": 403,
  limit: 422,
  full: 503,
  store: 503,
  stopping: 503,
};

/**
 * Turns a thrown error into a response. Errors other than `FramesError` become 500 without details.
 */
export function toErrorResponse(failure: unknown): Response {
  const { code: error, message } =
    failure instanceof FramesError
      ? failure
      : new FramesError("internal", "The server failed; its log has the reason");
  if (failure instanceof HttpError) {
    return jsonResponse({ error, message }, failure.status, failure.headers);
  }
  const status = statusCodes[error] ?? 500;
  return jsonResponse({ error, message }, status, status === 503 ? { "Retry-After": "1" } : {});
}

/**
 * Creates a `missing` error. Also used for what the client may not read, so it cannot detect it.
 */
export function notFound(message: string): FramesError {
  return new FramesError("missing", message);
}
