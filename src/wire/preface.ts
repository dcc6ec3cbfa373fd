/** The first bytes of a peer (SPEC section 2). */
import { FramesError } from "../errors.ts";
import { preface } from "./messages.ts";

const expectedPreface = new TextEncoder().encode(preface);

/**
 * The first bytes decide at once whether a peer speaks FRAMES/1: nothing more is waited for.
 *
 * @throws {FramesError} `foreign` or `version`
 */
export function checkPreface(bytes: Uint8Array): void {
  for (let index = 0; index < bytes.length; index++) {
    if (bytes[index] === expectedPreface[index]) continue;
    const digit = bytes[index]!;
    if (index === preface.length - 1 && digit >= 0x30 && digit <= 0x39) {
      throw new FramesError(
        "version",
        `Cannot talk to the peer: it speaks FRAMES/${digit - 0x30}, this is ${preface}`,
      );
    }
    const received = JSON.stringify(Buffer.from(bytes.subarray(0, 24)).toString("latin1"));
    throw new FramesError("foreign", `expected ${preface}, received ${received}`);
  }
}
