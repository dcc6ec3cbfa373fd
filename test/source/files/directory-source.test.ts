// Covers: common/file-slices.ts, common/open-files.ts, common/open-flags.ts,
//   source/files/file-filter.ts, source/files/file-writers.ts, source/files/packed-names.ts, source/files/seen-files.ts,
//   source/files/walk.ts

import { afterAll, describe, expect, spyOn, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  constants,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { plan } from "../../../src/client/plan/plan.ts";
import type { PlanOptions } from "../../../src/client/plan/options.ts";
import type { FilterOptions } from "../../../src/source/files/file-filter.ts";
import * as fileWriters from "../../../src/source/files/file-writers.ts";
import { createRoot, type WalkResult, walk } from "../../../src/source/files/walk.ts";
import { environment, temporaryFolder } from "../../helper/program.ts";
import { refusal } from "../../helper/refusal.ts";
import { StoppedClock } from "../../helper/watching.ts";
import { hangMs, until, within } from "../../helper/time.ts";

const everything: FilterOptions = { include: [], exclude: [] };
const isLinux = process.platform === "linux";
/** Whether permissions do not restrict this process. */
const mayReadAll = process.platform === "win32" || process.getuid?.() === 0;

/** Larger than any frame read at once, and than one slice. */
const large = (4 << 20) + 100_000;

/** Creates a folder `run7` with these files. Each contains its own path. */
function folderWith(...paths: string[]): string {
  const folder = join(temporaryFolder(), "run7");
  mkdirSync(folder);
  for (const path of paths) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), path);
  }
  return folder;
}

function walkOne(folder: string, filter: Partial<FilterOptions> = {}): WalkResult {
  const root = createRoot(folder, undefined, false);
  const found = walk([root], { ...everything, ...filter }, (event) => {
    if (event.type === "skipped") found.skipped.push(event.skipped);
  });
  return found;
}

/** Returns all frames found, as `SOURCE: NAME`. */
function listed({ sources }: { sources: WalkResult["sources"] }): string[] {
  return sources.flatMap(({ name, names }) => [...names].map((frame) => `${name}: ${frame}`));
}

async function rejection(work: Promise<unknown>): Promise<FramesError> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (error instanceof FramesError) return error;
  throw error;
}

/** What a source gives. On a local disk it is never a promise. */
type Item = ReturnType<WalkResult["sources"][number]["next"]>;

function isFrame(item: Item): item is Frame {
  return item !== undefined && !(item instanceof Promise) && !("error" in item);
}

function isLoss(item: Item): item is Loss {
  return item !== undefined && !(item instanceof Promise) && "error" in item;
}

function frameOf(item: Item): Frame {
  if (isFrame(item)) return item;
  throw isLoss(item) ? item.error : new Error("there is no frame");
}

function lossOf(item: Item): Loss {
  if (isLoss(item)) return item;
  throw new Error("it was not lost");
}

function readWhole(frame: Frame): Buffer {
  const into = Buffer.alloc(frame.size);
  frame.read(into);
  return into;
}

async function readPieces(frame: Frame): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of { [Symbol.asyncIterator]: () => frame.pieces() }) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** Returns the only source found. */
function onlySource(folder: string): WalkResult["sources"][number] {
  const { sources } = walkOne(folder);
  expect(sources).toHaveLength(1);
  return sources[0]!;
}

/** Writes a file with a modification time before any change made by a test. */
function writeOld(path: string, bytes: string | Uint8Array): void {
  writeFileSync(path, bytes);
  utimesSync(path, 1_000_000_000, 1_000_000_000);
}

function makeFifo(path: string): void {
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
}

