/**
 * Whose page asks, and which server it means. A browser sends requests for whichever page it shows: one of
 * another site may embed a frame, or have its own name lead to this server (DNS rebinding).
 */

/** Under which names a server may be meant. */
export interface ServerNames {
  /** Whether it listens on loopback alone. */
  readonly isLoopback: boolean;
  /** Names of this machine and of its certificate, in lower case; `*.example.org` is any one label before it. */
  readonly names: readonly string[];
}

/** Why a request is turned away. */
export interface OriginRejection {
  readonly status: 400 | 403 | 421;
  readonly message: string;
}

/** A Host header that says one thing: a name, an IPv4 address, or an IPv6 address in brackets. */
const hostPattern = /^(\[[\da-f:.]{2,45}\]|[a-z\d](?:[a-z\d._-]{0,252}))(?::(\d{1,5}))?$/i;

/** The host that a Host header names, in lower case, and its port as text, empty where there is none. */
export function parseHost(header: string | null): { host: string; port: string } | undefined {
  const [, host, port = ""] = hostPattern.exec(header ?? "") ?? [];
  return host === undefined ? undefined : { host: host.toLowerCase(), port };
}

/** What is wrong with the server that a request means; nothing if it is this one. */
export function checkHost(header: string | null, names: ServerNames): OriginRejection | undefined {
  if (header === null || header === "") {
    return { status: 400, message: "The request has no Host header: give it one" };
  }
  const parsed = parseHost(header);
  if (parsed === undefined) {
    return { status: 400, message: "The Host header is no single host: give it one HOST:PORT" };
  }
  if (isOwnName(parsed.host, names)) return undefined;
  const hint = names.isLoopback ? "localhost or 127.0.0.1" : "its IP address or its own name";
  return { status: 421, message: `This server is not called so: use ${hint}, or --tls-cert` };
}

/**
 * Nobody's name server decides what an address means, so an address cannot be rebound; and behind a
 * translated or published port a machine does not know its own.
 */
function isOwnName(host: string, { isLoopback, names }: ServerNames): boolean {
  if (host === "localhost" || host === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(host)) return true;
  if (!isLoopback && (host.startsWith("[") || /^\d{1,3}(?:\.\d{1,3}){3}$/.test(host))) return true;
  return names.some((name) =>
    name.startsWith("*.") ? host.replace(/^[^.]+/, "*") === name : host === name,
  );
}

/**
 * What is wrong with the page that a request comes from; nothing if it is the server's own, the address line,
 * a link to the page, or no page at all. The Host header has been looked at before.
 *
 * @param isTls whether the server itself speaks TLS
 */
export function checkOrigin(
  { headers, method }: Pick<Request, "headers" | "method">,
  path: string,
  isTls: boolean,
): OriginRejection | undefined {
  const site = headers.get("sec-fetch-site");
  const origin = headers.get("origin");
  const rejection: OriginRejection = {
    status: 403,
    message: "A page of another site asked for it: open this server's own page instead",
  };
  // A form of ours has the origin `null`, since no page here tells where it is.
  const isOwn = origin === "null" ? site === "same-origin" : isOwnOrigin(origin, headers, isTls);
  if (!isOwn) return rejection;
  if (site === null || site === "same-origin" || site === "none") return undefined;
  const isLink =
    (method === "GET" || method === "HEAD") &&
    path === "/" &&
    headers.get("sec-fetch-mode") === "navigate" &&
    headers.get("sec-fetch-dest") === "document";
  return isLink ? undefined : rejection;
}

function isOwnOrigin(origin: string | null, headers: Headers, isTls: boolean): boolean {
  if (origin === null) return true;
  const url = URL.parse(origin);
  if (url === null || !/^https?:$/.test(url.protocol)) return false;
  // Something in front of a server without TLS may speak it.
  if (isTls && url.protocol !== "https:") return false;
  return url.host === URL.parse(`${url.protocol}//${headers.get("host")}`)?.host;
}
