import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../../src/errors.ts";
import { CredentialCache } from "../../../../src/store/bucket/credentials/credential-cache.ts";
import type { Credentials } from "../../../../src/store/bucket/credentials/credentials.ts";

const minute = 60_000;

/** A cache, the provider that it asks, and its clock. */
class Bench {
  /** Wall clock and monotonic clock, in milliseconds. */
  wall = 1e12;
  monotonic = 0;
  /** Loads so far, of which the last may not be finished. */
  loads = 0;
  /** What the next load does. */
  next: () => Promise<Credentials> = () => this.keys();
  readonly cache = new CredentialCache(
    {
      name: "the fake",
      hint: "check the fake",
      remedies: { InvalidToken: "check the variable" },
      load: () => this.#load(),
    },
    { wall: () => this.wall, monotonic: () => this.monotonic },
  );

  #load(): Promise<Credentials> {
    this.loads++;
    return this.next();
  }

  /** Returns keys named by the number of the load. */
  async keys(lifeMs?: number): Promise<Credentials> {
    const expiresAt = lifeMs === undefined ? undefined : this.wall + lifeMs;
    return { accessKeyId: `key-${this.loads}`, secretAccessKey: "secret", expiresAt };
  }

  pass(milliseconds: number): void {
    this.wall += milliseconds;
    this.monotonic += milliseconds;
  }

  /** Returns the key for a request, after the renewal that it may have begun. */
  async key(): Promise<string> {
    const { accessKeyId } = await this.cache.get();
    await Bun.sleep(0);
    return accessKeyId;
  }

  /** Returns the minute in which the keys are renewed. Makes a request each minute. */
  async renewalMinute(): Promise<number> {
    await this.key();
    for (let minutes = 1; minutes <= 1000; minutes++) {
      this.pass(minute);
      await this.key();
      if (this.loads > 1) return minutes;
    }
    return Infinity;
  }
}

const refused = () => Promise.reject(new FramesError("store", "Cannot get keys from the fake: no"));

describe("credentials of a bucket", () => {
  test("requests at the same time load them once", async () => {
    const bench = new Bench();
    const all = await Promise.all(Array.from({ length: 5 }, () => bench.cache.get()));
    expect(new Set(all).size).toBe(1);
    expect(bench.loads).toBe(1);
  });

  const lives: readonly [what: string, lifeMs: number | undefined, minutes: number][] = [
    ["an hour", 60 * minute, 50],
    ["fifteen minutes", 15 * minute, 8],
    ["six hours", 6 * 60 * minute, 60],
    ["until the year 9999", Date.UTC(9999, 11, 31) - 1e12, 60],
    ["until a time that is not known", undefined, 60],
    ["until an hour ago", -60 * minute, 1],
    ["until 1970", -1e12, 1],
  ];
  for (const [what, lifeMs, minutes] of lives) {
    test(`keys that count ${what} are renewed after ${minutes} min`, async () => {
      const bench = new Bench();
      bench.next = () => bench.keys(lifeMs);
      expect(await bench.renewalMinute()).toBe(minutes);
    });
  }

  test("requests go on with the old keys while new ones are loaded", async () => {
    const bench = new Bench();
    bench.next = () => bench.keys(60 * minute);
    await bench.key();
    bench.pass(51 * minute);
    const loading = Promise.withResolvers<Credentials>();
    bench.next = () => loading.promise;
    expect([await bench.key(), await bench.key()]).toEqual(["key-1", "key-1"]);
    expect(bench.loads).toBe(2);
    loading.resolve(await bench.keys());
    await Bun.sleep(0);
    expect(await bench.key()).toBe("key-2");
  });

  test("a request waits for new keys after the end of the old ones, and uses these if there are none", async () => {
    const bench = new Bench();
    bench.next = () => bench.keys(60 * minute);
    await bench.key();
    bench.pass(61 * minute);
    expect(await bench.key()).toBe("key-2");
    bench.pass(61 * minute);
    bench.next = refused;
    // The engine decides whether they still count.
    expect(await bench.key()).toBe("key-2");
  });

  test("a provider that fails is asked again after half a minute, not for each request", async () => {
    const bench = new Bench();
    await bench.key();
    bench.next = refused;
    bench.pass(60 * minute);
    for (let request = 0; request < 30; request++) {
      await bench.key();
      bench.pass(1000);
    }
    expect(bench.loads).toBe(2);
    await bench.key();
    expect(bench.loads).toBe(3);
  });

  test("keys that have ended before they came are not loaded for each request", async () => {
    const bench = new Bench();
    bench.next = () => bench.keys(-minute);
    for (let request = 0; request < 100; request++) await bench.key();
    expect(bench.loads).toBe(1);
  });

  test("a change of the system time does not delay the renewal", async () => {
    const bench = new Bench();
    bench.next = () => bench.keys(60 * minute);
    await bench.key();
    bench.wall -= 365 * 24 * 60 * minute;
    bench.pass(50 * minute);
    await bench.key();
    expect(await bench.key()).toBe("key-2");
  });

  test("keys that ended while the machine slept are renewed before the next request", async () => {
    const bench = new Bench();
    bench.next = () => bench.keys(60 * minute);
    await bench.key();
    bench.pass(minute);
    bench.wall += 8 * 60 * minute;
    expect(await bench.key()).toBe("key-2");
  });

  test("the error of the first load is the error of the request", async () => {
    const bench = new Bench();
    bench.next = refused;
    expect(bench.cache.get()).rejects.toThrow("Cannot get keys from the fake");
    bench.next = () => bench.keys();
    expect(await bench.key()).toBe("key-2");
  });
});