/** Files in or below a folder that this process has open, also removed ones. */
function openIn(folder: string): string[] {
  return readdirSync("/proc/self/fd").flatMap((file) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${file}`);
      return path.startsWith(`${folder}/`) ? [path] : [];
    } catch {
      // It was the one that listed the folder.
      return [];
    }
  });
}

describe("walk", () => {
  test("a walk finds each folder with frames as a source, in natural order", () => {
    const folder = folderWith("10.png", "9.png", "1.png", "b/1.png", "a10/1.png", "a9/x/2.png");
    expect(listed(walkOne(folder))).toEqual([
      "run7: 1.png",
      "run7: 9.png",
      "run7: 10.png",
      "a9/x: 2.png",
      "a10: 1.png",
      "b: 1.png",
    ]);
  });

  test("a walk finds no sources in empty folders", () => {
    const folder = folderWith();
    mkdirSync(join(folder, "empty/deeper"), { recursive: true });
    expect(walkOne(folder)).toEqual({ sources: [], skipped: [], unreadable: [], filteredOut: 0 });
  });

  test("a walk takes every regular file, of any name and content", () => {
    const strange = ["no ending", "a b.png", "-rf", "*", "[1].png", "new\nline", "tmp", "part"];
    strange.push("a.tmp.png", "a.part.png", "a.TMP", "🔥.png", "x".repeat(255), "thumbs.db~");
    const folder = folderWith(...strange);
    writeFileSync(join(folder, "empty.png"), "");
    chmodSync(join(folder, "-rf"), 0o755);
    const found = walkOne(folder);
    expect([...found.sources[0]!.names].toSorted()).toEqual([...strange, "empty.png"].toSorted());
  });

  test("a walk ignores hidden files and folders, *.tmp and *.part", () => {
    const folder = folderWith(".hidden", "a.tmp", "a.png.part", ".git/1.png", "b/.x", "b/1.tmp");
    writeFileSync(join(folder, "1.png"), "");
    const found = walkOne(folder);
    expect(listed(found)).toEqual(["run7: 1.png"]);
    expect(found.skipped).toEqual([]);
  });

  test("a walk of a folder with 130,000 files finds its subfolders at once, and links when it reads the files", () => {
    const folder = folderWith("sub/2.png", "sub.tmp/3.png", ".hidden/4.png");
    // Enough files to be listed without their types.
    for (let index = 0; index < 130_000; index++)
      closeSync(openSync(join(folder, `${index}`), "w"));
    symlinkSync("1", join(folder, "0a"));
    symlinkSync("sub", join(folder, "linked"));
    const { sources, skipped } = walkOne(folder, { exclude: ["7"] });
    expect(sources.map(({ name, names }) => [name, names.length])).toEqual([
      ["run7", 130_001],
      ["sub", 1],
    ]);
    const [source] = sources;
    const numbers: [string, number][] = [];
    for (let item = source!.next(true); item !== undefined; item = source!.next(true)) {
      const { name, sequence } = frameOf(item);
      numbers.push([name, sequence]);
    }
    expect(numbers).toHaveLength(129_999);
    expect(numbers.slice(0, 2)).toEqual([
      ["0", 1],
      ["1", 2],
    ]);
    expect(numbers.at(-1)).toEqual(["129999", 129_999]);
    expect(source!.total).toBe(129_999);
    expect(skipped).toEqual(
      ["0a", "linked"].map((name) => ({ path: join(folder, name), why: "a symbolic link" })),
    );
  });

  test("a walk counts the frames of each source", () => {
    const { sources } = walkOne(folderWith("1", "2", "a/1"));
    expect(sources.map(({ name, total }) => [name, total])).toEqual([
      ["run7", 2],
      ["a", 1],
    ]);
  });

  test("a walk reports links, pipes and sockets, and follows none of them", async () => {
    const folder = folderWith("1.png", "a/2.png");
    symlinkSync("1.png", join(folder, "link.png"));
    symlinkSync("a", join(folder, "link to a folder"));
    symlinkSync(folder, join(folder, "a/loop"));
    symlinkSync("nowhere", join(folder, "dangling"));
    makeFifo(join(folder, "pipe"));
    const server = createServer().listen(join(folder, "socket"));
    try {
      await new Promise((resolve) => server.once("listening", resolve));
      const found = walkOne(folder);
      expect(listed(found)).toEqual(["run7: 1.png", "a: 2.png"]);
      const skipped = found.skipped.map(({ path, why }) => `${relative(folder, path)} is ${why}`);
      expect(skipped.toSorted()).toEqual([
        "a/loop is a symbolic link",
        "dangling is a symbolic link",
        "link to a folder is a symbolic link",
        "link.png is a symbolic link",
        "pipe is a named pipe",
        "socket is a socket",
      ]);
    } finally {
      server.close();
    }
  });

  test("a walk takes a hard link as a file", () => {
    const folder = folderWith("1.png");
    linkSync(join(folder, "1.png"), join(folder, "2.png"));
    expect(listed(walkOne(folder))).toEqual(["run7: 1.png", "run7: 2.png"]);
  });

  test("a walk follows a symbolic link that is its root", () => {
    const folder = folderWith("1.png");
    symlinkSync(folder, join(dirname(folder), "link"));
    expect(listed(walkOne(join(dirname(folder), "link")))).toEqual(["link: 1.png"]);
  });

  test("a walk finds the same for a root with trailing slashes, with dots, or relative", () => {
    const folder = folderWith("1.png", "a/2.png");
    const expected = ["run7: 1.png", "a: 2.png"];
    const fromHere = relative(process.cwd(), folder);
    for (const path of [`${folder}/`, `${folder}//`, `${folder}/.`, `${folder}/a/..`, fromHere]) {
      expect(listed(walkOne(path))).toEqual(expected);
    }
  });

  test("a walk fails if its root is missing or no folder, and names the root", () => {
    const folder = folderWith("1.png");
    for (const [path, why] of [
      [join(folder, "nowhere"), "no such file or directory; check the path"],
      [join(folder, "1.png"), "not a directory; name the directory that contains it"],
      [join(folder, "1.png/deeper"), "not a directory; check the path"],
      ["", "no such file or directory; check the path"],
    ] as const) {
      const error = refusal(() => walkOne(path));
      expect([path, error.code]).toEqual([path, "missing"]);
      expect(error.message).toBe(`Cannot send ${path}: ${why}`);
    }
  });

  test("a walk of several roots fails if one of them is missing", () => {
    const folder = folderWith("1.png");
    const roots = [folder, join(folder, "nowhere")].map((path) =>
      createRoot(path, undefined, true),
    );
    expect(refusal(() => walk(roots, everything)).code).toBe("missing");
  });

  test.skipIf(process.platform === "win32")("a walk reports unreadable paths", async () => {
    const folder = openToAll("run7");
    for (const name of ["closed", "open"]) {
      mkdirSync(join(folder, name));
      writeFileSync(join(folder, name, "1.png"), name);
    }
    writeFileSync(join(folder, "secret.png"), "");
    chmodSync(join(folder, "secret.png"), 0);
    chmodSync(join(folder, "closed"), 0);
    const said = await asNobody(`
      const everything = { include: [], exclude: [] };
      const folder = ${JSON.stringify(folder)};
      const { sources, unreadable } = walk([createRoot(folder, undefined, false)], everything);
      const [secret] = sources.map((source) => source.next(false));
      let root;
      try {
        walk([createRoot(folder + "/closed", undefined, false)], everything);
      } catch (error) {
        root = { code: error.code, message: error.message };
      }
      const loss = { what: secret.what, code: secret.error.code, message: secret.error.message };
      const names = sources.map(({ name }) => name);
      console.log(JSON.stringify({ names, unreadable, loss, root }));`);
    expect(JSON.parse(said)).toEqual({
      names: ["run7", "open"],
      unreadable: [{ path: join(folder, "closed"), why: "permission denied" }],
      loss: {
        what: "secret.png",
        code: "unreadable",
        message: "permission denied",
      },
      root: { code: "missing", message: `Cannot send ${folder}/closed: permission denied` },
    });
  });
});

describe("include and exclude patterns", () => {
  const paths = ["1.png", "2.jpg", "visible/1.png", "visible/2.jpg", "infrared/1.png", "a/b/1.png"];
  const cases: [what: string, filter: Partial<FilterOptions>, left: string[]][] = [
    ["without any pattern all files are taken", {}, paths],
    [
      "a pattern without a slash is matched against the name",
      { include: ["*.png"] },
      ["1.png", "visible/1.png", "infrared/1.png", "a/b/1.png"],
    ],
    ["a pattern may be a whole name", { include: ["2.jpg"] }, ["2.jpg", "visible/2.jpg"]],
    [
      "several include patterns take a file that matches any of them",
      { include: ["1.*", "*.jpg"] },
      paths,
    ],
    [
      "a pattern with a slash is matched against the path",
      { include: ["visible/*.png"] },
      ["visible/1.png"],
    ],
    [
      "a pattern that begins with a slash is matched against the path",
      { include: ["/1.png"] },
      ["1.png"],
    ],
    ["a pattern with one star does not match a slash", { include: ["a/*"] }, []],
    ["a pattern with two stars matches folders at any depth", { include: ["a/**"] }, ["a/b/1.png"]],
    [
      "a pattern may have alternatives in braces",
      { include: ["{visible,infrared}/1.*"] },
      ["visible/1.png", "infrared/1.png"],
    ],
    ["an include pattern that matches no file leaves no file", { include: ["*.tiff"] }, []],
    ["an exclude pattern leaves out files", { exclude: ["*.png"] }, ["2.jpg", "visible/2.jpg"]],
    [
      "an exclude pattern leaves out folders with all their contents",
      { exclude: ["visible", "a"] },
      ["1.png", "2.jpg", "infrared/1.png"],
    ],
    [
      "an exclude pattern that ends in a slash leaves out folders only",
      { exclude: ["visible/", "1.png/"] },
      ["1.png", "2.jpg", "infrared/1.png", "a/b/1.png"],
    ],
    [
      "an exclude pattern may be a path",
      { exclude: ["a/b", "/infrared", "visible/1.png"] },
      ["1.png", "2.jpg", "visible/2.jpg"],
    ],
    [
      "an exclude pattern takes precedence over an include pattern",
      { include: ["*.png"], exclude: ["1.png"] },
      [],
    ],
    [
      "an include pattern applies within folders that are not excluded",
      { include: ["*.png"], exclude: ["visible"] },
      ["1.png", "infrared/1.png", "a/b/1.png"],
    ],
  ];
  for (const [what, filter, left] of cases) {
    test(what, () => {
      const { sources } = walkOne(folderWith(...paths), filter);
      const found = sources.flatMap(({ name, names }) =>
        [...names].map((frame) => (name === "run7" ? frame : `${name}/${frame}`)),
      );
      expect(found.toSorted()).toEqual(left.toSorted());
    });
  }

  const counted: [what: string, filter: Partial<FilterOptions>, leftOut: number][] = [
    ["none without patterns", {}, 0],
    ["those that no include pattern matches", { include: ["*.png"] }, 2],
    ["those that an exclude pattern matches", { exclude: ["*.png"] }, 4],
    [
      "those that both kinds of pattern leave out, once",
      { include: ["*.png"], exclude: ["2.*", "1.png"] },
      6,
    ],
    ["all if no file matches", { include: ["*.tiff"] }, 6],
    ["none in folders that are left out", { exclude: ["visible", "a"] }, 0],
    ["those outside included folders", { include: ["visible/"] }, 4],
  ];
  for (const [what, filter, leftOut] of counted) {
    test(`a walk counts the files that patterns leave out: ${what}`, () => {
      // Files that are always ignored are not counted.
      const folder = folderWith(...paths, ".hidden.png", "a.tmp", "b.part", ".git/1.png");
      expect(walkOne(folder, filter).filteredOut).toBe(leftOut);
    });
  }

  test("an include pattern does not bring back hidden and unfinished files", () => {
    const folder = folderWith(".hidden.png", "a.tmp", "b.part", ".git/1.png");
    expect(listed(walkOne(folder, { include: ["*", ".*", "**", ".git/**"] }))).toEqual([]);
  });

  test("a walk does not report links that a pattern leaves out", () => {
    const folder = folderWith("1.png");
    symlinkSync("1.png", join(folder, "latest.png"));
    expect(walkOne(folder, { exclude: ["latest.png"] }).skipped).toEqual([]);
    expect(walkOne(folder, { include: ["*.jpg"] }).skipped).toEqual([]);
  });
});

