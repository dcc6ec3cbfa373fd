/** Common ways to move a folder of frames, each as a pair of programs on loopback. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { formatKey } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { peerMissing, sameTree } from "../helper/program.ts";
import { cpuOf, cpuSoFar, deliver, type Peaks, start, startReceiving, timed } from "./measure.ts";
import { sameConcatenation } from "./corpora.ts";

/** A way to move a folder. */
export interface Rival {
  readonly name: string;
  /** Name of a required program that is not installed; undefined if all are. */
  readonly missing: string | undefined;
  /** Whether it skips frames that have been moved before. */
  readonly resumes: boolean;
  /** Starts the receiving program, which writes below `to`. */
  receive(to: string): Promise<Receiving>;
  /** Returns the differences between the frames in `from` and the arrived frames. */
  differences(from: string, arrived: string): string[];
}

/** A running receiver. */
export interface Receiving {
  /** Port for connections through a link; undefined if the rival cannot use a link. */
  readonly port?: number;
  /** Moves the frames in `from`, through the link at port `via` if given. */
  move(from: string, via?: number): Promise<Moved>;
  stop(): Promise<void>;
}

/** Result of a move. */
export interface Moved {
  /** Folder of the copies. */
  readonly folder: string;
  /** From the start of the sending program until all frames are in place. */
  readonly seconds: number;
  /** Of both ends. */
  readonly cpuSeconds: number;
  readonly peaks?: Peaks;
}

type Taken = Pick<Moved, "seconds" | "cpuSeconds">;

function missing(...commands: string[]): string | undefined {
  return commands.find(peerMissing);
}

/** Returns a free port of loopback. */
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

/** Measures a command that sends to a daemon, including the daemon's CPU time. */
async function sendTo(daemon: Bun.Subprocess, command: string[]): Promise<Taken> {
  const before = cpuSoFar(daemon.pid);
  const { seconds, cpuSeconds } = await timed(command);
  // The CPU time of the daemon's child counts once the daemon has waited for it.
  await Bun.sleep(100);
  return { seconds, cpuSeconds: cpuSeconds + cpuSoFar(daemon.pid) - before };
}

/** Measures a command whose receiver ends after the transfer. */
async function untilBothEnd(command: string[], receiver: Bun.Subprocess): Promise<Taken> {
  const started = performance.now();
  const { cpuSeconds } = await timed(command);
  if ((await receiver.exited) !== 0) throw new Error(`what ${command.join(" ")} sent to failed`);
  const seconds = (performance.now() - started) / 1000;
  return { seconds, cpuSeconds: cpuSeconds + cpuOf(receiver) };
}

const frames: Rival = {
  name: "frames",
  missing: undefined,
  resumes: true,
  differences: sameTree,
  async receive(to) {
    const server = await startReceiving(to);
    return {
      port: server.port,
      async move(from, via) {
        const delivery = await deliver(from, server, via);
        return { folder: join(to, basename(from)), ...delivery };
      },
      stop: async () => void (await server.stop()),
    };
  },
};

/** `frames` over TLS 1.3, with a key that both ends prove. */
const framesWithKey: Rival = {
  name: "frames, TLS",
  missing: undefined,
  resumes: false,
  differences: sameTree,
  async receive(to) {
    const keys = join(to, "keys");
    const entry = { name: "bench", key: generateKey(), role: "both", streams: "*" } as const;
    writeFileSync(keys, formatKey(entry), { mode: 0o600 });
    const store = join(to, "store");
    const server = await startReceiving(store, "--key-file", keys);
    return {
      async move(from) {
        const delivery = await deliver(from, server, undefined, "--key-file", keys);
        return { folder: join(store, basename(from)), ...delivery };
      },
      stop: async () => void (await server.stop()),
    };
  },
};

