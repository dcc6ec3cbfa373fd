/** Reads and writes a server's certificate. */
import { readFileSync } from "node:fs";
import { createPrivateKey, generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { join } from "node:path";
import { type Certificate, makeCertificate } from "../auth/certificate.ts";
import { asFramesError, FramesError, usageError } from "../errors.ts";
import { configurationFolder, readSecret, updateSecret } from "./secret-file.ts";

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
  let path: string;
  try {
    path = join(configurationFolder(), "server.pem");
  } catch (error) {
    onNotSaved(asFramesError(error, "missing"));
    return createCertificate(now);
  }
  const saved = readSecret(path)?.text;
  if (saved !== undefined) return { key: saved, certificate: saved };
  let certificate = createCertificate(now);
  try {
    updateSecret(path, (text) => {
      if (text === undefined) return certificate.key + certificate.certificate;
      // Another server has saved its certificate meanwhile.
      certificate = { key: text, certificate: text };
      return undefined;
    });
  } catch (error) {
    // Clients rely on the proof of the key instead of this certificate, so a new one does no harm.
    onNotSaved(asFramesError(error, "missing"));
  }
  return certificate;
}

function createCertificate(now: Date): Certificate {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return makeCertificate(pair, randomBytes(16), now);
}

/**
 * Reads the certificate that a user provides.
 *
 * @throws {FramesError} `usage`, also if other users can read the private key, or `missing`
 */
export function readCertificate(certificatePath: string, keyPath: string): Certificate {
  const key = readSecret(keyPath, { allowsGroupOfRoot: true })?.text;
  if (key === undefined) {
    throw new FramesError("missing", `Cannot read ${keyPath}: no such file or directory`);
  }
  let certificate: string;
  try {
    certificate = readFileSync(certificatePath, "utf8");
  } catch (error) {
    throw asFramesError(error, "missing", `Cannot read ${certificatePath}`);
  }
  const pair = { certificate, key };
  if (isMatchingPair(pair)) return pair;
  throw usageError(
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
