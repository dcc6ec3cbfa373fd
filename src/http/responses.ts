/** Answers over HTTP, and the headers that each of them has. */
import { type ErrorName, FramesError } from "../errors.ts";

/** What a browser may do with an answer unless it is the page: nothing. */
const defaultPolicy = "default-src 'none'; sandbox; frame-ancestors 'none'";

/** Put on every answer that does not say otherwise. */
const defaultHeaders: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": defaultPolicy,
};

/** Put on every answer whatever it says. */
const securityHeaders: Readonly<Record<string, string>> = {
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
};

/** Puts the headers on an answer that keep a browser from harm: the one place where that is done. */
export function withSecurityHeaders(response: Response): Response {
  for (const [name, value] of Object.entries(defaultHeaders)) {
    if (!response.headers.has(name)) response.headers.set(name, value);
  }
  for (const [name, value] of Object.entries(securityHeaders)) response.headers.set(name, value);
  return response;
}

/** A value as JSON: whole numbers that JSON cannot carry are text. */
export function jsonResponse(
  value: unknown,
  status = 200,
  headers: Record<string, string> = {},
): Response {
  return new Response(toJson(value), {
    status,
    headers: { "Content-Type": "application/json; charset=utf-8", ...headers },
  });
}

/** Likewise as text. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    typeof item === "bigint" ? String(item) : item,
  );
}

/** An error as an answer. */
export function errorResponse(
  status: number,
  error: ErrorName,
  message: string,
  headers: Record<string, string> = {},
): Response {
  return jsonResponse({ error, message }, status, headers);
}

/** Statuses of errors that may be raised while an answer is made; the others are faults of the server. */
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

/** The answer to a request that failed with `error`. */
export function toErrorResponse(error: unknown): Response {
  if (!(error instanceof FramesError)) return errorResponse(500, "internal", "The server failed");
  const status = statusCodes[error.code] ?? 500;
  const headers: Record<string, string> = status === 503 ? { "Retry-After": "1" } : {};
  return errorResponse(status, error.code, error.message, headers);
}

/** Nothing is there, or nothing that this visitor may know of. */
export function notFound(message: string): FramesError {
  return new FramesError("missing", message);
}
