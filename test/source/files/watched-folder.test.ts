// Files that are changed, replaced or removed after they were complete.

import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Frame, Loss } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { never, placeFile, Watching } from "../../helper/watching.ts";

const jpeg = "\xff\xd8\xff\xe0 a picture \xff\xd9";

/**
 * Writes an incomplete file before the watch begins. A later file may pass for one renamed into
 * place, if the event of its bytes is late.
 */
function unfinished(folder: string, name: string): void {
  writeFileSync(join(folder, name), "half");
}

async function has(watching: Watching, name: string, text: string): Promise<void> {
  await until(`${name} with ${text}`, () => watching.of(name).includes(text));
}

/** Stops the watch and returns everything that the source still yields. */
function allOf(watching: Watching): (Frame | Loss)[] {
  const found: (Frame | Loss)[] = [];
  watching.watch.stop();
  for (;;) {
    const item = watching.sources.get("run7")?.next(false);
    if (item === undefined || item instanceof Promise) return found;
    found.push(item);
  }
}

function textOf(item: Frame | Loss): string {
  if ("error" in item) return `lost: ${item.error.code}`;
  const bytes = new Uint8Array(item.size);
  item.read(bytes);
  return `${item.name}: ${Buffer.from(bytes).toString("latin1")}`;
}

let marks = 0;

/** Waits until a held watch has noticed everything. A new folder's source exists by then. */
async function noticed(folder: string, watching: Watching): Promise<void> {
  const mark = `mark-${++marks}`;
  mkdirSync(join(folder, mark), { recursive: true });
  placeFile(folder, `${mark}/mark`);
  await until("the mark", () => watching.sources.has(mark));
}

/** Waits until a held watch has queued everything that was written before. */
async function settled(folder: string, watching: Watching): Promise<void> {
  const mark = `mark-${++marks}`;
  mkdirSync(join(folder, mark));
  writeFileSync(join(folder, mark, "mark"), mark);
  await until("the mark", () => watching.sources.has(mark));
}

describe("files that change after they were read", () => {
  test("a file that changes after it was read comes again under the next number, once complete", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder);
    placeFile(folder, "a", "one");
    await has(watching, "a", "one");
    appendFileSync(join(folder, "a"), " and two");
    await has(watching, "a", "one and two");
    placeFile(folder, "a", "three");
    await has(watching, "a", "three");
    expect(watching.came.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
  });

  test("a file does not come again if it was only read, or its permissions changed", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder);
    placeFile(folder, "a", "one");
    await has(watching, "a", "one");
    Bun.spawnSync(["chmod", "600", join(folder, "a")]);
    await Bun.file(join(folder, "a")).text();
    placeFile(folder, "b", "two");
    await has(watching, "b", "two");
    expect(watching.of("a")).toEqual(["one"]);
  });

  test("a file replaced again and again comes whole each time, with the last version at the end", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: never });
    const versions = Array.from({ length: 300 }, (_, index) => `version ${index}`.repeat(500));
    for (const [index, version] of versions.entries()) {
      placeFile(folder, "latest", version);
      // Interval of the writing program.
      if (index % 10 === 0) await Bun.sleep(5);
    }
    await has(watching, "latest", versions.at(-1)!);
    const torn = watching.of("latest").filter((text) => !versions.includes(text));
    expect(torn).toEqual([]);
  });

  test("a JPEG that is truncated before it is read is not sent without its end", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true });
    placeFile(folder, "a.jpg", jpeg);
    await until("the source", () => watching.sources.has("run7"));
    const source = watching.sources.get("run7")!;
    const frame = (await source.next(false)) as Frame;
    writeFileSync(join(folder, "a.jpg"), jpeg.slice(0, 8), "latin1");
    let failure: unknown;
    try {
      frame.read(new Uint8Array(frame.size));
    } catch (error) {
      failure = error;
    }
    expect(failure).toMatchObject({ code: "changed" });
    const again = source.retry(frame, failure as Loss["error"]);
    expect("error" in again ? again.error.code : textOf(again)).toBe("changed");
  });
});

