/** Answers over HTTP, and the headers that each of them has. */
import { type ErrorName, FramesError } from "../errors.ts";

/** What a browser may do with an answer unless it is the page: nothing. */
const inertPolicy = "default-src 'none'; sandbox; frame-ancestors 'none'";

/** Put on every answer that does not say otherwise. */
const usualHeaders: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": inertPolicy,
};

/** Put on every answer whatever it says. */
const fixedHeaders: Readonly<Record<string, string>> = {
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
};

/** Puts the headers on an answer that keep a browser from harm: the one place where that is done. */
export function secured(answer: Response): Response {
  for (const [name, value] of Object.entries(usualHeaders)) {
    if (!answer.headers.has(name)) answer.headers.set(name, value);
  }
  for (const [name, value] of Object.entries(fixedHeaders)) answer.headers.set(name, value);
  return answer;
}

/** A value as JSON: whole numbers that JSON cannot carry are text. */
export function json(value: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(jsonText(value), {
    status,
    headers: { "Content-Type": "application/json; charset=utf-8", ...headers },
  });
}

/** Likewise as text. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === "bigint" ? String(part) : part,
  );
}

/** An error as an answer. */
export function refusal(
  status: number,
  error: ErrorName,
  message: string,
  headers: Record<string, string> = {},
): Response {
  return json({ error, message }, status, headers);
}

/** Statuses of errors that may be raised while an answer is made; the others are faults of the server. */
const statuses: Partial<Record<ErrorName, number>> = {
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
export function failure(error: unknown): Response {
  if (!(error instanceof FramesError)) return refusal(500, "internal", "The server failed");
  const status = statuses[error.code] ?? 500;
  const more: Record<string, string> = status === 503 ? { "Retry-After": "1" } : {};
  return refusal(status, error.code, error.message, more);
}

/** Nothing is there, or nothing that this visitor may know of. */
export function missing(what: string): FramesError {
  return new FramesError("missing", what);
}
