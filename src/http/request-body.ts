/** Reads JSON request bodies. HTTP clients send nothing larger than a key or a source name. */
import { parseObject } from "../common/json-object.ts";
import { FramesError, usageError } from "../errors.ts";
import { HttpError } from "./responses.ts";

/** Size limit of a request body. It contains a key, or the name of a source. */
export const maxBodyBytes = 4096;

/**
 * Returns the fields of the JSON object.
 * The server's `idleTimeout` limits the time.
 * Requiring `application/json` blocks pages of other sites: browsers preflight it, and the server
 * denies that.
 *
 * @throws {FramesError} `usage` if the body is no JSON object, `too-large`, `network` if it did not
 * come
 */
export async function readJsonBody(request: Request): Promise<Record<string, unknown>> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(?:;|$)/i.test(type)) {
    const message = "Cannot read the request: expected Content-Type: application/json";
    throw new HttpError(415, "usage", message);
  }
  const length = Number(request.headers.get("content-length") ?? "0");
  const text = length > maxBodyBytes ? undefined : await readText(request);
  if (text === undefined || Buffer.byteLength(text) > maxBodyBytes) {
    const message = `Cannot read more than ${maxBodyBytes} bytes of a request`;
    throw new HttpError(413, "too-large", message);
  }
  const body = parseObject(text);
  if (body !== undefined) return body;
  throw usageError("Cannot read the request: expected a JSON object as its body");
}

/** @throws {FramesError} `network` if the client disconnected or was too slow */
async function readText(request: Request): Promise<string> {
  try {
    return await request.text();
  } catch (cause) {
    throw new FramesError("network", "The request was incomplete", { cause });
  }
}
