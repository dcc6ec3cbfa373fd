/**
 * Credentials from the endpoint of a container, as ECS and EKS offer it (AWS SDKs and Tools
 * Reference Guide, "Container credential provider").
 */
import { usageError } from "../../../errors.ts";
import { type CredentialProvider, credentialError } from "./credentials.ts";
import { parseCredentialDocument } from "./credential-document.ts";
import { bypassProxy, requestEndpoint } from "./endpoint-request.ts";
import { type Environment, firstSet } from "./environment.ts";
import { checkToken, readTokenFile } from "./text-file.ts";

/** Address of ECS, which a relative URI is relative to. */
const ecsOrigin = "http://169.254.170.2";

/** Hosts that may be asked without TLS: this machine, ECS, and the two addresses of EKS. */
const plainHosts =
  /^(?:localhost|127(?:\.\d+){3}|\[::1\]|169\.254\.170\.2|169\.254\.170\.23|\[fd00:ec2::23\])$/;

/** Time for an answer, in milliseconds. */
const timeoutMs = 2000;

/**
 * Returns the provider of the container's keys; undefined outside such a container.
 *
 * @throws {FramesError} `usage` if the address is wrong, or could be on another machine without TLS
 */
export function containerKeys(environment: Environment): CredentialProvider | undefined {
  const url = containerUrl(environment);
  if (url === undefined) return undefined;
  if (url.protocol === "http:") bypassProxy(url.hostname);
  const hint = "check the role of the container, and its token";
  const place = { name: `the container endpoint ${url.origin}`, hint };
  const load = async () => {
    // The file changes, because its token ends too.
    const token = readToken(environment);
    const headers = { Accept: "application/json", ...(token && { Authorization: token }) };
    const request = { url: url.href, method: "GET", headers, timeoutMs } as const;
    const { status, text } = await requestEndpoint(request, place);
    if (status === 200) return parseCredentialDocument(text, place);
    throw credentialError("store", place, `its answer was HTTP ${status}`);
  };
  return { ...place, load };
}

/**
 * Returns the address of the container's endpoint; undefined if none is set.
 *
 * @throws {FramesError} `usage`
 */
export function containerUrl(environment: Environment): URL | undefined {
  const relative = firstSet(environment, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  const full = firstSet(environment, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (relative !== undefined) {
    const url = URL.parse(ecsOrigin + relative);
    if (relative.startsWith("/") && url?.origin === ecsOrigin) return url;
    throw uriError("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "expected a path such as /v2/keys");
  }
  if (full === undefined) return undefined;
  const url = URL.parse(full);
  if (url?.protocol === "https:" || (url?.protocol === "http:" && plainHosts.test(url.hostname))) {
    return url;
  }
  const expected = "expected https://, or http:// with a loopback, ECS or EKS address";
  throw uriError("AWS_CONTAINER_CREDENTIALS_FULL_URI", expected);
}

function uriError(variable: string, expected: string) {
  return usageError(`Cannot get keys from the container endpoint: ${variable}: ${expected}`);
}

/** @throws {FramesError} `usage` if the token is missing or has more than one line */
function readToken(environment: Environment): string | undefined {
  const path = firstSet(environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  if (path !== undefined) return readTokenFile(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  const token = firstSet(environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
  return token === undefined ? undefined : checkToken(token, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
}
