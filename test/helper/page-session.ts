// Runs the commands of one page, as its reader would, and writes down what they print.
//
//   bun test/helper/page-session.ts PAGE EXECUTABLE FOLDER [MILLISECONDS]
//
// FOLDER holds all that it needs and makes, at the end runs.json too.
//
// It is started in name spaces of its own (`unshare`): its ports, its host names and its processes are
// no other program's. So a page can use `frames serve` with its usual ports, and hosts such as `storage`.
// Cameras are stand-ins: ffmpeg gets a video of its own in the place of /dev/video0 and rtsp://.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { systemCode } from "../../src/errors.ts";
import { isEndless, isShown, onlyLooks, type PageCommand, pageSteps } from "./page-blocks.ts";
import { startEngine } from "./radosgw.ts";

/** What a command of a page printed. */
export interface PageRun {
  readonly command: PageCommand;
  readonly output: readonly string[];
  readonly afterStop: readonly string[] | undefined;
  readonly isAsShown: boolean;
}

/** Folder names in messages; pages show them below a home that could be the reader's. */
const shownHome = "/home/you";

/** Host names of the pages. They are no loopback addresses, so servers ask for keys there. */
const hosts =
  "127.0.0.1 localhost\n::1 localhost\n10.0.0.1 storage gpu1\n10.0.0.2 camera old-server ceph\n";

class Session {
  readonly #root: string;
  readonly #bin: string;
  readonly #patience: number;
  readonly #children: Bun.Subprocess[] = [];
  #key = "";

