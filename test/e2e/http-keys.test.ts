// When the executable requires keys and uses TLS for HTTP.
//
// Covers: server/http-auth.ts, server/http-frontend.ts, server/http-keys.ts

import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";

import { hostNames } from "../../src/auth/certificate.ts";
import { formatKey, type KeyEntry, parseKeys } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { run, type Server, startServer, temporaryFolder } from "../helper/program.ts";

const folder = temporaryFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const key: KeyEntry = { name: "alice", key: generateKey(), role: "receive", streams: "*" };
const keys = join(folder, "keys");
writeFileSync(keys, formatKey(key), { mode: 0o600 });

let stores = 0;

/** Runs a server while `use` runs. */
async function withServer(
  http: string,
  args: string[],
  use: (port: number, server: Server) => Promise<void>,
): Promise<void> {
  const home = join(folder, `home-${++stores}`);
  const server = await startServer({
    dir: join(folder, `store-${stores}`),
    http,
    args,
    env: { HOME: home },
  });
  try {
    await use(Number(server.http!.split(":").at(-1)), server);
  } finally {
    expect(await server.stop()).toBe(0);
  }
}

/** Returns the status of a response, or the error if there is none. */
async function statusOf(
  url: string,
  headers: Record<string, string> = {},
): Promise<number | "none"> {
  const tls = { rejectUnauthorized: false };
  return await fetch(url, { headers, tls } as RequestInit).then(
    ({ status }) => status,
    () => "none",
  );
}

const bearer = (entry: KeyEntry) => ({ Authorization: `Bearer ${entry.key.text}` });

describe("HTTP access", () => {
  test("the HTTP port beyond loopback uses TLS and requires a key, which the server makes at its start", async () => {
    await withServer("0.0.0.0:0", [], async (port, server) => {
      const base = `https://127.0.0.1:${port}`;
      expect(await statusOf(`${base}/`)).toBe(200);
      expect(await statusOf(`${base}/api/streams`)).toBe(401);
      expect(await statusOf(`http://127.0.0.1:${port}/`)).toBe("none");
      const path = join(folder, `home-${stores}`, ".config/frames/keys");
      const [made] = parseKeys(readFileSync(path, "utf8"), path);
      expect(await statusOf(`${base}/api/streams`, bearer(made!))).toBe(200);
      expect(await statusOf(`${base}/`, { Host: `${hostname()}:${port}` })).toBe(200);
      expect(await statusOf(`${base}/`, { Host: "192.0.2.7" })).toBe(200);
      expect(await statusOf(`${base}/`, { Host: "evil.example" })).toBe(421);
      // Frames still use a loopback port, which requires no key.
      expect(server.stderr()).toContain("See it at https://127.0.0.1:");
      expect(server.stderr() + server.stdout()).not.toContain(made!.key.text);
    });
  });

  test("the HTTP port refuses TLS versions before 1.3", async () => {
    await withServer("0.0.0.0:0", [], async (port) => {
      const said = (maxVersion: "TLSv1.2" | "TLSv1.3") =>
        new Promise<string | null>((resolve) => {
          const options = { port, host: "127.0.0.1", rejectUnauthorized: false, maxVersion };
          const socket = connect(options, () => {
            resolve(socket.getProtocol());
            socket.destroy();
          });
          socket.on("error", () => resolve("none"));
        });
      expect([await said("TLSv1.2"), await said("TLSv1.3")]).toEqual(["none", "TLSv1.3"]);
    });
  });

  test("the HTTP port beyond loopback requires no key with --insecure, which excludes --key-file", async () => {
    await withServer("0.0.0.0:0", ["--insecure"], async (port) => {
      expect(await statusOf(`http://127.0.0.1:${port}/api/streams`)).toBe(200);
      expect(await statusOf(`http://127.0.0.1:${port}/`, { Host: "evil.example" })).toBe(421);
    });
    const words = ["--http", ":0", "--listen", "127.0.0.1:0", "--key-file", keys, "--insecure"];
    const refused = await run(["serve", join(folder, "none"), ...words]);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("leave one out")]);
  });

  test("the HTTP port on loopback requires a key of --key-file, without TLS", async () => {
    await withServer("127.0.0.1:0", ["--key-file", keys], async (port) => {
      const base = `http://127.0.0.1:${port}`;
      expect(await statusOf(`${base}/api/streams`)).toBe(401);
      expect(await statusOf(`${base}/api/streams`, bearer(key))).toBe(200);
    });
  });

  test("the HTTP port on loopback requires no key when only senders from other machines need one", async () => {
    await withServer("127.0.0.1:0", ["--listen", ":0"], async (port) => {
      expect(await statusOf(`http://127.0.0.1:${port}/api/streams`)).toBe(200);
    });
  });

  const openssl = Bun.which("openssl");
  test.skipIf(openssl === null)(
    `the HTTP port accepts only the host names of its certificate${openssl === null ? " (skipped: needs openssl)" : ""}`,
    async () => {
      const [certificate, secret] = [join(folder, "cert.pem"), join(folder, "key.pem")];
      const names = "subjectAltName=DNS:Cam.Example,DNS:*.lab.example,IP:192.0.2.1";
      Bun.spawnSync([
        ...[
          openssl!,
          "req",
          "-x509",
          "-newkey",
          "ec",
          "-pkeyopt",
          "ec_paramgen_curve:P-256",
          "-nodes",
        ],
        ...["-subj", "/CN=other.example", "-addext", names, "-keyout", secret, "-out", certificate],
      ]);
      const pem = readFileSync(certificate, "utf8");
      expect(hostNames({ certificate: pem })).toEqual(["cam.example", "*.lab.example"]);
      const args = ["--tls-cert", certificate, "--tls-key", secret];
      await withServer("127.0.0.1:0", args, async (port) => {
        const base = `https://127.0.0.1:${port}`;
        const named = (Host: string) => statusOf(`${base}/api/streams`, { Host });
        expect(await named("cam.example")).toBe(200);
        expect(await named("gpu1.lab.example:443")).toBe(200);
        expect(await named("a.gpu1.lab.example")).toBe(421);
        expect(await named("other.example")).toBe(421);
        expect(await named("192.0.2.1")).toBe(421);
      });
    },
  );
});
