import { describe, expect, test } from "bun:test";
import { parseBucketLocation, isBucketLocation } from "../../../src/store/bucket/location.ts";
import { FramesError } from "../../../src/errors.ts";

const keys = { AWS_ACCESS_KEY_ID: "who", AWS_SECRET_ACCESS_KEY: "a-secret" };

function refusal(text: string, environment: Record<string, string> = keys): string {
  try {
    parseBucketLocation(text, environment);
    return "nothing";
  } catch (error) {
    expect((error as FramesError).code).toBe("usage");
    return (error as FramesError).message;
  }
}

describe("parseBucketLocation", () => {
  test("a store location is a bucket if it begins with s3://", () => {
    expect(["s3://a", "S3://a/b", "/s3://a", "s3:/a", "received"].map(isBucketLocation)).toEqual([
      ...[true, true],
      ...[false, false, false],
    ]);
  });

  test("the prefix of a bucket location is optional, and trailing slashes are ignored", () => {
    const prefixes = ["s3://frames", "s3://frames/", "s3://frames/site a/ü//"].map(
      (text) => parseBucketLocation(text, keys).prefix,
    );
    expect(prefixes).toEqual(["", "", "site a/ü"]);
  });

  test("endpoint, region and keys of a bucket come from the AWS variables, the most specific first", () => {
    const all = {
      ...keys,
      AWS_ENDPOINT_URL_S3: "http://127.0.0.1:7480/",
      AWS_ENDPOINT_URL: "http://elsewhere",
      AWS_REGION: "eu-central-1",
      AWS_SESSION_TOKEN: "token",
    };
    expect(parseBucketLocation("s3://frames/a", all)).toEqual({
      bucket: "frames",
      prefix: "a",
      endpoint: "http://127.0.0.1:7480",
      region: "eu-central-1",
      accessKeyId: "who",
      secretAccessKey: "a-secret",
      sessionToken: "token",
    });
    expect(parseBucketLocation("s3://frames", keys)).toMatchObject({
      endpoint: undefined,
      region: "us-east-1",
    });
  });

  for (const text of [
    "s3://",
    "s3:///a",
    "s3://F",
    "s3://a b/c",
    "s3://frames//a",
    "s3://frames/../a",
    "s3://frames/a\nb",
  ]) {
    test(`the bucket location ${JSON.stringify(text)} is a usage error`, () =>
      expect(refusal(text)).toContain("Cannot reach"));
  }

  test("a bucket location needs keys, and no error shows a secret", () => {
    expect(refusal("s3://frames", {})).toContain("set AWS_ACCESS_KEY_ID");
    const endpoint = "http://who:a-secret@host";
    expect(refusal("s3://frames", { ...keys, AWS_ENDPOINT_URL: endpoint })).not.toContain(
      "a-secret",
    );
  });
});
