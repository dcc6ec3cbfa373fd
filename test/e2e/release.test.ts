// The files of a release: executables for their platforms, archives, sums, notes, and install.sh.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Target, targets } from "../../.ci/build.ts";
import { archiveName, cutNotes, writeRelease } from "../../.ci/release.ts";
import { version } from "../../src/version.ts";
import { executable, peerMissing } from "../helper/program.ts";

const root = join(import.meta.dir, "../..");
const allTargets = Object.keys(targets) as Target[];

/** A folder that other users can read, unlike those of `temporaryFolder`. */
const folder = mkdtempSync(join(tmpdir(), "frames-release-"));
chmodSync(folder, 0o755);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the executable for", () => {
  const headers: Record<Target, string> = {
    "linux-x64": "ELF x64 /lib64/ld-linux-x86-64.so.2",
    "linux-arm64": "ELF arm64 /lib/ld-linux-aarch64.so.1",
    "linux-x64-musl": "ELF x64 /lib/ld-musl-x86_64.so.1",
    "linux-arm64-musl": "ELF arm64 /lib/ld-musl-aarch64.so.1",
    // macOS starts a program on Apple silicon only with a signature, and kills one with a wrong one.
    "darwin-arm64": "Mach-O arm64, code signature: ad hoc, matches",
    "darwin-x64": "Mach-O x64, code signature: none",
    "windows-x64": "PE x64",
    "windows-arm64": "PE arm64",
  };

  beforeAll(() => {
    const inputs = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
    const times = [".ci/build.ts", "package.json", ...inputs.map((name) => `src/${name}`)].map(
      (name) => statSync(join(root, name)).mtimeMs,
    );
    const newest = times.reduce((a, b) => Math.max(a, b));
    const missing = allTargets.filter((target) => {
      const path = join(root, "dist", targets[target]);
      return !existsSync(path) || statSync(path).mtimeMs < newest;
    });
    if (missing.length === 0) return;
    const built = spawnSync(process.execPath, [join(root, ".ci/build.ts"), ...missing]);
    expect([built.status, `${built.stderr}`]).toEqual([0, ""]);
  });

  for (const target of allTargets) {
    test(`${target} has the header of that platform`, () => {
      expect(describeHeader(readFileSync(join(root, "dist", targets[target])))).toBe(
        headers[target],
      );
    });
  }

  test("darwin-arm64 no longer matches its signature when a byte is changed", () => {
    const changed = readFileSync(join(root, "dist", targets["darwin-arm64"]));
    changed[changed.length >> 1]! ^= 1;
    expect(describeHeader(changed)).toBe("Mach-O arm64, code signature: ad hoc, does not match");
  });
});

/** Tells format, processor and C library from the header, and on a Mac what signature there is. */
function describeHeader(bytes: Buffer): string {
  if (bytes.readUInt32BE(0) === 0x7f454c46) {
    const processor = { 62: "x64", 183: "arm64" }[bytes.readUInt16LE(18)];
    const headers = Number(bytes.readBigUInt64LE(32));
    for (let index = 0; index < bytes.readUInt16LE(56); index++) {
      const at = headers + index * bytes.readUInt16LE(54);
      if (bytes.readUInt32LE(at) !== 3) continue;
      const start = Number(bytes.readBigUInt64LE(at + 8));
      return `ELF ${processor} ${bytes.toString("utf8", start, bytes.indexOf(0, start))}`;
    }
    return `ELF ${processor}`;
  }
  if (bytes.readUInt32LE(0) === 0xfeedfacf) {
    const processor = { 0x1000007: "x64", 0x100000c: "arm64" }[bytes.readUInt32LE(4)];
    return `Mach-O ${processor}, code signature: ${describeSignature(bytes)}`;
  }
  const at = bytes.readUInt32LE(0x3c);
  if (bytes.toString("latin1", 0, 2) === "MZ" && bytes.readUInt32BE(at) === 0x50450000) {
    return `PE ${{ 0x8664: "x64", 0xaa64: "arm64" }[bytes.readUInt16LE(at + 4)]}`;
  }
  return "unknown";
}

