/**
 * Credentials of an EC2 instance from its metadata service, version 2 (Amazon EC2 User Guide, "Use
 * the Instance Metadata Service to access instance metadata"; AWS SDKs and Tools Reference Guide,
 * "IMDS credential provider"). Version 1 is not used, because a stranger can make another
 * program of this machine ask it.
 */
import { usageError } from "../../../errors.ts";
import { parseCredentialDocument } from "./credential-document.ts";
import { type CredentialProvider, credentialError } from "./credentials.ts";
import { bypassProxy, type EndpointRequest, requestEndpoint } from "./endpoint-request.ts";
import { type Environment, firstSet } from "./environment.ts";

/** Time for each answer, in milliseconds. Outside EC2 nothing answers. */
const timeoutMs = 1000;

/** Time that a token for the service counts, in seconds. A load takes much less. */
const tokenLifeSeconds = "300";

/**
 * Returns the provider of the instance's keys; undefined if `AWS_EC2_METADATA_DISABLED` is `true`.
 *
 * @param noKeys makes the error of a machine that is no instance with a role
 */
export function instanceKeys(
  environment: Environment,
  noKeys: () => Error,
): CredentialProvider | undefined {
  const { AWS_EC2_METADATA_DISABLED: disabled } = environment;
  if (disabled?.toLowerCase() === "true") return undefined;
  const { origin, hostname } = metadataUrl(environment);
  bypassProxy(hostname);
  const hint = "check the role of this instance";
  const place = { name: `the instance metadata at ${origin}`, hint };
  const ask = (path: string, request: Pick<EndpointRequest, "method" | "headers" | "attempts">) =>
    requestEndpoint({ url: `${origin}/latest/${path}`, timeoutMs, ...request }, place);
  let isInstance = false;
  const load = async () => {
    const ttl = { "X-aws-ec2-metadata-token-ttl-seconds": tokenLifeSeconds };
    // Outside EC2 a repetition would only delay the error.
    const request = { method: "PUT", headers: ttl, attempts: 1 } as const;
    const token = await ask("api/token", request).catch((error: unknown) => {
      throw isInstance ? error : noKeys();
    });
    if (token.status !== 200 || !/^[\x21-\x7e]+$/.test(token.text)) throw noKeys();
    const get = { method: "GET", headers: { "X-aws-ec2-metadata-token": token.text } } as const;
    const roles = await ask("meta-data/iam/security-credentials/", get);
    if (roles.status === 404) throw noKeys();
    const [role = ""] = roles.text.trim().split(/\s/);
    // The name becomes part of a path.
    if (roles.status !== 200 || !/^[\w+=,.@-]{1,64}$/.test(role) || /^\.+$/.test(role)) {
      throw credentialError("store", place, `it names no role (HTTP ${roles.status})`);
    }
    const keys = await ask(`meta-data/iam/security-credentials/${role}`, get);
    if (keys.status === 200) {
      isInstance = true;
      return parseCredentialDocument(keys.text, place);
    }
    const state = `its answer for the role ${role} was HTTP ${keys.status}`;
    throw credentialError("store", place, state);
  };
  return { ...place, load };
}

/** @throws {FramesError} `usage` if `AWS_EC2_METADATA_SERVICE_ENDPOINT` is no address */
function metadataUrl(environment: Environment): URL {
  const mode = firstSet(environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") ?? "IPv4";
  const usual = mode.toLowerCase() === "ipv6" ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
  const url = URL.parse(firstSet(environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT") ?? usual);
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  const state = "AWS_EC2_METADATA_SERVICE_ENDPOINT: expected http://HOST:PORT";
  throw usageError(`Cannot get keys from the instance metadata: ${state}`);
}
