// Locks between processes, and whole files in place of others.
//
// Covers: common/replace-file.ts

import { expect, test } from "bun:test";
import {
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { FileLock } from "../../src/common/file-lock.ts";
import { replaceFile } from "../../src/common/replace-file.ts";
import { systemCode } from "../../src/errors.ts";
import { temporaryFolder } from "../helper/program.ts";
import { within } from "../helper/time.ts";

const isRoot = process.getuid?.() === 0;

/** Script of a process that takes the lock at `path` and holds it. */
function scriptFor(path: string): string {
  const module = join(import.meta.dir, "../../src/common/file-lock.ts");
  return `
    const { FileLock } = await import(${JSON.stringify(module)});
    globalThis.lock = new FileLock(${JSON.stringify(path)}, 0);
    process.stdout.write("held");
    setInterval(() => {}, 1000);`;
}

/** A process that holds the lock at `path` until it is killed. */
async function holder(path: string): Promise<Bun.Subprocess> {
  const script = scriptFor(path);
  const child = Bun.spawn([process.execPath, "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const reader = child.stdout.getReader();
  const { value } = await within(reader.read(), () => "the other process did not take the lock");
  expect(new TextDecoder().decode(value)).toBe("held");
  return child;
}

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return systemCode(error) ?? String(error);
  }
}

test("a lock that another process holds is not taken, and is free once that process was killed", async () => {
  const path = join(temporaryFolder(), "lock");
  const child = await holder(path);
  expect(codeOf(() => new FileLock(path, 0))).toBe("SQLITE_BUSY");
  child.kill("SIGKILL");
  await child.exited;
  const lock = new FileLock(path, 0);
  expect(codeOf(() => new FileLock(path, 0))).toBe("SQLITE_BUSY");
  lock.release();
  new FileLock(path, 0).release();
});

test("a second try in one process does not release the lock that the process holds", async () => {
  const path = join(temporaryFolder(), "lock");
  const lock = new FileLock(path, 0);
  expect(codeOf(() => new FileLock(path, 0))).toBe("SQLITE_BUSY");
  const child = Bun.spawn([process.execPath, "-e", scriptFor(path)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = await within(
    new Response(child.stderr).text(),
    () => "the other process did not end",
  );
  expect(said).toContain("SQLITE_BUSY");
  lock.release();
});

test.skipIf(process.platform === "win32")(
  "a link in place of the lock is not followed, and nothing is made at its target",
  () => {
    const folder = temporaryFolder();
    const [target, path] = [join(folder, "target"), join(folder, "lock")];
    symlinkSync(target, path);
    expect(codeOf(() => new FileLock(path, 0))).toBe("ELOOP");
    expect(existsSync(target)).toBe(false);
  },
);

test.skipIf(!isRoot)("a lock that root makes belongs to the owner of its folder", () => {
  const folder = join(temporaryFolder(), "of-another");
  mkdirSync(folder);
  chownSync(folder, 65534, 65534);
  const path = join(folder, "lock");
  new FileLock(path, 0).release();
  expect(statSync(path)).toMatchObject({ uid: 65534, gid: 65534, mode: 0o100600 });
  // A file that was there keeps its owner: it may be another name of one of root's files.
  const precious = join(temporaryFolder(), "precious");
  writeFileSync(precious, "");
  linkSync(precious, join(folder, "second"));
  new FileLock(join(folder, "second"), 0).release();
  expect(statSync(precious).uid).toBe(0);
});

test("a file is replaced as a whole, and stays if writing the new one fails", () => {
  const folder = temporaryFolder();
  const path = join(folder, "file");
  // What a killed process left is deleted.
  writeFileSync(`${path}.part`, "half");
  replaceFile(path, 0o600, (file) => writeFileSync(file, "first"));
  expect(readFileSync(path, "utf8")).toBe("first");
  const fail = () => {
    throw new Error("no space");
  };
  expect(() => replaceFile(path, 0o600, fail)).toThrow("no space");
  expect(readFileSync(path, "utf8")).toBe("first");
  expect(readdirSync(folder)).toEqual(["file"]);
});

test.skipIf(process.platform === "win32")(
  "a link in place of the new file is removed and not followed",
  () => {
    const folder = temporaryFolder();
    const [target, path] = [join(folder, "target"), join(folder, "file")];
    writeFileSync(target, "precious");
    symlinkSync(target, `${path}.part`);
    replaceFile(path, 0o600, (file) => writeFileSync(file, "new"));
    expect(readFileSync(target, "utf8")).toBe("precious");
    expect(statSync(path).mode & 0o777).toBe(0o600);
  },
);
