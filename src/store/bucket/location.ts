/**
 * Parses the address of a bucket, `s3://BUCKET/PREFIX`, and the usual settings of AWS.
 */
import { FramesError, usageError } from "../../errors.ts";
import { containsSecret } from "../../safe-text.ts";
import { CredentialCache } from "./credentials/credential-cache.ts";
import { type Environment, firstSet } from "./credentials/environment.ts";
import { selectProvider } from "./credentials/select-provider.ts";
import { readSharedProfile, type SharedProfile } from "./credentials/shared-profile.ts";
import type { BucketLocation } from "./s3.ts";

/** Returns whether a location is the address of a bucket and not a directory. */
export function isBucketLocation(location: string): boolean {
  return /^s3:\/\//i.test(location);
}

/**
 * Parses the address of a bucket. Endpoint, region and keys come from the environment, or from
 * where the environment says.
 *
 * @throws {FramesError} `usage`, with a message that contains no secret
 */
export function parseBucketLocation(text: string, environment: Environment): BucketLocation {
  const [, bucket, prefixText = ""] = /^s3:\/\/([^/]+)(?:\/(.*))?$/i.exec(text) ?? [];
  if (bucket === undefined) throw locationError(text, "expected s3://BUCKET or s3://BUCKET/PREFIX");
  if (!/^[a-z0-9][a-z0-9._-]{1,253}[a-z0-9]$/i.test(bucket)) {
    // Alone, the part before a colon or @ would not be recognized as a secret.
    const shown = containsSecret(text) ? "it" : JSON.stringify(bucket);
    throw locationError(text, `${shown} is not a valid bucket name`);
  }
  const prefix = prefixText.replace(/\/+$/, "");
  const parts = prefix === "" ? [] : prefix.split("/");
  if (parts.some((part) => part === "" || part === "." || part === ".." || /\p{Cc}/u.test(part))) {
    throw locationError(
      text,
      "a part of the prefix is empty, a dot, or contains control characters",
    );
  }
  const profile = readProfile(environment);
  const region =
    firstSet(environment, "AWS_REGION", "AWS_DEFAULT_REGION", "S3_REGION") ??
    profile?.settings.get("region") ??
    "us-east-1";
  const endpoint =
    checkedEndpoint(text, environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT") ??
    checkedEndpoint(text, Object.fromEntries(profile?.settings ?? []), "endpoint_url");
  const sts = {
    region,
    endpoint: checkedEndpoint(text, environment, "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"),
  };
  const provider = selectProvider({ environment, location: text, profile, sts });
  return { bucket, prefix, endpoint, region, credentials: new CredentialCache(provider) };
}

/**
 * Returns the profile, for its region, address and keys. With keys in the environment it may be
 * unreadable, because a service is often kept out of home directories.
 */
function readProfile(environment: Environment): SharedProfile | undefined {
  try {
    return readSharedProfile(environment);
  } catch (error) {
    const keyId = firstSet(environment, "AWS_ACCESS_KEY_ID", "S3_ACCESS_KEY_ID");
    const isNeeded = keyId === undefined || firstSet(environment, "AWS_PROFILE") !== undefined;
    if (isNeeded) throw error;
    return undefined;
  }
}

/** Returns the address in the first of these settings that has a value, without a slash at its end. */
function checkedEndpoint(
  location: string,
  settings: Environment,
  ...names: string[]
): string | undefined {
  const name = names.find((each) => firstSet(settings, each) !== undefined);
  if (name === undefined) return undefined;
  const endpoint = settings[name]!;
  if (/^https?:\/\/[^/?#@]+\/?$/i.test(endpoint)) return endpoint.replace(/\/$/, "");
  const reason = "expected http://HOST:PORT or https://HOST";
  throw locationError(location, `${name} is not an endpoint: ${reason}`);
}

function locationError(text: string, reason: string): FramesError {
  return usageError(`Cannot reach ${text}: ${reason}`);
}
