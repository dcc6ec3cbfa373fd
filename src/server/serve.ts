/** Starts a server: the library's `serve` and its options. */
import type { Certificate } from "../auth/certificate.ts";
import { parseBucketLocation, isBucketLocation } from "../store/bucket/location.ts";
import { FramesError, usageError } from "../errors.ts";
import { loadOrCreateCertificate, readCertificate } from "../keys/certificate-file.ts";
import { createFirstKey, defaultKeyFile, KeyRing } from "../keys/key-file.ts";
import { type Address, isLoopback, parseAddress } from "../net/address.ts";
import type { ListenAddress } from "../net/listen.ts";
import { socketAddress } from "../net/systemd.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import { FrameServer } from "./server.ts";
import type { Security, Server } from "./server-options.ts";
import { BucketStore } from "../store/bucket/bucket-store.ts";
import { DirectoryStore, systemNeedsPortableNames } from "../store/directory/directory-store.ts";
import { createAuthenticator } from "./http-auth.ts";
import { defaultHttpPort, HttpFrontend } from "./http-frontend.ts";
import type { RetentionLimit } from "../store/directory/retention.ts";

/** Options of `serve`. */
export interface ServeOptions {
  /** `HOST:PORT`; port 0 lets the system choose. Default `127.0.0.1:9726`. */
  readonly listen?: string;
  /** Descriptor of a listening TCP socket, used instead of `listen`, as passed by systemd. */
  readonly descriptor?: number;
  /**
   * File of the keys that clients must prove, over TLS 1.3. Without it, the server requires keys on
   * any address but loopback. It then reads the user's own key file and creates a key there if
   * there is none.
   */
  readonly keyFile?: string;
  /** A single key as text, instead of `keyFile`. */
  readonly key?: string;
  /** Lets any client that reaches the port send frames, without encryption. */
  readonly insecure?: boolean;
  /**
   * `HOST:PORT` of a second listener, for clients of the article that `frames` grew from. Its
   * dialect has no keys, so addresses beyond loopback need `articleInsecure`.
   */
  readonly article?: string;
  /** Lets any client that reaches the port of `article` send frames, without encryption. */
  readonly articleInsecure?: boolean;
  /**
   * `HOST:PORT` of the HTTP server, with a page that shows the frames and an API. Default: none.
   * Beyond loopback it requires a key, over TLS. On loopback it requires a key only if `key` or
   * `keyFile` is set.
   */
  readonly http?: string;
  /**
   * If the port of `http` is in use, runs without a page and reports `no-page` instead of failing.
   */
  readonly httpIfFree?: boolean;
  /** PEM files of a certificate that browsers trust. Default: a self-signed certificate. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  /** Largest frame in bytes. Default 64 MiB. */
  readonly maxFrame?: number;
  /** Refuses names that Windows or macOS cannot store. Always on there. */
  readonly portableNames?: boolean;
  /** Flushes frames and journal to the disk before each receipt, for every sender. */
  readonly durable?: boolean;
  /** Bytes of the disk to keep free. Default: 5 %, at most 10 GB. */
  readonly reserve?: number;
  /**
   * Limit of the stored frames, by age in milliseconds or by total size in bytes. The oldest frames
   * beyond it are removed. Default: no limit.
   */
  readonly keep?: RetentionLimit;
  /** Milliseconds of silence after which a client is disconnected. Default 30,000. */
  readonly timeout?: number;
  /** Called for each event. */
  readonly onEvent?: (event: ServeEvent) => void;
  /**
   * Called for each stored frame. The frame is durable only once its receipt is sent, a little
   * later.
   */
  readonly onStored?: (stored: StoredEvent) => void;
}

const defaultListen = "127.0.0.1:9726";
const defaultMaxFrame = 64 << 20;
const defaultTimeout = 30_000;

/**
 * Serves a store in `directory`, which is created if missing, or in a bucket `s3://BUCKET/PREFIX`.
 * Engine and keys of a bucket come from the usual `AWS_` variables, profiles and roles.
 *
 * @throws {FramesError} `store`, `locked`, `unreachable` or `usage`
 *
 * @example
 * ```ts
 * import { send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * const pictures = [{ name: "1.pgm", bytes: new TextEncoder().encode("P5 1 1 255\n!") }];
 * await send(pictures, { to: server.address, stream: "run7", source: "visible" });
 * await server.stop();
 * ```
 */
