// What tests of whole deliveries share: a server for one test, a link to it, and what came of it.

import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";

import { jsonLines, type Server, startServer, temporaryFolder } from "./program.ts";
import { type RelayOptions, startRelay } from "./relay.ts";

/** What a program printed with `--json`, a line of it. */
export type Json = Record<string, unknown>;

/** Runs a server with a new store as long as `use` takes. */
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

/** A relay to a server; `to` is what a sender is given. */
export async function relayTo(server: Server, options: Omit<RelayOptions, "to"> = {}) {
  const to = { host: "127.0.0.1", port: server.port };
  const relay = await startRelay({ to, ...options });
  return { relay, to: `127.0.0.1:${relay.port}`, [Symbol.dispose]: () => relay.stop() };
}

/** The summary, which ends what `--json` prints. */
export function summaryOf({ stdout }: { stdout: string }): Json {
  const last = jsonLines(stdout).at(-1);
  expect(last?.["type"]).toBe("summary");
  return last!;
}

/** That a program ended with this code; if not, what it said is shown. */
export function expectCode(sent: { code: number; stderr: string }, code: number): void {
  expect([sent.code, sent.code === code ? "" : sent.stderr]).toEqual([code, ""]);
}

/** What the journal of the store in `dir` answers. */
export function journal<T>(dir: string, query: string): T[] {
  const database = new Database(join(dir, ".frames/journal.sqlite"), { readonly: true });
  try {
    return database.query<T, []>(query).all();
  } finally {
    database.close();
  }
}
