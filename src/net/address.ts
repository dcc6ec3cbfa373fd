/** Parses and formats network addresses. */
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import { isAnyAddress, isAnyIPv4 } from "../common/any-address.ts";
import { usageError } from "../errors.ts";

/** Default port of FRAMES/1. */
export const defaultPort = 9726;

/** An address to connect to or to listen at. */
export interface Address {
  /** Host name or IP address; IPv6 without brackets. Empty: every interface. */
  readonly host: string;
  readonly port: number;
}

/** Whether a host is an IPv6 address. Loads `node:net`, which most commands do not need. */
function isIPv6(host: string): boolean {
  return process.getBuiltinModule("node:net").isIPv6(host);
}

/** Whether a host of an address is an IP address, and not a name. */
export function isIPAddress(host: string): boolean {
  const octets = host.split(".");
  const isOctet = (text: string) => /^(?:0|[1-9]\d{0,2})$/.test(text) && Number(text) < 256;
  return host.includes(":") || (octets.length === 4 && octets.every(isOctet));
}

/**
 * Parses `HOST:PORT`, `HOST`, `:PORT`, `[IPv6]:PORT` or a bare IPv6 address.
 *
 * @param label names the value in messages
 * @param fallbackPort port to use if the text has none
 * @throws {FramesError} `usage`
 */
export function parseAddress(text: string, label: string, fallbackPort = defaultPort): Address {
  const bracketedMatch = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  const plainMatch = /^([^:[\]]*)(?::([^:]*))?$/.exec(text);
  const [host, port] = bracketedMatch
    ? [isIPv6(bracketedMatch[1]!) ? bracketedMatch[1] : undefined, bracketedMatch[2]]
    : plainMatch
      ? [plainMatch[1], plainMatch[2]]
      : [isIPv6(text) ? text : undefined, undefined];
  const number = port === undefined ? fallbackPort : /^\d{1,5}$/.test(port) ? Number(port) : NaN;
  const isPortOnly = /^\d+$/.test(text);
  if (
    host === undefined ||
    text === "" ||
    isPortOnly ||
    /[\s/@]/.test(text) ||
    !(number <= 65_535)
  ) {
    const hint = isPortOnly && Number(text) <= 65_535 ? `; a port alone is written :${text}` : "";
    throw usageError(
      `Cannot read ${label}: expected HOST or HOST:PORT with a port up to 65535, current value is ${JSON.stringify(text)}${hint}`,
    );
  }
  return { host, port: number };
}

/** Formats an address as `HOST:PORT`, with IPv6 in brackets. */
export function formatAddress({ host, port }: Address): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Whether only this machine can reach a listener at this host. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** Returns the network interfaces; none if a sandbox denies the query. */
function listInterfaces(): NetworkInterfaceInfo[] {
  try {
    return Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  } catch {
    return [];
  }
}

/**
 * Returns the hosts under which other machines may reach a listener, IPv4 first.
 *
 * @param host where it listens
 */
export function reachableHosts(host: string): string[] {
  if (!isAnyAddress(host)) return [host];
  const external = listInterfaces().filter(({ internal, address, family }) => {
    return !internal && !address.startsWith("fe80:") && (family === "IPv4" || !isAnyIPv4(host));
  });
  const rank = (family: string) => (family === "IPv4" ? 0 : 1);
  return external.toSorted((a, b) => rank(a.family) - rank(b.family)).map((entry) => entry.address);
}