describe("credentials that the engine refuses", () => {
  test("others are loaded once for all requests", async () => {
    const bench = new Bench();
    await bench.key();
    bench.pass(minute);
    const outcomes = await Promise.all(Array.from({ length: 5 }, () => bench.cache.replace()));
    expect(outcomes).toEqual([true, true, true, true, true]);
    // One that was refused a little later, before it saw the new keys.
    bench.pass(1000);
    expect(await bench.cache.replace()).toBe(true);
    expect(bench.loads).toBe(2);
    expect(await bench.key()).toBe("key-2");
  });

  test("the same ones again are no reason to retry", async () => {
    const bench = new Bench();
    bench.next = async () => ({ accessKeyId: "fixed", secretAccessKey: "secret" });
    await bench.key();
    bench.pass(minute);
    expect(await bench.cache.replace()).toBe(false);
    expect(bench.loads).toBe(2);
  });

  test("a new session token is another key", async () => {
    const bench = new Bench();
    const fixed = { accessKeyId: "fixed", secretAccessKey: "secret" };
    bench.next = async () => ({ ...fixed, sessionToken: String(bench.loads) });
    await bench.key();
    bench.pass(minute);
    expect(await bench.cache.replace()).toBe(true);
  });

  test("the provider is asked at most each five seconds", async () => {
    const bench = new Bench();
    await bench.key();
    bench.next = refused;
    for (let second = 0; second < 60; second++) {
      bench.pass(1000);
      expect(await bench.cache.replace()).toBe(false);
    }
    expect(bench.loads).toBe(1 + 12);
  });

  test("the message says what to do, or why there are no others", async () => {
    const bench = new Bench();
    await bench.key();
    expect(bench.cache.remedy("ExpiredToken")).toBe("check the fake");
    expect(bench.cache.remedy("InvalidToken")).toBe("check the variable");
    bench.next = refused;
    bench.pass(minute);
    await bench.cache.replace();
    expect(bench.cache.remedy("InvalidToken")).toBe("cannot get keys from the fake: no");
    bench.next = () => bench.keys();
    bench.pass(minute);
    expect(await bench.cache.replace()).toBe(true);
    expect(bench.cache.remedy("InvalidToken")).toBe("check the variable");
  });
});
