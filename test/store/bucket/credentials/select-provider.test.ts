// Covers: store/bucket/credentials/credentials.ts, store/bucket/credentials/environment.ts,
//   store/bucket/credentials/text-file.ts

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../../../src/errors.ts";
import { selectProvider } from "../../../../src/store/bucket/credentials/select-provider.ts";
import { readSharedProfile } from "../../../../src/store/bucket/credentials/shared-profile.ts";
import { temporaryFolder } from "../../../helper/program.ts";

type Settings = Record<string, string>;

function select(environment: Settings) {
  const profile = readSharedProfile(environment);
  const sts = { region: "eu-west-1" };
  return selectProvider({ environment, location: "s3://frames", profile, sts });
}

/** Returns the error of a selection. */
function refusal(environment: Settings): string {
  try {
    return `no error but ${select(environment).name}`;
  } catch (error) {
    expect((error as FramesError).code).toBe("usage");
    return (error as FramesError).message;
  }
}

/** Returns a variable that names a file with this text. */
function file(variable: string, text: string): Settings {
  const path = join(temporaryFolder(), "file");
  writeFileSync(path, text);
  return { [variable]: path };
}

const profile = file(
  "AWS_SHARED_CREDENTIALS_FILE",
  "[default]\naws_access_key_id = AKIA1\naws_secret_access_key = secret-1\n",
);

/** Settings of each place, in the order in which they are used, with the name of the place. */
const places: readonly [name: string, settings: Settings][] = [
  ["the environment", { AWS_ACCESS_KEY_ID: "who", AWS_SECRET_ACCESS_KEY: "a-secret" }],
  [
    "STS at https://sts.eu-west-1.amazonaws.com",
    { ...file("AWS_WEB_IDENTITY_TOKEN_FILE", "token"), AWS_ROLE_ARN: "arn:aws:iam::1:role/cam" },
  ],
  ["the profile default", profile],
  [
    "the container endpoint http://169.254.170.23",
    { AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://169.254.170.23/v1/credentials" },
  ],
  ["the instance metadata at http://169.254.169.254", {}],
];

describe("the place that keys come from", () => {
  for (const [index, [name]] of places.entries()) {
    test(`it is ${name} if nothing before it is set`, () => {
      const settings = Object.assign({}, ...places.slice(index).map(([, each]) => each));
      expect(select(settings).name).toBe(name);
    });
  }

  test("without any it is a usage error that says what to set", () => {
    expect(refusal({ AWS_EC2_METADATA_DISABLED: "true" })).toBe(
      "Cannot reach s3://frames: this machine has no keys for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (frames help bucket-keys)",
    );
  });

  test("half a key, half a web identity and a wrong address are errors, and nothing else is tried", () => {
    const both = /set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and not only one/;
    expect(refusal({ AWS_ACCESS_KEY_ID: "who", ...profile })).toMatch(both);
    expect(refusal({ AWS_SECRET_ACCESS_KEY: "a-secret", ...profile })).toMatch(both);
    expect(refusal({ AWS_WEB_IDENTITY_TOKEN_FILE: "/token", ...profile })).toContain(
      "set AWS_ROLE_ARN too",
    );
    const uri = { AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://example.com/" };
    expect(refusal(uri)).toContain("loopback, ECS or EKS address");
    expect(refusal({ AWS_ACCESS_KEY_ID: "a\nb", AWS_SECRET_ACCESS_KEY: "a-secret" })).toBe(
      "Cannot get keys from the environment: its access key contains control characters; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    );
  });

  test("a role of a profile may have a token file", () => {
    const lines =
      "[default]\nrole_arn = arn:aws:iam::1:role/cam\nweb_identity_token_file = /token\n";
    expect(select(file("AWS_CONFIG_FILE", lines)).name).toStartWith("STS at ");
  });

  test("a profile without keys leaves the choice to the places after it", () => {
    expect(select(file("AWS_CONFIG_FILE", "[default]\nregion = x\n")).name).toStartWith(
      "the instance metadata",
    );
  });

  for (const setting of [
    "role_arn = arn:aws:iam::1:role/cam\nsource_profile = base\naws_access_key_id = AKIA1",
    "role_arn = arn:aws:iam::1:role/cam\ncredential_source = Ec2InstanceMetadata",
    "credential_process = /opt/keys --json",
    "sso_session = office",
    "sso_start_url = https://office.awsapps.com/start",
    "login_session = arn:aws:iam::1:user/a",
    "role_arn = arn:aws:iam::1:role/cam",
  ]) {
    test(`a profile with ${setting.split("\n").at(-1)} is refused with the command that helps`, () => {
      const config = file("AWS_CONFIG_FILE", `[profile cam]\n${setting}\n`);
      const message = refusal({ ...config, AWS_PROFILE: "cam" });
      expect(message).toMatch(/^Cannot use the profile cam: frames does not support [a-z_]+; run /);
      expect(message).toContain(
        'eval "$(aws configure export-credentials --profile cam --format env)" first',
      );
      expect(message).not.toContain("/opt/keys");
    });
  }

  test("keys of a profile are read again each time", async () => {
    const [path] = Object.values(profile);
    const provider = select(profile);
    expect(await provider.load()).toMatchObject({
      accessKeyId: "AKIA1",
      secretAccessKey: "secret-1",
    });
    const text =
      "[default]\naws_access_key_id = AKIA2\naws_secret_access_key = s\naws_session_token = t\n";
    writeFileSync(path!, text);
    expect(await provider.load()).toMatchObject({ accessKeyId: "AKIA2", sessionToken: "t" });
    writeFileSync(path!, "[default]\naws_access_key_id = AKIA2\n");
    expect(provider.load()).rejects.toThrow(`it has no secret key; check the keys in ${path}`);
    writeFileSync(path!, "");
    expect(provider.load()).rejects.toThrow("no access key");
    writeFileSync(
      path!,
      "[default]\naws_access_key_id = AKIA1\naws_secret_access_key = secret-1\n",
    );
  });

  test("a session token of the environment does not mix with a profile", () => {
    expect(refusal({ ...profile, AWS_SESSION_TOKEN: "token" })).toContain(
      "AWS_SESSION_TOKEN is set without AWS_ACCESS_KEY_ID; unset it",
    );
  });
});
