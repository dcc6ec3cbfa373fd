/** TLS 1.3 under a connection (SPEC section 10): what Bun is given, and what a channel is held to. */
import { createServer } from "node:tls";
import type { Socket, TCPSocketListener, TLSOptions } from "bun";
import { type Certificate } from "../auth/certificate.ts";
import { channelBinding } from "../auth/key-proof.ts";
import { asFramesError, FramesError } from "../errors.ts";

/** TLS 1.3 as OpenSSL numbers it; Bun takes no name here. */
const tls13 = 0x0304;

/**
 * What a server gives to Bun. Bun serves in the clear where one part is missing, so both are looked at.
 *
 * @throws {FramesError} `usage`
 */
export function serverTls({ key, certificate }: Certificate): TLSOptions {
  if (!key.includes("PRIVATE KEY-----") || !certificate.includes("BEGIN CERTIFICATE-----")) {
    throw new FramesError(
      "usage",
      "Cannot serve with TLS: a certificate and its key are PEM files",
    );
  }
  return { key, cert: certificate, minVersion: tls13 } as TLSOptions;
}

/**
 * Gives a listener another certificate, for connections that come from now on; nobody is turned away
 * meanwhile. The `reload` of a listener leaves its TLS as it is: `node:tls`, which is built on it, can.
 *
 * @throws {FramesError} `usage`; the certificate before then still holds
 */
export function renewCertificate(
  listener: TCPSocketListener<never>,
  certificate: Certificate,
): void {
  const { key, cert } = serverTls(certificate) as { key: string; cert: string };
  const server = Object.assign(createServer(), { _handle: listener });
  try {
    server.setSecureContext({ key, cert, minVersion: "TLSv1.3" });
  } catch (error) {
    throw asFramesError(error, "usage", "Cannot use the certificate");
  }
}

/** What a client gives to Bun: the proof of the key stands for the trust in a certificate. */
export const clientTls = { rejectUnauthorized: false, minVersion: tls13 } as TLSOptions;

/**
 * What binds a proof to the channel, once the handshake is over. Whether the certificate is trusted, which
 * is what Bun's own verdict on a handshake is about, does not count.
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
