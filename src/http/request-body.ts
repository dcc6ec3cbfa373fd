/** Small bodies of JSON, which is all that anybody sends over HTTP. */
import { FramesError } from "../errors.ts";
import { errorResponse } from "./responses.ts";

/** Bytes of a body: there is a key or the name of a source in it. */
export const maxBodyBytes = 4096;

/**
 * The fields of a JSON object that was sent, or the answer to whoever sent something else. How long it may
 * take is the server's affair. No page of another site can send this type without asking first, and it
 * would be answered no.
 */
export async function readJsonBody(request: Request): Promise<Record<string, unknown> | Response> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\s*(?:;|$)/i.test(type)) {
    return errorResponse(
      415,
      "usage",
      "Cannot read the request: its Content-Type is application/json",
    );
  }
  const length = Number(request.headers.get("content-length") ?? "0");
  const text = length > maxBodyBytes ? undefined : await readText(request);
  if (text === undefined || Buffer.byteLength(text) > maxBodyBytes) {
    return errorResponse(
      413,
      "too-large",
      `Cannot read more than ${maxBodyBytes} bytes of a request`,
    );
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch {
    // Said below.
  }
  return errorResponse(400, "usage", "Cannot read the request: its body is a JSON object");
}

/** @throws {FramesError} `network` if whoever sends it went away, or was too slow */
async function readText(request: Request): Promise<string> {
  try {
    return await request.text();
  } catch (cause) {
    throw new FramesError("network", "The request did not come whole", { cause });
  }
}
