import { describe, expect, test } from "bun:test";
import { renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../../src/errors.ts";
import { webIdentityKeys } from "../../../../src/store/bucket/credentials/web-identity.ts";
import { startEndpoint, wrongAnswers } from "../../../helper/fake-endpoint.ts";
import { temporaryFolder } from "../../../helper/program.ts";

const roleArn = "arn:aws:iam::123456789012:role/camera";

/** An answer of STS, as its API reference shows it. */
function answer(token = "token-of-the-role/+=="): Response {
  return new Response(`<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:cams:frames</SubjectFromWebIdentityToken>
    <Credentials>
      <SessionToken>${token}</SessionToken>
      <SecretAccessKey>secret/of+the=role</SecretAccessKey>
      <Expiration>2030-01-02T03:04:05Z</Expiration>
      <AccessKeyId>ASIAFAKEFAKEFAKEFAKE</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>`);
}

function tokenFile(token = "header.payload.signature"): string {
  const path = join(temporaryFolder(), "token");
  writeFileSync(path, token);
  return path;
}

async function failureOf(load: Promise<unknown>): Promise<FramesError> {
  return load.then(
    () => expect.unreachable(),
    (error: FramesError) => error,
  );
}

describe("a web identity", () => {
  test("STS gives keys for the token of a file, without a signature", async () => {
    using sts = startEndpoint(() => answer());
    const identity = { roleArn, tokenFile: tokenFile(), sessionName: "gate", region: "x" };
    const provider = webIdentityKeys({ ...identity, endpoint: sts.origin });
    expect(await provider.load()).toEqual({
      accessKeyId: "ASIAFAKEFAKEFAKEFAKE",
      secretAccessKey: "secret/of+the=role",
      sessionToken: "token-of-the-role/+==",
      expiresAt: Date.UTC(2030, 0, 2, 3, 4, 5),
    });
    const [request] = sts.seen;
    expect(request).toMatchObject({ method: "POST", path: "/" });
    expect(request!.headers.get("authorization")).toBeNull();
    expect(Object.fromEntries(new URLSearchParams(request!.body))).toEqual({
      Action: "AssumeRoleWithWebIdentity",
      Version: "2011-06-15",
      RoleArn: roleArn,
      RoleSessionName: "gate",
      WebIdentityToken: "header.payload.signature",
    });
  });

  test("the token is read for each request through links that Kubernetes replaces", async () => {
    using sts = startEndpoint(() => answer());
    const folder = temporaryFolder();
    const [link, next] = [join(folder, "token"), join(folder, "next")];
    symlinkSync(tokenFile("first\n"), link);
    const provider = webIdentityKeys({
      roleArn,
      tokenFile: link,
      region: "x",
      endpoint: sts.origin,
    });
    await provider.load();
    symlinkSync(tokenFile("second\n"), next);
    renameSync(next, link);
    await provider.load();
    const bodies = sts.seen.map(({ body }) => new URLSearchParams(body));
    expect(bodies.map((body) => body.get("WebIdentityToken"))).toEqual(["first", "second"]);
    const [one, other] = bodies.map((body) => body.get("RoleSessionName")!);
    expect(one).toMatch(/^[\w+=,.@-]{2,64}$/);
    expect(one).toBe(other!);
  });

  test("the address of STS is the one of the region", () => {
    const nameOf = (region: string) => webIdentityKeys({ roleArn, tokenFile: "t", region }).name;
    expect(nameOf("eu-central-1")).toBe("STS at https://sts.eu-central-1.amazonaws.com");
    expect(nameOf("cn-north-1")).toBe("STS at https://sts.cn-north-1.amazonaws.com.cn");
  });

  test("a wrong answer is one line that names STS and not the token", async () => {
    await Promise.all(
      wrongAnswers.map(async ([what, make, says]) => {
        using sts = startEndpoint(make);
        const file = tokenFile("the-token");
        const provider = webIdentityKeys({
          roleArn,
          tokenFile: file,
          region: "x",
          endpoint: sts.origin,
        });
        const { code, message } = await failureOf(provider.load());
        expect([what, code]).toEqual([what, "store"]);
        expect(message).toMatch(says);
        expect(message).toStartWith(`Cannot get keys from STS at ${sts.origin}: `);
        expect(message).not.toContain("the-token");
      }),
    );
  });

  const texts: readonly [what: string, make: () => Response, says: string][] = [
    ["HTML", () => new Response("<html>Login</html>"), "no access key"],
    ["JSON", () => Response.json({ AccessKeyId: "x" }), "no access key"],
    ["a long token", () => answer("t".repeat(2049)), "the limit is 2048"],
    [
      "a refusal",
      () =>
        new Response(
          "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>",
          {
            status: 400,
          },
        ),
      `its answer was InvalidIdentityToken; check the role ${roleArn} and its token`,
    ],
  ];
  for (const [what, make, says] of texts) {
    test(`it is an error if the answer is ${what}`, async () => {
      using sts = startEndpoint(make);
      const identity = { roleArn, tokenFile: tokenFile(), region: "x", endpoint: sts.origin };
      const { code, message } = await failureOf(webIdentityKeys(identity).load());
      expect([code, message]).toEqual(["store", expect.stringContaining(says)]);
    });
  }

  test("a token that is missing, empty, binary or large is an error, and STS is not asked", async () => {
    using sts = startEndpoint(() => answer());
    const files = [
      join(temporaryFolder(), "none"),
      temporaryFolder(),
      tokenFile(""),
      tokenFile("\u0000\u0001"),
      tokenFile("t".repeat(20_000)),
    ];
    for (const file of files) {
      const identity = { roleArn, tokenFile: file, region: "x", endpoint: sts.origin };
      expect((await failureOf(webIdentityKeys(identity).load())).code).toBe("usage");
    }
    expect(sts.seen).toEqual([]);
  });
});
