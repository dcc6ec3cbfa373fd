// Makes one call of the file system or of SQLite fail, so that a test can try every call in turn.

import { Database } from "bun:sqlite";
import { spyOn } from "bun:test";
import * as fs from "node:fs";
import * as promises from "node:fs/promises";
import { FramesError } from "../../src/errors.ts";

/** Errors that each call is made to fail with. */
export const fileCodes = ["EACCES", "EIO", "EMFILE", "ENOSPC", "EROFS"] as const;
export const databaseCodes = ["SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_CORRUPT"] as const;
export type FaultCode = (typeof fileCodes)[number] | (typeof databaseCodes)[number];

const fileCalls = [
  "closeSync",
  "fstatSync",
  "fsyncSync",
  "ftruncateSync",
  "futimesSync",
  "linkSync",
  "lstatSync",
  "mkdirSync",
  "openSync",
  "readFileSync",
  "readSync",
  "readdirSync",
  "renameSync",
  "rmSync",
  "rmdirSync",
  "statSync",
  "statfsSync",
  "truncateSync",
  "unlinkSync",
  "writeFileSync",
  "writeSync",
] as const;

/** Messages as long and as technical as the system's own. */
const messages: Record<string, string> = {
  SQLITE_FULL: "database or disk is full",
  SQLITE_IOERR_WRITE: "disk I/O error",
  SQLITE_CORRUPT: "database disk image is malformed",
};

/** Decides for each call whether it fails. */
export type Decide = (call: string, args: readonly unknown[]) => FaultCode | undefined;

/**
 * Counts the calls within `within`, and makes those fail that `decide` chooses. Only one may exist at a
 * time.
 */
export class SystemFaults implements Disposable {
  /** Decides about each call; no call fails while it is undefined. */
  decide: Decide | undefined;
  readonly #spies: { mockRestore(): void }[] = [];
  #isActive = false;

  constructor() {
    for (const call of fileCalls) this.#spyFileCall(call);
    const realOpen = promises.open;
    const spy = spyOn(promises, "open");
    spy.mockImplementation((async (...args: Parameters<typeof realOpen>) => {
      this.#step("open", args);
      const handle = await realOpen(...args);
      for (const call of ["sync", "datasync"] as const) {
        const real = handle[call].bind(handle);
        handle[call] = async () => {
          this.#step(call, args);
          return await real();
        };
      }
      return handle;
    }) as typeof realOpen);
    this.#spies.push(spy);
    this.#spyDatabase();
  }

  #spyFileCall(call: (typeof fileCalls)[number]): void {
    const real = fs[call] as (...args: unknown[]) => unknown;
    const spy = spyOn(fs, call) as unknown as {
      mockImplementation(act: typeof real): void;
      mockRestore(): void;
    };
    spy.mockImplementation((...args) => {
      // The system closes a file even if it then reports an error.
      if (call === "closeSync") real(...args);
      this.#step(call, args);
      return call === "closeSync" ? undefined : real(...args);
    });
    this.#spies.push(spy);
  }

  #spyDatabase(): void {
    const { run, query } = Database.prototype;
    const step = (call: string, sql: string) => this.#step(call, [sql]);
    const wrapped = new WeakSet<object>();
    Database.prototype.run = function (this: Database, ...args: Parameters<typeof run>) {
      step("run", args[0]);
      return run.apply(this, args);
    } as typeof run;
    Database.prototype.query = function (this: Database, sql: string) {
      const statement = query.call(this, sql) as unknown as Record<string, unknown>;
      if (wrapped.has(statement)) return statement;
      wrapped.add(statement);
      for (const call of ["get", "all", "run", "iterate"]) {
        const real = statement[call] as (...args: unknown[]) => unknown;
        statement[call] = (...args: unknown[]) => {
          step(`statement.${call}`, sql);
          return real.apply(statement, args);
        };
      }
      return statement;
    } as unknown as typeof query;
    this.#spies.push({
      mockRestore: () => {
        Database.prototype.run = run;
        Database.prototype.query = query;
      },
    });
  }

  #step(call: string, args: readonly unknown[]): void {
    if (!this.#isActive) return;
    const code = this.decide?.(call, args);
    if (code === undefined) return;
    const message =
      messages[code] ?? `${code}: as the system says it, ${call} '${String(args[0])}'`;
    throw Object.assign(new Error(message), { code, errno: 1, byteOffset: -1 });
  }

  /** Runs `act`; only its calls count and fail. */
  within<T>(act: () => T): T {
    this.#isActive = true;
    const end = () => void (this.#isActive = false);
    let result: T;
    try {
      result = act();
    } catch (error) {
      end();
      throw error;
    }
    if (!(result instanceof Promise)) {
      end();
      return result;
    }
    return result.finally(end) as T;
  }

  [Symbol.dispose](): void {
    for (const spy of this.#spies) spy.mockRestore();
  }
}

/** Whether a call is one of SQLite, and not of the file system. */
export function isDatabaseCall(call: string): boolean {
  return call === "run" || call.startsWith("statement.");
}

/**
 * Runs `scenario` once without a fault, and then for every call in it and every error of that kind of
 * call once with this call failing. `ROLLBACK` does not fail by itself.
 */
export async function forEachFault(
  faults: SystemFaults,
  scenario: (what: string) => Promise<void>,
): Promise<number> {
  const calls: string[] = [];
  faults.decide = (call) => void calls.push(call);
  await scenario("without a fault");
  let runs = 0;
  for (const [index, call] of calls.entries()) {
    for (const code of isDatabaseCall(call) ? databaseCodes : fileCodes) {
      let count = 0;
      let isDone = false;
      faults.decide = (_, args) => {
        if (count++ !== index || args[0] === "ROLLBACK") return undefined;
        isDone = true;
        return code;
      };
      await scenario(`${code} at call ${index}, ${call}`);
      if (isDone) runs++;
    }
  }
  faults.decide = undefined;
  return runs;
}

/** Returns why an error does not suit a user, or undefined if it does: one short line of the table. */
export function faultOf(error: unknown): string | undefined {
  if (!(error instanceof FramesError)) return `not of the table: ${Bun.inspect(error)}`;
  const { code, message } = error;
  if (code === "internal") return `internal: ${Bun.inspect(error.cause ?? error)}`;
  const isPlain = !/[\r\n]|SQLITE_|errno|as the system says|^E[A-Z]+:/.test(message);
  return isPlain && message.length <= 300 ? undefined : `not one short line: ${message}`;
}
