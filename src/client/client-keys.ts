/** Chooses the keys that a client proves to a server. */
import { Key } from "../auth/key.ts";
import { FramesError, usageError } from "../errors.ts";
import { defaultKeyFile, readKeys } from "../keys/key-file.ts";
import { type Address, formatAddress, isLoopback } from "../net/address.ts";
import { resolveHost } from "../net/connect.ts";

/** Keys from the caller's options. */
export interface KeyOptions {
  /** A key as text. The server must require it, and prove that it has the same key. */
  readonly key?: string;
  /** Path of a key file; its keys are tried in order, each under the same rule as `key`. */
  readonly keyFile?: string;
  /** Connects without key or encryption, to a server that requires no key. */
  readonly insecure?: boolean;
}

/** When connections use a key: never, always, or (`if-asked`) once the server answered `no-key`. */
export interface ClientKeys {
  readonly use: "never" | "always" | "if-asked";
  /**
   * Returns the keys in the order in which they are tried.
   *
   * @throws {FramesError} `usage` or `missing` if they cannot be read
   */
  keys(): readonly Key[];
}

/**
 * Chooses the keys as `clientKeys`. If there is none, first checks the name of the server, because
 * a missing key would hide that the name is wrong.
 *
 * @throws {FramesError} `usage`, `missing`, `no-key`, or `unreachable` if there is no such host
 */
export async function checkedClientKeys(
  role: "send" | "receive",
  address: Address,
  options: KeyOptions,
): Promise<ClientKeys> {
  try {
    return clientKeys(role, address, options);
  } catch (error) {
    if (error instanceof FramesError && error.code === "no-key") await resolveHost(address);
    throw error;
  }
}

/**
 * Chooses whether a connection is encrypted, and with which keys. A key from the options is always
 * used. The keys of the default file are always used with another machine's server. A server on
 * this machine gets them only if it asks for a key.
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
    throw usageError(`Cannot ${role} with both a key and --insecure: leave one out`);
  }
  if (insecure) return { use: "never", keys: () => [] };
  if (key !== undefined) {
    const parsed = Key.parse(key, "in FRAMES_KEY");
    return { use: "always", keys: () => [parsed] };
  }
  const isLocal = isLoopback(address.host || "127.0.0.1");
  // Resolved late: `defaultKeyFile` throws without a home directory, and no key may be needed.
  if (isLocal && !hasKey)
    return { use: "if-asked", keys: () => usableKeys(role, defaultKeyFile()) };
  const path = keyFile ?? defaultKeyFile();
  const usable = usableKeys(role, path);
  if (usable.length > 0) return { use: "always", keys: () => usable };
  const what = `${role === "send" ? "send to" : "receive from"} ${formatAddress(address)}`;
  const save = `frames key save${keyFile === undefined ? "" : ` --key-file ${keyFile}`}`;
  throw new FramesError(
    "no-key",
    `Cannot ${what}: no key in ${path}; on the server run frames key, then paste its output here into ${save}`,
  );
}

function usableKeys(role: "send" | "receive", path: string): readonly Key[] {
  const entries = readKeys(path);
  const usable = entries.filter((entry) => entry.role === role || entry.role === "both");
  // If all keys are for the other role, the server's `wrong-role` explains it better than `no-key`.
  return (usable.length > 0 ? usable : entries).map((entry) => entry.key);
}
