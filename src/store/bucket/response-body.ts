/** Reads bodies of answers up to a limit. */

/**
 * Returns the bytes of a body; undefined if it has more than `maxBytes`, without reading it all.
 * Null is an empty body.
 *
 * @param declaredBytes length that the head of the answer gives
 */
export async function readAtMost(
  body: AsyncIterable<Uint8Array> | null,
  maxBytes: number,
  declaredBytes = 0,
): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body ?? []) {
    length += chunk.length;
    // Leaving the loop cancels the rest.
    if (Math.max(length, declaredBytes) > maxBytes) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}