  constructor(executable: string, folder: string, patience: number) {
    this.#root = folder;
    this.#bin = join(folder, "bin");
    this.#patience = patience;
    mkdirSync(this.#bin);
    symlinkSync(executable, join(this.#bin, "frames"));
    this.#install("capture", capture);
    this.#useHosts();
    this.#useDevices();
    this.#useCamera();
  }

  #install(name: string, script: string): void {
    writeFileSync(join(this.#bin, name), script);
    chmodSync(join(this.#bin, name), 0o755);
  }

  #useHosts(): void {
    const file = join(this.#root, "hosts");
    writeFileSync(file, hosts);
    run("ip", "link", "set", "lo", "up");
    run("ip", "addr", "add", "10.0.0.1/24", "dev", "lo");
    run("ip", "addr", "add", "10.0.0.2/24", "dev", "lo");
    run("mount", "--bind", file, "/etc/hosts");
    run("hostname", "storage");
  }

  /** Puts a folder of devices in the place of /dev. It has a /dev/video0, which is /dev/null. */
  #useDevices(): void {
    const folder = join(this.#root, "dev");
    mkdirSync(folder);
    run("mount", "-t", "tmpfs", "dev", folder);
    for (const name of ["null", "zero", "full", "random", "urandom", "tty"]) {
      writeFileSync(join(folder, name), "");
      run("mount", "--bind", `/dev/${name}`, join(folder, name));
    }
    writeFileSync(join(folder, "video0"), "");
    run("mount", "--bind", "/dev/null", join(folder, "video0"));
    for (const [index, name] of ["stdin", "stdout", "stderr"].entries()) {
      symlinkSync(`/proc/self/fd/${index}`, join(folder, name));
    }
    symlinkSync("/proc/self/fd", join(folder, "fd"));
    mkdirSync(join(folder, "shm"));
    run("mount", "--bind", "/dev/shm", join(folder, "shm"));
    run("mount", "--rbind", folder, "/dev");
  }

  /** Has ffmpeg read a video, in its own time and without end, where a camera is named. */
  #useCamera(): void {
    const ffmpeg = Bun.which("ffmpeg");
    const ffprobe = Bun.which("ffprobe");
    if (ffmpeg === null || ffprobe === null) return;
    const video = join(this.#root, "camera.avi");
    const scene = "testsrc=size=320x240:rate=30:duration=4";
    run(ffmpeg, "-v", "error", "-f", "lavfi", "-i", scene, "-c:v", "mjpeg", video);
    const clip = join(this.#home(""), "clip.mp4");
    run(ffmpeg, "-v", "error", "-f", "lavfi", "-i", `${scene}`, "-c:v", "mpeg4", clip);
    this.#install("ffmpeg", cameraScript(ffmpeg, `-re -stream_loop -1 -i ${video}`));
    this.#install("ffprobe", cameraScript(ffprobe, `-i ${video}`));
  }

  /** Folder of a machine: its home, in which its commands run. */
  #home(machine: string): string {
    const home = join(this.#root, "home", machine === "" ? "you" : machine);
    if (existsSync(home)) return home;
    mkdirSync(join(home, ".state"), { recursive: true });
    for (const [source, ending, size] of [
      ["visible", "jpg", 20_000],
      ["infrared", "png", 9_000],
    ] as const) {
      mkdirSync(join(home, "run7", source), { recursive: true });
      for (let number = 1; number <= 3; number++) {
        const bytes = Buffer.alloc(size, `${source} ${number} `);
        writeFileSync(join(home, "run7", source, `${number}.${ending}`), bytes);
      }
    }
    return home;
  }

  write(name: string, content: string): void {
    writeFileSync(join(this.#home(""), name), content);
  }

  async run(command: PageCommand): Promise<PageRun> {
    const first = await this.#runOnce(command);
    if (first.isAsShown || !onlyLooks(command.text)) return first;
    const end = performance.now() + this.#patience;
    for (let again = first; ;) {
      if (again.isAsShown || performance.now() > end) return again;
      await Bun.sleep(100);
      again = await this.#runOnce(command);
    }
  }

  async #runOnce(command: PageCommand): Promise<PageRun> {
    const home = this.#home(command.machine);
    const [variables, status] = [join(home, ".state/variables"), join(home, ".state/status")];
    const before = existsSync(variables) ? `. ${variables}; cd "$PWD";` : "";
    const last = existsSync(status) ? `(exit ${readFileSync(status, "utf8")});` : "";
    const after = `status=$?; export -p >${variables}; echo $status >${status}`;
    const script = `exec 2>&1; set -a; ${before} ${last}\n${command.text}\n${after}`;
    const written = this.#written();
    const child = Bun.spawn(["bash", "-c", script], {
      cwd: home,
      env: {
        HOME: home,
        PATH: `${this.#bin}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin`,
        LANG: "C.UTF-8",
      },
      // A key that is asked for is the one that was shown last.
      stdin: /^frames key save\b/.test(command.text) ? new Blob([`${this.#key}\n`]) : "ignore",
      stdout: "pipe",
      stderr: "inherit",
      detached: true,
    });
    this.#children.push(child);
    let text = "";
    let isOver = false;
    const over = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of child.stdout) text += decoder.decode(chunk, { stream: true });
      await child.exited;
      isOver = true;
    })();
    const linesFrom = (start: number): string[] => {
      const lines = text
        .replace(new RegExp(`${RegExp.escape(this.#root)}/home/\\w+`, "g"), shownHome)
        .split("\n");
      if (lines.at(-1) === "") lines.pop();
      return lines.slice(start);
    };
    // What such a command shows tells that it is ready, so a page has to show something.
    const mayGoOn = isEndless(command.text) && command.expected.length > 0;
    const isComplete = (): boolean =>
      isOver || (mayGoOn && isShown(linesFrom(0), command.expected, true));
    await this.#until(isComplete);
    const output = linesFrom(0);
    let isAsShown = isComplete() && isShown(output, command.expected, !isOver);
    let afterStop: string[] | undefined;
    if (command.afterStop !== undefined) {
      // Its reader lets it do something first. A journal alone is smaller than this.
      await this.#until(() => isOver || this.#written() > written + 200_000);
      const start = output.length;
      signal(child, "SIGINT");
      await Promise.race([over, Bun.sleep(this.#patience)]);
      afterStop = linesFrom(start);
      isAsShown &&= isOver && isShown(afterStop, command.afterStop);
    }
    this.#key = /\bframes_key_[\w-]+/.exec(text)?.[0] ?? this.#key;
    return { command, output, afterStop, isAsShown };
  }

  /** Bytes of all files in the machines' folders. */
  #written(): number {
    const homes = join(this.#root, "home");
    const names = readdirSync(homes, { recursive: true, encoding: "utf8" });
    const size = (name: string): number =>
      statSync(join(homes, name), { throwIfNoEntry: false })?.size ?? 0;
    return names
      .filter((name) => !name.includes(".state"))
      .reduce((sum, name) => sum + size(name), 0);
  }

  async #until(condition: () => boolean): Promise<void> {
    const end = performance.now() + this.#patience;
    while (!condition() && performance.now() < end) await Bun.sleep(10);
  }

  /** Starts the article's server at old-server:8000. */
  async startArticleServer(): Promise<void> {
    const program = readFileSync(join(import.meta.dir, "../e2e/article/server.py"), "utf8");
    const file = join(this.#root, "server.py");
    writeFileSync(file, program.replace('("127.0.0.1", 0)', '("10.0.0.2", 8000)'));
    const command = ["/usr/bin/python3", file, join(this.#root, "article")];
    const server = Bun.spawn(command, { stdout: "pipe", stderr: "inherit", detached: true });
    this.#children.push(server);
    // It prints its port when it listens.
    await server.stdout.getReader().read();
  }

  /** Starts an S3 engine at ceph:7480, with a bucket called frames. */
  async startEngine(): Promise<void> {
    const engine = await startEngine();
    await engine.bucket("frames");
    const port = Number(new URL(engine.endpoint).port);
    const relay = [
      "socat",
      "TCP-LISTEN:7480,bind=10.0.0.2,fork,reuseaddr",
      `TCP:127.0.0.1:${port}`,
    ];
    this.#children.push(Bun.spawn(relay, { detached: true }));
  }

  async stop(): Promise<void> {
    for (const child of this.#children) signal(child, "SIGTERM");
    await Promise.race([
      Promise.all(this.#children.map((child) => child.exited)),
      Bun.sleep(this.#patience),
    ]);
  }
}

/** A program that a reader has: three PGM frames, or with `--raw` three of 64x48 16-bit samples. */
const capture = `#!/bin/sh
for number in 1 2 3; do
  if [ "$1" = --raw ]; then head -c 6144 /dev/zero; else printf 'P5 64 48 255\\n'; head -c 3072 /dev/zero; fi
done
`;

function cameraScript(program: string, input: string): string {
  return `#!/bin/bash
arguments=("$@")
isCamera=
for argument in "$@"; do case $argument in /dev/video*|rtsp://*) isCamera=1 ;; esac; done
[ -n "$isCamera" ] || exec ${program} "$@"
result=()
for ((index = 0; index < $#; index++)); do
  case "\${arguments[index]} \${arguments[index + 1]-}" in
    "-i /dev/video"*|"-i rtsp://"*) result+=(${input}); ((index++)) ;;
    "-f v4l2"|"-video_size "*|"-input_format "*|"-framerate "*|"-rtsp_flags "*) ((index++)) ;;
    "-protocol_whitelist "*) ((index++)) ;;
    *) result+=("\${arguments[index]}") ;;
  esac
done
exec ${program} "\${result[@]}"
`;
}

/** Sends a signal to a command and its children, unless they have ended. */
function signal(child: Bun.Subprocess, name: NodeJS.Signals): void {
  try {
    if (child.exitCode === null) process.kill(-child.pid, name);
  } catch (error) {
    if (systemCode(error) !== "ESRCH") throw error;
  }
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
}

if (import.meta.main) {
  const [page, executable, folder, patience = "120000"] = Bun.argv.slice(2);
  const session = new Session(executable!, folder!, Number(patience));
  const runs: PageRun[] = [];
  const text = readFileSync(page!, "utf8");
  try {
    if (text.includes("old-server")) await session.startArticleServer();
    if (text.includes("http://ceph:7480")) await session.startEngine();
    for (const step of pageSteps(text)) {
      if (step.type === "file") session.write(step.name, step.content);
      else runs.push(await session.run(step.command));
    }
  } finally {
    await session.stop();
  }
  writeFileSync(join(folder!, "runs.json"), JSON.stringify(runs));
  // Whatever still runs ends with the name space.
  process.exit(0);
}
