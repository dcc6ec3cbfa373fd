import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseBucketLocation, isBucketLocation } from "../../../src/store/bucket/location.ts";
import { FramesError } from "../../../src/errors.ts";
import { temporaryFolder } from "../../helper/program.ts";

const keys = { AWS_ACCESS_KEY_ID: "who", AWS_SECRET_ACCESS_KEY: "a-secret" };

/** Writes a shared config file and returns its path. */
function configFile(text: string): string {
  const path = join(temporaryFolder(), "config");
  writeFileSync(path, text);
  return path;
}

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

  test("endpoint, region and keys of a bucket come from the AWS variables, the most specific first", async () => {
    const all = {
      ...keys,
      AWS_ENDPOINT_URL_S3: "http://127.0.0.1:7480/",
      AWS_ENDPOINT_URL: "http://elsewhere",
      AWS_REGION: "eu-central-1",
      AWS_SESSION_TOKEN: "token",
    };
    const { credentials, ...location } = parseBucketLocation("s3://frames/a", all);
    expect(location).toEqual({
      bucket: "frames",
      prefix: "a",
      endpoint: "http://127.0.0.1:7480",
      region: "eu-central-1",
    });
    expect(await credentials.get()).toEqual({
      accessKeyId: "who",
      secretAccessKey: "a-secret",
      sessionToken: "token",
      expiresAt: undefined,
    });
    expect(parseBucketLocation("s3://frames", keys)).toMatchObject({
      endpoint: undefined,
      region: "us-east-1",
    });
  });

  test("region and endpoint come from the profile if no variable names them", () => {
    const text = "[default]\nregion = eu-west-1\nendpoint_url = http://ceph:7480/\n";
    const shared = { ...keys, AWS_CONFIG_FILE: configFile(text) };
    const [plain, named] = [
      parseBucketLocation("s3://frames", shared),
      parseBucketLocation("s3://frames", { ...shared, AWS_REGION: "x", S3_ENDPOINT: "http://y" }),
    ];
    expect([plain.region, plain.endpoint]).toEqual(["eu-west-1", "http://ceph:7480"]);
    expect([named.region, named.endpoint]).toEqual(["x", "http://y"]);
    const wrong = { ...keys, AWS_CONFIG_FILE: configFile("[default]\nendpoint_url = ceph\n") };
    expect(refusal("s3://frames", wrong)).toContain("endpoint_url is not an endpoint");
  });

  test("with keys in the environment an unreadable config file is ignored, else it is an error", () => {
    // A folder cannot be read as a file, also by root.
    const unreadable = { AWS_CONFIG_FILE: temporaryFolder() };
    expect(parseBucketLocation("s3://frames", { ...keys, ...unreadable }).region).toBe("us-east-1");
    expect(refusal("s3://frames", unreadable)).toContain("Cannot read ");
    const named = { ...keys, ...unreadable, AWS_PROFILE: "cam" };
    expect(refusal("s3://frames", named)).toContain("Cannot read ");
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
    const none = { AWS_EC2_METADATA_DISABLED: "true" };
    expect(refusal("s3://frames", none)).toContain("set AWS_ACCESS_KEY_ID");
    const endpoint = "http://who:a-secret@host";
    expect(refusal("s3://frames", { ...keys, AWS_ENDPOINT_URL: endpoint })).not.toContain(
      "a-secret",
    );
  });
});