describe("names of streams and sources", () => {
  const planned = async (paths: string[], options: PlanOptions) => {
    const { stream, sources } = await plan(paths, options, 0);
    return [stream, ...sources.map(({ name }) => name)];
  };

  test("a stream is named after the one directory, and a source after its path below it", async () => {
    const folder = folderWith("1.png", "visible/1.png", "a/b/1.png");
    expect(await planned([folder], {})).toEqual(["run7", "run7", "a/b", "visible"]);
    expect(await planned([`${folder}/`], {})).toEqual(["run7", "run7", "a/b", "visible"]);
  });

  test("a subfolder named like its directory is the source DIRECTORY/SUBFOLDER", async () => {
    const folder = folderWith("1.png", "run7/2.png", "a/run7/3.png");
    expect(await planned([folder], {})).toEqual(["run7", "run7", "a/run7", "run7/run7"]);
    expect(await planned([folder], { stream: "s" })).toEqual(["s", "run7", "a/run7", "run7/run7"]);
    expect(listed(walkOne(folder))).toEqual(["run7: 1.png", "a/run7: 3.png", "run7/run7: 2.png"]);
    // Also if the directory itself has no frames.
    const empty = folderWith("run7/1.png");
    expect(await planned([empty], {})).toEqual(["run7", "run7/run7"]);
    expect(await planned([empty], { source: ["cam"] })).toEqual(["run7", "cam/run7"]);
    // A folder named like the source counts as a sub-folder of it.
    const named = folderWith("1.png", "cam/1.png");
    expect(await planned([named], { source: ["cam"] })).toEqual(["run7", "cam", "cam/cam"]);
  });

  test("nested folders of the same name are different sources", async () => {
    const folder = folderWith("1.png", "run7/1.png", "run7/run7/1.png", "run7/a/1.png");
    const [stream, ...sources] = await planned([folder], {});
    expect(stream).toBe("run7");
    expect(sources.slice(0, 2)).toEqual(["run7", "run7/run7"]);
    expect(new Set(sources).size).toBe(4);
  });

  test("another stream name does not change the names of sources", async () => {
    const folder = folderWith("1.png", "visible/1.png");
    expect(await planned([folder], { stream: "night" })).toEqual(["night", "run7", "visible"]);
  });

  test("a source name replaces the directory's name, and prefixes the names of its subfolders", async () => {
    const folder = folderWith("1.png", "left/1.png");
    expect(await planned([folder], { source: ["cam"] })).toEqual(["run7", "cam", "cam/left"]);
    expect(await planned([folder], { source: "cam" })).toEqual(["run7", "cam", "cam/left"]);
  });

  test("with several directories each source name begins with its directory's name", async () => {
    const [one, other] = [folderWith("visible/1.png", "a/2.png"), folderWith("1.png", "b/1.png")];
    const paths = [join(one, "visible"), join(one, "a"), `${other}/`];
    const expected = ["s", "visible", "a", "run7", "run7/b"];
    expect(await planned(paths, { stream: "s" })).toEqual(expected);
  });

  test("NAME=PATH names the source of a directory, and subfolders below that name", async () => {
    const folder = folderWith("1.png", "left/1.png", "a=b/1.png");
    const source = [`visible=${folder}/left`, `infrared=${folder}/a=b`];
    expect(await planned([], { source, stream: "s" })).toEqual(["s", "visible", "infrared"]);
    expect(await planned([folder], { source: [`x/y=${folder}`], stream: "s" })).toEqual([
      ...["s", "run7", "run7/a=b", "run7/left", "x/y", "x/y/a=b", "x/y/left"],
    ]);
    expect(await planned([], { source: [`visible=${folder}/left`] })).toEqual(["left", "visible"]);
  });

  const folder = folderWith("1.png", "visible/1.png", ".hidden/x/1.png");
  const wrong: [what: string, paths: string[], options: PlanOptions, said: string][] = [
    ["a plan without a directory", [], {}, "write frames send DIR"],
    [
      "a plan of several directories without a stream",
      [folder, `${folder}/visible`],
      {},
      "--stream",
    ],
    [
      "a plan with one source name for several directories",
      [folder, folder],
      { source: ["a"], stream: "s" },
      "NAME=PATH",
    ],
    [
      "a plan with several source names without paths",
      [folder],
      { source: ["a", "b"], stream: "s" },
      "NAME=PATH",
    ],
    ["a plan with the same directory twice", [folder, folder], { stream: "s" }, "both are"],
    [
      "a plan with the same source name twice",
      [],
      { source: [`a=${folder}`, `a=${folder}/visible`], stream: "s" },
      "both are the source a;",
    ],
    [
      "a plan with a source name that a subfolder of another has",
      [],
      { source: [`a=${folder}`, `a/visible=${folder}/visible`], stream: "s" },
      "both are the source a/visible;",
    ],
    ["a stream name with a slash", [folder], { stream: "a/b" }, "contains a slash"],
    ["a hidden directory as stream name", [`${folder}/.hidden`], {}, "begins with a dot"],
    [
      "a source name that leads out of the store",
      [folder],
      { source: ["../a"] },
      "begins with a dot",
    ],
    ["an empty source name before the =", [], { source: [`=${folder}`] }, "is empty"],
  ];
  for (const [what, paths, options, said] of wrong) {
    test(`${what} is a usage error that explains it`, async () => {
      const error = await rejection(plan(paths, options, 0));
      expect(error.code).toBe("usage");
      expect(error.message).toContain(said);
    });
  }

  test("the error about two directories with one name shows both and the option --source", async () => {
    const [one, other] = [folderWith("1.png"), folderWith("1.png")];
    const error = await rejection(plan([one, other], { stream: "s" }, 0));
    expect(error.message).toContain(one);
    expect(error.message).toContain(other);
    expect(error.message).toContain("--source NAME=PATH");
  });
});

