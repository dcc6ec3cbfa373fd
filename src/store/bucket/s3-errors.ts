/** Error codes of S3 engines, and the sentences for them. */
import { systemCode, systemSentence } from "../../errors.ts";

/** An error that a retry may not meet. */
export class TransientError extends Error {}

/** Returns the sentence for an error of a request. */
export function reasonOf(error: unknown): string {
  if (error instanceof TransientError) return error.message;
  if (error instanceof DOMException || (error instanceof Error && error.name === "TimeoutError")) {
    return "it did not answer in time";
  }
  const code = systemCode(error);
  return code === undefined ? systemSentence(error) : sentenceOf(code, systemSentence(error));
}

/** S3 error codes that a retry may not meet. */
export const transientCodes = new Set([
  "RequestTimeout",
  "SlowDown",
  "InternalError",
  "ServiceUnavailable",
]);

/** Messages for S3 error codes that refuse the credentials, so that others may help. */
export const refusalSentences = new Map(
  Object.entries({
    InvalidAccessKeyId: "the access key is unknown there",
    SignatureDoesNotMatch: "the secret key is wrong",
    ExpiredToken: "the session token has expired",
    TokenRefreshRequired: "the session token has expired",
    InvalidToken: "the session token is wrong",
    // From MinIO, also for a token that has expired.
    InvalidTokenId: "the session token is wrong",
  }),
);

/** Messages for S3 error codes. */
export const errorSentences = new Map([
  ...refusalSentences,
  ...Object.entries({
    NoSuchBucket: "the bucket does not exist; create it first",
    AccessDenied:
      "the access key lacks a permission; it needs to get, put, delete and list objects",
    QuotaExceeded: "the bucket is full; delete objects, or raise its quota",
    EntityTooLarge: "the object is larger than the engine accepts",
    RequestTimeTooSkewed: "the clocks differ; set the clock of this machine",
    PermanentRedirect: "the bucket is in another region; set AWS_REGION",
    AuthorizationHeaderMalformed: "the bucket is in another region; set AWS_REGION",
    InvalidBucketName: "the bucket name is not valid",
    NotImplemented: "the engine does not support this request",
    ConnectionRefused: "connection refused; check AWS_ENDPOINT_URL_S3",
    ERR_HTTP_CONTENT_LENGTH_MISMATCH: "the frame was shorter than its size",
  }),
]);

/** Returns the sentence for an error code; `fallback` if the code is not known. */
export function sentenceOf(code: string, fallback = code): string {
  const known = errorSentences.get(code);
  if (known === undefined) return fallback;
  return /^E|^Connection/.test(code) && !known.includes("token") ? known : `${known} (${code})`;
}