describe("files that wait to be read", () => {
  test("a waiting file that changes comes once, in its last version", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: 20, isHeld: true });
    for (const text of ["one", "two and", "three and more"]) {
      placeFile(folder, "a", text);
      await noticed(folder, watching);
    }
    const found = allOf(watching).map(textOf);
    expect(found).toEqual(["a: three and more"]);
  });

  test("a waiting file that changes just before it is read comes when it is complete", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: 50, isHeld: true });
    placeFile(folder, "a", "one");
    await until("the source", () => watching.sources.has("run7"));
    appendFileSync(join(folder, "a"), " and two");
    watching.release();
    await until("the frame", () => watching.came.length > 0);
    expect(watching.of("a")).toEqual(["one and two"]);
  });

  test("a waiting file that is removed is lost under its name", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true });
    for (const name of ["a", "b"]) placeFile(folder, name);
    await until("the source", () => watching.sources.has("run7"));
    await noticed(folder, watching);
    unlinkSync(join(folder, "a"));
    const found = allOf(watching);
    expect(found.map(textOf)).toEqual(["lost: vanished", "b: b"]);
    expect(found[0]).toMatchObject({ first: 1, last: 1, what: "a" });
  });

  test("a waiting file that changes and is removed is lost once", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: 20, isHeld: true });
    placeFile(folder, "a", "one");
    await noticed(folder, watching);
    placeFile(folder, "a", "and two");
    await noticed(folder, watching);
    unlinkSync(join(folder, "a"));
    expect(allOf(watching).map(textOf)).toEqual(["lost: vanished"]);
  });

  test("a waiting file that is removed and created again comes with its new bytes", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: 20, isHeld: true });
    placeFile(folder, "a", "one");
    await noticed(folder, watching);
    unlinkSync(join(folder, "a"));
    placeFile(folder, "a", "the new one");
    await noticed(folder, watching);
    expect(allOf(watching).map(textOf)).toContain("a: the new one");
  });
});

describe("files removed before they are complete", () => {
  test("an incomplete file that is removed is lost under its name", async () => {
    const folder = temporaryFolder();
    unfinished(folder, "a");
    using watching = new Watching(folder, { settleMs: never });
    // A source is created with its first frame.
    placeFile(folder, "b");
    await has(watching, "b", "b");
    unlinkSync(join(folder, "a"));
    await until("its loss", () => watching.of("a").length > 0);
    expect(watching.of("a")).toEqual(["lost: vanished"]);
  });

  test("an incomplete file that is removed is lost also if the watch is stopped just then", async () => {
    const folder = temporaryFolder();
    unfinished(folder, "a");
    using watching = new Watching(folder, { settleMs: never });
    placeFile(folder, "b");
    await has(watching, "b", "b");
    unlinkSync(join(folder, "a"));
    placeFile(folder, "c");
    await has(watching, "c", "c");
    watching.watch.stop();
    await until("the end", () => watching.ended.includes("run7"));
    expect(watching.of("a")).toEqual(["lost: vanished"]);
  });

  test("an incomplete file that is renamed is no loss, also in another folder", async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, "done"));
    for (const name of ["a", "c", "removed"]) unfinished(folder, name);
    using watching = new Watching(folder, { settleMs: never });
    renameSync(join(folder, "a"), join(folder, "b"));
    renameSync(join(folder, "c"), join(folder, "done/c"));
    await until("both", () => watching.of("c", "done").length > 0 && watching.of("b").length > 0);
    // A loss of the renamed files would be reported before this one.
    unlinkSync(join(folder, "removed"));
    await until("a loss", () => watching.of("removed").length > 0);
    const lost = watching.came.filter((one) => one.lost !== undefined).map(({ name }) => name);
    expect(lost).toEqual(["removed"]);
  });
});

