/** Queues bytes that a socket has not accepted yet. */

/** The part of a socket that a WriteQueue uses. */
export interface Writable {
  /** Returns the bytes accepted: 0 if none, negative if the socket is closed. */
  write(bytes: Uint8Array, offset: number, length: number): number;
}

/**
 * Writes to a socket in order. Bytes that the socket did not accept are kept by reference. The
 * caller must not change them until the queue is empty. The queue has no limit of its own, so
 * callers check `queuedBytes`: a sender sends only while it is 0, a server stops reading above a
 * limit.
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

  /** Writes `bytes` after the queued bytes. */
  send(bytes: Uint8Array): void {
    const accepted = this.#queuedBytes === 0 ? this.#write(bytes) : 0;
    if (accepted === bytes.length) return;
    this.#queue.push(accepted === 0 ? bytes : bytes.subarray(accepted));
    this.#queuedBytes += bytes.length - accepted;
  }

  /**
   * Writes queued bytes once the socket is writable.
   *
   * @returns whether the queue is empty
   */
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

  /** Drops the queue, because the socket is closed. */
  clear(): void {
    this.#queue.length = 0;
    this.#queuedBytes = 0;
  }

  #write(bytes: Uint8Array): number {
    let written = 0;
    while (written < bytes.length) {
      const length = Math.min(bytes.length - written, maxWriteBytes);
      // Bun throws for an offset above 0 without a length, so all three arguments are passed.
      const accepted = Math.max(0, this.#socket.write(bytes, written, length));
      written += accepted;
      if (accepted < length) break;
    }
    return written;
  }
}

// On Windows a refused write of 128 KiB or more is reported writable only at the next 15.6 ms tick.
const maxWriteBytes = process.platform === "win32" ? 64 << 10 : Infinity;
