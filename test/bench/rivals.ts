/** Ways to move folders of frames, each as a pair of programs on loopback. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { formatKey } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { executable, peerMissing } from "../helper/program.ts";
import { cpuOf, cpuSoFar, type Ended, start, startReceiving, timed } from "./measure.ts";

/** A way to move a folder. */
export interface Rival {
  readonly name: string;
  /** Name of a required program that is not installed; undefined if all are. */
  readonly missing?: string | undefined;
  /** Whether it skips frames that have been moved before. */
  readonly resumes?: boolean;
  /** Whether one receiver takes the frames of several senders at a time. */
  readonly takesMany?: boolean;
  /** Starts the receiving program, which writes below `to`. */
  receive(to: string): Promise<Receiving>;
}

/** A running receiver. */
export interface Receiving {
  /** Port for connections through a link; undefined if the rival cannot use a link. */
  readonly port?: number;
  /**
   * Sends the frames in `from`, through the link at port `via` if given. Ends when all frames are in
   * place. Its CPU seconds are those of the sending program.
   */
  send(from: string, via?: number): Promise<Ended>;
  /** Returns the folder in which the frames in `from` arrive. */
  arrived(from: string): string;
  /** Returns the CPU seconds of the receiving program so far. */
  cpu(): number;
  /** Returns its peak memory in bytes; only of `frames`. */
  peak?(): number;
  stop(): Promise<void>;
}

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

/**
 * Waits until a program listens. Some accept a single connection, so this reads the system's socket
 * table instead of connecting.
 */
async function listening(port: number): Promise<void> {
  const entry = `:${port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A`;
  for (let tries = 0; tries < 400; tries++) {
    if (readFileSync("/proc/net/tcp", "latin1").includes(entry)) return;
    await Bun.sleep(10);
  }
  throw new Error(`nothing listens at port ${port}`);
}

/** The part of `Receiving` that is the same for each program that runs until it is stopped. */
function daemon(child: Bun.Subprocess): Pick<Receiving, "cpu" | "stop"> {
  return {
    cpu: () => cpuSoFar(child.pid),
    async stop() {
      child.kill();
      await child.exited;
    },
  };
}

/** The same for a program that ends after one transfer. */
function singleUse(receiver: Bun.Subprocess): Pick<Receiving, "cpu" | "stop"> & {
  sendWith(command: string[]): Promise<Ended>;
} {
  return {
    cpu: () => (receiver.exitCode === null ? 0 : cpuOf(receiver)),
    async stop() {},
    async sendWith(command) {
      const started = performance.now();
      const sent = await timed(command);
      if ((await receiver.exited) !== 0) throw new Error(`the receiver of ${command[0]} failed`);
      return { ...sent, seconds: (performance.now() - started) / 1000 };
    },
  };
}

/**
 * An executable of `frames`.
 *
 * @param withKey sends over TLS 1.3, with a key that both ends prove
 */
export function framesRival(name: string, program = executable, withKey = false): Rival {
  return {
    name,
    resumes: !withKey,
    takesMany: !withKey,
    async receive(to) {
      const keys = join(to, "keys");
      if (withKey) {
        const entry = { name: "bench", key: generateKey(), role: "both", streams: "*" } as const;
        writeFileSync(keys, formatKey(entry), { mode: 0o600 });
      }
      const key = withKey ? ["--key-file", keys] : [];
      const store = join(to, "store");
      const server = await startReceiving(store, key, program);
      return {
        port: server.port,
        send(from, via = server.port) {
          const address = `127.0.0.1:${via}`;
          return timed([program, "send", from, "--quiet", ...key, "--to", address]);
        },
        arrived: (from) => join(store, basename(from)),
        cpu: () => cpuSoFar(server.process.pid),
        peak: server.peakMemory,
        stop: async () => void (await server.stop()),
      };
    },
  };
}

/** What Bun itself needs for the job, without the promises of `frames`. */
const floor: Rival = {
  name: "floor",
  takesMany: true,
  async receive(to) {
    const port = await freePort();
    const script = join(import.meta.dir, "floor.ts");
    const receiver = start([process.execPath, script, "receive", to, String(port)]);
    await listening(port);
    return {
      send(from) {
        mkdirSync(join(to, basename(from)));
        return timed([process.execPath, script, "send", from, String(port)]);
      },
      arrived: (from) => join(to, basename(from)),
      ...daemon(receiver),
    };
  },
};

const rsync: Rival = {
  name: "rsync daemon",
  missing: missing("rsync"),
  resumes: true,
  takesMany: true,
  async receive(to) {
    const port = await freePort();
    const settings = join(to, "rsyncd.conf");
    const folder = join(to, "received");
    mkdirSync(folder);
    writeFileSync(
      settings,
      `use chroot = no\nread only = no\nuid = ${process.getuid!()}\ngid = ${process.getgid!()}\n[in]\npath = ${folder}\n`,
    );
    const server = start([
      "rsync",
      "--daemon",
      "--no-detach",
      `--config=${settings}`,
      `--port=${port}`,
      "--address=127.0.0.1",
    ]);
    await listening(port);
    return {
      port,
      send(from, via = port) {
        return timed(["rsync", "--archive", "--whole-file", from, `rsync://127.0.0.1:${via}/in/`]);
      },
      arrived: (from) => join(folder, basename(from)),
      ...daemon(server),
    };
  },
};

const tar: Rival = {
  name: "tar over nc",
  missing: missing("tar", "nc"),
  async receive(to) {
    const port = await freePort();
    const folder = join(to, "received");
    mkdirSync(folder);
    const command = `nc -l -N 127.0.0.1 ${port} </dev/null | tar -xf - -C "$0"`;
    const { sendWith, ...receiving } = singleUse(start(["sh", "-c", command, folder]));
    await listening(port);
    return {
      send: (from) => sendWith(["sh", "-c", `tar -cf - -C "$0" . | nc -N 127.0.0.1 ${port}`, from]),
      arrived: () => folder,
      ...receiving,
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
  async receive(to) {
    const port = await freePort();
    const folder = join(to, "received");
    mkdirSync(folder);
    const script = join(import.meta.dir, "request-reply.py");
    const receiver = start([python, script, "receive", String(port), folder]);
    const { sendWith, ...receiving } = singleUse(receiver);
    await listening(port);
    return {
      send: (from) => sendWith([python, script, "send", String(port), from]),
      arrived: () => folder,
      ...receiving,
    };
  },
};

const sshd = "/usr/sbin/sshd";

const scp: Rival = {
  name: "scp -r",
  missing: existsSync(sshd) ? missing("scp", "ssh-keygen") : "openssh-server",
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
      send: (from) =>
        timed([
          ...["scp", "-r", "-p", "-q", "-F", "none", "-i", join(keys, "user")],
          ...["-P", String(port), ...options.flatMap((option) => ["-o", option])],
          ...[from, `127.0.0.1:${folder}`],
        ]),
      arrived: () => folder,
      ...daemon(server),
    };
  },
};

export const rivals: readonly Rival[] = [
  framesRival("frames"),
  framesRival("frames, TLS", executable, true),
  floor,
  rsync,
  tar,
  zeroMq,
  scp,
];
