import { describe, expect, test } from "bun:test";
import { type FramesError, usageError } from "../../../../src/errors.ts";
import { instanceKeys } from "../../../../src/store/bucket/credentials/instance-metadata.ts";
import {
  type FakeEndpoint,
  keyDocument,
  type SeenRequest,
  startEndpoint,
  wrongAnswers,
} from "../../../helper/fake-endpoint.ts";

const roles = "/latest/meta-data/iam/security-credentials/";

type Answers = Partial<Record<"token" | "role" | "keys", FakeEndpoint["answer"]>>;

/** Starts a metadata service of version 2, which may answer some requests differently. */
function startMetadata({ token, role, keys }: Answers = {}): FakeEndpoint {
  return startEndpoint((request: SeenRequest) => {
    const { method, path, headers } = request;
    if (method === "PUT" && path === "/latest/api/token") {
      if (headers.get("x-aws-ec2-metadata-token-ttl-seconds") === null) {
        return new Response("", { status: 400 });
      }
      return token?.(request) ?? new Response("token-of-the-service");
    }
    if (headers.get("x-aws-ec2-metadata-token") !== "token-of-the-service") {
      return new Response("", { status: 401 });
    }
    if (path === roles) return role?.(request) ?? new Response("camera-role\n");
    if (path === `${roles}camera-role`) {
      return keys?.(request) ?? keyDocument({ Code: "Success", Type: "AWS-HMAC" });
    }
    return new Response("", { status: 404 });
  });
}

function providerOf({ origin }: FakeEndpoint) {
  const environment = { AWS_EC2_METADATA_SERVICE_ENDPOINT: origin };
  return instanceKeys(environment, () => usageError("no keys here"))!;
}

async function failureOf(load: Promise<unknown>): Promise<FramesError> {
  return load.then(
    () => expect.unreachable(),
    (error: FramesError) => error,
  );
}

describe("the metadata of an instance", () => {
  test("it gives the keys of the role for a token of version 2", async () => {
    using metadata = startMetadata();
    expect(await providerOf(metadata).load()).toMatchObject({
      accessKeyId: "ASIAFAKEFAKEFAKEFAKE",
      secretAccessKey: "secret-of-the-role",
      sessionToken: "token-of-the-role",
    });
    expect(metadata.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
      "PUT /latest/api/token",
      `GET ${roles}`,
      `GET ${roles}camera-role`,
    ]);
  });

  test("it is not asked if it is disabled", () => {
    const environment = { AWS_EC2_METADATA_DISABLED: "TRUE" };
    expect(instanceKeys(environment, () => new Error())).toBeUndefined();
  });

  test("its address may be given, or be the one of IPv6", () => {
    const nameOf = (environment: Record<string, string>) =>
      instanceKeys(environment, () => new Error())!.name;
    expect(nameOf({})).toEndWith(" http://169.254.169.254");
    const mode = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
    expect(nameOf({ [mode]: "IPv6" })).toEndWith(" http://[fd00:ec2::254]");
    const endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    expect(nameOf({ [mode]: "IPv6", [endpoint]: "http://127.0.0.1:9/x" })).toEndWith(".1:9");
    for (const wrong of ["127.0.0.1", "ftp://127.0.0.1", "http://"]) {
      expect(() => nameOf({ [endpoint]: wrong })).toThrow("expected http://HOST:PORT");
    }
  });

  const noInstance: [what: string, answers: Answers][] = [
    ["a server without version 2", { token: () => new Response("", { status: 404 }) }],
    ["a page that asks for a login", { token: () => new Response("<html> login") }],
    ["an empty token", { token: () => new Response("") }],
    ["a redirect", { token: () => Response.redirect("http://127.0.0.1:1/") }],
    ["silence", { token: () => new Promise(() => {}) }],
    ["an instance without a role", { role: () => new Response("", { status: 404 }) }],
  ];
  for (const [what, answers] of noInstance) {
    test(`${what} means that this machine has no keys`, async () => {
      using metadata = startMetadata(answers);
      expect((await failureOf(providerOf(metadata).load())).message).toBe("no keys here");
    });
  }

  for (const role of ["../../user-data", "..", "", "a/b", "<html>", "a?b", "x".repeat(65)]) {
    test(`the role ${JSON.stringify(role.slice(0, 20))} is refused`, async () => {
      using metadata = startMetadata({ role: () => new Response(role) });
      const { code, message } = await failureOf(providerOf(metadata).load());
      expect([code, message]).toEqual(["store", expect.stringContaining("it names no role")]);
      expect(metadata.seen).toHaveLength(2);
    });
  }

  test("a wrong answer instead of keys is one line that names the service", async () => {
    await Promise.all(
      wrongAnswers.map(async ([what, keys, says]) => {
        using metadata = startMetadata({ keys });
        const { code, message } = await failureOf(providerOf(metadata).load());
        expect([what, code]).toEqual([what, "store"]);
        expect(message).toMatch(says);
        expect(message).toStartWith(
          `Cannot get keys from the instance metadata at ${metadata.origin}: `,
        );
      }),
    );
  });

  test("a refusal is an error", async () => {
    const keys = () => Response.json({ Code: "AssumeRoleUnauthorizedAccess" });
    using metadata = startMetadata({ keys });
    const { message } = await failureOf(providerOf(metadata).load());
    expect(message).toContain(
      "its answer was AssumeRoleUnauthorizedAccess; check the role of this instance",
    );
  });

  test("an instance that gave keys before is still one while its service is silent", async () => {
    let token: FakeEndpoint["answer"] | undefined;
    using metadata = startMetadata({
      token: (request) => token?.(request) ?? new Response("token-of-the-service"),
    });
    const provider = providerOf(metadata);
    await provider.load();
    token = () => new Promise(() => {});
    const { code, message } = await failureOf(provider.load());
    expect([code, message]).toEqual(["store", expect.stringContaining("did not answer in time")]);
  });
});
