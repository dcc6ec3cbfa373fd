/**
 * The floor: what it costs in Bun to move a folder, without journal, name look-ups and the other
 * promises of `frames`. Files are read into one reused buffer, and each received chunk is given back
 * at once. CRC-32 is computed while the bytes are in the processor's cache.
 *
 *     bun floor.ts receive DIR PORT
 *     bun floor.ts send DIR PORT
 *
 * A file is sent as: bytes of its path and of its content, path, content, CRC-32. After each chunk
 * the receiver tells how many files are in place. All numbers are 32-bit, little-endian.
 */
import {
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { crc32 } from "node:zlib";

const bufferBytes = 256 << 10;

/** Space for the head of a file and its path, and for a first piece that is worth reading. */
const minRoom = 4096;

async function send(folder: string, port: number): Promise<void> {
  const names = readdirSync(folder);
  const done = Promise.withResolvers<void>();
  let onDrain = (): void => {};
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, chunk) {
        if (chunk.readUInt32LE(chunk.length - 4) === names.length) done.resolve();
      },
      drain: () => onDrain(),
      close: () => done.reject(new Error("the receiver has closed the connection")),
    },
  });
  const buffer = Buffer.alloc(bufferBytes);
  let used = 0;
  const flush = async (): Promise<void> => {
    for (let sent = 0; sent < used;) {
      const accepted = socket.write(buffer, sent, used - sent);
      if (accepted < 0) throw new Error("the connection is closed");
      sent += accepted;
      if (sent < used) await new Promise<void>((resolve) => (onDrain = resolve));
    }
    used = 0;
  };
  for (const name of names) {
    const file = openSync(`${folder}/${name}`, "r");
    const { size } = fstatSync(file);
    if (bufferBytes - used < minRoom) await flush();
    const pathBytes = buffer.write(`${basename(folder)}/${name}`, used + 8);
    buffer.writeUInt32LE(pathBytes, used);
    buffer.writeUInt32LE(size, used + 4);
    used += 8 + pathBytes;
    let checksum = 0;
    for (let from = 0; from < size;) {
      if (used === bufferBytes) await flush();
      const bytes = readSync(file, buffer, used, Math.min(size - from, bufferBytes - used), from);
      checksum = crc32(buffer.subarray(used, used + bytes), checksum);
      used += bytes;
      from += bytes;
    }
    closeSync(file);
    if (bufferBytes - used < 4) await flush();
    used = buffer.writeUInt32LE(checksum, used);
  }
  await flush();
  await done.promise;
  process.exit();
}

/** Receives the files of one connection. */
class Receiver {
  readonly #folder: string;
  readonly #partial: string;
  /** Head, path or checksum, as far as it has arrived. */
  readonly #small = Buffer.alloc(minRoom);
  #part: "head" | "path" | "content" | "checksum" = "head";
  /** Bytes that this part still lacks, and bytes of it in `#small`. */
  #left = 8;
  #have = 0;
  #contentBytes = 0;
  #path = "";
  #file = -1;
  #checksum = 0;
  #files = 0;

  constructor(folder: string, number: number) {
    this.#folder = folder;
    this.#partial = join(folder, `.partial-${number}`);
  }

  /** @returns the number of files in place */
  receive(chunk: Buffer): number {
    for (let at = 0; at < chunk.length;) {
      const bytes = Math.min(this.#left, chunk.length - at);
      if (this.#part === "content") {
        this.#checksum = crc32(chunk.subarray(at, at + bytes), this.#checksum);
        if (writeSync(this.#file, chunk, at, bytes) !== bytes) throw new Error("the disk is full");
      } else {
        chunk.copy(this.#small, this.#have, at, at + bytes);
        this.#have += bytes;
      }
      at += bytes;
      this.#left -= bytes;
      if (this.#left === 0) this.#endPart();
    }
    return this.#files;
  }

  #endPart(): void {
    if (this.#part === "head") {
      this.#contentBytes = this.#small.readUInt32LE(4);
      this.#begin("path", this.#small.readUInt32LE(0));
    } else if (this.#part === "path") {
      this.#path = this.#small.toString("utf8", 0, this.#have);
      this.#file = openSync(this.#partial, "w");
      this.#checksum = 0;
      this.#begin("content", this.#contentBytes);
    } else if (this.#part === "content") {
      this.#begin("checksum", 4);
    } else {
      if (this.#small.readUInt32LE(0) !== this.#checksum) throw new Error("damaged");
      closeSync(this.#file);
      renameSync(this.#partial, `${this.#folder}/${this.#path}`);
      this.#files++;
      this.#begin("head", 8);
    }
  }

  #begin(part: "head" | "path" | "content" | "checksum", bytes: number): void {
    this.#part = part;
    this.#left = bytes;
    this.#have = 0;
    if (bytes === 0) this.#endPart();
  }
}

function receive(folder: string, port: number): void {
  let connections = 0;
  Bun.listen<Receiver>({
    hostname: "127.0.0.1",
    port,
    socket: {
      open(socket) {
        socket.data = new Receiver(folder, ++connections);
      },
      data(socket, chunk) {
        const answer = Buffer.alloc(4);
        answer.writeUInt32LE(socket.data.receive(chunk));
        socket.write(answer);
        (chunk.buffer as ArrayBuffer).transfer(0);
      },
    },
  });
}

const [, , role, folder = "", port = ""] = process.argv;
if (role === "receive") receive(folder, Number(port));
else await send(folder, Number(port));
