/**
 * Selects where the keys of a bucket come from, in the order of the AWS SDKs: environment, token
 * file of a web identity, profile, endpoint of a container, metadata of the instance (AWS SDKs and
 * Tools Reference Guide, "AWS SDKs and Tools standardized credential providers"). What is set up
 * first is used, and is not left if it fails, because the next could be another account.
 */
import { usageError } from "../../../errors.ts";
import { containerKeys } from "./container.ts";
import { type CredentialProvider, parseCredentials } from "./credentials.ts";
import { environmentKeys, type Environment, firstSet } from "./environment.ts";
import { instanceKeys } from "./instance-metadata.ts";
import { readSharedProfile, type SharedProfile } from "./shared-profile.ts";
import { type WebIdentity, webIdentityKeys } from "./web-identity.ts";

/** Settings of a bucket that decide where its keys come from. */
export interface ProviderOptions {
  readonly environment: Environment;
  /** Address of the bucket, for messages. */
  readonly location: string;
  readonly profile: SharedProfile | undefined;
  /** Region and address of STS. */
  readonly sts: Pick<WebIdentity, "endpoint" | "region">;
}

/**
 * Returns the provider of a bucket's keys.
 *
 * @throws {FramesError} `usage` if there is none, or a setting is wrong
 */
export function selectProvider(options: ProviderOptions): CredentialProvider {
  const { environment, location } = options;
  const noKeys = () => {
    const set = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";
    return usageError(
      `Cannot reach ${location}: this machine has no keys for it; ${set} (frames help bucket-keys)`,
    );
  };
  const provider =
    environmentKeys(environment, location) ??
    environmentIdentity(options) ??
    profileKeys(options) ??
    containerKeys(environment) ??
    instanceKeys(environment, noKeys);
  if (provider === undefined) throw noKeys();
  return provider;
}

function environmentIdentity({ environment, sts }: ProviderOptions) {
  const tokenFile = firstSet(environment, "AWS_WEB_IDENTITY_TOKEN_FILE");
  if (tokenFile === undefined) return undefined;
  const roleArn = firstSet(environment, "AWS_ROLE_ARN");
  if (roleArn === undefined) {
    throw usageError("Cannot use AWS_WEB_IDENTITY_TOKEN_FILE: set AWS_ROLE_ARN too");
  }
  const sessionName = firstSet(environment, "AWS_ROLE_SESSION_NAME");
  return webIdentityKeys({ roleArn, tokenFile, sessionName, ...sts });
}

/** Settings of profiles that frames does not follow, because they need other programs or roles. */
const unsupportedSettings = [
  ...["source_profile", "credential_source", "credential_process"],
  ...["sso_session", "sso_start_url", "login_session", "role_arn"],
];

/** @throws {FramesError} `usage` */
function profileKeys(options: ProviderOptions): CredentialProvider | undefined {
  const { profile } = options;
  if (profile === undefined) return undefined;
  const { name, settings } = profile;
  const [roleArn, tokenFile] = ["role_arn", "web_identity_token_file"].map((key) =>
    settings.get(key),
  );
  if (roleArn !== undefined && tokenFile !== undefined) {
    const sessionName = settings.get("role_session_name");
    return webIdentityKeys({ roleArn, tokenFile, sessionName, ...options.sts });
  }
  const hasKeys = settings.has("aws_access_key_id") || settings.has("aws_secret_access_key");
  if (hasKeys && roleArn === undefined) return sharedKeys(options.environment, profile);
  const unsupported = unsupportedSettings.find((setting) => settings.has(setting));
  if (unsupported === undefined) return undefined;
  const command = `eval "$(aws configure export-credentials --profile ${name} --format env)"`;
  throw usageError(
    `Cannot use the profile ${name}: frames does not support ${unsupported}; run ${command} first, or give this machine a role`,
  );
}

/**
 * Returns the provider of the keys in a file. They are read again when they are renewed or refused.
 *
 * @throws {FramesError} `usage`
 */
function sharedKeys(
  environment: Environment,
  { name, keysPath }: SharedProfile,
): CredentialProvider {
  const place = { name: `the profile ${name}`, hint: `check the keys in ${keysPath}` };
  if (firstSet(environment, "AWS_SESSION_TOKEN", "S3_SESSION_TOKEN") !== undefined) {
    // Bun's S3Client would take it for the token of these keys.
    const state = "AWS_SESSION_TOKEN is set without AWS_ACCESS_KEY_ID; unset it";
    throw usageError(`Cannot use the profile ${name}: ${state}`);
  }
  const load = () => {
    const settings = readSharedProfile(environment)?.settings;
    const fields = {
      accessKeyId: settings?.get("aws_access_key_id"),
      secretAccessKey: settings?.get("aws_secret_access_key"),
      sessionToken: settings?.get("aws_session_token"),
    };
    return parseCredentials(fields, "usage", place);
  };
  return { ...place, load: async () => load() };
}
