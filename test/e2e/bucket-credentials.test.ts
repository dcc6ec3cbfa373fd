// Servers of a bucket whose keys are renewed, expire and come back, while a sender sends.

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { keyDocument, type SeenRequest, startEndpoint } from "../helper/fake-endpoint.ts";
import { startMemoryS3 } from "../helper/memory-s3.ts";
import {
  freePort,
  jsonLines,
  launch,
  makeTree,
  manyFrames,
  run,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

/** Returns the frames that an engine has, without the journal. */
function storedFrames(objects: ReadonlyMap<string, Uint8Array>): string[] {
  return [...objects.keys()].filter((path) => path.includes("/run7/")).toSorted();
}

/** Values that no output may contain. */
const secrets = [
  /secret-of-the-role/,
  /token-of-the-role/,
  /token-number-/,
  /token-for-the-endpoint/,
  /secret-path/,
];

function expectNoSecret(...texts: string[]): void {
  for (const text of texts) for (const secret of secrets) expect(text).not.toMatch(secret);
}

describe("the keys of a bucket", () => {
  test("while they have expired a sender waits and the server says why, and with new keys both go on", async () => {
    let isGone = false;
    let current = "";
    using endpoint = startEndpoint(() => {
      if (isGone) return new Response("", { status: 404 });
      current = `token-number-${endpoint.seen.length}`;
      return keyDocument({ Token: current });
    });
    using engine = startMemoryS3(({ sessionToken }) =>
      sessionToken === current ? undefined : "ExpiredToken",
    );
    const server = await startServer({
      dir: "s3://frames/site",
      http: "127.0.0.1:0",
      env: {
        AWS_ENDPOINT_URL: engine.endpoint,
        AWS_CONTAINER_CREDENTIALS_FULL_URI: `${endpoint.origin}/secret-path`,
        AWS_CONTAINER_AUTHORIZATION_TOKEN: "token-for-the-endpoint",
      },
    });
    const tree = makeTree(manyFrames(300, 2000));
    const to = ["--to", `127.0.0.1:${server.port}`];
    const sending = launch(["send", tree, "--stream", "run7", "--bwlimit", "100k", ...to]);
    await until("the first frames", () => storedFrames(engine.objects).length > 0);
    isGone = true;
    current = "none";
    const failures = () => jsonLines(server.stdout()).filter(({ error }) => error === "store");
    await until("the reason", () => /cannot get keys/.test(String(failures().at(-1)?.["message"])));
    const [first] = failures();
    expect(first!["message"]).toMatch(
      /^Cannot \w+ s3:\/\/frames\/site\/\S* at http:\S+: the session token has expired \(ExpiredToken\); c.*$/,
    );
    const pages = ["/", "/api/streams", "/metrics", "/api/status"].map(async (path) =>
      (await fetch(`http://${server.http}${path}`)).text(),
    );
    expectNoSecret(...(await Promise.all(pages)));
    if (process.platform === "linux") {
      expectNoSecret(readFileSync(`/proc/${server.process.pid}/cmdline`, "utf8"));
    }
    isGone = false;
    const sent = await sending.ended();
    expect(sent).toMatchObject({ code: 0 });
    expect(sent.stderr).toContain("Connected to");
    expect(storedFrames(engine.objects)).toHaveLength(300);
    expect(await server.stop()).toBe(0);
    expectNoSecret(server.stdout(), server.stderr(), sent.stdout, sent.stderr);
  });

  const refusals: readonly [
    what: string,
    settings: () => Record<string, string>,
    code: number,
    says: RegExp,
  ][] = [
    [
      "a machine without keys",
      () => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: `http://127.0.0.1:${freePort()}` }),
      1,
      /has no keys for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE/,
    ],
    [
      "a profile of another program",
      () => ({
        AWS_CONFIG_FILE: file("[profile cam]\ncredential_process = /secret-path"),
        AWS_PROFILE: "cam",
      }),
      1,
      /frames does not support credential_process; run eval/,
    ],
    [
      "a container endpoint on another machine",
      () => ({ AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://example.com/secret-path" }),
      1,
      /expected https:\/\/, or http:\/\/ with a loopback, ECS or EKS address/,
    ],
    [
      "a container endpoint that is not there",
      () => ({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `http://127.0.0.1:${freePort()}/secret-path` }),
      11,
      /Cannot get keys from the container endpoint http:\S+: connection refused; check the role of the container, and its token$/,
    ],
  ];
  for (const [what, settings, code, says] of refusals) {
    test(`${what} is one line of frames serve, ls and verify`, async () => {
      const env = settings();
      for (const command of [
        ["serve", "s3://frames/site", "--listen", "127.0.0.1:0"],
        ["ls", "--dir", "s3://frames/site"],
        ["verify", "s3://frames/site"],
      ]) {
        const ended = await run(command, { env });
        expect([command[0], ended.code]).toEqual([command[0], code]);
        expect(ended.stderr.trim()).toMatch(says);
        expect(ended.stderr.trim().split("\n")).toHaveLength(1);
        expectNoSecret(ended.stderr);
      }
    });
  }

  const places: readonly [
    what: string,
    settings: (endpoint: string) => Record<string, string>,
    sessionToken: string | null,
  ][] = [
    [
      "a profile",
      () => ({
        AWS_SHARED_CREDENTIALS_FILE: file(
          "[cam]\naws_access_key_id = ASIAFAKEFAKEFAKEFAKE\naws_secret_access_key = secret-of-the-role\n",
        ),
        AWS_PROFILE: "cam",
      }),
      null,
    ],
    [
      "a web identity",
      (endpoint) => ({
        AWS_WEB_IDENTITY_TOKEN_FILE: file("token-for-the-endpoint"),
        AWS_ROLE_ARN: "arn:aws:iam::1:role/cam",
        AWS_ENDPOINT_URL_STS: endpoint,
      }),
      "token-of-the-role",
    ],
    [
      "a container",
      (endpoint) => ({
        AWS_CONTAINER_CREDENTIALS_FULL_URI: `${endpoint}/secret-path`,
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file("token-for-the-endpoint"),
      }),
      "token-of-the-role",
    ],
    [
      "an instance",
      (endpoint) => ({ AWS_EC2_METADATA_SERVICE_ENDPOINT: endpoint }),
      "token-of-the-role",
    ],
  ];
  for (const [what, settings, sessionToken] of places) {
    test(`frames serve and frames ls use the keys of ${what}, and the engine that a profile names`, async () => {
      using endpoint = startEndpoint(answerAny);
      using engine = startMemoryS3();
      const name = what === "a profile" ? "profile cam" : "default";
      const config = `[${name}]\nregion = eu-west-1\nendpoint_url = ${engine.endpoint}\n`;
      const env = { AWS_CONFIG_FILE: file(config), ...settings(endpoint.origin) };
      const server = await startServer({ dir: "s3://frames/site", env });
      expect(await server.stop()).toBe(0);
      const listed = await run(["ls", "--dir", "s3://frames/site"], { env });
      expect(listed).toMatchObject({ code: 0, stderr: "s3://frames/site has no frames yet\n" });
      expect(engine.signedWith).toEqual([{ accessKeyId: "ASIAFAKEFAKEFAKEFAKE", sessionToken }]);
      expectNoSecret(server.stdout(), server.stderr(), listed.stderr);
    });
  }
});

/** Answers as STS, as the metadata of an instance, and as the endpoint of a container. */
function answerAny({ method, path }: SeenRequest): Response {
  if (method === "POST") {
    return new Response(
      "<Credentials><AccessKeyId>ASIAFAKEFAKEFAKEFAKE</AccessKeyId><SecretAccessKey>secret-of-the-role</SecretAccessKey><SessionToken>token-of-the-role</SessionToken></Credentials>",
    );
  }
  if (method === "PUT") return new Response("token-of-the-service");
  return path.endsWith("/security-credentials/") ? new Response("camera-role") : keyDocument();
}

/** Writes a file and returns its path. */
function file(text: string): string {
  const path = join(temporaryFolder(), "file");
  writeFileSync(path, text);
  return path;
}
