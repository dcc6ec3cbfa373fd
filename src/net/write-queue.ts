/** What a socket has not accepted yet. */

/** The part of a socket that an outbox writes to. */
export interface Writable {
  /** Bytes accepted; 0 if none, negative if the socket is closed. */
  write(bytes: Uint8Array, offset: number, length: number): number;
}

/**
 * Writes to a socket in order and keeps what did not fit, by reference: whoever sends leaves the
 * bytes alone until the outbox is empty. It holds what it is given, so whoever sends looks at
 * `queued` first: a sender sends on only when it is 0, a server then stops reading.
 */
export class WriteQueue {
  readonly #socket: Writable;
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;

  constructor(socket: Writable) {
    this.#socket = socket;
  }

  /** Bytes that the socket has not accepted. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Sends `bytes` after all that waits. */
  send(bytes: Uint8Array): void {
    const accepted = this.#queuedBytes === 0 ? this.#write(bytes) : 0;
    if (accepted === bytes.length) return;
    this.#queue.push(accepted === 0 ? bytes : bytes.subarray(accepted));
    this.#queuedBytes += bytes.length - accepted;
  }

  /** The socket may accept more: goes on, and returns whether everything is out. */
  flush(): boolean {
    let bytes: Uint8Array | undefined;
    while ((bytes = this.#queue[0]) !== undefined) {
      const accepted = this.#write(bytes);
      this.#queuedBytes -= accepted;
      if (accepted < bytes.length) {
        this.#queue[0] = bytes.subarray(accepted);
        return false;
      }
      this.#queue.shift();
    }
    return true;
  }

  /** The socket is gone. */
  clear(): void {
    this.#queue.length = 0;
    this.#queuedBytes = 0;
  }

  #write(bytes: Uint8Array): number {
    let written = 0;
    while (written < bytes.length) {
      const length = Math.min(bytes.length - written, maxWriteBytes);
      // All three arguments: without a length, an offset above 0 makes Bun throw.
      const accepted = Math.max(0, this.#socket.write(bytes, written, length));
      written += accepted;
      if (accepted < length) break;
    }
    return written;
  }
}

// On Windows a refused write of 128 KiB or more is reported writable only at the next 15.6 ms tick.
const maxWriteBytes = process.platform === "win32" ? 64 << 10 : Infinity;
