// Shared by tests of whole deliveries: a server for one test, a relay to it, and checks of the
// result.

import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";

import { jsonLines, type Server, startServer, temporaryFolder } from "./program.ts";
import { type RelayOptions, startRelay } from "./relay.ts";

/** One line printed with `--json`. */
export type Json = Record<string, unknown>;

/** Runs a server with a new store while `use` runs. */
export async function withServer(
  use: (server: Server) => Promise<void>,
  ...args: string[]
): Promise<void> {
  const server = await startServer({ dir: temporaryFolder(), args });
  try {
    await use(server);
  } finally {
    await server.stop();
    rmSync(server.dir, { recursive: true, force: true });
  }
}

/** Starts a relay to a server. `to` is the address for the sender. */
export async function relayTo(server: Server, options: Omit<RelayOptions, "to"> = {}) {
  const to = { host: "127.0.0.1", port: server.port };
  const relay = await startRelay({ to, ...options });
  return { relay, to: `127.0.0.1:${relay.port}`, [Symbol.dispose]: () => relay.stop() };
}

/** Returns the summary, the last line printed with `--json`. */
export function summaryOf({ stdout }: { stdout: string }): Json {
  const last = jsonLines(stdout).at(-1);
  expect(last?.["type"]).toBe("summary");
  return last!;
}

/** Expects this exit status. Shows stderr if it differs. */
export function expectCode(sent: { code: number; stderr: string }, code: number): void {
  expect([sent.code, sent.code === code ? "" : sent.stderr]).toEqual([code, ""]);
}

/** Runs a query on the journal of the store in `dir`. */
export function journal<T>(dir: string, query: string): T[] {
  const database = new Database(join(dir, ".frames/journal.sqlite"), { readonly: true });
  try {
    return database.query<T, []>(query).all();
  } finally {
    database.close();
  }
}
