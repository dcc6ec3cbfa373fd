/** Types of a running server: its public interface, its options and its store. */
import type { CommitSignal } from "../store/journal/commit-signal.ts";
import type { Certificate } from "../auth/certificate.ts";
import type { ErrorName } from "../errors.ts";
import type { FrameStore } from "../frame.ts";
import type { KeyRing } from "../keys/key-file.ts";
import type { Address } from "../net/address.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import type { StoreContents } from "../store/store-contents.ts";
import type { RetentionHold } from "../store/directory/retention.ts";
import type { HttpFrontend } from "./http-frontend.ts";

/** A running server. */
export interface Server {
  /** Absolute path of the store, or `s3://BUCKET/PREFIX`. */
  readonly directory: string;
  readonly host: string;
  readonly port: number;
  /** `HOST:PORT`, in the form that `send` accepts. */
  readonly address: string;
  /** `HOST:PORT` of the article's dialect, if enabled. */
  readonly article: string | undefined;
  /** `HOST:PORT` of the page, if enabled. */
  readonly http: string | undefined;
  /** URL of the page for a browser on this machine. */
  readonly pageUrl: string | undefined;
  /** Whether clients must prove a key, over TLS. */
  readonly isSecure: boolean;
  /** Number of connected clients. */
  readonly connections: number;
  /** Number of refused frames and failed connections, by error. */
  readonly refusals: ReadonlyMap<ErrorName, number>;
  /**
   * Reads keys and certificate again, and reports the result to `onEvent`. If reading fails, the
   * old values stay in use. Connections stay open unless their key was removed or changed.
   */
  reload(): void;
  /** Stops accepting, sends ERROR to connected clients, and closes the store. */
  stop(): Promise<void>;
}

/** The keys that a server requires, and its certificate. */
export interface Security {
  readonly keys: KeyRing;
  readonly certificate: Certificate;
  /**
   * Reads the certificate again.
   *
   * @throws {FramesError} `usage` or `missing`
   */
  readonly reloadCertificate: () => Certificate;
}

/** Options of `FrameServer`. Times are in milliseconds. */
export interface ServerOptions {
  /**
   * Keys that clients must prove, over TLS with this certificate. Undefined: plain TCP without
   * keys.
   */
  readonly security: Security | undefined;
  /**
   * All keys, including keys only for HTTP clients. The key file is read again when it changes.
   */
  readonly keys: KeyRing | undefined;
  readonly grants: ReceiverLimits;
  readonly timeoutMs: number;
  /** Address of the listener for the article's dialect, which has no keys. */
  readonly article?: Address | undefined;
  /** Opens the HTTP front end, if enabled. It answers no request before the store is open. */
  readonly openHttpFrontend?: (() => HttpFrontend | undefined) | undefined;
  readonly onEvent: (event: ServeEvent) => void;
  readonly onStored: ((stored: StoredEvent) => void) | undefined;
}

/** A store that can be read and closed. */
export type ClosableStore = FrameStore & {
  readonly contents: StoreContents;
  /** Signals frames that other servers have stored in the same bucket. */
  readonly commitSignal?: CommitSignal;
  close(): void | Promise<void>;
  /** Removes old frames, except frames that a hold still needs. */
  readonly retention?: { readonly holds: Set<RetentionHold> } | undefined;
};
