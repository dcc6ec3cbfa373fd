/**
 * Credentials of a role that STS gives for a token in a file, as Kubernetes provides it (AWS STS
 * API Reference, "AssumeRoleWithWebIdentity"). The request is not signed.
 */
import { type CredentialProvider, credentialError, parseCredentials } from "./credentials.ts";
import { requestEndpoint } from "./endpoint-request.ts";
import { readTokenFile } from "./text-file.ts";

/** A role, and the token that proves who asks for it. */
export interface WebIdentity {
  readonly roleArn: string;
  /** Path of the token. It is read for each request, because the file changes. */
  readonly tokenFile: string;
  /** Names the session in logs of AWS. Default: a random name. */
  readonly sessionName?: string | undefined;
  /** Address of STS. Default: Amazon's in the region. */
  readonly endpoint?: string | undefined;
  readonly region: string;
}

/** Time for an answer, in milliseconds. */
const timeoutMs = 5000;

/** Returns the provider of the role's keys. */
export function webIdentityKeys(identity: WebIdentity): CredentialProvider {
  const { roleArn, tokenFile, region } = identity;
  const { sessionName = `frames-${crypto.randomUUID()}` } = identity;
  const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  const { endpoint = `https://sts.${region}.${domain}` } = identity;
  const place = { name: `STS at ${endpoint}`, hint: `check the role ${roleArn} and its token` };
  const load = async () => {
    const body = new URLSearchParams({
      Action: "AssumeRoleWithWebIdentity",
      Version: "2011-06-15",
      RoleArn: roleArn,
      RoleSessionName: sessionName,
      WebIdentityToken: readTokenFile(tokenFile, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    }).toString();
    const headers = { "Content-Type": "application/x-www-form-urlencoded" };
    const request = { url: `${endpoint}/`, method: "POST", headers, body, timeoutMs } as const;
    const { status, text } = await requestEndpoint(request, place);
    if (status !== 200) {
      const state = `its answer was ${element(text, "Code") ?? `HTTP ${status}`}`;
      throw credentialError("store", place, state);
    }
    const fields = {
      accessKeyId: element(text, "AccessKeyId"),
      secretAccessKey: element(text, "SecretAccessKey"),
      sessionToken: element(text, "SessionToken"),
      expiration: element(text, "Expiration"),
    };
    return parseCredentials(fields, "store", place);
  };
  return { ...place, load };
}

/** Returns the text of an XML element. Keys and dates contain nothing that XML escapes. */
function element(xml: string, name: string): string | undefined {
  return new RegExp(`<${name}>\\s*([^<>&\\s]+)\\s*</${name}>`).exec(xml)?.[1];
}
