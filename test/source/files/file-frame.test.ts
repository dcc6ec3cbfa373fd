// Files that are read while another program changes them, and files on mounts that do not answer.

import { afterEach, describe, expect, spyOn, test } from "bun:test";
import {
  appendFileSync,
  closeSync,
  openSync,
  readlinkSync,
  readdirSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import * as fs from "node:fs";
import { join } from "node:path";
import * as localDisk from "../../../src/common/local-disk.ts";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, FramePieces, Loss } from "../../../src/frame.ts";
import { DirectorySource } from "../../../src/source/files/directory-source.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { refusal } from "../../helper/refusal.ts";
import { until } from "../../helper/time.ts";

const size = 3_000_000;
const buffer = new Uint8Array(256 << 10);
const content = new Uint8Array(size);
for (let index = 0; index < size; index++) content[index] = index % 251;

type Item = Frame | Loss | undefined;

async function frameOf(item: Item | Promise<Item>): Promise<Frame> {
  const found = await item;
  if (found === undefined || "error" in found) throw found?.error ?? new Error("there is no frame");
  return found;
}

/** Creates a source of one file with an old time. */
function sourceOf(bytes: Uint8Array, name = "1.raw"): { source: DirectorySource; path: string } {
  const folder = temporaryFolder();
  const path = join(folder, name);
  writeFileSync(path, bytes);
  utimesSync(path, 1_000_000_000, 1_000_000_000);
  return { source: directoryOf(folder, name), path };
}

function directoryOf(path: string, name: string): DirectorySource {
  return new DirectorySource({ name: "visible", path, names: [name], onEvent() {} });
}

/** Reads what is at hand. */
function readNow(pieces: FramePieces): Uint8Array {
  const got: Uint8Array[] = [];
  for (let count; (count = pieces.readNow!(buffer)) > 0;) got.push(buffer.slice(0, count));
  return Buffer.concat(got);
}

async function readLater(pieces: FramePieces): Promise<Uint8Array> {
  const got: Uint8Array[] = [];
  for (let value; (value = (await pieces.next()).value) !== undefined;) got.push(value);
  return Buffer.concat(got);
}

function openFilesBelow(folder: string): number {
  return readdirSync("/proc/self/fd").filter((file) => {
    try {
      return readlinkSync(`/proc/self/fd/${file}`).startsWith(folder);
    } catch {
      return false;
    }
  }).length;
}

const spoilings: [string, (path: string) => void][] = [
  ["shrinks by a byte", (path) => truncateSync(path, size - 1)],
  ["shrinks to what was read", (path) => truncateSync(path, buffer.length)],
  ["shrinks to nothing", (path) => truncateSync(path, 0)],
  ["grows", (path) => appendFileSync(path, "x")],
  ["vanishes", (path) => rmSync(path)],
  [
    "is replaced",
    (path) => {
      writeFileSync(`${path}.new`, content);
      renameSync(`${path}.new`, path);
    },
  ],
  [
    "changes by a byte that was already read",
    (path) => {
      const file = openSync(path, "r+");
      writeSync(file, "x", 0);
      closeSync(file);
    },
  ],
  [
    "changes and gets its old modification time again",
    (path) => {
      const file = openSync(path, "r+");
      writeSync(file, "x", 0);
      closeSync(file);
      utimesSync(path, 1_000_000_000, 1_000_000_000);
    },
  ],
];

