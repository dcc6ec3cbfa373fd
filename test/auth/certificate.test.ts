import { expect, test } from "bun:test";
import { generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeCertificate } from "../../src/auth/certificate.ts";
import { temporaryFolder } from "../helper/program.ts";

function make(now: Date) {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return makeCertificate(pair, randomBytes(16), now);
}

const openssl = Bun.which("openssl");

test.skipIf(openssl === null)(
  `a certificate passes all strict checks of openssl${openssl === null ? " (skipped: needs openssl)" : ""}`,
  () => {
    const folder = temporaryFolder();
    const path = join(folder, "certificate.pem");
    writeFileSync(path, make(new Date()).certificate);
    const command = [openssl!, "verify", "-x509_strict", "-CAfile", path, path];
    const { stdout, stderr } = Bun.spawnSync(command);
    expect([stdout.toString(), stderr.toString()]).toEqual([`${path}: OK\n`, ""]);
    rmSync(folder, { recursive: true });
  },
);

test("a certificate is valid from the day before until 9999, matches its key, and has a unique serial number", () => {
  const made = make(new Date("2026-11-25T10:00:00Z"));
  const read = new X509Certificate(made.certificate);
  expect(read.validFrom).toContain("Nov 24 10:00:00 2026");
  expect(read.validTo).toContain("9999");
  expect(read.subject).toBe("CN=frames");
  expect(read.verify(read.publicKey)).toBe(true);
  const other = new X509Certificate(make(new Date("2051-01-01T10:00:00Z")).certificate);
  expect(other.validFrom).toContain("2050");
  expect(other.serialNumber).not.toBe(read.serialNumber);
  expect(read.verify(other.publicKey)).toBe(false);
});
