/** Types of HTTP authentication: keys, and the principals without a key. */
import { FramesError } from "../../errors.ts";
import type { Principal } from "../principal.ts";

/** A key of the server, as HTTP needs it. */
export interface HttpKey {
  readonly name: string;
  readonly id: string;
  /** Pattern of the streams that the key covers; `*` means all. */
  readonly streams: string;
  allows(stream: string): boolean;
  /** Whether the server still has the key, with unchanged permissions. */
  isValid(): boolean;
}

/** The server's key ring, as HTTP needs it. */
export interface HttpKeys {
  /**
   * Returns the key with this text if its role may receive.
   *
   * @throws {FramesError} `usage` if the text is no key, `not-let-in` if it is unknown,
   * `wrong-role`
   */
  find(text: string): HttpKey;
}

/** A request that has passed the Host and Origin checks. */
export interface AuthRequest {
  readonly request: Request;
  readonly url: URL;
  /** IP address of the client, without the port. */
  readonly peer: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** A client that authenticated with a key: by Bearer header or by login cookie. */
export interface KeyPrincipal extends Principal {
  readonly key: HttpKey;
}

/** Stands for the key of a server without keys. Its tokens let Foxglove's page in. */
export const openKey: HttpKey = {
  name: "",
  id: "",
  streams: "*",
  allows: () => true,
  isValid: () => true,
};

/** The keys of a server without keys. */
export const noKeys: HttpKeys = {
  find() {
    throw new FramesError("not-let-in", "The server has no keys: send none");
  },
};

/** Grants access to everything. Used by a server without keys. */
export const fullAccess: Principal = {
  keyId: "",
  canRead: () => true,
  canReadAll: true,
  signal: new AbortController().signal,
};

/** A client without a key. It may load the page's own files, `/healthz` and `/readyz`. */
export const unauthenticated: Principal = {
  keyId: "",
  canRead: () => false,
  canReadAll: false,
  signal: new AbortController().signal,
};
