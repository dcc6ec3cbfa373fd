/** Receives frames: what programs call, and what they are told. */
import type { Certificate } from "../auth/certificate.ts";
import { parseBucketLocation, isBucketLocation } from "../store/bucket/location.ts";
import { FramesError } from "../errors.ts";
import {
  defaultKeyFile,
  createFirstKey,
  KeyRing,
  loadOrCreateCertificate,
  readCertificate,
} from "../keys/key-file.ts";
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

/** How to serve. */
export interface ServeOptions {
  /** `HOST:PORT`; port 0 lets the system choose. Default `127.0.0.1:9726`. */
  readonly listen?: string;
  /** Descriptor of a TCP socket that listens already, instead of `listen`: systemd gives such. */
  readonly descriptor?: number;
  /**
   * The keys of those who are let in, over TLS 1.3. Without it, keys are asked for on any address but
   * loopback, from the user's own key file, in which one is made if there is none.
   */
  readonly keyFile?: string;
  /** Likewise one key, as text. */
  readonly key?: string;
  /** Lets anyone who reaches the port send frames, without encryption. */
  readonly insecure?: boolean;
  /**
   * `HOST:PORT` of a second listener, for clients of the article that `frames` grew from. Its dialect
   * knows no key: beyond loopback only with `articleInsecure`.
   */
  readonly article?: string;
  /** Lets anyone who reaches the port of `article` send frames, without encryption. */
  readonly articleInsecure?: boolean;
  /**
   * `HOST:PORT` of a page that shows the frames, and of what other programs may read. Default: none. On any
   * address but loopback it asks for a key, over TLS, and so it does on loopback for keys that are given.
   */
  readonly http?: string;
  /** Whether a port of `http` that is taken is only told of: the server then runs without a page. */
  readonly httpIfFree?: boolean;
  /** PEM files of a certificate that browsers trust. Default: one that the server makes for itself. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  /** Largest frame in bytes. Default 64 MiB. */
  readonly maxFrame?: number;
  /** Refuse names that Windows and macOS cannot keep; always so on these. */
  readonly portableNames?: boolean;
  /** Flush frames and journal to the disk before their receipt, for every sender. */
  readonly durable?: boolean;
  /** Bytes of the disk that are kept free. Default: 5 %, 10 GB at most. */
  readonly reserve?: number;
  /**
   * What is kept of the frames: those that arrived within so many milliseconds, or so many bytes of those
   * that arrived last. The rest is removed. Default: all.
   */
  readonly keep?: RetentionLimit;
  /** Milliseconds after which a silent sender counts as gone. Default 30,000. */
  readonly timeout?: number;
  /** Is told what happens. */
  readonly onEvent?: (event: ServeEvent) => void;
  /** Is told of each frame that was stored; it lasts when its receipt is sent, a little later. */
  readonly onStored?: (stored: StoredEvent) => void;
}

const defaultListen = "127.0.0.1:9726";
const defaultMaxFrame = 64 << 20;
const defaultTimeout = 30_000;

/**
 * Serves a store in `directory`, which is made if it is not there, or in a bucket, `s3://BUCKET/PREFIX`, whose
 * engine and keys are those that the usual `AWS_` variables of the environment name.
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
    throw new FramesError("usage", `Cannot serve: the largest frame is ${maxFrame} bytes`);
  }
  if (!(timeoutMs > 0))
    throw new FramesError("usage", `Cannot serve: the timeout is ${timeoutMs} ms`);
  const { durable = false, reserve, keep, onEvent = () => {} } = options;
  if (keep !== undefined && !(limitAmount(keep) > 0 && limitAmount(keep) < Infinity)) {
    throw new FramesError("usage", `Cannot serve: what is to be kept is ${limitAmount(keep)}`);
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
  // That takes a while, and nobody is let in before.
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
    ["portable-names", portableNames === true, "its names are no files"],
    ["reserve", reserve !== undefined, "how full it may be is up to its engine"],
    ["keep", keep !== undefined, "let a lifecycle rule of the bucket remove what is old"],
  ] as const;
  for (const [flag, isGiven, why] of unsupported) {
    if (!isGiven) continue;
    throw new FramesError("usage", `Cannot serve a bucket with --${flag}: ${why}`);
  }
  return BucketStore.open(parseBucketLocation(location, process.env), { clock: Date.now });
}

/** @throws {FramesError} `usage` */
function listenAddress({ listen, descriptor }: ServeOptions): ListenAddress {
  if (descriptor === undefined) return parseAddress(listen ?? defaultListen, "--listen");
  if (listen !== undefined) {
    const why = "it was given a socket that listens already";
    throw new FramesError("usage", `Cannot use --listen ${listen}: ${why}`);
  }
  return { ...socketAddress(descriptor), descriptor };
}