describe("frames of a directory", () => {
  test("a frame has the name, size, time and bytes of its file", () => {
    const folder = folderWith("1.png");
    utimesSync(join(folder, "1.png"), 1_700_000_000.25, 1_700_000_000.25);
    const source = onlySource(folder);
    const frame = frameOf(source.next(false));
    expect(frame).toMatchObject({ name: "1.png", sequence: 1, size: 5, metadata: "" });
    expect(frame.captured).toBe(1_700_000_000_250_000_000n);
    expect(readWhole(frame).toString()).toBe("1.png");
    expect(source.next(false)).toBeUndefined();
    expect(source.next(false)).toBeUndefined();
    source.close();
  });

  test("an empty file is a frame of no bytes", async () => {
    const folder = folderWith();
    writeFileSync(join(folder, "a"), "");
    writeFileSync(join(folder, "b"), "");
    const source = onlySource(folder);
    expect(readWhole(frameOf(source.next(false)))).toHaveLength(0);
    expect(await readPieces(frameOf(source.next(false)))).toHaveLength(0);
    source.close();
  });

  for (const size of [1, 999_999, 1_000_001, (1 << 20) - 4, 1 << 20, 4 << 20, 9_000_001]) {
    test(`a file of ${size} bytes is read whole, at once and in pieces`, async () => {
      const folder = folderWith();
      const bytes = new Uint8Array(size);
      for (let at = 0; at < size; at += 4093) bytes[at] = at / 4093;
      writeFileSync(join(folder, "a"), bytes);
      writeFileSync(join(folder, "b"), bytes);
      const source = onlySource(folder);
      expect(readWhole(frameOf(source.next(false))).equals(bytes)).toBe(true);
      expect((await readPieces(frameOf(source.next(false)))).equals(bytes)).toBe(true);
      source.close();
    });
  }

  test("a frame keeps its number when a frame before it is lost", () => {
    const folder = folderWith("1", "2", "3");
    const source = onlySource(folder);
    rmSync(join(folder, "2"));
    expect(frameOf(source.next(false)).sequence).toBe(1);
    expect(lossOf(source.next(false))).toMatchObject({ first: 2, last: 2 });
    expect(frameOf(source.next(false)).sequence).toBe(3);
    source.close();
  });

  test.skipIf(!isLinux)(
    "a file whose name is not UTF-8 is lost with its number, and the next frame follows",
    () => {
      const folder = folderWith("a.png", "z.png");
      const name = Buffer.concat([
        Buffer.from(`${folder}/caf`),
        Buffer.from([0xe9]),
        Buffer.from(".png"),
      ]);
      writeFileSync(name, "coffee");
      const source = onlySource(folder);
      expect(source.total).toBe(3);
      expect(readWhole(frameOf(source.next(false))).toString()).toBe("a.png");
      const { error, first, what } = lossOf(source.next(false));
      expect(first).toBe(2);
      expect(what).toBe("caf\ufffd.png");
      expect(error.code).toBe("unreadable");
      expect(error.message).toBe("its name is not UTF-8; rename it");
      expect(readWhole(frameOf(source.next(false))).toString()).toBe("z.png");
      source.close();
    },
  );

  test.skipIf(!isLinux)("a folder whose name is not UTF-8 is reported as unreadable", () => {
    const folder = folderWith("1.png");
    const name = Buffer.concat([Buffer.from(`${folder}/caf`), Buffer.from([0xe9])]);
    mkdirSync(name);
    writeFileSync(Buffer.concat([name, Buffer.from("/1.png")]), "coffee");
    const found = walkOne(folder);
    expect(listed(found)).toEqual(["run7: 1.png"]);
    expect(found.unreadable).toEqual([
      { path: `${folder}/caf\ufffd`, why: "its name is not UTF-8; rename it" },
    ]);
  });
});