describe("files moved to the server", () => {
  test("a file moved to the server is forgotten, so an equal file of its name comes again", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true });
    placeFile(folder, "a", "one");
    await until("the source", () => watching.sources.has("run7"));
    const source = watching.sources.get("run7")!;
    const frame = (await source.next(false)) as Frame;
    frame.read(new Uint8Array(frame.size));
    await source.remove(frame, crc32("one"));
    const seconds = Number(frame.captured) / 1e9;
    writeFileSync(join(folder, "a.part"), "one");
    Bun.spawnSync(["touch", "-d", `@${seconds.toFixed(9)}`, join(folder, "a.part")]);
    renameSync(join(folder, "a.part"), join(folder, "a"));
    const next = (await source.next(false)) as Frame;
    expect([next.name, next.sequence]).toEqual(["a", 2]);
  });

  test("a sent file that changed is not removed, because it is sent again", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true, settleMs: never });
    placeFile(folder, "a", "one");
    await until("the source", () => watching.sources.has("run7"));
    const source = watching.sources.get("run7")!;
    const frame = (await source.next(false)) as Frame;
    frame.read(new Uint8Array(frame.size));
    placeFile(folder, "a", "two");
    expect(await source.remove(frame, crc32("one"))).toBe("superseded");
    expect(await Bun.file(join(folder, "a")).text()).toBe("two");
    expect(((await source.next(false)) as Frame).sequence).toBe(2);
  });

  for (const [what, settleMs] of [
    ["announced", never],
    ["queued", 20],
  ] as const) {
    test(`a file that was removed as it was sent is no loss, although a late event ${what} it again`, async () => {
      const folder = temporaryFolder();
      using watching = new Watching(folder, { isHeld: true, settleMs });
      const frame = await taken(watching, folder, "a", "one");
      const path = join(folder, "a");
      writeFileSync(path, "one");
      const [, seconds, nanoseconds] = /^(\d+)(\d{9})$/.exec(String(frame.captured))!;
      Bun.spawnSync(["touch", "-d", `@${seconds}.${nanoseconds}`, path]);
      // What is told of a file is told before what is told of later ones.
      if (settleMs === never) await taken(watching, folder, "b", "two");
      else await settled(folder, watching);
      const source = watching.sources.get("run7")!;
      expect(await source.remove(frame, crc32("one"))).toBe("removed");
      watching.watch.stop();
      expect(await source.next(false)).toBeUndefined();
    });
  }

  test("an earlier version of a file that was removed is no failure", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true, settleMs: 20 });
    const half = await taken(watching, folder, "a", "one");
    const whole = await taken(watching, folder, "a", "one, and more");
    const source = watching.sources.get("run7")!;
    expect(await source.remove(whole, crc32("one, and more"))).toBe("removed");
    expect(await source.remove(half, crc32("one"))).toBe("superseded");
  });
});

/** Places a file, and takes it from the source as a delivery does. */
async function taken(
  watching: Watching,
  folder: string,
  name: string,
  text: string,
): Promise<Frame> {
  placeFile(folder, name, text);
  await until("the source", () => watching.sources.has("run7"));
  const frame = (await watching.sources.get("run7")!.next(false)) as Frame;
  frame.read(new Uint8Array(frame.size));
  return frame;
}

describe("the right to replace a frame that was sent", () => {
  test("a file that changes or is renamed over its earlier version revises it", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true, settleMs: 20 });
    const versions = [await taken(watching, folder, "a", "one")];
    versions.push(await taken(watching, folder, "a", "and two"));
    appendFileSync(join(folder, "a"), " and three");
    versions.push((await watching.sources.get("run7")!.next(false)) as Frame);
    expect(versions.map(({ size, revises }) => [size, revises])).toEqual([
      [3, true],
      [7, true],
      [17, true],
    ]);
  });

  const removals: [
    what: string,
    remove: (watching: Watching, path: string, frame: Frame) => unknown,
  ][] = [
    [
      "was moved to the server",
      (watching, _, frame) => watching.sources.get("run7")!.remove(frame, crc32("one")),
    ],
    ["was deleted", (_, path) => unlinkSync(path)],
    ["was renamed", (_, path) => renameSync(path, `${path}.tmp`)],
  ];
  for (const [what, remove] of removals) {
    test(`a new file revises no frame of its name that ${what}, and neither do its changes`, async () => {
      const folder = temporaryFolder();
      using watching = new Watching(folder, { isHeld: true, settleMs: 20 });
      const first = await taken(watching, folder, "a", "one");
      await remove(watching, join(folder, "a"), first);
      const second = await taken(watching, folder, "a", "another");
      appendFileSync(join(folder, "a"), " and more");
      const third = (await watching.sources.get("run7")!.next(false)) as Frame;
      const other = await taken(watching, folder, "b", "one");
      expect([second, third, other].map(({ name, revises }) => [name, revises])).toEqual([
        ["a", false],
        ["a", false],
        ["b", true],
      ]);
    });
  }

  test("a file in a folder that was removed and created again revises nothing", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true, settleMs: 20 });
    placeFile(folder, "cam/1", "one");
    await until("the source", () => watching.sources.has("cam"));
    const source = watching.sources.get("cam")!;
    expect(((await source.next(false)) as Frame).revises).toBe(true);
    renameSync(join(folder, "cam"), join(folder, ".before"));
    placeFile(folder, "cam/1", "another");
    expect(((await source.next(false)) as Frame).revises).toBe(false);
  });
});

