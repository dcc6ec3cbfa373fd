/**
 * Parses the address of a bucket, `s3://BUCKET/PREFIX`, and the usual AWS environment variables.
 */
import { FramesError, usageError } from "../../errors.ts";
import { containsSecret } from "../../safe-text.ts";
import { type BucketLocation } from "./s3.ts";

/** Returns whether a location is the address of a bucket and not a directory. */
export function isBucketLocation(location: string): boolean {
  return /^s3:\/\//i.test(location);
}

/**
 * Parses the address of a bucket, and reads endpoint, region and credentials from the environment.
 *
 * @throws {FramesError} `usage`, with a message that contains no secret
 */
export function parseBucketLocation(
  text: string,
  environment: Readonly<Record<string, string | undefined>>,
): BucketLocation {
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
  const first = (...names: string[]) => {
    for (const name of names) {
      const value = environment[name];
      if (value !== undefined && value !== "") return value;
    }
    return undefined;
  };
  const accessKeyId = first("AWS_ACCESS_KEY_ID", "S3_ACCESS_KEY_ID");
  const secretAccessKey = first("AWS_SECRET_ACCESS_KEY", "S3_SECRET_ACCESS_KEY");
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw usageError(
      `Cannot reach ${text}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (frames help many-machines)`,
    );
  }
  const endpoint = first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT");
  if (endpoint !== undefined && !/^https?:\/\/[^/?#@]+\/?$/i.test(endpoint)) {
    const reason = "expected http://HOST:PORT or https://HOST";
    throw locationError(text, `AWS_ENDPOINT_URL_S3 is not an endpoint: ${reason}`);
  }
  return {
    bucket,
    prefix,
    endpoint: endpoint?.replace(/\/$/, ""),
    region: first("AWS_REGION", "AWS_DEFAULT_REGION", "S3_REGION") ?? "us-east-1",
    accessKeyId,
    secretAccessKey,
    sessionToken: first("AWS_SESSION_TOKEN", "S3_SESSION_TOKEN"),
  };
}

function locationError(text: string, reason: string): FramesError {
  return usageError(`Cannot reach ${text}: ${reason}`);
}