describe("files that were removed or replaced after the walk", () => {
  test("a file that was removed is lost as vanished", () => {
    const folder = folderWith("1.png", "2.png");
    const source = onlySource(folder);
    rmSync(join(folder, "1.png"));
    const { error, what } = lossOf(source.next(false));
    expect(error.code).toBe("vanished");
    expect(error.message).toBe("it was deleted before it was read");
    expect(what).toBe("1.png");
    expect(readWhole(frameOf(source.next(false))).toString()).toBe("2.png");
    source.close();
  });

  test("the files of a folder that was removed are lost as vanished", () => {
    const folder = folderWith("a/1.png", "a/2.png");
    const source = onlySource(folder);
    rmSync(join(folder, "a"), { recursive: true });
    for (const first of [1, 2]) {
      expect(lossOf(source.next(false))).toMatchObject({ first, error: { code: "vanished" } });
    }
    expect(source.next(false)).toBeUndefined();
  });

  for (const offered of [false, true]) {
    const how = offered ? "described" : "opened";
    test(`a file is lost when it is ${how} after a file replaced its folder`, () => {
      const folder = folderWith("a/1.png", "a/2.png");
      const { sources, skipped } = walkOne(folder);
      rmSync(join(folder, "a"), { recursive: true });
      writeFileSync(join(folder, "a"), "a file");
      for (const first of [1, 2]) {
        const { error, what, ...loss } = lossOf(sources[0]!.next(offered));
        expect([loss.first, what]).toEqual([first, `${first}.png`]);
        expect(["vanished", "unreadable"]).toContain(error.code);
        expect(error).toBeInstanceOf(FramesError);
      }
      expect([sources[0]!.next(offered), skipped]).toEqual([undefined, []]);
    });

    test.skipIf(mayReadAll)(
      `a file is lost when it is ${how} if its folder cannot be entered any more${mayReadAll ? " (skipped: root may)" : ""}`,
      () => {
        const folder = folderWith("a/1.png", "a/2.png");
        const { sources, skipped } = walkOne(folder);
        chmodSync(join(folder, "a"), 0);
        try {
          for (const first of [1, 2]) {
            const loss = lossOf(sources[0]!.next(offered));
            expect(loss).toMatchObject({ first, error: { code: "unreadable" } });
          }
          expect([sources[0]!.next(offered), skipped]).toEqual([undefined, []]);
        } finally {
          chmodSync(join(folder, "a"), 0o755);
        }
      },
    );
  }

  const replacements: [what: string, replace: (path: string) => void, kind: string][] = [
    ["a link to another file", (path) => symlinkSync("2.png", path), "a symbolic link"],
    ["a link that leads nowhere", (path) => symlinkSync("nowhere", path), "a symbolic link"],
    ["a named pipe", makeFifo, "a named pipe"],
    ["a folder", (path) => mkdirSync(path), ""],
  ];
  for (const [what, replace, kind] of replacements) {
    for (const offered of [false, true]) {
      const how = offered ? "described" : "opened";
      test(`a file replaced by ${what} gives no frame when it is ${how}, is reported, and does not block`, () => {
        const folder = folderWith("1.png", "2.png");
        const path = join(folder, "1.png");
        const { sources, skipped } = walkOne(folder);
        const source = sources[0]!;
        rmSync(path);
        replace(path);
        if (what === "a folder") {
          // A folder in place of a file means that frames are missing.
          expect(lossOf(source.next(offered))).toMatchObject({
            first: 1,
            what: "1.png",
            error: { code: "unreadable", message: "it is no longer a file" },
          });
        }
        const frame = frameOf(source.next(offered));
        expect(readWhole(frame).toString()).toBe("2.png");
        expect(source.next(offered)).toBeUndefined();
        expect(skipped).toEqual(what === "a folder" ? [] : [{ path, why: kind }]);
        // Other file types get no number and do not count.
        expect([frame.sequence, source.total]).toEqual(what === "a folder" ? [2, 2] : [1, 1]);
        source.close();
      });
    }

    test(`an opened file that becomes ${what} before it is read fails as changed`, () => {
      const folder = folderWith("1.png", "2.png");
      const source = onlySource(folder);
      const frame = frameOf(source.next(false));
      rmSync(join(folder, "1.png"));
      replace(join(folder, "1.png"));
      const error = refusal(() => frame.read(new Uint8Array(frame.size)));
      expect(error.code).toBe("changed");
      expect(lossOf(source.retry(frame, error)).error.code).toBe("unreadable");
      source.close();
    });
  }

  for (const [what, replace] of replacements) {
    test(`reading a large file in pieces fails without blocking if it becomes ${what}`, async () => {
      const folder = folderWith();
      const path = join(folder, "1.png");
      writeOld(path, new Uint8Array(large));
      const source = onlySource(folder);
      const frame = frameOf(source.next(false));
      rmSync(path);
      replace(path);
      // Opening a pipe for reading normally blocks until it has a writer.
      let waited = false;
      const rescue = setTimeout(() => {
        waited = true;
        if (what === "a named pipe")
          closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK));
      }, hangMs);
      let error: unknown;
      try {
        await readPieces(frame);
      } catch (caught) {
        error = caught;
      } finally {
        clearTimeout(rescue);
      }
      expect(waited).toBe(false);
      expect(error).toBeInstanceOf(FramesError);
      expect(["changed", "unreadable", "vanished"]).toContain((error as FramesError).code);
      expect(lossOf(source.retry(frame, error as FramesError)).error).toBeInstanceOf(FramesError);
      source.close();
    });
  }
});

describe("frames for an offer", () => {
  /** Creates a folder of frames older than any change, and its source. */
  function described(...names: string[]) {
    const folder = folderWith(...names);
    for (const name of names) writeOld(join(folder, name), `the old ${name}`);
    return { folder, source: onlySource(folder) };
  }

  test("an offered frame has the same fields and bytes as an opened one", () => {
    const { folder, source } = described("1.png", "2.png");
    const other = onlySource(folder);
    for (let index = 0; index < 2; index++) {
      const { name, sequence, captured, size, metadata } = frameOf(other.next(false));
      const frame = frameOf(source.next(true));
      expect(frame).toMatchObject({ name, sequence, captured, size, metadata });
      expect(readWhole(frame).toString()).toBe(`the old ${name}`);
    }
    other.close();
  });

  test("frames can be read again and in any order, offered or opened", async () => {
    const { source } = described("1", "2", "3", "4");
    const frames = [true, false, true, false].map((offered) => frameOf(source.next(offered)));
    for (const index of [3, 0, 2, 0, 1, 3]) {
      const frame = frames[index]!;
      expect(readWhole(frame).toString()).toBe(`the old ${frame.name}`);
      expect((await readPieces(frame)).toString()).toBe(`the old ${frame.name}`);
    }
    expect(source.next(true)).toBeUndefined();
    source.close();
  });

  test("a frame can be read while another read of it in pieces is open", async () => {
    const folder = folderWith();
    const bytes = new Uint8Array(large).fill(7);
    writeOld(join(folder, "1"), bytes);
    const frame = frameOf(onlySource(folder).next(true));
    const begun = frame.pieces();
    await begun.next();
    expect((await readPieces(frame)).equals(bytes)).toBe(true);
    await begun.return?.();
    expect(readWhole(frame).equals(bytes)).toBe(true);
  });

  test("a file that changes between offer and read fails as changed, and is read again by a retry", async () => {
    for (const isLarge of [false, true]) {
      const { folder, source } = described("1", "2");
      const path = join(folder, "1");
      if (isLarge) writeOld(path, new Uint8Array(large));
      const frame = frameOf(source.next(true));
      // The new content has the same time and size.
      writeOld(path, Buffer.alloc(frame.size, "new"));
      const read = isLarge ? readPieces(frame) : (async () => readWhole(frame))();
      const error = await read.catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "changed" });
      const again = frameOf(source.retry(frame, error as FramesError));
      expect(again.sequence).toBe(1);
      expect(readWhole(again).equals(Buffer.alloc(frame.size, "new"))).toBe(true);
      source.close();
    }
  });

  test("a file that is removed between offer and read is lost with its number", () => {
    const { folder, source } = described("1", "2");
    const frame = frameOf(source.next(true));
    rmSync(join(folder, "1"));
    const error = refusal(() => readWhole(frame));
    expect(error.code).toBe("vanished");
    expect(lossOf(source.retry(frame, error))).toMatchObject({ first: 1, last: 1, what: "1" });
    expect(frameOf(source.next(true)).sequence).toBe(2);
  });

  test.skipIf(!isLinux)("offered frames keep no file open", () => {
    const names = Array.from({ length: 300 }, (_, index) => `${index}`);
    const folder = folderWith(...names);
    const source = onlySource(folder);
    const frames: Frame[] = [];
    for (;;) {
      const item = source.next(true);
      if (item === undefined) break;
      frames.push(frameOf(item));
    }
    expect(openIn(folder)).toEqual([]);
    for (const frame of frames) expect(readWhole(frame).toString()).toBe(frame.name);
    expect(openIn(folder)).toEqual([]);
    expect(frames).toHaveLength(300);
  });
});