/** Tells whether there is LC_CODE_SIGNATURE, who signed, and whether each page has its hash. */
function describeSignature(bytes: Buffer): string {
  let signature: number | undefined;
  for (let at = 32, left = bytes.readUInt32LE(16); left > 0; left--) {
    if (bytes.readUInt32LE(at) === 0x1d) signature = bytes.readUInt32LE(at + 8);
    at += bytes.readUInt32LE(at + 4);
  }
  if (signature === undefined) return "none";
  // A list of blobs, of which the first is the CodeDirectory; its numbers are big-endian.
  const directory = signature + bytes.readUInt32BE(signature + 16);
  expect(bytes.readUInt32BE(directory)).toBe(0xfade0c02);
  const field = (index: number): number => bytes.readUInt32BE(directory + 4 * index);
  const [flags, hashes, pages, end] = [field(3), field(4), field(7), field(8)];
  const pageSize = 1 << bytes[directory + 39]!;
  let matches = end === signature;
  for (let page = 0; matches && page < pages; page++) {
    const part = bytes.subarray(page * pageSize, Math.min((page + 1) * pageSize, end));
    const at = directory + hashes + 32 * page;
    matches = bytes.subarray(at, at + 32).equals(Bun.SHA256.hash(part) as Uint8Array);
  }
  return `${(flags & 2) === 2 ? "ad hoc" : "by a developer"}, ${matches ? "matches" : "does not match"}`;
}

/** A release with scripts in the place of executables: each prints its platform. */
const release = join(folder, "release");
const lines = await makeRelease(release);

async function makeRelease(path: string, script = standIn): Promise<string[]> {
  const sources = mkdtempSync(join(folder, "executables-"));
  const paths = allTargets.map((target): [Target, string] => {
    const name = join(sources, targets[target]);
    writeFileSync(name, script(target));
    return [target, name];
  });
  return writeRelease(path, Object.fromEntries(paths));
}

function standIn(target: Target): string {
  return `#!/bin/sh\ntest "$1" = version && echo "frames ${version} for ${target}"\n`;
}

