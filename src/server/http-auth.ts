/** Who is let in at `--http`: joins the keys, the certificate and the names of a server with its doorkeeper. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { type Certificate, hostNames } from "../auth/certificate.ts";
import type { FramesError } from "../errors.ts";
import type { KeyRing } from "../keys/key-file.ts";
import { formatAddress, isLoopback } from "../net/address.ts";
import { KeyRingAdapter } from "./http-keys.ts";
import { Authenticator } from "../http/auth/authenticator.ts";
import type { ServerNames } from "../http/auth/origin-check.ts";

/** What `--http` is given of its server. */
export interface HttpAuthOptions {
  /** Where it listens; empty is every interface. */
  readonly host: string;
  /** Without keys everybody may look. */
  readonly keys: KeyRing | undefined;
  /** Without one it speaks no TLS. */
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
    random: randomBytes,
    onAuthFailure: (peer, error) => onAuthFailure(bracketIpv6(peer), error),
  });
}

/** An IPv6 address as it stands before a port. */
function bracketIpv6(peer: string): string {
  return formatAddress({ host: peer, port: 0 }).replace(/:0$/, "");
}

/** What others may call a server: beyond loopback the machine's name too, and anywhere what its certificate says. */
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
