// Rules of the code that a reader cannot see at a glance: layout, imports, names and words.
//
// Covers: errors.ts

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { errors, type ErrorName } from "../src/errors.ts";

const root = join(import.meta.dir, "..");
const source = join(root, "src");

interface SourceFile {
  /** Path below `src`. */
  readonly path: string;
  readonly text: string;
  /** `text` without comments and without quoted text. */
  readonly code: string;
  /** Imports: paths below `src`, or names of modules. */
  readonly imports: readonly string[];
}

const scanner = new Bun.Transpiler({ loader: "ts" });

function readSource(path: string): SourceFile {
  const text = readFileSync(join(source, path), "utf8");
  const named = text.matchAll(/^(?:import|export)\b[^;"]*?from\s+"([^"]+)"|^import\s+"([^"]+)"/gm);
  const found = [...named].map((match) => (match[1] ?? match[2])!);
  // A module that is loaded at run time is imported as well.
  for (const [, name] of text.matchAll(/\b(?:import|require)\(\s*"([^"]+)"/g)) found.push(name!);
  // The pattern must miss no import that a compiler sees.
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

function pathsBelow(folder: string, ending: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(ending))
    .sort();
}

const files = pathsBelow(source, ".ts").map(readSource);
const tests = pathsBelow(join(root, "test"), ".ts").map((path) => ({
  path,
  text: readFileSync(join(root, "test", path), "utf8"),
}));

/** First component of a path below `src`: a folder, or a file at the top. */
function part(path: string): string {
  return path.split("/")[0]!;
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

const isModule = (name: string): boolean => !/\.(?:ts|html|md)$/.test(name);

/** Folders and files at the top of `src`, lowest layer first. A layer imports lower layers only. */
const layers = [
  ["safe-text.ts", "version.ts"],
  ["errors.ts"],
  ["frame.ts"],
  ["common"],
  ["wire", "mcap", "video"],
  ["auth", "source", "store"],
  ["keys", "net", "protocol", "http"],
  ["client", "server"],
  ["cli", "mod.ts"],
  ["main.ts"],
];

/**
 * The same inside the large folders. An entry is a subfolder, a file, or `*` for the other files
 * directly in the folder.
 */
const innerLayers: Record<string, string[][]> = {
  http: [
    ["*"],
    ["auth"],
    ["live"],
    ["picture"],
    ["context.ts"],
    ["page"],
    ["routes"],
    ["http-server.ts"],
  ],
  protocol: [["*"], ["send", "receive"], ["playback", "article"]],
  source: [["*"], ["image"], ["live"], ["files", "media"], ["recording"]],
  store: [["*"], ["journal"], ["directory", "bucket"], ["verify"]],
  "store/bucket": [["response-body.ts"], ["credentials"], ["*"]],
  client: [["plan"], ["*"], ["article"]],
  server: [["playback"], ["*"]],
  cli: [["help"], ["args"], ["output"], ["bench", "python"], ["*"]],
};

/** Imports that do not lead to a lower layer. Inside one entry of a layer every import is allowed. */
function upwardImports(order: readonly string[][], folder: string): string[] {
  const entryOf = (path: string): string => {
    const first = path.slice(folder.length).split("/")[0]!;
    return order.flat().includes(first) ? first : "*";
  };
  const layerOf = (entry: string): number => order.findIndex((layer) => layer.includes(entry));
  return files
    .filter(({ path }) => path.startsWith(folder))
    .flatMap(({ path, imports }) => {
      const from = entryOf(path);
      return imports
        .filter((imported) => !isModule(imported) && !imported.startsWith(".."))
        .filter((imported) => imported.startsWith(folder))
        .filter((imported) => {
          const to = entryOf(imported);
          return from !== to && layerOf(to) >= layerOf(from);
        })
        .map((imported) => `${path} -> ${imported}`);
    });
}

describe("imports", () => {
  test("all imported files exist", () => {
    expect(files.length).toBeGreaterThan(20);
    const known = new Set(files.map(({ path }) => path));
    const missing = wrongImports(files, (name) => /\.ts$/.test(name) && !known.has(name));
    expect(missing).toEqual([]);
    // The patterns below prove something only if they see these imports.
    const main = files.find(({ path }) => path === "main.ts")!;
    expect(main.imports).toEqual(expect.arrayContaining(["cli/args/arguments.ts", "errors.ts"]));
  });

  test("an import names a file with its extension, Bun, or a node: module", () => {
    // The pages of the manual and the Python module are text.
    const allowed =
      /\.ts$|^cli\/help\/[a-z-]+\.md$|^cli\/python\/frames\.py$|^node:[a-z_/]+$|^bun(?::[a-z]+)?$/;
    const strange = wrongImports(files, (name) => !allowed.test(name) || name.startsWith(".."));
    // The version is only in package.json, and the page is not a program.
    expect(strange).toEqual([
      "http/routes/page-files.ts -> http/page/index.html",
      "version.ts -> ../package.json",
    ]);
  });

  test("every file and folder at the top of src has its layer", () => {
    const top = [...new Set(files.map(({ path }) => part(path)))].sort();
    expect(top).toEqual(layers.flat().sort());
    expect(top.length).toBeLessThanOrEqual(20);
  });

  test("files and folders at the top of src import lower layers only", () => {
    expect(upwardImports(layers, "")).toEqual([]);
  });

  for (const [folder, order] of Object.entries(innerLayers)) {
    test(`files inside ${folder} import lower layers only`, () => {
      expect(upwardImports(order, `${folder}/`)).toEqual([]);
    });
  }

  test("every subfolder of a large folder has its layer", () => {
    const folders = new Set(
      files.map(({ path }) => dirname(path)).filter((folder) => folder.includes("/")),
    );
    const ordered = Object.entries(innerLayers).flatMap(([folder, order]) =>
      order.flat().map((name) => `${folder}/${name}`),
    );
    expect([...folders].filter((folder) => !ordered.includes(folder))).toEqual([]);
  });

  test("sources, stores and HTTP do not import the protocol, keys or sockets", () => {
    const peers = ["net", "protocol", "auth", "keys", "wire"];
    const apart = inPart("source", "store", "http");
    expect(wrongImports(apart, (name) => peers.includes(part(name)))).toEqual([]);
  });

  test("no imports are circular", () => {
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

describe("start", () => {
  /** Files of src and modules that are loaded with a file, and not only when they are needed. */
  function loadedWith(path: string): string[] {
    const loaded = new Set([path]);
    for (const file of loaded) {
      if (!file.endsWith(".ts")) continue;
      const text = readFileSync(join(source, file), "utf8");
      // Imports of types are not among these.
      for (const { path: used, kind } of scanner.scanImports(text)) {
        if (kind !== "import-statement") continue;
        loaded.add(used.startsWith(".") ? join(dirname(file), used) : used);
      }
    }
    return [...loaded];
  }

  test("the executable starts without the code of any command", () => {
    const folders = new Set(loadedWith("main.ts").map(dirname));
    expect([...folders].sort()).toEqual([".", "..", "auth", "cli/args", "cli/output", "common"]);
    expect(loadedWith("main.ts")).not.toContain("cli/args/help.ts");
  });

  test("frames send starts without the modules of Node.js that take long to load", () => {
    const slow = ["crypto", "net", "readline", "stream", "tls", "tty", "zlib"];
    const loaded = ["main.ts", "cli/send.ts"].flatMap(loadedWith);
    expect(loaded.length).toBeGreaterThan(80);
    expect(slow.map((name) => `node:${name}`).filter((name) => loaded.includes(name))).toEqual([]);
  });
});

describe("names", () => {
  /** Names that two files may export, with the reason. */
  const allowedTwice: Record<string, string> = {};

  test("no two files export the same name", () => {
    const owners = new Map<string, Set<string>>();
    const exported =
      /^export (?:abstract |async |declare )*(?:class|interface|type|function\*?|const|enum) ([\w$]+)/gm;
    for (const { path, text } of files) {
      for (const [, name] of text.matchAll(exported)) {
        owners.set(name!, (owners.get(name!) ?? new Set()).add(path));
      }
    }
    expect(owners.size).toBeGreaterThan(500);
    const twice = [...owners]
      .filter(([name, paths]) => paths.size > 1 && !Object.hasOwn(allowedTwice, name))
      .map(([name, paths]) => `${name}: ${[...paths].join(", ")}`);
    expect(twice).toEqual([]);
  });
});

describe("wording", () => {
  const words = /\b(?:whoever|nobody|somebody|those who)\b/i;

  test("comments name the actor, without whoever, nobody, somebody or those who", () => {
    const own = basename(import.meta.path);
    const all = [
      ...files.map(({ path, text }) => ({ path: `src/${path}`, text })),
      ...tests.map(({ path, text }) => ({ path: `test/${path}`, text })),
    ].filter(({ path }) => !path.endsWith(own));
    const found = all.flatMap(({ path, text }) =>
      [...text.matchAll(/\/\*[^]*?\*\/|^\s*\/\/.*$|\s\/\/ .*$/gm)]
        .map(([comment]) => comment)
        .filter((comment) => words.test(comment))
        .map((comment) => `${path}: ${comment.trim()}`),
    );
    expect(found).toEqual([]);
  });

  test("titles of tests name the actor, without whoever, nobody, somebody or those who", () => {
    const own = basename(import.meta.path);
    const title =
      /\b(?:test|describe)(?:\.\w+(?:\([^)]*\))?)*\(\s*(?:"(?:[^"\\\n]|\\.)*"|`[^`]*`)/g;
    const found = tests
      .filter(({ path }) => !path.endsWith(own))
      .flatMap(({ path, text }) =>
        [...text.matchAll(title)]
          .map(([call]) => call)
          .filter((call) => words.test(call))
          .map((call) => `${path}: ${call.replace(/\s+/g, " ")}`),
      );
    expect(found).toEqual([]);
  });
});

describe("coverage", () => {
  test("every file of src is named by its own test or by the Covers line of a test", () => {
    const covered = new Set<string>();
    for (const { path, text } of tests) {
      covered.add(path.replace(/\.test\.ts$/, ".ts"));
      for (const [, list] of text.matchAll(/^\/\/ Covers: (.*(?:\n\/\/ {3}.*)*)/gm)) {
        for (const name of list!.replaceAll("//", " ").split(/[\s,]+/)) covered.add(name);
      }
    }
    const known = new Set(files.map(({ path }) => path));
    const named = [...covered].filter((name) => name.endsWith(".ts"));
    expect(named.length).toBeGreaterThan(100);
    expect(files.map(({ path }) => path).filter((path) => !covered.has(path))).toEqual([]);
    // A test that covers a file which is gone is out of date.
    const lists = tests.flatMap(({ text }) =>
      [...text.matchAll(/^\/\/ Covers: (.*(?:\n\/\/ {3}.*)*)/gm)].flatMap(([, list]) =>
        list!.replaceAll("//", " ").split(/[\s,]+/),
      ),
    );
    expect(lists.filter((name) => name !== "" && !known.has(name))).toEqual([]);
  });
});

describe("no I/O in wire, mcap, auth and protocol", () => {
  const pure = inPart("wire", "mcap", "auth", "protocol");

  test("wire, mcap, auth and protocol open no file and no socket", () => {
    const modules = /^node:(?!zlib$|crypto$|util$|buffer$)|^bun/;
    expect(wrongImports(pure, (name) => modules.test(name))).toEqual([]);
    expect(
      findings(
        pure,
        /\bBun\.(?!hash\b|CryptoHasher\b|Glob\b|zstdDecompressSync\b)|\bfetch\(|\bWebSocket\b/,
      ),
    ).toEqual([]);
  });

  test("wire, mcap, auth and protocol read no clock and start no timer", () => {
    const clock = /\bDate\.now\b|\bnew Date\(\)|\bperformance\b|\bprocess\.hrtime\b/;
    expect(findings(pure, clock)).toEqual([]);
    const timer = /\bset(?:Timeout|Interval|Immediate)\b|\bnextTick\b|\bBun\.sleep/;
    expect(findings(pure, timer)).toEqual([]);
  });

  test("wire, mcap, auth and protocol use no randomness, environment or console", () => {
    expect(
      findings(
        pure,
        /\bMath\.random\b|\brandom(?:UUID|Bytes|Int)\b|\bgetRandomValues\b|\bgenerateKey/,
      ),
    ).toEqual([]);
    expect(findings(pure, /\bprocess\b|\bconsole\b/)).toEqual([]);
  });
});

describe("process", () => {
  test("only main.ts ends the process", () => {
    const exits = /\bprocess\.(?:exit|exitCode|abort|kill|reallyExit)\b/;
    const others = files.filter(({ path }) => path !== "main.ts");
    expect(findings(others, exits)).toEqual([]);
    expect(findings(inPart("main.ts"), exits)).not.toEqual([]);
  });

  test("only net uses sockets", () => {
    const others = files.filter(({ path }) => part(path) !== "net");
    expect(wrongImports(others, (name) => /^node:(?:net|tls|dgram|http2?)$/.test(name))).toEqual(
      [],
    );
    expect(findings(others, /\bBun\.(?:connect|listen|udpSocket)\b/)).toEqual([]);
  });

  test("no file writes to the console", () => {
    expect(findings(files, /\bconsole\.\w+\(/)).toEqual([]);
  });
});

describe("error table", () => {
  const spec = readFileSync(join(source, "wire/SPEC.md"), "utf8");
  const section = spec.slice(spec.indexOf("## 11 "), spec.indexOf("## 12 "));
  const documented = new Map(
    [...section.matchAll(/^\| *(\d+) *\| *([a-z-]+) *\|/gm)].map(([, number, name]) => [
      name!,
      Number(number),
    ]),
  );

  test("the error table has the errors of section 11 of the SPEC, with the same numbers", () => {
    const travels = Object.entries(errors).filter(([, { wireCode: wire }]) => wire !== 0);
    expect(documented.size).toBeGreaterThan(10);
    const numbers = new Map<string, number>(
      travels.map(([name, { wireCode: wire }]) => [name, wire]),
    );
    expect(numbers).toEqual(documented);
  });

  test("the error table has no number twice, and only numbers below 64", () => {
    const numbers = Object.values(errors).flatMap(({ wireCode: wire }) =>
      wire === 0 ? [] : [wire],
    );
    expect(new Set<number>(numbers).size).toBe(numbers.length);
    for (const number of numbers) expect(number).toBeLessThan(64);
  });

  test("the error table has only errors that are thrown or that a peer may send", () => {
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

  test("the error table has the exit codes of rsync, and sentences without a full stop", () => {
    const codes = [1, 2, 5, 10, 11, 12, 20, 23, 24, 30, 35];
    for (const [name, { exitCode: exit, sentence }] of Object.entries(errors)) {
      expect([name, codes.includes(exit)]).toEqual([name, true]);
      expect(sentence).toMatch(/^[A-Z].*[^.]$/);
    }
  });

  test("no code decides by the text of an error message", () => {
    const decided = /\.message\.(?:includes|startsWith|endsWith|match|search)\b|\.message\s*={2,3}/;
    expect(findings(files, decided)).toEqual([]);
    expect(findings(files, /\.test\([a-z.]*\.message\)/)).toEqual([]);
  });
});

describe("files of src", () => {
  test("a file of src has at most 600 lines", () => {
    const long = files
      .map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 }))
      .filter(({ lines }) => lines > 600);
    expect(long).toEqual([]);
  });

  test("a file of src begins with a comment about its content", () => {
    const silent = files.filter(({ text }) => !/^\/\*\*/.test(text)).map(({ path }) => path);
    expect(silent).toEqual([]);
  });

  test("a file of src has no debugger statements, TODO comments or ignored type errors", () => {
    const debris =
      /\bdebugger\b|\b(?:TODO|FIXME|XXX)\b|@ts-(?:ignore|nocheck|expect-error)|\bas any\b/;
    const found = files.flatMap(({ path, text }) => (debris.test(text) ? [path] : []));
    expect(found).toEqual([]);
  });
});

test("the project has no dependencies except the types of Bun", () => {
  const text = readFileSync(join(root, "package.json"), "utf8");
  const { dependencies = {}, devDependencies = {} } = JSON.parse(text) as {
    dependencies?: Record<string, string>;
    devDependencies?: Record<string, string>;
  };
  expect(Object.keys(dependencies)).toEqual([]);
  expect(Object.keys(devDependencies)).toEqual(["bun-types"]);
});