describe("a large file on a local disk", () => {
  test("its bytes are read at once, in pieces as large as the buffer", async () => {
    const { source } = sourceOf(content);
    const pieces = (await frameOf(source.next(false))).pieces();
    expect(pieces.readNow!(buffer)).toBe(buffer.length);
    expect(Buffer.compare(buffer, content.subarray(0, buffer.length))).toBe(0);
    expect(Buffer.compare(readNow(pieces), content.subarray(buffer.length))).toBe(0);
    source.close();
  });

  test("the pool reads the rest of a file whose reads have become slow", async () => {
    const { source, path } = sourceOf(content);
    const pieces = (await frameOf(source.next(false))).pieces();
    const first = pieces.readNow!(buffer);
    Object.defineProperty(source.readMode, "isSynchronous", { value: false, configurable: true });
    expect(pieces.readNow!(buffer)).toBe(0);
    const rest = await readLater(pieces);
    Reflect.deleteProperty(source.readMode, "isSynchronous");
    expect(pieces.readNow!(buffer)).toBe(0);
    expect(Buffer.compare(rest, content.subarray(first))).toBe(0);
    await until("the file to be closed", () => openFilesBelow(path) === 0);
    source.close();
  });

  for (const [what, spoil] of spoilings) {
    test(`it fails as changed and is never read to its end if it ${what} between two pieces`, async () => {
      const { source, path } = sourceOf(content);
      const pieces = (await frameOf(source.next(false))).pieces();
      let got = pieces.readNow!(buffer);
      spoil(path);
      const error = refusal(() => {
        for (let count; (count = pieces.readNow!(buffer)) > 0;) got += count;
      });
      expect(error.code).toBe("changed");
      expect(got).toBeLessThan(size);
      if (process.platform === "linux") expect(openFilesBelow(path)).toBe(0);
      source.close();
    });

    test(`it fails as changed if it ${what} between a piece and the pool's turn`, async () => {
      const { source, path } = sourceOf(content);
      const pieces = (await frameOf(source.next(false))).pieces();
      let got = pieces.readNow!(buffer);
      spoil(path);
      let error: unknown;
      try {
        for (let value; (value = (await pieces.next()).value) !== undefined;) got += value.length;
      } catch (caught) {
        error = caught;
      }
      expect((error as FramesError).code).toBe("changed");
      expect(got).toBeLessThan(size);
      source.close();
    });
  }

  test("it is closed when its pieces are given up, whether read at once or by the pool", async () => {
    const { source, path } = sourceOf(content);
    for (const begin of ["at once", "by the pool", "not"] as const) {
      const frame = await frameOf(directoryOf(source.path, "1.raw").next(true));
      const pieces = frame.pieces();
      if (begin === "at once") pieces.readNow!(buffer);
      if (begin === "by the pool") await pieces.next();
      await pieces.return!();
      expect(await pieces.next()).toEqual({ done: true, value: undefined });
      expect(pieces.readNow!(buffer)).toBe(0);
    }
    if (process.platform === "linux") {
      await until("the files to be closed", () => openFilesBelow(path) === 0);
    }
    source.close();
  });
});

describe("a file on another machine", () => {
  const spies: { mockRestore(): void }[] = [];
  afterEach(() => {
    for (const spy of spies.splice(0)) spy.mockRestore();
  });

  /** Makes every disk that of another machine, and collects the synchronous calls on files of a path. */
  function remoteCalls(path: string): string[] {
    spies.push(spyOn(localDisk, "isOnLocalDisk").mockReturnValue(false));
    const calls: string[] = [];
    for (const call of ["openSync", "readSync", "fstatSync", "lstatSync", "closeSync"] as const) {
      const real = fs[call] as (...args: unknown[]) => unknown;
      const spy = spyOn(fs, call) as unknown as {
        mockImplementation(act: typeof real): void;
        mockRestore(): void;
      };
      spy.mockImplementation((...args) => {
        if (typeof args[0] === "number" || String(args[0]).startsWith(path)) calls.push(call);
        return real(...args);
      });
      spies.push(spy);
    }
    return calls;
  }

  for (const bytes of [content, content.subarray(0, 20_000)]) {
    test(`a frame of ${bytes.length} bytes is described and read without a blocking call`, async () => {
      const { source, path } = sourceOf(bytes);
      const calls = remoteCalls(path);
      const frame = await frameOf(source.next(false));
      expect([frame.name, frame.size, frame.captured]).toEqual([
        "1.raw",
        bytes.length,
        1_000_000_000_000_000_000n,
      ]);
      expect(frame.needsPieces).toBe(true);
      expect(Buffer.compare(await readLater(frame.pieces()), bytes)).toBe(0);
      expect(await source.next(false)).toBeUndefined();
      expect(calls).toEqual([]);
      source.close();
    });
  }

  test("an empty frame needs no pieces", async () => {
    const { source, path } = sourceOf(new Uint8Array(0));
    remoteCalls(path);
    expect((await frameOf(source.next(false))).needsPieces).toBe(false);
    source.close();
  });

  for (const [what, spoil] of spoilings) {
    test(`a frame fails as changed or vanished if its file ${what} before it is read`, async () => {
      const { source, path } = sourceOf(content);
      remoteCalls(path);
      const frame = await frameOf(source.next(false));
      spoil(path);
      const error: unknown = await readLater(frame.pieces()).catch((caught: unknown) => caught);
      expect((error as FramesError).code).toBe(what === "vanishes" ? "vanished" : "changed");
      source.close();
    });
  }
});