const rsync: Rival = {
  name: "rsync daemon",
  missing: missing("rsync"),
  resumes: true,
  differences: sameTree,
  async receive(to) {
    const port = await freePort();
    const settings = join(to, "rsyncd.conf");
    const folder = join(to, "received");
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      settings,
      `use chroot = no\nread only = no\nuid = ${process.getuid!()}\ngid = ${process.getgid!()}\n[in]\npath = ${folder}\n`,
    );
    const daemon = start([
      "rsync",
      "--daemon",
      "--no-detach",
      `--config=${settings}`,
      `--port=${port}`,
      "--address=127.0.0.1",
    ]);
    await answers(port);
    return {
      port,
      async move(from, via = port) {
        const target = `rsync://127.0.0.1:${via}/in/`;
        const command = ["rsync", "--archive", "--whole-file", `${from}/`, target];
        return { folder, ...(await sendTo(daemon, command)) };
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
  differences: sameTree,
  async receive(to) {
    const port = await freePort();
    const folder = join(to, "received");
    mkdirSync(folder, { recursive: true });
    const receiver = start([
      "sh",
      "-c",
      `nc -l -N 127.0.0.1 ${port} </dev/null | tar -xf - -C "$0"`,
      folder,
    ]);
    await listening(port);
    return {
      async move(from) {
        const command = `tar -cf - -C "$0" . | nc -N 127.0.0.1 ${port}`;
        return { folder, ...(await untilBothEnd(["sh", "-c", command, from], receiver)) };
      },
      async stop() {},
    };
  },
};

/**
 * Waits until `nc` listens. nc accepts a single connection, so this reads the system's socket table
 * instead of connecting.
 */
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
  differences: sameTree,
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

/**
 * Lower bound: a plain socket copy into a single file, without names, checksums or confirmations.
 */
const socat: Rival = {
  name: "socat, one file",
  missing: missing("cat", "socat"),
  resumes: false,
  differences: sameConcatenation,
  async receive(to) {
    const port = await freePort();
    const file = join(to, "all");
    const receiver = start(["socat", "-u", `TCP-LISTEN:${port},bind=127.0.0.1`, `CREATE:${file}`]);
    await listening(port);
    return {
      async move(from) {
        const command = `cd "$0" && cat -- * | socat -u - TCP:127.0.0.1:${port}`;
        return { folder: file, ...(await untilBothEnd(["sh", "-c", command, from], receiver)) };
      },
      async stop() {},
    };
  },
};

/** Debian's Python, which finds Debian's modules. Another Python earlier on PATH may not. */
export const python = "/usr/bin/python3";

export function hasZeroMq(): boolean {
  return existsSync(python) && Bun.spawnSync([python, "-c", "import zmq"]).exitCode === 0;
}

/** The method of imagezmq: a message for each picture, and a reply before the next. */
const zeroMq: Rival = {
  name: "ZeroMQ REQ/REP",
  missing: hasZeroMq() ? undefined : "python3-zmq",
  resumes: false,
  differences: sameTree,
  async receive(to) {
    const port = await freePort();
    const folder = join(to, "received");
    mkdirSync(folder);
    const script = join(import.meta.dir, "request-reply.py");
    const receiver = start([python, script, "receive", String(port), folder]);
    await listening(port);
    return {
      async move(from) {
        const command = [python, script, "send", String(port), from];
        return { folder, ...(await untilBothEnd(command, receiver)) };
      },
      async stop() {},
    };
  },
};

const sshd = "/usr/sbin/sshd";

const scp: Rival = {
  name: "scp -r",
  missing: existsSync(sshd) ? missing("scp", "ssh-keygen") : "openssh-server",
  resumes: false,
  differences: sameTree,
  async receive(to) {
    const port = await freePort();
    const folder = join(to, "received");
    const keys = join(to, "keys");
    mkdirSync(keys, { mode: 0o700 });
    for (const key of ["host", "user"]) {
      await timed(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", join(keys, key)]);
    }
    // Debian's sshd does not start as root without this folder.
    if (process.getuid!() === 0) mkdirSync("/run/sshd", { recursive: true });
    writeFileSync(
      join(keys, "config"),
      [
        ...[`Port ${port}`, "ListenAddress 127.0.0.1", `HostKey ${join(keys, "host")}`],
        ...[`AuthorizedKeysFile ${join(keys, "user.pub")}`, "StrictModes no", "UsePAM no"],
        ...["PidFile none", "PermitRootLogin yes", "PasswordAuthentication no"],
        "Subsystem sftp internal-sftp",
      ].join("\n"),
    );
    const server = start([sshd, "-D", "-q", "-f", join(keys, "config")]);
    await listening(port);
    const safe = ["StrictHostKeyChecking=no", `UserKnownHostsFile=${join(keys, "known")}`];
    const options = [...safe, "IdentitiesOnly=yes", "BatchMode=yes", "LogLevel=ERROR"];
    return {
      async move(from) {
        const command = ["scp", "-r", "-p", "-q", "-F", "none", "-i", join(keys, "user")];
        return {
          folder,
          ...(await sendTo(server, [
            ...command,
            ...["-P", String(port), ...options.flatMap((option) => ["-o", option])],
            ...[from, `127.0.0.1:${folder}`],
          ])),
        };
      },
      async stop() {
        server.kill();
        await server.exited;
      },
    };
  },
};

export const rivals: readonly Rival[] = [
  frames,
  framesWithKey,
  rsync,
  tar,
  zeroMq,
  scp,
  copy,
  socat,
];
