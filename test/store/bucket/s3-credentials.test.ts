// How the client of an engine uses and renews its credentials, with an engine in memory.
//
// Covers: store/bucket/s3.ts, store/bucket/s3-errors.ts

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../src/errors.ts";
import { CredentialCache } from "../../../src/store/bucket/credentials/credential-cache.ts";
import { selectProvider } from "../../../src/store/bucket/credentials/select-provider.ts";
import { readSharedProfile } from "../../../src/store/bucket/credentials/shared-profile.ts";
import { parseBucketLocation } from "../../../src/store/bucket/location.ts";
import { S3 } from "../../../src/store/bucket/s3.ts";
import { keyDocument, startEndpoint } from "../../helper/fake-endpoint.ts";
import { startMemoryS3 } from "../../helper/memory-s3.ts";
import { temporaryFolder } from "../../helper/program.ts";

const bytes = new TextEncoder().encode("frame");
const timeouts = { requestMs: 5000, retryMs: 9000 };

/** A clock of which `pass` lets minutes pass. */
class FakeClock {
  #minutes = 0;
  readonly wall = (): number => Date.now() + this.#minutes * 60_000;
  readonly monotonic = (): number => performance.now() + this.#minutes * 60_000;

  pass(minutes: number): void {
    this.#minutes += minutes;
  }
}

function open(
  environment: Record<string, string>,
  clock = new FakeClock(),
  retryMs = timeouts.retryMs,
): Promise<S3> {
  const location = parseBucketLocation("s3://frames/part", environment);
  const profile = readSharedProfile(environment);
  const options = { environment, location: "s3://frames/part", profile, sts: { region: "x" } };
  const credentials = new CredentialCache(selectProvider(options), clock);
  return S3.open({ ...location, credentials }, { ...timeouts, retryMs });
}

async function failureOf(act: Promise<unknown>): Promise<string> {
  return act.then(
    () => expect.unreachable(),
    (error: FramesError) => error.message,
  );
}

/** Makes every kind of request of the client. */
async function useEverything(s3: S3): Promise<void> {
  expect((await s3.put("a", bytes, { condition: "new" })).outcome).toBe("stored");
  expect(await s3.bytes("a", 100)).toEqual(bytes);
  expect((await s3.head("a"))?.size).toBe(bytes.length);
  expect(await (await s3.get("a"))!.bytes()).toEqual(bytes);
  expect(await s3.blob("a").slice(1, 3).text()).toBe("ra");
  expect((await Array.fromAsync(s3.list("")))[0]).toMatchObject([{ key: "a", size: 5 }]);
  await s3.remove("a");
}