function limitAmount(keep: RetentionLimit): number {
  return "bytes" in keep ? keep.bytes : keep.milliseconds;
}

/**
 * Whether a server with these options asks for keys.
 *
 * @throws {FramesError} `usage`
 */
export function requiresKeys(options: ServeOptions): boolean {
  const { keyFile, key, insecure = false } = options;
  const { host } = listenAddress(options);
  const isGiven = keyFile !== undefined || key !== undefined;
  if (isGiven && insecure) {
    throw new FramesError("usage", "Cannot serve both with keys and --insecure: choose one");
  }
  return isGiven || (!isLoopback(host) && !insecure);
}

/**
 * Whether those who look must have a key. On loopback only where keys were given: whoever is on this machine
 * can connect to its store's port as well, and the page must just be there.
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
 * Where the article's dialect is spoken, if it is.
 *
 * @throws {FramesError} `usage`
 */
function articleAddress({ article, articleInsecure = false }: ServeOptions): Address | undefined {
  if (article === undefined) {
    if (!articleInsecure) return undefined;
    throw new FramesError("usage", "Cannot use --article-insecure without --article HOST:PORT");
  }
  const address = parseAddress(article, "--article");
  if (!/:\d+$/.test(article)) {
    const message = `expected HOST:PORT, current value is ${JSON.stringify(article)}`;
    throw new FramesError("usage", `Cannot read --article: ${message}`);
  }
  if (articleInsecure || isLoopback(address.host)) return address;
  throw new FramesError(
    "usage",
    `Cannot serve the article's dialect at ${article}: it knows no key, so that anyone who reaches the port could send; --article-insecure allows that`,
  );
}

/** What is given to whatever shows the frames. */
interface HttpFrontendOptions {
  readonly security: Security | undefined;
  readonly onAuthFailure: (peer: string, error: FramesError) => void;
}

/**
 * Opens what shows the frames, if that is wanted.
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

/** Nobody else listens on loopback; and no browser trusts a certificate that is for nobody. */
function httpCertificate(
  host: string,
  security: Security | undefined,
  tls: ServeOptions["tls"],
): Certificate | undefined {
  if (tls !== undefined) return readCertificate(tls.certificate, tls.key);
  return isLoopback(host) ? undefined : security?.certificate;
}

/** The keys and the certificate; a user's first server makes both. */
function loadSecurity({ keyFile, key, tls, onEvent = () => {} }: ServeOptions): Security {
  const path = keyFile ?? defaultKeyFile();
  if (keyFile === undefined && key === undefined) createFirstKey(path, "default");
  const keys = new KeyRing(key === undefined ? { path } : { text: key });
  const onNotSaved = (error: FramesError) => onEvent({ type: "certificate-not-saved", error });
  if (tls === undefined) {
    const certificate = loadOrCreateCertificate(new Date(), onNotSaved);
    // It is the server's own affair, and good for as long as it runs.
    return { keys, certificate, reloadCertificate: () => certificate };
  }
  const reloadCertificate = () => readCertificate(tls.certificate, tls.key);
  return { keys, certificate: reloadCertificate(), reloadCertificate };
}
