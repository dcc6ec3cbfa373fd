/** What people use to move a folder of frames, each as a pair of programs on loopback. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { environment, executable, peerMissing, startServer } from "../helper/program.ts";

/** One way to move a folder. */
export interface Rival {
  readonly name: string;
  /** The program that is not on this machine, if one is missing. */
  readonly missing: string | undefined;
  /** Whether what was moved before is not moved again. */
  readonly resumes: boolean;
  /** Starts whatever receives below `to`. */
  receive(to: string): Promise<Receiving>;
}

/** A receiving end that is ready. */
export interface Receiving {
  /** Moves the frames in `from`. */
  move(from: string): Promise<Moved>;
  stop(): Promise<void>;
}

/** What a move took. */
export interface Moved {
  /** Where the copies are. */
  readonly folder: string;
  /** From the start of the sending program until all is in place. */
  readonly seconds: number;
  /** Of both ends. */
  readonly cpuSeconds: number;
}

function missing(...commands: string[]): string | undefined {
  return commands.find(peerMissing);
}

/** A free port of loopback. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function answers(port: number): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    try {
      const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
      socket.terminate();
      return;
    } catch {
      await Bun.sleep(25);
    }
  }
  throw new Error(`nothing answers at port ${port}`);
}

interface Ended {
  seconds: number;
  cpuSeconds: number;
}

/** Runs a shell command to its end. */
async function timed(command: string[]): Promise<Ended> {
  const started = performance.now();
  const child = Bun.spawn(command, { env: environment(), stdio: ["ignore", "ignore", "pipe"] });
  const [code, said] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  const seconds = (performance.now() - started) / 1000;
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${said}`);
  return { seconds, cpuSeconds: cpuOf(child) };
}

function cpuOf(child: Bun.Subprocess): number {
  return Number(child.resourceUsage()!.cpuTime.total) / 1e6;
}

/** CPU seconds so far of a process and of its children that have ended. */
function cpuSoFar(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]!.split(" ");
  const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0);
  return ticks / 100;
}

const frames: Rival = {
  name: "frames",
  missing: undefined,
  resumes: true,
  async receive(to) {
    const server = await startServer({ dir: to });
    return {
      async move(from) {
        const before = cpuSoFar(server.process.pid);
        const send = [executable, "send", from, "--quiet", "--to", `127.0.0.1:${server.port}`];
        const sent = await timed(send);
        const cpu = cpuSoFar(server.process.pid) - before;
        const folder = join(to, basename(from));
        return { folder, seconds: sent.seconds, cpuSeconds: sent.cpuSeconds + cpu };
      },
      stop: async () => void (await server.stop()),
    };
  },
};

const rsync: Rival = {
  name: "rsync daemon",
  missing: missing("rsync"),
  resumes: true,
  async receive(to) {
    const port = await freePort();
    const settings = join(to, "rsyncd.conf");
    const folder = join(to, "received");
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      settings,
      `use chroot = no\nread only = no\nuid = ${process.getuid!()}\ngid = ${process.getgid!()}\n[in]\npath = ${folder}\n`,
    );
    const daemon = Bun.spawn(
      [
        "rsync",
        "--daemon",
        "--no-detach",
        `--config=${settings}`,
        `--port=${port}`,
        "--address=127.0.0.1",
      ],
      { stdio: ["ignore", "ignore", "ignore"] },
    );
    await answers(port);
    return {
      async move(from) {
        const before = cpuSoFar(daemon.pid);
        const target = `rsync://127.0.0.1:${port}/in/`;
        const sent = await timed(["rsync", "--archive", "--whole-file", `${from}/`, target]);
        // The daemon's child counts when the daemon has seen it end.
        await Bun.sleep(100);
        const cpu = cpuSoFar(daemon.pid) - before;
        return { folder, seconds: sent.seconds, cpuSeconds: sent.cpuSeconds + cpu };
      },
      async stop() {
        daemon.kill();
        await daemon.exited;
      },
    };
  },
};

const tar: Rival = {
  name: "tar over nc",
  missing: missing("tar", "nc"),
  resumes: false,
  async receive(to) {
    const port = await freePort();
    const folder = join(to, "received");
    mkdirSync(folder, { recursive: true });
    const receiver = Bun.spawn(
      ["sh", "-c", `nc -l -N 127.0.0.1 ${port} </dev/null | tar -xf - -C "$0"`, folder],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    await listening(port);
    return {
      async move(from) {
        const started = performance.now();
        const command = `tar -cf - -C "$0" . | nc -N 127.0.0.1 ${port}`;
        const sent = await timed(["sh", "-c", command, from]);
        if ((await receiver.exited) !== 0) throw new Error("the receiving tar failed");
        const seconds = (performance.now() - started) / 1000;
        return { folder, seconds, cpuSeconds: sent.cpuSeconds + cpuOf(receiver) };
      },
      async stop() {},
    };
  },
};

/** nc takes one connection, so it must not be asked: the table of sockets says when it listens. */
async function listening(port: number): Promise<void> {
  const entry = `:${port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A`;
  for (let tries = 0; tries < 400; tries++) {
    if (readFileSync("/proc/net/tcp", "latin1").includes(entry)) return;
    await Bun.sleep(10);
  }
  throw new Error(`nothing listens at port ${port}`);
}

const copy: Rival = {
  name: "cp -r",
  missing: missing("cp"),
  resumes: false,
  async receive(to) {
    const folder = join(to, "received");
    return {
      async move(from) {
        const ended = await timed(["cp", "-r", "--preserve=timestamps", from, folder]);
        return { folder, ...ended };
      },
      async stop() {},
    };
  },
};

export const rivals: readonly Rival[] = [frames, rsync, tar, copy];
