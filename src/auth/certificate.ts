/**
 * Makes the self-signed certificate of a server. Clients do not need to trust it, because the proof
 * of the key authenticates the server (SPEC section 10). DER follows X.690, the certificate RFC
 * 5280, and P-256 RFC 5480.
 */
import { type KeyObject, sign, X509Certificate } from "node:crypto";

/** Private key and certificate, as PEM. */
export interface Certificate {
  readonly key: string;
  readonly certificate: string;
}

/** Encodes a DER value: tag, length, content. `content` must be under 65,536 bytes. */
function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size =
    length < 0x80
      ? [length]
      : length < 0x100
        ? [0x81, length]
        : [0x82, length >>> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts);
const set = (...parts: readonly Uint8Array[]): Buffer => der(0x31, ...parts);
const objectId = (hex: string): Buffer => der(0x06, Buffer.from(hex, "hex"));

const ecdsaWithSha256 = sequence(objectId("2a8648ce3d040302"));
const commonName = objectId("550403");
const basicConstraints = objectId("551d13");
const subjectAltName = objectId("551d11");

/** Encodes an X.520 name that consists of a common name. */
function x520Name(text: string): Buffer {
  return sequence(set(sequence(commonName, der(0x0c, Buffer.from(text)))));
}

/** Encodes a time: UTCTime up to 2049, then GeneralizedTime (RFC 5280, 4.1.2.5). */
function derTime(date: Date): Buffer {
  const digits = date.toISOString().replace(/[-:T]|\.\d+/g, "");
  if (date.getUTCFullYear() < 2050) return der(0x17, Buffer.from(digits.slice(2), "latin1"));
  return der(0x18, Buffer.from(digits, "latin1"));
}

function extension(id: Buffer, critical: boolean, value: Buffer): Buffer {
  const flag = critical ? [der(0x01, Buffer.from([0xff]))] : [];
  return sequence(id, ...flag, der(0x04, value));
}

/**
 * Makes a self-signed certificate, valid from one day before `now` and without an end. Clients do
 * not pin it. To renew it, delete it.
 *
 * @param pair a new key pair on P-256
 * @param random 16 random bytes for the serial number
 */
export function makeCertificate(
  { publicKey, privateKey }: { readonly publicKey: KeyObject; readonly privateKey: KeyObject },
  random: Uint8Array,
  now: Date,
): Certificate {
  // Sets the top bits so that the number is positive and has no leading zero byte.
  const serial = Uint8Array.from(random);
  serial[0] = (serial[0]! & 0x3f) | 0x40;
  const name = x520Name("frames");
  const yesterday = new Date(now.getTime() - 86_400_000);
  // RFC 5280, 4.1.2.5: the value for a certificate without an end.
  const never = new Date("9999-12-31T23:59:59Z");
  const extensions = sequence(
    extension(basicConstraints, true, sequence(der(0x01, Buffer.from([0xff])))),
    extension(subjectAltName, false, sequence(der(0x82, Buffer.from("frames")))),
  );
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ecdsaWithSha256,
    name,
    sequence(derTime(yesterday), derTime(never)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, extensions),
  );
  const signature = sign("sha256", body, privateKey);
  const bits = der(0x03, Buffer.from([0]), signature);
  const whole = sequence(body, ecdsaWithSha256, bits);
  const lines = whole
    .toString("base64")
    .match(/.{1,64}/g)!
    .join("\n");
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    certificate: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
  };
}

/** Returns the DNS names of a certificate, in lower case (RFC 5280, 4.2.1.6). */
export function hostNames({ certificate }: Pick<Certificate, "certificate">): string[] {
  const names = new X509Certificate(certificate).subjectAltName ?? "";
  return [...names.matchAll(/(?:^|, )DNS:([\w.*-]+)/g)].map(([, name]) => name!.toLowerCase());
}
