// Files that hold secrets: who may read them, and changes by several processes at once.

import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  lstatSync,
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
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { makeCertificate } from "../../src/auth/certificate.ts";
import { FileLock } from "../../src/common/file-lock.ts";
import { FramesError } from "../../src/errors.ts";
import {
  addKey,
  createFirstKey,
  generateKey,
  KeyRing,
  readKeys,
  removeKey,
} from "../../src/keys/key-file.ts";
import { readCertificate } from "../../src/keys/certificate-file.ts";
import { readSecret, updateSecret } from "../../src/keys/secret-file.ts";
import { temporaryFolder } from "../helper/program.ts";
import { within } from "../helper/time.ts";

const windows = process.platform === "win32";
const isRoot = process.getuid?.() === 0;

function entry(name: string) {
  return { name, key: generateKey(), role: "both", streams: "*" } as const;
}

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return error instanceof FramesError ? error.code : String(error);
  }
}

describe.skipIf(windows)("modes", () => {
  const pair = makeCertificate(
    generateKeyPairSync("ec", { namedCurve: "P-256" }),
    randomBytes(16),
    new Date(),
  );
  const readers: [what: string, read: (path: string) => unknown][] = [
    ["a key file", (path) => readKeys(path)],
    ["the key file of a server", (path) => new KeyRing({ path })],
    [
      "the private key of a certificate",
      (path) => {
        writeFileSync(`${path}.crt`, pair.certificate);
        return readCertificate(`${path}.crt`, path);
      },
    ],
  ];
  for (const [what, read] of readers) {
    test(`${what} is refused if other users can read or change it, and used if only its owner can`, () => {
      const path = join(temporaryFolder(), "secret");
      if (what.startsWith("the private")) writeFileSync(path, pair.key);
      else addKey(path, entry("one"), false);
      for (const mode of [0o600, 0o400, 0o700]) {
        chmodSync(path, mode);
        expect(codeOf(() => read(path))).toBeUndefined();
      }
      for (const mode of [0o644, 0o640, 0o604, 0o620, 0o602, 0o601]) {
        chmodSync(path, mode);
        expect(codeOf(() => read(path))).toBe("usage");
      }
    });
  }

  test("a private key that becomes readable is not loaded again", () => {
    const path = join(temporaryFolder(), "key.pem");
    writeFileSync(path, pair.key, { mode: 0o600 });
    writeFileSync(`${path}.crt`, pair.certificate);
    expect(codeOf(() => readCertificate(`${path}.crt`, path))).toBeUndefined();
    chmodSync(path, 0o644);
    expect(() => readCertificate(`${path}.crt`, path)).toThrow(
      "other users can read it; run chmod 600",
    );
  });

  test("a file in systemd's credentials folder may be readable by the group, and by no others", () => {
    const folder = temporaryFolder();
    const path = join(folder, "key.pem");
    writeFileSync(path, "secret");
    const before = process.env["CREDENTIALS_DIRECTORY"];
    process.env["CREDENTIALS_DIRECTORY"] = folder;
    try {
      for (const mode of [0o400, 0o440]) {
        chmodSync(path, mode);
        expect(readSecret(path)?.text).toBe("secret");
      }
      chmodSync(path, 0o444);
      expect(codeOf(() => readSecret(path))).toBe("usage");
    } finally {
      if (before === undefined) delete process.env["CREDENTIALS_DIRECTORY"];
      else process.env["CREDENTIALS_DIRECTORY"] = before;
    }
  });

  test.skipIf(!isRoot)(
    "a service may read a private key of root through its group, but no key file",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "frames-key-"));
      chmodSync(folder, 0o755);
      const path = join(folder, "key.pem");
      writeFileSync(path, "secret");
      chownSync(path, 0, 65534);
      const module = JSON.stringify(join(import.meta.dir, "../../src/keys/secret-file.ts"));
      const script = `
        const { readSecret } = await import(${module});
        process.setgid(65534);
        process.setuid(65534);
        for (const allowsGroupOfRoot of [true, false]) {
          try {
            console.log(readSecret(${JSON.stringify(path)}, { allowsGroupOfRoot }).text);
          } catch (error) {
            console.log(error.code);
          }
        }`;
      const read = async () => {
        const child = Bun.spawn([process.execPath, "-e", script], { stderr: "inherit" });
        return (await new Response(child.stdout).text()).trim().split("\n");
      };
      chmodSync(path, 0o640);
      expect(await read()).toEqual(["secret", "usage"]);
      chmodSync(path, 0o644);
      expect(await read()).toEqual(["usage", "usage"]);
      rmSync(folder, { recursive: true });
    },
  );

  test.skipIf(!isRoot)(
    "root refuses its own private key if a group can read it, as of any user",
    () => {
      const path = join(temporaryFolder(), "key.pem");
      writeFileSync(path, "secret");
      chmodSync(path, 0o640);
      expect(codeOf(() => readSecret(path, { allowsGroupOfRoot: true }))).toBe("usage");
    },
  );
});

const certificateModule = JSON.stringify(
  join(import.meta.dir, "../../src/keys/certificate-file.ts"),
);

