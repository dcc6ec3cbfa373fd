/** Builds the authenticator of `--http` from a server's keys, certificate and host names. */
import { hostname } from "node:os";
import { type Certificate, hostNames } from "../auth/certificate.ts";
import type { FramesError } from "../errors.ts";
import type { KeyRing } from "../keys/key-file.ts";
import { formatAddress, isLoopback } from "../net/address.ts";
import { KeyRingAdapter } from "./http-keys.ts";
import { Authenticator } from "../http/auth/authenticator.ts";
import type { ServerNames } from "../http/auth/origin-check.ts";

/** Settings of the server that the HTTP authenticator depends on. */
export interface HttpAuthOptions {
  /** Host that `--http` listens at. Empty: every interface. */
  readonly host: string;
  /**
   * Keys that HTTP clients may use. Undefined: no key is required and every client may read
   * everything.
   */
  readonly keys: KeyRing | undefined;
  /** Certificate for TLS. Undefined: plain HTTP. */
  readonly certificate: Certificate | undefined;
  readonly onAuthFailure: (peer: string, error: FramesError) => void;
}

export function createAuthenticator({
  host,
  keys,
  certificate,
  onAuthFailure,
}: HttpAuthOptions): Authenticator {
  return new Authenticator({
    names: serverNames(host, certificate),
    isTls: certificate !== undefined,
    keys: keys === undefined ? undefined : new KeyRingAdapter(keys),
    clock: Date.now,
    onAuthFailure: (peer, error) => onAuthFailure(bracketIpv6(peer), error),
  });
}

/** Puts an IPv6 address in brackets, as in `[::1]:9727`. */
function bracketIpv6(peer: string): string {
  return formatAddress({ host: peer, port: 0 }).replace(/:0$/, "");
}

/**
 * Returns the host names that requests may use. These include the names in the certificate and,
 * beyond loopback, the machine's own name.
 */
function serverNames(host: string, certificate: Certificate | undefined): ServerNames {
  const isOnLoopback = isLoopback(host);
  const ownName = hostname().toLowerCase();
  const [shortName = ownName] = ownName.split(".");
  const names = new Set([
    ...(isOnLoopback ? [] : [ownName, shortName, `${shortName}.local`]),
    ...(host === "" ? [] : [host.toLowerCase()]),
    ...(certificate === undefined ? [] : hostNames(certificate)),
  ]);
  return { isLoopback: isOnLoopback, names: [...names] };
}
