/** Where a bucket is: `s3://BUCKET/PREFIX`, and what the usual variables of the environment say. */
import { FramesError } from "../errors.ts";
import { type BucketPlace } from "./s3.ts";

/** Whether a place is a bucket, and no directory. */
export function isBucket(place: string): boolean {
  return /^s3:\/\//i.test(place);
}

/**
 * Reads where a bucket is and who asks.
 *
 * @throws {FramesError} `usage`, which shows no secret
 */
export function bucketPlace(
  text: string,
  environment: Readonly<Record<string, string | undefined>>,
): BucketPlace {
  const [, bucket, rest = ""] = /^s3:\/\/([^/]+)(?:\/(.*))?$/i.exec(text) ?? [];
  if (bucket === undefined) throw wrong(text, "expected s3://BUCKET or s3://BUCKET/PREFIX");
  if (!/^[a-z0-9][a-z0-9._-]{1,253}[a-z0-9]$/i.test(bucket)) {
    throw wrong(text, `no bucket is called ${JSON.stringify(bucket)}`);
  }
  const prefix = rest.replace(/\/+$/, "");
  const parts = prefix === "" ? [] : prefix.split("/");
  if (parts.some((part) => part === "" || part === "." || part === ".." || /\p{Cc}/u.test(part))) {
    throw wrong(text, "a part of the prefix is empty, a dot, or holds control characters");
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
    throw new FramesError(
      "usage",
      `Cannot reach ${text}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (frames help s3)`,
    );
  }
  const endpoint = first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT");
  if (endpoint !== undefined && !/^https?:\/\/[^/?#@]+\/?$/i.test(endpoint)) {
    const why = "expected http:// or https://, a host and perhaps a port";
    throw wrong(text, `the endpoint in AWS_ENDPOINT_URL_S3 cannot be read: ${why}`);
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

function wrong(text: string, why: string): FramesError {
  return new FramesError("usage", `Cannot reach ${text}: ${why}`);
}
