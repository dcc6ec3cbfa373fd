// The first screen of README.md and its Python program, run by a normal user in an empty folder.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { adopt, executable, freePort, sameTree, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";

const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
const firstScreen = readme.slice(0, readme.indexOf("\n## "));
/** Commands of the first screen, each with the output below it. */
const commands = [...firstScreen.matchAll(/^\$ (.*)\n((?:(?!\$ |```).*\n)*)/gm)].map(
  ([, text, output]) => ({ text: text!, output: output! }),
);
const [, program] = /^```python thermal\.py\n([^]*?)^```/m.exec(readme) ?? [];

const python = "/usr/bin/python3";
const needsPosix = process.platform === "win32" ? "skipped: needs a POSIX shell: " : "";
const needsNumpy = hasNumpy() ? "" : "skipped: needs python3-numpy: ";

function hasNumpy(): boolean {
  try {
    return Bun.spawnSync([python, "-c", "import numpy"]).exitCode === 0;
  } catch {
    return false;
  }
}

function textOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  return new Response(stream).text();
}

/** Without rights of root. */
const asUser =
  process.getuid?.() === 0 && Bun.which("setpriv") !== null
    ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    : [];

describe.skipIf(needsPosix !== "")(`${needsPosix}the README's`, () => {
  const [port, page] = [freePort(), freePort()];
  const folder = temporaryFolder();
  const home = join(folder, "home");
  const bin = join(folder, "bin");
  let server: Bun.Subprocess<"ignore", "pipe", "pipe">;
  let serverSaid = "";

  function spawn(...command: string[]): Bun.Subprocess<"ignore", "pipe", "pipe"> {
    const child = Bun.spawn([...asUser, ...command], {
      cwd: home,
      env: {
        HOME: home,
        PATH: `${bin}:/usr/bin:/bin`,
        // Other servers may have the usual ports.
        FRAMES_LISTEN: `127.0.0.1:${port}`,
        FRAMES_HTTP: `127.0.0.1:${page}`,
        FRAMES_TO: `127.0.0.1:${port}`,
        FRAMES_FROM: `127.0.0.1:${port}`,
      },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    adopt(child);
    return child;
  }

  /** Replaces what differs from machine to machine and from run to run. */
  function normalize(text: string): string {
    return text
      .replaceAll(home, "/home/you")
      .replaceAll(`:${port}`, ":9726")
      .replaceAll(`:${page}`, ":9727")
      .replace(/^frames \d+\.\d+\.\d+/gm, "frames VERSION")
      .replace(/ in [\d.]+ s, [\d.]+ \w+\/s/g, " in TIME");
  }

  beforeAll(async () => {
    mkdirSync(home);
    mkdirSync(bin);
    copyFileSync(executable, join(bin, "frames"));
    for (const path of [dirname(folder), folder, bin, join(bin, "frames")]) chmodSync(path, 0o755);
    if (asUser.length > 0) chownSync(home, 65_534, 65_534);
    const { text, output } = commands[0]!;
    expect(text).toBe("frames serve");
    server = spawn("sh", "-c", `exec ${text} 2>&1`);
    void (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of server.stdout) serverSaid += decoder.decode(chunk);
    })();
    await until("the server", () => serverSaid.split("\n").length > output.split("\n").length - 1);
  });

  afterAll(() => server?.kill("SIGKILL"));

  test("first screen works in an empty folder", async () => {
    expect(normalize(serverSaid)).toBe(normalize(commands[0]!.output));
    for (const { text, output } of commands.slice(1)) {
      const child = spawn("sh", "-c", `exec 2>&1; ${text}`);
      expect([text, normalize(await textOf(child.stdout))]).toEqual([text, normalize(output)]);
      expect([text, await child.exited]).toEqual([text, 0]);
    }
    const [, receive] = /`(frames receive \w+ copy)`/.exec(firstScreen)!;
    expect(await spawn("sh", "-c", receive!).exited).toBe(0);
    expect(sameTree(join(home, "run1"), join(home, "copy"))).toEqual([]);
    const shown = await fetch(`http://127.0.0.1:${page}/streams/run1/sources/run1/latest`);
    expect(shown.status).toBe(200);
    expect(await shown.bytes()).toEqual(await Bun.file(join(home, "run1/3.pgm")).bytes());
  });

  test.skipIf(needsNumpy !== "")(
    `${needsNumpy}Python program ends, also with its server`,
    async () => {
      expect(program!.trimEnd().split("\n").length).toBeLessThanOrEqual(12);
      const numbers = Array.from({ length: 10 }, (_, shot) => `${shot + 1} ${29_315 + shot}.0\n`);
      const printed = numbers.join("");
      expect(await spawn("sh", "-c", "frames python > frames.py").exited).toBe(0);
      writeFileSync(join(home, "thermal.py"), program!);
      const first = spawn(python, "thermal.py");
      expect(await textOf(first.stdout)).toBe(printed);
      expect([await first.exited, await textOf(first.stderr)]).toEqual([0, ""]);

      const endless = program!.replace("first=10", 'args=["--give-up-after", "1"]');
      writeFileSync(join(home, "endless.py"), endless.replace(".mean())", ".mean(), flush=True)"));
      const second = spawn(python, "endless.py");
      let said = "";
      const read = (async () => {
        const decoder = new TextDecoder();
        for await (const chunk of second.stdout) said += decoder.decode(chunk);
      })();
      await until("frames of both runs", () => said === printed + printed);
      server.kill("SIGTERM");
      expect(await second.exited).toBe(1);
      await read;
      expect(said).toBe(printed + printed);
      expect(await textOf(second.stderr)).toContain("\nframes.FramesError: ");
      // It sleeps while it waits.
      expect(Number(second.resourceUsage()!.cpuTime.total) / 1e6).toBeLessThan(3);
    },
  );
});
