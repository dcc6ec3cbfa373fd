// Packs the executables of dist/ into the files that a release offers for download: an archive for
// each platform, SHA256SUMS, install.sh, and NOTES.md from CHANGELOG.md.
//
//   bun .ci/build.ts && bun .ci/release.ts
//
// Offered are the archives, SHA256SUMS and install.sh. The same executables make the same bytes.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { version } from "../package.json" with { type: "json" };
import { type Target, targets } from "./build.ts";

const root = join(import.meta.dir, "..");

/** Fastest compressor of Bun; higher levels take twice the time for one percent. */
const compression = { library: "libdeflate", level: 6 } as const;

interface ArchiveFile {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Permissions, such as 0o755. */
  readonly mode: number;
}

/** Name of the archive for a platform. It has no version, so that links to the latest release stay. */
export function archiveName(target: Target): string {
  return `frames-${target}${target.startsWith("windows") ? ".zip" : ".tar.gz"}`;
}

/**
 * Writes the files of a release to `folder`, with an archive for each of these executables.
 *
 * @returns a line with the sizes of each archive
 */
export async function writeRelease(
  folder: string,
  executables: Partial<Record<Target, string>>,
): Promise<string[]> {
  const notes = cutNotes(await Bun.file(join(root, "CHANGELOG.md")).text(), version);
  mkdirSync(folder, { recursive: true });
  const documents: ArchiveFile[] = [];
  for (const name of ["LICENSE", "README.md"]) {
    documents.push({ name, bytes: await Bun.file(join(root, name)).bytes(), mode: 0o644 });
  }
  const lines: string[] = [];
  let sums = "";
  for (const [target, path] of Object.entries(executables) as [Target, string][]) {
    const isWindows = target.startsWith("windows");
    const bytes = await Bun.file(path).bytes();
    const files = [{ name: isWindows ? "frames.exe" : "frames", bytes, mode: 0o755 }, ...documents];
    const archive = isWindows ? zip(files) : await tarGz(files);
    const name = archiveName(target);
    await Bun.write(join(folder, name), archive);
    sums += `${Bun.CryptoHasher.hash("sha256", archive, "hex")}  ${name}\n`;
    const sizes = [archive.length, bytes.length].map((size) => (size / 1e6).toFixed(1));
    lines.push(`dist/${name.padEnd(30)} ${sizes[0]} MB, installed ${sizes[1]} MB`);
  }
  await Bun.write(join(folder, "SHA256SUMS"), sums);
  await Bun.write(join(folder, "install.sh"), Bun.file(join(root, ".ci/install.sh")));
  await Bun.write(join(folder, "NOTES.md"), notes);
  return lines;
}

/**
 * Returns the section of a version.
 *
 * @throws if the changelog does not begin with it
 */
export function cutNotes(changelog: string, version: string): string {
  const [heading, ...lines] = changelog.split(/^## /m)[1]?.split("\n") ?? [];
  if (heading?.split(/[, ]/)[0] !== version) {
    throw new Error(`Cannot write NOTES.md: CHANGELOG.md does not begin with ${version}`);
  }
  return `${lines.join("\n").trim()}\n`;
}

/** Bun.Archive writes mode 644 and the current time. Both are replaced: the time is 1980-01-01. */
async function tarGz(files: readonly ArchiveFile[]): Promise<Uint8Array> {
  const entries = Object.fromEntries(files.map(({ name, bytes }) => [name, bytes]));
  const tar = Buffer.from((await new Bun.Archive(entries).bytes()).buffer);
  let at = 0;
  for (const { bytes, mode } of files) {
    tar.write(`${mode.toString(8).padStart(6, "0")} \0`, at + 100);
    tar.write(`${(Date.UTC(1980) / 1000).toString(8).padStart(11, "0")} `, at + 136);
    tar.fill(" ", at + 148, at + 156);
    const sum = tar.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
    tar.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148);
    at += 512 + Math.ceil(bytes.length / 512) * 512;
  }
  return Bun.gzipSync(tar, compression);
}

/** Bun has no writer for ZIP. Entries are deflated, their names ASCII, their time 1980-01-01. */
function zip(files: readonly ArchiveFile[]): Uint8Array {
  const entries: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, bytes, mode } of files) {
    const packed = Bun.deflateSync(bytes, compression);
    // Version 2.0, no flags, method 8, time 0, date 1980-01-01.
    const shared = Buffer.from("1400000008000000210000000000000000000000000000000000", "hex");
    shared.writeUInt32LE(Bun.hash.crc32(bytes), 10);
    shared.writeUInt32LE(packed.length, 14);
    shared.writeUInt32LE(bytes.length, 18);
    shared.writeUInt16LE(name.length, 22);
    // Made by Unix, so that the permissions count.
    const central = Buffer.from("504b01021403", "hex");
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(((0o100000 | mode) << 16) >>> 0, 6);
    tail.writeUInt32LE(offset, 10);
    directory.push(central, shared, tail, Buffer.from(name));
    const entry = Buffer.concat([
      Buffer.from("504b0304", "hex"),
      shared,
      Buffer.from(name),
      packed,
    ]);
    entries.push(entry);
    offset += entry.length;
  }
  const list = Buffer.concat(directory);
  const end = Buffer.from("504b0506000000000000000000000000000000000000", "hex");
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(list.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...entries, list, end]);
}

if (import.meta.main) {
  const dist = join(root, "dist");
  const paths = Object.entries(targets).map(([target, name]) => [target, join(dist, name)]);
  const missing = paths.find(([, path]) => !(Bun.file(path!).size > 0));
  if (missing !== undefined) {
    console.error(`release: there is no ${missing[1]}; make it with: bun run build`);
    process.exit(1);
  }
  for (const line of await writeRelease(dist, Object.fromEntries(paths))) console.log(line);
}