describe("credentials of the client of an engine", () => {
  test("every request has the key and the session token", async () => {
    using engine = startMemoryS3();
    using endpoint = startEndpoint(() => keyDocument({ Token: "a/+= token" }));
    const s3 = await open({
      AWS_ENDPOINT_URL: engine.endpoint,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint.origin,
    });
    await useEverything(s3);
    expect(engine.signedWith).toEqual([
      { accessKeyId: "ASIAFAKEFAKEFAKEFAKE", sessionToken: "a/+= token" },
    ]);
    s3.close();
  });

  test("keys without a session token send none", async () => {
    using engine = startMemoryS3();
    const keys = { AWS_ACCESS_KEY_ID: "who", AWS_SECRET_ACCESS_KEY: "a-secret" };
    const s3 = await open({ AWS_ENDPOINT_URL: engine.endpoint, ...keys });
    await useEverything(s3);
    expect(engine.signedWith).toEqual([{ accessKeyId: "who", sessionToken: null }]);
    s3.close();
  });

  for (const code of [
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "InvalidTokenId",
    "TokenRefreshRequired",
    "SignatureDoesNotMatch",
  ]) {
    test(`after ${code} requests use new keys of the endpoint and do not fail`, async () => {
      const clock = new FakeClock();
      let current = "";
      using endpoint = startEndpoint(() => {
        current = `token-${endpoint.seen.length}`;
        return keyDocument({ Token: current });
      });
      using engine = startMemoryS3(({ sessionToken }) =>
        sessionToken === current ? undefined : code,
      );
      const s3 = await open(
        {
          AWS_ENDPOINT_URL: engine.endpoint,
          AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint.origin,
        },
        clock,
      );
      await s3.put("a", bytes);
      clock.pass(1);
      current = "revoked";
      const paths = Array.from({ length: 40 }, (_, index) => `frame-${index}`);
      const puts = paths.map((path) => s3.put(path, bytes, { condition: "new" }));
      const results = await Promise.all([...puts, Array.fromAsync(s3.list(""))]);
      expect(results).toHaveLength(41);
      expect(engine.objects.size).toBe(41);
      expect(await s3.blob("a").text()).toBe("frame");
      expect(endpoint.seen).toHaveLength(2);
      s3.close();
    });
  }

  test("an expired key of the environment is one line that says what to do", async () => {
    using engine = startMemoryS3(() => "ExpiredToken");
    const keys = { AWS_ACCESS_KEY_ID: "who", AWS_SECRET_ACCESS_KEY: "a-secret" };
    const s3 = await open({
      AWS_ENDPOINT_URL: engine.endpoint,
      ...keys,
      AWS_SESSION_TOKEN: "the-token",
    });
    const expected = `at ${engine.endpoint}: the session token has expired (ExpiredToken); start frames again with a new AWS_SESSION_TOKEN`;
    expect(await failureOf(s3.put("a", bytes))).toBe(`Cannot write s3://frames/part/a ${expected}`);
    expect(await failureOf(Array.fromAsync(s3.list("x")))).toBe(
      `Cannot list s3://frames/part/x ${expected}`,
    );
    s3.close();
  });

  test("an expired key of an endpoint that is gone is one line that names both", async () => {
    const clock = new FakeClock();
    let isExpired = false;
    using endpoint = startEndpoint(() => {
      return isExpired ? new Response("", { status: 404 }) : keyDocument();
    });
    using engine = startMemoryS3(() => (isExpired ? "ExpiredToken" : undefined));
    const s3 = await open(
      {
        AWS_ENDPOINT_URL: engine.endpoint,
        AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint.origin,
      },
      clock,
    );
    clock.pass(1);
    isExpired = true;
    const message = await failureOf(s3.put("a", bytes));
    expect(message).toContain("the session token has expired (ExpiredToken); cannot get keys from");
    expect(message).toContain(`the container endpoint ${endpoint.origin}: its answer was HTTP 404`);
    isExpired = false;
    expect((await s3.put("a", bytes)).outcome).toBe("stored");
    s3.close();
  });

  test("new keys in a file are used without a restart", async () => {
    const clock = new FakeClock();
    const path = join(temporaryFolder(), "credentials");
    const write = (id: string) =>
      writeFileSync(path, `[default]\naws_access_key_id = ${id}\naws_secret_access_key = secret\n`);
    write("first");
    let accepted = "first";
    using engine = startMemoryS3(({ accessKeyId }) =>
      accessKeyId === accepted ? undefined : "InvalidAccessKeyId",
    );
    const s3 = await open(
      { AWS_ENDPOINT_URL: engine.endpoint, AWS_SHARED_CREDENTIALS_FILE: path },
      clock,
    );
    await s3.put("a", bytes);
    clock.pass(1);
    accepted = "second";
    expect(await failureOf(s3.put("b", bytes))).toEndWith(
      `the access key is unknown there (InvalidAccessKeyId); check the keys in ${path}`,
    );
    write("second");
    clock.pass(1);
    expect((await s3.put("b", bytes)).outcome).toBe("stored");
    s3.close();
  });

  test("a refusal that new keys do not change is an error within the time for retries", async () => {
    using endpoint = startEndpoint(() => keyDocument({ Token: `token-${endpoint.seen.length}` }));
    using engine = startMemoryS3(() => "InvalidToken");
    const clock = new FakeClock();
    const environment = {
      AWS_ENDPOINT_URL: engine.endpoint,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint.origin,
    };
    const s3 = await open(environment, clock, 500);
    clock.pass(1);
    expect(await failureOf(s3.put("a", bytes))).toContain("the session token is wrong");
    expect(endpoint.seen).toHaveLength(2);
    s3.close();
  });

  test("an error code that is the name of a property of objects is shown as it is", async () => {
    using engine = startMemoryS3(() => "constructor");
    const keys = { AWS_ACCESS_KEY_ID: "who", AWS_SECRET_ACCESS_KEY: "a-secret" };
    const s3 = await open({ AWS_ENDPOINT_URL: engine.endpoint, ...keys });
    expect(await failureOf(s3.put("a", bytes))).toEndWith(`at ${engine.endpoint}: constructor`);
    s3.close();
  });

  test("permissions that lack are no reason for new keys", async () => {
    using endpoint = startEndpoint(() => keyDocument({ Token: `token-${endpoint.seen.length}` }));
    using engine = startMemoryS3(() => "AccessDenied");
    const s3 = await open({
      AWS_ENDPOINT_URL: engine.endpoint,
      AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint.origin,
    });
    expect(await failureOf(s3.put("a", bytes))).toContain("lacks a permission");
    expect(endpoint.seen).toHaveLength(1);
    s3.close();
  });
});
