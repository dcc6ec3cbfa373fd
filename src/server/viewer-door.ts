/** Who is let in at `--http`: joins the keys, the certificate and the names of a server with its doorkeeper. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { type Certificate, namesIn } from "../auth/certificate.ts";
import type { FramesError } from "../errors.ts";
import type { KeyRing } from "../keys.ts";
import { formatAddress, isLoopback } from "../net/address.ts";
import { KeysOfRing } from "./viewer-keys.ts";
import { Doorkeeper } from "../viewer/doorkeeper.ts";
import type { ServerNames } from "../viewer/origin.ts";

/** What `--http` is given of its server. */
export interface DoorOptions {
  /** Where it listens; empty is every interface. */
  readonly host: string;
  /** Without keys everybody may look. */
  readonly keys: KeyRing | undefined;
  /** Without one it speaks no TLS. */
  readonly certificate: Certificate | undefined;
  readonly onWrong: (peer: string, error: FramesError) => void;
}

export function doorkeeperOf({ host, keys, certificate, onWrong }: DoorOptions): Doorkeeper {
  return new Doorkeeper({
    names: namesOf(host, certificate),
    isTls: certificate !== undefined,
    keys: keys === undefined ? undefined : new KeysOfRing(keys),
    clock: Date.now,
    random: randomBytes,
    onWrong: (peer, error) => onWrong(bracketed(peer), error),
  });
}

/** An IPv6 address as it stands before a port. */
function bracketed(peer: string): string {
  return formatAddress({ host: peer, port: 0 }).replace(/:0$/, "");
}

/** What others may call a server: beyond loopback the machine's name too, and anywhere what its certificate says. */
function namesOf(host: string, certificate: Certificate | undefined): ServerNames {
  const isOnLoopback = isLoopback(host);
  const own = hostname().toLowerCase();
  const [short = own] = own.split(".");
  const names = new Set([
    ...(isOnLoopback ? [] : [own, short, `${short}.local`]),
    ...(host === "" ? [] : [host.toLowerCase()]),
    ...(certificate === undefined ? [] : namesIn(certificate)),
  ]);
  return { isLoopback: isOnLoopback, names: [...names] };
}
