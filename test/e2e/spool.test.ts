// Frames of a live source while its server is down: spooled to disk without loss, even if sender or
// server is killed.

import { describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { group } from "../chaos/piped-video.ts";
import { Camera, newSpool, numberOf } from "../helper/camera.ts";
import { expectCode, journal, type Json, summaryOf } from "../helper/delivery.ts";
import { freePort, jsonLines, run, startServer, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";

interface Row {
  readonly name: string;
  readonly session: string;
  readonly seq: number;
  readonly captured: number;
  readonly received: number;
  readonly is_key: number | null;
}

/** A server that can be stopped and restarted on the same port with the same store. */
class Place implements AsyncDisposable {
  readonly port = freePort();
  readonly to = `127.0.0.1:${this.port}`;
  readonly dir = temporaryFolder();
  #server: Awaited<ReturnType<typeof startServer>> | undefined;

  async start(): Promise<void> {
    this.#server = await startServer({ dir: this.dir, args: ["--listen", this.to] });
  }

  /** Suspends the server: the system still accepts bytes, but nothing is answered. */
  pause(): void {
    this.#server!.process.kill("SIGSTOP");
  }

  async kill(): Promise<void> {
    this.#server!.process.kill("SIGKILL");
    await this.#server!.process.exited;
    this.#server = undefined;
  }

  rows(): Row[] {
    return journal<Row>(this.dir, "SELECT * FROM frames ORDER BY id");
  }

  numbers(): number[] {
    return this.rows().map(({ seq }) => seq);
  }

  losses(): [number, number, string][] {
    type Loss = { first: number; last: number; reason: string };
    const all = journal<Loss>(this.dir, "SELECT * FROM losses ORDER BY first");
    return all.map(({ first, last, reason }) => [first, last, reason]);
  }

  /** Returns every number accounted for, stored or lost. */
  accounted(): number[] {
    const lost = this.losses().flatMap(([first, last]) =>
      Array.from({ length: last - first + 1 }, (_, index) => first + index),
    );
    return [...new Set([...this.numbers(), ...lost])].sort((a, b) => a - b);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
const inOrder = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b);

function expectInOrder(rows: readonly Row[]): void {
  const numbers = rows.map(({ seq }) => seq);
  expect(numbers).toEqual(inOrder(numbers));
}

/** Returns the sender's messages about waiting for the server. */
function waits(camera: Camera): Json[] {
  const whole = camera.stdout.slice(0, camera.stdout.lastIndexOf("\n") + 1);
  return jsonLines(whole).filter(({ type }) => type === "waiting");
}

describe("frames send --spool", () => {
  test("a sender with a spool captures before the server starts, and delivers everything afterwards", async () => {
    await using place = new Place();
    const spool = newSpool();
    using camera = new Camera(["--to", place.to, "--spool", spool.path]);
    await camera.shoot(20);
    await until("all of them in the spool", () => spool.numbers().length === 20);
    await place.start();
    await until("all of them at the server", () => place.numbers().length === 20);
    await camera.shoot(5);
    await until("the live ones too", () => place.numbers().length === 25);
    camera.signal("SIGINT");
    const sent = await camera.ended();
    expectCode(sent, 0);
    expect(place.numbers()).toEqual(upTo(25));
    expect(summaryOf(sent)).toMatchObject({ frames: 25, dropped: 0, lost: 0 });
    expect(spool.numbers()).toEqual([]);
  });

  for (const policy of [[], ["--policy", "latest:100"]]) {
    test(`a sender with a spool loses no frame while the server is away, with policy ${policy[1] ?? "block"}`, async () => {
      await using place = new Place();
      await place.start();
      const spool = newSpool();
      using camera = new Camera(["--to", place.to, "--spool", spool.path, ...policy]);
      await camera.shoot(20, 5000, 5);
      await until("the first frames", () => place.numbers().length >= 15);
      await place.kill();
      await camera.shoot(60, 5000, 10);
      await until("frames in the spool", () => spool.numbers().length >= 55);
      await place.start();
      // The camera continues meanwhile.
      const before = camera.shot;
      const back = () => place.rows().some(({ seq }) => seq > before - 30);
      await until("live frames", async () => (await camera.shoot(1, 5000, 10), back()));
      const returned = Date.now() * 1e6;
      const live = camera.shot;
      await camera.shoot(50, 5000, 10);
      await until("everything", () => place.numbers().length === camera.shot);
      camera.signal("SIGINT");
      const sent = await camera.ended();
      expectCode(sent, 0);
      const rows = place.rows();
      expect(inOrder(rows.map(({ seq }) => seq))).toEqual(upTo(camera.shot));
      expect(new Set(rows.map(({ session }) => session)).size).toBe(1);
      // Frames captured after the server's return were sent at once and in order.
      const fresh = rows.filter(({ seq }) => seq > live);
      expect(fresh.length).toBe(50);
      expectInOrder(fresh);
      expect(fresh.every(({ captured }) => captured >= returned)).toBe(true);
      // Spooled and live frames may alternate, but each kind is in order.
      const since = rows.map(({ seq }) => seq).filter((seq) => seq > 20);
      const isOrdered = (numbers: readonly number[]) => Bun.deepEquals(numbers, inOrder(numbers));
      const borders = since.filter((border) => {
        const spooled = since.filter((seq) => seq <= border);
        return isOrdered(spooled) && isOrdered(since.filter((seq) => seq > border));
      });
      if (borders.length === 0) throw new Error(`not in order: ${since.join(" ")}`);
      expect(summaryOf(sent)).toMatchObject({ dropped: 0, lost: 0, refused: 0 });
      expect(spool.numbers()).toEqual([]);
    });
  }

  test("a sender with a spool continues session, numbers and names after it was killed", async () => {
    await using place = new Place();
    const spool = newSpool();
    const args = ["--to", place.to, "--spool", spool.path];
    for (const count of [10, 20, 30]) {
      using camera = new Camera(args);
      camera.shot = count - 10;
      await camera.shoot(10);
      await until("all of them in the spool", () => spool.numbers().length === count);
      await kill(camera);
    }
    await place.start();
    using camera = new Camera(args);
    camera.shot = 30;
    await camera.shoot(5);
    await until("all of them", () => place.numbers().length === 35);
    camera.signal("SIGINT");
    expectCode(await camera.ended(), 0);
    const rows = place.rows();
    expect(inOrder(rows.map(({ seq }) => seq))).toEqual(upTo(35));
    expect(new Set(rows.map(({ session }) => session)).size).toBe(1);
    expect(new Set(rows.map(({ name }) => name.split("-")[0])).size).toBe(1);
    for (const { name, seq } of rows) {
      expect(name.endsWith(`-${String(seq).padStart(8, "0")}.pgm`)).toBe(true);
      // The content matches the number given by the camera.
      const bytes = await Bun.file(join(place.dir, "run7/visible", name)).bytes();
      expect(numberOf(bytes)).toBe(seq);
    }
    expect(spool.numbers()).toEqual([]);
  });

  test("a sender that is stopped while the server is away keeps its frames for the next run", async () => {
    await using place = new Place();
    const spool = newSpool();
    const args = ["--to", place.to, "--spool", spool.path];
    using camera = new Camera(args);
    await camera.shoot(8);
    await until("all of them in the spool", () => spool.numbers().length === 8);
    camera.signal("SIGINT");
    expectCode(await camera.ended(), 20);
    expect(spool.numbers()).toEqual(upTo(8));
    await place.start();
    using next = new Camera(args);
    next.shot = 8;
    await next.shoot(1);
    await until("all of them", () => place.numbers().length === 9);
    next.signal("SIGINT");
    expectCode(await next.ended(), 0);
    expect(inOrder(place.numbers())).toEqual(upTo(9));
  });

  test("a sender that is stopped while the server is away reports what it dropped", async () => {
    const spool = newSpool();
    const args = ["--spool", spool.path, "--spool-size", "1K", "--policy", "latest:2"];
    using camera = new Camera(["--to", `127.0.0.1:${freePort()}`, ...args]);
    await camera.shoot(40, 300);
    await until("some of them in the spool", () => spool.numbers().length > 0);
    await until("all of them", () => {
      camera.signal("SIGUSR1");
      return Number(reports(camera).at(-1)?.["captured"] ?? 0) === 40;
    });
    camera.signal("SIGINT");
    const { code, stdout, stderr } = await camera.ended();
    expect(code).toBe(20);
    const { sources } = jsonLines(stdout).at(-1) as { sources: Json[] };
    expect(sources).toMatchObject([{ name: "visible", captured: 40, frames: 0 }]);
    const dropped = Number(sources[0]!["dropped"]);
    expect(dropped).toBeGreaterThan(20);
    const gaps = sources[0]!["gaps"] as [number, number, string][];
    expect(gaps.reduce((sum, [first, last]) => sum + last - first + 1, 0)).toBe(dropped);
    expect(stderr).toContain(`${dropped} dropped (`);
  });

  test("SIGUSR1 makes a sender with a spool print a report before it ever reached a server", async () => {
    const spool = newSpool();
    using camera = new Camera(["--to", `127.0.0.1:${freePort()}`, "--spool", spool.path]);
    await camera.shoot(5);
    await until("all of them in the spool", () => spool.numbers().length === 5);
    camera.signal("SIGUSR1");
    await until("the report", () => reports(camera).length > 0);
    expect(reports(camera)[0]).toMatchObject({ name: "visible", captured: 5, sent: 0, frames: 0 });
  });

  test("a spool keeps frames that are larger than one message", async () => {
    await using place = new Place();
    const spool = newSpool();
    using camera = new Camera(["--to", place.to, "--spool", spool.path]);
    await camera.shoot(3, 2_500_000);
    await until("all of them in the spool", () => spool.numbers().length === 3);
    await place.start();
    await until("all of them at the server", () => place.numbers().length === 3);
    await camera.close();
    expectCode(await camera.ended(), 0);
    expect(place.numbers()).toEqual(upTo(3));
  });

  test("the next run after a spool was delivered completely begins a new session", async () => {
    await using place = new Place();
    await place.start();
    const spool = newSpool();
    for (const round of [1, 2]) {
      using camera = new Camera(["--to", place.to, "--spool", spool.path]);
      await camera.shoot(2);
      await until("both", () => place.numbers().length === 2 * round);
      await camera.close();
      expectCode(await camera.ended(), 0);
    }
    expect(place.numbers()).toEqual([1, 2, 1, 2]);
    expect(new Set(place.rows().map(({ session }) => session)).size).toBe(2);
  });
});

describe("Full spool", () => {
  test("a full spool with policy latest keeps the newest frames, and each dropped number is reported", async () => {
    await using place = new Place();
    const spool = newSpool();
    const limits = ["--spool-size", "10k", "--policy", "latest:2"];
    using camera = new Camera(["--to", place.to, "--spool", spool.path, ...limits]);
    await camera.shoot(50, 1000);
    await until("the newest", () => spool.numbers().at(-1) === 50);
    expect(spool.numbers().length).toBeLessThan(12);
    await place.start();
    await until("the newest", () => place.numbers().includes(50));
    camera.signal("SIGINT");
    const sent = await camera.ended();
    expectCode(sent, 0);
    expect(place.accounted()).toEqual(upTo(50));
    const lost = place.losses();
    expect(new Set(lost.map(([, , reason]) => reason))).toEqual(new Set(["dropped"]));
    const dropped = 50 - place.numbers().length;
    expect(summaryOf(sent)["dropped"]).toBe(dropped);
    const [told] = summaryOf(sent)["sources"] as Json[];
    const gaps = told!["gaps"] as [number, number, string][];
    expect(gaps.map(([first, last]) => [first, last])).toEqual(
      lost.map(([first, last]) => [first, last]),
    );
  });

  test("a full spool with policy block makes the source wait and drops nothing", async () => {
    await using place = new Place();
    const spool = newSpool();
    const limits = ["--spool-size", "10k", "--policy", "block"];
    using camera = new Camera(["--to", place.to, "--spool", spool.path, ...limits]);
    const shooting = camera.shoot(50, 1000);
    await until("a full spool", () => spool.numbers().length >= 9);
    await place.start();
    await shooting;
    await until("all of them", () => place.numbers().length === 50);
    camera.signal("SIGINT");
    const sent = await camera.ended();
    expectCode(sent, 0);
    expect(inOrder(place.numbers())).toEqual(upTo(50));
    expect(summaryOf(sent)["dropped"]).toBe(0);
  });

  test("a full spool with policy block drops no frame that was under way when the server died", async () => {
    await using place = new Place();
    await place.start();
    const spool = newSpool();
    const limits = ["--spool-size", "10k", "--policy", "block"];
    using camera = new Camera(["--to", place.to, "--spool", spool.path, ...limits]);
    await camera.shoot(1, 1000);
    await until("the first", () => place.numbers().length === 1);
    // The server accepts bytes without answering, so all frames are in flight.
    place.pause();
    await camera.shoot(49, 1000);
    const captured = () => reports(camera).at(-1)?.["captured"];
    await until("all to be under way", () => {
      camera.signal("SIGUSR1");
      return captured() === 50;
    });
    await place.kill();
    await until("a word of it", () => waits(camera).length > 0);
    await place.start();
    await until("all of them", () => place.accounted().length === 50);
    camera.signal("SIGINT");
    const sent = await camera.ended();
    expect(place.losses()).toEqual([]);
    expect(inOrder(place.numbers())).toEqual(upTo(50));
    expectCode(sent, 0);
  });

  test("a full spool remembers the dropped numbers when its sender is killed", async () => {
    await using place = new Place();
    const spool = newSpool();
    const limits = ["--spool-size", "10k", "--policy", "latest:2"];
    const args = ["--to", place.to, "--spool", spool.path, ...limits];
    using camera = new Camera(args);
    await camera.shoot(50, 1000);
    await until("the newest", () => spool.numbers().at(-1) === 50);
    await kill(camera);
    await place.start();
    using next = new Camera(args);
    next.shot = 50;
    await next.shoot(1, 1000);
    await until("the newest", () => place.numbers().includes(51));
    next.signal("SIGINT");
    expectCode(await next.ended(), 0);
    expect(place.accounted()).toEqual(upTo(51));
  });
});

test("video that was in flight when its sender was killed is not missing before what was spooled", async () => {
  await using place = new Place();
  await place.start();
  const spool = newSpool();
  const args = ["--raw", "h264", "--to", place.to, "--spool", spool.path, "--policy", "latest:2"];
  const pictures = group.map((picture) => Buffer.from(picture, "hex"));
  const shoot = async (camera: Camera) => {
    for (const picture of pictures) {
      await camera.write(picture);
      await Bun.sleep(5);
    }
  };
  using camera = new Camera(args);
  await shoot(camera);
  await until("the first pictures", () => place.numbers().length >= 5);
  place.pause();
  while (spool.numbers().length < 5) await shoot(camera);
  await kill(camera);
  const spooled = spool.numbers();
  await place.kill();
  await place.start();
  using next = new Camera(args);
  await shoot(next);
  await next.close();
  const { code } = await next.ended();
  expect([0, 23]).toContain(code);
  const known = new Set(place.accounted());
  expect(upTo(spooled.at(-1)!).filter((number) => !known.has(number))).toEqual([]);
  const stored = new Set(place.numbers());
  const undecodable = place
    .rows()
    .filter(({ seq, is_key }) => is_key !== 1 && !stored.has(seq - 1));
  expect(undecodable.map(({ seq }) => seq)).toEqual([]);
});

/** Returns the reports printed on SIGUSR1. */
function reports(camera: Camera): Json[] {
  const whole = camera.stdout.slice(0, camera.stdout.lastIndexOf("\n") + 1);
  return jsonLines(whole).filter(({ type }) => type === "report");
}

/**
 * Kills a sender between two turns. The file of a frame comes before its row, and a frame that has only
 * one of them is not in the spool.
 */
async function kill(camera: Camera): Promise<void> {
  const before = reports(camera).length;
  camera.signal("SIGUSR1");
  await until("a report", () => reports(camera).length > before);
  camera.signal("SIGKILL");
  await camera.child.exited;
}

describe("Refused spools", () => {
  const args = ["--source", "visible", "--to", "127.0.0.1:9"];

  test("a spool that another process uses is refused: exit 1", async () => {
    const spool = newSpool();
    using camera = new Camera(["--to", "127.0.0.1:9", "--spool", spool.path]);
    await camera.shoot(1);
    await until("its spool", () => spool.numbers().length === 1);
    const second = await run(["send", "-", "--stream", "run7", ...args, "--spool", spool.path]);
    expectCode(second, 1);
    expect(second.stderr).toContain(`Cannot use the spool ${spool.path}: another process uses it`);
  });

  test("a spool that has frames of another stream is refused: exit 1", async () => {
    const spool = newSpool();
    using camera = new Camera(["--to", "127.0.0.1:9", "--spool", spool.path]);
    await camera.shoot(1);
    await until("its spool", () => spool.numbers().length === 1);
    await kill(camera);
    const second = await run(["send", "-", "--stream", "run8", ...args, "--spool", spool.path]);
    expectCode(second, 1);
    expect(second.stderr).toContain("it contains frames of run7; send those first");
    expect(spool.numbers()).toEqual([1]);
  });

  test("a spool that only a wrong command has opened is accepted", async () => {
    await using place = new Place();
    await place.start();
    const spool = newSpool();
    const wrong = ["--source", "visible", "--policy", "newest", "--spool", spool.path];
    expectCode(await run(["send", "-", "--stream", "wrong", ...wrong]), 1);
    using camera = new Camera(["--to", place.to, "--spool", spool.path]);
    await camera.shoot(1);
    await camera.close();
    expectCode(await camera.ended(), 0);
  });

  test("a spool that is no folder is refused: exit 1", async () => {
    const file = join(temporaryFolder(), "file");
    writeFileSync(file, "");
    const sent = await run(["send", "-", "--stream", "run7", ...args, "--spool", file]);
    expectCode(sent, 1);
    expect(sent.stderr).toContain(`Cannot use the spool ${file}`);
  });
});

describe("Without a spool", () => {
  test("a sender without a spool ends at once if there is no server at its start: exit 10", async () => {
    using camera = new Camera(["--to", "127.0.0.1:9"]);
    await camera.shoot(1);
    expectCode(await camera.ended(), 10);
  });

  test("policy latest without a spool drops frames while the server is away and reports them afterwards", async () => {
    await using place = new Place();
    await place.start();
    using camera = new Camera(["--to", place.to, "--policy", "latest:2"]);
    await camera.shoot(1);
    await until("the first", () => place.numbers().length === 1);
    await place.kill();
    await until("a word of it", () => waits(camera).length > 0);
    await camera.shoot(40);
    await place.start();
    await until("the newest", () => place.numbers().includes(41));
    camera.signal("SIGINT");
    expectCode(await camera.ended(), 0);
    expect(place.accounted()).toEqual(upTo(41));
    expect(place.numbers()).toContain(40);
  });
});
