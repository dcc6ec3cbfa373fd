/** What a running server is to others, and what it is made of. */
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
  /** `HOST:PORT`, as `send` takes it. */
  readonly address: string;
  /** `HOST:PORT` where it speaks the article's dialect, if it does. */
  readonly article: string | undefined;
  /** `HOST:PORT` of the page, if it shows one. */
  readonly http: string | undefined;
  /** Likewise as a browser takes it. */
  readonly pageUrl: string | undefined;
  /** Whether it asks for a key, over TLS. */
  readonly isSecure: boolean;
  /** How many peers are connected. */
  readonly connections: number;
  /** How often frames were refused and connections ended, by the error. */
  readonly refusals: ReadonlyMap<ErrorName, number>;
  /**
   * Reads keys and certificate again. What cannot be read stays as it was, and `onEvent` is told; whoever
   * is connected stays, unless the key is gone.
   */
  reload(): void;
  /** Takes no more senders, lets those that are connected know, and closes the store. */
  stop(): Promise<void>;
}

/** What a server asks for, and what it shows. */
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

/** How a server behaves. Times are in milliseconds. */
export interface ServerOptions {
  /** What senders must prove, over TLS with this certificate. */
  readonly security: Security | undefined;
  /** All keys, of those who look as well: their file is read again when it changes. */
  readonly keys: KeyRing | undefined;
  readonly grants: ReceiverLimits;
  readonly timeoutMs: number;
  /** Where it listens for clients of the article's dialect, which know no key. */
  readonly article?: Address | undefined;
  /** Shows what comes, if anybody may see it. Nobody sees anything before the store is open. */
  readonly openHttpFrontend?: (() => HttpFrontend | undefined) | undefined;
  readonly onEvent: (event: ServeEvent) => void;
  readonly onStored: ((stored: StoredEvent) => void) | undefined;
}

/** A store that can be closed, and whose frames can be read. */
export type ClosableStore = FrameStore & {
  readonly contents: StoreContents;
  /** Tells of frames that others have put there. */
  readonly commitSignal?: CommitSignal;
  close(): void | Promise<void>;
  /** Removes frames after a while, but what a follower awaits. */
  readonly retention?: { readonly holds: Set<RetentionHold> } | undefined;
};
