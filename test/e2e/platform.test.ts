// The executable on another processor, and in folders with configuration files of other programs.

import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  executable,
  peerMissing,
  run,
  sameTree,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";

const root = join(import.meta.dir, "../..");
const arm = join(root, "dist/frames-linux-arm64");
const libraries = "/usr/aarch64-linux-gnu";

function makeTree(): string {
  const tree = join(temporaryFolder(), "run7");
  for (const [folder, count, size] of [
    ["visible", 30, 20_000],
    ["infrared", 2, 1_500_001],
    ["größe/日本", 1, 0],
  ] as const) {
    mkdirSync(join(tree, folder), { recursive: true });
    for (let number = 1; number <= count; number++) {
      const bytes = Buffer.alloc(size, `${folder} ${number} `);
      writeFileSync(join(tree, folder, `${number}.png`), bytes);
    }
  }
  return tree;
}

const emulation =
  process.platform !== "linux"
    ? "skipped: needs Linux: "
    : peerMissing("qemu-aarch64-static")
      ? "skipped: needs qemu-user-static: "
      : !existsSync(libraries)
        ? "skipped: needs libc6-arm64-cross: "
        : "";

test.skipIf(emulation !== "")(
  `${emulation}the executable for 64-bit ARM serves and sends a tree byte for byte`,
  async () => {
    buildForArm();
    const command = ["qemu-aarch64-static", "-L", libraries, arm];
    const tree = makeTree();
    const server = await startServer({ dir: temporaryFolder(), command });
    try {
      const args = ["send", tree, "--to", `127.0.0.1:${server.port}`, "--json"];
      const sent = await run(args, { command });
      expect(sent.stderr).toContain("33 frames delivered");
      expect(sent.code).toBe(0);
      expect(sameTree(tree, join(server.dir, "run7"))).toEqual([]);
      // A sender for this processor speaks the same protocol.
      const other = await run([...args, "--stream", "from-here"]);
      expect(other.code).toBe(0);
      expect(sameTree(tree, join(server.dir, "from-here"))).toEqual([]);
      const listed = await run(["ls", "--dir", server.dir, "--json"], { command });
      expect(listed.stdout.trim().split("\n")).toHaveLength(6);
    } finally {
      expect(await server.stop()).toBe(0);
    }
  },
);

/** Builds it if missing or older than the executable for this machine. */
function buildForArm(): void {
  if (existsSync(arm) && statSync(arm).mtimeMs >= statSync(executable).mtimeMs) return;
  const words = [join(root, ".ci/build.ts"), "linux-arm64"];
  const built = spawnSync(process.execPath, words, { encoding: "utf8" });
  expect([built.status, built.stderr]).toEqual([0, ""]);
}

describe("Settings for other programs in the current folder", () => {
  const folder = temporaryFolder();
  const trace = join(folder, "preloaded");
  writeFileSync(join(folder, "preload.ts"), `await Bun.write(${JSON.stringify(trace)}, "ran");\n`);
  const preload = `preload = ["./preload.ts"]\n`;
  writeFileSync(join(folder, "bunfig.toml"), `${preload}[run]\n${preload}[test]\n${preload}`);
  // If one of these files was read, sending would fail or use another name.
  const settings = "FRAMES_TO=127.0.0.1:1\nFRAMES_STREAM=wrong\nFRAMES_TIMEOUT=never\n";
  const environments = [".env", ".env.local", ".env.production", ".env.development"];
  for (const name of environments) writeFileSync(join(folder, name), settings);
  writeFileSync(join(folder, "package.json"), `{"name": "other", "main": "./preload.ts"}`);
  writeFileSync(join(folder, "tsconfig.json"), "{ this is not JSON");
  const tree = makeTree();
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("bun itself reads the .env and bunfig.toml of the current folder", async () => {
    // Checks that the folder has an effect at all, because the tests below would pass without one.
    const program = "console.log(process.env.FRAMES_TO)";
    const ran = await run(["-e", program], { cwd: folder, command: [process.execPath] });
    expect(ran.stdout).toBe("127.0.0.1:1\n");
    expect(existsSync(trace)).toBe(true);
    rmSync(trace);
  });

  test("frames send ignores .env, bunfig.toml and other settings in the current folder", async () => {
    // The server runs in another folder, because this tests the sender's settings.
    const server = await startServer({ dir: temporaryFolder() });
    try {
      // Set as a real environment variable, which a .env file would imitate.
      const env = { FRAMES_TO: `127.0.0.1:${server.port}` };
      const sent = await run(["send", tree], { cwd: folder, env });
      expect([sent.code, sent.code === 0 ? "" : sent.stderr]).toEqual([0, ""]);
      expect(readdirSync(server.dir).filter((name) => !name.startsWith("."))).toEqual(["run7"]);
      expect(sameTree(tree, join(server.dir, "run7"))).toEqual([]);
    } finally {
      await server.stop();
    }
    expect(existsSync(trace)).toBe(false);
  });

  test("frames serve ignores .env, bunfig.toml and other settings in the current folder", async () => {
    const command = ["sh", "-c", `cd "$0" && exec "$@"`, folder, executable];
    const server = await startServer({ dir: join(folder, "store"), command });
    expect(server.port).not.toBe(1);
    expect(await server.stop()).toBe(0);
    expect(existsSync(trace)).toBe(false);
  });
});
