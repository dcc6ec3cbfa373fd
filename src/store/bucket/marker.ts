/**
 * Reads and creates the object that marks a bucket as a store, and tests what the engine supports.
 */
import { parseObject } from "../../common/json-object.ts";
import { FramesError } from "../../errors.ts";
import type { S3 } from "./s3.ts";

const markerPath = ".frames/store";
const markerFormat = "frames-bucket/1";
const maxMarkerBytes = 64 << 10;

/**
 * Opens or creates the marker, and tests that the engine honours conditional writes.
 *
 * @returns the identity of the store
 * @throws {FramesError} `store`
 */
export async function openStoreMarker(s3: S3): Promise<string> {
  const write = () => {
    const marker = JSON.stringify({ format: markerFormat, identity: randomId() });
    const bytes = new TextEncoder().encode(marker);
    return s3.put(markerPath, bytes, { condition: "new", type: "application/json" });
  };
  const first = await write();
  // The object exists now, so a second conditional write must fail.
  if (first.outcome === "stored" && (await write()).outcome === "stored") {
    throw new FramesError(
      "store",
      `Cannot keep frames in ${s3.location}: its engine ignores If-None-Match: *, and would replace frames; use Amazon S3, Ceph 16 or later, or MinIO`,
    );
  }
  const bytes = await s3.bytes(markerPath, maxMarkerBytes);
  const identity = parseIdentity(bytes);
  if (identity !== undefined) {
    // Replacing the marker with the same bytes detects how the engine expects the ETag in If-Match.
    const head = await s3.head(markerPath);
    await s3.put(markerPath, bytes!, { condition: { etag: head!.etag }, type: "application/json" });
    return identity;
  }
  throw new FramesError(
    "store",
    `Cannot keep frames in ${s3.location}: ${markerPath} was written by another version of frames; install that version, or choose another prefix`,
  );
}

function parseIdentity(bytes: Uint8Array | undefined): string | undefined {
  const { format, identity } = parseObject(new TextDecoder().decode(bytes)) ?? {};
  return format === markerFormat && typeof identity === "string" ? identity : undefined;
}

/**
 * Reads the marker of an existing store.
 *
 * @returns the identity of the store
 * @throws {FramesError} `missing` if there is no store, `store` if it cannot be read
 */
export async function readStoreMarker(s3: S3): Promise<string> {
  const identity = parseIdentity(await s3.bytes(markerPath, maxMarkerBytes));
  if (identity !== undefined) return identity;
  throw new FramesError(
    "missing",
    `Cannot read ${s3.location}: it contains no store of frames; check bucket and prefix`,
  );
}

/** Returns a random id of 32 hexadecimal digits. */
export function randomId(): string {
  return crypto.randomUUID().replaceAll("-", "");
}
