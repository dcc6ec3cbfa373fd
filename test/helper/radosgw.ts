// Runs a real S3 engine on loopback, without root: Ceph's radosgw with one monitor and one OSD,
// from Debian's packages ceph-mon, ceph-osd and radosgw.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { adopt, freePort, temporaryFolder } from "./program.ts";
import { hangMs, until } from "./time.ts";

const programs = ["ceph", "monmaptool", "ceph-mon", "ceph-osd", "radosgw-admin", "radosgw"];

/** Prefix for the name of a test that needs radosgw; empty if it is installed. */
export const needs = programs.some((program) => Bun.which(program) === null)
  ? "skipped: needs radosgw: "
  : "";

const keys = { accessKeyId: "frames-access", secretAccessKey: "frames-secret" } as const;

/** A running engine. */
export interface Engine {
  readonly endpoint: string;
  /** Environment with which programs find it. */
  readonly environment: Record<string, string>;
  /** Creates a bucket and returns a client for it. */
  bucket(name: string): Promise<Bun.S3Client>;
  /** Kills the gateway, as in a power failure. */
  killGateway(): Promise<void>;
  /** Restarts the gateway on the same port. */
  startGateway(): Promise<void>;
  /** Suspends the gateway with its connections open until `go` is called. */
  hangGateway(): { go(): void };
  /** Limits the bytes that the user may store; `undefined` removes the limit. */
  limit(bytes: number | undefined): Promise<void>;
  stop(): Promise<void>;
}

/** Starts an engine that stores objects in memory. */
export async function startEngine(): Promise<Engine> {
  const folder = temporaryFolder();
  for (const name of ["mon", "osd", "rgw"]) mkdirSync(join(folder, name));
  const [monitorPort, port] = [freePort(), freePort()];
  const configuration = join(folder, "ceph.conf");
  const cluster = crypto.randomUUID();
  writeFileSync(configuration, settings(folder, cluster, monitorPort, port));
  const given = ["-c", configuration];
  const map = join(folder, "monmap");
  const address = `[v2:127.0.0.1:${monitorPort}]`;
  await run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, map);
  await run("ceph-mon", ...given, "-i", "a", "--mkfs", "--monmap", map);
  const daemons = [start("ceph-mon", ...given, "-f", "-i", "a")];
  const disk = crypto.randomUUID();
  await run("ceph", ...given, "--connect-timeout", "60", "osd", "new", disk);
  await run("ceph-osd", ...given, "-i", "0", "--mkfs", "--osd-uuid", disk);
  daemons.push(start("ceph-osd", ...given, "-f", "-i", "0"));
  const user = ["--uid=frames"];
  await run(
    "radosgw-admin",
    ...given,
    ...["user", "create", ...user, "--display-name=frames"],
    ...[`--access-key=${keys.accessKeyId}`, `--secret-key=${keys.secretAccessKey}`],
  );
  const endpoint = `http://127.0.0.1:${port}`;
  let gateway: Bun.Subprocess | undefined;
  const engine: Engine = {
    endpoint,
    environment: {
      AWS_ENDPOINT_URL_S3: endpoint,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: keys.accessKeyId,
      AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
    },
    async bucket(name) {
      const options = { endpoint, region: "us-east-1", ...keys };
      // Bun has no call for creating a bucket: PUT an empty object without a bucket to /NAME.
      await new Bun.S3Client({ ...options, virtualHostedStyle: true }).write(name, "");
      return new Bun.S3Client({ ...options, bucket: name });
    },
    async killGateway() {
      gateway?.kill("SIGKILL");
      await gateway?.exited;
    },
    async startGateway() {
      gateway = start("radosgw", ...given, "-f", "-n", "client.rgw");
      await answering(endpoint);
    },
    hangGateway() {
      const child = gateway!;
      child.kill("SIGSTOP");
      return { go: () => child.kill("SIGCONT") };
    },
    async limit(bytes) {
      if (bytes === undefined) {
        await run("radosgw-admin", ...given, "quota", "disable", "--quota-scope=user", ...user);
        return;
      }
      const most = `--max-size=${bytes}`;
      await run("radosgw-admin", ...given, "quota", "set", "--quota-scope=user", ...user, most);
      await run("radosgw-admin", ...given, "quota", "enable", "--quota-scope=user", ...user);
    },
    async stop() {
      for (const daemon of [gateway, ...daemons.toReversed()]) {
        daemon?.kill("SIGKILL");
        await daemon?.exited;
      }
    },
  };
  await engine.startGateway();
  return engine;
}

function start(program: string, ...words: string[]): Bun.Subprocess {
  const child = Bun.spawn([program, ...words], { stdio: ["ignore", "ignore", "ignore"] });
  adopt(child);
  return child;
}

async function run(program: string, ...words: string[]): Promise<void> {
  const child = Bun.spawn([program, ...words], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
    timeout: hangMs,
  });
  adopt(child);
  const [code, said] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  if (code !== 0) throw new Error(`${program} ${words.join(" ")} ended with ${code}: ${said}`);
}

async function answering(endpoint: string): Promise<void> {
  const answers = async (): Promise<boolean> => {
    try {
      await fetch(endpoint, { signal: AbortSignal.timeout(2000) });
      return true;
    } catch {
      return false;
    }
  };
  await until(`an answer of ${endpoint}`, answers, 50);
}

/**
 * Returns the configuration. Without `ms mon client mode = crc` the gateway hangs if authentication
 * is off. Without `tcp_nodelay` many responses take 40 ms longer.
 */
function settings(folder: string, cluster: string, monitorPort: number, port: number): string {
  return `[global]
fsid = ${cluster}
mon host = [v2:127.0.0.1:${monitorPort}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = ${folder}
crash dir = ${folder}
admin socket = ${folder}/$name.asok
pid file =
log file = /dev/null
mon data = ${folder}/mon
mon allow pool size one = true
mon max pg per osd = 2000
mon data avail crit = 1
paxos propose interval = 0.05
osd pool default size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd data = ${folder}/osd
osd objectstore = memstore
osd class load list = *
osd class default list = *
memstore device bytes = 4294967296
rgw data = ${folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:${port} tcp_nodelay=1
rgw thread pool size = 64
rgw user quota bucket sync interval = 1
rgw bucket quota ttl = 0
debug ms = 0/0
debug osd = 0/0
debug rgw = 0/0
`;
}
