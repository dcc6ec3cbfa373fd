/** Reads and writes a server's certificate. */
import { readFileSync } from "node:fs";
import { createPrivateKey, generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { join } from "node:path";
import { type Certificate, makeCertificate } from "../auth/certificate.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { configurationFolder, readSecret, writeSecret } from "./secret-file.ts";

/**
 * Loads the server's self-signed certificate, or creates it on the first call.
 *
 * @param onNotSaved called if the certificate cannot be saved; it is then valid until the server
 * stops
 * @throws {FramesError} `usage` or `missing` if an existing certificate cannot be read
 */
export function loadOrCreateCertificate(
  now: Date,
  onNotSaved: (error: FramesError) => void,
): Certificate {
  let path: string | undefined;
  try {
    path = join(configurationFolder(), "server.pem");
  } catch (error) {
    onNotSaved(asFramesError(error, "missing"));
  }
  const text = path === undefined ? undefined : readSecret(path)?.text;
  if (text !== undefined) return { key: text, certificate: text };
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const certificate = makeCertificate(pair, randomBytes(16), now);
  try {
    if (path !== undefined) writeSecret(path, certificate.key + certificate.certificate);
  } catch (error) {
    // Clients rely on the proof of the key instead of this certificate, so a new one does no harm.
    onNotSaved(asFramesError(error, "missing"));
  }
  return certificate;
}

/**
 * Reads the certificate that a user provides.
 *
 * @throws {FramesError} `usage` or `missing`
 */
export function readCertificate(certificatePath: string, keyPath: string): Certificate {
  const read = (path: string) => {
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      throw asFramesError(error, "missing", `Cannot read ${path}`);
    }
  };
  const pair = { certificate: read(certificatePath), key: read(keyPath) };
  if (isMatchingPair(pair)) return pair;
  throw new FramesError(
    "usage",
    `Cannot use ${certificatePath} and ${keyPath}: they are not a PEM certificate and its private key`,
  );
}

function isMatchingPair({ certificate, key }: Certificate): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}
