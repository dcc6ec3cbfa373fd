// Covers: store/bucket/credentials/credential-document.ts,
//   store/bucket/credentials/endpoint-request.ts, store/bucket/response-body.ts

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../../src/errors.ts";
import { containerKeys, containerUrl } from "../../../../src/store/bucket/credentials/container.ts";
import { bypassProxy } from "../../../../src/store/bucket/credentials/endpoint-request.ts";
import {
  gigabyte,
  keyDocument,
  startEndpoint,
  wrongAnswers,
} from "../../../helper/fake-endpoint.ts";
import { temporaryFolder } from "../../../helper/program.ts";

const full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const relative = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";

function load(environment: Record<string, string>) {
  return containerKeys(environment)!.load();
}

/** Returns the error of a load. */
async function failure(environment: Record<string, string>): Promise<FramesError> {
  return load(environment).then(
    () => expect.unreachable(),
    (error: FramesError) => error,
  );
}

describe("the address of the container's endpoint", () => {
  test("it is below the address of ECS if it is relative, also beside a full one", () => {
    const environment = { [relative]: "/v2/keys?id=1", [full]: "http://localhost/" };
    expect(containerUrl(environment)?.href).toBe("http://169.254.170.2/v2/keys?id=1");
    expect(containerUrl({})).toBeUndefined();
    expect(containerKeys({ [full]: "" })).toBeUndefined();
  });

  for (const uri of [
    "https://example.com/keys",
    "http://localhost:8080/keys",
    "http://127.0.0.1/",
    "http://127.8.9.1/",
    "http://[::1]:90/",
    "http://169.254.170.2/keys",
    "http://169.254.170.23/v1/credentials",
    "http://[fd00:ec2::23]/v1/credentials",
  ]) {
    test(`it may be ${uri}`, () => {
      expect(containerUrl({ [full]: uri })?.href).toBe(uri);
    });
  }

  for (const uri of [
    "http://example.com/keys",
    "http://10.0.0.1/",
    "http://169.254.169.254/",
    "http://127.0.0.1.example.com/",
    "http://localhost.example.com/",
    "http://example-localhost/",
    "http://localhost@example.com/",
    "http://[::ffff:10.0.0.1]/",
    "http://0.0.0.0/",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "/v2/keys",
    "http://",
  ]) {
    test(`it may not be ${uri}`, () => {
      expect(() => containerUrl({ [full]: uri })).toThrow("expected https://, or http:// with");
    });
  }

  for (const path of ["@example.com/", ".example.com/", ":80@example.com/", "v2", "//[", "0/"]) {
    test(`a relative one may not be ${path}`, () => {
      const act = () => containerUrl({ [relative]: path });
      if (path === "//[") expect(act()?.host).toBe("169.254.170.2");
      else expect(act).toThrow("expected a path");
    });
  }
});

