/** Keys that sign requests to an S3 engine. */
import { FramesError } from "../../../errors.ts";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Proves that the keys are temporary ones that still count. */
  readonly sessionToken?: string | undefined;
  /** Time when the keys end, in milliseconds since 1970. Undefined if it is not known. */
  readonly expiresAt?: number | undefined;
}

/** A place that credentials come from, as messages tell of it. */
export interface CredentialPlace {
  /** Name of the place, such as `the profile cam`. */
  readonly name: string;
  /** What to do if it gives no keys, or wrong ones, such as `check the keys in FILE`. */
  readonly hint: string;
}

/** Loads credentials from a place. */
export interface CredentialProvider extends CredentialPlace {
  /** What to do if the engine refuses the keys, by its error code. Default: the hint. */
  readonly remedies?: Readonly<Record<string, string>>;
  /**
   * Returns the keys as they are now.
   *
   * @throws {FramesError} `usage` if a setting is wrong, `store` if the place does not give keys
   */
  load(): Promise<Credentials>;
}

/** Unchecked credentials, as a file or an endpoint gives them. */
export interface CredentialFields {
  readonly accessKeyId: unknown;
  readonly secretAccessKey: unknown;
  readonly sessionToken?: unknown;
  /** ISO 8601. A date that cannot be read counts as unknown. */
  readonly expiration?: unknown;
}

/** Longest key, in characters. */
const maxKeyLength = 1024;

/** Longest session token that Bun's S3Client accepts, in characters. */
const maxTokenLength = 2048;

/**
 * Returns checked credentials.
 *
 * @throws {FramesError} `code`, with a message that contains none of the values
 */
export function parseCredentials(
  fields: CredentialFields,
  code: "usage" | "store",
  place: CredentialPlace,
): Credentials {
  const { accessKeyId, secretAccessKey, sessionToken, expiration } = fields;
  const check = (value: unknown, what: string, maxLength: number): string => {
    if (typeof value !== "string" || value === "") {
      throw credentialError(code, place, `it has no ${what}`);
    }
    if (value.length > maxLength) {
      const state = `its ${what} has ${value.length} characters, the limit is ${maxLength}`;
      throw credentialError(code, place, state);
    }
    if (!/\p{Cc}/u.test(value)) return value;
    throw credentialError(code, place, `its ${what} contains control characters`);
  };
  const endsAt = typeof expiration === "string" ? Date.parse(expiration) : NaN;
  const hasToken = sessionToken !== undefined && sessionToken !== null && sessionToken !== "";
  return {
    accessKeyId: check(accessKeyId, "access key", maxKeyLength),
    secretAccessKey: check(secretAccessKey, "secret key", maxKeyLength),
    sessionToken: hasToken ? check(sessionToken, "session token", maxTokenLength) : undefined,
    expiresAt: Number.isNaN(endsAt) ? undefined : endsAt,
  };
}

/** Returns the error of a place that gives no keys. */
export function credentialError(
  code: "usage" | "store",
  { name, hint }: CredentialPlace,
  state: string,
  options?: ErrorOptions,
): FramesError {
  return new FramesError(code, `Cannot get keys from ${name}: ${state}; ${hint}`, options);
}