/** Runs `script` in processes of its own, all at once. Returns what each wrote. */
async function inProcesses(scripts: readonly string[]): Promise<string[]> {
  const module = JSON.stringify(join(import.meta.dir, "../../src/keys/key-file.ts"));
  const children = scripts.map((script) =>
    Bun.spawn([process.execPath, "-e", `const keys = await import(${module}); ${script}`], {
      stdio: ["ignore", "pipe", "inherit"],
    }),
  );
  return await within(
    Promise.all(
      children.map(async (child) => {
        const text = await new Response(child.stdout).text();
        expect(await child.exited).toBe(0);
        return text;
      }),
    ),
    () => "the processes did not end",
  );
}

const adding = (path: string, name: string) => `
  keys.addKey(${JSON.stringify(path)},
    { name: "${name}", key: keys.generateKey(), role: "both", streams: "*" }, false);`;

describe("changes by several processes at once", () => {
  test("every key that was added is in the file, and every key that was removed is not", async () => {
    const path = join(temporaryFolder(), "keys");
    for (let number = 1; number <= 6; number++) addKey(path, entry(`old${number}`), false);
    const names = Array.from({ length: 6 }, (_, index) => index + 1);
    await inProcesses(
      names.flatMap((number) => [
        adding(path, `new${number}`),
        `keys.removeKey(${JSON.stringify(path)}, "old${number}");`,
      ]),
    );
    const found = readKeys(path).map(({ name }) => name);
    expect(found.sort()).toEqual(names.map((number) => `new${number}`));
    // Nothing but the file and its lock stays.
    expect(readdirSync(join(path, "..")).sort()).toEqual(["keys", "keys.lock"]);
  });

  test("of several processes that make the first key, one does", async () => {
    const path = join(temporaryFolder(), "keys");
    const script = `
      const key = keys.createFirstKey(${JSON.stringify(path)}, "default");
      process.stdout.write(key?.text ?? "none");`;
    const made = await inProcesses([script, script, script, script]);
    const [first, ...rest] = made.filter((text) => text !== "none");
    expect(rest).toEqual([]);
    expect(readKeys(path).map(({ key }) => key.text)).toEqual([first!]);
    expect(createFirstKey(path, "default")).toBeUndefined();
  });

  test("servers that start at once share one certificate", async () => {
    const folder = temporaryFolder();
    const script = `
      process.env.XDG_CONFIG_HOME = ${JSON.stringify(folder)};
      const files = await import(${certificateModule});
      process.stdout.write(files.loadOrCreateCertificate(new Date(), () => {}).certificate);`;
    const texts = await inProcesses([script, script, script]);
    const certificates = texts.map((text) => /-----BEGIN CERTIFICATE[^]*/.exec(text)![0]);
    expect(new Set(certificates).size).toBe(1);
  });

  test("a server that reads the file while keys are added sees only whole files", async () => {
    const path = join(temporaryFolder(), "keys");
    addKey(path, entry("first"), false);
    const ring = new KeyRing({ path });
    let reloads = 0;
    const reading = { isDone: false };
    const reader = (async () => {
      while (!reading.isDone) {
        // A part of a line would be an error, and a file without the first key a loss.
        if (ring.reload()) reloads++;
        expect(readKeys(path)[0]?.name).toBe("first");
        await Bun.sleep(0);
      }
    })();
    await inProcesses(["a", "b", "c", "d"].map((name) => adding(path, name)));
    reading.isDone = true;
    await reader;
    ring.reload();
    expect(reloads).toBeGreaterThan(0);
    expect(readKeys(path)).toHaveLength(5);
  });

  test("a change that cannot be made leaves the file, and the lock free", () => {
    const path = join(temporaryFolder(), "keys");
    addKey(path, entry("one"), false);
    const before = readFileSync(path, "utf8");
    expect(codeOf(() => addKey(path, entry("one"), false))).toBe("usage");
    expect(codeOf(() => removeKey(path, "two"))).toBe("usage");
    expect(readFileSync(path, "utf8")).toBe(before);
    new FileLock(`${path}.lock`, 0).release();
  });
});

test.skipIf(windows)("a link to a key file stays, and its target is changed", () => {
  const folder = temporaryFolder();
  const [path, link] = [join(folder, "keys"), join(folder, "link")];
  addKey(path, entry("one"), false);
  symlinkSync(path, link);
  addKey(link, entry("two"), false);
  expect(lstatSync(link).isSymbolicLink()).toBe(true);
  expect(readKeys(path).map(({ name }) => name)).toEqual(["one", "two"]);
});

describe.skipIf(!isRoot)("files of another user", () => {
  const nobody = 65534;

  test("a file that root changes stays with its owner, and its lock too", () => {
    const folder = join(temporaryFolder(), "theirs");
    mkdirSync(folder);
    chownSync(folder, nobody, nobody);
    const path = join(folder, "keys");
    writeFileSync(path, "old", { mode: 0o600 });
    chownSync(path, nobody, nobody);
    updateSecret(path, () => "new");
    expect(readFileSync(path, "utf8")).toBe("new");
    for (const name of ["keys", "keys.lock"]) {
      expect(statSync(join(folder, name))).toMatchObject({ uid: nobody, mode: 0o100600 });
    }
  });

  test("a key file that another user made in a shared folder is neither trusted nor changed", () => {
    const folder = join(temporaryFolder(), "shared");
    mkdirSync(folder);
    chmodSync(folder, 0o1777);
    const path = join(folder, "keys");
    addKey(path, entry("theirs"), false);
    chownSync(path, nobody, nobody);
    expect(() => readKeys(path)).toThrow("belongs to another user");
    expect(() => addKey(path, entry("mine"), false)).toThrow("belongs to another user");
  });
});
