/** Requests to endpoints that give out credentials. Their answers are small and come soon. */
import { defined } from "../../../common/defined.ts";
import { FramesError, systemCode, systemSentence } from "../../../errors.ts";
import { readAtMost } from "../response-body.ts";
import { credentialError, type CredentialPlace } from "./credentials.ts";

/** A request to an endpoint. */
export interface EndpointRequest {
  readonly url: string;
  readonly method: "GET" | "PUT" | "POST";
  readonly headers?: Record<string, string>;
  readonly body?: string;
  /** Time for the whole answer, in milliseconds. */
  readonly timeoutMs: number;
  /** Attempts while the endpoint cannot be reached or is busy. Default 3. */
  readonly attempts?: number;
}

/** Status and text of an answer. */
export interface EndpointAnswer {
  readonly status: number;
  readonly text: string;
}

/** Answers with more bytes are refused. */
const maxAnswerBytes = 64 << 10;

/** Pause before the second attempt, in milliseconds. Later ones are longer. */
const retryPauseMs = 200;

/**
 * Sends a request and returns the answer, whatever its status is. Redirects are not followed.
 *
 * @param place where the credentials come from, for messages
 * @throws {FramesError} `store` if there is no answer, or it is too large
 */
export async function requestEndpoint(
  request: EndpointRequest,
  place: CredentialPlace,
): Promise<EndpointAnswer> {
  const { attempts = 3 } = request;
  for (let attempt = 1; ; attempt++) {
    const isLast = attempt === attempts;
    try {
      const { status, bytes } = await sendOnce(request);
      const isBusy = status >= 500 || status === 429;
      if (bytes === undefined) {
        throw credentialError("store", place, `its answer has more than ${maxAnswerBytes} bytes`);
      }
      if (!isBusy || isLast) return { status, text: new TextDecoder().decode(bytes) };
    } catch (error) {
      if (error instanceof FramesError) throw error;
      if (isLast) throw credentialError("store", place, sentenceOf(error), { cause: error });
    }
    await Bun.sleep(retryPauseMs * attempt);
  }
}

async function sendOnce({ url, method, headers, body, timeoutMs }: EndpointRequest) {
  const signal = AbortSignal.timeout(timeoutMs);
  // An answer that is compressed could grow past every limit.
  const usual = { redirect: "manual", decompress: false } as const;
  const options = { method, headers, body, signal, ...usual };
  const response = await fetch(url, defined(options));
  return { status: response.status, bytes: await readAtMost(response.body, maxAnswerBytes) };
}

/**
 * Keeps requests for a host off the proxy that `HTTP_PROXY` names. At a proxy, an address such as
 * 169.254.169.254 is another machine, with other keys. `fetch` has no option for that.
 */
export function bypassProxy(host: string): void {
  const name = process.env["no_proxy"] ? "no_proxy" : "NO_PROXY";
  const hosts = process.env[name]?.split(",") ?? [];
  if (!hosts.includes(host)) process.env[name] = [...hosts, host].join(",");
}

function sentenceOf(error: unknown): string {
  if (error instanceof Error && error.name === "TimeoutError") return "it did not answer in time";
  // Bun's message is long.
  if (systemCode(error) === "ConnectionRefused") return "connection refused";
  return systemSentence(error);
}
