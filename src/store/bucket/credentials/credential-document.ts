/** Parses the JSON document in which containers and instances get their keys. */
import {
  credentialError,
  type CredentialPlace,
  type Credentials,
  parseCredentials,
} from "./credentials.ts";

/**
 * Returns the credentials of a document.
 *
 * @throws {FramesError} `store` if it has none
 */
export function parseCredentialDocument(text: string, place: CredentialPlace): Credentials {
  let document: Record<string, unknown> | null;
  try {
    document = JSON.parse(text);
  } catch {
    throw credentialError("store", place, "its answer is not JSON");
  }
  const code = document?.["Code"] ?? document?.["code"] ?? "Success";
  if (code !== "Success") {
    const shown = /^\w{1,60}$/.test(String(code))
      ? `its answer was ${code}`
      : "its answer was an error";
    throw credentialError("store", place, shown);
  }
  const fields = {
    accessKeyId: document?.["AccessKeyId"],
    secretAccessKey: document?.["SecretAccessKey"],
    sessionToken: document?.["Token"],
    expiration: document?.["Expiration"],
  };
  return parseCredentials(fields, "store", place);
}
