/**
 * Checks the Host and Origin headers of a request.
 * A page of another site may embed a frame, or point its own name at this server (DNS rebinding).
 */
import { FramesError, usageError } from "../../errors.ts";
import { HttpError } from "../responses.ts";

/** Host names under which clients may address the server. */
export interface ServerNames {
  /** Whether the server listens on loopback only. */
  readonly isLoopback: boolean;
  /**
   * Names of this machine and its certificate, lower case. `*.example.org` matches one label before
   * it.
   */
  readonly names: readonly string[];
}

/** A single host in a Host header: a name, an IPv4 address, or an IPv6 address in brackets. */
const hostPattern = /^(\[[\da-f:.]{2,45}\]|[a-z\d](?:[a-z\d._-]{0,252}))(?::(\d{1,5}))?$/i;

/** Returns the host in lower case and the port as text. The port is empty if there is none. */
export function parseHost(header: string | null): { host: string; port: string } | undefined {
  const [, host, port = ""] = hostPattern.exec(header ?? "") ?? [];
  return host === undefined ? undefined : { host: host.toLowerCase(), port };
}

/** @throws {FramesError} `usage` or `not-let-in` if the Host header does not name this server */
export function checkHost(header: string | null, names: ServerNames): void {
  if (header === null || header === "") {
    throw usageError("The request has no Host header: send one");
  }
  const parsed = parseHost(header);
  if (parsed === undefined) {
    throw usageError("The Host header is not a single host: send one HOST:PORT");
  }
  if (isOwnName(parsed.host, names)) return;
  const hint = names.isLoopback ? "localhost or 127.0.0.1" : "its IP address or its own name";
  const message = `The server does not have this name: use ${hint}, or serve with a certificate for it (--tls-cert)`;
  throw new HttpError(421, "not-let-in", message);
}

/**
 * Returns whether the host names this server. Off loopback, any IP address does.
 * An IP address cannot be rebound because it needs no DNS lookup.
 * Behind NAT or a published port, a machine does not know its external address.
 */
function isOwnName(host: string, { isLoopback, names }: ServerNames): boolean {
  if (host === "localhost" || host === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(host)) return true;
  if (!isLoopback && (host.startsWith("[") || /^\d{1,3}(?:\.\d{1,3}){3}$/.test(host))) return true;
  return names.some((name) =>
    name.startsWith("*.") ? host.replace(/^[^.]+/, "*") === name : host === name,
  );
}

/**
 * Checks the origin of a request. Accepted are the server's own page, a typed address, a link to the page, and clients without
 * Origin.
 * Call `checkHost` first.
 *
 * @param isTls whether the server terminates TLS itself
 * @throws {FramesError} `not-let-in` if the request came from a page of another site
 */
export function checkOrigin(
  { headers, method }: Pick<Request, "headers" | "method">,
  path: string,
  isTls: boolean,
): void {
  const site = headers.get("sec-fetch-site");
  const origin = headers.get("origin");
  const message =
    "The request came from a page of another site: open this server's own page instead";
  // The page's own forms send the origin `null`, because of `Referrer-Policy: no-referrer`.
  const isOwn = origin === "null" ? site === "same-origin" : isOwnOrigin(origin, headers, isTls);
  if (!isOwn) throw new FramesError("not-let-in", message);
  if (site === null || site === "same-origin" || site === "none") return;
  const isLink =
    (method === "GET" || method === "HEAD") &&
    path === "/" &&
    headers.get("sec-fetch-mode") === "navigate" &&
    headers.get("sec-fetch-dest") === "document";
  if (!isLink) throw new FramesError("not-let-in", message);
}

function isOwnOrigin(origin: string | null, headers: Headers, isTls: boolean): boolean {
  if (origin === null) return true;
  const url = URL.parse(origin);
  if (url === null || !/^https?:$/.test(url.protocol)) return false;
  // A reverse proxy may terminate TLS, so `https:` is accepted as well if this server has none.
  if (isTls && url.protocol !== "https:") return false;
  return url.host === URL.parse(`${url.protocol}//${headers.get("host")}`)?.host;
}

/** Returns whether the client uses TLS. A reverse proxy in front of this server may terminate it. */
export function isReachedByTls({ headers }: Request, isTls: boolean): boolean {
  return isTls || headers.get("origin")?.startsWith("https:") === true;
}