describe("a release", () => {
  test("has an archive for each platform, SHA256SUMS, install.sh and NOTES.md", () => {
    const names = [...allTargets.map(archiveName), "SHA256SUMS", "install.sh", "NOTES.md"];
    expect(readdirSync(release).sort()).toEqual(names.sort());
    expect(lines).toHaveLength(8);
    expect(lines[0]).toStartWith("dist/frames-linux-x64.tar.gz ");
  });

  test("has the SHA-256 sum of each archive", () => {
    const sums = readFileSync(join(release, "SHA256SUMS"), "utf8");
    const expected = allTargets.map((target) => {
      const bytes = readFileSync(join(release, archiveName(target)));
      return `${Bun.CryptoHasher.hash("sha256", bytes, "hex")}  ${archiveName(target)}\n`;
    });
    expect(sums).toBe(expected.join(""));
  });

  test("is the same bytes when it is made again", async () => {
    const again = join(folder, "again");
    await makeRelease(again);
    for (const name of readdirSync(release)) {
      expect([name, readFileSync(join(again, name)).equals(readFileSync(join(release, name)))]) //
        .toEqual([name, true]);
    }
  });

  const listing = peerMissing("python3") ? "skipped: needs python3: " : "";
  test.skipIf(listing !== "")(
    `${listing}has executable, LICENSE and README.md in each archive, whole and with their modes`,
    () => {
      const program = `
import sys, tarfile, zipfile
for path in sys.argv[1:]:
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            for entry in archive.infolist():
                print(entry.filename, oct(entry.external_attr >> 16), entry.date_time[0], entry.file_size)
    else:
        with tarfile.open(path) as archive:
            for entry in archive:
                print(entry.name, oct(entry.mode), entry.mtime, len(archive.extractfile(entry).read()))
`;
      const sizeOf = (name: string): number => statSync(join(root, name)).size;
      for (const target of allTargets) {
        const words = ["-c", program, join(release, archiveName(target))];
        const { stdout, stderr } = spawnSync("python3", words, { encoding: "utf8" });
        const [name, mode, time] = target.startsWith("windows")
          ? ["frames.exe", "0o100", 1980]
          : ["frames", "0o", Date.UTC(1980) / 1000];
        expect([stderr, ...stdout.trim().split("\n")]).toEqual([
          "",
          `${name} ${mode}755 ${time} ${standIn(target).length}`,
          `LICENSE ${mode}644 ${time} ${sizeOf("LICENSE")}`,
          `README.md ${mode}644 ${time} ${sizeOf("README.md")}`,
        ]);
      }
    },
  );

  test("has notes that are the section of this version", () => {
    const changelog = readFileSync(join(root, "CHANGELOG.md"), "utf8");
    const notes = readFileSync(join(release, "NOTES.md"), "utf8");
    expect(notes).toBe(cutNotes(changelog, version));
    expect(notes.length).toBeGreaterThan(200);
    expect(changelog).toContain(notes);
    expect(notes).not.toMatch(/^## /m);
    expect(cutNotes("# C\n\n## 2.0, today\n\n- a\n\n## 1.0\n\n- b\n", "2.0")).toBe("- a\n");
    expect(() => cutNotes("# C\n\n## 2.0.1\n\n- a\n", "2.0")).toThrow("does not begin with 2.0");
  });
});

const checked = peerMissing("shellcheck") ? "skipped: needs shellcheck: " : "";
test.skipIf(checked !== "")(`${checked}shellcheck finds no fault in install.sh`, () => {
  const { stdout } = spawnSync("shellcheck", [join(root, ".ci/install.sh")], { encoding: "utf8" });
  expect(stdout).toBe("");
});

/** What install.sh needs beside curl or wget. */
const tools = ["sh", "uname", "getconf", "ldd", "mkdir", "mktemp", "sed", "tr", "tar", "gzip"];
tools.push("sha256sum", "shasum", "chmod", "mv", "rm", "cp", "cat");

interface Installation {
  /** Default: the release. */
  readonly address?: string;
  readonly args?: readonly string[];
  /** Commands on PATH that are replaced by scripts. */
  readonly scripts?: Record<string, string>;
  /** Commands that are not on PATH. */
  readonly without?: readonly string[];
  readonly env?: Record<string, string>;
  /** Starts the shell; default: as a user who cannot write to /usr/local/bin. */
  readonly start?: readonly string[];
}

interface Installed {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly home: string;
  /** All files in the home folder afterwards. */
  readonly files: string[];
}

const isRoot = process.getuid?.() === 0;
const asUser = isRoot
  ? [Bun.which("setpriv") ?? "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
  : [];

/** Runs install.sh with a home folder and a PATH of its own. */
async function install(options: Installation = {}): Promise<Installed> {
  const { address = `file://${release}`, args = [address], start = asUser } = options;
  const place = mkdtempSync(join(folder, "run-"));
  chmodSync(place, 0o755);
  const [home, box] = [join(place, "home"), join(place, "bin")];
  mkdirSync(home);
  chmodSync(home, 0o777);
  mkdirSync(box);
  const scripts = options.scripts ?? {};
  for (const name of [...tools, "curl", "wget"]) {
    const path = Bun.which(name);
    if (path === null || options.without?.includes(name) || Object.hasOwn(scripts, name)) continue;
    symlinkSync(path, join(box, name));
  }
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(box, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  const child = Bun.spawn([...start, Bun.which("sh")!, join(release, "install.sh"), ...args], {
    env: { HOME: home, PATH: box, ...options.env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: 60_000,
  });
  const [code, stdout, stderr] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  const files = readdirSync(home, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(home.length + 1));
  return { code, stdout, stderr, home, files };
}

function isWritable(path: string): boolean {
  return spawnSync("test", ["-w", path]).status === 0;
}

const user =
  process.platform === "win32"
    ? "skipped: needs sh: "
    : isRoot && peerMissing("setpriv")
      ? "skipped: needs setpriv: "
      : !isRoot && isWritable("/usr/local/bin")
        ? "skipped: needs a user who cannot write to /usr/local/bin: "
        : "";

/** `uname` of another machine. */
function machine(system: string, processor: string, more: Record<string, string> = {}) {
  const uname = `case $1 in -s) echo ${system} ;; -m) echo ${processor} ;; esac`;
  // The machine that runs the tests may have musl, or may be 32-bit.
  return { scripts: { uname, ldd: "echo glibc", getconf: "echo 64", sysctl: "exit 1", ...more } };
}

describe.skipIf(user !== "")(`${user}install.sh`, () => {
  const musl = { ldd: "echo 'musl libc (x86_64)' >&2; exit 1" };
  test.each([
    ["linux-x64", machine("Linux", "x86_64")],
    ["linux-arm64", machine("Linux", "aarch64")],
    ["linux-x64-musl", machine("Linux", "x86_64", musl)],
    ["linux-arm64-musl", machine("Linux", "aarch64", musl)],
    ["darwin-x64", machine("Darwin", "x86_64")],
    ["darwin-arm64", machine("Darwin", "arm64")],
    ["darwin-arm64", machine("Darwin", "x86_64", { sysctl: "echo 1" })],
  ] as const)("installs frames for %s", async (target, options) => {
    const { code, stdout, stderr, home, files } = await install(options);
    expect([code, stderr, files]).toEqual([0, "", [".local/bin/frames"]]);
    const path = join(home, ".local/bin");
    expect(stdout.split("\n")).toEqual([
      `Getting frames-${target}.tar.gz from file://${release}`,
      `Installed ${path}/frames: frames ${version} for ${target}, SHA-256 as in SHA256SUMS`,
      `${path} is not on PATH. Add this line to ~/.profile and open a new terminal:`,
      `  export PATH="${path}:$PATH"`,
      "",
    ]);
    expect(statSync(join(path, "frames")).mode & 0o777).toBe(0o755);
  });

  const linux = machine("Linux", "x86_64");

  test("replaces a frames that is there, and tells of another that comes first on PATH", async () => {
    const first = await install(linux);
    const path = join(first.home, ".local/bin");
    writeFileSync(join(path, "frames"), "an old one");
    const box = join(first.home, "../bin");
    const env = { HOME: first.home, PATH: `${box}:${path}` };
    const again = await install({ ...linux, env });
    expect([again.code, again.stderr]).toEqual([0, ""]);
    expect(again.stdout).not.toContain("PATH");
    expect(readFileSync(join(path, "frames"), "utf8")).toBe(standIn("linux-x64"));
    writeFileSync(join(box, "frames"), "#!/bin/sh\n", { mode: 0o755 });
    const hidden = await install({ ...linux, env });
    expect(hidden.stdout).toEndWith(`Note: ${box}/frames comes first on PATH; remove it\n`);
  });

  for (const tool of ["curl", "wget"]) {
    const other = tool === "curl" ? "wget" : "curl";
    const missing = peerMissing(tool) ? `skipped: needs ${tool}: ` : "";
    test.skipIf(missing !== "")(`${missing}downloads over HTTP with ${tool}`, async () => {
      await using server = serveFolder(release);
      const address = `${server.url}`;
      const { code, stdout, stderr } = await install({ ...linux, address, without: [other] });
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).toContain(`frames ${version} for linux-x64`);
      const absent = await install({ ...linux, address: `${address}no`, without: [other] });
      expect([absent.code, absent.files]).toEqual([1, []]);
      expect(absent.stderr).toMatch(
        /^install: Cannot get http:\/\/127.0.0.1:\d+\/no\/SHA256SUMS: .*; check the address, try again\n$/,
      );
    });
  }

  /** Changes a copy of the release, and gives its address. */
  async function changed(change: (path: string) => void | Promise<void>): Promise<string> {
    const path = mkdtempSync(join(folder, "changed-"));
    chmodSync(path, 0o755);
    for (const name of readdirSync(release)) {
      writeFileSync(join(path, name), readFileSync(join(release, name)));
    }
    await change(path);
    return `file://${path}`;
  }

  const archive = "frames-linux-x64.tar.gz";

  const failures: Record<string, [string | RegExp, () => Promise<Installation> | Installation]> = {
    "no address": [
      "Give it the address of a release: sh install.sh https://HOST/PATH",
      () => ({ args: [] }),
    ],
    "two addresses": [
      "Give it the address of a release: sh install.sh https://HOST/PATH",
      () => ({ args: ["file:///a", "file:///b"] }),
    ],
    "an address of another kind": [
      'An address begins with https://, http:// or file:///, this one is "ftp://host"',
      () => ({ address: "ftp://host" }),
    ],
    "another processor": [
      "There is no frames for Linux on riscv64, only for x64 and arm64",
      () => machine("Linux", "riscv64"),
    ],
    "another system": [
      "There is no frames for FreeBSD, only for Linux, macOS and Windows",
      () => machine("FreeBSD", "amd64"),
    ],
    "a 32-bit system on a 64-bit kernel": [
      "This system is 32-bit; install a 64-bit one (for a Raspberry Pi: the 64-bit image)",
      () => machine("Linux", "aarch64", { getconf: "echo 32" }),
    ],
    Windows: [
      `On Windows unpack file://${release}/frames-windows-x64.zip and put frames.exe on PATH`,
      () => machine("MINGW64_NT-10.0", "x86_64"),
    ],
    "neither curl nor wget": [
      "Needs curl or wget to download; install curl, then try again",
      () => ({ ...linux, address: "https://127.0.0.1:1/", without: ["curl", "wget"] }),
    ],
    "no tar": [
      "Needs tar to unpack the archive; install tar, then try again",
      () => ({ ...linux, without: ["tar"] }),
    ],
    "no program for SHA-256": [
      "Needs sha256sum or shasum; install one, then try again",
      () => ({ ...linux, without: ["sha256sum", "shasum"] }),
    ],
    "no SHA256SUMS": [
      /^Cannot get file:.*SHA256SUMS: .*; check the address, try again$/,
      async () => ({ ...linux, address: await changed((path) => rmSync(`${path}/SHA256SUMS`)) }),
    ],
    "no sum for its archive": [
      /^file:.*\/SHA256SUMS does not name frames-linux-x64.tar.gz; check the address$/,
      async () => ({
        ...linux,
        address: await changed((path) =>
          writeFileSync(`${path}/SHA256SUMS`, `${"0".repeat(64)}  ${archive}.other\n`),
        ),
      }),
    ],
    "no archive": [
      /^Cannot get file:.*frames-linux-x64.tar.gz: .*; check the address, try again$/,
      async () => ({ ...linux, address: await changed((path) => rmSync(`${path}/${archive}`)) }),
    ],
    "a damaged archive": [
      /^frames-linux-x64.tar.gz is damaged: its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64}; try again$/,
      async () => ({
        ...linux,
        address: await changed((path) => {
          const bytes = readFileSync(`${path}/${archive}`);
          bytes[bytes.length >> 1]! ^= 1;
          writeFileSync(`${path}/${archive}`, bytes);
        }),
      }),
    ],
    "an archive that is none": [
      /^Cannot unpack frames-linux-x64.tar.gz: .*; make room in .*, then try again$/,
      async () => ({
        ...linux,
        address: await changed((path) => {
          writeFileSync(`${path}/${archive}`, "no archive");
          const sum = Bun.CryptoHasher.hash("sha256", "no archive", "hex");
          writeFileSync(`${path}/SHA256SUMS`, `${sum}  ${archive}\n`);
        }),
      }),
    ],
    "an executable that does not start": [
      "frames does not start here: libc is too old; it needs glibc 2.17 and a processor with SSE4.2",
      async () => ({
        ...linux,
        address: await changed(async (path) => {
          await makeRelease(path, () => "#!/bin/sh\necho libc >&2\necho is too old\nexit 1\n");
        }),
      }),
    ],
    "no home folder": [
      "Cannot write to /usr/local/bin, and HOME is not set; try again as root",
      () => ({ ...linux, env: { HOME: "" } }),
    ],
    "a home folder that cannot be written": [
      "Cannot write to /proc/1/.local/bin; try again as root",
      () => ({ ...linux, env: { HOME: "/proc/1" } }),
    ],
  };
  for (const [name, [message, options]] of Object.entries(failures)) {
    test(`with ${name} says what to do, and leaves nothing`, async () => {
      const { code, stderr, files } = await install(await options());
      expect([code, files]).toEqual([1, []]);
      expect(stderr).toMatch(/^install: .*\n$/);
      const text = stderr.slice("install: ".length, -1);
      if (typeof message === "string") expect(text).toBe(message);
      else expect(text).toMatch(message);
    });
  }

  test("with a download that breaks off keeps the frames that is there", async () => {
    const address = await changed((path) => {
      const bytes = readFileSync(`${path}/${archive}`);
      writeFileSync(`${path}/${archive}`, bytes.subarray(0, bytes.length >> 1));
    });
    const first = await install(linux);
    const path = join(first.home, ".local/bin");
    const again = await install({ ...linux, address, env: { HOME: first.home } });
    expect(again.code).toBe(1);
    expect(again.stderr).toContain("is damaged");
    expect(readdirSync(path)).toEqual(["frames"]);
    expect(readFileSync(join(path, "frames"), "utf8")).toBe(standIn("linux-x64"));
  });

  const systemPath = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
  const mount = spawnSync("unshare", ["--mount", "mount", "--bind", "/usr", "/usr"]).status === 0;
  const asRoot = mount ? "" : "skipped: needs mount: ";
  test.skipIf(!mount)(`${asRoot}installs to /usr/local/bin if it can write there`, async () => {
    const place = mkdtempSync(join(folder, "local-"));
    const script = `mount --bind "$0" /usr/local/bin && exec "$@"`;
    const start = ["unshare", "--mount", Bun.which("sh")!, "-c", script, place];
    const { code, stdout, stderr, files } = await install({ start, env: systemPath });
    expect([code, stderr, files]).toEqual([0, "", []]);
    expect(stdout).toContain(`Installed /usr/local/bin/frames: frames ${version} for `);
    expect(stdout).toContain("/usr/local/bin is not on PATH");
    expect(readdirSync(place)).toEqual(["frames"]);
  });

  const here = `${process.platform}-${process.arch}` as Target;
  const foreign = Object.hasOwn(targets, here) ? "" : "skipped: needs Linux or macOS: ";
  test.skipIf(foreign !== "")(`${foreign}installs the real executable, which runs`, async () => {
    const path = join(folder, "real");
    await writeRelease(path, { [here]: executable });
    await using server = serveFolder(path);
    const { code, stdout, stderr, home } = await install({ address: `${server.url}` });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain(`: frames ${version}, SHA-256`);
    const { stdout: shown } = spawnSync(join(home, ".local/bin/frames"), ["version"]);
    expect(`${shown}`).toBe(`frames ${version}\n`);
  });
});

function serveFolder(path: string) {
  return Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch({ url }) {
      const file = Bun.file(join(path, new URL(url).pathname));
      return (await file.exists()) ? new Response(file) : new Response("None", { status: 404 });
    },
  });
}
