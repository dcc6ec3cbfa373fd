// The rules of the house that a reader cannot see at a glance.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { errors, type ErrorName } from "../src/errors.ts";

const root = join(import.meta.dir, "..");
const source = join(root, "src");

interface SourceFile {
  /** Path below `src`. */
  readonly path: string;
  readonly text: string;
  /** `text` without comments and without what stands in quotes. */
  readonly code: string;
  /** What it imports: paths below `src`, or names of modules. */
  readonly imports: readonly string[];
}

const scanner = new Bun.Transpiler({ loader: "ts" });

function readSource(path: string): SourceFile {
  const text = readFileSync(join(source, path), "utf8");
  const named = text.matchAll(/^(?:import|export)\b[^;"]*?from\s+"([^"]+)"|^import\s+"([^"]+)"/gm);
  const found = [...named].map((match) => (match[1] ?? match[2])!);
  // Whatever is loaded while it runs is imported as well.
  for (const [, name] of text.matchAll(/\b(?:import|require)\(\s*"([^"]+)"/g)) found.push(name!);
  // What a compiler sees must be among these: the pattern misses none that counts.
  for (const { path: used } of scanner.scanImports(text)) {
    if (!found.includes(used)) throw new Error(`${path} imports ${used} in a way not understood`);
  }
  const imports = found.map((name) =>
    name.startsWith(".") ? relative(source, join(source, dirname(path), name)) : name,
  );
  const code = text
    .replace(/\/\*[^]*?\*\//g, "")
    .replace(/^\s*\/\/.*$|\s\/\/ .*$/gm, "")
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
  return { path, text, code, imports };
}

const files = readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .sort()
  .map(readSource);

/** Folder of a path below `src`; what lies directly in it goes by its name. */
function part(path: string): string {
  return path.includes("/") ? path.split("/")[0]! : path;
}

function inPart(...parts: string[]): SourceFile[] {
  return files.filter(({ path }) => parts.includes(part(path)));
}

/** All imports of these files that `isWrong` finds, as `file -> import`. */
function wrongImports(
  within: readonly SourceFile[],
  isWrong: (imported: string) => boolean,
): string[] {
  return within.flatMap(({ path, imports }) =>
    imports.filter(isWrong).map((imported) => `${path} -> ${imported}`),
  );
}

function findings(within: readonly SourceFile[], pattern: RegExp): string[] {
  return within.flatMap(({ path, code }) =>
    code
      .split("\n")
      .filter((line) => pattern.test(line))
      .map((line) => `${path}: ${line.trim()}`),
  );
}

const isModule = (name: string): boolean => !/\.(?:ts|html)$/.test(name);

describe("imports", () => {
  test("are found in files that are there", () => {
    expect(files.length).toBeGreaterThan(20);
    const known = new Set(files.map(({ path }) => path));
    const missing = wrongImports(files, (name) => /\.ts$/.test(name) && !known.has(name));
    expect(missing).toEqual([]);
    // The patterns below are worth something only if these are seen at all.
    const main = files.find(({ path }) => path === "main.ts")!;
    expect(main.imports).toEqual(expect.arrayContaining(["cli/args/arguments.ts", "errors.ts"]));
  });

  test("are of files with their ending, of Bun, or of node: modules", () => {
    const allowed = /\.ts$|^node:[a-z_/]+$|^bun(?::[a-z]+)?$/;
    const strange = wrongImports(files, (name) => !allowed.test(name) || name.startsWith(".."));
    // The version stands in one place, and the page is not a program.
    expect(strange).toEqual([
      "version.ts -> ../package.json",
      "http/routes/page-files.ts -> http/page/index.html",
    ]);
  });

  test("run one way: wire <- auth <- session <- net <- cli", () => {
    const order = ["wire", "auth", "session", "net", "cli"];
    for (const [index, name] of order.entries()) {
      const above = order.slice(index + 1);
      expect(wrongImports(inPart(name), (imported) => above.includes(part(imported)))).toEqual([]);
    }
  });

  test("of the wire are of the wire, errors and frames alone", () => {
    const allowed = (name: string): boolean =>
      part(name) === "wire" || name === "errors.ts" || name === "frame.ts" || isModule(name);
    expect(wrongImports(inPart("wire"), (name) => !allowed(name))).toEqual([]);
  });

  test("of errors and frames are of no more than each other", () => {
    const shared = inPart("errors.ts", "frame.ts", "version.ts");
    const isOther = (name: string): boolean =>
      !["errors.ts", "frame.ts", "version.ts"].includes(name) && !isModule(name);
    expect(wrongImports(shared, isOther)).toEqual([]);
    expect(wrongImports(inPart("errors.ts", "frame.ts"), isModule)).toEqual([]);
  });

  test("of sources, stores and the viewer lead to no socket of a peer", () => {
    const peers = ["net", "session", "auth", "wire", "cli"];
    const apart = inPart("source", "store", "viewer");
    expect(wrongImports(apart, (name) => peers.includes(part(name)))).toEqual([]);
    expect(wrongImports(inPart("source"), (name) => part(name) === "store")).toEqual([]);
    expect(wrongImports(inPart("store"), (name) => part(name) === "source")).toEqual([]);
  });

  test("of what joins the parts are only in the command line and the library", () => {
    const front = ["send.ts", "serve.ts", "receive.ts", "viewing.ts", "mod.ts", "main.ts"];
    const joints = ["server", "client", ...front];
    expect(inPart(...joints).length).toBeGreaterThan(30);
    const below = files.filter(({ path }) => ![...joints, "cli"].includes(part(path)));
    expect(wrongImports(below, (name) => joints.includes(part(name)))).toEqual([]);
    const others = files.filter(({ path }) => path !== "main.ts" && part(path) !== "cli");
    expect(wrongImports(others, (name) => part(name) === "cli" || name === "main.ts")).toEqual([]);
  });

  test("of a server are of no client, and the other way round", () => {
    expect(wrongImports(inPart("server"), (name) => part(name) === "client")).toEqual([]);
    expect(wrongImports(inPart("client"), (name) => part(name) === "server")).toEqual([]);
  });

  test("go in no circle", () => {
    const byPath = new Map(files.map((file) => [file.path, file]));
    const circles: string[] = [];
    const done = new Set<string>();
    const visit = (path: string, way: readonly string[]): void => {
      if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path].join(" -> "));
      if (done.has(path) || way.includes(path)) return;
      for (const next of byPath.get(path)?.imports ?? []) visit(next, [...way, path]);
      done.add(path);
    };
    for (const { path } of files) visit(path, []);
    expect(circles).toEqual([]);
  });
});

describe("bytes, time and randomness come in as arguments:", () => {
  const pure = inPart("wire", "auth", "session");

  test("wire, auth and session open no file and no socket", () => {
    const modules = /^node:(?!zlib$|crypto$|util$|buffer$)|^bun/;
    expect(wrongImports(pure, (name) => modules.test(name))).toEqual([]);
    expect(
      findings(pure, /\bBun\.(?!hash\b|CryptoHasher\b|Glob\b)|\bfetch\(|\bWebSocket\b/),
    ).toEqual([]);
  });

  test("they read no clock and start no timer", () => {
    const clock = /\bDate\.now\b|\bnew Date\(\)|\bperformance\b|\bprocess\.hrtime\b/;
    expect(findings(pure, clock)).toEqual([]);
    const timer = /\bset(?:Timeout|Interval|Immediate)\b|\bnextTick\b|\bBun\.sleep/;
    expect(findings(pure, timer)).toEqual([]);
  });

  test("they make up nothing and ask no environment", () => {
    expect(
      findings(
        pure,
        /\bMath\.random\b|\brandom(?:UUID|Bytes|Int)\b|\bgetRandomValues\b|\bgenerateKey/,
      ),
    ).toEqual([]);
    expect(findings(pure, /\bprocess\b|\bconsole\b/)).toEqual([]);
  });
});

describe("the process", () => {
  test("ends in main.ts alone", () => {
    const exits = /\bprocess\.(?:exit|exitCode|abort|kill|reallyExit)\b/;
    const others = files.filter(({ path }) => path !== "main.ts");
    expect(findings(others, exits)).toEqual([]);
    expect(findings(inPart("main.ts"), exits)).not.toEqual([]);
  });

  test("has sockets in net alone", () => {
    const others = files.filter(({ path }) => part(path) !== "net");
    expect(wrongImports(others, (name) => /^node:(?:net|tls|dgram|http2?)$/.test(name))).toEqual(
      [],
    );
    expect(findings(others, /\bBun\.(?:connect|listen|udpSocket)\b/)).toEqual([]);
  });

  test("writes to nobody's console", () => {
    expect(findings(files, /\bconsole\.\w+\(/)).toEqual([]);
  });
});

describe("the table of errors", () => {
  const spec = readFileSync(join(source, "wire/SPEC.md"), "utf8");
  const section = spec.slice(spec.indexOf("## 11 "), spec.indexOf("## 12 "));
  const documented = new Map(
    [...section.matchAll(/^\| *(\d+) *\| *([a-z-]+) *\|/gm)].map(([, number, name]) => [
      name!,
      Number(number),
    ]),
  );

  test("has exactly what travels in section 11 of the SPEC, with the same numbers", () => {
    const travels = Object.entries(errors).filter(([, { wireCode: wire }]) => wire !== 0);
    expect(documented.size).toBeGreaterThan(10);
    const numbers = new Map<string, number>(
      travels.map(([name, { wireCode: wire }]) => [name, wire]),
    );
    expect(numbers).toEqual(documented);
  });

  test("has no number twice, and each within a range of the SPEC", () => {
    const numbers = Object.values(errors).flatMap(({ wireCode: wire }) =>
      wire === 0 ? [] : [wire],
    );
    expect(new Set<number>(numbers).size).toBe(numbers.length);
    for (const number of numbers) expect(number).toBeLessThan(64);
  });

  test("has only errors that are raised, or that a peer of ours may raise", () => {
    const raised = files
      .filter(({ path }) => path !== "errors.ts")
      .map(({ text }) => text)
      .join("\n");
    const names = Object.keys(errors) as ErrorName[];
    const idle = names.filter((name) => {
      if (documented.has(name)) return false;
      return !raised.includes(`"${name}"`) && !new RegExp(`\\berrors\\.${name}\\b`).test(raised);
    });
    expect(idle).toEqual([]);
  });

  test("has the exit codes of rsync, and sentences without a full stop", () => {
    const codes = [1, 2, 5, 10, 11, 12, 20, 23, 24, 30, 35];
    for (const [name, { exitCode: exit, sentence }] of Object.entries(errors)) {
      expect([name, codes.includes(exit)]).toEqual([name, true]);
      expect(sentence).toMatch(/^[A-Z].*[^.]$/);
    }
  });

  test("is the only judge: nothing is decided by the text of a message", () => {
    const decided = /\.message\.(?:includes|startsWith|endsWith|match|search)\b|\.message\s*={2,3}/;
    expect(findings(files, decided)).toEqual([]);
    expect(findings(files, /\.test\([a-z.]*\.message\)/)).toEqual([]);
  });
});

describe("a file", () => {
  test("has at most 450 lines", () => {
    const long = files
      .map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 }))
      .filter(({ lines }) => lines > 450);
    expect(long).toEqual([]);
  });

  test("begins by saying what it is", () => {
    const silent = files.filter(({ text }) => !/^\/\*\*/.test(text)).map(({ path }) => path);
    expect(silent).toEqual([]);
  });

  test("holds no debris", () => {
    const debris =
      /\bdebugger\b|\b(?:TODO|FIXME|XXX)\b|@ts-(?:ignore|nocheck|expect-error)|\bas any\b/;
    const found = files.flatMap(({ path, text }) => (debris.test(text) ? [path] : []));
    expect(found).toEqual([]);
  });
});

test("the project has no packages but the types of Bun", () => {
  const text = readFileSync(join(root, "package.json"), "utf8");
  const { dependencies = {}, devDependencies = {} } = JSON.parse(text) as {
    dependencies?: Record<string, string>;
    devDependencies?: Record<string, string>;
  };
  expect(Object.keys(dependencies)).toEqual([]);
  expect(Object.keys(devDependencies)).toEqual(["bun-types"]);
});
