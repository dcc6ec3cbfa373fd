/** Receives frames: what programs call, and what they are told. */
import { bucketPlace, isBucket } from "./bucket-place.ts";
import { FramesError } from "./errors.ts";
import { defaultKeyFile, firstKey, KeyRing, ownCertificate, readCertificate } from "./keys.ts";
import { type Address, isLoopback, parseAddress } from "./net/address.ts";
import type { ServeEvent, StoredEvent } from "./reception.ts";
import { FrameServer, type Server } from "./server.ts";
import { BucketStore } from "./store/bucket.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./store/directory.ts";
import type { Keep } from "./store/retention.ts";

/** How to serve. */
export interface ServeOptions {
  /** `HOST:PORT`; port 0 lets the system choose. Default `127.0.0.1:9726`. */
  readonly listen?: string;
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
  readonly keep?: Keep;
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
  const address = parseAddress(options.listen ?? defaultListen, "--listen");
  const { maxFrame = defaultMaxFrame, timeout = defaultTimeout } = options;
  if (!Number.isSafeInteger(maxFrame) || maxFrame < 1) {
    throw new FramesError("usage", `Cannot serve: the largest frame is ${maxFrame} bytes`);
  }
  if (!(timeout > 0)) throw new FramesError("usage", `Cannot serve: the timeout is ${timeout} ms`);
  const { durable = false, reserve, keep, onEvent = () => {} } = options;
  if (keep !== undefined && !(amountOf(keep) > 0 && amountOf(keep) < Infinity)) {
    throw new FramesError("usage", `Cannot serve: what is to be kept is ${amountOf(keep)}`);
  }
  const article = articleAddress(options);
  const isSecure = asksForKeys(options);
  const security = isSecure ? securityOf(options) : undefined;
  const openDirectory = () => {
    const portableNames = options.portableNames === true || systemNeedsPortableNames;
    const behaviour = { portableNames, durable, reserve, keep, clock: Date.now };
    const store = new DirectoryStore(directory, behaviour);
    const { unfinished, replaced } = store.recovery;
    if (unfinished + replaced > 0) onEvent({ type: "recovered", unfinished, replaced });
    store.retention?.start((removed) => onEvent({ type: "removed", ...removed }));
    return store;
  };
  // That takes a while, and nobody is let in before.
  const bucket = isBucket(directory) ? await openBucket(directory, options) : undefined;
  try {
    return new FrameServer(address, () => bucket ?? openDirectory(), {
      grants: {
        window: { bytes: 64 << 20, frames: 8192 },
        limits: { frame: maxFrame, sources: 10_000, unfinished: 16 },
      },
      security,
      timeout,
      article,
      onEvent,
      onStored: options.onStored,
    });
  } catch (error) {
    await bucket?.close();
    throw error;
  }
}

/**
 * Opens the store in a bucket.
 *
 * @throws {FramesError} `usage` or `store`
 */
async function openBucket(place: string, options: ServeOptions): Promise<BucketStore> {
  const { portableNames, reserve, keep } = options;
  const senseless = [
    ["portable-names", portableNames === true, "its names are no files"],
    ["reserve", reserve !== undefined, "how full it may be is up to its engine"],
    ["keep", keep !== undefined, "let a lifecycle rule of the bucket remove what is old"],
  ] as const;
  for (const [flag, isGiven, why] of senseless) {
    if (!isGiven) continue;
    throw new FramesError("usage", `Cannot serve a bucket with --${flag}: ${why}`);
  }
  return BucketStore.open(bucketPlace(place, process.env), { clock: Date.now });
}

function amountOf(keep: Keep): number {
  return "bytes" in keep ? keep.bytes : keep.milliseconds;
}

/**
 * Whether a server with these options asks for keys.
 *
 * @throws {FramesError} `usage`
 */
export function asksForKeys({ listen, keyFile, key, insecure = false }: ServeOptions): boolean {
  const { host } = parseAddress(listen ?? defaultListen, "--listen");
  const isGiven = keyFile !== undefined || key !== undefined;
  if (isGiven && insecure) {
    throw new FramesError("usage", "Cannot serve both with keys and --insecure: choose one");
  }
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

/** The keys and the certificate; a user's first server makes both. */
function securityOf({ keyFile, key, tls }: ServeOptions) {
  const path = keyFile ?? defaultKeyFile();
  if (keyFile === undefined && key === undefined) firstKey(path, "default");
  const keys = new KeyRing(key === undefined ? { path } : { text: key });
  const certificate =
    tls === undefined ? ownCertificate(new Date()) : readCertificate(tls.certificate, tls.key);
  return { keys, certificate };
}