describe("removing delivered files", () => {
  /** Creates a file as a delivered frame, and its source. */
  function delivered(bytes: string | Uint8Array = "the old") {
    const folder = folderWith("2.png");
    const path = join(folder, "1.png");
    writeOld(path, bytes);
    const source = onlySource(folder);
    const frame = frameOf(source.next(true));
    return { folder, path, source, frame, crc: Bun.hash.crc32(bytes) };
  }

  /** Returns the code of the error with which `remove` fails. */
  async function kept(removing: Promise<unknown>): Promise<string> {
    const error = await removing.then(
      () => undefined,
      (caught: unknown) => caught,
    );
    if (!(error instanceof FramesError)) throw new Error(`it did not fail: ${String(error)}`);
    return error.code;
  }

  for (const [size, bytes] of [
    ["small", "the old"],
    ["large", new Uint8Array(large).fill(3)],
    ["empty", ""],
  ] as const) {
    test(`a delivered ${size} file is removed if it is unchanged, and no other file is`, async () => {
      const { folder, source, frame, crc } = delivered(bytes);
      await source.remove(frame, crc);
      expect(readdirSync(folder)).toEqual(["2.png"]);
      // The source continues.
      expect(readWhole(frameOf(source.next(true))).toString()).toBe("2.png");
    });
  }

  const changes: [string, (path: string) => void, string][] = [
    ["other bytes of the same size and time", (path) => writeOld(path, "the new"), "changed"],
    ["more bytes", (path) => appendFileSync(path, "er"), "changed"],
    ["another time", (path) => utimesSync(path, 1_000_000_001, 1_000_000_001), "changed"],
    [
      "a link to its copy in its place",
      (path) => (renameSync(path, `${path}.tmp`), symlinkSync(`${path}.tmp`, path)),
      "unreadable",
    ],
    ["a folder in its place", (path) => (rmSync(path), mkdirSync(path)), "unreadable"],
  ];
  for (const [what, change, code] of changes) {
    test(`a delivered file is not removed if it now has ${what}`, async () => {
      const { path, folder, source, frame, crc } = delivered();
      change(path);
      const before = readdirSync(folder);
      expect(await kept(source.remove(frame, crc))).toBe(code);
      expect(readdirSync(folder)).toEqual(before);
    });
  }

  const writers: [what: string, program: string][] = [
    ["appends to it", "exec 3>>$0"],
    ["has it open to read and write", "exec 3<>$0"],
    ["opened it twice and closed it once", "exec 3>>$0 4>>$0 3>&-"],
  ];
  for (const [what, program] of writers) {
    test.skipIf(!isLinux)(`a delivered file stays while another process ${what}`, async () => {
      const { path, source, frame, crc } = delivered();
      const script = `${program}; echo open; read line`;
      const writer = Bun.spawn(["bash", "-c", script, path], { stdin: "pipe", stdout: "pipe" });
      for await (const _ of writer.stdout) break;
      expect(await source.remove(frame, crc)).toMatchObject({ error: { code: "changed" } });
      expect(await Bun.file(path).text()).toBe("the old");
      writer.stdin.end();
      await writer.exited;
      expect(await source.remove(frame, crc)).toBe("removed");
    });
  }

  test.skipIf(!isLinux)(
    "a process that opens a file under a lease waits until it is closed",
    async () => {
      const { path } = delivered();
      const file = openSync(path, "r");
      expect(fileWriters.takeLease(file, path)).toBe(true);
      // The signal of the lease must not end this process.
      const writer = Bun.spawn(["bash", "-c", 'echo " and new" >>$0', path]);
      const signalled = Promise.withResolvers<void>();
      process.once("SIGIO", () => signalled.resolve());
      await within(signalled.promise, () => "no signal came");
      closeSync(file);
      await writer.exited;
      expect(await Bun.file(path).text()).toBe("the old and new\n");
    },
  );

  test.skipIf(!isLinux)("a file that is open for writing gets no lease", () => {
    const { path } = delivered();
    const [file, writer] = [openSync(path, "r"), openSync(path, "a")];
    expect(fileWriters.takeLease(file, path)).toBe(false);
    closeSync(writer);
    expect(fileWriters.takeLease(file, path)).toBe(true);
    closeSync(file);
  });

  test("where there are no leases, a fresh file is removed 30 s after the first try", async () => {
    using clock = new StoppedClock();
    const lease = spyOn(fileWriters, "takeLease").mockReturnValue(undefined);
    try {
      const { source, frame, crc } = delivered();
      expect(await source.remove(frame, crc)).toMatchObject({ delayMs: 30_000 });
      clock.pass(20_000);
      expect(await source.remove(frame, crc)).toMatchObject({ delayMs: 10_000 });
      clock.pass(10_000);
      expect(await source.remove(frame, crc)).toBe("removed");
    } finally {
      lease.mockRestore();
    }
  });

  test("a delivered file is not removed if the server has other bytes", async () => {
    const { path, source, frame, crc } = delivered();
    expect(await kept(source.remove(frame, crc ^ 1))).toBe("changed");
    expect(await Bun.file(path).text()).toBe("the old");
  });

  test("removing a delivered file that is already gone fails as vanished", async () => {
    const { path, source, frame, crc } = delivered();
    rmSync(path);
    expect(await kept(source.remove(frame, crc))).toBe("vanished");
  });

  test.skipIf(!isLinux)(
    "removing a delivered file leaves no file open, also if it fails",
    async () => {
      const { path, source, frame, crc } = delivered(new Uint8Array(large));
      await kept(source.remove(frame, crc ^ 1));
      await source.remove(frame, crc);
      await kept(source.remove(frame, crc));
      expect(await Bun.file(path).exists()).toBe(false);
      await until("the last to be closed", () => openIn(dirname(path)).length === 0);
    },
  );
});

describe("times that cannot be capture times", () => {
  const cases = [
    ["1601-01-01T00:00:00Z", -(2n ** 63n)],
    ["1677-09-21T00:12:43Z", -(2n ** 63n)],
    ["2262-04-11T23:47:16Z", 9223372036000000000n],
    ["2262-04-11T23:47:17Z", 2n ** 63n - 1n],
    ["9999-12-31T23:59:59Z", 2n ** 63n - 1n],
  ] as const;
  for (const [time, captured] of cases) {
    test.skipIf(!isLinux)(`a file of ${time} is sent with the nearest capture time`, () => {
      const folder = temporaryFolder();
      const path = join(folder, "a");
      writeFileSync(path, "bytes");
      Bun.spawnSync(["touch", "-d", time, path]);
      const clamped: string[] = [];
      const { sources } = walk([createRoot(folder, "run7", false)], everything, (event) => {
        if (event.type === "time-clamped") clamped.push(event.path);
      });
      const frame = sources[0]!.next(true) as Frame;
      expect(frame.captured).toBe(captured);
      expect(clamped).toEqual(time.startsWith("2262-04-11T23:47:16") ? [] : [path]);
      expect(readWhole(frame).toString()).toBe("bytes");
    });
  }
});

