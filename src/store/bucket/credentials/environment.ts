/** Settings for buckets in environment variables. */
import { usageError } from "../../../errors.ts";
import { type CredentialProvider, parseCredentials } from "./credentials.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Returns the value of the first of these variables that is set and not empty. */
export function firstSet(environment: Environment, ...names: string[]): string | undefined {
  for (const name of names) {
    const value = environment[name];
    if (value !== undefined && value !== "") return value;
  }
  return undefined;
}

const remedies = {
  InvalidAccessKeyId: "check AWS_ACCESS_KEY_ID",
  SignatureDoesNotMatch: "check AWS_SECRET_ACCESS_KEY",
  ExpiredToken: "start frames again with a new AWS_SESSION_TOKEN",
  InvalidToken: "check AWS_SESSION_TOKEN",
};

/**
 * Returns the provider of the keys in the environment; undefined if it has none. The names that
 * begin with `S3_` are Bun's.
 *
 * @throws {FramesError} `usage` if there is only half a key
 */
export function environmentKeys(
  environment: Environment,
  location: string,
): CredentialProvider | undefined {
  const accessKeyId = firstSet(environment, "AWS_ACCESS_KEY_ID", "S3_ACCESS_KEY_ID");
  const secretAccessKey = firstSet(environment, "AWS_SECRET_ACCESS_KEY", "S3_SECRET_ACCESS_KEY");
  if (accessKeyId === undefined && secretAccessKey === undefined) return undefined;
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const set = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and not only one of them";
    throw usageError(`Cannot reach ${location}: ${set} (frames help bucket-keys)`);
  }
  const hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN";
  const place = { name: "the environment", hint };
  const sessionToken = firstSet(environment, "AWS_SESSION_TOKEN", "S3_SESSION_TOKEN");
  const keys = parseCredentials({ accessKeyId, secretAccessKey, sessionToken }, "usage", place);
  return { ...place, remedies, load: () => Promise.resolve(keys) };
}