export async function serve(directory: string, options: ServeOptions = {}): Promise<Server> {
  const address = listenAddress(options);
  const { maxFrame = defaultMaxFrame, timeout: timeoutMs = defaultTimeout } = options;
  if (!Number.isSafeInteger(maxFrame) || maxFrame < 1) {
    throw usageError(
      `Cannot serve with --max-frame ${maxFrame}: expected 1 byte or more, such as 64M`,
    );
  }
  if (!(timeoutMs > 0))
    throw usageError(`Cannot serve with a timeout of ${timeoutMs} ms: expected more than 0`);
  const { durable = false, reserve, keep, onEvent = () => {} } = options;
  if (keep !== undefined && !(limitAmount(keep) > 0 && limitAmount(keep) < Infinity)) {
    throw usageError(
      `Cannot serve with a limit of ${limitAmount(keep)} for --keep: expected more than 0`,
    );
  }
  const article = articleAddress(options);
  const isSecure = requiresKeys(options);
  const needsHttpKeys = requiresHttpKeys(options);
  const security = isSecure || needsHttpKeys ? loadSecurity(options) : undefined;
  const openHttpFrontend = httpFrontendOpener(options, {
    security: needsHttpKeys ? security : undefined,
    onAuthFailure: (peer, error) => server.onRejected(peer, error),
  });
  const openDirectory = () => {
    const portableNames = options.portableNames === true || systemNeedsPortableNames;
    const storeOptions = { portableNames, durable, reserve, keep, clock: Date.now };
    const store = new DirectoryStore(directory, storeOptions);
    const { unfinished, replaced } = store.recovery;
    if (unfinished + replaced > 0) onEvent({ type: "recovered", unfinished, replaced });
    store.retention?.start((removed) => onEvent({ type: "removed", ...removed }));
    return store;
  };
  // Opening a bucket takes a while, so it is done before listening.
  const bucket = isBucketLocation(directory) ? await openBucket(directory, options) : undefined;
  let server: FrameServer;
  try {
    server = new FrameServer(address, () => bucket ?? openDirectory(), {
      grants: {
        window: { bytes: 64 << 20, frames: 8192 },
        limits: { frame: maxFrame, sources: 10_000, unfinished: 16 },
      },
      security: isSecure ? security : undefined,
      keys: security?.keys,
      timeoutMs,
      article,
      openHttpFrontend,
      onEvent,
      onStored: options.onStored,
    });
  } catch (error) {
    await bucket?.close();
    throw error;
  }
  return server;
}

/**
 * Opens the store in a bucket.
 *
 * @throws {FramesError} `usage` or `store`
 */
async function openBucket(location: string, options: ServeOptions): Promise<BucketStore> {
  const { portableNames, reserve, keep } = options;
  const unsupported = [
    ["portable-names", portableNames === true, "object names need no such rule; leave it out"],
    ["reserve", reserve !== undefined, "its engine limits the space; leave it out"],
    ["keep", keep !== undefined, "delete old frames with a lifecycle rule of the bucket"],
  ] as const;
  for (const [flag, isGiven, why] of unsupported) {
    if (!isGiven) continue;
    throw usageError(`Cannot serve a bucket with --${flag}: ${why}`);
  }
  return BucketStore.open(parseBucketLocation(location, process.env), { clock: Date.now });
}

/** @throws {FramesError} `usage` */
function listenAddress({ listen, descriptor }: ServeOptions): ListenAddress {
  if (descriptor === undefined) return parseAddress(listen ?? defaultListen, "--listen");
  if (listen !== undefined) {
    const why = "systemd passed a socket that listens already; leave --listen out";
    throw usageError(`Cannot use --listen ${listen}: ${why}`);
  }
  return { ...socketAddress(descriptor), descriptor };
}

function limitAmount(keep: RetentionLimit): number {
  return "bytes" in keep ? keep.bytes : keep.milliseconds;
}

/**
 * Whether a server with these options requires keys.
 *
 * @throws {FramesError} `usage`
 */
