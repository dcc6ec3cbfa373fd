/** What decoding needs of bytes. */

/** Gives memory back at once: the garbage collector may be late where thousands of peers stop. */
export function releaseBuffer(bytes: Uint8Array): void {
  (bytes.buffer as ArrayBuffer).transfer(0);
}

/** The unsigned number in 4 bytes. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return (
    bytes[at]! * 0x100_0000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!)
  );
}

/** The unsigned number in 8 bytes; beyond 2^53 it is not exact. */
export function readUint64(bytes: Uint8Array, at: number): number {
  return readUint32(bytes, at) * 0x1_0000_0000 + readUint32(bytes, at + 4);
}
