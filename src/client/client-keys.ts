/** Which keys a client proves to a server. */
import type { ClientKeys } from "./reconnect.ts";
import { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { defaultKeyFile, readKeys } from "../keys/key-file.ts";
import { type Address, formatAddress, isLoopback } from "../net/address.ts";

/** What a client was given of keys. */
export interface KeyOptions {
  /** A key as text, which the server must ask for and prove too. */
  readonly key?: string;
  /** Likewise the keys in a file, tried in order. */
  readonly keyFile?: string;
  /** Without encryption, with a server that lets anyone in. */
  readonly insecure?: boolean;
}

/**
 * How this server is spoken to. A key that is given is demanded of it; one that merely lies about is for
 * other machines, and for a server of this user here that asks for one.
 *
 * @throws {FramesError} `usage`, `missing` or `no-key`
 */
export function clientKeys(
  role: "send" | "receive",
  address: Address,
  { key, keyFile, insecure = false }: KeyOptions,
): ClientKeys {
  const hasKey = key !== undefined || keyFile !== undefined;
  if (hasKey && insecure) {
    throw new FramesError("usage", `Cannot ${role} both with a key and --insecure: choose one`);
  }
  if (insecure) return { use: "never", keys: () => [] };
  if (key !== undefined) {
    const parsed = Key.parse(key, "in FRAMES_KEY");
    return { use: "always", keys: () => [parsed] };
  }
  const isLocal = isLoopback(address.host || "127.0.0.1");
  // Whoever has no home needs none for this.
  if (isLocal && !hasKey)
    return { use: "if-asked", keys: () => usableKeys(role, defaultKeyFile()) };
  const path = keyFile ?? defaultKeyFile();
  const usable = usableKeys(role, path);
  if (usable.length > 0) return { use: "always", keys: () => usable };
  throw new FramesError(
    "no-key",
    `Cannot ${role === "send" ? "send to" : "receive from"} ${formatAddress(address)}: there is no key in ${path}; show the server's there with frames key, and save it here with frames key save`,
  );
}

function usableKeys(role: "send" | "receive", path: string): readonly Key[] {
  const entries = readKeys(path);
  const usable = entries.filter((entry) => entry.role === role || entry.role === "both");
  // What the server says of a key for another direction is clearer than what could be said here.
  return (usable.length > 0 ? usable : entries).map((entry) => entry.key);
}