describe("files that change while they are read", () => {
  const changes: [string, (path: string) => void][] = [
    ["other bytes", (path) => writeFileSync(path, "new-one")],
    ["more bytes", (path) => appendFileSync(path, "and more")],
    ["fewer bytes", (path) => truncateSync(path, 3)],
    ["no bytes", (path) => truncateSync(path, 0)],
    [
      "other bytes with its old time",
      (path) => {
        writeFileSync(path, "new-one");
        utimesSync(path, 1_000_000_000, 1_000_000_000);
      },
    ],
    [
      "the bytes of another file in its place",
      (path) => {
        writeOld(`${path}.tmp`, "new-one");
        renameSync(`${path}.tmp`, path);
      },
    ],
  ];
  for (const [what, change] of changes) {
    test(`a file changed to ${what} is read again, with its new bytes`, async () => {
      const folder = folderWith();
      const path = join(folder, "1.png");
      writeOld(path, "the-old");
      const source = onlySource(folder);
      const frame = frameOf(source.next(false));
      change(path);
      const error = refusal(() => frame.read(new Uint8Array(frame.size)));
      expect(error.code).toBe("changed");
      const again = frameOf(source.retry(frame, error));
      expect(again).toMatchObject({ name: "1.png", sequence: 1 });
      expect(readWhole(again)).toEqual(Buffer.from(await Bun.file(path).bytes()));
      expect(source.next(false)).toBeUndefined();
      source.close();
    });
  }

  test("a file that keeps changing is lost as changed after three attempts", () => {
    const folder = folderWith("1.png", "2.png");
    const source = onlySource(folder);
    let item: Item = source.next(false);
    let attempts = 0;
    while (isFrame(item)) {
      attempts++;
      appendFileSync(join(folder, "1.png"), "more");
      const frame = item;
      item = source.retry(
        frame,
        refusal(() => frame.read(new Uint8Array(frame.size))),
      );
    }
    expect(attempts).toBe(3);
    const { error, first, last, what } = lossOf(item);
    expect([first, last, what]).toEqual([1, 1, "1.png"]);
    expect(error.code).toBe("changed");
    expect(error.message).toBe("it kept changing while it was read");
    expect(readWhole(frameOf(source.next(false))).toString()).toBe("2.png");
    source.close();
  });

  test("a file has three attempts, independent of the frames before it", () => {
    const folder = folderWith("1.png", "2.png");
    const source = onlySource(folder);
    for (const name of ["1.png", "2.png"]) {
      let frame = frameOf(source.next(false));
      for (let attempt = 1; attempt <= 2; attempt++) {
        appendFileSync(join(folder, name), "more");
        const error = refusal(() => frame.read(new Uint8Array(frame.size)));
        frame = frameOf(source.retry(frame, error));
      }
      expect(readWhole(frame).toString()).toBe(`${name}moremore`);
    }
    source.close();
  });

  const spoilings: [string, (path: string) => void][] = [
    ["shrinks by a byte", (path) => truncateSync(path, large - 1)],
    ["shrinks to its first pieces", (path) => truncateSync(path, 2 * ((1 << 20) - 4))],
    ["shrinks to nothing", (path) => truncateSync(path, 0)],
    ["grows", (path) => appendFileSync(path, "x")],
    ["is removed", (path) => rmSync(path)],
    [
      "changes by a byte that was already read",
      (path) => {
        const file = openSync(path, "r+");
        writeSync(file, "x", 0);
        closeSync(file);
      },
    ],
  ];
  for (const [what, spoil] of spoilings) {
    test(`a large file is never read to its end if it ${what} before the first piece`, async () => {
      const folder = folderWith();
      const path = join(folder, "1.png");
      writeOld(path, new Uint8Array(large));
      const source = onlySource(folder);
      const frame = frameOf(source.next(false));
      spoil(path);
      const got: number[] = [];
      let error: unknown;
      try {
        for await (const piece of { [Symbol.asyncIterator]: () => frame.pieces() }) {
          got.push(piece.length);
        }
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect((error as FramesError).code).toBe(what === "is removed" ? "vanished" : "changed");
      expect(got.reduce((sum, length) => sum + length, 0)).toBeLessThan(large);
      source.close();
    });

    test(`a large file is never read to its end if it ${what} between two pieces`, async () => {
      const folder = folderWith();
      const path = join(folder, "1.png");
      writeOld(path, new Uint8Array(3 * large));
      const source = onlySource(folder);
      const frame = frameOf(source.next(false));
      const pieces = frame.pieces();
      let got = (await pieces.next()).value!.length;
      spoil(path);
      let error: unknown;
      try {
        for (;;) {
          const { done, value } = await pieces.next();
          if (done === true) break;
          got += value.length;
        }
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect(["changed", "vanished"]).toContain((error as FramesError).code);
      expect(got).toBeLessThan(3 * large);
      source.close();
    });
  }

  test("a large file that changed is read whole by a retry", async () => {
    const folder = folderWith();
    const path = join(folder, "1.png");
    writeOld(path, new Uint8Array(large));
    const source = onlySource(folder);
    const frame = frameOf(source.next(false));
    const bytes = new Uint8Array(large + 5).fill(7);
    writeFileSync(path, bytes);
    const error = await readPieces(frame).catch((caught: unknown) => caught);
    const again = frameOf(source.retry(frame, error as FramesError));
    expect(again.size).toBe(large + 5);
    expect((await readPieces(again)).equals(bytes)).toBe(true);
    source.close();
  });

  test("reading a large file that was removed fails as vanished", () => {
    const folder = folderWith();
    const path = join(folder, "1.png");
    writeOld(path, new Uint8Array(large));
    const source = onlySource(folder);
    const frame = frameOf(source.next(false));
    rmSync(path);
    expect(refusal(() => frame.read(new Uint8Array(large))).code).toBe("vanished");
    source.close();
  });
});

describe("concurrent reads of large frames", () => {
  /** Returns file content that is unique at every offset. */
  function patternOf(file: number, size: number): Uint8Array {
    const words = new Uint32Array(size >> 2);
    for (let index = 0; index < words.length; index++) words[index] = (file << 24) + index;
    return new Uint8Array(words.buffer);
  }

  test("concurrent reads of large frames give the right bytes, although other reads are cancelled", async () => {
    const perSource = 12;
    const names = ["a", "b", "c", "d"];
    const folder = folderWith();
    const content = new Map<string, Uint8Array>();
    for (const [index, name] of names.entries()) {
      mkdirSync(join(folder, name));
      for (let file = 0; file < perSource; file++) {
        const bytes = patternOf(index * perSource + file, large + 400 * file);
        content.set(`${name}/${file}`, bytes);
        writeFileSync(join(folder, name, String(file)), bytes);
      }
    }
    let whole = 0;
    const send = async (source: WalkResult["sources"][number], turn: number): Promise<void> => {
      for (let file = 0; file < perSource; file++) {
        const frame = frameOf(source.next(false));
        const path = `${source.name}/${frame.name}`;
        if ((file + turn) % 2 === 0) {
          const bytes = await readPieces(frame);
          expect([path, bytes.equals(content.get(path)!)]).toEqual([path, true]);
          whole++;
          continue;
        }
        // Cancelled while its next piece is being read, without waiting.
        const pieces = frame.pieces();
        const { value } = await pieces.next();
        expect(Buffer.compare(value!, content.get(path)!.subarray(0, value!.length))).toBe(0);
        void pieces.return?.();
      }
      source.close();
    };
    const rounds = 4;
    for (let round = 0; round < rounds; round++) {
      const { sources } = walkOne(folder);
      expect(sources).toHaveLength(names.length);
      await Promise.all(sources.map((source, turn) => send(source, turn + round)));
    }
    expect(whole).toBe((rounds * names.length * perSource) / 2);
    // Files of cancelled reads are closed too, possibly later.
    if (isLinux) await until("the last to be closed", () => openIn(folder).length === 0);
  });
});

describe.skipIf(!isLinux)("open files of a directory source", () => {
  /** Reads a folder so that frames end in every possible way. */
  async function useAll(): Promise<string> {
    const names = Array.from({ length: 40 }, (_, index) => `${index}`);
    const folder = folderWith(...names);
    for (const name of ["8", "9"]) writeOld(join(folder, name), new Uint8Array(large));
    const source = onlySource(folder);
    rmSync(join(folder, "3"));
    rmSync(join(folder, "4"));
    makeFifo(join(folder, "4"));
    for (;;) {
      const item = source.next(false);
      if (item === undefined) break;
      if (!isFrame(item)) continue;
      if (item.size > 100) {
        const pieces = item.pieces();
        await pieces.next();
        // One is read to its end, the other cancelled.
        if (item.name === "8") await pieces.return?.();
        else while (!(await pieces.next()).done);
      } else if (item.sequence % 3 === 0) {
        appendFileSync(join(folder, item.name), "more");
        const error = refusal(() => item.read(new Uint8Array(item.size)));
        const again = source.retry(item, error);
        if (isFrame(again)) readWhole(again);
      } else readWhole(item);
    }
    source.close();
    return folder;
  }

  test("a source closes the files of frames with every outcome", async () => {
    const folder = await useAll();
    await until("the last to be closed", () => openIn(folder).length === 0);
  });

  test("closing a source closes the file of a frame that was not read", () => {
    const folder = folderWith("1", "2");
    const source = onlySource(folder);
    frameOf(source.next(false));
    expect(openIn(folder)).toEqual([join(folder, "1")]);
    source.close();
    expect(openIn(folder)).toEqual([]);
  });

  test("a source closes the files of frames that are skipped unread", () => {
    const folder = folderWith(...Array.from({ length: 40 }, (_, index) => `${index}`));
    const source = onlySource(folder);
    while (source.next(false) !== undefined);
    source.close();
    expect(openIn(folder)).toEqual([]);
  });

  test("a source keeps no large file open before it is read", () => {
    const folder = folderWith();
    for (let index = 0; index < 20; index++) {
      mkdirSync(join(folder, `${index}`));
      const file = openSync(join(folder, `${index}/1`), "w");
      closeSync(file);
      truncateSync(join(folder, `${index}/1`), large);
    }
    const { sources } = walkOne(folder);
    for (const source of sources) frameOf(source.next(false));
    expect(openIn(folder)).toEqual([]);
    for (const source of sources) source.close();
  });
});

// An unprivileged process, because nothing is unreadable to root.

const foldersOpenToAll: string[] = [];

/** Creates a folder of this name that every user can enter. */
function openToAll(name: string): string {
  const room = mkdtempSync(join(tmpdir(), "frames-source-"));
  foldersOpenToAll.push(room);
  chmodSync(room, 0o755);
  const folder = join(room, name);
  mkdirSync(folder);
  chmodSync(folder, 0o755);
  return folder;
}

afterAll(() => {
  for (const folder of foldersOpenToAll) {
    Bun.spawnSync(["chmod", "-R", "u+rwx", folder]);
    rmSync(folder, { recursive: true, force: true });
  }
});

/** Runs a program as an unprivileged user and returns its output. */
async function asNobody(program: string): Promise<string> {
  const path = JSON.stringify(join(import.meta.dir, "../../../src/source/files/walk.ts"));
  const whole = `
    import { createRoot, walk } from ${path};
    if (process.getuid?.() === 0) {
      process.setgid(65534);
      process.setuid(65534);
    }
    ${program}`;
  const child = Bun.spawn([process.execPath, "-e", whole], {
    ...{ env: environment(), stdin: "ignore", stdout: "pipe", stderr: "inherit" },
  });
  const text = await new Response(child.stdout).text();
  expect(await child.exited).toBe(0);
  return text.trim();
}

describe.skipIf(process.platform === "win32")("a process that may open few files", () => {
  /** Reads one frame of each of 300 sources of a process that may open 100 files. */
  async function readAll(size: number, before = ""): Promise<string> {
    const folder = folderWith();
    for (let index = 0; index < 300; index++) {
      mkdirSync(join(folder, `${index}`));
      writeFileSync(join(folder, `${index}/1.bin`), new Uint8Array(size));
    }
    const from = (path: string) => JSON.stringify(join(import.meta.dir, "../../../src", path));
    const program = `
      import { openSync, closeSync } from "node:fs";
      import { createRoot, walk } from ${from("source/files/walk.ts")};
      const root = createRoot(${JSON.stringify(folder)}, undefined, false);
      const { sources } = walk([root], { include: [], exclude: [] });
      let frames = sources.map((source) => source.next(false));
      const others = [];
      ${before}
      let count = 0;
      for (const frame of frames) {
        if ("error" in frame) throw frame.error;
        frame.read(new Uint8Array(frame.size));
        count++;
      }
      console.log(count);`;
    const command = ["sh", "-c", 'ulimit -n 100 && exec "$0" -e "$1"', process.execPath, program];
    const child = Bun.spawn(command, { env: environment(), stdout: "pipe", stderr: "pipe" });
    const text = await new Response(child.stdout).text();
    return text.trim() || (await new Response(child.stderr).text());
  }

  for (const size of [0, 1, 500_000]) {
    test(`it reads every frame of 300 sources with frames of ${size} bytes`, async () => {
      expect(await readAll(size)).toBe("300");
    });
  }

  test("it reads every frame although something else has all other files open", async () => {
    const others = `
      try { for (;;) others.push(openSync("/dev/null", "r")); } catch {}
      frames = sources.map((source, index) => frames[index]);`;
    expect(await readAll(10, others)).toBe("300");
  });

  test("a file that was closed while it waited, and was changed since, is not read as the same frame", async () => {
    const change = `
      const { writeFileSync } = await import("node:fs");
      writeFileSync(${"`${sources[0].path}/1.bin`"}, "other");
      let code;
      try { frames[0].read(new Uint8Array(frames[0].size)); } catch (error) { code = error.code; }
      if (code !== "changed") throw new Error("code " + code);
      frames = frames.slice(1);`;
    expect(await readAll(10, change)).toBe("299");
  });
});