export function requiresKeys(options: ServeOptions): boolean {
  const { keyFile, key, insecure = false } = options;
  const { host } = listenAddress(options);
  const isGiven = keyFile !== undefined || key !== undefined;
  if (isGiven && insecure) {
    throw usageError("Cannot serve with both a key and --insecure: leave one out");
  }
  return isGiven || (!isLoopback(host) && !insecure);
}

/**
 * Whether HTTP clients must have a key. On loopback only if keys are configured, because local
 * users can also connect to the store's port, and the page should work without setup.
 *
 * @throws {FramesError} `usage`
 */
export function requiresHttpKeys(options: ServeOptions): boolean {
  const { http, keyFile, key, insecure = false } = options;
  if (http === undefined) return false;
  const { host } = parseAddress(http, "--http", defaultHttpPort);
  const isGiven = keyFile !== undefined || key !== undefined;
  return isGiven || (!isLoopback(host) && !insecure);
}

/**
 * Returns the address for the article's dialect; undefined if it is off.
 *
 * @throws {FramesError} `usage`
 */
function articleAddress({ article, articleInsecure = false }: ServeOptions): Address | undefined {
  if (article === undefined) {
    if (!articleInsecure) return undefined;
    throw usageError("Cannot use --article-insecure alone: add --article HOST:PORT");
  }
  const address = parseAddress(article, "--article");
  if (!/:\d+$/.test(article)) {
    const message = `expected HOST:PORT, current value is ${JSON.stringify(article)}`;
    throw usageError(`Cannot read --article: ${message}`);
  }
  if (articleInsecure || isLoopback(address.host)) return address;
  throw usageError(
    `Cannot serve the article's dialect at ${article}: it has no keys, so every client could send; add --article-insecure to allow that`,
  );
}

/** Dependencies of the HTTP front end. */
interface HttpFrontendOptions {
  readonly security: Security | undefined;
  readonly onAuthFailure: (peer: string, error: FramesError) => void;
}

/**
 * Returns a function that opens the HTTP front end; undefined if `http` is off.
 *
 * @throws {FramesError} `usage` or `missing`
 */
function httpFrontendOpener(
  options: ServeOptions,
  { security, onAuthFailure }: HttpFrontendOptions,
) {
  const { http, httpIfFree = false, onEvent = () => {}, tls } = options;
  if (http === undefined) return undefined;
  const address = parseAddress(http, "--http", defaultHttpPort);
  const { host } = address;
  const certificate = httpCertificate(host, security, tls);
  const authenticator = createAuthenticator({
    host,
    keys: security?.keys,
    certificate,
    onAuthFailure,
  });
  return (): HttpFrontend | undefined => {
    try {
      return new HttpFrontend(address, authenticator, certificate);
    } catch (error) {
      if (!httpIfFree || !(error instanceof FramesError) || error.code !== "unreachable") {
        throw error;
      }
      onEvent({ type: "no-page", error });
      return undefined;
    }
  };
}

/**
 * Returns the certificate of the HTTP listener. Loopback uses plain HTTP by default, because the
 * traffic stays on this machine and browsers distrust a self-signed certificate.
 */
function httpCertificate(
  host: string,
  security: Security | undefined,
  tls: ServeOptions["tls"],
): Certificate | undefined {
  if (tls !== undefined) return readCertificate(tls.certificate, tls.key);
  return isLoopback(host) ? undefined : security?.certificate;
}

/** Loads keys and certificate. On a user's first server both are created. */
function loadSecurity({ keyFile, key, tls, onEvent = () => {} }: ServeOptions): Security {
  const path = keyFile ?? defaultKeyFile();
  if (keyFile === undefined && key === undefined) createFirstKey(path, "default");
  const keys = new KeyRing(key === undefined ? { path } : { text: key });
  const onNotSaved = (error: FramesError) => onEvent({ type: "certificate-not-saved", error });
  if (tls === undefined) {
    const certificate = loadOrCreateCertificate(new Date(), onNotSaved);
    // A self-signed certificate does not change while the server runs.
    return { keys, certificate, reloadCertificate: () => certificate };
  }
  const reloadCertificate = () => readCertificate(tls.certificate, tls.key);
  return { keys, certificate: reloadCertificate(), reloadCertificate };
}
