// HAProxy in front of several servers, configured as by a user: forwards TCP without inspecting it.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { adopt, freePort, temporaryFolder } from "./program.ts";

const program = Bun.which("haproxy") ?? Bun.which("haproxy", { PATH: "/usr/sbin:/sbin" });

/** Prefix for the name of a test that needs HAProxy; empty if it is installed. */
export const needs = program === null ? "skipped: needs haproxy: " : "";

export interface Balancer {
  readonly port: number;
  stop(): void;
}

/** Starts HAProxy and waits until it listens. */
export async function startBalancer(ports: readonly number[]): Promise<Balancer> {
  const port = freePort();
  const path = join(temporaryFolder(), "haproxy.cfg");
  const servers = ports.map((to, index) => `  server node${index} 127.0.0.1:${to} check`);
  writeFileSync(
    path,
    `global
  maxconn 1000
defaults
  mode tcp
  timeout connect 2s
  timeout client 2m
  timeout server 2m
  timeout check 2s
  retries 3
  option redispatch
  default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
frontend frames
  bind 127.0.0.1:${port}
  default_backend nodes
backend nodes
  balance roundrobin
${servers.join("\n")}
`,
  );
  const child = Bun.spawn([program!, "-f", path, "-db"], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  adopt(child);
  for (let tries = 0; ; tries++) {
    try {
      (await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })).terminate();
      break;
    } catch (error) {
      if (tries === 100 || child.exitCode !== null) throw error;
      await Bun.sleep(50);
    }
  }
  return { port, stop: () => child.kill("SIGKILL") };
}
