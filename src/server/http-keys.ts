/** Adapts the server's key ring to the HTTP authenticator. */
import { allowsStream, Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import type { KeyRing } from "../keys/key-file.ts";
import type { HttpKey, HttpKeys } from "../http/auth/access.ts";

export class KeyRingAdapter implements HttpKeys {
  readonly #ring: KeyRing;

  constructor(ring: KeyRing) {
    this.#ring = ring;
  }

  find(text: string): HttpKey {
    const key = Key.parse(text, "of this request");
    const entry = this.#ring.find(key.id);
    if (entry === undefined || !entry.key.equals(key)) {
      throw new FramesError(
        "not-let-in",
        "Refused: the key is not in the server's key file; on the server run frames key",
      );
    }
    if (entry.role === "send") {
      const hint = "on the server run frames key new NAME --role receive";
      throw new FramesError("wrong-role", `Refused: the key allows only send; ${hint}`);
    }
    return {
      name: entry.name,
      id: entry.key.id,
      streams: entry.streams,
      allows: (stream) => allowsStream(entry, stream),
      isValid: () => this.#ring.isValid(entry),
    };
  }
}
