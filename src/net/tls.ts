/** TLS 1.3 of a connection (SPEC section 10): options for Bun, and the channel binding. */
import type { Socket, TLSOptions } from "bun";
import { type Certificate } from "../auth/certificate.ts";
import { channelBinding } from "../auth/key-proof.ts";
import { FramesError, usageError } from "../errors.ts";

/** OpenSSL's number of TLS 1.3. Bun accepts no name here. */
const tls13 = 0x0304;

/**
 * Returns Bun's TLS options for a server. Both parts are checked, because Bun would serve without
 * TLS if one were missing.
 *
 * @throws {FramesError} `usage`
 */
export function serverTls({ key, certificate }: Certificate): TLSOptions {
  if (!key.includes("PRIVATE KEY-----") || !certificate.includes("BEGIN CERTIFICATE-----")) {
    throw usageError("Cannot serve with TLS: --tls-cert and --tls-key must be PEM files");
  }
  return { key, cert: certificate, minVersion: tls13 } as TLSOptions;
}

/**
 * Bun's TLS options for a client. No certificate is verified, because the proof of the key
 * authenticates the server.
 */
export const clientTls = { rejectUnauthorized: false, minVersion: tls13 } as TLSOptions;

/**
 * Returns the exported keying material that binds a proof to this channel (RFC 9266), after the
 * handshake. Ignores Bun's verdict on the handshake, which depends on trust in the certificate.
 *
 * @throws {FramesError} `network` if the handshake failed, `plaintext` if it is not TLS 1.3
 */
export function exportChannelBinding(socket: Socket<unknown>): Uint8Array {
  const { bytes, label } = channelBinding;
  let exporter: Uint8Array;
  try {
    exporter = socket.exportKeyingMaterial(bytes, label) as unknown as Uint8Array;
  } catch (error) {
    throw new FramesError("network", "The TLS handshake failed", { cause: error });
  }
  if ((socket.getTLSVersion() as unknown) !== "TLSv1.3") throw new FramesError("plaintext");
  return Uint8Array.from(exporter);
}