describe("files whose name is taken at the server", () => {
  const kept = (folder: string) => readdirSync(folder).filter((name) => name.startsWith(".kept"));

  test("a copy outlives a file that takes the name, and is made once", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true });
    const name = `${"ä".repeat(120)}.jpg`;
    const frame = await taken(watching, folder, name, "shot 2");
    const source = watching.sources.get("run7")!;
    const path = source.keepCopy(frame, crc32("shot 2"));
    expect(source.keepCopy(frame, crc32("shot 2"))).toBe(path!);
    writeFileSync(join(folder, name), "shot 3");
    expect(kept(folder).length).toBe(1);
    expect(await Bun.file(path!).text()).toBe("shot 2");
    expect(path).toEndWith("ä.jpg");
    expect(Buffer.byteLength(kept(folder)[0]!)).toBeLessThanOrEqual(255);
  });

  test.skipIf(process.platform === "win32")(
    "a link in place of the copy or of its unfinished file is not followed, and the copy is made",
    async () => {
      const folder = temporaryFolder();
      using watching = new Watching(folder, { isHeld: true });
      const target = join(temporaryFolder(), "target");
      writeFileSync(target, "precious");
      const frame = await taken(watching, folder, "a.jpg", "shot 2");
      const prefix = `.kept-${crc32("shot 2").toString(16).padStart(8, "0")}-`;
      for (const name of ["a.jpg", "part"]) symlinkSync(target, join(folder, prefix + name));
      const path = watching.sources.get("run7")!.keepCopy(frame, crc32("shot 2"))!;
      expect(lstatSync(path).isFile()).toBe(true);
      expect(await Bun.file(path).text()).toBe("shot 2");
      expect(await Bun.file(target).text()).toBe("precious");
    },
  );

  test("no copy is made of a file that is another by now", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { isHeld: true });
    const frame = await taken(watching, folder, "a", "shot 2");
    placeFile(folder, "a", "another shot");
    expect(watching.sources.get("run7")!.keepCopy(frame, crc32("shot 2"))).toBeUndefined();
    expect(kept(folder)).toEqual([]);
  });
});

describe("the end of a watch", () => {
  test("a stopped watch still gives complete files, and reports incomplete ones as losses", async () => {
    const folder = temporaryFolder();
    // Created in advance, because renames inside a new folder may be missed.
    for (const next of [1, 2]) mkdirSync(join(folder, `mark-${marks + next}`));
    unfinished(folder, "half");
    using watching = new Watching(folder, { settleMs: never, isHeld: true });
    for (const name of ["a", "b", "c"]) placeFile(folder, name);
    await noticed(folder, watching);
    const found = allOf(watching);
    expect(found.map(textOf)).toEqual(["a: a", "b: b", "c: c", "lost: stopped"]);
    expect(found.at(-1)).toMatchObject({ first: 4, last: 4, what: "half" });
  });

  test("a stopped watch gives no later files, and can be stopped again", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder);
    placeFile(folder, "a");
    await has(watching, "a", "a");
    watching.watch.stop();
    watching.watch.stop();
    await until("the end", () => watching.ended.includes("run7"));
    placeFile(folder, "b");
    expect(await watching.sources.get("run7")!.next(false)).toBeUndefined();
  });
});

test("a watch gives 5,000 files created at once, each once", async () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "a"));
  using watching = new Watching(folder);
  for (let index = 0; index < 2500; index++) {
    writeFileSync(join(folder, `${index}`), `${index}`);
    placeFile(folder, `a/${index}`, `${index}`);
  }
  await until("all", () => watching.came.length >= 5000);
  const names = new Set(watching.came.map(({ source, name }) => `${source}/${name}`));
  expect(names.size).toBe(5000);
  expect(watching.came.length).toBe(5000);
  expect(watching.came.every(({ name, bytes }) => name.endsWith(bytes) && bytes !== "")).toBe(true);
});