describe("the container's endpoint", () => {
  test("it gives keys for the token of a file, which is read for each request", async () => {
    using endpoint = startEndpoint(() => keyDocument({ Expiration: "2030-01-02T03:04:05Z" }));
    const file = join(temporaryFolder(), "token");
    writeFileSync(file, "first\n");
    const environment = {
      [full]: `${endpoint.origin}/v1/credentials`,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: "not-this-one",
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file,
    };
    const provider = containerKeys(environment)!;
    expect(await provider.load()).toEqual({
      accessKeyId: "ASIAFAKEFAKEFAKEFAKE",
      secretAccessKey: "secret-of-the-role",
      sessionToken: "token-of-the-role",
      expiresAt: Date.UTC(2030, 0, 2, 3, 4, 5),
    });
    writeFileSync(file, "second");
    await provider.load();
    const tokens = endpoint.seen.map(({ headers }) => headers.get("authorization"));
    expect(tokens).toEqual(["first", "second"]);
    expect(endpoint.seen[0]).toMatchObject({ method: "GET", path: "/v1/credentials" });
  });

  test("it gets the token of the environment, or none", async () => {
    using endpoint = startEndpoint(() => keyDocument());
    await load({ [full]: endpoint.origin, AWS_CONTAINER_AUTHORIZATION_TOKEN: "Basic abcd" });
    await load({ [full]: endpoint.origin });
    const tokens = endpoint.seen.map(({ headers }) => headers.get("authorization"));
    expect(tokens).toEqual(["Basic abcd", null]);
  });

  test("a token that would add a header, or is not there, is an error that does not show it", async () => {
    using endpoint = startEndpoint(() => keyDocument());
    const file = join(temporaryFolder(), "token");
    writeFileSync(file, "a-secret\r\nHost: example.com");
    const missing = join(temporaryFolder(), "none");
    const tokenFile = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    const lines: string[] = [];
    for (const settings of [
      { [tokenFile]: file },
      { [tokenFile]: missing },
      { AWS_CONTAINER_AUTHORIZATION_TOKEN: "a-secret\nX: y" },
    ]) {
      const { code, message } = await failure({ [full]: endpoint.origin, ...settings });
      expect(code).toBe("usage");
      expect(message).not.toContain("a-secret");
      lines.push(message);
    }
    expect(lines).toEqual([
      expect.stringContaining("expected one line"),
      expect.stringContaining("it does not exist"),
      expect.stringContaining("expected one line"),
    ]);
    expect(endpoint.seen).toEqual([]);
  });

  test("a wrong answer is one line that names the endpoint", async () => {
    await Promise.all(
      wrongAnswers.map(async ([what, make, says]) => {
        using endpoint = startEndpoint(make);
        const { code, message } = await failure({ [full]: `${endpoint.origin}/secret-path` });
        expect([what, code]).toEqual([what, "store"]);
        expect(message).toMatch(says);
        expect(message).toStartWith(
          `Cannot get keys from the container endpoint ${endpoint.origin}: `,
        );
        expect(message).not.toContain("secret-path");
      }),
    );
  });

  test("of a gigabyte only the beginning is read", async () => {
    const body = gigabyte();
    using endpoint = startEndpoint(() => body.response);
    await failure({ [full]: endpoint.origin });
    expect(body.taken).toBeLessThan(100 << 20);
  });

  const documents: readonly [what: string, make: () => Response, says: string][] = [
    ["HTML", () => new Response("<html>Login</html>"), "its answer is not JSON"],
    ["null", () => new Response("null"), "it has no access key; check the role of the container"],
    ["a list", () => new Response("[]"), "it has no access key; check the role of the container"],
    [
      "a number as key",
      () => keyDocument({ AccessKeyId: 7 }),
      "it has no access key; check the role of the container",
    ],
    ["no secret", () => keyDocument({ SecretAccessKey: "" }), "no secret key"],
    ["a secret of two lines", () => keyDocument({ SecretAccessKey: "a\nb" }), "control characters"],
    ["a long token", () => keyDocument({ Token: "t".repeat(2049) }), "the limit is 2048"],
    ["a refusal", () => Response.json({ code: "NoRole" }), "its answer was NoRole"],
    ["a strange refusal", () => Response.json({ Code: "<a secret>" }), "its answer was an error"],
  ];
  for (const [what, make, says] of documents) {
    test(`it is an error if the document is ${what}`, async () => {
      using endpoint = startEndpoint(make);
      const { code, message } = await failure({ [full]: endpoint.origin });
      expect([code, message]).toEqual(["store", expect.stringContaining(says)]);
      expect(message).not.toContain("secret-of-the-role");
    });
  }

  test("an endpoint that is busy once is asked again", async () => {
    using endpoint = startEndpoint(() => {
      return endpoint.seen.length === 1 ? new Response("", { status: 500 }) : keyDocument();
    });
    expect((await load({ [full]: endpoint.origin })).accessKeyId).toBe("ASIAFAKEFAKEFAKEFAKE");
  });

  for (const [expiration, expected] of [
    ["9999-12-31T23:59:59Z", Date.UTC(9999, 11, 31, 23, 59, 59)],
    ["1970-01-01T00:00:00Z", 0],
    ["NaN", undefined],
    [null, undefined],
    [1e300, undefined],
  ] as const) {
    test(`the end ${expiration} is taken as ${expected}`, async () => {
      using endpoint = startEndpoint(() => keyDocument({ Expiration: expiration }));
      expect((await load({ [full]: endpoint.origin })).expiresAt).toBe(expected);
    });
  }

  test("a plain request goes to the endpoint itself and not to a proxy", async () => {
    using endpoint = startEndpoint(() => keyDocument());
    using proxy = startEndpoint(() => keyDocument({ AccessKeyId: "of-the-proxy" }));
    const modules = join(import.meta.dir, "../../../../src/store/bucket/credentials/container.ts");
    const program = `
      const { containerKeys } = await import(${JSON.stringify(modules)});
      console.log((await containerKeys(process.env).load()).accessKeyId);`;
    for (const none of [{}, { NO_PROXY: "example.com" }, { no_proxy: "example.com" }]) {
      const proxies = { HTTP_PROXY: proxy.origin, http_proxy: proxy.origin };
      const env = { PATH: process.env["PATH"], ...proxies, ...none, [full]: endpoint.origin };
      const child = Bun.spawn([process.execPath, "-e", program], { env, stderr: "inherit" });
      expect(await new Response(child.stdout).text()).toBe("ASIAFAKEFAKEFAKEFAKE\n");
    }
    expect(proxy.seen).toEqual([]);
  });

  test("a host is added to the hosts without a proxy once", () => {
    const before = process.env["NO_PROXY"];
    bypassProxy("169.254.170.2");
    bypassProxy("169.254.170.2");
    const hosts = process.env["NO_PROXY"]!.split(",");
    expect(hosts.filter((host) => host === "169.254.170.2")).toHaveLength(1);
    if (before === undefined) delete process.env["NO_PROXY"];
    else process.env["NO_PROXY"] = before;
  });
});
